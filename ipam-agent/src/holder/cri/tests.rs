//! Servers that answer what no runtime does. What real ones answer is tested with them.

use std::{
    convert::Infallible,
    io::Write as _,
    os::unix::net::UnixListener as StdListener,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;

use super::{message::*, *};
use crate::engine::time::Timestamp;

/// Short, for what never comes.
const SOON: Duration = Duration::from_millis(300);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server that lives as long as this, and answers each call with what `answer` makes of
/// its name: the messages' bytes and the status.
struct Server {
    dir: tempfile::TempDir,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    fn new(answer: fn(&str) -> Answer) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cri.sock");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            tokio.block_on(async {
                let listener = UnixListener::bind(path).expect("a socket");
                ready.send(()).expect("somebody waits");
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let service = service_fn(move |request: Request<Incoming>| async move {
                            let path = request.uri().path();
                            let call = path.rsplit('/').next().unwrap_or_default();
                            Ok::<_, Infallible>(answer(call).response())
                        });
                        let connection = http2::Builder::new(TokioExecutor::new())
                            .serve_connection(TokioIo::new(stream), service);
                        tokio::spawn(connection);
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        is_ready.recv().expect("the server starts");
        Self { dir, _stop: stop }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("cri.sock")
    }

    fn asked(&self) -> Result<Runtime, CriError> {
        ask_one(&self.socket())
    }
}

fn ask_one(socket: &Path) -> Result<Runtime, CriError> {
    ask(&[socket.to_owned()], SOON * 10).remove(0)
}

enum Answer {
    /// These messages, well framed, and a status.
    Messages(Vec<Vec<u8>>, u16),
    /// These bytes and nothing more.
    Bytes(Vec<u8>),
    /// This message again and again, and no end.
    Endless(Vec<u8>),
}

impl Answer {
    fn of(message: &impl Message) -> Self {
        Self::Messages(vec![message.encode_to_vec()], 0)
    }

    fn response(self) -> Response<Body> {
        let framed = |message: Vec<u8>| {
            let length = u32::try_from(message.len()).expect("short enough");
            Bytes::from([&[0][..], &length.to_be_bytes(), &message].concat())
        };
        let data = |bytes| Ok::<_, Infallible>(Frame::data(bytes));
        let body = match self {
            Self::Messages(messages, status) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", status.into());
                let frames = messages.into_iter().map(framed).map(data);
                let frames: Vec<_> = frames.chain([Ok(Frame::trailers(trailers))]).collect();
                StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
            }
            Self::Bytes(bytes) => {
                let frames = [data(Bytes::from(bytes))];
                StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
            }
            Self::Endless(message) => {
                let frame = framed(message);
                let frames = std::iter::repeat_with(move || data(frame.clone()));
                StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
            }
        };
        Response::builder()
            .header("content-type", "application/grpc")
            .body(body)
            .expect("a response")
    }
}

fn version() -> Answer {
    Answer::of(&VersionResponse {
        runtime_name: "mock\u{1b}[2J".repeat(1000),
        runtime_version: "1".into(),
    })
}

fn one(id: &str) -> PodSandbox {
    PodSandbox {
        id: id.into(),
        ..PodSandbox::default()
    }
}

fn list(items: Vec<PodSandbox>) -> Answer {
    Answer::of(&ListPodSandboxResponse { items, excess: 0 })
}

fn network(ip: &str, more: &[&str]) -> PodSandboxStatusResponse {
    let additional_ips = more.iter().map(|ip| PodIp { ip: (*ip).into() });
    let network = PodSandboxNetworkStatus {
        ip: ip.into(),
        additional_ips: additional_ips.collect(),
    };
    let status = PodSandboxStatus {
        network: Some(network),
        linux: None,
    };
    PodSandboxStatusResponse {
        status: Some(status),
        ..PodSandboxStatusResponse::default()
    }
}

#[test]
fn every_address_of_a_sandbox_is_told() {
    let server = Server::new(|call| match call {
        "Version" => version(),
        "ListPodSandbox" => list(vec![one("a")]),
        _ => Answer::of(&network("10.0.0.1", &["fd00::1", "127.0.0.1"])),
    });
    let runtime = server.asked().expect("an answer");
    assert!(runtime.version.len() <= 256);
    let [sandbox] = &runtime.sandboxes[..] else {
        panic!("one sandbox: {runtime:?}")
    };
    let told: Vec<_> = sandbox.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["10.0.0.1", "fd00::1"]);
    assert!(sandbox.ready && sandbox.own_network && !sandbox.namespace_gone && !sandbox.guest);
}

