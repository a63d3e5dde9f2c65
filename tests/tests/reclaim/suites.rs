//! The same incident with every host-local that Debian has: what one version writes and
//! another treats otherwise shows here.

use std::{fs, net::IpAddr};

use anyhow::ensure;
use tests::{
    plugins::Plugins,
    runtime::{Network, in_lab},
};

use super::*;

/// Five addresses for pods, of either family as many as there are pods.
const PREFIXES: [&str; 2] = ["10.9.0.0/29", "fd00:9::/64"];

#[test]
fn every_version_of_the_plugins() {
    for plugins in Plugins::all() {
        in_lab(move |lab| {
            let suite = plugins.suite;
            incident(lab, plugins).context(suite)
        });
    }
}

fn incident(lab: &mut Lab, plugins: Plugins) -> Result<()> {
    let net = Network::bridge("pods", "cni0", &PREFIXES)?.by(plugins)?;
    let before = pods(lab, &net, &["intact", "empty", "nul", "lives"])?;
    let [intact, empty, nul, lives] = &before[..] else {
        unreachable!()
    };
    let gone = all(&before[..3]);
    let config = config(lab, "after-reboot", "");
    let daemon = start(lab, &config)?;
    daemon.wait_for("the leases", PATIENCE, "leases", |told| {
        let known = list(told, "leases").filter(|lease| lease["damage"].is_null());
        (known.filter_map(address).collect::<BTreeSet<_>>() == all(&before)).then_some(())
    })?;
    daemon.kill()?;
    power_cut(lab)?;
    let file = |address: IpAddr| net.leases().join(address.to_string());
    for (pod, left) in [(empty, &[][..]), (nul, &[0; 17])] {
        for address in &pod.addresses {
            fs::write(file(*address), left)?;
        }
    }
    let content = fs::read(file(intact.address(false)?))?;
    let _living = lab.restore(&net, lives)?;

    let daemon = start(lab, &config)?;
    released(&daemon, lab, gone.len())?;
    ensure!(
        on_disk(&net)? == all(std::slice::from_ref(lives)),
        "{:?}",
        on_disk(&net)?
    );

    // What is put back is the plugin's own again: it hands out another address, and its DEL
    // of that pod frees what came back.
    let back = intact.address(false)?;
    let told = history(&daemon, lab)?;
    let entry = list(&told, "entries").find(|entry| address(entry) == Some(back));
    let id = entry.context("its entry")?["id"]
        .as_str()
        .context("an id")?;
    let (undone, status) = daemon.command("reclaim undo", &[id])?;
    ensure!(status == Some(0), "{undone}");
    ensure!(fs::read(file(back))? == content);
    // Five addresses but for the two that are leased; IPv6 has more than enough.
    let mut new = Vec::new();
    for name in ["new1", "new2", "new3"] {
        new.push(net.start(lab, name)?);
    }
    let given = all(&new);
    ensure!(
        given.is_disjoint(&all(std::slice::from_ref(lives))),
        "{given:?}"
    );
    ensure!(!given.contains(&back), "{given:?}");
    let full = net
        .start(lab, "full")
        .err()
        .context("an address of a full pool")?;
    ensure!(
        format!("{full:#}").contains("no IP addresses available"),
        "{full:#}"
    );
    net.free(intact)?;
    ensure!(!file(back).exists(), "DEL left {back}");

    // And the agent knows all that this version writes.
    let leases = daemon.wait_for("the leases", PATIENCE, "leases", |told| {
        let leased = list(told, "leases").filter(|lease| lease["state"] == "active");
        let leased: BTreeSet<_> = leased.filter_map(address).collect();
        leased.is_superset(&given).then(|| told.clone())
    })?;
    let damaged =
        list(&leases, "leases").filter(|lease| given.iter().any(|of| address(lease) == Some(*of)));
    ensure!(
        damaged.into_iter().all(|lease| lease["damage"].is_null()),
        "{leases:#}"
    );
    Ok(())
}
