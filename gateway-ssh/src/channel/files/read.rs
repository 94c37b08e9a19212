//! Reads of files whose content is masked: each with what stands around it, so that a value is found wherever a read cuts it.

use bytes::{Bytes, BytesMut};
use gateway_core::error::{Denial, DenialCode};

use super::{Files, Lanes, Question, SFTP, Stop};
use crate::sftp::{FileOperation, Request, Response, StatusCode};

/// What is read before and after a client's read. A value that is longer may be missed where a read begins or ends inside it. 8 KiB.
const AROUND_BYTES: u32 = 8 * 1024;

/// The longest answer to one read; a client that asks for more gets this and asks again (draft section 6.4). With what stands around it
/// it is under OpenSSH's own limit. 224 KiB.
pub(super) const MAX_READ_BYTES: u32 = 224 * 1024;

/// What may wait for the rest of it in one session; beyond, reads end short of what is not known. 4 MiB.
const MAX_HELD_BYTES: usize = 4 << 20;

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

    /// The rest of it, when the server gave only so much of it at once.
    fn rest(&self, handle: Bytes, got: usize) -> Option<Request> {
        let missing = (self.asked as usize).checked_sub(got).filter(|missing| *missing > 0)?;
        let length = u32::try_from(missing).ok()?;
        Some(Request::Read { handle, offset: self.start.saturating_add(got as u64), length })
    }

    /// Which part of what was read the client gets; may be empty. `at_end`: the file ends there, by the server's word.
    fn part(&self, got: usize, at_end: bool) -> std::ops::Range<usize> {
        // Unless it is the end of the file, what comes behind is not known, and the end of it stays back.
        let known = if at_end { got } else { got.saturating_sub(AROUND_BYTES as usize) };
        let end = known.min(self.before + self.length);
        self.before.min(end)..end
    }
}

impl Files<'_> {
    /// The server's answer to the larger read, or to a further one for the rest of it; `got` came before.
    ///
    /// Less than asked for is not the end of the file: servers cut long reads at limits of their own. Only their word for it is.
    pub(super) fn read(
        &mut self,
        operation: Box<FileOperation>,
        handle: Bytes,
        window: Window,
        mut got: BytesMut,
        response: &Response,
        lanes: &Lanes,
    ) -> Result<(), Stop> {
        let at_end = match response {
            Response::Data { data } => {
                got.extend_from_slice(data);
                data.is_empty()
            }
            Response::Status { code, .. } if *code == StatusCode::EOF => true,
            Response::Status { code, .. } => return self.unread(&operation, *code, lanes),
            _ => return self.unread(&operation, StatusCode::FAILURE, lanes),
        };
        let Some(file) = self.open.get(&handle) else {
            return self.unread(&operation, StatusCode::EOF, lanes);
        };
        // Behind a CLOSE the server may give the handle to another file.
        let more = !at_end && !file.closing && self.held + got.len() <= MAX_HELD_BYTES;
        if let Some(rest) = window.rest(handle.clone(), got.len()).filter(|_| more) {
            let (id, frame) = self.wire.ask(&rest)?;
            self.held += got.len();
            self.questions.insert(id, Question::Read { operation, handle, window, got });
            lanes.up(frame);
            return Ok(());
        }
        let part = window.part(got.len(), at_end);
        if part.is_empty() {
            let code = if at_end { StatusCode::EOF } else { StatusCode::FAILURE };
            return self.unread(&operation, code, lanes);
        }
        self.show(&operation, &handle, part, got.freeze(), lanes)
    }

    pub(super) fn unread(
        &mut self,
        operation: &FileOperation,
        code: StatusCode,
        lanes: &Lanes,
    ) -> Result<(), Stop> {
        let frame = self.wire.refuse(operation, code, super::answer::words(code));
        lanes.down(self.task.session.guard.originate(frame));
        Ok(())
    }

    fn show(
        &mut self,
        operation: &FileOperation,
        handle: &Bytes,
        part: std::ops::Range<usize>,
        data: Bytes,
        lanes: &Lanes,
    ) -> Result<(), Stop> {
        let Some(file) = self.open.get_mut(handle) else { return Ok(()) };
        let refusal = file.revoked.clone().or_else(|| binary(&data));
        if let Some(denial) = refusal {
            self.refuse(operation, StatusCode::PERMISSION_DENIED, &denial, lanes);
            return Ok(());
        }
        let Request::Read { offset, .. } = *operation.request() else { return Ok(()) };
        let (wire, content) = (&mut self.wire, &mut file.content);
        let released = file.results.release(SFTP, data, 0, |masker, raw| {
            let masked = masker.text_of_same_length(raw)?;
            let shown =
                masked.map_or_else(|| raw.slice(part.clone()), |m| Bytes::from(m).slice(part.clone()));
            content.reads(offset, &shown)?;
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
        assert_eq!(window.part(100 + AROUND_BYTES as usize, false), 0..100);
        assert_eq!(window.part(60, true), 0..60);
        assert!(window.part(0, true).is_empty());
        let window = Window::around(10_000, 1 << 20);
        let around = AROUND_BYTES as usize;
        assert_eq!(window.start, 10_000 - u64::from(AROUND_BYTES));
        assert_eq!(window.part(window.asked as usize, false), around..around + MAX_READ_BYTES as usize);
        assert_eq!(window.part(around + 5, true), around..around + 5);
        assert!(window.part(around, true).is_empty());
        assert!(window.part(3, true).is_empty());
    }

    #[test]
    fn a_short_read_is_not_the_end_of_the_file() {
        let (window, around) = (Window::around(0, MAX_READ_BYTES), AROUND_BYTES as usize);
        // A server that gives 32 KiB at once: the rest is asked for, and until it is known the end stays back.
        assert_eq!(window.part(32_768, false), 0..32_768 - around);
        assert!(window.part(100, false).is_empty());
        let rest = Request::Read { handle: Bytes::new(), offset: 32_768, length: window.asked - 32_768 };
        assert_eq!(window.rest(Bytes::new(), 32_768), Some(rest));
        assert_eq!(window.rest(Bytes::new(), window.asked as usize), None);
    }
}
