//! Which leases the container runtimes' sandboxes hold.
//!
//! What a runtime lists is a sign of life, what it doesn't list is none of death by itself:
//! a runtime that is gone, hung or emptied is a source that is down, or doubted. The sandboxes
//! are known for one run of the agent, and a new run waits longer; which sockets answered,
//! and whether their lists had sandboxes, is known for the boot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ipam_common::Address;

use super::{
    lease::{Lease, short},
    plan::{Blocker, Reason},
    reclaim::{of, words},
    time::Timestamp,
};

/// For how long a sandbox that isn't ready holds what it had, whatever became of its
/// namespace: kubelet frees its own 40 to 70 s after a boot, and later under load.
pub const NOT_READY_HOLDS: Duration = Duration::from_secs(600);

/// What the container runtimes of a host said when they were asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeReport {
    /// How the agent itself runs.
    pub own: Own,
    /// Every socket that was to be asked, by its path.
    pub sockets: Vec<(Arc<str>, SocketAnswer)>,
}

/// How the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// As a process of the host.
    Host,
    /// In a pod, of this sandbox where that is known.
    Pod(Option<Arc<str>>),
}

/// What was found at one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAnswer {
    /// All sandboxes that there are.
    Sandboxes(Vec<Sandbox>),
    /// Nobody listens. No fault, as long as nobody did before.
    Absent,
    /// It could not be asked, or its answer is no answer; in words.
    Failed(String),
}

/// A pod's sandbox, as its runtime tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id, which is the container's id in leases.
    pub id: Arc<str>,
    /// `namespace/name` of the pod. Untrusted text.
    pub pod: Arc<str>,
    /// Whether it is READY.
    pub ready: bool,
    /// All of its addresses.
    pub addresses: Vec<Address>,
    /// Whether it has a network of its own; else the host's.
    pub own_network: bool,
    /// Whether its network namespace is known to be gone.
    pub namespace_gone: bool,
    /// Whether it runs a virtual machine, which may have the address in place of the
    /// sandbox's namespace (KubeVirt's bridge binding).
    pub guest: bool,
}

impl Sandbox {
    /// Its name for people.
    fn name(&self) -> String {
        format!("sandbox {} of {}", short(&self.id), self.pod)
    }
}

/// What was heard of a socket in this boot, by this run of the agent or by one before it:
/// that it answered, at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardSocket {
    /// Its path.
    pub path: Arc<str>,
    /// It has listed sandboxes.
    pub filled: bool,
}

/// What is known of one socket, since it answered for the first time in this boot.
#[derive(Clone, Debug, Default)]
struct Socket {
    /// It has listed sandboxes.
    filled: bool,
    /// Since when it lists none any more, whenever it was asked.
    empty_since: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Known {
    sandbox: Sandbox,
    /// Since when it was never found READY.
    not_ready_since: Option<Timestamp>,
}

/// The sandboxes of every runtime, and what speaks against believing their lists.
#[derive(Clone, Debug, Default)]
pub struct SandboxBook {
    sockets: BTreeMap<Arc<str>, Socket>,
    known: BTreeMap<Arc<str>, Known>,
    /// An earlier run of this boot asked, and nobody knows any more what it heard.
    forgot: bool,
    /// Since when all lists have been believed, whenever they were asked for.
    believed_since: Option<Timestamp>,
    by_address: BTreeMap<Address, BTreeSet<Arc<str>>>,
    problems: Vec<String>,
}

impl SandboxBook {
    /// What earlier runs heard in this boot; `None`: that isn't known any more.
    pub fn remember(&mut self, heard: Option<Vec<HeardSocket>>) {
        self.forgot = heard.is_none();
        for HeardSocket { path, filled } in heard.into_iter().flatten() {
            self.sockets.entry(path).or_default().filled |= filled;
        }
    }

    /// What was heard of each socket in this boot.
    pub fn heard(&self) -> impl Iterator<Item = HeardSocket> {
        self.sockets.iter().map(|(path, socket)| HeardSocket {
            path: Arc::clone(path),
            filled: socket.filled,
        })
    }

