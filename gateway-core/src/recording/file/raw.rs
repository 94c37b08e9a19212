//! A block being filled: encoded when a record is accepted, so that a record that waits takes few bytes.

use bytes::Bytes;

use super::compact::{self, Shape, Written};
use super::format::{BLOCK_TARGET_BYTES, Item, MAX_RECORD_BYTES, Tag, put_varint, zigzag};
use crate::clock::Timestamp;
use crate::recording::Record;

/// Released bytes from this length on are kept as they are, not copied. 4 KiB: adapters copy what is smaller off their read buffers.
const SHARED_BYTES: usize = 4 * 1024;

/// Room a block begins with, in bytes: some records.
const FIRST_BYTES: usize = 1024;

/// Records, encoded, in the order in which they were accepted.
#[derive(Debug)]
pub(super) struct RawBlock {
    own: Vec<u8>,
    /// Bytes that stand between those of `own`: before which of them.
    shared: Vec<(usize, Bytes)>,
    /// Of both.
    length: usize,
    said: Written,
    pub(super) count: u32,
    /// Time of the first record, and of the last.
    pub(super) time: Timestamp,
    pub(super) last: Timestamp,
}

impl RawBlock {
    /// A block whose first record is of this time.
    pub(super) fn new(time: Timestamp) -> Self {
        Self {
            own: Vec::with_capacity(FIRST_BYTES),
            shared: Vec::new(),
            length: 0,
            said: Written::default(),
            count: 0,
            time,
            last: time,
        }
    }

    /// How many bytes it unpacks to.
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) const fn is_full(&self) -> bool {
        self.length >= BLOCK_TARGET_BYTES
    }

    /// Its bytes in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.shared.iter().map(|(end, bytes)| (*end, bytes.as_ref()));
        let last = (self.own.len(), [].as_slice());
        let mut start = 0;
        ends.chain([last]).flat_map(move |(end, bytes)| {
            let own = self.own.get(start..end).unwrap_or_default();
            start = end;
            [own, bytes]
        })
    }

    /// Appends an item; says how many bytes it takes.
    ///
    /// # Errors
    /// It cannot be encoded, or is too large; the block is as before.
    pub(super) fn push(&mut self, at: Timestamp, item: &Item) -> Result<usize, String> {
        let before = (self.own.len(), self.shared.len(), self.said.len());
        let encoded = self.encode(at, item);
        match encoded {
            Ok(length) => {
                self.length += length;
                self.count += 1;
                self.last = at;
            }
            Err(_) => {
                self.own.truncate(before.0);
                self.shared.truncate(before.1);
                self.said.truncate(before.2);
            }
        }
        encoded
    }

    fn encode(&mut self, at: Timestamp, item: &Item) -> Result<usize, String> {
        let start = self.own.len();
        let out = &mut self.own;
        let tag = Tag::of(item);
        out.push(tag as u8);
        put_varint(out, zigzag(at.as_micros().wrapping_sub(self.last.as_micros())));
        // The length is filled in afterwards, so that the body needs no buffer of its own.
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut kept = 0;
        match item {
            Item::Header(header) => json(out, header)?,
            Item::Record(record) if Shape::of(record) == Shape::Json => json(out, record)?,
            Item::Record(record) => {
                compact::encode(out, record, &mut self.said)?;
                match record {
                    Record::Released { bytes, .. } | Record::Received { bytes, .. }
                        if bytes.len() >= SHARED_BYTES =>
                    {
                        kept = bytes.len();
                        self.shared.push((out.len(), bytes.clone()));
                    }
                    Record::Released { bytes, .. } | Record::Received { bytes, .. } => {
                        out.extend_from_slice(bytes);
                    }
                    _ => {}
                }
            }
        }
        fill_length(out, length_at, kept)?;
        Ok(out.len() - start + kept)
    }
}

fn json(out: &mut Vec<u8>, value: &impl serde::Serialize) -> Result<(), String> {
    serde_json::to_writer(out, value).map_err(|e| e.to_string())
}

