//! What the page says, and what it asks of the daemon for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use insta::assert_snapshot;
use tokio::{sync::mpsc, time::advance};
use tower_service::Service as _;

use super::{glance::Glance, *};
use crate::{
    engine::lease::Mode,
    report::{
        compose::Overview,
        document::{
            CellKind, ConflictRecord, History, LeaseState, PoolCell, PoolRow, Pools, Report,
        },
        samples,
    },
    serve::query,
};

fn since() -> Timestamp {
    "2026-11-23T08:00:00Z".parse().expect("a time")
}

fn row(first: [u8; 4], leased: &[(usize, LeaseState)]) -> PoolRow {
    let free = PoolCell {
        kind: CellKind::Free,
        contested: false,
    };
    let mut cells = vec![free; 8];
    for &(at, state) in leased {
        cells[at].kind = CellKind::Leased(state);
    }
    cells[2].contested = true;
    PoolRow::new(first.into(), &cells)
}

fn pools() -> Pools {
    use LeaseState::{Active, Fenced, Quarantined, Quiet, Stale, Unknown};
    let states = [Active, Quiet, Stale, Quarantined, Fenced, Unknown];
    let small = row(
        [10, 52, 0, 0],
        &std::array::from_fn::<_, 6, _>(|at| (at, states[at])),
    );
    let pool = |prefix: &str, rows: Vec<PoolRow>| PoolRecord {
        prefix: Some(prefix.to_owned()),
        first: None,
        last: None,
        gateway: Some([10, 52, 0, 1].into()),
        segment: None,
        addresses: Some(8),
        free: Some(2),
        leases: states.into_iter().collect(),
        contested: 1,
        rows,
        rows_left_out: 0,
    };
    Pools {
        schema: Default::default(),
        generated_at: since(),
        host: "node1".to_owned(),
        blind: Vec::new(),
        paused: None,
        stores: vec![StoreRecord {
            store: "host-local:net & co".to_owned(),
            mode: Mode::AfterReboot,
            failed: Some("permission denied".to_owned()),
            read_only: None,
            pools: vec![
                pool("10.52.0.0/29", vec![small]),
                pool("10.53.0.0/16", vec![row([10, 53, 7, 0], &[(0, Active)])]),
            ],
        }],
    }
}

fn html(report: &Report, history: &Result<History, String>) -> String {
    let glance = Glance::of(report, pools(), history, since());
    String::from_utf8(glance.html.to_vec()).expect("UTF-8")
}

/// One element a line.
fn lines(html: &str) -> String {
    html.replace("><", ">\n<")
}

#[test]
fn the_page_when_something_is_wrong() {
    assert_snapshot!(lines(&html(&samples::report(2), &Ok(samples::history()))));
}

#[test]
fn a_store_that_cannot_be_read_is_not_none() {
    let why = "/srv/networks: permission denied";
    let none = "No store of leases";
    for (blind, shown, hidden) in [(vec![why.to_owned()], why, none), (Vec::new(), none, why)] {
        let pools = Pools {
            blind,
            stores: Vec::new(),
            ..pools()
        };
        let history = Ok(samples::history());
        let glance = Glance::of(&samples::quiet_report(), pools, &history, since());
        let text = String::from_utf8(glance.html.to_vec()).expect("UTF-8");
        assert!(text.contains(shown) && !text.contains(hidden), "{text}");
    }
}

#[test]
fn the_page_when_all_is_well() {
    let mut report = samples::quiet_report();
    let text = html(&report, &Err("journal.jsonl: permission denied".to_owned()));
    assert!(text.contains("Nothing contested, "), "{text}");
    assert!(text.contains("journal.jsonl: permission denied"), "{text}");
    assert!(text.contains("all is well – node1"), "{text}");

    report.blind = vec!["mgmt-br: veth9 isn't watched".to_owned()];
    let text = html(&report, &Ok(samples::history()));
    assert!(text.contains("Nothing contested where the agent could look"));
    assert!(text.contains("veth9 isn't watched"), "{text}");
    assert!(!text.contains("all is well"), "{text}");
    report.segments.clear();
    assert!(html(&report, &Ok(samples::history())).contains("no segment is watched"));
}

