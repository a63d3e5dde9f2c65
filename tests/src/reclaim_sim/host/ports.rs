//! The host's ports, and what the kernel says of our program on them.

use std::sync::Arc;

use ipam_agent::engine::{evidence::PortCheck, segment::Topology, time::Timestamp};

use super::{
    super::{
        net::{self, nets},
        plan::NETS,
    },
    Host, SECOND,
};

/// A port as the kernel has it.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) net: Option<usize>,
    pub(super) carrier: bool,
    /// Our program is there, and whether it is first.
    pub(super) program: bool,
    pub(super) first: bool,
    pub(super) refused_until: u64,
    pub(super) revision: u64,
    pub(super) carrier_changes: u64,
    pub(super) watch: Option<Watch>,
    /// The agent has been told of it, and could attach at once.
    pub(super) welcome: bool,
}

/// What the agent noted of its program on a port: pinned, or its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) since: u64,
    pub(super) revision: u64,
    pub(super) carrier_changes: u64,
}

impl Host {
    /// Whether the kernel watches less than the whole of a network's wire.
    pub fn is_troubled(&self, net: usize) -> bool {
        let mut ports = self.ports_of(net).map(|ifindex| &self.ports[&ifindex]);
        ports.any(|port| !port.sees() || !port.carrier || !port.is_as_noted())
    }

    pub(super) fn ports_of(&self, net: usize) -> impl Iterator<Item = u32> {
        let uplink = net::net(net).uplink;
        let ports = self.ports.iter().filter(move |(_, port)| {
            port.net == Some(net) || (port.net.is_none() && uplink == Some(&*port.name))
        });
        ports.map(|(&ifindex, _)| ifindex)
    }

    pub(super) fn uplinks(&self) -> impl Iterator<Item = u32> {
        let ports = self.ports.iter().filter(|(_, port)| port.net.is_none());
        ports.map(|(&ifindex, _)| ifindex)
    }

    pub(super) fn with_port(&mut self, ifindex: u32, act: impl FnOnce(&mut Port)) {
        self.ports.get_mut(&ifindex).map(act);
    }

    pub(super) fn new_port(&mut self, name: &str, net: Option<usize>) -> u32 {
        self.next_port += 1;
        let port = Port {
            name: name.to_owned(),
            net,
            carrier: true,
            program: false,
            first: true,
            refused_until: 0,
            revision: 1,
            carrier_changes: 1,
            watch: None,
            welcome: false,
        };
        self.ports.insert(self.next_port, port);
        self.next_port
    }

    pub(super) fn plug_uplinks(&mut self) {
        for net in nets() {
            if let Some(name) = net.uplink {
                self.new_port(name, None);
            }
        }
    }

    pub(super) fn troubled(&mut self, ifindex: u32) {
        for net in 0..NETS {
            if self.ports_of(net).any(|port| port == ifindex) {
                self.trouble[net] = self.now;
            }
        }
    }

    /// While it waited for a lock since `since`, this world's agent heard of no link: what was
    /// then, or a moment before, it hears of only now.
    pub fn was_deaf(&mut self, since: u64) {
        let now = self.now;
        let unheard = |trouble: &&mut u64| since < now && **trouble + SECOND >= since;
        for trouble in self.trouble.iter_mut().filter(unheard) {
            *trouble = now;
        }
    }

    /// What netlink says.
    pub fn topology(&self) -> Arc<Topology> {
        let ports = self
            .ports
            .iter()
            .map(|(&ifindex, port)| (ifindex, net::port(&port.name, port.net, port.carrier)));
        net::topology(ports.collect())
    }

    /// Puts the program on a port, and gives since when it sees every frame.
    pub fn attach(&mut self, ifindex: u32) -> Option<Result<Timestamp, String>> {
        let now = self.clock();
        if let PortCheck::Attached(since) = self.check(ifindex) {
            return Some(Ok(since));
        }
        let world = self.now;
        let port = self.ports.get_mut(&ifindex)?;
        let fresh = port.watch.is_none() && !port.welcome;
        port.welcome = true;
        if port.refused_until > world {
            port.watch = None;
            return Some(Err("the kernel refuses".into()));
        }
        port.program = true;
        port.first = true;
        port.revision += 1;
        port.watch = Some(Watch {
            since: now.0,
            revision: port.revision,
            carrier_changes: port.carrier_changes,
        });
        if !fresh {
            self.troubled(ifindex);
        }
        Some(Ok(now))
    }

    /// What the daemon's loop does while releases wait for a lock: new ports are attached to.
    pub fn welcome(&mut self) {
        let new = self.ports.iter().filter(|(_, port)| !port.welcome);
        for ifindex in new.map(|(&ifindex, _)| ifindex).collect::<Vec<_>>() {
            let _ = self.attach(ifindex);
        }
    }

    /// Asks the kernel for the program on a port.
    pub fn check(&mut self, ifindex: u32) -> PortCheck {
        let now = self.clock().0;
        let blind = |why: &str| PortCheck::Blind(why.into());
        let Some(port) = self.ports.get_mut(&ifindex) else {
            return blind("gone");
        };
        let Some(watch) = &mut port.watch else {
            return blind("not attached");
        };
        if !port.program {
            return blind("the program is gone");
        }
        if !port.first {
            return blind("another is first");
        }
        if port.revision != watch.revision {
            return blind("changed meanwhile");
        }
        if port.carrier_changes != watch.carrier_changes {
            watch.carrier_changes = port.carrier_changes;
            watch.since = now;
        }
        PortCheck::Attached(Timestamp(watch.since))
    }

    /// An agent begins: what one before it left goes on, where nothing came between.
    pub fn take_over(&mut self) -> Timestamp {
        let now = self.clock();
        let since = *self.watched_since.get_or_insert(now.0);
        for port in self.ports.values_mut() {
            let as_left = port.sees() && port.is_as_noted() && port.is_carrier_as_noted();
            if !as_left {
                port.watch = None;
                // No first look is a new port's.
                port.welcome = true;
            }
        }
        // That a port was new when it was attached to, the one before knew alone.
        for number in 0..NETS {
            let watches = self
                .ports_of(number)
                .filter_map(|ifindex| self.ports[&ifindex].watch);
            let youngest = watches.map(|watch| self.world(watch.since)).max();
            self.trouble[number] = self.trouble[number].max(youngest.unwrap_or(0));
        }
        Timestamp(since)
    }
}

impl Port {
    pub(super) fn sees(&self) -> bool {
        self.program && self.first
    }

    pub(super) fn is_as_noted(&self) -> bool {
        self.watch
            .is_some_and(|watch| watch.revision == self.revision)
    }

    pub(super) fn is_carrier_as_noted(&self) -> bool {
        self.watch
            .is_some_and(|watch| watch.carrier_changes == self.carrier_changes)
    }
}
