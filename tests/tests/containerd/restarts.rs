//! What is known of a container runtime over the agent's own restarts.

use super::*;

#[test]
fn what_a_runtime_had_is_known_after_the_agent_s_restart() {
    in_lab(|lab| {
        let net = network()?;
        let node = Node::boot(lab)?;
        let id = node.run_pod("one", &[])?;
        let lease = lease_of(&net, &id)?;
        let slow = config(lab, RUNTIME_ALONE).replace(" gate: 2s", " gate: 5s");
        let start = || Daemon::start(&lab.disk().join("daemon"), &slow);
        let daemon = start()?;
        kept(&daemon, lease, "holder", "is READY")?;
        daemon.kill()?;
        node.power_cut();
        fs::remove_dir_all(lab.disk().join("containerd"))?;
        // The boot goes on, and with it what was heard in it.
        let daemon = start()?;
        let words = "answered earlier in this boot and nobody listens there now";
        kept(&daemon, lease, "source-down", words)?;
        daemon.kill()?;
        let _node = Node::boot(lab)?;
        let daemon = start()?;
        kept(&daemon, lease, "source-down", "lists no sandbox any more")?;
        gone(&net, lease)?;
        ensure!(released(lab)? == BTreeSet::from([lease]));
        daemon.stop()?;
        Ok(())
    });
}
