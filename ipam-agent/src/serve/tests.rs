mod watch;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Weak},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
};

use super::{
    BindError, Client, ClientError, Query, Socket, Watchers,
    query::channel,
    router::{changing, reading},
};
use crate::report::document::{
    Applied, AppliedSchema, ApplyRequest, ConfirmedRelease, Explain, ExplainSchema, Happening,
    Life, OutcomeRecord, ReleaseResult, Segments, SegmentsSchema, UndoOutcome, UndoRequest, Undone,
    UndoneSchema,
};

/// A served socket, and a driver that answers what the tests ask.
struct Daemon {
    watchers: Option<Arc<Watchers>>,
    _directory: TempDir,
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Daemon {
    async fn start() -> Self {
        let watchers = Arc::new(Watchers::new("node1", || jiff::Timestamp::UNIX_EPOCH));
        let joined = Arc::downgrade(&watchers);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("run/agent.sock");
        let socket = Socket::bind(&path).await.expect("bound");
        let (queries, mut asked) = channel();
        let router = reading(queries.clone()).merge(changing(queries));
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(socket.serve(router, async {
            let _ = stopped.await;
        }));
        tokio::spawn(async move {
            while let Some(query) = asked.recv().await {
                answer(query, &joined);
            }
        });
        Self {
            watchers: Some(watchers),
            _directory: directory,
            path,
            stop: Some(stop),
            server,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.path)
    }

    /// Sends bytes and reads all that comes back.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.path).await.expect("connected");
        stream.write_all(bytes).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }
}

/// Everything but segments, explain and apply goes unanswered, as when the daemon stops.
fn answer(query: Query, watchers: &Weak<Watchers>) {
    let generated_at = jiff::Timestamp::UNIX_EPOCH;
    let host = "node1".to_owned();
    match query {
        Query::Segments(reply) => {
            let _ = reply.send(Segments {
                schema: SegmentsSchema::V1,
                generated_at,
                host,
                segments: Vec::new(),
            });
        }
        Query::Explain(address, reply) => {
            let _ = reply.send(Explain {
                schema: ExplainSchema::V1,
                generated_at,
                host,
                address: address.ip(),
                verdict: "nothing is known of it".to_owned(),
                this_host: None,
                set_apart: Vec::new(),
                claims: Vec::new(),
                life: Life::default(),
                holders: Vec::new(),
                leases: Vec::new(),
                conflicts: Vec::new(),
                events: Vec::new(),
                story: Vec::new(),
                blind: Vec::new(),
            });
        }
        Query::Apply(request, reply) => {
            let confirmed = request.confirmed.into_iter();
            let _ = reply.send(Applied {
                schema: AppliedSchema::V1,
                generated_at,
                host,
                blind: Vec::new(),
                outcomes: confirmed
                    .map(|release| OutcomeRecord {
                        store: release.store,
                        address: release.address,
                        result: ReleaseResult::Released,
                        blocker: None,
                        error: None,
                    })
                    .collect(),
            });
        }
        Query::Undo(request, reply) => {
            let _ = reply.send(Undone {
                schema: UndoneSchema::V1,
                generated_at,
                host,
                id: request.id,
                result: UndoOutcome::Refused,
                store: None,
                address: None,
                holder: None,
                detail: request.by,
            });
        }
        Query::Watch(reply) => {
            let watchers = watchers.upgrade().expect("running");
            let _ = reply.send(watchers.join(|| vec![watch::line(Happening::Watching)]));
        }
        Query::Pause(..)
        | Query::Resume(_)
        | Query::Report(_)
        | Query::Events(_)
        | Query::Overview(_)
        | Query::History(_)
        | Query::Leases(_)
        | Query::Addresses(_)
        | Query::Plan(_)
        | Query::LastPlan(_)
        | Query::Metrics(..)
        | Query::Health(_) => {}
    }
}

