//! What the container runtime says of its sandboxes, be it so or not.

use ipam_agent::engine::{
    evidence::Source,
    holders::{Own, RuntimeReport, Sandbox, SocketAnswer},
};
use ipam_common::Address;

use super::{
    super::plan::{Habit, Lie},
    Host, Machine,
};

const SOCKET: &str = "/run/containerd/containerd.sock";

impl Host {
    /// What the runtime says to a pass, if it is asked at all.
    pub fn ask_runtime(&mut self) -> Option<RuntimeReport> {
        let mut report = self.look_at_runtime()?;
        for (_, answer) in &mut report.sockets {
            let SocketAnswer::Sandboxes(sandboxes) = answer else {
                continue;
            };
            if self.glitches(Source::Cri) {
                sandboxes.clear();
            }
            let ready = sandboxes.iter().filter(|sandbox| sandbox.ready);
            for address in ready.flat_map(|sandbox| &sandbox.addresses) {
                self.told_ready.insert(*address, self.now);
            }
        }
        Some(report)
    }

    /// What the runtime says now.
    pub fn look_at_runtime(&self) -> Option<RuntimeReport> {
        let lie = self.lie.filter(|(_, until)| self.now < *until);
        let answer = match lie {
            _ if self.is_down(Source::Cri) => SocketAnswer::Failed("it does not answer".into()),
            Some((Lie::Gone, _)) => SocketAnswer::Absent,
            lie => SocketAnswer::Sandboxes(self.sandboxes(lie.map(|(lie, _)| lie))),
        };
        self.cri.then(|| RuntimeReport {
            own: Own::Host,
            sockets: vec![(SOCKET.into(), answer)],
        })
    }

    /// Whether the runtime has said since then, rightly or not, that who has this address lives.
    pub fn was_told_ready(&self, address: Address, since: u64) -> bool {
        self.told_ready
            .get(&address)
            .is_some_and(|told| *told >= since)
    }

    fn sandboxes(&self, lie: Option<Lie>) -> Vec<Sandbox> {
        let known = self.machines.iter().filter(|machine| {
            let is_pod = matches!(machine.habit, Habit::Known | Habit::Ordinary);
            is_pod && machine.shown && !machine.remote
        });
        let listed = known.filter(|machine| match lie {
            Some(Lie::Ready | Lie::NotReady) => true,
            Some(Lie::Forgets) => !machine.dead && machine.habit == Habit::Known,
            Some(Lie::Gone) | None => !machine.dead,
        });
        // Where an id was given twice, the list has the living.
        let mut sandboxes: Vec<(bool, Sandbox)> = listed
            .map(|machine| (machine.dead, sandbox(machine, lie)))
            .collect();
        sandboxes.sort_by_key(|(dead, _)| !dead);
        sandboxes.into_iter().map(|(_, sandbox)| sandbox).collect()
    }
}

fn sandbox(machine: &Machine, lie: Option<Lie>) -> Sandbox {
    Sandbox {
        id: machine.id.as_str().into(),
        pod: "default/pod".into(),
        ready: !machine.dead || lie == Some(Lie::Ready),
        addresses: vec![machine.address],
        own_network: true,
        namespace_gone: machine.dead,
        // In a virtual machine the address is in no namespace.
        guest: machine.habit == Habit::Known || (machine.port.is_none() && !machine.dead),
    }
}
