mod watch;

use std::{fs, path::Path, process::ExitCode, thread};

use clap::{CommandFactory, Parser};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{
    Cli, CliError, Io, Status,
    uninstall::{UninstallArgs, uninstall},
};
use crate::{
    engine::plan::Reason,
    error::in_full,
    journal::{FenceEffect, FenceIntent, FenceResult, When},
    report::{View, document::*},
    serve::{
        Query, Socket,
        health::Health,
        query::channel,
        router::{changing, reading},
    },
};

const HOST: &str = "node1";

/// A daemon that knows one conflict and two stale leases, of which one comes back to life
/// between the plan and its execution.
struct Daemon {
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<Vec<ApplyRequest>>>,
}

impl Daemon {
    fn start(complete: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("agent.sock");
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let socket = Socket::bind(&socket).await.expect("bound");
                ready.send(()).expect("waited for");
                let (queries, mut asked) = channel();
                let router = reading(queries.clone()).merge(changing(queries));
                let mut applied = Vec::new();
                let answer = async {
                    while let Some(query) = asked.recv().await {
                        applied.extend(answer(query, complete));
                    }
                };
                let serve = socket.serve(router, async {
                    let _ = stopped.await;
                });
                tokio::join!(serve, answer);
                applied
            })
        });
        is_ready.recv().expect("started");
        Self {
            directory,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn run(&self, arguments: &str, answer: Option<&str>) -> Ran {
        let socket = self.directory.path().join("agent.sock");
        let arguments = format!("{arguments} --socket {}", socket.display());
        run(&arguments, answer)
    }

    /// Ends it, and tells what was applied.
    fn stop(mut self) -> Vec<ApplyRequest> {
        let _ = self.stop.take().expect("running").send(());
        self.thread
            .take()
            .expect("running")
            .join()
            .expect("no panic")
    }
}

fn answer(query: Query, complete: bool) -> Option<ApplyRequest> {
    let generated_at = Timestamp::UNIX_EPOCH;
    let blind = match complete {
        true => Vec::new(),
        false => vec!["veth9 isn't watched".to_owned()],
    };
    let host = HOST.to_owned();
    match query {
        Query::Report(reply) => {
            let conflicts = vec![conflict()];
            let _ = reply.send(Report {
                schema: ReportSchema::V1,
                generated_at,
                host,
                boot_id: None,
                blind,
                segments: vec![segment(10), segment(11)],
                summary: Summary::of(&conflicts),
                conflicts,
                events: Vec::new(),
                leases: LeaseCounts::default(),
                captures: Vec::new(),
            });
        }
        Query::Plan(reply) => {
            let _ = reply.send(Plan {
                schema: PlanSchema::V1,
                generated_at,
                host,
                complete,
                blind,
                paused: None,
                releases: match complete {
                    true => [5, 6].map(release).into(),
                    false => Vec::new(),
                },
                kept: Vec::new(),
                caches: Vec::new(),
            });
        }
        Query::Apply(request, reply) => {
            let outcomes = request.confirmed.iter().map(|release| {
                let alive = release.address.to_string() == "10.0.0.6";
                OutcomeRecord {
                    store: release.store.clone(),
                    address: release.address,
                    result: match alive {
                        true => ReleaseResult::Kept,
                        false => ReleaseResult::Released,
                    },
                    blocker: alive.then(|| BlockerRecord {
                        reason: Reason::Seen,
                        detail: "heard just now".to_owned(),
                        ready_at: None,
                    }),
                    error: None,
                }
            });
            let _ = reply.send(Applied {
                schema: AppliedSchema::V1,
                generated_at,
                host,
                blind,
                outcomes: outcomes.collect(),
            });
            return Some(request);
        }
        Query::Pause(PauseRequest { by }, reply) => {
            let at = Some(generated_at);
            let _ = reply.send(Pausing {
                schema: PausingSchema::V1,
                generated_at,
                host,
                paused: Some(PausedRecord { at, by }),
                problem: None,
            });
        }
        Query::Resume(reply) => {
            let _ = reply.send(Pausing {
                schema: PausingSchema::V1,
                generated_at,
                host,
                paused: None,
                problem: (!complete).then(|| "read-only file system".to_owned()),
            });
        }
        Query::Undo(request, reply) => {
            let result = match request.id.as_str() {
                "1" => UndoOutcome::PutBack,
                "2" => UndoOutcome::Refused,
                _ => UndoOutcome::Failed,
            };
            let _ = reply.send(Undone {
                schema: UndoneSchema::V1,
                generated_at,
                host,
                id: request.id,
                result,
                store: None,
                address: None,
                holder: None,
                detail: Some("a reason".to_owned()),
            });
        }
        Query::Watch(reply) => {
            let _ = reply.send(watch::watching());
        }
        Query::Leases(_)
        | Query::Addresses(_)
        | Query::Segments(_)
        | Query::Events(_)
        | Query::Overview(_)
        | Query::History(_)
        | Query::Explain(..)
        | Query::LastPlan(_)
        | Query::Metrics(..) => {}
        Query::Health(reply) => {
            let _ = reply.send(Health {
                problems: blind,
                ..Health::default()
            });
        }
    }
    None
}

