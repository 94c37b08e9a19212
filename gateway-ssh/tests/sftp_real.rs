//! A session between a client (this test) and OpenSSH's `sftp-server` on pipes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bytes::Bytes;
use gateway_ssh::sftp::{
    Answered, Asked, Attributes, ClientMessage, ExtendedRequest, FileAction, FileKind, FrameDecoder, Limits,
    OpenFlags, Reply, Request, Response, ServerMessage, Session, SftpError, StatusCode,
};

const SERVERS: &[&str] =
    &["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"];

struct Pair {
    server: Child,
    input: ChildStdin,
    output: ChildStdout,
    decoder: FrameDecoder,
    session: Session,
    next: u32,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

impl Pair {
    /// A server in `directory`, past INIT, with the start directory asked for.
    fn start(directory: &std::path::Path) -> Self {
        let path = SERVERS.iter().find(|path| std::path::Path::new(path).exists());
        let path = path.expect("no sftp-server: install OpenSSH's sftp server");
        let mut command = Command::new(path);
        command.current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().unwrap();
        let (input, output) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
        let session = Session::new(Limits { requests: 64, handles: 3 });
        let mut pair = Self { server, input, output, decoder: FrameDecoder::new(), session, next: 7000 };
        let Asked::Init(init) = pair.session.request(ClientMessage::Init { version: 3 }.encode()).unwrap()
        else {
            panic!("not INIT")
        };
        pair.input.write_all(&init).unwrap();
        let Answered::Version(extensions) = pair.answered() else { panic!("not VERSION") };
        assert!(extensions.iter().any(|(name, _)| name == &b"posix-rename@openssh.com"[..]));
        let shown = Session::version(&extensions, |name| name.starts_with(b"fsync"));
        let Ok(ServerMessage::Version { version: 3, extensions }) = ServerMessage::decode(&shown) else {
            panic!()
        };
        assert_eq!(extensions.len(), 1);
        let start = pair.ask(&Request::Realpath { path: bytes(".") });
        let Response::Name { entries } = start else { panic!("{start:?}") };
        pair.session.set_start(&entries[0].filename);
        pair
    }

    fn answered(&mut self) -> Answered {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return self.session.response(frame).unwrap();
            }
            let mut chunk = [0; 4096];
            let got = self.output.read(&mut chunk).unwrap();
            assert!(got > 0, "the server closed");
            self.decoder.push(&chunk[..got]).unwrap();
        }
    }

    fn ask(&mut self, request: &Request) -> Response {
        let (id, frame) = self.session.ask(request).unwrap();
        self.input.write_all(&frame).unwrap();
        let Answered::Own(answered, response) = self.answered() else { panic!("not our own") };
        assert_eq!(answered, id);
        response
    }

    fn asked(&mut self, request: &Request) -> Asked {
        self.next += 1;
        self.session.request(request.encode(self.next)).unwrap()
    }

    fn reply(&mut self, request: &Request) -> Reply {
        let Asked::File(operation) = self.asked(request) else { panic!("refused: {request:?}") };
        let frame = self.session.forward(*operation).unwrap();
        self.input.write_all(&frame).unwrap();
        let Answered::Reply(reply) = self.answered() else { panic!("no reply: {request:?}") };
        assert_eq!(reply.client_id, self.next);
        *reply
    }

    /// What the client sees, decoded from the bytes it gets.
    fn does(&mut self, request: &Request) -> Response {
        let id = self.next + 1;
        let Ok(ServerMessage::Response(seen, response)) = ServerMessage::decode(&self.reply(request).pass())
        else {
            panic!("{request:?}")
        };
        assert_eq!(seen, id);
        response
    }

    fn ok(&mut self, request: &Request) {
        let response = self.does(request);
        assert!(
            matches!(response, Response::Status { code: StatusCode::OK, .. }),
            "{request:?}: {response:?}"
        );
    }

    fn open(&mut self, path: &str, flags: u32) -> Bytes {
        let request =
            Request::Open { path: bytes(path), flags: OpenFlags(flags), attributes: Attributes::default() };
        match self.does(&request) {
            Response::Handle { handle } => handle,
            other => panic!("{path}: {other:?}"),
        }
    }
}

const READ: u32 = 1;
const WRITE_CREATE_TRUNCATE: u32 = 0x02 | 0x08 | 0x10;

