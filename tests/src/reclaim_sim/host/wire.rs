//! What answers when the wire is asked who has an address.

use ipam_agent::engine::probing::{Finding, Found, Inquiry, Wire};
use ipam_common::{Address, Evidence, Mac};

use super::{
    super::{net, plan::Habit},
    Host,
};

impl Host {
    /// Whether questions and answers get lost.
    pub fn is_garbled(&self) -> bool {
        self.now < self.garbled_until
    }

    /// The wire begins to be asked: only where somebody could answer, and as it is tagged there.
    pub fn asked(&mut self, inquiry: &Inquiry) {
        let wrong = inquiry.wires.iter().find_map(|wire| self.misasked(wire));
        if let Some(wrong) = wrong {
            self.wrong.get_or_insert(wrong);
        }
    }

    fn misasked(&self, wire: &Wire) -> Option<String> {
        for &address in &wire.addresses {
            let number = net::of_address(address)?;
            if number == net::ROUTED || !net::net(number).watchable {
                return Some(format!("{address} is asked for on {}", wire.segment));
            }
            for &(ifindex, tags) in &wire.exits {
                let Some(port) = self.ports.get(&ifindex) else {
                    continue;
                };
                let leads = self.ports_of(number).any(|port| port == ifindex);
                if !leads || tags != net::net(number).tags(&port.name) {
                    let name = &port.name;
                    return Some(format!("{address} is asked for out of {name}, {tags:?}"));
                }
            }
        }
        None
    }

    /// What was found by asking since then.
    pub fn survey(&mut self, inquiry: Inquiry, since: u64) -> Vec<Found> {
        if self.is_garbled() && self.random.u8(0..8) == 0 {
            return Vec::new();
        }
        let mut all = Vec::new();
        for wire in inquiry.wires {
            let is_unsent = self.is_garbled() && self.random.u8(0..4) == 0;
            for &address in &wire.addresses {
                let finding = match self.answer(&wire, address, since) {
                    Some(heard) => heard,
                    None if is_unsent || self.is_dark(&wire) => {
                        Finding::Unsent("no carrier".into())
                    }
                    None => Finding::Silent(3 * wire.exits.len() as u32),
                };
                all.push(Found {
                    segment: wire.segment.clone(),
                    address,
                    finding,
                });
            }
        }
        all
    }

    fn is_dark(&self, wire: &Wire) -> bool {
        let mut ports = wire.exits.iter();
        ports.any(|(ifindex, _)| self.ports.get(ifindex).is_some_and(|port| !port.carrier))
    }

    /// Somebody who has the address says so, or wants it. Whoever never says a word of ARP
    /// doesn't now.
    fn answer(&mut self, wire: &Wire, address: Address, since: u64) -> Option<Finding> {
        let number = net::of_address(address)?;
        let probed = self.leased.get(&address).map_or(0, |stamps| stamps.probe);
        if probed > 0 && self.world(probed) >= since {
            return Some(Finding::Wanted(super::machines::mac(60_000)));
        }
        let (mac, ifindex) = self.answerer(wire, number, address)?;
        let lost = if self.is_garbled() { 4 } else { 1 };
        if self.random.u8(0..8) < lost {
            return None;
        }
        let said = if address.is_ipv4() {
            Evidence::ArpReply
        } else {
            Evidence::NeighborAdvertisement
        };
        self.frame(ifindex, number, address, mac, Some(said));
        Some(Finding::Answered { mac, ifindex })
    }

    fn answerer(&self, wire: &Wire, number: usize, address: Address) -> Option<(Mac, u32)> {
        let mut living = self.machines.iter().filter(|machine| {
            !machine.dead
                && machine.shown
                && machine.net == number
                && machine.address == address
                && !matches!(machine.habit, Habit::Packets | Habit::Whispers)
        });
        living.find_map(|machine| {
            let port = machine.port.or_else(|| {
                let mut ports = self.ports_of(number);
                ports.find(|port| machine.remote && self.ports[port].net.is_none())
            })?;
            let reached = wire.exits.iter().any(|(ifindex, _)| *ifindex == port);
            (reached && self.ports.get(&port)?.carrier).then_some((machine.mac, port))
        })
    }
}
