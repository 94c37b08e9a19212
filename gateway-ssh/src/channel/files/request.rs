//! From the client: requests resolved, judged and sent on.

use bytes::{Bytes, BytesMut};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::{Operation, Resource};
use gateway_core::pipeline::{Judged, NoRewrites, Results};

use super::read::Window;
use super::{Files, Lanes, OnFile, OpenFile, Opening, Question, Running, Stop, Waiting};
use crate::denial;
use crate::operation::{self, file};
use crate::sftp::{
    FileAction, FileKind, FileOperation, OwnId, Request, Response, StatusCode, goes_back, normalise, parent,
};

impl Files<'_> {
    /// A request of the client's.
    pub(super) async fn asked(&mut self, request: Box<FileOperation>, lanes: &Lanes) -> Result<(), Stop> {
        match request.kind() {
            FileKind::UnknownExtension
            | FileKind::CopyData
            | FileKind::ExpandPath
            | FileKind::HomeDirectory
            | FileKind::UsersGroupsById => self.unsupported(&request, lanes),
            FileKind::Limits => self.ask_limits(request, lanes),
            // Changes more than was judged when the file was opened.
            FileKind::Fsetstat => self.judge(*request, Seen::default(), lanes).await,
            _ if request.paths().iter().any(|path| path.by_handle) => self.by_handle(request, lanes),
            _ => self.resolve(request, lanes),
        }
    }

    fn unsupported(&mut self, request: &FileOperation, lanes: &Lanes) -> Result<(), Stop> {
        let name = request.kind().as_str();
        let denial = Denial::new(DenialCode::Forbidden, format!("`{name}` is not offered by this gateway"));
        let denial = self.task.session.refuse(Operation::new(name, name), denial);
        self.refuse(request, StatusCode::OP_UNSUPPORTED, &denial, lanes);
        Ok(())
    }

    /// Told twice: stock clients print words of their own for a status, and show the standard error of their connection.
    pub(super) fn refuse(
        &mut self,
        request: &FileOperation,
        code: StatusCode,
        denial: &Denial,
        lanes: &Lanes,
    ) {
        if let Some(cause) = denial.cause() {
            tracing::warn!(session = %self.task.session.guard.info().id, code = %denial.code, cause, "refused");
        }
        let guard = &self.task.session.guard;
        lanes.say(guard.originate(denial::line(denial)));
        let frame = self.wire.refuse(request, code, &denial::text(denial));
        lanes.down(guard.originate(frame));
    }

    /// What is done with an open file belongs to its opening.
    fn by_handle(&mut self, request: Box<FileOperation>, lanes: &Lanes) -> Result<(), Stop> {
        let handle = match request.request() {
            Request::Close { handle }
            | Request::Read { handle, .. }
            | Request::Write { handle, .. }
            | Request::Fstat { handle }
            | Request::Readdir { handle } => handle.clone(),
            Request::Extended(
                crate::sftp::ExtendedRequest::Fsync { handle }
                | crate::sftp::ExtendedRequest::Fstatvfs { handle },
            ) => handle.clone(),
            _ => return self.unsupported(&request, lanes),
        };
        let closes = matches!(request.request(), Request::Close { .. });
        let Some(file) = self.open.get_mut(&handle) else {
            let denial = Denial::new(DenialCode::Forbidden, "the file is not open");
            self.refuse(&request, StatusCode::FAILURE, &denial, lanes);
            return Ok(());
        };
        if let Some(denial) = file.revoked.clone().filter(|_| !closes) {
            self.refuse(&request, StatusCode::PERMISSION_DENIED, &denial, lanes);
            return Ok(());
        }
        file.closing |= closes;
        let mut from = 0;
        match request.request() {
            Request::Read { offset, length, .. } => {
                from = *offset;
                let left = file.content.left(from);
                if left == 0 {
                    return self.unread(&request, StatusCode::EOF, lanes);
                }
                if !file.opening.revealed {
                    let length = u32::try_from(left).unwrap_or(u32::MAX).min(*length);
                    return self.read_around(request, handle, Window::around(from, length), lanes);
                }
            }
            Request::Write { offset, data, .. } => file.content.writes(*offset, data)?,
            _ => {}
        }
        self.by_handle.insert(request.client_id(), OnFile { handle, offset: from });
        lanes.up(self.wire.forward(*request)?);
        Ok(())
    }

    /// Reads more than was asked for, so that no value is cut at an edge.
    fn read_around(
        &mut self,
        operation: Box<FileOperation>,
        handle: Bytes,
        window: Window,
        lanes: &Lanes,
    ) -> Result<(), Stop> {
        let (id, frame) = self.wire.ask(&window.request(handle.clone()))?;
        self.questions.insert(id, Question::Read { operation, handle, window, got: BytesMut::new() });
        lanes.up(frame);
        Ok(())
    }

    /// Has the server say what the paths really are.
    fn resolve(&mut self, operation: Box<FileOperation>, lanes: &Lanes) -> Result<(), Stop> {
        if let Request::Symlink { target, .. } = operation.request()
            && goes_back(target)
        {
            let denial = Denial::new(DenialCode::NotUnderstood, "the link's text has `..` behind a name")
                .with_hint("write what it leads to without going back");
            let kind = operation.kind().as_str();
            let denial = self.task.session.refuse(Operation::new(kind, kind), denial);
            self.refuse(&operation, StatusCode::FAILURE, &denial, lanes);
            return Ok(());
        }
        let questions: Option<Vec<_>> = operation.paths().iter().map(|path| path.question()).collect();
        let Some(questions) = questions else {
            let denial = Denial::new(DenialCode::NotUnderstood, "the path cannot be resolved")
                .with_hint("use an absolute path");
            let kind = operation.kind().as_str();
            let denial = self.task.session.refuse(Operation::new(kind, kind), denial);
            self.refuse(&operation, StatusCode::FAILURE, &denial, lanes);
            return Ok(());
        };
        self.serial += 1;
        let link = text_of_link(&operation);
        // What a link's text leads to is asked once it is known where the link will stand.
        let at_once = usize::from(link.is_some());
        let mut unanswered = questions.len().saturating_sub(at_once);
        if let Some(path) = reads(&operation).then(|| questions.first().cloned()).flatten() {
            let (id, frame) = self.wire.ask(&Request::Stat { path })?;
            self.questions.insert(id, Question::Size(self.serial));
            lanes.up(frame);
            unanswered += 1;
        }
        if let Some(path) = moved(&operation) {
            let (id, frame) = self.wire.ask(&Request::Readlink { path })?;
            self.questions.insert(id, Question::Link(self.serial));
            lanes.up(frame);
            unanswered += 1;
        }
        for (index, path) in questions.into_iter().enumerate().skip(at_once) {
            self.ask_real(self.serial, index, path, lanes)?;
        }
        self.waiting.push_back(Waiting {
            serial: self.serial,
            operation,
            unanswered,
            size: None,
            link,
            leads: None,
            failed: None,
        });
        Ok(())
    }

    fn ask_real(&mut self, serial: u64, index: usize, path: Bytes, lanes: &Lanes) -> Result<(), Stop> {
        let (id, frame) = self.wire.ask(&Request::Realpath { path: path.clone() })?;
        self.questions.insert(id, Question::Real(serial, index, path));
        lanes.up(frame);
        Ok(())
    }

    /// The answer to a question of the gateway's own.
    pub(super) async fn told(&mut self, id: OwnId, response: Response, lanes: &Lanes) -> Result<(), Stop> {
        match self.questions.remove(&id) {
            Some(Question::Start) => {
                if let Some(path) = only_name(&response) {
                    self.wire.set_start(&path);
                }
                self.ready = true;
                Ok(())
            }
            Some(Question::Real(serial, index, asked)) => {
                if let Some(folder) = self.resolved(serial, index, &asked, response) {
                    return self.ask_real(serial, index, folder, lanes);
                }
                self.judge_waiting(lanes).await
            }
            Some(Question::Size(serial)) => {
                self.sized(serial, &response);
                self.judge_waiting(lanes).await
            }
            Some(Question::Link(serial)) => {
                self.linked(serial, &response);
                self.judge_waiting(lanes).await
            }
            Some(Question::Leads { serial, path, asked }) => {
                if let Some(folder) = self.leads(serial, &path, &asked, response) {
                    return self.ask_leads(serial, path, folder, lanes);
                }
                self.judge_waiting(lanes).await
            }
            Some(Question::Limits(operation)) => {
                self.tell_limits(&operation, &response, lanes);
                Ok(())
            }
            Some(Question::Read { operation, handle, window, got }) => {
                self.held = self.held.saturating_sub(got.len());
                self.read(operation, handle, window, got, &response, lanes)
            }
            None => Ok(()),
        }
    }

    /// Takes the server's answer about a path; gives the folder to ask about instead if there is no such thing.
    ///
    /// What does not exist is judged where it would be: else a link to what is forbidden would tell what is there and what is not.
    fn resolved(&mut self, serial: u64, index: usize, asked: &Bytes, response: Response) -> Option<Bytes> {
        let waiting = self.waiting.iter_mut().find(|w| w.serial == serial)?;
        let Some(name) = only_name(&response) else {
            waiting.failed = Some(response);
            if asked.as_ref() != b"/" {
                return Some(Bytes::copy_from_slice(parent(asked)));
            }
            waiting.unanswered = waiting.unanswered.saturating_sub(1);
            return None;
        };
        waiting.unanswered = waiting.unanswered.saturating_sub(1);
        let path = waiting.operation.paths().get(index)?;
        let real = match path.question() {
            Some(question) if question == asked => path.real(&name),
            _ => path.path.as_deref().and_then(|path| below(&name, path, asked)),
        };
        if let Some(real) = real
            && !waiting.operation.replace_path(index, &real)
        {
            // Where the text must stay (the target of a link) the judged path is what it leads to now.
            waiting.operation.leads_to(index, &real);
        }
        None
    }

    /// Takes the server's word for a file's size. None, and 0, is no size: devices and what the system makes up have none.
    fn sized(&mut self, serial: u64, response: &Response) {
        let Some(waiting) = self.waiting.iter_mut().find(|w| w.serial == serial) else { return };
        waiting.unanswered = waiting.unanswered.saturating_sub(1);
        if let Response::Attrs { attributes } = response {
            waiting.size = attributes.size.filter(|size| *size > 0);
        }
    }

    /// Takes the server's word for what a link says; what is none has no such words.
    fn linked(&mut self, serial: u64, response: &Response) {
        let Some(waiting) = self.waiting.iter_mut().find(|w| w.serial == serial) else { return };
        waiting.unanswered = waiting.unanswered.saturating_sub(1);
        waiting.link = only_name(response);
    }

    /// Asks what a link leads to; only the server knows which names in its text are links themselves.
    fn ask_leads(&mut self, serial: u64, path: Bytes, asked: Bytes, lanes: &Lanes) -> Result<(), Stop> {
        let (id, frame) = self.wire.ask(&Request::Realpath { path: asked.clone() })?;
        self.questions.insert(id, Question::Leads { serial, path, asked });
        lanes.up(frame);
        Ok(())
    }

    /// Takes the server's word for what a link leads to; gives the folder to ask about instead if there is no such thing.
    fn leads(&mut self, serial: u64, path: &Bytes, asked: &Bytes, response: Response) -> Option<Bytes> {
        let waiting = self.waiting.iter_mut().find(|w| w.serial == serial)?;
        let makes = matches!(waiting.operation.request(), Request::Symlink { .. });
        let real = only_name(&response);
        if makes && real.is_none() {
            waiting.failed = Some(response);
        }
        if real.is_none() && asked.as_ref() != b"/" {
            return Some(Bytes::copy_from_slice(parent(asked)));
        }
        waiting.unanswered = waiting.unanswered.saturating_sub(1);
        let leads = real.and_then(|real| below(&real, path, asked)).map_or_else(|| path.clone(), Bytes::from);
        if makes {
            // The text stays; judged is what it leads to now.
            waiting.operation.leads_to(0, &leads);
        }
        waiting.leads = Some(leads);
        None
    }

    /// Judges what waits, in order, as far as it is resolved.
    async fn judge_waiting(&mut self, lanes: &Lanes) -> Result<(), Stop> {
        while let Some(waiting) = self.waiting.front_mut().filter(|waiting| waiting.unanswered == 0) {
            if let Some(path) = waiting.leading() {
                waiting.unanswered += 1;
                let serial = waiting.serial;
                return self.ask_leads(serial, path.clone(), path, lanes);
            }
            let Some(Waiting { operation, size, link, leads, failed, .. }) = self.waiting.pop_front() else {
                break;
            };
            match failed {
                Some(response) => self.judge_failed(*operation, &response, lanes).await?,
                None => self.judge(*operation, Seen { size, link, leads }, lanes).await?,
            }
        }
        Ok(())
    }

    /// A path that does not resolve: who may do it is told so, others are denied as for a path that does.
    async fn judge_failed(
        &mut self,
        request: FileOperation,
        response: &Response,
        lanes: &Lanes,
    ) -> Result<(), Stop> {
        match self.permitted(&request, &Seen::default()).await {
            Ok((results, _)) => {
                let code = match response {
                    Response::Status { code, .. } => *code,
                    _ => StatusCode::FAILURE,
                };
                let denial = Denial::new(DenialCode::UpstreamUnavailable, super::answer::words(code));
                results.complete("the path does not exist")?;
                let frame = self.wire.refuse(&request, code, &denial.message);
                lanes.down(self.task.session.guard.originate(frame));
            }
            Err(denial) => self.refuse(&request, StatusCode::PERMISSION_DENIED, &denial, lanes),
        }
        Ok(())
    }

    async fn judge(&mut self, request: FileOperation, seen: Seen, lanes: &Lanes) -> Result<(), Stop> {
        let (results, operation) = match self.permitted(&request, &seen).await {
            Ok(permitted) => permitted,
            Err(denial) => {
                self.refuse(&request, StatusCode::PERMISSION_DENIED, &denial, lanes);
                return Ok(());
            }
        };
        let opens = match request.request() {
            Request::Open { .. } | Request::Opendir { .. } => Some(self.opening(operation, seen.size).await?),
            _ => None,
        };
        self.running.insert(request.client_id(), Running { results, opens });
        lanes.up(self.wire.forward(request)?);
        Ok(())
    }

    async fn opening(&self, operation: Operation, size: Option<u64>) -> Result<Opening, Denial> {
        let path = operation.accesses.first().map(|access| access.resource.clone());
        let path = path.unwrap_or_else(|| self.task.session.target.clone());
        let revealed = self.revealed(&path).await?;
        Ok(Opening { operation, size, revealed, path })
    }

    async fn revealed(&self, path: &Resource) -> Result<bool, Denial> {
        let shown = self.task.session.guard.reveals(std::slice::from_ref(path)).await?;
        Ok(shown.first().copied().unwrap_or(false))
    }

    /// Judges at once: a session with many files cannot wait for people in the middle, so a rule that holds makes a request for
    /// approval and the client tries again.
    async fn permitted(&self, request: &FileOperation, seen: &Seen) -> Result<(Results, Operation), Denial> {
        let session = &self.task.session;
        let operation = match described(&session.target, request, seen) {
            Ok(operation) => operation,
            Err(denial) => {
                let kind = request.kind().as_str();
                return Err(session.refuse(Operation::new(kind, kind), denial));
            }
        };
        let pending = session.pending(operation);
        match session.guard.judge_for(pending, &NoRewrites, gateway_core::approval::Delivery::Retry).await {
            Judged::Permit(permit) => {
                let (batch, results) = permit.consume();
                let operation = batch.operations().first().cloned();
                operation.map(|operation| (results, operation)).ok_or_else(missing)
            }
            Judged::Refused(refused) => Err(refused.denial),
            Judged::Held(held) => Err(held.cancel().await),
        }
    }

    /// After a change of the policies: open files that are not permitted any more are closed to the client.
    pub(super) async fn judge_again(&mut self) -> Result<(), Denial> {
        let handles: Vec<_> = self.open.keys().cloned().collect();
        for handle in handles {
            let Some(OpenFile { opening: Opening { operation, path, .. }, .. }) = self.open.get(&handle)
            else {
                continue;
            };
            let (operation, path) = (operation.clone(), path.clone());
            let revoked = self.task.session.permit(operation).await.err();
            let revealed = self.revealed(&path).await?;
            if let Some(file) = self.open.get_mut(&handle) {
                file.results.adopt_masks();
                file.revoked = revoked;
                file.opening.revealed &= revealed;
            }
        }
        Ok(())
    }
}

