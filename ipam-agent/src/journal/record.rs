//! A line of the journal.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use ipam_common::Address;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cache::{CacheEffect, CacheIntent},
    fence::{FenceEffect, FenceIntent},
};
use crate::engine::{
    lease::{Damage, Generation, Holder, Lease, StoreName},
    plan::{Asker, Release, StaleProof},
};
use crate::store::FileOwner;

/// The schema's name, in every record.
pub const SCHEMA: &str = "ipam-agent/journal/v1";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: Cow<'static, str>,
    /// The release's id, the same in all lines about it. Digits, and in the order of the
    /// intents.
    pub id: String,
    /// When it was written.
    #[serde(flatten)]
    pub when: When,
    /// In which boot.
    pub boot_id: String,
    /// What is said.
    #[serde(flatten)]
    pub phase: Phase,
}

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct When {
    /// By the wall clock, which anybody may set: for people.
    #[schemars(with = "String")]
    pub at: jiff::Timestamp,
    /// Nanoseconds of that boot's CLOCK_BOOTTIME, which nobody can set: what is reckoned
    /// with.
    #[serde(default)]
    pub uptime: u64,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// A lease is about to be released.
    Intent(Box<Intent>),
    /// What became of it.
    Effect(Effect),
    /// A released lease is about to be put back.
    Undo(Undo),
    /// What became of that.
    Undone(Undone),
    /// A new lease of the address ended its quarantine.
    Taken(Taken),
    /// A fence is about to be raised or lowered.
    Fence(FenceIntent),
    /// What became of that.
    FenceEffect(FenceEffect),
    /// A dead entry of a CNI cache is about to be removed.
    Clean(CacheIntent),
    /// What became of that.
    Cleaned(CacheEffect),
}

/// A lease that is about to be released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Intent {
    /// Who wants it.
    #[schemars(with = "String")]
    pub asker: Asker,
    /// Which user, by the socket's peer credentials; `(says …)` after it, whom the client
    /// says that it asks for, which is not proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The store.
    pub store: String,
    /// The address.
    pub address: IpAddr,
    /// To whom it was given.
    pub holder: HolderRecord,
    /// Which grant it was, in full: what is put back if it is undone.
    pub generation: Grant,
    /// What was wrong with the store's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub damage: Option<Damage>,
    /// Why, in a sentence.
    pub reason: String,
    /// Why, in numbers.
    pub evidence: Evidence,
}

/// To whom an address was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HolderRecord {
    /// The container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The interface inside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// The store's record as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Grant {
    /// The file's inode number.
    pub inode: u64,
    /// Its modification time, nanoseconds since 1970.
    pub modified: i64,
    /// Its content.
    pub content: Content,
    /// Whose it was; missing if that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileOwner>,
}

/// Bytes, readable where they are text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Content {
    /// Text.
    Text(String),
    /// Anything else.
    Bytes {
        /// In base64 (RFC 4648 §4).
        base64: String,
    },
}

/// What proved that the lease was nobody's any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// For how long nothing was heard, seconds.
    pub quiet_for: u64,
    /// For how long the agent had seen the lease unchanged in that boot, seconds.
    pub unchanged_for: u64,
    /// The watch that heard nothing.
    pub coverage: Coverage,
    /// The earlier boot in which the agent recorded the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_boot: Option<String>,
    /// Who was asked for a holder and knew none.
    pub sources: Vec<String>,
    /// How many passes in a row agreed.
    pub passes: u32,
    /// Our probes for the address, which nobody answered; absent on routed links, where none
    /// are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<Unanswered>,
}

/// Probes that nobody answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unanswered {
    /// How many, out of all ports together.
    pub sent: u32,
    /// Out of how many ports.
    pub ports: usize,
}

/// A watch without a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// When it began, nanoseconds of that boot's CLOCK_BOOTTIME.
    pub since: u64,
    /// How long it had to be, seconds.
    pub window: u64,
}

/// What became of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Effect {
    /// How it ended.
    pub result: EffectResult,
    /// In words, if there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How a release ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EffectResult {
    /// The lease is gone.
    Released,
    /// It stays: something stood against it at the last moment.
    Kept,
    /// It stays: it could not be done.
    Failed,
}

/// A released lease is about to be put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Undo {
    /// Who wants it: the daemon, because the address is in use, or a person.
    #[schemars(with = "String")]
    pub asker: Asker,
    /// Which user, by the socket's peer credentials; `(says …)` after it, whom the client
    /// says that it asks for, which is not proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, in a sentence.
    pub reason: String,
}

