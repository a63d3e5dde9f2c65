use super::{Daemon, Status, conflict, release, run};
use crate::{
    report::document::{Happening, WatchLine, WatchSchema},
    serve::watch::{Watchers, Watching},
};

fn line(what: Happening) -> WatchLine {
    WatchLine {
        schema: WatchSchema::V1,
        at: jiff::Timestamp::UNIX_EPOCH,
        host: super::HOST.to_owned(),
        what,
        conflict: None,
        release: None,
        event: None,
        missed: None,
    }
}

/// A conflict that lasts, one that is resolved, a release, and the end.
pub fn watching() -> Option<Watching> {
    let of = |what| WatchLine {
        conflict: Some(conflict()),
        ..line(what)
    };
    let watchers = Watchers::new(super::HOST, || jiff::Timestamp::UNIX_EPOCH);
    let watching = watchers.join(|| vec![of(Happening::Open), line(Happening::Watching)]);
    watchers.tell(|| of(Happening::Resolved));
    watchers.tell(|| WatchLine {
        release: Some(release(5)),
        ..line(Happening::Released)
    });
    watching
}

#[test]
fn watch_ends_with_the_daemon_and_says_so() {
    let daemon = Daemon::start(true);
    let ran = daemon.run("watch", None);
    assert_eq!(ran.result.expect("watched"), Status::Nothing);
    assert_eq!(ran.err, "watching; Ctrl-C ends it\nthe daemon stopped\n");
    insta::assert_snapshot!(ran.out, @r"
    1970-01-01 00:00:00Z  open      critical  duplicate-address  br0 VLAN 10: two machines use it
    1970-01-01 00:00:00Z  resolved  critical  duplicate-address  br0 VLAN 10: two machines use it
    1970-01-01 00:00:00Z  released  10.0.0.5 of host-local:net, leased to unknown: nobody uses it
    ");

    let ran = daemon.run("watch --output csv", None);
    insta::assert_snapshot!(ran.out, @r"
    at,what,id,kind,severity,address,segment,vlan,outer_vlan,macs,stores,reason
    1970-01-01T00:00:00Z,open,1,duplicate-address,critical,10.0.0.9,br0,10,,,,two machines use it
    1970-01-01T00:00:00Z,resolved,1,duplicate-address,critical,10.0.0.9,br0,10,,,,two machines use it
    1970-01-01T00:00:00Z,released,,,,10.0.0.5,,,,,host-local:net,nobody uses it
    ");

    let ran = daemon.run("watch --output json", None);
    let lines = ran.out.lines().map(serde_json::from_str::<WatchLine>);
    let lines: Vec<_> = lines.map(|line| line.expect("JSON").what).collect();
    use Happening::*;
    assert_eq!(lines, [Open, Watching, Resolved, Released, Stopping]);
}

#[test]
fn without_a_daemon_there_is_nothing_to_watch() {
    let ran = run("watch --socket /nowhere/agent.sock", None);
    let error = ran.result.expect_err("no daemon");
    assert!(error.to_string().contains("no daemon answers"), "{error}");
    assert_eq!(ran.out, "");
}