#[test]
fn a_sandbox_that_goes_meanwhile_was_there() {
    let server = Server::new(|call| match call {
        "Version" => version(),
        "ListPodSandbox" => list(vec![one("a")]),
        _ => Answer::Messages(vec![], 5),
    });
    let runtime = server.asked().expect("an answer");
    assert_eq!(runtime.sandboxes.len(), 1);
    assert!(runtime.sandboxes[0].ready);
}

#[test]
fn what_was_told_in_a_pass_is_not_asked_for_under_a_lock() {
    static LATER: AtomicBool = AtomicBool::new(false);
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let server = Server::new(|call| match call {
        "Version" => version(),
        "ListPodSandbox" if LATER.load(Ordering::SeqCst) => {
            let stopped = PodSandbox {
                state: 1,
                ..one("stops")
            };
            list(vec![one("stays"), stopped, one("comes")])
        }
        "ListPodSandbox" => list(vec![one("stays"), one("stops"), one("goes")]),
        _ => {
            ASKED.fetch_add(1, Ordering::SeqCst);
            Answer::of(&network("10.0.0.1", &[]))
        }
    });
    let cri = Cri::Socket(server.socket());
    let mut book = SandboxBook::default();
    let asked = |book: &mut SandboxBook| {
        let report = report_again(&cri, book, SOON * 10).expect("there is one");
        let SocketAnswer::Sandboxes(list) = &report.sockets[0].1 else {
            panic!("{report:?}")
        };
        assert!(list.iter().all(|sandbox| sandbox.addresses.len() == 1));
        let mut told: Vec<_> = { list.iter() }
            .map(|sandbox| (sandbox.id.to_string(), sandbox.ready))
            .collect();
        told.sort();
        book.hear(report, Timestamp(1));
        (ASKED.swap(0, Ordering::SeqCst), told)
    };
    let told = |told: [(&str, bool); 3]| told.map(|(id, ready)| (id.to_owned(), ready)).to_vec();
    let first = told([("goes", true), ("stays", true), ("stops", true)]);
    assert_eq!(asked(&mut book), (3, first.clone()));
    assert_eq!(asked(&mut book), (0, first));
    LATER.store(true, Ordering::SeqCst);
    let later = told([("comes", true), ("stays", true), ("stops", false)]);
    assert_eq!(asked(&mut book), (2, later.clone()));
    assert_eq!(asked(&mut book), (0, later));
}

#[test]
fn only_a_runtime_that_says_so_has_lost_the_namespace() {
    let gone = |info: &str| client::is_namespace_gone(&[("info".into(), info.into())].into());
    assert!(gone(
        r#"{"pid":0,"netNamespaceClosed":true,"image":"pause"}"#
    ));
    for kept in [
        r#"{"pid":0,"netNamespaceClosed":false}"#,
        r#"{"pid":0,"netNamespaceClosed":"true"}"#,
        r#"{"pid":0}"#,
        "[]",
        "",
    ] {
        assert!(!gone(kept), "{kept}");
    }
    assert!(!client::is_namespace_gone(&[].into()));
}

#[test]
fn answers_without_measure_are_errors_and_take_no_memory() {
    // Two bytes an item, a hundred times as much if each were kept.
    let many = Server::new(|call| match call {
        "Version" => version(),
        _ => Answer::Messages(vec![[0x0a, 0x00].repeat(8 << 20)], 0),
    });
    // One item of two million empty labels.
    let wide = Server::new(|call| match call {
        "Version" => version(),
        _ => {
            let labels = [0x2a, 0x00].repeat(2 << 20);
            let mut list = vec![0x0a];
            prost::encoding::encode_varint(labels.len() as u64, &mut list);
            Answer::Messages(vec![[list, labels].concat()], 0)
        }
    });
    for server in [many, wide] {
        let before = resident();
        let error = server.asked().expect_err("it isn't believed");
        assert!(matches!(error, CriError::Answer { .. }), "{error}");
        // The answer itself, on both sides of the socket, some copies, and what other tests
        // take meanwhile; with every item kept it would be more than a gigabyte.
        let grown = resident().saturating_sub(before);
        assert!(grown < 512 << 20, "{grown} bytes");
    }
    let large = Server::new(|call| match call {
        "Version" => version(),
        _ => Answer::Messages(vec![vec![0; 17 << 20]], 0),
    });
    let error = large.asked().expect_err("it is more than may be");
    assert!(matches!(error, CriError::Call { .. }), "{error}");
    let bad = Server::new(|call| match call {
        "Version" => version(),
        "ListPodSandbox" => list(vec![one("a")]),
        _ => Answer::of(&network("10.0.0.1", &["10.0.0.1"; 100])),
    });
    assert!(matches!(bad.asked(), Err(CriError::Answer { .. })));
    let bad = Server::new(|call| match call {
        "Version" => version(),
        "ListPodSandbox" => list(vec![one("a")]),
        _ => Answer::of(&network("10.0.0.999", &[])),
    });
    assert!(matches!(bad.asked(), Err(CriError::Answer { .. })));
}