    /// The runtimes were asked.
    pub fn hear(&mut self, report: RuntimeReport, now: Timestamp) {
        self.problems.clear();
        let mut listed = BTreeMap::new();
        let mut answered = 0;
        for (path, answer) in &report.sockets {
            match answer {
                SocketAnswer::Sandboxes(sandboxes) => {
                    answered += 1;
                    let socket = self.sockets.entry(Arc::clone(path)).or_default();
                    socket.filled |= !sandboxes.is_empty();
                    socket.empty_since = match socket.empty_since {
                        _ if !(socket.filled && sandboxes.is_empty()) => None,
                        since => Some(since.unwrap_or(now)),
                    };
                    for sandbox in sandboxes {
                        listed.insert(Arc::clone(&sandbox.id), sandbox.clone());
                    }
                }
                SocketAnswer::Absent => {
                    if let Some(socket) = self.sockets.get_mut(path) {
                        socket.empty_since = None;
                        self.problems.push(format!(
                            "{path} answered earlier in this boot and nobody listens there now: \
                             start the container runtime again, or if it is gone for good name \
                             the other's socket with `holders: {{ cri: unix:///path }}`"
                        ));
                    }
                }
                SocketAnswer::Failed(why) => {
                    if let Some(socket) = self.sockets.get_mut(path) {
                        socket.empty_since = None;
                    }
                    self.problems.push(why.clone());
                }
            }
        }
        if answered == 0 && self.problems.is_empty() {
            let paths: Vec<&str> = report.sockets.iter().map(|(path, _)| &**path).collect();
            self.problems.push(format!(
                "no container runtime listens on {}: start it, name its socket with \
                 `holders: {{ cri: unix:///path }}`, or if this host has none say \
                 `holders: {{ cri: off }}`",
                paths.join(", ")
            ));
        }
        match &report.own {
            Own::Pod(Some(id)) if answered > 0 && !listed.contains_key(id) => {
                self.problems.push(format!(
                    "the agent's own sandbox {} isn't listed, so the list isn't believed",
                    short(id)
                ));
            }
            Own::Pod(None) => self.problems.push(String::from(
                "the agent runs in a pod and finds no sandbox of its own in \
                 /proc/self/mountinfo, so no list can be believed",
            )),
            Own::Host | Own::Pod(_) => {}
        }
        self.believed_since = match self.problems.is_empty() {
            true => Some(self.believed_since.unwrap_or(now)),
            false => None,
        };
        self.note(listed, now);
    }

    fn note(&mut self, listed: BTreeMap<Arc<str>, Sandbox>, now: Timestamp) {
        // What a source that is down may still have stays known.
        if self.problems.is_empty() {
            self.known.retain(|id, _| listed.contains_key(id));
        }
        for (id, sandbox) in listed {
            let before = self.known.get(&id).and_then(|known| known.not_ready_since);
            let not_ready_since = (!sandbox.ready).then(|| before.unwrap_or(now));
            let known = Known {
                sandbox,
                not_ready_since,
            };
            self.known.insert(id, known);
        }
        self.by_address.clear();
        for (id, known) in &self.known {
            for &address in &known.sandbox.addresses {
                let ids = self.by_address.entry(address).or_default();
                ids.insert(Arc::clone(id));
            }
        }
    }

    /// Why the runtimes' lists can't be believed now, if they can't.
    pub fn problem(&self) -> Option<String> {
        (!self.problems.is_empty()).then(|| self.problems.join("; "))
    }

    /// A list that is empty and was not before is doubted for so long: the runtime may have
    /// lost its state, or not have read it yet. So is every list where nobody knows what was
    /// there before.
    pub fn doubt(&self, gate: Duration, now: Timestamp) -> Option<Blocker> {
        let sockets = self.sockets.iter();
        let emptied = sockets.filter_map(|(path, socket)| {
            let why = format!("{path} lists no sandbox any more, which");
            Some((socket.empty_since?, why))
        });
        let forgot = self.believed_since.filter(|_| self.forgot).map(|since| {
            let why = "what was listed earlier in this boot is forgotten, so what is listed now";
            (since, why.to_owned())
        });
        let (since, why) = emptied.chain(forgot).max()?;
        (now.since(since) < gate).then(|| Blocker {
            reason: Reason::SourceDown,
            detail: format!(
                "cri: {why} is believed after a while: {}",
                of(now.since(since), gate)
            ),
            until: Some(since + gate),
        })
    }

