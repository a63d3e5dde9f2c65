//! `kubectl ipam` (deploy/kubectl): which pods it asks, what it makes of several answers,
//! and how it ends. The API server is a script that answers as kubectl does; where a real
//! kubectl is installed, that one finds and starts the plugin.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tests::daemon::Answer;

/// What a kubectl does that has pods on three nodes, of which the last doesn't run; what was
/// asked of it is kept.
const KUBECTL: &str = r#"#!/bin/sh
printf '%s\n' "$*" >> "$CLUSTER/asked"
[ ! -e "$CLUSTER/down" ] || { echo 'The connection to the server was refused' >&2; exit 1; }
case "$*" in
    *' get pods '* | 'get pods '*)
        [ ! -e "$CLUSTER/pods" ] || cat "$CLUSTER/pods"
        exit 0
        ;;
esac
for word; do
    case $word in agent-*) pod=$word ;; esac
done
if [ ! -e "$CLUSTER/$pod" ]; then
    echo 'error: unable to upgrade connection: container not found ("agent")' >&2
    exit 1
fi
cat "$CLUSTER/$pod"
status=$(cat "$CLUSTER/$pod.status" 2>/dev/null || echo 0)
if [ "$status" -ne 0 ]; then
    echo "a word of the agent" >&2
    echo "command terminated with exit code $status" >&2
fi
exit "$status"
"#;

struct Cluster {
    directory: TempDir,
}

impl Cluster {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let kubectl = directory.path().join("kubectl");
        fs::write(&kubectl, KUBECTL)?;
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755))?;
        let cluster = Self { directory };
        cluster.write("pods", "node2 ipam agent-b\nnode1 ipam agent-a\n")?;
        Ok(cluster)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.directory.path().join(name), text)?)
    }

    /// What a pod's agent prints, and how it ends.
    fn answers(&self, pod: &str, text: &str, status: i32) -> Result<()> {
        self.write(pod, text)?;
        self.write(&format!("{pod}.status"), &status.to_string())
    }

    fn asked(&self) -> String {
        fs::read_to_string(self.directory.path().join("asked")).unwrap_or_default()
    }

    fn run(&self, shell: &str, args: &[&str]) -> Result<Answer> {
        let path = std::env::var("PATH")?;
        let output = Command::new(shell)
            .arg(plugin())
            .args(args)
            .env(
                "PATH",
                format!("{}:{path}", self.directory.path().display()),
            )
            .env("CLUSTER", self.directory.path())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("can't run {shell}"))?;
        Ok(Answer {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: output.status.code(),
        })
    }
}

fn plugin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubectl/kubectl-ipam")
}

#[test]
fn every_node_is_asked_and_told_apart() -> Result<()> {
    for shell in ["sh", "bash"] {
        let cluster = Cluster::new()?;
        cluster.answers("agent-a", "No conflicts.\n", 0)?;
        cluster.answers("agent-b", "CRITICAL  10.0.0.5\n", 1)?;
        let ran = cluster.run(shell, &["report"])?;
        ensure!(
            ran.out == "== node1\nNo conflicts.\n\n== node2\nCRITICAL  10.0.0.5\n",
            "{ran:?}"
        );
        ensure!(ran.status == Some(1), "one found something: {ran:?}");
        ensure!(ran.err == "node2: a word of the agent\n", "{ran:?}");
        let asked = cluster.asked();
        let exec = "exec --namespace=ipam agent-a --container=agent -- ipam-agent report";
        ensure!(asked.contains(exec), "{asked}");
        ensure!(asked.contains("--all-namespaces"), "{asked}");
        ensure!(
            asked.contains("app.kubernetes.io/name=ipam-agent"),
            "{asked}"
        );
    }
    Ok(())
}

#[test]
fn one_node_answers_as_it_would_by_itself() -> Result<()> {
    let cluster = Cluster::new()?;
    cluster.answers("agent-b", "plan\n", 3)?;
    let args = [
        "--context",
        "c",
        "-n",
        "ipam",
        "--node=node2",
        "reclaim",
        "plan",
    ];
    let ran = cluster.run("sh", &args)?;
    ensure!(ran.out == "plan\n" && ran.status == Some(3), "{ran:?}");
    let asked = cluster.asked();
    ensure!(
        asked.contains("--context=c get pods --namespace=ipam"),
        "{asked}"
    );
    ensure!(!asked.contains("agent-a"), "{asked}");
    Ok(())
}

