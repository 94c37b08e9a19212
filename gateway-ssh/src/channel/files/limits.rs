//! `limits@openssh.com`: how much the client may ask for at once. Stock clients read and write 32 KiB at a time without it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::read::MAX_READ_BYTES;
use super::{Files, LIMITS, Lanes, Question, Stop};
use crate::sftp::{ExtendedRequest, FileOperation, MAX_FRAME_BYTES, Request, Response, StatusCode};

/// Most bytes of one write; a frame has room for a handle beside it. 240 KiB.
const MAX_WRITE_BYTES: u64 = 240 * 1024;

impl Files<'_> {
    /// Asks the server for its limits, since the client's writes go to it as they are.
    pub(super) fn ask_limits(&mut self, operation: Box<FileOperation>, lanes: &Lanes) -> Result<(), Stop> {
        let (id, frame) = self.wire.ask(&Request::Extended(ExtendedRequest::Limits))?;
        self.questions.insert(id, Question::Limits(operation));
        lanes.up(frame);
        Ok(())
    }

    /// Answers with the lower of the server's limits and the gateway's: numbers, none of which is the server's text.
    pub(super) fn tell_limits(&mut self, operation: &FileOperation, response: &Response, lanes: &Lanes) {
        let frame = match lowered(response) {
            Some(data) => self.wire.answer(operation, &Response::ExtendedReply { data }),
            None => {
                let code = StatusCode::OP_UNSUPPORTED;
                self.wire.refuse(operation, code, super::answer::words(code))
            }
        };
        lanes.down(self.task.session.guard.originate(frame));
    }
}

/// Packet, read and write lengths and open handles (OpenSSH PROTOCOL section 4.8), each no larger than the gateway's own.
fn lowered(response: &Response) -> Option<Bytes> {
    let Response::ExtendedReply { data } = response else { return None };
    let own = [MAX_FRAME_BYTES as u64, u64::from(MAX_READ_BYTES), MAX_WRITE_BYTES, LIMITS.handles as u64];
    let mut theirs = data.clone();
    let mut out = BytesMut::with_capacity(size_of_val(&own));
    for own in own {
        // Zero: the server does not say.
        let limit = theirs.try_get_u64().ok()?;
        out.put_u64(if limit == 0 { own } else { limit.min(own) });
    }
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(limits: [u64; 4]) -> Response {
        Response::ExtendedReply { data: limits.iter().flat_map(|limit| limit.to_be_bytes()).collect() }
    }

    #[test]
    fn the_lower_limit_is_told() {
        let told = lowered(&reply([1000, 0, 500, u64::MAX])).unwrap();
        let expected = reply([1000, u64::from(MAX_READ_BYTES), 500, LIMITS.handles as u64]);
        assert_eq!(Response::ExtendedReply { data: told }, expected);
    }

    #[test]
    fn an_answer_cut_short_is_none() {
        assert_eq!(lowered(&Response::ExtendedReply { data: Bytes::from_static(&[0; 31]) }), None);
        assert_eq!(lowered(&Response::Handle { handle: Bytes::new() }), None);
    }
}
