//! Reads of files whose content is masked: each with what stands around it, so that a value is found wherever a read cuts it.

use bytes::Bytes;
use gateway_core::error::{Denial, DenialCode};

use super::{Files, Lanes, SFTP, Stop};
use crate::sftp::{FileOperation, Request, Response, StatusCode};

/// What is read before and after a client's read. A value that is longer may be missed where a read begins or ends inside it. 8 KiB.
const AROUND_BYTES: u32 = 8 * 1024;

/// The longest answer to one read; a client that asks for more gets this and asks again (draft section 6.4). 64 KiB.
const MAX_READ_BYTES: u32 = 64 * 1024;

/// A client's read and the larger one that is sent instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Where the larger read starts.
    start: u64,
    /// How much of it stands before the client's.
    before: usize,
    /// How much the client gets at most.
    length: usize,
    /// How much is asked for.
    asked: u32,
}

impl Window {
    pub(super) fn around(offset: u64, length: u32) -> Self {
        let length = length.min(MAX_READ_BYTES);
        let start = offset.saturating_sub(u64::from(AROUND_BYTES));
        // At most `AROUND_BYTES`.
        let before = u32::try_from(offset - start).unwrap_or(AROUND_BYTES);
        let asked = before + length + AROUND_BYTES;
        Self { start, before: before as usize, length: length as usize, asked }
    }

    pub(super) const fn request(&self, handle: Bytes) -> Request {
        Request::Read { handle, offset: self.start, length: self.asked }
    }

    /// Which part of what was read the client gets; empty at the end of the file.
    fn part(&self, got: usize) -> std::ops::Range<usize> {
        // Less than asked for is the end of the file; else what comes behind is not known, and the end of it stays back.
        let known = if got < self.asked as usize { got } else { got - AROUND_BYTES as usize };
        let end = known.min(self.before + self.length);
        self.before.min(end)..end
    }
}

impl Files<'_> {
    /// The server's answer to the larger read.
    pub(super) fn read(
        &mut self,
        operation: &FileOperation,
        handle: &Bytes,
        window: Window,
        response: &Response,
        lanes: &Lanes,
    ) -> Result<(), Stop> {
        let guard = &self.task.session.guard;
        let Response::Data { data } = response else {
            let code = match response {
                Response::Status { code, .. } => *code,
                _ => StatusCode::FAILURE,
            };
            let frame = self.wire.refuse(operation, code, super::answer::words(code));
            lanes.down(guard.originate(frame));
            return Ok(());
        };
        let part = window.part(data.len());
        let (Some(file), false) = (self.open.get_mut(handle), part.is_empty()) else {
            let frame = self.wire.refuse(operation, StatusCode::EOF, super::answer::words(StatusCode::EOF));
            lanes.down(guard.originate(frame));
            return Ok(());
        };
        let refusal = file.revoked.clone().or_else(|| binary(data));
        if let Some(denial) = refusal {
            self.refuse(operation, StatusCode::PERMISSION_DENIED, &denial, lanes);
            return Ok(());
        }
        file.read += part.len() as u64;
        let wire = &mut self.wire;
        let released = file.results.release(SFTP, data.clone(), 0, |masker, raw| {
            let masked = masker.text_of_same_length(raw)?;
            let shown =
                masked.map_or_else(|| raw.slice(part.clone()), |m| Bytes::from(m).slice(part.clone()));
            Ok(Some(wire.answer(operation, &Response::Data { data: shown })))
        })?;
        lanes.down(released);
        Ok(())
    }
}

/// Text is what has no NUL in it. Values in anything else (UTF-16, archives, images) would not be found.
fn binary(data: &[u8]) -> Option<Denial> {
    data.contains(&0).then(|| {
        Denial::new(
            DenialCode::Forbidden,
            "this file is not text, so what is sensitive in it cannot be masked",
        )
        .with_hint("a policy may permit `reveal` on its path")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_gets_its_part_with_what_is_around_it_known() {
        let window = Window::around(0, 100);
        assert_eq!((window.start, window.before, window.asked), (0, 0, 100 + AROUND_BYTES));
        assert_eq!(window.part(100 + AROUND_BYTES as usize), 0..100);
        assert_eq!(window.part(60), 0..60);
        assert!(window.part(0).is_empty());
        let window = Window::around(10_000, 1 << 20);
        let around = AROUND_BYTES as usize;
        assert_eq!(window.start, 10_000 - u64::from(AROUND_BYTES));
        assert_eq!(window.part(window.asked as usize), around..around + MAX_READ_BYTES as usize);
        assert_eq!(window.part(around + 5), around..around + 5);
        assert!(window.part(around).is_empty());
        assert!(window.part(3).is_empty());
    }
}