/// The process's memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("pages") * 4096
}

#[test]
fn an_answer_without_end_is_no_answer() {
    let endless = Server::new(|call| match call {
        "Version" => version(),
        _ => Answer::Endless(vec![]),
    });
    let socket = endless.socket();
    let error = ask(&[socket], SOON).remove(0).expect_err("no end");
    // HTTP/2 may have enough of it sooner.
    let known = matches!(error, CriError::Slow { .. } | CriError::Call { .. });
    assert!(known, "{error}");
}

#[test]
fn what_is_no_answer_is_an_error() {
    let answers: [fn(&str) -> Answer; 6] = [
        // Nothing; half a head; a head and no body; a length that lies; compressed; no proto.
        |_| Answer::Messages(vec![], 0),
        |_| Answer::Bytes(vec![0, 0]),
        |_| Answer::Bytes(vec![0, 0, 0, 0, 9]),
        |_| Answer::Bytes(vec![0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]),
        |_| Answer::Bytes(vec![1, 0, 0, 0, 1, 0]),
        |_| Answer::Messages(vec![vec![0xff; 64]], 0),
    ];
    for answer in answers {
        let error = Server::new(answer).asked().expect_err("it is no answer");
        assert!(matches!(error, CriError::Call { .. }), "{error}");
    }
    let failing = Server::new(|call| match call {
        "Version" => version(),
        _ => Answer::Messages(vec![], 13),
    });
    let error = failing.asked().expect_err("it fails").to_string();
    assert!(error.contains("fails ListPodSandbox"), "{error}");
    let other = Server::new(|_| Answer::Messages(vec![], 12));
    let error = other.asked().expect_err("it is no CRI");
    assert!(matches!(error, CriError::NoService(_)), "{error}");
}

#[test]
fn what_is_no_server_is_an_error_in_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| dir.path().join(name);
    let absent = |path: &Path| ask_one(path).expect_err("nobody is there").is_absent();
    assert!(absent(&place("none")));
    std::fs::write(place("file"), "").expect("a file");
    assert!(absent(&place("file")));
    assert!(absent(&place("file").join("below")));
    drop(StdListener::bind(place("left")).expect("a socket"));
    assert!(absent(&place("left")));

    // Listens, and never answers: a process that is stopped.
    let _hung = StdListener::bind(place("hung")).expect("a socket");
    let error = ask(&[place("hung")], SOON).remove(0);
    assert!(matches!(error, Err(CriError::Slow { .. })), "{error:?}");

    let listener = StdListener::bind(place("other")).expect("a socket");
    let talker = thread::spawn(move || {
        for words in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            &[0xff; 100_000],
            b"",
        ] {
            let (mut stream, _) = listener.accept().expect("a client");
            // It may have gone already.
            let _ = stream.write_all(words);
        }
    });
    for _ in 0..3 {
        let error = ask_one(&place("other")).expect_err("no gRPC");
        assert!(!error.is_absent(), "{error}");
    }
    talker.join().expect("the talker");
}

#[test]
fn a_named_socket_must_answer_and_a_known_one_need_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("none");
    let report = report(&Cri::Socket(socket), SOON).expect("it is to be asked");
    let [(_, SocketAnswer::Failed(why))] = &report.sockets[..] else {
        panic!("{report:?}")
    };
    assert!(why.contains("no container runtime listens on"), "{why}");
    assert_eq!(super::report(&Cri::Off, SOON), None);
    let auto = sockets(&Cri::Auto).expect("they are to be asked");
    assert!(auto.iter().all(|path| path.starts_with("/run")), "{auto:?}");
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_too_much(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
        let list = ListPodSandboxResponse::decode(&*bytes);
        proptest::prop_assert!(list.is_err() || list.is_ok_and(|list| list.items.len() <= 512));
        let _ = PodSandboxStatusResponse::decode(&*bytes);
        let _ = VersionResponse::decode(&*bytes);
        let _ = sandbox_of(&String::from_utf8_lossy(&bytes));
    }
}
