//! What lives on the host, what it says, and what can be seen of it.

use ipam_agent::engine::evidence::{Held, Source, SourceReport};
use ipam_common::{
    Address, Evidence, Mac, Sighting,
    sighting::{SightingKey, Tally},
};

use super::{
    super::{leases::Key, net, plan::Habit},
    Host, Machine, News, PLUGGED_BEFORE, SECOND, Task,
};

impl Host {
    pub(super) fn living(&self) -> impl Iterator<Item = usize> {
        let machines = self.machines.iter().enumerate();
        machines
            .filter(|(_, machine)| !machine.dead)
            .map(|(number, _)| number)
    }

    /// Who is alive with this address on this network, and since when.
    pub fn alive(&self, (net, address): Key) -> Option<u64> {
        let machines = self.machines.iter();
        let here = machines
            .filter(|machine| !machine.dead && machine.net == net && machine.address == address);
        here.map(|machine| machine.born)
            .min()
            .filter(|born| *born <= self.now)
    }

    /// Whether whoever is alive with this address whispers.
    pub fn is_whispered(&self, (net, address): Key) -> bool {
        let machines = self.machines.iter();
        let mut here = machines
            .filter(|machine| !machine.dead && machine.net == net && machine.address == address);
        here.all(|machine| machine.habit == Habit::Whispers)
    }

    /// Whether somebody has been alive with this address since then.
    pub fn was_alive(&self, (net, address): Key, since: u64) -> bool {
        let mut machines = self.machines.iter();
        machines.any(|machine| {
            machine.net == net
                && machine.address == address
                && machine.born <= self.now
                && (!machine.dead || machine.died >= since)
        })
    }

    pub(super) fn begin(
        &mut self,
        net: usize,
        address: Address,
        habit: Habit,
        id: String,
        setup: u64,
        born: u64,
    ) {
        let number = self.machines.len();
        let uplink = net::net(net).uplink.is_some();
        let remote = uplink && (!net::net(net).local || self.random.u8(0..4) == 0);
        let habit = match habit {
            // Of another host's machine nothing shows but what it says.
            Habit::Configured | Habit::Known | Habit::Ordinary if remote => Habit::Talks,
            Habit::Known if !self.cri => Habit::Configured,
            Habit::Whispers if !net::net(net).watchable => Habit::Configured,
            habit => habit,
        };
        let pauses = match habit {
            Habit::Whispers => self.longest_pause..=self.longest_whisper,
            _ => self.longest_pause / 3..=self.longest_pause,
        };
        self.machines.push(Machine {
            net,
            address,
            habit,
            born,
            dead: false,
            died: 0,
            id,
            port: None,
            remote,
            shown: false,
            mac: mac(number),
            pause: self.random.u64(pauses),
        });
        let shown = self.now + PLUGGED_BEFORE + setup;
        self.later(shown - PLUGGED_BEFORE, Task::Plug(number));
        self.later(shown, Task::Show(number));
    }

    /// A pod that can't be set up.
    pub(super) fn attempt(&mut self, net: usize, address: Address) {
        let (number, id) = (self.machines.len(), self.id(false));
        let shown = self.now + PLUGGED_BEFORE;
        self.begin(net, address, Habit::Talks, id, 0, shown);
        self.machines[number].remote = false;
        let granted = shown - self.random.u64(0..PLUGGED_BEFORE);
        self.later(granted, Task::Grant(number));
        let failed = shown + self.random.u64(SECOND / 20..SECOND);
        self.later(failed, Task::Fail(number));
    }

    /// It is granted its address, if nobody has it.
    pub(super) fn grant(&mut self, number: usize) {
        let Machine {
            net,
            address,
            dead,
            id,
            ..
        } = self.machines[number].clone();
        if dead || !self.up {
            return;
        }
        if self.leases.generation((net, address)).is_some() {
            return self.die(number);
        }
        self.leases
            .regrant((net, address), &id, self.now, self.boots);
        self.news.push(News::Store);
    }

    /// Its link goes, and its lease.
    pub(super) fn fail(&mut self, number: usize) {
        if !self.machines[number].dead {
            self.die(number);
        }
        self.perform(Task::Free(number));
    }

    /// A pod's link comes; a macvlan's is nowhere to be seen.
    pub(super) fn plug(&mut self, number: usize) {
        let Machine {
            net, remote, dead, ..
        } = self.machines[number];
        if dead || remote || !net::net(net).watchable {
            return;
        }
        let name = format!("veth{number}");
        self.machines[number].port = Some(self.new_port(&name, Some(net)));
        self.news.push(News::Links);
    }

    pub(super) fn die(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        (machine.dead, machine.died) = (true, self.now);
        if let Some(port) = machine.port.take()
            && self.ports.remove(&port).is_some()
        {
            self.news.push(News::Links);
        }
    }

