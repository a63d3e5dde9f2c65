//! Dead entries of CNI's caches beside a real containerd: which the agent removes, which it
//! keeps, and what that means for DEL.

use std::{os::unix::process::ExitStatusExt, path::PathBuf};

use tests::skip;

use super::*;

const RESULTS: &str = "/var/lib/cni/results";
const MULTUS: &str = "/var/lib/cni/multus";

fn cleaning(lab: &Lab) -> String {
    let clean = GATES.replace("lab: true", "lab: true, clean_caches: true");
    // Leases are another matter.
    config(lab, RUNTIME_ALONE)
        .replace(GATES, &clean)
        .replace("continuous", "observe")
}

fn start_cleaning(lab: &Lab) -> Result<Daemon> {
    Daemon::start(&lab.disk().join("daemon"), &cleaning(lab))
}

/// libcni's entry of a container.
fn result_of(id: &str) -> PathBuf {
    Path::new(RESULTS).join(format!("pods-{id}-eth0"))
}

/// A dead entry of a container that nobody has.
fn dead(byte: u8, content: &[u8]) -> Result<PathBuf> {
    let path = result_of(&format!("{byte:02x}").repeat(32));
    fs::create_dir_all(RESULTS)?;
    fs::write(&path, content)?;
    Ok(path)
}

fn removed(path: &Path) -> Result<()> {
    let gone = || Ok((!path.exists()).then_some(()));
    wait_for(&format!("the removal of {}", path.display()), gone)
}

/// Waits until an entry is kept with these words, and gives back its blocker.
fn entry_kept(daemon: &Daemon, path: &Path, reason: &str, words: &str) -> Result<Value> {
    let path = path.display().to_string();
    daemon.wait_for(words, PATIENCE, "reclaim plan", |plan| {
        let mut entries = plan["caches"].as_array()?.iter();
        let entry = entries.find(|entry| entry["path"] == *path)?;
        let is = |blocker: &&Value| {
            let detail = blocker["detail"].as_str();
            blocker["reason"] == *reason && detail.is_some_and(|detail| detail.contains(words))
        };
        entry["blockers"].as_array()?.iter().find(is).cloned()
    })
}

/// The journal's lines of removals: path, and what became of it.
fn journaled(lab: &Lab) -> Result<Vec<(String, Option<String>)>> {
    let text = fs::read_to_string(lab.disk().join("state/journal.jsonl"))?;
    let lines: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let of = |phase: &'static str| lines.iter().filter(move |line| line["phase"] == phase);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let told = of("clean").map(|intent| {
        let mut effects = of("cleaned").filter(|effect| effect["id"] == intent["id"]);
        let result = effects.next().and_then(|effect| text(&effect["result"]));
        (text(&intent["path"]).unwrap_or_default(), result)
    });
    Ok(told.collect())
}

#[test]
fn a_dead_entry_is_removed_once_nobody_has_its_container() {
    in_lab(|lab| {
        network()?;
        let node = Node::boot(lab)?;
        let [ready, stopped, whole] = ["ready", "stopped", "whole"].map(|n| node.run_pod(n, &[]));
        let (ready, stopped, whole) = (ready?, stopped?, whole?);
        // Whole ones stay, whosever they are and however old.
        let orphan = result_of(&"0d".repeat(32));
        fs::copy(result_of(&whole), &orphan)?;
        // Of no container that anybody could be asked for.
        let nameless = Path::new(RESULTS).join("pods-1-eth0");
        fs::write(&nameless, "")?;
        // What a power cut leaves of a running pod's, and of one that its kubelet has stopped.
        fs::write(result_of(&ready), [0; 17])?;
        node.kill_pod(&stopped)?;
        node.stop_pod(&stopped)?;
        ensure!(!result_of(&stopped).exists(), "DEL removes its entry");
        // Of an attachment that another than containerd made: RemovePodSandbox doesn't fail.
        let second = Path::new(RESULTS).join(format!("storage-{stopped}-net1"));
        fs::write(&second, "")?;
        let daemon = start_cleaning(lab)?;
        let cut = dead(0x0e, b"{\"kind\":\"cniCacheV1\",\"contai")?;
        fs::create_dir_all(MULTUS)?;
        let delegates = Path::new(MULTUS).join("0e".repeat(32));
        fs::write(&delegates, "")?;
        removed(&cut)?;
        removed(&delegates)?;
        let words = format!("sandbox {} of default/ready is READY", &ready[..12]);
        entry_kept(&daemon, &result_of(&ready), "holder", &words)?;
        let words = format!("sandbox {} of default/stopped NOTREADY for", &stopped[..12]);
        entry_kept(&daemon, &second, "holder", &words)?;
        entry_kept(&daemon, &nameless, "kept", "its name tells of no container")?;
        node.remove_pod(&stopped)?;
        removed(&second)?;
        let another = dead(0x0f, b"")?;
        removed(&another)?;
        ensure!(result_of(&ready).exists() && nameless.exists());
        ensure!(result_of(&whole).exists() && orphan.exists());
        let told = journaled(lab)?;
        ensure!(told.len() == 4, "{told:?}");
        let done = |(_, result): &(_, Option<String>)| result.as_deref() == Some("removed");
        ensure!(told.iter().all(done), "{told:?}");
        // The newest first, with all that was in them.
        let state = lab.disk().join("state").display().to_string();
        let history = daemon.query("reclaim history", &["--state-dir", &state])?;
        let told: Vec<&Value> = history["caches"].as_array().into_iter().flatten().collect();
        ensure!(
            told.len() == 4 && told[0]["path"] == *another.display().to_string(),
            "{history:#}"
        );
        let mut of = told
            .iter()
            .filter(|entry| entry["path"] == *cut.display().to_string());
        let entry = of.next().context("its entry")?;
        let content = "{\"kind\":\"cniCacheV1\",\"contai";
        ensure!(entry["record"]["content"] == *content, "{entry:#}");
        ensure!(
            entry["result"] == "removed" && entry["damage"] == "truncated",
            "{entry:#}"
        );
        ensure!(daemon.stop()?.success());
        Ok(())
    });
}