/// `kept`: bytes of the body that stand elsewhere.
fn fill_length(out: &mut [u8], length_at: usize, kept: usize) -> Result<(), String> {
    let length = out.len().saturating_sub(length_at + 4).saturating_add(kept);
    if length > MAX_RECORD_BYTES {
        return Err(format!("a record of {length} bytes is larger than {MAX_RECORD_BYTES}"));
    }
    if let Some(field) = out.get_mut(length_at..length_at + 4) {
        field.copy_from_slice(&(length as u32).to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::approval::Digest;
    use crate::operation::{Access, Action, Effect, Fact, Facts, OperationId, Resource, Stage};
    use crate::policy::Obligation;
    use crate::recording::RecordedOperation;
    use crate::recording::file::compact::Read;
    use crate::recording::file::format::decode_item;

    /// What operations have in common, as the pipeline shares it.
    #[derive(Clone, Debug)]
    struct Common {
        kind: String,
        statement: Arc<str>,
        accesses: Arc<[Access]>,
        facts: Arc<Facts>,
        rules: Arc<[String]>,
        obligations: Arc<[Obligation]>,
    }

    fn common() -> impl Strategy<Value = Common> {
        let parts =
            ("[a-z]{0,300}", "\\PC{0,60}", 0..3usize, any::<i64>(), prop::collection::vec("\\PC{0,9}", 0..3));
        parts.prop_map(|(kind, text, tables, number, rules)| Common {
            kind,
            statement: text.as_str().into(),
            accesses: (0..tables)
                .map(|i| {
                    let table = Resource::target(&*text).child("Table", format!("t{i}")).with("n", number);
                    Access::new(Action::new("select"), table)
                })
                .collect(),
            facts: Facts::from([("rows".into(), Fact::Long(number))]).into(),
            rules: rules.into(),
            obligations: [Obligation::LimitRows(number.unsigned_abs())].into(),
        })
    }

    fn record(common: &Common, (kind, n, payload): (u8, u64, Vec<u8>)) -> Record {
        let operation = OperationId(n);
        match kind {
            0 => Record::Presented {
                digest: Digest::from_bytes([n as u8; 32]),
                operations: (0..n % 3)
                    .map(|i| RecordedOperation {
                        id: OperationId(n.wrapping_add(i)),
                        kind: common.kind.clone().into(),
                        stage: if n & 1 == 0 { Stage::Prepare } else { Stage::Execute },
                        statement: Arc::clone(&common.statement),
                        statement_bytes: n,
                        arguments: i,
                        effect: if n & 2 == 0 { Effect::Read } else { Effect::Write },
                        accesses: Arc::clone(&common.accesses),
                        facts: Arc::clone(&common.facts),
                    })
                    .collect(),
            },
            1 | 2 => Record::Allowed {
                operations: vec![operation; (n % 4) as usize],
                rules: Arc::clone(&common.rules),
                obligations: Arc::clone(&common.obligations),
                approval: (kind == 2).then(|| "00112233445566778899aabbccddeeff".parse().unwrap()),
            },
            3 => Record::Completed {
                operation,
                outcome: common.kind.clone(),
                rows: n,
                bytes: n / 3,
                masked: common.rules.iter().map(|name| (name.clone(), n)).collect(),
            },
            4 => Record::Received {
                operation,
                encoding: common.kind.clone().into(),
                bytes: payload.into(),
                masked: n,
            },
            5 => Record::Digested {
                operation,
                content: common.kind.clone().into(),
                bytes: n,
                sha256: common.kind.clone(),
            },
            _ => Record::Released {
                operation,
                encoding: common.kind.clone().into(),
                bytes: if n.is_multiple_of(5) {
                    vec![kind; SHARED_BYTES + payload.len()].into()
                } else {
                    payload.into()
                },
                masked: n,
            },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn whatever_is_put_into_a_block_comes_out_of_it(
            commons in prop::collection::vec(common(), 1..5),
            records in prop::collection::vec((any::<prop::sample::Index>(), any::<i64>(), (0..7u8, any::<u64>(), any::<Vec<u8>>())), 1..200),
        ) {
            let records: Vec<_> = records
                .into_iter()
                .map(|(which, at, seed)| (Timestamp::from_micros(at), record(which.get(&commons), seed)))
                .collect();
            let mut block = RawBlock::new(records[0].0);
            let mut length = 0;
            for (at, record) in &records {
                length += block.push(*at, &Item::Record(record.clone())).unwrap();
            }
            let bytes = block.slices().collect::<Vec<_>>().concat();
            prop_assert_eq!((bytes.len(), block.len(), block.count as usize), (length, length, records.len()));
            let (mut rest, mut before, mut heard) = (bytes.as_slice(), block.time, Read::default());
            for (at, record) in records {
                let (time, item, more) = decode_item(rest, before, &mut heard).unwrap();
                prop_assert_eq!((time, item), (at, Item::Record(record)));
                (rest, before) = (more, time);
            }
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_comes_again_takes_few_bytes() {
        let table = Resource::target("shop").child("Table", "orders");
        let common = Common {
            kind: "select".to_owned(),
            statement: "select * from orders where id = $1".into(),
            accesses: [Access::new(Action::new("select"), table)].into(),
            facts: Facts::from([("where".into(), Fact::Bool(true))]).into(),
            rules: ["agents-read".to_owned()].into(),
            obligations: [].into(),
        };
        let at = Timestamp::from_micros(1);
        let mut block = RawBlock::new(at);
        let mut transaction = || -> usize {
            [(0, 1), (1, 1), (3, 1)]
                .into_iter()
                .map(|(kind, n)| {
                    block.push(at, &Item::Record(record(&common, (kind, n, Vec::new())))).unwrap()
                })
                .sum()
        };
        let first = transaction();
        let again = transaction();
        assert!(first > 200 && again < 100, "{first} {again}");
    }

    #[test]
    fn a_record_that_is_too_large_leaves_the_block_as_it_was() {
        let at = Timestamp::from_micros(1);
        let released = |length: usize| {
            Item::Record(Record::Released {
                operation: OperationId(1),
                encoding: format!("of {length}").into(),
                bytes: vec![0; length].into(),
                masked: 0,
            })
        };
        let mut block = RawBlock::new(at);
        block.push(at, &released(1)).unwrap();
        let before = block.slices().collect::<Vec<_>>().concat();
        assert!(block.push(at, &released(MAX_RECORD_BYTES)).is_err());
        assert_eq!(block.slices().collect::<Vec<_>>().concat(), before);
        assert_eq!((block.len(), block.count), (before.len(), 1));
    }
}