fn segment(vlan: u16) -> SegmentRecord {
    SegmentRecord {
        segment: SegmentName {
            name: "br0".to_owned(),
            vlan: Some(vlan),
            outer_vlan: None,
        },
        watched_since: Some(Timestamp::UNIX_EPOCH),
        complete: true,
        lost: 0,
        evicted: 0,
        interfaces: vec!["veth1".to_owned()],
    }
}

fn release(last: u8) -> PlannedRelease {
    PlannedRelease {
        store: "host-local:net".to_owned(),
        address: [10, 0, 0, last].into(),
        holder: HolderName::default(),
        damage: None,
        reason: "nobody uses it".to_owned(),
        evidence: ProofRecord {
            watched_since: Timestamp::UNIX_EPOCH,
            gate_seconds: 300,
            quiet_seconds: 400,
            unchanged_seconds: 400,
            earlier_boot: None,
            sources: vec!["namespaces".to_owned()],
            passes: 2,
            unanswered_probes: Some(6),
        },
    }
}

fn conflict() -> ConflictRecord {
    ConflictRecord {
        id: "1".to_owned(),
        kind: ConflictKind::DuplicateAddress,
        severity: Severity::Critical,
        state: ConflictState::Active,
        address: [10, 0, 0, 9].into(),
        segment: segment(10).segment,
        first_seen: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
        resolved_at: None,
        reason: "two machines use it".to_owned(),
        changes: 1,
        flapping: false,
        claims: Vec::new(),
        leases: Vec::new(),
        history: Vec::new(),
    }
}

struct Ran {
    result: Result<Status, CliError>,
    out: String,
    err: String,
}

/// Runs a command line, with a person at the keyboard who answers, or nobody.
fn run(arguments: &str, answer: Option<&str>) -> Ran {
    with_io(answer, |io| {
        let words = arguments.split_whitespace();
        let cli = Cli::try_parse_from(std::iter::once("ipam-agent").chain(words));
        cli.expect(arguments).run(io)
    })
}

fn with_io(
    answer: Option<&str>,
    with: impl FnOnce(&mut Io<'_>) -> Result<Status, CliError>,
) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut answer = answer.map(str::as_bytes);
    let result = with(&mut Io {
        out: &mut out,
        view: View::default(),
        err: &mut err,
        err_view: View::default(),
        answers: answer.as_mut().map(|answer| answer as _),
    });
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran {
        result,
        out: text(out),
        err: text(err),
    }
}

#[test]
fn the_commands_fit_together() {
    Cli::command().debug_assert();
}

/// Each command says by example how it is used, and each example is understood.
#[test]
fn examples_are_understood() {
    fn check(command: &clap::Command) {
        let leaves: Vec<_> = command.get_subcommands().collect();
        leaves.iter().for_each(|command| check(command));
        let Some(help) = command.get_after_help() else {
            assert!(!leaves.is_empty(), "{} has no examples", command.get_name());
            return;
        };
        let help = help.to_string();
        let examples = help
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("ipam-agent "));
        for example in examples {
            let words = example.split("  ").next().unwrap_or_default();
            let words = words.split(['|', '>', '<']).next().unwrap_or_default();
            let parsed = Cli::try_parse_from(words.split_whitespace());
            assert!(parsed.is_ok(), "{example}: {:?}", parsed.err());
        }
    }
    check(&Cli::command());
}