#[test]
fn del_fails_for_ever_with_a_dead_entry_and_not_without() {
    in_lab(|lab| {
        let net = network()?;
        let node = Node::boot(lab)?;
        let id = node.run_pod("one", &[])?;
        let lease = lease_of(&net, &id)?;
        node.kill_pod(&id)?;
        fs::write(result_of(&id), "")?;
        for _ in 0..2 {
            let stopped = node.stop_pod(&id);
            ensure!(stopped.is_err(), "libcni reads an empty entry now");
        }
        ensure!(leases(&net)?.contains(&lease));
        // As long as it is listed, and its namespace is there, it isn't the agent's to judge.
        let daemon = start_cleaning(lab)?;
        removed(&dead(0x0e, b"")?)?;
        entry_kept(&daemon, &result_of(&id), "holder", "NOTREADY for")?;
        ensure!(daemon.stop()?.success());

        // A runtime that forgot it has nobody who could be hurt.
        node.power_cut();
        let (own, aside) = (lab.disk().join("containerd"), lab.disk().join("aside"));
        fs::rename(&own, &aside)?;
        let node = Node::boot(lab)?;
        let daemon = start_cleaning(lab)?;
        removed(&result_of(&id))?;
        ensure!(daemon.stop()?.success());
        // Even if it remembers again: now DEL does its work.
        node.power_cut();
        fs::remove_dir_all(&own)?;
        fs::rename(&aside, &own)?;
        let node = Node::boot(lab)?;
        ensure!(leases(&net)?.contains(&lease));
        node.stop_pod(&id)?;
        ensure!(!leases(&net)?.contains(&lease));
        Ok(())
    });
}

#[test]
fn nothing_is_removed_while_nobody_can_be_asked() {
    in_lab(|lab| {
        let net = network()?;
        let mut node = Node::boot(lab)?;
        let id = node.run_pod("one", &[])?;
        let daemon = start_cleaning(lab)?;
        kept(&daemon, lease_of(&net, &id)?, "holder", "is READY")?;
        node.kill_containerd()?;
        let entry = dead(0x0e, b"")?;
        entry_kept(&daemon, &entry, "source-down", "nobody listens there now")?;
        node.start()?;
        removed(&entry)?;

        // Paused, nothing goes by itself.
        daemon.command("reclaim pause", &[])?;
        let entry = dead(0x0f, b"")?;
        entry_kept(&daemon, &entry, "mode", "paused")?;
        daemon.wait_for("the gate", PATIENCE, "reclaim plan", |plan| {
            let blockers = plan["caches"][0]["blockers"].as_array()?;
            blockers.iter().all(|b| b["reason"] != "age").then_some(())
        })?;
        ensure!(entry.exists());
        daemon.command("reclaim resume", &[])?;
        removed(&entry)?;
        ensure!(result_of(&id).exists(), "the pod ran all the time");
        Ok(())
    });
}

#[test]
fn a_removal_that_is_cut_off_anywhere_is_done_or_not() {
    if !cfg!(debug_assertions) {
        skip::skip("a release build has no points to die at");
        return;
    }
    in_lab(|lab| {
        network()?;
        let node = Node::boot(lab)?;
        let id = node.run_pod("one", &[])?;
        let dir = lab.disk().join("daemon");
        let state = lab.disk().join("state");
        // The point; whether the entry is gone by then, and what the next start writes down.
        let points = [
            ("intent-unwritten", false, None),
            ("intent-synced", false, Some("failed")),
            ("cache-there", false, Some("failed")),
            ("cache-removed", true, Some("removed")),
        ];
        for (point, gone, result) in points {
            let _ = fs::remove_dir_all(&state);
            let entry = dead(0x0e, &[0; 17])?;
            let config = cleaning(lab);
            let status = Daemon::start_dying_at(point, &dir, &config)?.wait()?;
            ensure!(status.signal() == Some(9), "{point}: {status}");
            ensure!(entry.exists() != gone, "{point}");
            // A gate before which the next one removes nothing.
            let config = config.replace("damaged_gate: 2500ms", "damaged_gate: 1h");
            let daemon = Daemon::start(&dir, &config)?;
            let told = journaled(lab)?;
            let expected = result.map(|result| (entry.display().to_string(), Some(result.into())));
            ensure!(told == Vec::from_iter(expected), "{point}: {told:?}");
            ensure!(entry.exists() != gone, "{point}");
            ensure!(daemon.stop()?.success());
        }
        ensure!(result_of(&id).exists());
        Ok(())
    });
}