impl Waiting {
    /// The path to ask about next: what the text of a link leads to from the real folder that the link will stand in. A link that is moved
    /// and has an absolute text leads where it led.
    fn leading(&self) -> Option<Bytes> {
        let text = self.link.as_ref().filter(|_| self.leads.is_none())?;
        let makes = matches!(self.operation.request(), Request::Symlink { .. });
        if goes_back(text) || (!makes && text.starts_with(b"/")) {
            return None;
        }
        let there = self.operation.paths().last()?.path.as_deref()?;
        normalise(text, Some(parent(there))).map(Bytes::from)
    }
}

fn missing() -> Denial {
    Denial::new(DenialCode::PolicyError, "the permitted operation is missing")
}

/// What stands at `path` when its folder `asked` really is `real`.
fn below(real: &[u8], path: &[u8], asked: &[u8]) -> Option<Vec<u8>> {
    let rest = path.strip_prefix(asked.strip_suffix(b"/").unwrap_or(asked))?;
    let mut there = real.strip_suffix(b"/").unwrap_or(real).to_vec();
    there.extend_from_slice(rest);
    Some(if there.is_empty() { b"/".to_vec() } else { there })
}

fn only_name(response: &Response) -> Option<Bytes> {
    match response {
        Response::Name { entries } => entries.first().map(|entry| entry.filename.clone()),
        _ => None,
    }
}

