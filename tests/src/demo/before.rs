//! The agent was there before the power cut: it knows every lease from then, and needs no
//! person.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context, Result};

use super::{Figures, Leaked, Live, Story, host};
use crate::lab::Lab;

pub(super) fn tell(story: &Story, lab: &mut Lab) -> Result<Figures> {
    let mut figures = Figures::default();
    story.chapter("An agent that was there before the power cut");
    let network = host::network()?;
    let agent = host::agent(lab, "after-reboot")?;
    story.say("a throw-away host: bridge cni0, host-local with 10.88.0.0/24 and fd00:88::/120");
    story.say("the agent runs, in mode after-reboot");

    let names: Vec<String> = (1..=12).map(|n| format!("web-{n}")).collect();
    let pods = host::start_pods(lab, &network, &names)?;
    story.say("12 pods started: the real bridge and host-local plugins gave each an IPv4 and an IPv6 address");

    let first = |n: usize| pods[n].addresses.first().copied().context("an address");
    let second = |n: usize| pods[n].addresses.get(1).copied().context("two addresses");
    let (v4, v6) = (first(0)?, second(2)?);
    host::take(&pods[1], v4)?;
    host::take(&pods[3], v6)?;
    // Those they belong to go on using them.
    host::speak(&pods[0])?;
    host::speak(&pods[2])?;
    story.say(&format!(
        "web-2 takes {v4} from web-1, and web-4 takes {v6} from web-3"
    ));
    // A change of leases is known in under a second; the cut must not come before.
    let granted: usize = pods.iter().map(|pod| pod.addresses.len()).sum();
    agent.wait_for(
        "the leases to be known",
        std::time::Duration::from_secs(10),
        "leases",
        |leases| (leases["leases"].as_array()?.len() == granted).then_some(()),
    )?;
    figures.duplicates = host::find(&agent, &[v4, v6])?;
    host::show(story, &agent, "report", &[])?;

    story.say("POWER CUT: every pod, namespace and link is gone; the agent with them");
    agent.kill()?;
    lab.power_cut()?;
    let damaged = [first(4)?, second(5)?, first(6)?];
    host::truncate(&network, &damaged)?;
    let before = host::leases(&network)?;
    story.say(&format!(
        "BOOT: {} leases lie on the disk, and nobody uses any of them; 3 are empty files now",
        before.len()
    ));

    let agent = host::agent(lab, "after-reboot")?;
    story.say("the agent starts with the host, and remembers what it recorded before the cut");

    // The last four come back with their old addresses, as what restores itself does.
    let mut live = BTreeSet::new();
    for (n, pod) in pods.iter().enumerate().skip(8) {
        let pod = lab.restore(&network, pod)?;
        live.extend(pod.addresses.iter().copied());
        if n < 10 {
            host::speak(&pod)?;
        }
    }
    story.say("web-9 to web-12 come back with their old addresses; web-11 and web-12 say nothing");
    let new = host::start_pods(
        lab,
        &network,
        &[String::from("job-1"), String::from("job-2")],
    )?;
    let granted = new.iter().flat_map(|pod| pod.addresses.iter().copied());
    live.extend(granted);
    story.say("two new pods start: host-local gives them addresses of their own");

    let on_disk = host::leases(&network)?;
    let leaked: BTreeSet<IpAddr> = on_disk.difference(&live).copied().collect();
    host::settle(&network, &live)?;
    let left = host::leases(&network)?;
    figures.leaked = Leaked {
        planted: leaked.len(),
        released: leaked.difference(&left).count(),
    };
    figures.live = Live {
        total: live.len(),
        released: live.difference(&left).count(),
    };
    story.say(&format!(
        "of {} leaked leases the agent gave back {}, of {} live ones {}",
        figures.leaked.planted, figures.leaked.released, figures.live.total, figures.live.released
    ));
    host::show(story, &agent, "leases", &[])?;
    host::show(
        story,
        &agent,
        "explain",
        &[&pods[11].addresses[0].to_string()],
    )?;
    host::show(story, &agent, "reclaim history", &[])?;
    agent.stop()?;
    Ok(figures)
}