#[test]
fn the_story_of_an_address() {
    assert_snapshot!(lines(&html::story_page(&samples::explain()).into_string()));
}

/// Every name that somebody else may have made up.
fn hostile(conflict: &mut ConflictRecord, name: &str) {
    conflict.reason = name.to_owned();
    conflict.segment.name = name.to_owned();
    for claim in &mut conflict.claims {
        claim.vendor = Some(name.to_owned());
        claim.interface = Some(name.to_owned());
    }
    for lease in &mut conflict.leases {
        lease.store = name.to_owned();
        lease.holder.pod = Some(name.to_owned());
    }
}

#[test]
fn whoever_makes_up_names_makes_no_markup() {
    let name = "\"'><script>pwned</script><img src=x onerror=pwned>&lt;\u{202e}\u{0}\u{1b}[2J";
    let mut report = samples::report(2);
    report.host = name.to_owned();
    report.blind = vec![name.to_owned()];
    for conflict in &mut report.conflicts {
        hostile(conflict, name);
    }
    for segment in &mut report.segments {
        segment.segment.name = name.to_owned();
        segment.interfaces = vec![name.to_owned()];
    }
    for event in &mut report.events {
        event.reason = name.to_owned();
        event.segment.name = name.to_owned();
    }
    let mut history = samples::history();
    for entry in &mut history.entries {
        entry.id = name.to_owned();
        entry.reason = name.to_owned();
        entry.store = name.to_owned();
        entry.by = Some(name.to_owned());
        entry.detail = Some(name.to_owned());
        entry.holder.pod = Some(name.to_owned());
    }
    let mut pools = pools();
    pools.host = name.to_owned();
    for store in &mut pools.stores {
        store.store = name.to_owned();
        store.failed = Some(name.to_owned());
        for pool in &mut store.pools {
            pool.prefix = Some(name.to_owned());
        }
    }
    let mut explain = samples::explain();
    explain.verdict = name.to_owned();
    explain.host = name.to_owned();
    for conflict in &mut explain.conflicts {
        hostile(conflict, name);
    }
    for lease in &mut explain.leases {
        lease.reason = name.to_owned();
        lease.lease.store = name.to_owned();
        lease.lease.holder.pod = Some(name.to_owned());
        lease.lease.holder.container_id = Some(name.to_owned());
        lease.lease.holder.interface = Some(name.to_owned());
        lease.lease.holder.host_interface = Some(name.to_owned());
        for blocker in &mut lease.blockers {
            blocker.detail = name.to_owned();
        }
    }
    for told in &mut explain.story {
        told.what = name.to_owned();
    }
    explain.blind = vec![name.to_owned()];
    let store = &pools.stores[0];
    let texts = [
        html::pool_page(name, since(), store, &store.pools[0]).into_string(),
        html::block_page(name, since(), store, &store.pools[1], [10, 53, 7, 3].into())
            .into_string(),
        html::problem_page(name).into_string(),
        html::story_page(&explain).into_string(),
        String::from_utf8(
            Glance::of(&report, pools.clone(), &Ok(history), since())
                .html
                .to_vec(),
        )
        .expect("UTF-8"),
    ];
    for text in texts {
        assert!(text.contains("&lt;script&gt;pwned"), "{text}");
        for broken in [
            "<script>",
            "<img",
            "\u{202e}",
            "\u{0}",
            "\u{1b}",
            "&lt;script&gt;\"",
        ] {
            assert!(!text.contains(broken), "{broken:?} in {text}");
        }
        // An attribute that a name ended would be followed by more of the name.
        assert!(!text.contains("=\"\"'"), "{text}");
    }
}