#[tokio::test]
async fn what_is_asked_reaches_the_driver_and_comes_back() {
    let daemon = Daemon::start().await;
    let segments: Segments = daemon.client().get("/api/v1/segments").await.expect("got");
    assert_eq!(segments.host, "node1");

    let path = "/api/v1/explain/fd00:52::5c";
    let explain: Explain = daemon.client().get(path).await.expect("got");
    assert_eq!(explain.address.to_string(), "fd00:52::5c");

    let request = ApplyRequest {
        confirmed: vec![ConfirmedRelease {
            store: "host-local:net".to_owned(),
            address: [10, 0, 0, 5].into(),
        }],
        by: None,
    };
    let applied = daemon.client().apply(&request).await.expect("applied");
    assert_eq!(applied.outcomes[0].address, request.confirmed[0].address);

    let request = UndoRequest {
        id: "00000012".to_owned(),
        by: Some("ada".to_owned()),
    };
    let undone: Undone = daemon
        .client()
        .post("/api/v1/reclaim/undo", &request)
        .await
        .expect("undone");
    assert_eq!(undone.id, request.id);
    // The kernel says who it is; what a client says of itself is told as that.
    let by = undone.detail.expect("somebody");
    assert!(
        by.ends_with(" (says ada)") && !by.starts_with("ada"),
        "{by}"
    );
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_in_words() {
    let daemon = Daemon::start().await;
    for (path, words) in [
        ("/api/v1/explain/0.0.0.0", "0.0.0.0 is no address"),
        ("/api/v1/explain/web-0", "no address"),
        ("/api/v1/nothing", "no such path"),
        ("/api/v1/reclaim/apply", "no such method"),
        ("/api/v1/report", "ask again"),
    ] {
        match daemon.client().get::<Segments>(path).await {
            Err(ClientError::Refused(error)) => assert!(error.contains(words), "{path}: {error}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    let wrong = daemon.client().get::<Applied>("/api/v1/segments").await;
    assert!(matches!(wrong, Err(ClientError::Protocol { .. })));
}

#[tokio::test]
async fn a_body_that_is_wrong_or_too_long_changes_nothing() {
    let daemon = Daemon::start().await;
    let post = |length: usize, body: &str| {
        format!(
            "POST /api/v1/reclaim/apply HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let body = r#"{"confirmed":[],"force":true}"#;
    let answer = daemon.say(post(body.len(), body).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
    assert!(answer.contains("unknown field"), "{answer}");
    let answer = daemon.say(post(1 << 30, "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let daemon = Daemon::start().await;
    let mut stream = UnixStream::connect(&daemon.path).await.expect("connected");
    let head = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 64 << 10]].concat();
    // The daemon may close before all is written.
    let _ = stream.write_all(&head).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_hung_up_on() {
    let daemon = Daemon::start().await;
    let mut stream = UnixStream::connect(&daemon.path).await.expect("connected");
    stream.write_all(b"GET /api").await.expect("sent");
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(std::time::Duration::from_secs(60), read).await;
    assert!(read.is_ok(), "still connected after a minute");
}

#[tokio::test]
async fn one_daemon_a_socket() {
    let daemon = Daemon::start().await;
    let mode = fs::metadata(&daemon.path).expect("there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o660);
    let second = Socket::bind(&daemon.path).await;
    assert!(matches!(second, Err(BindError::InUse(_))), "{second:?}");
    let still: Result<Segments, _> = daemon.client().get("/api/v1/segments").await;
    assert!(still.is_ok());
}

#[tokio::test]
async fn nothing_is_left_after_a_stop() {
    let mut daemon = Daemon::start().await;
    let _ = daemon.stop.take().expect("running").send(());
    (&mut daemon.server).await.expect("stopped");
    assert!(!daemon.path.exists());
    let gone = daemon.client().get::<Segments>("/api/v1/segments").await;
    assert!(gone.is_err_and(|error| error.is_blind()));
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_nothing_else_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "left behind, as after a kill");
    let client = Client::new(&path);
    let refused = client.get::<Segments>("/api/v1/segments").await;
    assert!(refused.is_err_and(|error| error.is_blind()));
    drop(Socket::bind(&path).await.expect("replaced"));

    fs::write(&path, "precious").expect("written");
    let socket = Socket::bind(&path).await;
    assert!(matches!(socket, Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[tokio::test]
async fn a_daemon_that_is_killed_in_the_middle_is_no_other_version() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("agent.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
    let killed = tokio::spawn(async move {
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"] {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.expect("its request");
            assert!(read > 0);
            stream.write_all(answer).await.expect("answered");
        }
    });
    for cut in ["before its answer", "in its answer"] {
        let client = Client::new(&socket);
        let answer = client.get::<serde_json::Value>("/api/v1/report").await;
        let error = answer.expect_err(cut);
        assert!(matches!(error, ClientError::Gone(_)), "{cut}: {error}");
    }
    killed.await.expect("answered both");
}
