//! What happens to the host, as its plan says.

use ipam_common::Evidence;

use super::{
    super::{
        leases::Key,
        net,
        plan::{NETS, What},
    },
    Host, Machine, News, PLUGGED_BEFORE, SECOND, Task,
    machines::mac,
};

impl Host {
    pub(super) fn incident(&mut self, what: What) {
        let beat = self.beat;
        let time = |beats: u16| u64::from(beats) * beat;
        match what {
            // What the host has is all gone; what it would do comes to nothing.
            What::Start { .. }
            | What::Regrant { .. }
            | What::Return { .. }
            | What::Attempt { .. }
                if !self.up => {}
            What::Start {
                net,
                habit,
                setup,
                same_id,
            } => {
                let net = usize::from(net) % NETS;
                let id = self.id(same_id);
                if let Some(address) = self.leases.grant(net, &id, self.now, self.boots) {
                    self.news.push(News::Store);
                    let setup = self.longest_setup * u64::from(setup) / 100;
                    self.begin(net, address, habit, id, setup, self.now);
                }
            }
            What::Die {
                machine,
                freed_after,
            } => {
                let alive: Vec<usize> = self.living().collect();
                if let Some(&machine) = alive.get(usize::from(machine) % alive.len().max(1)) {
                    self.die(machine);
                    if let Some(after) = freed_after {
                        self.later(self.now + time(after), Task::Free(machine));
                    }
                }
            }
            What::Return { lease, habit } => {
                if let Some((net, address)) = self.vacated(lease).or_else(|| self.forsaken(lease)) {
                    let shown = self.now + PLUGGED_BEFORE;
                    let id = self.id(false);
                    self.begin(net, address, habit, id, 0, shown);
                }
            }
            What::Attempt { lease } => {
                // Only pods of this host are set up.
                let keys = self.leases.vacated(self.booted).filter(|(net, address)| {
                    let net = net::net(*net);
                    net.local && net.watchable && !self.is_taken((net.number(), *address))
                });
                let keys: Vec<Key> = keys.collect();
                let key = keys.get(usize::from(lease) % keys.len().max(1)).copied();
                if let Some((net, address)) = key {
                    self.attempt(net, address);
                }
            }
            What::Regrant {
                lease,
                habit,
                same_id,
            } => {
                if let Some((net, address)) = self.forsaken(lease) {
                    let id = match self.leases.id((net, address)) {
                        Some(id) if same_id && !self.is_living(&id) => id,
                        _ => self.id(false),
                    };
                    self.leases
                        .regrant((net, address), &id, self.now, self.boots);
                    self.news.push(News::Store);
                    let setup = self.random.u64(0..=self.longest_setup);
                    self.begin(net, address, habit, id, setup, self.now);
                }
            }
            What::Spoil { lease, damage } => {
                if let Some(key) = self.any_lease(lease) {
                    self.leases.spoil(key, damage);
                    self.news.push(News::Store);
                }
            }
            What::Probe { lease } => {
                if let Some((net, address)) = self.any_lease(lease) {
                    let ports: Vec<u32> = self.ports_of(net).collect();
                    if let Some(&port) = ports.get(usize::from(lease) % ports.len().max(1)) {
                        let mac = mac(60_000);
                        let kind = if address.is_ipv4() {
                            Evidence::ArpProbe
                        } else {
                            Evidence::DadProbe
                        };
                        self.frame(port, net, address, mac, Some(kind));
                    }
                }
            }
            What::Detach {
                port,
                beats: for_,
                told,
            } => {
                if let Some(ifindex) = self.any_port(port) {
                    let until = self.now + time(for_);
                    self.with_port(ifindex, |port| {
                        port.program = false;
                        port.revision += 1;
                        port.refused_until = until;
                    });
                    self.troubled(ifindex);
                    self.tell_touched(ifindex, told);
                }
            }
            What::Intrude {
                port,
                beats: for_,
                told,
            } => {
                if let Some(ifindex) = self.any_port(port) {
                    self.with_port(ifindex, |port| {
                        port.first = false;
                        port.revision += 1;
                    });
                    self.later(self.now + time(for_), Task::Withdraw(ifindex));
                    self.troubled(ifindex);
                    self.tell_touched(ifindex, told);
                }
            }
            What::Dark {
                uplink,
                beats: for_,
            } => {
                let uplinks: Vec<u32> = self.uplinks().collect();
                if let Some(&ifindex) = uplinks.get(usize::from(uplink) % uplinks.len().max(1)) {
                    self.with_port(ifindex, |port| {
                        port.carrier = false;
                        port.carrier_changes += 1;
                    });
                    self.later(self.now + time(for_), Task::Light(ifindex));
                    self.troubled(ifindex);
                    self.news.extend([News::Links, News::Touched(ifindex)]);
                }
            }
            What::Lossy { beats: for_ } => self.lossy_until = self.now + time(for_),
            What::Down {
                source,
                beats: for_,
            } => {
                self.down_until.insert(source, self.now + time(for_));
            }
            What::Lies { lie, beats: for_ } => self.lie = Some((lie, self.now + time(for_))),
            What::Late { beats: for_ } => self.late = time(for_),
            What::Glitch { source } => drop(self.glitch.insert(source)),
            What::Garbled { beats: for_ } => self.garbled_until = self.now + time(for_),
            What::Unreadable { net, beats: for_ } => {
                self.leases
                    .unreadable(net.map(usize::from), self.now + time(for_));
            }
            What::BrokenState { beats: for_ } => self.broken_until = self.now + time(for_),
            What::Contended { seconds } => self.contended = u64::from(seconds) * SECOND,
            What::Lawless => self.lawless = true,
            What::KilledReleasing { before, pinned } => self.doomed = Some((before, pinned)),
            What::Jump { seconds: by } => self.leases.wall += i64::from(by) * SECOND as i64,
            // The agent's.
            What::Restart { .. } | What::PowerCut { .. } | What::Apply => {}
        }
    }