/// Creating a file with read and write bits only, as stock clients do for every upload, is no more than writing it.
fn creates_plainly(request: &Request) -> bool {
    let Request::Open { attributes, .. } = request else { return false };
    let bits = attributes.permissions.unwrap_or_default();
    let plain = bits & 0o7111 == 0 && attributes.owner.is_none() && attributes.size.is_none();
    plain && attributes.times.is_none() && attributes.extended.is_empty()
}

/// What the server was asked about a request besides its paths.
#[derive(Debug, Default)]
struct Seen {
    /// How large a file to be read is.
    size: Option<u64>,
    /// What a link that is made or moved says.
    link: Option<Bytes>,
    /// What it leads to from where it will stand.
    leads: Option<Bytes>,
}

/// What a link that is to be made says.
fn text_of_link(request: &FileOperation) -> Option<Bytes> {
    // A copy: the slice would keep the whole frame.
    match request.request() {
        Request::Symlink { target, .. } => Some(Bytes::copy_from_slice(target)),
        _ => None,
    }
}

/// What it gives another name.
fn moved(request: &FileOperation) -> Option<Bytes> {
    let renames = matches!(request.kind(), FileKind::Rename | FileKind::PosixRename | FileKind::Hardlink);
    let from = request.paths().first().filter(|_| renames)?;
    from.path.as_deref().map(Bytes::copy_from_slice)
}

