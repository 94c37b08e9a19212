//! Frames and packets: what is written is read back, any split gives the same, nothing else panics or grows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use bytes::{BufMut, Bytes, BytesMut};
use gateway_ssh::sftp::{
    Asked, Attributes, ClientMessage, ExtendedRequest, FileAction, FrameDecoder, Limits, MAX_FRAME_BYTES,
    NameEntry, OpenFlags, Request, Response, ServerMessage, Session, SftpError, StatusCode,
};
use proptest::prelude::*;

fn blob(limit: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..limit).prop_map(Bytes::from)
}

fn path() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(1..=u8::MAX, 0..60).prop_map(Bytes::from)
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let pairs = prop::collection::vec((blob(10), blob(10)), 0..3);
    (
        any::<Option<u64>>(),
        any::<Option<(u32, u32)>>(),
        any::<Option<u32>>(),
        any::<Option<(u32, u32)>>(),
        pairs,
    )
        .prop_map(|(size, owner, permissions, times, extended)| Attributes {
            size,
            owner,
            permissions,
            times,
            extended,
        })
}

fn extended() -> impl Strategy<Value = ExtendedRequest> {
    use ExtendedRequest as E;
    prop_oneof![
        (path(), path()).prop_map(|(from, to)| E::PosixRename { from, to }),
        path().prop_map(|path| E::Statvfs { path }),
        blob(256).prop_map(|handle| E::Fstatvfs { handle }),
        (path(), path()).prop_map(|(existing, link)| E::Hardlink { existing, link }),
        blob(9).prop_map(|handle| E::Fsync { handle }),
        (path(), attributes()).prop_map(|(path, attributes)| E::Lsetstat { path, attributes }),
        Just(E::Limits),
        path().prop_map(|path| E::ExpandPath { path }),
        (blob(9), any::<u64>(), any::<u64>(), blob(9), any::<u64>()).prop_map(
            |(from, from_offset, length, to, to_offset)| E::CopyData {
                from,
                from_offset,
                length,
                to,
                to_offset
            }
        ),
        blob(9).prop_map(|user| E::HomeDirectory { user }),
        (blob(40), blob(40)).prop_map(|(users, groups)| E::UsersGroupsById { users, groups }),
        ("x-[a-z]{1,9}", blob(30)).prop_map(|(name, data)| E::Unknown { name: Bytes::from(name), data }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    use Request as R;
    prop_oneof![
        (path(), 0..0x40_u32, attributes()).prop_map(|(path, flags, attributes)| R::Open {
            path,
            flags: OpenFlags(flags),
            attributes
        }),
        blob(9).prop_map(|handle| R::Close { handle }),
        (blob(9), any::<u64>(), any::<u32>()).prop_map(|(handle, offset, length)| R::Read {
            handle,
            offset,
            length
        }),
        (blob(9), any::<u64>(), blob(200)).prop_map(|(handle, offset, data)| R::Write {
            handle,
            offset,
            data
        }),
        path().prop_map(|path| R::Lstat { path }),
        blob(9).prop_map(|handle| R::Fstat { handle }),
        (path(), attributes()).prop_map(|(path, attributes)| R::Setstat { path, attributes }),
        (blob(9), attributes()).prop_map(|(handle, attributes)| R::Fsetstat { handle, attributes }),
        path().prop_map(|path| R::Opendir { path }),
        blob(9).prop_map(|handle| R::Readdir { handle }),
        path().prop_map(|path| R::Remove { path }),
        (path(), attributes()).prop_map(|(path, attributes)| R::Mkdir { path, attributes }),
        path().prop_map(|path| R::Rmdir { path }),
        path().prop_map(|path| R::Realpath { path }),
        path().prop_map(|path| R::Stat { path }),
        (path(), path()).prop_map(|(from, to)| R::Rename { from, to }),
        path().prop_map(|path| R::Readlink { path }),
        (path(), path()).prop_map(|(target, link)| R::Symlink { target, link }),
        extended().prop_map(R::Extended),
    ]
}

fn response() -> impl Strategy<Value = Response> {
    let entry = (path(), blob(60), attributes()).prop_map(|(filename, longname, attributes)| NameEntry {
        filename,
        longname,
        attributes,
    });
    prop_oneof![
        (any::<u32>(), blob(40), blob(5)).prop_map(|(code, message, language)| Response::Status {
            code: StatusCode(code),
            message,
            language
        }),
        blob(256).prop_map(|handle| Response::Handle { handle }),
        blob(300).prop_map(|data| Response::Data { data }),
        prop::collection::vec(entry, 0..5).prop_map(|entries| Response::Name { entries }),
        attributes().prop_map(|attributes| Response::Attrs { attributes }),
        blob(40).prop_map(|data| Response::ExtendedReply { data }),
    ]
}

/// A session that is past VERSION.
fn ready(limits: Limits) -> Session {
    let mut session = Session::new(limits);
    assert!(matches!(session.request(ClientMessage::Init { version: 3 }.encode()), Ok(Asked::Init(_))));
    let version = ServerMessage::Version { version: 3, extensions: Vec::new() };
    assert!(session.response(version.encode()).is_ok());
    session
}

fn file(asked: Result<Asked, SftpError>) -> gateway_ssh::sftp::FileOperation {
    match asked {
        Ok(Asked::File(operation)) => *operation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_waits_for_its_path_keeps_nothing_else() {
    let mut session = ready(Limits::default());
    let path = Bytes::from_static(b"/srv/notes");
    let stat = Request::Stat { path: path.clone() }.encode(1);
    let mut bulk = BytesMut::from(&stat[..]);
    bulk.extend_from_slice(&[0; 100_000]);
    let bulk = bulk.freeze();
    let operation = file(session.request(bulk.slice(..stat.len())));
    assert!(bulk.is_unique(), "the request is a slice of everything that came with it");
    assert_eq!(*operation.request(), Request::Stat { path });
}

proptest! {
    #[test]
    fn requests_are_read_back(id: u32, request in request()) {
        let frame = request.encode(id);
        prop_assert_eq!(ClientMessage::decode(&frame), Ok(ClientMessage::Request(id, request)));
    }

    #[test]
    fn responses_are_read_back(id: u32, response in response()) {
        let frame = response.encode(id);
        prop_assert_eq!(ServerMessage::decode(&frame), Ok(ServerMessage::Response(id, response)));
    }

    #[test]
    fn any_split_gives_the_same_frames(requests in prop::collection::vec(request(), 1..4), cuts in prop::collection::vec(1..40_usize, 1..9)) {
        let frames: Vec<Bytes> = requests.iter().zip(0..).map(|(request, id)| request.encode(id)).collect();
        let mut stream = &frames.concat()[..];
        let mut decoder = FrameDecoder::new();
        let mut seen = Vec::new();
        let mut cuts = cuts.into_iter().cycle();
        while !stream.is_empty() {
            let (chunk, rest) = stream.split_at(cuts.next().unwrap().min(stream.len()));
            decoder.push(chunk).unwrap();
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push(frame);
            }
            stream = rest;
        }
        prop_assert!(decoder.is_empty());
        prop_assert_eq!(seen, frames);
    }

    #[test]
    fn cut_or_extended_packets_are_refused(request in request(), cut in 1..9_usize, extra in 1..9_usize) {
        let whole = request.encode(7);
        let body = &whole[4..];
        let shorter = reframed(&body[..body.len().saturating_sub(cut)]);
        // A shorter unknown extension is an unknown extension still.
        if !matches!(request, Request::Extended(ExtendedRequest::Unknown { .. })) {
            prop_assert!(ClientMessage::decode(&shorter).is_err());
            let mut longer = body.to_vec();
            longer.resize(body.len() + extra, 0);
            let error = ClientMessage::decode(&reframed(&longer)).unwrap_err();
            prop_assert_eq!(error.answerable(), Some(7));
        }
        prop_assert!(ClientMessage::decode(&whole.slice(..whole.len() - 1)).is_err(), "a length that is not the frame's");
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(body in prop::collection::vec(any::<u8>(), 0..120), kind in prop::sample::select(
        vec![1_u8, 2, 3, 4, 5, 6, 9, 14, 18, 20, 101, 102, 103, 104, 105, 200, 201])) {
        let mut session = ready(Limits::default());
        let mut payload = vec![kind];
        payload.extend(&body);
        session.request(reframed(&payload)).ok();
        session.response(reframed(&payload)).ok();
        ClientMessage::decode(&Bytes::from(body.clone())).ok();
        let mut decoder = FrameDecoder::new();
        decoder.push(&body).unwrap();
        while let Ok(Some(_)) = decoder.next_frame() {}
    }

    #[test]
    fn forwarded_requests_differ_in_their_id_only(request in request(), id: u32) {
        let mut session = ready(Limits::default());
        if let Ok(Asked::File(operation)) = session.request(request.encode(id)) {
            let sent = session.forward(*operation).unwrap();
            prop_assert_eq!(ClientMessage::decode(&sent), Ok(ClientMessage::Request(0, request)));
        }
    }
}

fn reframed(body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(body.len()).unwrap());
    frame.put_slice(body);
    frame.freeze()
}

#[test]
fn frame_lengths_are_checked_before_the_frame_is_there() {
    for length in [0, u32::try_from(MAX_FRAME_BYTES).unwrap() + 1, u32::MAX] {
        let mut decoder = FrameDecoder::new();
        decoder.push(&length.to_be_bytes()).unwrap();
        assert_eq!(decoder.next_frame(), Err(SftpError::FrameLength(length)));
    }
    let mut decoder = FrameDecoder::new();
    let room = decoder.room();
    decoder.push(&vec![0; room]).unwrap();
    assert_eq!(decoder.push(&[0]), Err(SftpError::Buffered));
}

#[test]
fn paths_with_nul_and_unknown_flags_are_refused_on_their_request() {
    let nul = Request::Remove { path: Bytes::from_static(b"/ok\0/etc/shadow") }.encode(5);
    assert_eq!(ClientMessage::decode(&nul), Err(SftpError::Malformed { id: Some(5), what: "NUL in path" }));
    let flags = Request::Open {
        path: Bytes::from_static(b"/x"),
        flags: OpenFlags(0x40),
        attributes: Attributes::default(),
    };
    assert!(ClientMessage::decode(&flags.encode(5)).is_err());
    let long = Request::Stat { path: Bytes::from(vec![b'a'; 4097]) };
    assert!(ClientMessage::decode(&long.encode(5)).is_err());
    let reply = Session::reject(5, "NUL in a path");
    let Ok(ServerMessage::Response(5, Response::Status { code, .. })) = ServerMessage::decode(&reply) else {
        panic!()
    };
    assert_eq!(code, StatusCode::BAD_MESSAGE);
}

#[test]
fn init_comes_first_once_and_in_version_3() {
    let stat = Request::Stat { path: Bytes::from_static(b"/") };
    let init = ClientMessage::Init { version: 3 }.encode();
    let version = |version| ServerMessage::Version { version, extensions: Vec::new() }.encode();
    assert_eq!(Session::new(Limits::default()).request(stat.encode(1)).unwrap_err(), SftpError::Order);
    let old = ClientMessage::Init { version: 2 }.encode();
    assert_eq!(Session::new(Limits::default()).request(old).unwrap_err(), SftpError::Version(2));
    let mut session = Session::new(Limits::default());
    let newer = ClientMessage::Init { version: 6 }.encode();
    assert!(matches!(session.request(newer), Ok(Asked::Init(sent)) if sent == init));
    assert_eq!(session.request(stat.encode(1)).unwrap_err(), SftpError::Order);
    assert_eq!(session.ask(&stat).unwrap_err(), SftpError::Order);
    assert_eq!(session.response(version(2)).unwrap_err(), SftpError::Version(2));
    assert!(session.response(version(3)).is_ok());
    assert_eq!(session.response(version(3)).unwrap_err(), SftpError::Order);
    assert_eq!(session.request(init).unwrap_err(), SftpError::Order);
}

#[test]
fn requests_are_limited_and_their_ids_come_free() {
    let mut session = ready(Limits { requests: 2, handles: 2 });
    let stat = Request::Stat { path: Bytes::from_static(b"/") };
    let first = file(session.request(stat.encode(1)));
    let second = file(session.request(stat.encode(2)));
    assert_eq!(session.request(stat.encode(3)).unwrap_err(), SftpError::Outstanding);
    assert_eq!(session.request(stat.encode(2)).unwrap_err(), SftpError::DuplicateId(2));
    let _ = session.forward(first).unwrap();
    assert!(session.has_room());
    let _ = session.refuse(&second, StatusCode::PERMISSION_DENIED, "no");
    let second = file(session.request(stat.encode(2)));
    let _ = session.forward(second).unwrap();
    assert!(!session.has_room());
    assert_eq!(session.ask(&stat).unwrap_err(), SftpError::Outstanding);
    let answer = Response::status(StatusCode::NO_SUCH_FILE, "none").encode(0);
    assert!(session.response(answer.clone()).is_ok());
    assert_eq!(session.response(answer).unwrap_err(), SftpError::UnknownId(0));
    assert!(session.has_room());
}

#[test]
fn answers_must_fit_their_requests() {
    let handle = Response::Handle { handle: Bytes::from_static(b"h") };
    let stat = Request::Stat { path: Bytes::from_static(b"/") };
    let mut session = ready(Limits::default());
    let operation = file(session.request(stat.encode(9)));
    let _ = session.forward(operation).unwrap();
    assert_eq!(session.response(handle.encode(0)).unwrap_err(), SftpError::Mismatch("packet type"));

    let mut session = ready(Limits::default());
    let open = Request::Open {
        path: Bytes::from_static(b"/f"),
        flags: OpenFlags(1),
        attributes: Attributes::default(),
    };
    for id in 0..2 {
        let operation = file(session.request(open.encode(id)));
        let _ = session.forward(operation).unwrap();
    }
    assert!(session.response(handle.encode(0)).is_ok());
    let read = Request::Read { handle: Bytes::from_static(b"h"), offset: 0, length: 2 };
    let operation = file(session.request(read.encode(7)));
    let _ = session.forward(operation).unwrap();
    let data = Response::Data { data: Bytes::from_static(b"abc") };
    assert_eq!(
        session.response(data.encode(2)).unwrap_err(),
        SftpError::Mismatch("more data than asked for")
    );
    assert_eq!(session.response(handle.encode(1)).unwrap_err(), SftpError::Mismatch("handle in use"));
}

#[test]
fn relative_paths_need_a_start_and_say_so() {
    let mut session = ready(Limits::default());
    let remove = |path: &'static str| Request::Remove { path: Bytes::from_static(path.as_bytes()) };
    let operation = file(session.request(remove("x").encode(1)));
    assert_eq!(operation.paths()[0].path, None);
    assert_eq!(operation.paths()[0].question(), None);
    let _ = session.refuse(&operation, StatusCode::PERMISSION_DENIED, "no");
    session.set_start(b"/home/../srv");
    let operation = file(session.request(remove("../etc//./cron.d/x").encode(1)));
    assert_eq!(operation.paths()[0].path.as_deref(), Some(&b"/etc/cron.d/x"[..]));
    assert_eq!(operation.paths()[0].actions, [FileAction::Remove]);
    let tilde = Request::Extended(ExtendedRequest::ExpandPath { path: Bytes::from_static(b"~root/x") });
    let operation = file(session.request(tilde.encode(2)));
    assert_eq!(operation.paths()[0].path, None);
}

#[test]
fn pinned_paths_are_sent_as_judged() {
    let mut session = ready(Limits::default());
    let from = Bytes::from_static(b"a/../b");
    let rename = Request::Rename { from: from.clone(), to: Bytes::from_static(b"/x//./y") };
    let mut operation = file(session.request(rename.encode(1)));
    assert!(!operation.pin_paths());
    let _ = session.refuse(&operation, StatusCode::PERMISSION_DENIED, "no");
    session.set_start(b"/srv");
    let mut operation = file(session.request(rename.encode(1)));
    assert!(operation.pin_paths());
    let sent = session.forward(operation).unwrap();
    let pinned = Request::Rename { from: Bytes::from_static(b"/srv/b"), to: Bytes::from_static(b"/x/y") };
    assert_eq!(ClientMessage::decode(&sent), Ok(ClientMessage::Request(0, pinned)));
    // The text of a link stays as it was; the link's own path does not.
    let target = Bytes::from_static(b"c/./d");
    let symlink = Request::Symlink { target: target.clone(), link: from.clone() };
    let mut operation = file(session.request(symlink.encode(2)));
    assert!(operation.pin_paths());
    let sent = session.forward(operation).unwrap();
    let pinned = Request::Symlink { target, link: Bytes::from_static(b"/srv/b") };
    assert_eq!(ClientMessage::decode(&sent), Ok(ClientMessage::Request(1, pinned)));
    // Where a text leads that goes back behind a name, the server's links decide.
    let symlink = Request::Symlink { target: from.clone(), link: from };
    assert!(!file(session.request(symlink.encode(3))).pin_paths());
}

#[test]
fn open_says_all_it_may_do() {
    use FileAction as A;
    let mut session = ready(Limits::default());
    for (id, (flags, expected)) in [
        (0, vec![A::Read]),
        (1, vec![A::Read]),
        (2, vec![A::Write]),
        (0x1b, vec![A::Read, A::Write, A::Create, A::Truncate]),
        (0x0e, vec![A::Write, A::Append, A::Create]),
        (0x11, vec![A::Read, A::Truncate]),
    ]
    .into_iter()
    .enumerate()
    {
        let open = Request::Open {
            path: Bytes::from_static(b"/f"),
            flags: OpenFlags(flags),
            attributes: Attributes::default(),
        };
        let operation = file(session.request(open.encode(u32::try_from(id).unwrap())));
        assert_eq!(operation.paths()[0].actions, expected, "{flags:#x}");
    }
    let attributes = Attributes { permissions: Some(0o104_755), ..Attributes::default() };
    let open = Request::Open { path: Bytes::from_static(b"/f"), flags: OpenFlags(0x0a), attributes };
    let operation = file(session.request(open.encode(99)));
    assert_eq!(operation.paths()[0].actions, [A::Write, A::Create, A::Setstat]);
    let facts = serde_json::to_value(operation.facts()).unwrap();
    assert_eq!(facts["mode"], "4755");
    assert_eq!(facts["executable"], true);
    assert_eq!(facts["set_id"], true);
}

#[test]
fn folders_with_more_than_the_usual_bits_say_so() {
    use FileAction as A;
    let mut session = ready(Limits::default());
    for (id, (attributes, expected)) in [
        (Attributes::default(), vec![A::Mkdir]),
        (Attributes { permissions: Some(0o777), ..Attributes::default() }, vec![A::Mkdir]),
        (Attributes { permissions: Some(0o2777), ..Attributes::default() }, vec![A::Mkdir, A::Setstat]),
        (Attributes { permissions: Some(0o1777), ..Attributes::default() }, vec![A::Mkdir, A::Setstat]),
        (Attributes { owner: Some((0, 0)), ..Attributes::default() }, vec![A::Mkdir, A::Setstat]),
    ]
    .into_iter()
    .enumerate()
    {
        let make = Request::Mkdir { path: Bytes::from_static(b"/d"), attributes };
        let operation = file(session.request(make.encode(u32::try_from(id).unwrap())));
        assert_eq!(operation.paths()[0].actions, expected, "{make:?}");
    }
}

/// A request that waits for its path keeps them.
#[test]
fn extended_attributes_are_few_and_short() {
    let with = |count: usize, length: usize| {
        let pair = (Bytes::from_static(b"a@b"), Bytes::from(vec![b'x'; length]));
        let attributes = Attributes { extended: vec![pair; count], ..Attributes::default() };
        let make = Request::Mkdir { path: Bytes::from_static(b"/d"), attributes };
        ClientMessage::decode(&make.encode(5))
    };
    assert!(with(8, 1024).is_ok());
    for (count, length) in [(9, 1), (1, 1025), (1, 250_000)] {
        assert_eq!(with(count, length).unwrap_err().answerable(), Some(5), "{count} {length}");
    }
}