    pub(super) fn speak(&mut self, number: usize) {
        let machine = self.machines[number].clone();
        let port = machine.port.or_else(|| {
            let mut uplinks = self
                .ports_of(machine.net)
                .filter(|port| self.ports[port].net.is_none());
            uplinks.next().filter(|_| machine.remote)
        });
        let words = if machine.address.is_ipv4() {
            [
                Evidence::ArpAnnouncement,
                Evidence::ArpRequest,
                Evidence::ArpReply,
            ]
        } else {
            [
                Evidence::NeighborAdvertisement,
                Evidence::NeighborSolicitation,
                Evidence::WeakAdvertisement,
            ]
        };
        let word = words[self.random.usize(..words.len())];
        let say = match machine.habit {
            Habit::Packets => None,
            Habit::Ordinary if self.random.bool() => None,
            _ => Some(word),
        };
        // Who comes with an address that isn't granted to it announces it, however silent
        // it is afterwards; a pod's set-up may be without a word.
        let is_silent = matches!(machine.habit, Habit::Configured | Habit::Known);
        let granted = self.leases.id((machine.net, machine.address)) == Some(machine.id.clone());
        if let Some(port) = port
            && !(is_silent && granted)
        {
            self.frame(port, machine.net, machine.address, machine.mac, say);
        }
        if !is_silent {
            let pause = self.random.u64(machine.pause / 2..=machine.pause);
            self.later(self.now + pause, Task::Speak(number));
        }
    }

    /// A frame comes in by a port; `None`: an IP packet.
    pub(super) fn frame(
        &mut self,
        ifindex: u32,
        net: usize,
        address: Address,
        mac: Mac,
        said: Option<Evidence>,
    ) {
        let at = self.clock().0;
        let Some(port) = self.ports.get(&ifindex) else {
            return;
        };
        if !self.up || !port.sees() || !port.carrier {
            return;
        }
        self.heard.insert(address, self.now);
        self.leases.heard((net, address), self.now);
        if let Some(stamps) = self.leased.get_mut(&address) {
            match said {
                None => stamps.packet = at,
                Some(evidence) if evidence.is_probe() => stamps.probe = at,
                Some(_) => stamps.assertion = at,
            }
        }
        let Some(evidence) = said else {
            return;
        };
        let tags = net::net(net).tags(&port.name);
        let sighting = Sighting {
            address,
            mac,
            evidence,
            asked: None,
            tags,
            ether_src: mac.bytes(),
            to: [0xff; 6],
            nonce: None,
        };
        let key = SightingKey {
            ifindex,
            outer_vlan: tags.outer,
            vlan: tags.vlan,
            address: address.mapped(),
            mac: mac.bytes(),
            probe: evidence.is_probe().into(),
            reserved: 0,
        };
        let tally = self.sightings.entry(key);
        tally
            .and_modify(|tally| tally.add(&sighting, at))
            .or_insert_with(|| Tally::first(&sighting, at));
        self.news.push(if self.now < self.lossy_until {
            News::Lost
        } else {
            News::Seen {
                at,
                ifindex,
                sighting,
            }
        });
    }

    /// Whether a source's answer to this pass leaves out what it should name: at most once in
    /// a row.
    pub(super) fn glitches(&mut self, source: Source) -> bool {
        let glitch = !self.glitched.remove(&source) && self.glitch.remove(&source);
        if glitch {
            self.glitched.insert(source);
        }
        glitch
    }

    pub(super) fn is_down(&self, source: Source) -> bool {
        let until = self.down_until.get(&source);
        until.is_some_and(|until| *until > self.now)
    }

    /// What the namespaces say to a pass.
    pub fn ask_namespaces(&mut self) -> SourceReport {
        let mut report = self.look_into_namespaces();
        if let Ok(held) = &mut report.answer
            && self.glitches(Source::Namespaces)
        {
            held.clear();
        }
        report
    }

    /// What is configured in the namespaces.
    pub fn look_into_namespaces(&self) -> SourceReport {
        let source = Source::Namespaces;
        if self.is_down(source) {
            return SourceReport {
                source,
                answer: Err("it does not answer".into()),
            };
        }
        let names = |machine: &&Machine| {
            !machine.dead
                && machine.shown
                && !machine.remote
                && matches!(machine.habit, Habit::Configured | Habit::Ordinary)
                && machine.port.is_some()
        };
        let held = self.machines.iter().filter(names).map(|machine| Held {
            address: machine.address,
            ifindex: machine.port,
        });
        SourceReport {
            source,
            answer: Ok(held.collect()),
        }
    }
}

pub(super) fn mac(number: usize) -> Mac {
    let [.., high, low] = number.to_be_bytes();
    Mac::new([2, 0, 0, 0, high, low]).expect("unicast")
}
