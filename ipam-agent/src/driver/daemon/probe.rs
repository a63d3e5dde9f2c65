//! Asking the wire for addresses that are about to be released.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Daemon, Done};
use crate::{
    engine::{
        input::Input,
        probing::{Finding, Found, Inquiry},
    },
    prober::{Asker, Outlet, Survey, Surveyed},
    serve::metrics::stage,
};

impl Daemon {
    /// Asks on all wires at once.
    pub(super) fn probe(&mut self, inquiry: Inquiry) {
        let topology = self.observer.engine.topology();
        let own_macs = Arc::new(topology.own_macs.clone());
        let mut asking = JoinSet::new();
        for wire in inquiry.wires {
            let v6 = wire.addresses.iter().find(|address| !address.is_ipv4());
            let outlets = wire.exits.iter().map(|&(ifindex, tags)| {
                let outlet = Outlet { ifindex, tags };
                let asker = v6.and_then(|v6| Asker::of(topology, &wire.segment, outlet, *v6));
                (outlet, asker)
            });
            let survey = Survey {
                outlets: outlets.collect(),
                addresses: wire.addresses,
                within: self.probe_within,
                own_macs: Arc::clone(&own_macs),
            };
            let prober = self.prober.clone();
            asking.spawn(async move { (wire.segment, prober.survey(&survey).await) });
        }
        self.probing = Some(inquiry.round);
        self.metering.begin(stage::PROBE);
        self.tasks.spawn(async move {
            let mut found = Vec::new();
            for (segment, surveyed) in asking.join_all().await {
                found.extend(surveyed.into_iter().map(|(address, surveyed)| Found {
                    segment: segment.clone(),
                    address,
                    finding: finding(surveyed),
                }));
            }
            Done::Probed(inquiry.round, found)
        });
    }

    /// The wire was asked; a person's question can go on.
    pub(super) fn probed(&mut self, round: u64, found: Vec<Found>) {
        if self.probing == Some(round) {
            self.probing = None;
            self.metering.end(stage::PROBE);
        }
        self.observer.tell(Input::Probed { round, found });
        self.go_on_asking();
    }
}

fn finding(surveyed: Surveyed) -> Finding {
    match surveyed {
        Surveyed::Silent(sent) => Finding::Silent(sent),
        Surveyed::Heard(heard, _) if heard.evidence.is_probe() => Finding::Wanted(heard.mac),
        Surveyed::Heard(heard, ifindex) => Finding::Answered {
            mac: heard.mac,
            ifindex,
        },
        Surveyed::Unasked(why) => Finding::Unsent(format!("it can't be asked for: {why}")),
    }
}
