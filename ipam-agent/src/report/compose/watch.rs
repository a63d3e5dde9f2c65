//! What happens, as it happens.

use ipam_common::Address;

use super::Composer;
use crate::{
    engine::{
        conflict::{Conflict, Event, Step},
        plan::Release,
        segment::Segment,
        view::Case,
    },
    report::document::{Happening, WatchLine},
};

impl Composer<'_> {
    /// The conflicts that last, the oldest first, and the line that ends them.
    pub fn open_now(&self) -> Vec<WatchLine> {
        let cases = self.engine.conflicts();
        let mut lines: Vec<WatchLine> = cases
            .filter(|case| case.conflict.is_active())
            .map(|case| self.conflict_line(Happening::Open, case))
            .collect();
        lines.sort_by_key(|line| line.at);
        lines.push(self.line(Happening::Watching));
        lines
    }

    /// What a conflict has just become.
    pub fn conflict_news(
        &self,
        segment: &Segment,
        address: Address,
        conflict: &Conflict,
    ) -> WatchLine {
        let case = self.engine.case(segment, address, conflict);
        self.conflict_line(turn(&conflict.steps), case)
    }

    /// That a lease has just been given back.
    pub fn release_news(&self, release: &Release) -> WatchLine {
        WatchLine {
            release: Some(self.release(release)),
            ..self.line(Happening::Released)
        }
    }

    /// That something happened that somebody should look at.
    pub fn event_news(&self, event: &Event) -> WatchLine {
        WatchLine {
            at: self.clock.at(event.at),
            event: Some(self.event(event)),
            ..self.line(Happening::ReleasedButAlive)
        }
    }

    fn conflict_line(&self, what: Happening, case: Case<'_>) -> WatchLine {
        let steps = case.conflict.steps.iter();
        let at = { steps }.next_back().map(|step| self.clock.at(step.at));
        let line = self.line(what);
        WatchLine {
            at: at.unwrap_or(line.at),
            conflict: Some(self.conflict(case)),
            ..line
        }
    }

    fn line(&self, what: Happening) -> WatchLine {
        WatchLine {
            schema: Default::default(),
            at: self.clock.at(self.now),
            host: self.host.into(),
            what,
            conflict: None,
            release: None,
            event: None,
            missed: None,
        }
    }
}

/// What the last step of a conflict is.
fn turn(steps: &[Step]) -> Happening {
    match steps {
        [.., last] if !last.active => Happening::Resolved,
        [.., before, _] if before.active => Happening::Changed,
        _ => Happening::Opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        conflict::{Kind, Severity},
        time::Timestamp,
    };

    #[test]
    fn a_conflict_opens_changes_ends_and_opens_again() {
        let step = |severity, active| Step {
            at: Timestamp(0),
            kind: Kind::DuplicateAddress,
            severity,
            active,
        };
        let course = [
            (step(Severity::Warning, true), Happening::Opened),
            (step(Severity::Critical, true), Happening::Changed),
            (step(Severity::Critical, false), Happening::Resolved),
            (step(Severity::Warning, true), Happening::Opened),
        ];
        let steps = course.map(|(step, _)| step);
        for (count, (_, what)) in (1..).zip(course) {
            assert_eq!(turn(&steps[..count]), what);
        }
    }
}