#[test]
fn what_never_ends_is_cut_off() {
    let mut report = samples::report(500);
    for conflict in &mut report.conflicts {
        hostile(conflict, &"<\u{202e}ä".repeat(100_000));
    }
    let text = html(&report, &Ok(samples::history()));
    assert!(text.len() < 64 << 20, "{} bytes", text.len());
    assert!(text.contains("460 more"), "{}", &text[..10_000]);
}

/// The page of a daemon that counts how often it is asked.
fn page() -> (Router, Arc<AtomicUsize>) {
    let (queries, mut asked): (_, mpsc::Receiver<Query>) = query::channel();
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    tokio::spawn(async move {
        while let Some(query) = asked.recv().await {
            match query {
                Query::Overview(reply) => {
                    counted.fetch_add(1, Relaxed);
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    let _ = reply.send(Arc::new(Overview {
                        report: samples::report(2),
                        charts: Default::default(),
                    }));
                }
                Query::History(reply) => drop(reply.send(Ok(samples::history()))),
                Query::Explain(_, reply) => drop(reply.send(samples::explain())),
                _ => {}
            }
        }
    });
    (router(queries, since()), looks)
}

async fn ask(page: &Router, path: &str, known: Option<&str>) -> Response {
    let mut request = Request::builder().uri(path);
    if let Some(known) = known {
        request = request.header(header::IF_NONE_MATCH, known);
    }
    let request = request.body(Body::empty()).expect("a request");
    page.clone().call(request).await.expect("infallible")
}

#[tokio::test(start_paused = true)]
async fn many_who_look_cost_one_look() {
    let (page, looks) = page();
    for round in 1..=3 {
        let asks = (0..100).map(|_| {
            let page = page.clone();
            tokio::spawn(async move { ask(&page, "/", None).await.status() })
        });
        for asked in asks.collect::<Vec<_>>() {
            assert_eq!(asked.await.expect("no panic"), StatusCode::OK);
        }
        assert_eq!(looks.load(Relaxed), round);
        advance(Duration::from_secs(11)).await;
    }
}

#[tokio::test]
async fn what_is_known_is_not_told_again_and_all_is_guarded() {
    let (page, _) = page();
    for path in ["/", "/page.js", "/page.css", "/icon.svg"] {
        let first = ask(&page, path, None).await;
        assert_eq!(first.status(), StatusCode::OK, "{path}");
        let tag = first.headers()[header::ETAG]
            .to_str()
            .expect("text")
            .to_owned();
        assert_eq!(
            ask(&page, path, Some("\"other\"")).await.status(),
            StatusCode::OK
        );
        let again = ask(&page, path, Some(&format!("\"a\", {tag}"))).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        let body = to_bytes(again.into_body(), 1 << 20).await.expect("a body");
        assert!(body.is_empty());
    }
    for (path, status) in [
        ("/address/10.52.0.5", StatusCode::OK),
        ("/address/fd00::5", StatusCode::OK),
        ("/address/0.0.0.0", StatusCode::BAD_REQUEST),
        ("/address/%3Cscript%3E", StatusCode::BAD_REQUEST),
        ("/pool?store=nothing", StatusCode::NOT_FOUND),
        (
            "/map?store=nothing&prefix=10.0.0.0/8",
            StatusCode::NOT_FOUND,
        ),
        ("/pool", StatusCode::BAD_REQUEST),
        ("/pool?store=a&block=b", StatusCode::BAD_REQUEST),
    ] {
        let answer = ask(&page, path, None).await;
        assert_eq!(answer.status(), status, "{path}");
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str();
        let policy = policy.expect("text").to_owned();
        assert!(
            policy.starts_with("default-src 'none';"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
}

#[tokio::test]
async fn a_daemon_that_stops_is_told_of() {
    let (queries, asked) = query::channel();
    drop(asked);
    let answer = ask(&router(queries, since()), "/", None).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
    assert!(String::from_utf8_lossy(&body).contains("The daemon is stopping."));
}