#[test]
fn a_file_is_written_renamed_read_masked_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    let mut pair = Pair::start(&root);
    let handle = pair.open(".//a.txt", WRITE_CREATE_TRUNCATE);
    pair.ok(&Request::Write { handle: handle.clone(), offset: 0, data: bytes("top secret words") });
    pair.ok(&Request::Fsetstat {
        handle: handle.clone(),
        attributes: Attributes { permissions: Some(0o600), ..Attributes::default() },
    });
    pair.ok(&Request::Extended(ExtendedRequest::Fsync { handle: handle.clone() }));
    pair.ok(&Request::Close { handle });
    pair.ok(&Request::Rename { from: bytes("a.txt"), to: bytes("b.txt") });
    std::fs::write(root.join("c.txt"), "old").unwrap();
    pair.ok(&Request::Extended(ExtendedRequest::PosixRename { from: bytes("b.txt"), to: bytes("c.txt") }));

    let handle = pair.open("c.txt", READ);
    let reply = pair.reply(&Request::Read { handle: handle.clone(), offset: 4, length: 100 });
    assert_eq!((reply.kind, reply.offset), (FileKind::Read, 4));
    assert_eq!(reply.path.as_deref(), Some(root.join("c.txt").as_os_str().as_encoded_bytes()));
    assert_eq!(reply.response, Response::Data { data: bytes("secret words") });
    let shown = ServerMessage::decode(&reply.masked_data(b"****** words").unwrap()).unwrap();
    assert_eq!(shown, ServerMessage::Response(pair.next, Response::Data { data: bytes("****** words") }));
    let reply = pair.reply(&Request::Read { handle: handle.clone(), offset: 0, length: 3 });
    assert_eq!(reply.masked_data(b"****"), Err(SftpError::Replacement));
    let end = pair.does(&Request::Read { handle: handle.clone(), offset: 1000, length: 3 });
    assert!(matches!(end, Response::Status { code: StatusCode::EOF, .. }));
    pair.ok(&Request::Close { handle });
    pair.ok(&Request::Remove { path: bytes("c.txt") });
    assert!(!root.join("c.txt").exists());
}

#[test]
fn listings_links_and_extensions() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    let mut pair = Pair::start(&root);
    pair.ok(&Request::Mkdir { path: bytes("d"), attributes: Attributes::default() });
    std::fs::write(root.join("d/one"), "1").unwrap();
    pair.ok(&Request::Symlink { target: bytes("one"), link: bytes("d/link") });
    assert_eq!(std::fs::read_link(root.join("d/link")).unwrap(), std::path::Path::new("one"));
    pair.ok(&Request::Extended(ExtendedRequest::Hardlink { existing: bytes("d/one"), link: bytes("d/two") }));
    let Response::Name { entries } = pair.does(&Request::Readlink { path: bytes("d/link") }) else {
        panic!()
    };
    assert_eq!(entries[0].filename, "one");

    let Response::Handle { handle } = pair.does(&Request::Opendir { path: bytes("d") }) else { panic!() };
    let reply = pair.reply(&Request::Readdir { handle: handle.clone() });
    let Response::Name { entries } = reply.response.clone() else { panic!() };
    let mut names: Vec<_> = entries.iter().map(|entry| entry.filename.clone()).collect();
    names.sort();
    assert_eq!(names, [".", "..", "link", "one", "two"]);
    let kept: Vec<_> = entries.into_iter().filter(|entry| entry.filename != "two").collect();
    let Ok(ServerMessage::Response(_, Response::Name { entries })) =
        ServerMessage::decode(&reply.names(kept).unwrap())
    else {
        panic!()
    };
    assert_eq!(entries.len(), 4);
    pair.ok(&Request::Close { handle });

    let Response::Attrs { attributes } = pair.does(&Request::Lstat { path: bytes("d/link") }) else {
        panic!()
    };
    assert_eq!(attributes.permissions.unwrap() & 0o170_000, 0o120_000);
    let vfs = pair.does(&Request::Extended(ExtendedRequest::Statvfs { path: bytes("d") }));
    assert!(matches!(vfs, Response::ExtendedReply { .. }));
    let limits = pair.does(&Request::Extended(ExtendedRequest::Limits));
    assert!(matches!(limits, Response::ExtendedReply { .. }));
    let home_path = pair.does(&Request::Extended(ExtendedRequest::ExpandPath { path: bytes("d/../d") }));
    let Response::Name { entries } = home_path else { panic!() };
    assert_eq!(entries[0].filename, root.join("d").as_os_str().as_encoded_bytes());
    let unknown = ExtendedRequest::Unknown { name: bytes("x@example.org"), data: bytes("?") };
    let unknown = pair.does(&Request::Extended(unknown));
    assert!(matches!(unknown, Response::Status { code: StatusCode::OP_UNSUPPORTED, .. }));
    pair.ok(&Request::Extended(ExtendedRequest::Lsetstat {
        path: bytes("d/link"),
        attributes: Attributes { times: Some((1, 2)), ..Attributes::default() },
    }));
}

