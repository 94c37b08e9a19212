//! From the server: answers masked, recorded and sent on.

use bytes::Bytes;
use gateway_core::error::Denial;
use gateway_core::pipeline::{Masker, Results};

use super::content::FileContent;
use super::{Files, Lanes, OnFile, OpenFile, Running, SFTP, Stop};
use crate::sftp::{FileKind, NameEntry, Reply, Response, SftpError, StatusCode};

impl Files<'_> {
    pub(super) fn reply(&mut self, reply: Reply, lanes: &Lanes) -> Result<(), Stop> {
        if let Some(on) = self.by_handle.remove(&reply.client_id) {
            return self.reply_on(&on, reply, lanes);
        }
        let Some(Running { mut results, opens }) = self.running.remove(&reply.client_id) else {
            return Err(Stop::Broken(SftpError::UnknownId(reply.client_id)));
        };
        if results.is_stale() {
            results.adopt_masks();
        }
        let outcome = outcome(&reply.response);
        let handle = match &reply.response {
            // A copy: the slice would keep the whole frame.
            Response::Handle { handle } => Some(Bytes::copy_from_slice(handle)),
            _ => None,
        };
        lanes.down(release(&mut results, reply)?);
        match (handle, opens) {
            (Some(handle), Some(opening)) => {
                let content = FileContent::new(&results, opening.size);
                let file = OpenFile { results, opening, revoked: None, closing: false, content };
                self.open.insert(handle, file);
                Ok(())
            }
            _ => Ok(results.complete(&outcome)?),
        }
    }

    /// An answer about an open file.
    fn reply_on(&mut self, on: &OnFile, reply: Reply, lanes: &Lanes) -> Result<(), Stop> {
        if reply.kind == FileKind::Close {
            let outcome = outcome(&reply.response);
            let status = match &reply.response {
                Response::Status { code, .. } => *code,
                _ => StatusCode::FAILURE,
            };
            let frame = reply.replace(&Response::status(status, words(status)))?;
            lanes.down(self.task.session.guard.originate(frame));
            let closed = self.open.remove(&on.handle).map(|file| file.complete(&outcome));
            return Ok(closed.unwrap_or(Ok(()))?);
        }
        let Some(file) = self.open.get_mut(&on.handle) else {
            // Closed while this was under way: nobody may see it any more.
            let frame = reply.replace(&Response::status(StatusCode::FAILURE, "the file is closed"))?;
            lanes.down(self.task.session.guard.originate(frame));
            return Ok(());
        };
        let failed = !matches!(&reply.response, Response::Status { code, .. } if *code == StatusCode::OK);
        if reply.kind == FileKind::Write && failed {
            file.content.write_failed();
        }
        let data = matches!(reply.response, Response::Data { .. });
        // Asked while it was permitted, or while everything in the file was shown; the policies changed since.
        if file.revoked.is_some() || (data && !file.opening.revealed) {
            let code = StatusCode::PERMISSION_DENIED;
            let frame = reply.replace(&Response::status(code, words(code)))?;
            lanes.down(self.task.session.guard.originate(frame));
            return Ok(());
        }
        if let Response::Data { data } = &reply.response {
            let shown = file.content.within(on.offset, data);
            file.content.reads(on.offset, &shown)?;
            if shown.len() < data.len() {
                // The file grew since it was judged.
                let frame = reply.replace(&Response::Data { data: shown })?;
                let released = file.results.release(SFTP, frame, 0, |_, _| Ok(None))?;
                lanes.down(released);
                return Ok(());
            }
        }
        lanes.down(release(&mut file.results, reply)?);
        Ok(())
    }
}

/// Masks the names and texts in an answer; data comes here only of files that are revealed.
fn release(results: &mut Results, reply: Reply) -> Result<gateway_core::pipeline::Released, Stop> {
    let mut broken = None;
    let released = results.release(SFTP, Bytes::new(), 0, |masker, _| {
        let frame = shown(masker, reply).unwrap_or_else(|error| {
            broken = Some(error);
            Bytes::new()
        });
        Ok(Some(frame))
    });
    match broken {
        Some(error) => Err(Stop::Broken(error)),
        None => released.map_err(|denial: Denial| Stop::Denied(denial)),
    }
}

fn shown(masker: &mut Masker<'_>, reply: Reply) -> Result<Bytes, SftpError> {
    match &reply.response {
        // The server's own text is not needed, and could be anything.
        Response::Status { code, .. } => {
            let status = Response::status(*code, words(*code));
            reply.replace(&status)
        }
        Response::Name { entries } => {
            let mut changed = false;
            let entries = entries.iter().map(|entry| masked(masker, entry, &mut changed)).collect();
            if changed { reply.names(entries) } else { Ok(reply.pass()) }
        }
        _ => Ok(reply.pass()),
    }
}

/// A name with a sensitive value in it is shown masked, and cannot be opened by what is shown.
fn masked(masker: &mut Masker<'_>, entry: &NameEntry, changed: &mut bool) -> NameEntry {
    let mut entry = entry.clone();
    for text in [&mut entry.filename, &mut entry.longname] {
        if let Some(masked) = masker.text(text) {
            *text = masked.into();
            *changed = true;
        }
    }
    entry
}

fn outcome(response: &Response) -> String {
    match response {
        Response::Status { code, .. } => words(*code).to_owned(),
        _ => words(StatusCode::OK).to_owned(),
    }
}

/// The protocol's meaning of a status code (draft section 7).
pub(super) const fn words(code: StatusCode) -> &'static str {
    match code {
        StatusCode::OK => "ok",
        StatusCode::EOF => "end of file",
        StatusCode::NO_SUCH_FILE => "no such file",
        StatusCode::PERMISSION_DENIED => "permission denied",
        StatusCode::BAD_MESSAGE => "bad message",
        StatusCode::OP_UNSUPPORTED => "operation unsupported",
        _ => "failure",
    }
}
