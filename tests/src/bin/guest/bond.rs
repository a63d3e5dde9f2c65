//! A bond: watched as one port, whichever of its links carries the frames.

use anyhow::{Result, ensure};
use tests::lab::Lab;

use crate::host::{
    SLAVES, Uplink, announcement, claimants, ensure_no_conflict, eventually, has_clsact, machine,
    programs, received, start, wait_for_claims, wait_for_duplicate, wait_until_watched,
};

const ADDRESS: &str = "10.7.0.5";
const MAC: &str = "02:00:00:00:00:0a";
const OTHER: &str = "02:00:00:00:00:0b";

/// The program is on every veth and on the bond, by clsact, and not on the bond's slaves.
pub fn ports(lab: &mut Lab) -> Result<()> {
    let _uplink = Uplink::new(lab, "bond0")?;
    machine(lab, "early", "vethearly", MAC)?;
    let daemon = start(lab)?;
    machine(lab, "late", "vethlate", OTHER)?;
    let ports = ["bond0", "vethearly", "vethlate"];
    wait_until_watched(&daemon, &ports)?;
    for port in ports {
        ensure!(has_clsact(port)?, "{port} has no clsact");
        let on_it = programs(port)?;
        ensure!(on_it.len() == 1, "on {port} are {on_it:?}");
    }
    for slave in SLAVES {
        let on_it = programs(slave)?;
        ensure!(on_it.is_empty(), "on the slave {slave} are {on_it:?}");
    }
    Ok(())
}

/// A broadcast comes in by both links of the bond and counts once; after a fail-over the
/// same machine is heard as before, and nobody is accused of anything.
pub fn fail_over(lab: &mut Lab) -> Result<()> {
    let uplink = Uplink::new(lab, "bond0")?;
    let daemon = start(lab)?;
    wait_until_watched(&daemon, &["bond0"])?;
    let announce = |mac: &str, times: usize| {
        let frame = announcement(mac, ADDRESS, &[])?;
        uplink.remote.send("eth0", &vec![frame; times])
    };
    let counted = |frames: u64| {
        wait_for_claims(&daemon, ADDRESS, |claims| {
            let [claim] = claims else { return false };
            claim.claim.mac.to_string() == MAC
                && claim.claim.interface.as_deref() == Some("bond0")
                && claim.claim.frames == frames
        })
    };

    let before = [received(SLAVES[0])?, received(SLAVES[1])?];
    announce(MAC, 5)?;
    for (slave, before) in SLAVES.into_iter().zip(before) {
        eventually("the frames on both slaves", || {
            Ok((received(slave)? >= before + 5).then_some(()))
        })?;
    }
    counted(5)?;
    uplink.fail_over()?;
    announce(MAC, 5)?;
    counted(10)?;
    ensure_no_conflict(&daemon)?;

    announce(OTHER, 1)?;
    announce(MAC, 1)?;
    let conflict = wait_for_duplicate(&daemon, ADDRESS)?;
    let expected = [(MAC.to_owned(), "bond0"), (OTHER.to_owned(), "bond0")];
    ensure!(claimants(&conflict) == expected, "{conflict:#?}");
    Ok(())
}
