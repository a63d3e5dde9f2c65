//! What goes into the engine and what comes out of it.

use std::sync::Arc;

use ipam_common::{
    Address, Mac, Sighting,
    sighting::{SightingKey, Tally},
};

use super::{
    Settings,
    caches::{Cleaned, DeadEntry, Removal},
    confirm::Question,
    conflict::{Conflict, Event},
    evidence::{PassEvidence, SourceReport},
    fence::{Fence, Fenced},
    holders::HeardSocket,
    lease::{Generation, Holder, StoreName, StoreView},
    owner::Owners,
    plan::{Outcome, ReclaimPlan, Release},
    probing::{Found, Inquiry},
    quarantine::{PutBack, Released, Returned},
    segment::{Segment, Topology},
    time::Timestamp,
};

/// One sighting, where and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The frame's time.
    pub at: Timestamp,
    /// The port.
    pub ifindex: u32,
    /// What the frame says.
    pub sighting: Sighting,
    /// It is told once more, beside another: of who spoke before. It is no frame more, and
    /// who sent it isn't known.
    pub again: bool,
}

/// Everything that the engine learns.
#[derive(Clone, Debug)]
pub enum Input {
    /// A frame that said something of an address.
    Seen(Seen),
    /// SIGHTINGS, read whole: repairs what events lost.
    Snapshot(Vec<(SightingKey, Tally)>),
    /// So many events have been lost or held back since the last word of it.
    Lost(u64),
    /// The host's links.
    Links {
        /// As they are.
        topology: Arc<Topology>,
        /// All that is new of them is so since then, at the earliest.
        since: Timestamp,
    },
    /// The host has been watched since then, by this run of the agent or by one before it whose
    /// program stayed at work. Comes before the links.
    WatchedSince(Timestamp),
    /// Our program is on the port.
    Attached {
        /// The port.
        ifindex: u32,
        /// Since when it sees every frame.
        since: Timestamp,
    },
    /// Our program isn't on the port, though it should be.
    Unattached {
        /// The port.
        ifindex: u32,
        /// Why, in words.
        why: String,
    },
    /// Everything that one configured source of leases holds; what it held before and no
    /// longer names is gone.
    Stores {
        /// Its place in the configuration.
        source: usize,
        /// The stores that could be read.
        views: Vec<StoreView>,
        /// Those that could not, and why; what was known of them stays known.
        failed: Vec<(StoreName, String)>,
        /// What it says of owners.
        owners: Owners,
    },
    /// A whole source could not be read; what was known of its stores stays known.
    SourceFailed {
        /// Its place in the configuration.
        source: usize,
        /// Why.
        why: String,
    },
    /// LEASED holds these addresses since now.
    Watching(Vec<Address>),
    /// The answers to [`Command::Gather`].
    Evidence(PassEvidence),
    /// The answer to [`Command::LookBehindPorts`].
    Held(SourceReport),
    /// The answers to [`Command::Ask`].
    Answers {
        /// Where.
        segment: Segment,
        /// Which address.
        address: Address,
        /// Who has it.
        answered: Vec<Mac>,
    },
    /// These are about to be carried out.
    Releasing(Vec<Release>),
    /// The answers to [`Command::Probe`]; what it doesn't name was not asked.
    Probed {
        /// [`Inquiry::round`].
        round: u64,
        /// What came of each.
        found: Vec<Found>,
    },
    /// What became of fences.
    Fenced(Vec<Fenced>),
    /// All dead entries of CNI's caches, if they are to be removed. Comes right before
    /// [`Input::Evidence`], and was read before it was gathered.
    DeadEntries(Vec<DeadEntry>),
    /// What became of [`Command::Clean`].
    Cleaned(Vec<Cleaned>),
    /// What became of a plan.
    Outcomes(Vec<Outcome>),
    /// The configuration is another: what was counted towards releases begins anew.
    Configured(Box<Settings>),
    /// What earlier runs of the agent released in this boot, or what has turned out since to
    /// have been. Comes after the stores were read.
    Released {
        /// Those that nobody was known to have a new lease of.
        quarantined: Vec<Released>,
        /// Those that were put back.
        returned: Vec<Returned>,
        /// Of which store, and when, for each that was released of the budget.
        budgeted: Vec<(StoreName, Timestamp)>,
    },
    /// A lease was to be put back; so it ended.
    PutBack {
        /// The journal's id of its release.
        id: String,
        /// How it ended.
        result: PutBack,
    },
    /// Whether a person paused unattended releases, in words.
    Paused(Option<String>),
    /// Whether the agent's state is writable and survives a reboot; if not, why.
    State(Result<(), String>),
    /// What earlier runs of the agent recorded, in this boot and before, the oldest first.
    /// Comes before the stores, or as soon as it can be read.
    Remembered(Vec<Remembered>),
    /// What earlier runs heard of container runtimes in this boot; `None`: that can't be read,
    /// or was not recorded. Comes before the first [`Input::Evidence`], and again if it can be
    /// read later.
    HeardBefore(Option<Vec<HeardSocket>>),
}

/// What the agent records of a lease, so that a later run and a later boot know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The store.
    pub store: StoreName,
    /// The address.
    pub address: Address,
    /// Which grant.
    pub generation: Generation,
    /// The boot in which the agent first saw this grant.
    pub boot: Arc<str>,
    /// When, on that boot's clock.
    pub since: Timestamp,
}

/// What the driver has to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Put addresses into LEASED and take others out, then say [`Input::Watching`].
    Watch {
        /// Newly leased.
        add: Vec<Address>,
        /// No longer leased.
        remove: Vec<Address>,
    },
    /// Ask every source, then say [`Input::Evidence`].
    Gather,
    /// Ask which addresses are configured behind the ports, then say [`Input::Held`].
    LookBehindPorts,
    /// Ask the claimants of an address, then say [`Input::Answers`].
    Ask(Question),
    /// Ask whether anybody has addresses that are about to be released.
    Probe(Inquiry),
    /// Raise and lower fences, then say [`Input::Fenced`].
    Fence(Vec<Fence>),
    /// Remove dead entries of CNI's caches, then say [`Input::Cleaned`].
    Clean(Vec<Removal>),
    /// Tell whoever watches.
    Publish(Notice),
    /// Release what the plan says, then say [`Input::Outcomes`].
    Execute(ReclaimPlan),
    /// Put a released lease back if nobody has a new lease of its address, then say
    /// [`Input::PutBack`].
    PutBack {
        /// The journal's id of its release.
        id: Arc<str>,
        /// Why, in a sentence.
        reason: String,
    },
    /// Write down that a released address has a new lease.
    Taken {
        /// The journal's id of its release.
        id: Arc<str>,
        /// Whose it is.
        holder: Holder,
    },
    /// Record leases; forget others.
    Remember {
        /// New or changed; [`super::leasebook::LeaseBook::to_remember`] has what is to be
        /// recorded of them.
        leases: Vec<(StoreName, Address)>,
        /// Gone.
        forget: Vec<(StoreName, Address)>,
    },
    /// Record what was heard of every container runtime in this boot.
    RememberHeard(Vec<HeardSocket>),
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A conflict opened, changed its kind or severity, or came back.
    Opened(Segment, Address, Conflict),
    /// A conflict is over.
    Resolved(Segment, Address, Conflict),
    /// Something that is no conflict.
    Happened(Event),
}