/// Whether it opens a file to read it.
fn reads(request: &FileOperation) -> bool {
    // A file that must not exist yet has no size; what would be asked about is its folder.
    request.paths().iter().any(|path| path.follows_link && path.actions.contains(&FileAction::Read))
}

/// The request as an operation: each path with what is done to it, and how large it is.
fn described(target: &Resource, request: &FileOperation, seen: &Seen) -> Result<Operation, Denial> {
    let unclear = || {
        Denial::new(DenialCode::NotUnderstood, "the path is not UTF-8, too deep, or unknown")
            .with_hint("use an absolute path in UTF-8")
    };
    let kind = request.kind().as_str();
    let plain = creates_plainly(request.request());
    let mut text = kind.to_owned();
    let mut accesses = Vec::new();
    for used in request.paths() {
        let path = used.path.as_deref().and_then(|path| file(target, path)).ok_or_else(unclear)?;
        let path = match seen.size.map(i64::try_from) {
            Some(Ok(size)) => path.with("size", size),
            _ => path,
        };
        text.push_str(&format!(" {}", String::from_utf8_lossy(used.path.as_deref().unwrap_or_default())));
        for action in used.actions.iter().filter(|action| !(plain && **action == FileAction::Setstat)) {
            operation::touch(&mut accesses, *action, &path);
        }
    }
    let mut judged = Operation::new(kind, text);
    if let Some(link) = &seen.link {
        judged.arguments.push(operation::argument("link".to_owned(), &link.escape_ascii().to_string()));
    }
    match (&seen.link, &seen.leads) {
        (_, Some(leads)) => {
            // Where it stands now it was judged by what it leads to there: moved, it may lead elsewhere.
            judged
                .arguments
                .push(operation::argument("leads to".to_owned(), &leads.escape_ascii().to_string()));
            let leads = file(target, leads).ok_or_else(unclear)?;
            operation::touch(&mut accesses, FileAction::Symlink, &leads);
        }
        (Some(link), None) if !link.starts_with(b"/") => {
            return Err(Denial::new(
                DenialCode::NotUnderstood,
                "the text of the moved link has `..` behind a name",
            )
            .with_hint("make a new link with a text that does not go back"));
        }
        _ => {}
    }
    judged.accesses = accesses.into();
    judged.effect = request.effect();
    judged.facts = request.facts().into();
    // Flags and attributes, exactly.
    let exactly = format!("{:?}", request.request());
    judged.arguments.push(operation::argument("request".to_owned(), &exactly));
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_stands_below_what_does() {
        assert_eq!(below(b"/vault", b"/home/link/a/b", b"/home/link").unwrap(), b"/vault/a/b");
        assert_eq!(below(b"/", b"/a/b", b"/").unwrap(), b"/a/b");
        assert_eq!(below(b"/x", b"/a/b", b"/").unwrap(), b"/x/a/b");
        assert_eq!(below(b"/x", b"/a/b", b"/c"), None);
    }
}