#[test]
fn a_report_ends_as_diff_does() {
    let daemon = Daemon::start(true);
    let ran = daemon.run("report", None);
    assert_eq!(ran.result.expect("a report"), Status::Something);
    assert!(ran.out.contains("10.0.0.9"), "{}", ran.out);
    for nothing in [
        "report 10.0.0.1",
        "report --kind unleased-address",
        "report --segment br0.11",
    ] {
        let ran = daemon.run(nothing, None);
        assert_eq!(ran.result.expect(nothing), Status::Nothing);
        assert!(ran.out.starts_with("No conflicts"), "{}", ran.out);
    }
    for something in [
        "report 10.0.0.9",
        "report --segment br0",
        "report --segment br0.10",
    ] {
        let ran = daemon.run(something, None);
        assert_eq!(ran.result.expect(something), Status::Something);
    }
}

#[test]
fn a_segment_that_nobody_knows_is_no_segment_without_conflicts() {
    let ran = Daemon::start(true).run("report --segment bro.10", None);
    assert_eq!(ran.result.expect("a report"), Status::Blind);
    assert!(ran.out.contains("could look"), "{}", ran.out);
    let hint = "no segment bro.10 (did you mean `br0.10`?)";
    assert!(ran.out.contains(hint), "{}", ran.out);
}

#[test]
fn leases_that_cannot_be_read_are_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("leases.yaml");
    fs::write(&file, "leases:\n  - { address: nonsense }\n").expect("written");
    let broken = format!("file:{}", file.display());
    for (source, words) in [
        (
            "file:/nonexistent",
            "cannot read the lease file /nonexistent",
        ),
        (&*broken, "leases.yaml, line 2"),
        ("host-local:/nonexistent", "there is no /nonexistent"),
    ] {
        for command in ["leases", "explain 10.0.0.5"] {
            let ran = run(&format!("{command} --leases {source}"), None);
            let error = ran.result.expect_err(source);
            assert_eq!(error.exit_code(), ExitCode::from(2));
            let told = in_full(&error);
            assert!(told.contains(words), "{told}");
            assert_eq!(ran.out, "");
        }
    }
}

#[test]
fn who_cannot_see_everything_and_finds_nothing_is_blind() {
    let daemon = Daemon::start(false);
    let plan = daemon.run("reclaim plan", None);
    assert_eq!(plan.result.expect("a plan"), Status::Blind);
    let apply = daemon.run("reclaim apply --yes", None);
    assert_eq!(apply.result.expect("done"), Status::Blind);
    let report = daemon.run("report 10.0.0.1", None);
    assert_eq!(report.result.expect("a report"), Status::Blind);
    assert!(daemon.stop().is_empty());
}

#[test]
fn without_a_daemon_a_judge_is_blind_and_others_fail() {
    let nowhere = "--socket /nonexistent/agent.sock";
    for judge in [
        "report",
        "reclaim plan",
        "reclaim apply --yes",
        "reclaim undo 1",
    ] {
        let error = run(&format!("{judge} {nowhere}"), None)
            .result
            .expect_err(judge);
        assert!(matches!(error, CliError::Blind(_)), "{judge}: {error:?}");
        assert!(error.to_string().contains("ipam-agent run"), "{error}");
    }
    for other in ["leases", "addresses", "segments", "explain 10.0.0.1"] {
        let error = run(&format!("{other} {nowhere}"), None)
            .result
            .expect_err(other);
        assert!(matches!(error, CliError::Client(_)), "{other}: {error:?}");
    }
}

#[test]
fn nothing_is_released_without_a_yes() {
    let daemon = Daemon::start(true);
    let alone = daemon.run("reclaim apply", None);
    assert!(matches!(alone.result, Err(CliError::Unconfirmed(_))));
    assert!(
        alone.err.contains("10.0.0.5"),
        "the plan is shown: {}",
        alone.err
    );
    for no in ["", "\n", "n\n", "yesterday\n", "oh no\n"] {
        let ran = daemon.run("reclaim apply", Some(no));
        assert_eq!(ran.result.expect("done"), Status::Something);
        assert_eq!(ran.out, "Nothing was released.\n");
    }
    assert!(daemon.stop().is_empty());
}

