use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::{Client, ClientError, Daemon};
use crate::{
    report::document::{Happening, WatchLine, WatchSchema},
    serve::watch::{BACKLOG, WATCHERS},
};

pub fn line(what: Happening) -> WatchLine {
    WatchLine {
        schema: WatchSchema::V1,
        at: jiff::Timestamp::UNIX_EPOCH,
        host: "node1".to_owned(),
        what,
        conflict: None,
        release: None,
        event: None,
        missed: None,
    }
}

impl Daemon {
    fn tell(&self, what: Happening) {
        let watchers = self.watchers.as_ref().expect("running");
        watchers.tell(|| line(what));
    }
}

#[tokio::test]
async fn who_watches_is_told_what_lasts_then_what_happens_and_the_end() {
    let mut daemon = Daemon::start().await;
    daemon.tell(Happening::Opened);
    let mut watches = Vec::new();
    for _ in 0..2 {
        let mut watch = daemon.client().watch().await.expect("watched");
        let first = watch.next().await.expect("a line");
        assert_eq!(first, Some(line(Happening::Watching)), "nothing of before");
        watches.push(watch);
    }
    for what in [Happening::Changed, Happening::Resolved] {
        daemon.tell(what);
        for watch in &mut watches {
            assert_eq!(watch.next().await.expect("a line"), Some(line(what)));
        }
    }
    daemon.watchers = None;
    for mut watch in watches {
        let last = watch.next().await.expect("a line");
        assert_eq!(last, Some(line(Happening::Stopping)));
        assert_eq!(watch.next().await.expect("the end"), None);
    }
}

#[tokio::test]
async fn who_does_not_read_holds_up_nobody_and_is_told_what_it_missed() {
    const TOLD: u64 = 50_000;
    let mut daemon = Daemon::start().await;
    let mut slow = daemon.client().watch().await.expect("watched");
    let mut quick = daemon.client().watch().await.expect("watched");
    assert!(quick.next().await.is_ok());
    // Far more than sockets hold; the quick one reads on, the slow one not a line.
    for number in 0..TOLD {
        daemon.tell(Happening::Opened);
        if number % (BACKLOG as u64 / 2) == 0 {
            while quick.next().await.expect("a line") != Some(line(Happening::Changed)) {
                daemon.tell(Happening::Changed);
            }
        }
    }
    daemon.watchers = None;
    let (mut heard, mut missed) = (0, 0);
    while let Some(line) = slow.next().await.expect("a line") {
        match line.what {
            Happening::Missed => missed += line.missed.expect("how many"),
            Happening::Opened => heard += 1,
            _ => {}
        }
    }
    assert!(missed > 0, "{heard} were heard");
    assert!(
        heard >= BACKLOG as u64 / 2,
        "{heard} were heard, {missed} missed"
    );
    let known: Result<crate::report::document::Segments, _> =
        daemon.client().get("/api/v1/segments").await;
    assert!(known.is_ok(), "{known:?}");
}

#[tokio::test]
async fn who_stands_still_does_not_keep_the_daemon_from_stopping() {
    let mut daemon = Daemon::start().await;
    let mut still = UnixStream::connect(&daemon.path).await.expect("connected");
    let request = b"GET /api/v1/watch HTTP/1.1\r\nHost: x\r\n\r\n";
    still.write_all(request).await.expect("sent");
    // Until what is told is more than it takes, and stays.
    for _ in 0..50 * BACKLOG {
        daemon.tell(Happening::Opened);
        tokio::task::yield_now().await;
    }
    daemon.watchers = None;
    let _ = daemon.stop.take().expect("running").send(());
    let patience = std::time::Duration::from_secs(20);
    let stopped = tokio::time::timeout(patience, &mut daemon.server).await;
    assert!(stopped.is_ok_and(|server| server.is_ok()), "it still runs");
    drop(still);
}

#[tokio::test]
async fn only_so_many_watch_and_who_leaves_makes_room() {
    let daemon = Daemon::start().await;
    let mut watches = Vec::new();
    for _ in 0..WATCHERS {
        watches.push(daemon.client().watch().await.expect("watched"));
    }
    let one_more = daemon.client().watch().await;
    match one_more {
        Err(ClientError::Refused(why)) => assert!(why.contains("watch already"), "{why}"),
        other => panic!("{other:?}"),
    }
    // The rest of the daemon's answers are not in the way.
    let known: Result<crate::report::document::Segments, _> =
        daemon.client().get("/api/v1/segments").await;
    assert!(known.is_ok(), "{known:?}");

    // Nothing is told meanwhile by which the daemon could notice.
    watches.clear();
    for _ in 0..WATCHERS {
        let watch = async {
            loop {
                match daemon.client().watch().await {
                    Ok(watch) => return watch,
                    Err(ClientError::Refused(_)) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error:?}"),
                }
            }
        };
        let patience = std::time::Duration::from_secs(20);
        let watch = tokio::time::timeout(patience, watch).await;
        watches.push(watch.expect("room is made"));
    }
}

#[tokio::test]
async fn a_daemon_that_is_killed_is_no_daemon_that_stopped() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let client = Client::new(&path);
    for (answer, lines) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"sch",
            0,
        ),
    ] {
        let serve = async {
            let (mut stream, _): (UnixStream, _) = listener.accept().await.expect("a client");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.expect("a request");
            assert!(request[..read].starts_with(b"GET /api/v1/watch "));
            stream.write_all(answer.as_bytes()).await.expect("sent");
        };
        let watch = async {
            let mut watch = client.watch().await.expect("watched");
            let mut read = 0;
            loop {
                match watch.next().await {
                    Ok(Some(_)) => read += 1,
                    Ok(None) => panic!("it did not end"),
                    Err(error) => return (read, error),
                }
            }
        };
        let ((), (read, error)) = tokio::join!(serve, watch);
        assert_eq!(read, lines);
        assert!(matches!(error, ClientError::Gone(_)), "{error:?}");
    }
}
