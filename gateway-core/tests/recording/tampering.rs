//! Attacks on one recording by somebody without the key.

use std::path::PathBuf;

use gateway_core::recording::file::{
    Head, Problem, PublicKey, RecordingKey, Verification, verify, verify_bytes,
};
use gateway_core::session::CloseReason;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::common::{key, recorder, run_and_close, session};

/// Sizes in the file, as `docs/recording-format.md` gives them.
const PREAMBLE: usize = 32;
const BLOCK_HEADER: usize = 45;
const HASH: usize = 32;
const CHECKPOINT: usize = 122;

struct Sample {
    _dir: TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    key: PublicKey,
}

async fn sample(commits: u64) -> Sample {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), key(dir.path()));
    run_and_close(&recorder, 1, commits).await;
    let path = recorder.path(session(1));
    let bytes = std::fs::read(&path).unwrap();
    Sample { path, bytes, key: recorder.public_key(), _dir: dir }
}

fn check(bytes: &[u8], key: &PublicKey) -> Verification {
    verify_bytes(bytes, key, None).unwrap()
}

/// The frames as ranges of bytes with their first byte, walked as the specification says.
fn frames(bytes: &[u8]) -> Vec<(u8, std::ops::Range<usize>)> {
    let mut frames = Vec::new();
    let mut at = PREAMBLE;
    while at < bytes.len() {
        let len = match bytes[at] {
            b'B' => {
                BLOCK_HEADER + u32::from_le_bytes(bytes[at + 1..at + 5].try_into().unwrap()) as usize + HASH
            }
            b'C' => CHECKPOINT,
            other => panic!("frame {other} at {at}"),
        };
        frames.push((bytes[at], at..at + len));
        at += len;
    }
    frames
}

#[tokio::test]
async fn an_untouched_recording_is_intact() {
    let sample = sample(3).await;
    let found = verify(&sample.path, &sample.key, None).unwrap();
    assert!(found.is_intact(), "{found:?}");
    assert_eq!(found.proven_records, 8);
    assert_eq!(found.proven_until.unwrap().position.0, 7);
    assert_eq!(found.sealed, Some(CloseReason::Downstream));
    assert_eq!(found.session, Some(session(1)));
    let again = verify(&sample.path, &sample.key, found.head.as_ref()).unwrap();
    assert!(again.is_intact());
}

#[tokio::test]
async fn cut_anywhere_it_proves_all_up_to_the_last_checkpoint_and_no_more() {
    let sample = sample(3).await;
    let frames = frames(&sample.bytes);
    for cut in 0..sample.bytes.len() {
        let found = check(&sample.bytes[..cut], &sample.key);
        let whole: Vec<_> = frames.iter().filter(|(_, range)| range.end <= cut).collect();
        let signed = whole.iter().rposition(|(kind, _)| *kind == b'C').map_or(0, |i| i + 1);
        let count = |frames: &[&(u8, std::ops::Range<usize>)]| -> u64 {
            let blocks = frames.iter().filter(|(kind, _)| *kind == b'B');
            let count = |r: &std::ops::Range<usize>| {
                u32::from_le_bytes(sample.bytes[r.start + 9..r.start + 13].try_into().unwrap())
            };
            blocks.map(|(_, range)| u64::from(count(range))).sum()
        };
        assert_eq!(found.proven_records, count(&whole[..signed]), "cut at {cut}");
        assert_eq!(found.unproven_records, count(&whole[signed..]), "cut at {cut}");
        let end = whole.last().map_or(if cut < PREAMBLE { 0 } else { PREAMBLE }, |(_, range)| range.end);
        assert_eq!(found.torn_bytes, (cut - end) as u64, "cut at {cut}");
        assert_eq!(found.problems, [], "a cut tail looks like a crash, at {cut}");
        assert_eq!(found.sealed, None);
        assert!(!found.is_intact());
    }
}

#[tokio::test]
async fn a_cut_is_caught_by_a_head_noted_elsewhere() {
    let sample = sample(3).await;
    let head = check(&sample.bytes, &sample.key).head.unwrap();
    let cut = &sample.bytes[..sample.bytes.len() - 1];
    let found = verify_bytes(cut, &sample.key, Some(&head)).unwrap();
    assert_eq!(found.problems, [Problem::HeadMissing(head)]);
    let earlier = check(cut, &sample.key).head.unwrap();
    let found = verify_bytes(&sample.bytes[..], &sample.key, Some(&earlier)).unwrap();
    assert!(found.is_intact(), "an earlier head is in the whole recording too");
}

#[tokio::test]
async fn every_edited_byte_is_caught() {
    let sample = sample(2).await;
    let mut bytes = sample.bytes.clone();
    for i in 0..bytes.len() {
        for flip in [0x01, 0x80] {
            bytes[i] ^= flip;
            let found = check(&bytes, &sample.key);
            assert!(!found.is_intact(), "byte {i} ^ {flip}: {found:?}");
            bytes[i] ^= flip;
        }
    }
    assert!(check(&bytes, &sample.key).is_intact());
}

