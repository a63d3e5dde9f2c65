//! The agent is installed after the power cut, as most people do it: it knows no lease
//! from before, and a person asks.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;

use super::{Figures, Leaked, Live, Story, host};
use crate::lab::Lab;

pub(super) fn tell(story: &Story, lab: &mut Lab) -> Result<Figures> {
    let mut figures = Figures::default();
    story.chapter("An agent that is installed after the power cut");
    let network = host::network()?;
    let names: Vec<String> = (1..=12).map(|n| format!("db-{n}")).collect();
    let pods = host::start_pods(lab, &network, &names)?;
    story.say("12 pods started, and no agent anywhere");
    lab.power_cut()?;
    let damaged: Vec<IpAddr> = pods[..2].iter().map(|pod| pod.addresses[0]).collect();
    host::truncate(&network, &damaged)?;
    let returned = host::start_pods(
        lab,
        &network,
        &[String::from("db-1b"), String::from("db-2b")],
    )?;
    let live: BTreeSet<IpAddr> = returned
        .iter()
        .flat_map(|pod| pod.addresses.iter().copied())
        .collect();
    let leaked: BTreeSet<IpAddr> = host::leases(&network)?.difference(&live).copied().collect();
    story.say(&format!(
        "POWER CUT and BOOT: two pods are back, {} leases leaked, 2 of them are empty files",
        leaked.len()
    ));

    let agent = host::agent(lab, "observe")?;
    story.say("the agent is installed; in mode observe it releases nothing by itself");
    host::show(story, &agent, "reclaim plan", &[])?;
    let stolen = returned[0].addresses[0];
    host::take(&returned[1], stolen)?;
    host::speak(&returned[0])?;
    figures.duplicates = host::find(&agent, &[stolen])?;
    story.say(&format!(
        "meanwhile db-2b took {stolen} from db-1b: found, too"
    ));

    let all = leaked.len();
    agent.wait_for(
        "the plan to cover every leaked lease",
        std::time::Duration::from_secs(30),
        "reclaim plan",
        |plan| {
            let ready = plan["releases"].as_array().map_or(0, Vec::len);
            (ready >= all).then_some(())
        },
    )?;
    story.say("some seconds later every leaked lease is proven stale");
    host::show(story, &agent, "reclaim plan", &[])?;
    host::show(story, &agent, "reclaim apply", &["--yes"])?;
    let left = host::leases(&network)?;
    figures.leaked = Leaked {
        planted: leaked.len(),
        released: leaked.difference(&left).count(),
    };
    figures.live = Live {
        total: live.len(),
        released: live.difference(&left).count(),
    };
    host::show(story, &agent, "report", &[])?;
    agent.stop()?;
    Ok(figures)
}