#[test]
fn the_worst_of_several_endings_counts() -> Result<()> {
    for (one, other, whole) in [(0, 0, 0), (3, 0, 3), (3, 1, 1), (1, 2, 2), (0, 2, 2)] {
        let cluster = Cluster::new()?;
        cluster.answers("agent-a", "", one)?;
        cluster.answers("agent-b", "", other)?;
        let ran = cluster.run("sh", &["report"])?;
        ensure!(ran.status == Some(whole), "{one} and {other}: {ran:?}");
    }
    // A pod that can't be reached found nothing: kubectl ends with 1 there, too.
    let cluster = Cluster::new()?;
    cluster.answers("agent-a", "No conflicts.\n", 0)?;
    let ran = cluster.run("sh", &["report"])?;
    ensure!(ran.status == Some(2), "{ran:?}");
    ensure!(
        ran.err.contains("node2: error: unable to upgrade"),
        "{ran:?}"
    );
    ensure!(
        ran.out.contains("No conflicts."),
        "the others are told of: {ran:?}"
    );
    Ok(())
}

#[test]
fn documents_for_programs_stay_such() -> Result<()> {
    let cluster = Cluster::new()?;
    cluster.answers("agent-a", "address,state\n10.0.0.5,stale\n", 0)?;
    cluster.answers("agent-b", "address,state\n10.0.0.6,active\n", 0)?;
    let whole = "node,address,state\nnode1,10.0.0.5,stale\nnode2,10.0.0.6,active\n";
    for csv in [
        &["--output", "csv"][..],
        &["-o", "csv"],
        &["-o=csv"],
        &["-ocsv"],
    ] {
        let ran = cluster.run("sh", &[&["leases"], csv].concat())?;
        ensure!(ran.out == whole, "{csv:?}: {ran:?}");
    }
    cluster.answers("agent-a", "{\"host\":\"node1\"}\n", 0)?;
    cluster.answers("agent-b", "{\"host\":\"node2\"}\n", 0)?;
    for json in ["--output=json", "-o=json"] {
        let ran = cluster.run("sh", &["report", json])?;
        ensure!(
            ran.out == "{\"host\":\"node1\"}\n{\"host\":\"node2\"}\n",
            "{json}: {ran:?}"
        );
    }
    Ok(())
}

#[test]
fn what_can_not_be_done_is_said_with_the_mend() -> Result<()> {
    let cluster = Cluster::new()?;
    for (args, words) in [
        (
            &["--node", "node9", "report"][..],
            "no agent runs on the node node9",
        ),
        (&["top"], "say --node"),
        (&["watch"], "say --node"),
        (&["reclaim", "apply"], "say --node"),
        // Every node counts its releases from 1.
        (&["reclaim", "undo", "00000001"], "say --node"),
        (&["--nodes", "node1", "report"], "unknown option --nodes"),
        (&["--node"], "needs a value"),
        (&["run"], "run it already"),
        (&[], "Usage:"),
    ] {
        let ran = cluster.run("sh", args)?;
        ensure!(
            ran.status == Some(2) && ran.err.contains(words),
            "{args:?}: {ran:?}"
        );
        ensure!(ran.out.is_empty(), "{args:?}: {ran:?}");
    }
    cluster.write("pods", "")?;
    let none = cluster.run("sh", &["report"])?;
    ensure!(
        none.status == Some(2) && none.err.contains("is it installed"),
        "{none:?}"
    );
    cluster.write("down", "")?;
    let down = cluster.run("sh", &["report"])?;
    ensure!(
        down.status == Some(2) && down.err.contains("refused"),
        "{down:?}"
    );
    Ok(())
}

/// Words of the command line reach the agent as they are.
#[test]
fn arguments_are_not_read_twice() -> Result<()> {
    let cluster = Cluster::new()?;
    cluster.answers("agent-a", "", 0)?;
    cluster.run(
        "sh",
        &[
            "--node",
            "node1",
            "addresses",
            "-i",
            "veth*; touch x",
            "$(id)",
        ],
    )?;
    let asked = cluster.asked();
    ensure!(
        asked.contains("ipam-agent addresses -i veth*; touch x $(id)\n"),
        "{asked}"
    );
    Ok(())
}

/// kubectl itself finds it and hands its arguments on.
#[test]
fn kubectl_starts_it() -> Result<()> {
    let kubectl = Command::new("kubectl")
        .args(["version", "--client"])
        .output();
    if !kubectl.is_ok_and(|output| output.status.success()) {
        eprintln!("there is no kubectl here: only the plugin itself is tested");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    std::os::unix::fs::symlink(
        plugin().canonicalize()?,
        directory.path().join("kubectl-ipam"),
    )?;
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH")?);
    let help = Command::new("kubectl")
        .args(["ipam", "--help"])
        .env("PATH", path)
        .output()?;
    let out = String::from_utf8_lossy(&help.stdout).into_owned();
    ensure!(
        help.status.success() && out.contains("kubectl ipam report"),
        "{help:?}"
    );
    Ok(())
}