#[tokio::test]
async fn removed_and_swapped_frames_are_caught() {
    let sample = sample(4).await;
    let frames = frames(&sample.bytes);
    let piece = |i: usize| sample.bytes[frames[i].1.clone()].to_vec();
    for removed in 0..frames.len() {
        let rest = (0..frames.len()).filter(|i| *i != removed).flat_map(piece);
        let bytes: Vec<u8> = sample.bytes[..PREAMBLE].iter().copied().chain(rest).collect();
        let found = check(&bytes, &sample.key);
        assert!(!found.is_intact(), "frame {removed} removed");
        let last = removed + 1 == frames.len();
        assert_eq!(found.problems.is_empty(), last, "only the last looks like a crash: {removed} {found:?}");
    }
    for i in 0..frames.len() - 1 {
        let mut order: Vec<usize> = (0..frames.len()).collect();
        order.swap(i, i + 1);
        let bytes: Vec<u8> =
            sample.bytes[..PREAMBLE].iter().copied().chain(order.into_iter().flat_map(piece)).collect();
        assert!(!check(&bytes, &sample.key).problems.is_empty(), "frames {i} and its next swapped");
    }
    let mut twice = sample.bytes.clone();
    twice.extend(piece(frames.len() - 1));
    assert!(!check(&twice, &sample.key).problems.is_empty(), "bytes after the seal");
}

#[tokio::test]
async fn another_key_proves_nothing() {
    let sample = sample(1).await;
    let other = RecordingKey::generate().unwrap().public_key();
    let found = check(&sample.bytes, &other);
    assert_eq!(found.proven_records, 0);
    assert_eq!(found.problems[0], Problem::OtherKey(sample.key.id()));
    assert!(matches!(found.problems[1], Problem::Signature(_)));
    // An attacker records the same session anew with a key of their own and claims the real key's id.
    let dir = tempfile::tempdir().unwrap();
    let forger = recorder(dir.path(), RecordingKey::generate().unwrap());
    run_and_close(&forger, 1, 1).await;
    let mut forged = std::fs::read(forger.path(session(1))).unwrap();
    forged[24..32].copy_from_slice(&sample.bytes[24..32]);
    let found = check(&forged, &sample.key);
    assert_eq!((found.proven_records, found.problems.is_empty()), (0, false));
}

#[test]
fn heads_travel_as_text() {
    let head = Head::from_bytes([7; 32]);
    assert_eq!(head.to_string().parse(), Ok(head));
    assert!("07".parse::<Head>().is_err());
}

#[test]
fn arbitrary_changes_never_panic_and_never_prove_more() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sample = runtime.block_on(sample(3));
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..4_u8);
    let config = ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(changes in prop::collection::vec(change, 1..6))| {
        let mut bytes = sample.bytes.clone();
        for (index, value, how) in changes {
            if bytes.is_empty() {
                break;
            }
            let i = index.index(bytes.len());
            match how {
                0 => bytes[i] = value,
                1 => bytes.insert(i, value),
                2 => { bytes.remove(i); }
                _ => bytes.truncate(i + 1),
            }
        }
        let found = check(&bytes, &sample.key);
        prop_assert!(found.proven_records <= 8);
        prop_assert!(bytes == sample.bytes || !found.is_intact());
        if let Ok(mut reader) = gateway_core::recording::file::RecordingReader::new(&bytes[..]) {
            prop_assert!(reader.by_ref().count() <= 7);
            prop_assert!(reader.end().is_some());
        }
    });
}

#[test]
fn arbitrary_bytes_never_panic() {
    let key = RecordingKey::generate().unwrap().public_key();
    proptest!(|(tail: Vec<u8>, whole: bool)| {
        let mut bytes = if whole { b"\x93GWREC\n\x02".to_vec() } else { Vec::new() };
        if whole { bytes.extend([0; 24]); }
        bytes.extend(tail);
        prop_assert_eq!(check(&bytes, &key).proven_records, 0);
    });
}

/// A second verifier, written from `docs/recording-format.md` alone with the primitives it names.
#[tokio::test]
async fn the_specification_suffices_to_verify() {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    let sample = sample(3).await;
    let (preamble, bytes) = (&sample.bytes[..PREAMBLE], &sample.bytes);
    assert_eq!(&preamble[..8], b"\x93GWREC\n\x02");
    assert_eq!(preamble[24..], blake3::hash(sample.key.as_bytes()).as_bytes()[..8]);
    let mut head = blake3::hash(preamble);
    let mut signatures = 0;
    let mut tags = Vec::new();
    for (kind, range) in frames(bytes) {
        let frame = &bytes[range];
        if kind == b'B' {
            let (body, written) = frame.split_at(frame.len() - HASH);
            head = blake3::hash(&[head.as_bytes(), body].concat());
            assert_eq!(head.as_bytes(), written);
            let raw = u32::from_le_bytes(frame[5..9].try_into().unwrap()) as usize;
            let unpacked = zstd::bulk::decompress(&body[BLOCK_HEADER..], raw).unwrap();
            assert_eq!(unpacked.len(), raw);
            tags.push(unpacked[0]);
        } else {
            assert_eq!(&frame[26..58], head.as_bytes());
            let message = [b"gateway recording checkpoint v1\0", &preamble[8..24], &frame[..58]].concat();
            let key = UnparsedPublicKey::new(&ED25519, sample.key.as_bytes());
            key.verify(&message, &frame[58..]).unwrap();
            signatures += 1;
            head = blake3::hash(&[head.as_bytes(), frame].concat());
        }
    }
    // A block for each record here, unless the writer's tick fell between two; a signature for each block.
    assert_eq!((signatures, tags.first(), tags.last()), (tags.len(), Some(&0), Some(&1)));
    assert!(tags.len() >= 5, "{tags:?}");
}