    pub(super) fn any_lease(&self, number: u8) -> Option<Key> {
        let keys: Vec<Key> = self.leases.keys().collect();
        keys.get(usize::from(number) % keys.len().max(1)).copied()
    }

    /// A lease whose holder is gone, and nobody is about to come with its address.
    pub(super) fn forsaken(&self, number: u8) -> Option<Key> {
        let keys = self.leases.keys().filter(|&key| !self.is_taken(key));
        let keys: Vec<Key> = keys.collect();
        keys.get(usize::from(number) % keys.len().max(1)).copied()
    }

    /// For every other number: an address whose lease was released in this boot, the same.
    fn vacated(&self, number: u8) -> Option<Key> {
        let keys = self.leases.vacated(self.booted);
        let keys: Vec<Key> = keys.filter(|&key| !self.is_taken(key)).collect();
        let place = usize::from(number / 2) % keys.len().max(1);
        keys.get(place)
            .filter(|_| number.is_multiple_of(2))
            .copied()
    }

    fn is_taken(&self, (net, address): Key) -> bool {
        let mut living = self.machines.iter().filter(|machine| !machine.dead);
        living.any(|machine| machine.net == net && machine.address == address)
    }

    pub(super) fn any_port(&self, number: u8) -> Option<u32> {
        let ports: Vec<u32> = self.ports.keys().copied().collect();
        ports.get(usize::from(number) % ports.len().max(1)).copied()
    }

    /// Whether who lives has this id: no two do at once.
    fn is_living(&self, id: &str) -> bool {
        let mut machines = self.machines.iter();
        machines.any(|machine| !machine.dead && machine.id == id)
    }

    /// A new id, or one that was another's before.
    pub(super) fn id(&mut self, used: bool) -> String {
        let gone: Vec<&Machine> = self
            .machines
            .iter()
            .filter(|machine| machine.dead && !self.is_living(&machine.id))
            .collect();
        match self.random.choice(gone) {
            Some(machine) if used => machine.id.clone(),
            _ => format!("{:032x}{:032x}", self.random.u128(..), self.random.u128(..)),
        }
    }

    pub(super) fn tell_touched(&mut self, ifindex: u32, told: bool) {
        if told {
            self.news.push(News::Touched(ifindex));
        }
    }
}
