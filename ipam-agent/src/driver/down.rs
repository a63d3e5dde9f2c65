//! What can't be asked, told in the log once and not at each asking.

use std::collections::BTreeMap;

/// What is down, by name, and why, as it was last told.
#[derive(Debug, Default)]
pub struct Down(BTreeMap<String, String>);

impl Down {
    /// All that is down now: what is so for another reason than before is told, and what was
    /// and isn't any more.
    pub fn tell(&mut self, now: BTreeMap<String, String>) {
        for (what, why) in &now {
            if self.0.get(what) != Some(why) {
                tracing::warn!("{what} is down: {why}");
            }
        }
        for what in self.0.keys().filter(|what| !now.contains_key(*what)) {
            tracing::info!("{what} is back");
        }
        self.0 = now;
    }
}
