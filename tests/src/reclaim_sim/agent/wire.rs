//! Asking the wire before a release.

use ipam_agent::engine::{input::Input, probing::Inquiry};

use super::{
    super::{host::SECOND, shop::lock},
    Agent, Job, Step,
};

impl Agent {
    pub(super) fn probe(&mut self, inquiry: Inquiry) {
        self.probing = Some(inquiry.round);
        let settings = self.plan.settings();
        let survey = if self.plan.short {
            settings.pass_interval.as_nanos() as u64 / 2
        } else {
            7 * SECOND
        };
        let since = {
            let mut host = lock(&self.host);
            host.asked(&inquiry);
            host.now
        };
        let late = if lock(&self.host).is_garbled() {
            self.random
                .u64(0..=3 * settings.pass_interval.as_nanos() as u64)
        } else {
            self.random.u64(0..=SECOND)
        };
        let pass = self.engine.last_pass().number;
        self.after(survey + late, Job::Surveyed(inquiry, since, pass));
    }

    pub(super) fn surveyed(&mut self, inquiry: Inquiry, since: u64, pass: u64, step: &mut Step) {
        let round = inquiry.round;
        let found = lock(&self.host).survey(inquiry, since);
        self.probing = None;
        step.found = Some((pass, found.clone()));
        self.tell(Input::Probed { round, found });
        self.go_on_asking();
    }
}
