//! Asking the claimants of an address, where the configuration allows it.

use tokio::task::JoinSet;

use super::{Daemon, Done};
use crate::{
    engine::{confirm::Question, input::Input},
    error::in_full,
    prober::{Answer, Asker, Confirm, Outlet},
};

impl Daemon {
    /// Asks all of them at once. Who can't be asked has not answered.
    pub(super) fn ask_claimants(&mut self, question: Question) {
        let topology = self.observer.engine.topology();
        let mut asking = JoinSet::new();
        for claimant in &question.claimants {
            let outlet = Outlet {
                ifindex: claimant.ifindex,
                tags: claimant.tags,
            };
            let confirm = Confirm {
                outlet,
                address: question.address,
                claimant: claimant.mac,
                asker: Asker::of(topology, &question.segment, outlet, question.address),
                unprobed: question.unprobed,
            };
            let prober = self.prober.clone();
            asking.spawn(async move { (confirm.claimant, prober.confirm(confirm).await) });
        }
        self.tasks.spawn(async move {
            let mut answered = Vec::new();
            for (claimant, answer) in asking.join_all().await {
                match answer {
                    Ok(Answer::Answered(_)) => answered.push(claimant),
                    Ok(Answer::Silent | Answer::Withheld) => {}
                    Err(error) => {
                        let address = question.address;
                        tracing::warn!(
                            "{claimant} can't be asked for {address}: {}",
                            in_full(&error)
                        );
                    }
                }
            }
            answered.sort_unstable();
            Done::Asked(Input::Answers {
                segment: question.segment,
                address: question.address,
                answered,
            })
        });
    }
}
