//! Leases of addresses that this host itself has: whoever has them, they are in use.

use std::{fs, net::IpAddr};

use anyhow::ensure;
use tests::{
    lab,
    runtime::{Network, in_lab},
};

use super::{
    store::{apply, intended, lock},
    *,
};

#[test]
fn what_this_host_itself_has_is_never_released() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24", "fd00:9::/64"])?;
        net.make_bridge()?;
        fs::create_dir_all(net.leases())?;
        lab::ip(&[
            "link", "add", "own0", "type", "veth", "peer", "name", "own1",
        ])?;
        // The link that has it, up or down, or nobody.
        let leases = [
            ("10.9.0.20", Some(("cni0", "10.9.0.20/24"))),
            ("10.9.0.21", Some(("lo", "10.9.0.21/32"))),
            ("10.9.0.22", Some(("own0", "10.9.0.22/32"))),
            ("fd00:9::23", Some(("cni0", "fd00:9::23/64"))),
            ("10.9.0.24", None),
            ("fd00:9::25", None),
        ];
        let mut stale = BTreeSet::new();
        for (address, own) in leases {
            fs::write(
                net.leases().join(address),
                format!("{}\r\neth0", "ab".repeat(32)),
            )?;
            match own {
                Some((link, prefix)) => lab::ip(&["addr", "add", prefix, "dev", link])?,
                None => drop(stale.insert(address.parse::<IpAddr>()?)),
            }
        }
        let before = on_disk(&net)?;
        let config = config(lab, "continuous", "");
        let daemon = start(lab, &config)?;
        released(&daemon, lab, stale.len())?;
        let kept: BTreeSet<IpAddr> = before.difference(&stale).copied().collect();
        let plan = planned(&daemon, &BTreeSet::new())?;
        for (address, own) in leases {
            let Some((link, _)) = own else { continue };
            let said = detail(&plan, address.parse()?, "holder").unwrap_or_default();
            ensure!(
                said.contains(&format!("on {link} of this host itself")),
                "{plan:#}"
            );
        }
        let (_, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(0), "nothing is planned: {status:?}");
        ensure!(on_disk(&net)? == kept, "{:?}", on_disk(&net)?);
        // The host gives one up, and it goes as any other.
        lab::ip(&["addr", "del", "10.9.0.22/32", "dev", "own0"])?;
        released(&daemon, lab, stale.len() + 1)?;
        ensure!(on_disk(&net)?.len() == kept.len() - 1);
        Ok(())
    });
}

#[test]
fn what_this_host_takes_at_the_last_moment_is_kept() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        net.make_bridge()?;
        fs::create_dir_all(net.leases())?;
        let leases: BTreeSet<IpAddr> = ["10.9.0.20".parse()?, "10.9.0.21".parse()?].into();
        for address in &leases {
            let file = net.leases().join(address.to_string());
            fs::write(file, format!("{}\r\neth0", "ab".repeat(32)))?;
        }
        fs::write(net.leases().join("lock"), "")?;
        let daemon = start(lab, &config(lab, "observe", ""))?;
        planned(&daemon, &leases)?;
        let held = lock(&net)?;
        let (applied, status) = thread::scope(|scope| {
            let applying = scope.spawn(|| apply(&daemon));
            intended(lab)?;
            lab::ip(&["addr", "add", "10.9.0.21/32", "dev", "lo"])?;
            drop(held);
            applying.join().map_err(|_| anyhow!("the command failed"))?
        })?;
        ensure!(status == Some(1), "{status:?} {applied:#}");
        let taken: IpAddr = "10.9.0.21".parse()?;
        let mut outcomes = list(&applied, "outcomes");
        let kept = outcomes.find(|outcome| address(outcome) == Some(taken));
        ensure!(
            kept.is_some_and(|kept| kept["blocker"]["reason"] == "holder"),
            "{applied:#}"
        );
        ensure!(on_disk(&net)? == BTreeSet::from([taken]));
        Ok(())
    });
}