/// What became of putting a lease back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Undone {
    /// How it ended.
    pub result: UndoResult,
    /// In words, if there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How putting a lease back ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UndoResult {
    /// The lease is there again.
    PutBack,
    /// The address has a new lease.
    Taken,
    /// It could not be done.
    Failed,
}

/// A new lease of a released address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// To whom.
    pub holder: HolderRecord,
}

impl Intent {
    /// Of a planned release.
    pub fn new(asker: Asker, by: Option<&str>, release: &Release, file: Option<FileOwner>) -> Self {
        let lease = release.lease();
        Self {
            asker,
            by: by.map(str::to_owned),
            store: lease.store.0.to_string(),
            address: lease.address.ip(),
            holder: HolderRecord::from(&lease.holder()),
            generation: Grant::new(&lease.generation(), file),
            damage: lease.damage,
            reason: reason(release),
            evidence: Evidence::from(release.proof()),
        }
    }
}

impl Intent {
    /// The lease as it was; `None` if the line doesn't say.
    pub fn lease(&self) -> Option<Lease> {
        let text = |text: &Option<String>| text.as_deref().map(Arc::from);
        let holder = Holder {
            container_id: text(&self.holder.container_id),
            interface: text(&self.holder.interface),
            pod: text(&self.holder.pod),
            mac: self.holder.mac.as_ref().and_then(|mac| mac.parse().ok()),
            host_interface: None,
        };
        Some(Lease::new(
            StoreName(self.store.as_str().into()),
            Address::from_ip(self.address)?,
            &holder,
            &self.generation.generation()?,
            self.damage,
        ))
    }
}

/// Why a lease is released, for a person.
fn reason(release: &Release) -> String {
    let (lease, proof) = (release.lease(), release.proof());
    let holder = lease.holder();
    let whose = match (&holder.pod, &holder.container_id) {
        (Some(pod), _) => format!("{}, leased to {pod},", lease.address),
        (None, Some(id)) => format!(
            "{}, leased to container {},",
            lease.address,
            id.get(..12).unwrap_or(id)
        ),
        (None, None) => format!("{}, whose lease names no holder,", lease.address),
    };
    let earlier = if proof.earlier_boot().is_some() {
        ", the lease is of an earlier boot"
    } else {
        ""
    };
    let unanswered = match proof.unanswered() {
        Some(unanswered) if unanswered.sent > 0 => format!(", {unanswered}"),
        _ => String::new(),
    };
    format!(
        "{whose} was not heard for {} while its wire was watched without a gap{unanswered}, no holder is known to {}{earlier}, and {} passes agree",
        minutes(proof.quiet_for().as_secs()),
        match proof.sources() {
            [] => "anyone who could be asked".to_owned(),
            sources => sources.join(" or "),
        },
        proof.passes(),
    )
}

pub(super) fn minutes(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

impl From<&Holder> for HolderRecord {
    fn from(holder: &Holder) -> Self {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            container_id: text(&holder.container_id),
            interface: text(&holder.interface),
            pod: text(&holder.pod),
            mac: holder.mac.map(|mac| mac.to_string()),
        }
    }
}

impl Grant {
    /// Of a file.
    pub(super) fn new(generation: &Generation, file: Option<FileOwner>) -> Self {
        Self {
            inode: generation.inode,
            modified: generation.modified,
            file,
            content: match str::from_utf8(&generation.content) {
                Ok(text) => Content::Text(text.to_owned()),
                Err(_) => Content::Bytes {
                    base64: BASE64_STANDARD.encode(&generation.content),
                },
            },
        }
    }

    /// The generation that was written down; `None` if its bytes can't be read any more.
    pub fn generation(&self) -> Option<Generation> {
        let content = match &self.content {
            Content::Text(text) => text.clone().into_bytes(),
            Content::Bytes { base64 } => BASE64_STANDARD.decode(base64).ok()?,
        };
        Some(Generation {
            inode: self.inode,
            modified: self.modified,
            content: content.into(),
        })
    }
}

impl From<&StaleProof> for Evidence {
    fn from(proof: &StaleProof) -> Self {
        Self {
            quiet_for: proof.quiet_for().as_secs(),
            unchanged_for: proof.unchanged_for().as_secs(),
            coverage: Coverage {
                since: proof.coverage().since().0,
                window: proof.coverage().window().as_secs(),
            },
            earlier_boot: proof.earlier_boot().map(str::to_owned),
            sources: proof
                .sources()
                .iter()
                .map(|&source| source.to_owned())
                .collect(),
            passes: proof.passes(),
            unanswered: proof.unanswered().map(|unanswered| Unanswered {
                sent: unanswered.sent,
                ports: unanswered.ports,
            }),
        }
    }
}
