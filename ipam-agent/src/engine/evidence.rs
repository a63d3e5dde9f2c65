//! What a pass of judgement over leases is given: everything that was asked, and what
//! could not be answered.

use ipam_common::{Address, sighting::Stamps};

use super::{holders::RuntimeReport, time::Timestamp};

/// The answers of one pass, all gathered after it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassEvidence {
    /// What the kernel said of our program on each port that is wanted.
    pub ports: Vec<(u32, PortCheck)>,
    /// LEASED, read whole: an address that isn't here was not being watched for.
    pub stamps: Vec<(Address, Stamps)>,
    /// What each source of addresses that are held said; every configured one is here.
    pub sources: Vec<SourceReport>,
    /// What the container runtimes said, if they are to be asked.
    pub runtimes: Option<RuntimeReport>,
    /// Whether a person waits for what the next pass finds: the wire is asked about all that
    /// could go.
    pub person: bool,
}

/// What the kernel says of our program on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortCheck {
    /// It is there, and first, and has seen every frame since then.
    Attached(Timestamp),
    /// It isn't there, or not ours, or not first; in words.
    Blind(String),
}

/// What one source of holders answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// The source.
    pub source: Source,
    /// The addresses that somebody holds, or why it could not answer.
    pub answer: Result<Vec<Held>, String>,
}

/// Who can say that an address has a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The container runtime.
    Cri,
    /// The addresses configured behind every host veth.
    Namespaces,
}

impl Source {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cri => "cri",
            Self::Namespaces => "namespaces",
        }
    }
}

/// An address that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The address.
    pub address: Address,
    /// The host's port behind which it is configured.
    pub ifindex: Option<u32>,
}
