//! Arrays (PostgreSQL documentation, "Array Input and Output Syntax"; source, `arrayfuncs.c`).

use std::sync::Arc;

use bytes::Buf;

use super::{Ends, Frame, Kind, MAX_PARTS, Part, Text, Unreadable, builtin, count, fixed, sized, sized_part};

/// Most dimensions there are (`MAXDIM`).
const MAX_DIMENSIONS: usize = 6;

const ELEMENT: Ends<'_> = Ends { ends: b",{}", doubled: false };

pub(super) fn read_text(element: Option<&Arc<Kind>>, value: &[u8]) -> Result<Vec<Part>, Unreadable> {
    let kind = element.map_or_else(|| Arc::new(Kind::Text), Arc::clone);
    let mut text = Text::new(value);
    let mut parts = Vec::new();
    if text.peek() == Some(b'[') {
        // Bounds other than from 1: `[2:3]={...}`.
        let end = memchr::memchr(b'=', text.rest).ok_or(Unreadable)?;
        let (bounds, rest) = text.rest.split_at_checked(end + 1).ok_or(Unreadable)?;
        let fine = bounds.iter().all(|b| b.is_ascii_digit() || b"[]:=-+".contains(b));
        text.rest = if fine { rest } else { return Err(Unreadable) };
        parts.push(fixed(bounds));
    }
    let mut depth = 0usize;
    loop {
        let element = match text.peek().ok_or(Unreadable)? {
            byte @ (b'{' | b'}' | b',') => {
                depth = match byte {
                    b'{' if depth == MAX_DIMENSIONS => return Err(Unreadable),
                    b'{' => depth + 1,
                    b'}' => depth.checked_sub(1).ok_or(Unreadable)?,
                    _ => depth,
                };
                text.take()?;
                parts.push(fixed(&[byte]));
                None
            }
            _ if depth == 0 => return Err(Unreadable),
            _ => Some(text.item(&ELEMENT)?),
        };
        if parts.len() > MAX_PARTS {
            return Err(Unreadable);
        }
        match element {
            Some((value, quoted)) if !quoted && value.eq_ignore_ascii_case(b"NULL") => {
                parts.push(Part::Null(Frame::Element));
            }
            Some((value, _)) => {
                parts.push(Part::Value { kind: Arc::clone(&kind), value, frame: Frame::Element });
            }
            None if depth == 0 => return text.finish().map(|()| parts),
            None => {}
        }
    }
}

/// Dimensions, whether there are NULLs, the element's type, each dimension's length and lower bound, the elements (`array_send`).
pub(super) fn read_binary(element: Option<&Arc<Kind>>, value: &[u8]) -> Result<Vec<Part>, Unreadable> {
    let mut rest = value;
    let dimensions = count(&mut rest)?;
    if dimensions > MAX_DIMENSIONS {
        return Err(Unreadable);
    }
    let _nulls = rest.try_get_i32().map_err(|_| Unreadable)?;
    let oid = rest.try_get_u32().map_err(|_| Unreadable)?;
    let kind = element.map_or_else(|| builtin(oid), Arc::clone);
    let mut elements = usize::from(dimensions > 0);
    for _ in 0..dimensions {
        elements = elements.saturating_mul(count(&mut rest)?);
        rest.try_get_i32().map_err(|_| Unreadable)?;
    }
    if elements > MAX_PARTS {
        return Err(Unreadable);
    }
    let header = value.len() - rest.len();
    // An element may become NULL.
    let mut head = value.get(..header).unwrap_or_default().to_vec();
    if let Some(nulls) = head.get_mut(4..8) {
        nulls.copy_from_slice(&1i32.to_be_bytes());
    }
    let mut parts = vec![Part::Fixed(head)];
    for _ in 0..elements {
        parts.push(sized_part(&kind, sized(&mut rest)?));
    }
    if rest.is_empty() { Ok(parts) } else { Err(Unreadable) }
}
