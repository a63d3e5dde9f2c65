//! Neighbor Solicitations that come back (RFC 7527 §4.1): their nonce was just heard from
//! another port or source, so they are nobody's word.

use std::{collections::VecDeque, time::Duration};

use ipam_common::Mac;

use super::{input::Seen, table::Place, time::Timestamp};

/// A nonce that is heard again within this time is the same frame's.
const ECHO_WINDOW: Duration = Duration::from_secs(10);
/// How many are kept; an echo comes long before so many others.
const MAX_NONCES: usize = 1024;

/// The nonces heard of late.
#[derive(Debug, Default)]
pub struct Nonces {
    heard: VecDeque<Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    nonce: [u8; 6],
    place: Place,
    mac: Mac,
    ifindex: u32,
    at: Timestamp,
}

impl Nonces {
    /// Whether this is an echo; if not, its nonce is noted.
    pub fn is_echo(&mut self, place: Place, seen: &Seen) -> bool {
        let Some(nonce) = seen.sighting.nonce else {
            return false;
        };
        let (mac, ifindex, at) = (seen.sighting.mac, seen.ifindex, seen.at);
        while let Some(oldest) = self.heard.front()
            && (self.heard.len() >= MAX_NONCES || at.since(oldest.at) > ECHO_WINDOW)
        {
            self.heard.pop_front();
        }
        let mut known = self.heard.iter();
        if let Some(first) = known.find(|known| known.nonce == nonce && known.place == place) {
            return first.mac != mac || first.ifindex != ifindex;
        }
        self.heard.push_back(Heard {
            nonce,
            place,
            mac,
            ifindex,
            at,
        });
        false
    }
}