#[test]
fn what_was_confirmed_is_applied_and_what_is_left_is_told() {
    let daemon = Daemon::start(true);
    let ran = daemon.run("reclaim apply", Some("y\n"));
    assert_eq!(ran.result.expect("done"), Status::Something);
    assert!(ran.out.contains("1 released, 1 kept."), "{}", ran.out);
    assert!(ran.out.contains("heard just now"), "{}", ran.out);
    let ran = daemon.run("reclaim apply --yes --output json", None);
    let applied: Applied = serde_json::from_str(&ran.out).expect("JSON alone");
    assert_eq!(applied.outcomes.len(), 2);
    assert_eq!(ran.err, "");
    let requests = daemon.stop();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
    assert_eq!(requests[0].confirmed[1].address.to_string(), "10.0.0.6");
}

#[test]
fn what_was_undone_and_what_was_refused_end_differently() {
    let daemon = Daemon::start(true);
    let done = daemon.run("reclaim undo 1", None);
    assert_eq!(done.result.expect("done"), Status::Nothing);
    let refused = daemon.run("reclaim undo 2", None);
    assert_eq!(refused.result.expect("refused"), Status::Something);
    assert_eq!(refused.out, "Nothing was put back: a reason.\n");
    let failed = daemon.run("reclaim undo 3 --output json", None);
    assert!(matches!(failed.result, Err(CliError::NotPutBack(id)) if id == "3"));
    let undone: Undone = serde_json::from_str(&failed.out).expect("JSON all the same");
    assert_eq!(undone.detail.as_deref(), Some("a reason"));
}

#[test]
fn a_pause_is_told_and_so_is_what_goes_wrong_with_it() {
    let daemon = Daemon::start(true);
    let paused = daemon.run("reclaim pause --output json", None);
    assert_eq!(paused.result.expect("paused"), Status::Nothing);
    let pausing: Pausing = serde_json::from_str(&paused.out).expect("JSON");
    let by = pausing.paused.expect("paused").by;
    assert!(by.is_some_and(|by| !by.is_empty()), "somebody runs this");
    let resumed = daemon.run("reclaim resume", None);
    assert_eq!(resumed.result.expect("resumed"), Status::Nothing);
    assert_eq!(resumed.out, "Unattended releases go on.\n");
    let failed = Daemon::start(false).run("reclaim resume", None);
    assert!(matches!(failed.result, Err(CliError::Pause(why)) if why.contains("read-only")));
}

#[test]
fn history_needs_no_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let arguments = format!("reclaim history --state-dir {}", directory.path().display());
    let journal = directory.path().join(crate::journal::FILE);
    let ran = run(&arguments, None);
    assert_eq!(ran.result.expect("a history"), Status::Nothing);
    assert_eq!(ran.out, "Nothing was ever released.\n");
    let place = journal.display().to_string();
    assert!(ran.err.contains(&place), "{}", ran.err);

    let nowhere = run("reclaim history --state-dir /nonexistent/state", None);
    let error = nowhere.result.expect_err("no state");
    assert_eq!(error.exit_code(), ExitCode::from(2));
    let error = error.to_string();
    assert!(
        error.contains("/nonexistent/state") && error.contains("--state-dir"),
        "{error}"
    );

    fs::write(journal, JOURNAL).expect("written");
    let ran = run(&format!("{arguments} --output json"), None);
    let history: History = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(history.damaged_lines, 1);
    let results: Vec<_> = history.entries.iter().map(|entry| entry.result).collect();
    assert_eq!(results, [ReleaseResult::Unknown, ReleaseResult::Released]);
    assert_eq!(
        history.entries[1].holder.pod.as_deref(),
        Some("default/web-0")
    );
}