    /// The sandbox that holds a lease, by its id or by any address, and what that means.
    pub fn holder(&self, lease: &Lease, now: Timestamp) -> Option<Blocker> {
        let by_id = lease.holder().container_id;
        let by_address = self.by_address.get(&lease.address).into_iter().flatten();
        { by_id.iter() }
            .chain(by_address)
            .filter_map(|id| {
                let frees = || format!("`crictl stopp {}` frees it", short(id));
                self.known.get(id)?.holds(now, frees)
            })
            // What time alone doesn't lift says most.
            .max_by_key(|blocker| (blocker.until.is_none(), blocker.until))
    }

    /// Whether a READY sandbox has this address on a network of its own, where the lists are
    /// believed. An id says nothing here: a new pod may have it, and another address.
    pub fn is_ready(&self, address: Address) -> bool {
        let mut ids = self.by_address.get(&address).into_iter().flatten();
        let is_ready = |known: &Known| known.sandbox.ready && known.sandbox.own_network;
        self.problems.is_empty() && ids.any(|id| self.known.get(id).is_some_and(is_ready))
    }

    /// What it means for the container with this id that its sandbox is listed, if it is.
    pub fn holder_of(&self, id: &str, now: Timestamp) -> Option<Blocker> {
        let known = self.known.get(id)?;
        known.holds(now, || {
            String::from("remove the file by hand if that pod is no more: its DEL fails meanwhile")
        })
    }

    /// What was told of the sandbox with this id, if it is in the same state still and nothing
    /// that would be told now could make it hold more.
    pub fn told(&self, id: &str, ready: bool) -> Option<&Sandbox> {
        let sandbox = &self.known.get(id)?.sandbox;
        // A sandbox has its addresses before it is READY, keeps them, and gets no others.
        let is_whole =
            !sandbox.addresses.is_empty() || !sandbox.own_network || sandbox.namespace_gone;
        (sandbox.ready == ready && is_whole).then_some(sandbox)
    }

    /// The pod of the sandbox with this id.
    pub fn pod(&self, id: &str) -> Option<&Arc<str>> {
        Some(&self.known.get(id)?.sandbox.pod)
    }

    /// A READY sandbox with an address of its own that is configured nowhere, though every
    /// namespace was asked: one of the two sources is wrong. In words. Of an address whose link
    /// is no veth, as `elsewhere` tells, that says nothing.
    pub fn unshown(
        &self,
        shown: &BTreeSet<Address>,
        elsewhere: impl Fn(Address) -> bool,
    ) -> Option<String> {
        if !self.problems.is_empty() {
            return None;
        }
        self.known.values().find_map(|known| {
            let sandbox = &known.sandbox;
            if !sandbox.ready || !sandbox.own_network || sandbox.guest {
                return None;
            }
            let mut addresses = sandbox.addresses.iter();
            let address =
                addresses.find(|&&address| !shown.contains(&address) && !elsewhere(address))?;
            Some(format!(
                "cri and namespaces contradict each other: {} is READY with {address}, \
                 which is configured behind no veth: if that pod keeps its address elsewhere \
                 for good (gVisor, SR-IOV), say `holders: {{ netns: false }}` and the container \
                 runtime alone is asked",
                sandbox.name(),
            ))
        })
    }
}

impl Known {
    /// `mend`: what helps if it holds for as long as nobody does anything.
    fn holds(&self, now: Timestamp, mend: impl Fn() -> String) -> Option<Blocker> {
        let name = self.sandbox.name();
        let Some(since) = self.not_ready_since else {
            let detail = format!("{name} is READY");
            return Some(Blocker::new(Reason::Holder, detail));
        };
        let waited = now.since(since);
        if waited < NOT_READY_HOLDS {
            let detail = format!(
                "{name} NOTREADY for {}, its kubelet frees it",
                of(waited, NOT_READY_HOLDS)
            );
            return Some(Blocker {
                reason: Reason::Holder,
                detail,
                until: Some(since + NOT_READY_HOLDS).filter(|_| self.sandbox.namespace_gone),
            });
        }
        (!self.sandbox.namespace_gone).then(|| {
            let detail = format!(
                "{name} NOTREADY for {}, and nothing says that its network namespace is gone: {}",
                words(waited),
                mend()
            );
            Blocker::new(Reason::Holder, detail)
        })
    }
}

#[cfg(test)]
mod tests;