#[test]
fn a_link_out_of_the_tree_is_seen_before_it_is_followed() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("open")).unwrap();
    std::fs::create_dir(root.join("secret")).unwrap();
    std::fs::write(root.join("secret/key"), "k").unwrap();
    std::os::unix::fs::symlink(root.join("secret"), root.join("open/way")).unwrap();
    let mut pair = Pair::start(&root);
    let request = Request::Open {
        path: bytes("open/way/key"),
        flags: OpenFlags(READ),
        attributes: Attributes::default(),
    };
    let Asked::File(mut operation) = pair.asked(&request) else { panic!() };
    let question = operation.paths()[0].question().unwrap();
    assert_eq!(question, root.join("open/way/key").as_os_str().as_encoded_bytes());
    let Response::Name { entries } = pair.ask(&Request::Realpath { path: question }) else { panic!() };
    let real = operation.paths()[0].real(&entries[0].filename).unwrap();
    assert_eq!(real, root.join("secret/key").as_os_str().as_encoded_bytes());
    assert!(operation.replace_path(0, &real));
    let frame = pair.session.forward(*operation).unwrap();
    let Ok(ClientMessage::Request(_, Request::Open { path, .. })) = ClientMessage::decode(&frame) else {
        panic!()
    };
    assert_eq!(path, real);
    pair.input.write_all(&frame).unwrap();
    let Answered::Reply(reply) = pair.answered() else { panic!() };
    assert!(matches!(reply.response, Response::Handle { .. }));
    // The link itself, for operations that do not follow it: the directory is asked for.
    let Asked::File(operation) = pair.asked(&Request::Remove { path: bytes("open/way") }) else { panic!() };
    assert_eq!(operation.paths()[0].question().unwrap(), root.join("open").as_os_str().as_encoded_bytes());
    let refusal =
        pair.session.refuse(&operation, StatusCode::PERMISSION_DENIED, "`open/way` may not be removed");
    let Ok(ServerMessage::Response(id, Response::Status { code, message, language })) =
        ServerMessage::decode(&refusal)
    else {
        panic!()
    };
    assert_eq!(
        (id, code, &message[..], &language[..]),
        (pair.next, StatusCode::PERMISSION_DENIED, &b"`open/way` may not be removed"[..], &b"en"[..])
    );
    assert!(root.join("open/way").exists());
}

#[test]
fn requests_in_flight_and_questions_between_them_are_told_apart() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    std::fs::write(root.join("f"), [b'a'; 1000]).unwrap();
    let mut pair = Pair::start(&root);
    let handle = pair.open("f", READ);
    // The client's ids are those the gateway also uses: 0 to 9.
    let mut own = Vec::new();
    for id in 0..10_u32 {
        let request = Request::Read { handle: handle.clone(), offset: u64::from(id), length: 10 };
        let Asked::File(operation) = pair.session.request(request.encode(id)).unwrap() else { panic!() };
        let frame = pair.session.forward(*operation).unwrap();
        pair.input.write_all(&frame).unwrap();
        let (asked, frame) = pair.session.ask(&Request::Lstat { path: bytes("f") }).unwrap();
        own.push(asked);
        pair.input.write_all(&frame).unwrap();
    }
    assert_eq!(
        pair.session.request(Request::Fstat { handle: handle.clone() }.encode(3)).unwrap_err(),
        SftpError::DuplicateId(3)
    );
    let mut clients = Vec::new();
    for _ in 0..20 {
        match pair.answered() {
            Answered::Own(id, Response::Attrs { attributes }) => {
                assert_eq!(attributes.size, Some(1000));
                own.retain(|o| *o != id);
            }
            Answered::Reply(reply) => {
                assert_eq!(reply.offset, u64::from(reply.client_id));
                clients.push(reply.client_id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(own.is_empty());
    assert_eq!(clients, (0..10).collect::<Vec<_>>());
}

#[test]
fn handles_are_known_limited_and_of_their_kind() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    std::fs::write(root.join("f"), "x").unwrap();
    let mut pair = Pair::start(&root);
    let refused = |asked| match asked {
        Asked::Refused(frame) => matches!(
            ServerMessage::decode(&frame),
            Ok(ServerMessage::Response(_, Response::Status { code: StatusCode::FAILURE, .. }))
        ),
        _ => false,
    };
    let forged = Request::Read { handle: bytes([0, 0, 0, 9]), offset: 0, length: 1 };
    let asked = pair.asked(&forged);
    assert!(refused(asked));
    let file = pair.open("f", READ);
    let asked = pair.asked(&Request::Readdir { handle: file.clone() });
    assert!(refused(asked));
    pair.open("f", READ);
    pair.open("f", READ);
    assert_eq!(pair.session.open_handles(), 3);
    let asked = pair.asked(&Request::Opendir { path: bytes(".") });
    assert!(refused(asked));
    pair.ok(&Request::Close { handle: file.clone() });
    let asked = pair.asked(&Request::Fstat { handle: file });
    assert!(refused(asked));
    let copy = pair.open("g", WRITE_CREATE_TRUNCATE);
    let request = Request::Extended(ExtendedRequest::CopyData {
        from: copy.clone(),
        from_offset: 0,
        length: 0,
        to: copy,
        to_offset: 0,
    });
    let Asked::File(operation) = pair.asked(&request) else { panic!() };
    assert_eq!(operation.paths()[0].actions, [FileAction::Read]);
    assert_eq!(operation.paths()[1].actions, [FileAction::Write]);
    pair.session.refuse(&operation, StatusCode::PERMISSION_DENIED, "no");
}