/// Two releases, of which the second was cut off by a crash, and a line that is none.
const JOURNAL: &str = r#"{"schema":"ipam-agent/journal/v1","id":"1","at":"2026-11-23T12:00:00Z","boot_id":"b","phase":"intent","asker":"person","store":"host-local:net","address":"10.0.0.5","holder":{"pod":"default/web-0"},"generation":{"inode":1,"modified":2,"content":"x"},"reason":"r","evidence":{"quiet_for":1,"unchanged_for":2,"coverage":{"since":3,"window":4},"sources":[],"passes":2}}
{"schema":"ipam-agent/journal/v1","id":"1","at":"2026-11-23T12:00:01Z","boot_id":"b","phase":"effect","result":"released"}
nonsense
{"schema":"ipam-agent/journal/v1","id":"2","at":"2026-11-23T12:00:02Z","boot_id":"b","phase":"intent","asker":"daemon","store":"host-local:net","address":"10.0.0.6","holder":{},"generation":{"inode":1,"modified":2,"content":"x"},"reason":"r","evidence":{"quiet_for":1,"unchanged_for":2,"coverage":{"since":3,"window":4},"sources":[],"passes":2}}
"#;

#[test]
fn doctor_finds_what_is_wrong_with_the_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yaml");
    let socket = directory.path().join("agent.sock");
    fs::write(&file, "reclaim:\n  gate: 1s\n").expect("written");
    let arguments = format!(
        "doctor --output json --config {} --socket {}",
        file.display(),
        socket.display()
    );
    let ran = run(&arguments, None);
    assert_eq!(ran.result.expect("a look"), Status::Something);
    let doctor: Doctor = serde_json::from_str(&ran.out).expect("JSON");
    let check = |name: &str| {
        let check = doctor.checks.iter().find(|check| check.name == name);
        check.expect(name)
    };
    assert_eq!(check("listen").status, CheckStatus::Ok);
    assert_eq!(check("configuration").status, CheckStatus::Fail);
    assert!(check("configuration").detail.contains("config.yaml:2"));
    assert_eq!(check("daemon").status, CheckStatus::Warn);
    assert_eq!(check("kernel").status, CheckStatus::Ok);
    for check in &doctor.checks {
        assert_eq!(
            check.mend.is_none(),
            check.status == CheckStatus::Ok,
            "{check:?}"
        );
    }
}

/// What doctor says of one thing, with this configuration and whatever answers on its socket.
fn doctor_of(directory: &Path, config: &str, name: &str) -> Check {
    let file = directory.join("config.yaml");
    let socket = directory.join("agent.sock");
    fs::write(&file, config).expect("written");
    let (file, socket) = (file.display(), socket.display());
    let ran = run(
        &format!("doctor -o json --config {file} --socket {socket}"),
        None,
    );
    let doctor: Doctor = serde_json::from_str(&ran.out).expect("JSON");
    let mut checks = doctor.checks.into_iter();
    checks.find(|check| check.name == name).expect("checked")
}

#[test]
fn doctor_says_so_where_nothing_can_ever_be_released() {
    let directory = tempfile::tempdir().expect("a directory");
    let releases = |config: &str| doctor_of(directory.path(), config, "unattended releases");
    let state = format!("state_dir: {}/state\n", directory.path().display());
    assert_eq!(releases(&state).status, CheckStatus::Ok);
    for (config, words) in [
        ("holders: { cri: off, netns: false }\n", "netns: false"),
        ("observe: { data_plane: false }\n", "data_plane"),
    ] {
        let check = releases(&(state.clone() + config));
        assert_eq!(check.status, CheckStatus::Warn);
        assert!(check.detail.contains(words), "{check:?}");
    }
}

#[test]
fn doctor_does_not_start_what_answers_nonsense() {
    use std::io::{Read as _, Write as _};

    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("connected");
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\noops");
        }
    });
    let check = doctor_of(directory.path(), "", "daemon");
    assert_eq!(check.status, CheckStatus::Fail);
    assert!(check.mend.expect("a mend").contains("restart"));
}

#[test]
fn an_address_is_asked_for_by_example() {
    for words in ["report 10.52.0.0/24", "explain zz", "check zz -i lo"] {
        let words = words.split_whitespace();
        let cli = Cli::try_parse_from(std::iter::once("ipam-agent").chain(words));
        let error = cli.expect_err("no address").to_string();
        assert!(error.contains("such as 10.52.0.86"), "{error}");
    }
}

#[derive(Parser)]
struct Uninstall {
    #[command(flatten)]
    args: UninstallArgs,
}

