//! Ranges and multiranges (PostgreSQL documentation, "Range Types"; source, `rangetypes.c`, `multirangetypes.c`).

use std::sync::Arc;

use bytes::Buf;

use super::{Ends, Frame, Kind, MAX_PARTS, Part, Text, Unreadable, count, fixed, sized, sized_part};

const LOWER: Ends<'_> = Ends { ends: b",", doubled: true };
const UPPER: Ends<'_> = Ends { ends: b")]", doubled: true };

/// Flags of the binary form: empty, lower bound infinite, upper bound infinite (`RANGE_EMPTY` and so on).
const EMPTY: u8 = 0x01;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;

/// `[a,b)`, `empty`; a bound that is not there is infinite.
pub(super) fn read_text(bound: &Arc<Kind>, value: &[u8]) -> Result<Vec<Part>, Unreadable> {
    let mut text = Text::new(value);
    let parts = one_text(bound, &mut text)?;
    text.finish().map(|()| parts)
}

fn one_text(bound: &Arc<Kind>, text: &mut Text<'_>) -> Result<Vec<Part>, Unreadable> {
    if let Some(rest) = text.rest.strip_prefix(b"empty") {
        text.rest = rest;
        return Ok(vec![fixed(b"empty")]);
    }
    let open = text.take()?;
    if !matches!(open, b'[' | b'(') {
        return Err(Unreadable);
    }
    let lower = text.item(&LOWER)?;
    text.expect(b',')?;
    let upper = text.item(&UPPER)?;
    let close = text.take()?;
    let part = |(value, quoted): (Vec<u8>, bool)| match value.is_empty() && !quoted {
        true => Part::Null(Frame::Bound),
        false => Part::Value { kind: Arc::clone(bound), value, frame: Frame::Bound },
    };
    Ok(vec![fixed(&[open]), part(lower), fixed(b","), part(upper), fixed(&[close])])
}

/// Flags, then each finite bound with its length (`range_send`).
pub(super) fn read_binary(bound: &Arc<Kind>, value: &[u8]) -> Result<Vec<Part>, Unreadable> {
    let mut rest = value;
    let flags = rest.try_get_u8().map_err(|_| Unreadable)?;
    let mut parts = vec![fixed(&[flags])];
    let finite = [LOWER_INFINITE, UPPER_INFINITE].into_iter().filter(|f| flags & (EMPTY | f) == 0);
    for _ in finite {
        let value = sized(&mut rest)?.ok_or(Unreadable)?;
        parts.push(sized_part(bound, Some(value)));
    }
    if rest.is_empty() { Ok(parts) } else { Err(Unreadable) }
}

/// `{[a,b),[c,d)}`.
pub(super) fn read_many_text(bound: &Arc<Kind>, value: &[u8]) -> Result<Vec<Part>, Unreadable> {
    let mut text = Text::new(value);
    text.expect(b'{')?;
    let mut parts = vec![fixed(b"{")];
    if text.peek() != Some(b'}') {
        loop {
            parts.extend(one_text(bound, &mut text)?);
            if parts.len() > MAX_PARTS {
                return Err(Unreadable);
            }
            if text.peek() != Some(b',') {
                break;
            }
            text.take()?;
            parts.push(fixed(b","));
        }
    }
    text.expect(b'}')?;
    parts.push(fixed(b"}"));
    text.finish().map(|()| parts)
}

/// The number of ranges, each with its length (`multirange_send`).
pub(super) fn read_many_binary(bound: &Arc<Kind>, value: &[u8]) -> Result<Vec<Part>, Unreadable> {
    let mut rest = value;
    let number = count(&mut rest)?;
    let kind = Arc::new(Kind::Range(Arc::clone(bound)));
    let mut parts = vec![fixed(value.get(..4).unwrap_or_default())];
    for _ in 0..number {
        parts.push(sized_part(&kind, Some(sized(&mut rest)?.ok_or(Unreadable)?)));
    }
    if rest.is_empty() { Ok(parts) } else { Err(Unreadable) }
}