fn uninstall_in(directory: &Path, flags: &[&str], answer: Option<&str>) -> Ran {
    let mut words = vec![
        "uninstall".into(),
        "--state-dir".into(),
        directory.join("state"),
    ];
    words.extend(["--socket".into(), directory.join("run/agent.sock")]);
    words.extend(flags.iter().map(Into::into));
    let Uninstall { args } = Uninstall::try_parse_from(words).expect("arguments");
    with_io(answer, |io| {
        uninstall(args, io, || Ok(vec!["the filter on veth1".to_owned()]))
    })
}

#[test]
fn uninstall_removes_what_is_the_agents_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    fs::create_dir_all(&state).expect("made");
    let ours = [
        "journal.jsonl",
        "state.redb",
        "state.redb.damaged-1",
        "lock",
    ];
    for name in ours.into_iter().chain(["notes.txt"]) {
        fs::write(state.join(name), "x").expect("written");
    }
    let declined = uninstall_in(directory.path(), &[], Some("n\n"));
    assert_eq!(declined.result.expect("asked"), Status::Something);
    assert!(state.join("lock").exists());

    let kept = uninstall_in(directory.path(), &["--yes", "--keep-state"], None);
    assert_eq!(kept.result.expect("done"), Status::Nothing);
    assert_eq!(kept.err, "removed the filter on veth1\n");
    for name in ours {
        assert!(state.join(name).exists(), "{name}");
    }

    let ran = uninstall_in(directory.path(), &["--yes"], None);
    assert_eq!(ran.result.expect("done"), Status::Nothing);
    let left: Vec<_> = fs::read_dir(&state).expect("there").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        ran.err.contains("removed the filter on veth1"),
        "{}",
        ran.err
    );
}

#[test]
fn uninstall_keeps_the_state_while_a_fence_may_be_left() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    let mut journal = crate::journal::Journal::open(&state, "boot").expect("open");
    let when = When {
        at: "2026-11-01T10:00:00Z".parse().expect("a time"),
        uptime: 7,
    };
    let change = |raise| FenceIntent {
        raise,
        store: "host-local:of-no-directory".to_owned(),
        address: "10.0.0.7".parse().expect("an address"),
        squatter: None,
        reason: String::new(),
    };
    let mut fence = |raise, result| {
        let ids = journal
            .append_fences(when, [change(raise)])
            .expect("intent");
        let effect = FenceEffect {
            result,
            detail: None,
        };
        journal
            .append_fence_effect(when, &ids[0], effect)
            .expect("effect");
    };
    fence(true, FenceResult::Done);
    fence(false, FenceResult::Failed);
    let left = uninstall_in(directory.path(), &["--yes"], None);
    let error = left.result.expect_err("a fence is left");
    let text = error.to_string();
    assert!(
        text.contains("10.0.0.7 in host-local:of-no-directory") && text.contains("is kept"),
        "{text}"
    );
    assert!(state.join("journal.jsonl").exists());
    fence(false, FenceResult::Done);
    let done = uninstall_in(directory.path(), &["--yes"], None);
    assert_eq!(done.result.expect("done"), Status::Nothing);
    assert!(!state.exists());
}

#[test]
fn uninstall_waits_for_the_daemon_to_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    let open = crate::state::State::open(&state).expect("opened");
    let refused = uninstall_in(directory.path(), &["--yes"], None);
    assert!(matches!(refused.result, Err(CliError::Running(_))));
    assert!(state.join("lock").exists());
    drop(open);

    let socket = directory.path().join("run/agent.sock");
    fs::create_dir_all(directory.path().join("run")).expect("made");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    let refused = uninstall_in(directory.path(), &["--yes"], None);
    assert!(matches!(refused.result, Err(CliError::Running(_))));
    drop(listener);
    // A child that another test has just forked has the listener until it executes its program.
    let done = loop {
        let done = uninstall_in(directory.path(), &["--yes"], None);
        if !matches!(done.result, Err(CliError::Running(_))) {
            break done;
        }
        thread::yield_now();
    };
    assert_eq!(done.result.expect("done"), Status::Nothing);
    assert!(!state.exists() && !socket.exists());
}
