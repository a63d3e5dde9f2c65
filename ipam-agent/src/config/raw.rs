//! The configuration file as written: every key optional, each value with its line. What is
//! said of a key here is what docs/configuration.md says, with the defaults.

use std::fmt;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

use crate::store::spec::{self, ExemptSpec, OwnerSpec, PoolSpec};

/// A text and where it stands.
pub(super) type Text = Spanned<String>;

/// Reads a file's text. An empty file is a configuration too.
pub(super) fn parse(text: &str) -> Result<Config, serde_saphyr::Error> {
    Ok(serde_saphyr::from_str::<Option<Config>>(text)?.unwrap_or_default())
}

/// `/etc/ipam-agent/config.yaml`. Every key may be left out; one that isn't known is an error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "config")]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Which interfaces are watched.
    #[serde(default)]
    pub interfaces: Interfaces,
    /// Whose leases are compared with what is seen, and which of them may be given back.
    /// Without the key, host-local in its default directory is read, and nothing is released.
    #[schemars(with = "Option<Vec<Store>>")]
    pub stores: Option<Vec<Store>>,
    /// Who is asked whether an address has a holder. A release needs every one of them to
    /// answer.
    #[serde(default)]
    pub holders: Holders,
    /// What is looked at.
    #[serde(default)]
    pub observe: Observe,
    /// Machines with several MACs: their MACs contest no address among themselves.
    #[serde(default, deserialize_with = "spec::owners")]
    pub owners: Vec<OwnerSpec>,
    /// MACs that contest nobody for some addresses, such as VRRP's. They still count as life.
    #[serde(default)]
    pub exempt: Vec<ExemptSpec>,
    /// Addresses and prefixes that are never released, whatever is proven: `10.0.0.5`,
    /// `10.0.0.0/24`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub keep: Vec<Text>,
    /// For how long things last before they are told of, or are over.
    #[serde(default)]
    pub conflicts: Conflicts,
    /// What a release needs. The floors keep a slip of the pen from releasing a live address:
    /// shorter times are errors.
    #[serde(default)]
    pub reclaim: Reclaim,
    /// Where the agent keeps what must survive a reboot, an absolute path on a disk: nothing is
    /// released while it would be lost. On Harvester `/var/lib/rancher/ipam-agent`, as `/var`
    /// is not kept there. The Debian package's unit lets it write below `/var/lib/ipam-agent`
    /// alone: for another, `systemctl edit ipam-agent` and a line `ReadWritePaths=` below
    /// `[Service]`.
    #[schemars(with = "Option<String>", extend("default" = "/var/lib/ipam-agent"))]
    pub state_dir: Option<Text>,
    /// The daemon's socket, mode 0660: who may open it may release leases. At most 107 bytes.
    #[schemars(with = "Option<String>", extend("default" = "/run/ipam-agent/agent.sock"))]
    pub socket: Option<Text>,
    /// Where metrics, health and the read-only API are served: `ADDRESS:PORT`, a list of them, or
    /// `off`. By default only this host may ask; on any other address than loopback there are
    /// metrics and health alone.
    #[schemars(with = "Option<OneOrSeveral>", extend("default" = "127.0.0.1:9477"))]
    pub listen: Option<Spanned<Listen>>,
    /// What metrics tell.
    #[serde(default)]
    pub metrics: Metrics,
}

/// One address, or several.
#[derive(Debug)]
pub(super) struct Listen(pub Vec<String>);

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Listen;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ADDRESS:PORT, several of them, or off")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Listen, E> {
                // What YAML 1.1 takes `off` for.
                Ok(Listen(vec![String::from(if on { "on" } else { "off" })]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Listen, E> {
                Ok(Listen(vec![number.to_string()]))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Listen, E> {
                Ok(Listen(vec![number.to_string()]))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Listen, E> {
                Ok(Listen(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Listen, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element()? {
                    texts.push(text);
                }
                Ok(Listen(texts))
            }
        }

        deserializer.deserialize_any(OneOrSeveral)
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    /// How many conflicts `ipam_conflict_info` tells of by address and MAC at most, 0 to 1000;
    /// `ipam_conflict_info_dropped` says how many more there are. Few, as each is a series.
    #[schemars(with = "Option<u64>", extend("default" = 100))]
    pub max_conflict_info: Option<Spanned<u64>>,
    /// Whether it does so on addresses other than loopback too: whoever may scrape then learns
    /// addresses and MACs.
    #[serde(default)]
    pub expose_conflict_info: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Interfaces {
    /// Names or patterns (`*`, `?`, `[ab]`) of interfaces. By default the host's ends of pods'
    /// links, and uplinks: an address is proven silent only where every port of its wire is
    /// watched.
    #[schemars(with = "Option<Vec<String>>", extend("default" = ["veth*", "cali*", "*-bo", "bond*"]))]
    pub include: Option<Vec<Text>>,
    /// Those among them that are not.
    #[schemars(with = "Option<Vec<String>>", extend("default" = []))]
    pub exclude: Option<Vec<Text>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    /// What it is: `host-local`, or `file` for a lease file, which is only read.
    #[schemars(with = "Kind")]
    pub kind: Text,
    /// Of host-local: the directory with one sub-directory for each network.
    #[schemars(with = "Option<String>", extend("default" = "/var/lib/cni/networks"))]
    pub dir: Option<Text>,
    /// Of a lease file: the file, YAML, JSON or CSV by its name's end.
    #[schemars(with = "Option<String>", extend("default" = "/etc/ipam-agent/leases.yaml"))]
    pub path: Option<Text>,
    /// What the daemon gives back unasked: nothing (`observe`); what it recorded in an earlier
    /// boot and nobody uses since this one (`after-reboot`); whatever is proven stale
    /// (`continuous`). `ipam-agent reclaim apply` works in any mode. Nothing by default:
    /// whoever wants leases gone says so.
    #[schemars(with = "Option<Reclaiming>", extend("default" = "observe"))]
    pub reclaim: Option<Text>,
    /// Whether addresses that somebody uses without a lease are reserved in the store, so that
    /// no pod gets them. Off by default, as it writes into the store.
    #[schemars(with = "Option<bool>", extend("default" = false))]
    pub fence: Option<Spanned<bool>>,
    /// What the store hands out, and on which wire, in place of what CNI's configurations on
    /// this host say of the same addresses. A wire that can't be watched (macvlan) stays one.
    #[serde(default, deserialize_with = "spec::pools")]
    pub pools: Vec<PoolSpec>,
}

/// The kinds of stores.
#[derive(JsonSchema)]
#[schemars(inline, rename_all = "kebab-case")]
#[expect(dead_code, reason = "for the schema alone")]
enum Kind {
    HostLocal,
    File,
}

/// What `listen` may be.
#[derive(JsonSchema)]
#[schemars(inline, untagged)]
#[expect(dead_code, reason = "for the schema alone")]
enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

/// The modes of stores.
#[derive(JsonSchema)]
#[schemars(inline, rename_all = "kebab-case")]
#[expect(dead_code, reason = "for the schema alone")]
enum Reclaiming {
    Observe,
    AfterReboot,
    Continuous,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Holders {
    /// The container runtime: `auto` asks every one that listens where RKE2, K3s, containerd,
    /// CRI-O and cri-dockerd do; `off` says that this host has none; `unix:///path` names it.
    /// While one that answered doesn't, or with `auto` none is there, nothing is released.
    #[schemars(with = "Option<String>", extend("default" = "auto"))]
    pub cri: Option<Text>,
    /// Whether the addresses in the network namespaces behind every veth are asked for: they
    /// find who says nothing on the wire.
    #[schemars(with = "Option<bool>", extend("default" = true))]
    pub netns: Option<Spanned<bool>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Observe {
    /// Whether IP packets from leased addresses count as life: a pod that talks need not ARP
    /// for hours. Every mode but `observe` needs it.
    #[schemars(with = "Option<bool>", extend("default" = true))]
    pub data_plane: Option<Spanned<bool>>,
    /// Segments, as `mgmt-br` or `mgmt-br.10`, whose contested addresses are asked for by ARP
    /// and Neighbor Solicitation, so that a conflict is confirmed, or over, sooner. None by
    /// default: the agent then only listens.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub confirm: Vec<Text>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Conflicts {
    /// A conflict is over when one of its two claimants was silent for so long; 10s or more, as
    /// within DEFEND_INTERVAL (RFC 5227) a claimant may keep silent.
    #[schemars(with = "Option<String>", extend("default" = "2m"))]
    pub quiet: Option<Text>,
    /// For so long an address may be used before its lease is written, and after it is gone;
    /// 1s or more. A plugin writes the lease before the pod speaks, but stores are read after.
    #[schemars(with = "Option<String>", extend("default" = "5s"))]
    pub lease_grace: Option<Text>,
    /// For so long a conflict that is over is told of; 60s or more.
    #[schemars(with = "Option<String>", extend("default" = "1h"))]
    pub memory: Option<Text>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reclaim {
    /// For so long a lease must have been unchanged, and its address silent on a wire that was
    /// watched whole, before it is released unasked; 5m or more, because a pod's set-up can
    /// take 4 minutes in which nobody knows of it.
    #[schemars(with = "Option<String>", extend("default" = "15m"))]
    pub gate: Option<Text>,
    /// The same of a lease whose record is empty or damaged; 15m or more, and no less than
    /// `gate`: there is only the address to judge by.
    #[schemars(with = "Option<String>", extend("default" = "30m"))]
    pub damaged_gate: Option<Text>,
    /// The same when a person confirms, with `reclaim apply`; 5m or more.
    #[schemars(with = "Option<String>", extend("default" = "5m"))]
    pub asked_gate: Option<Text>,
    /// The same of a damaged one when a person confirms; 15m or more, and no less than
    /// `asked_gate`.
    #[schemars(with = "Option<String>", extend("default" = "15m"))]
    pub asked_damaged_gate: Option<Text>,
    /// The same of a lease that the agent recorded in an earlier boot; 60s or more, counted
    /// from when every source of holders has answered. Short, as whoever held it died with
    /// that boot.
    #[schemars(with = "Option<String>", extend("default" = "60s"))]
    pub reboot_gate: Option<Text>,
    /// From one pass over the leases to the next; 10s or more. Two in a row must agree. Where a
    /// lease lacks nothing but time, the next comes when that is over, but no sooner than
    /// after a sixth of this.
    #[schemars(with = "Option<String>", extend("default" = "60s"))]
    pub pass_interval: Option<Text>,
    /// How many leases are released unattended in `pass_interval` at most, 1 to 64: a mistake
    /// stays small.
    #[schemars(with = "Option<u64>", extend("default" = 64))]
    pub max_per_pass: Option<Spanned<u64>>,
    /// How many percent of a pool are released unattended in `pass_interval` at most, 1 to 10.
    #[schemars(with = "Option<u64>", extend("default" = 10))]
    pub max_percent: Option<Spanned<u64>>,
    /// Whether dead entries of CNI's caches, left empty or cut off by a power cut, are removed
    /// unasked, whatever the modes of stores. It needs a container runtime, which alone knows
    /// containers by their ids: not with `holders: { cri: off }`.
    #[schemars(with = "Option<bool>", extend("default" = false))]
    pub clean_caches: Option<Spanned<bool>>,
    /// Lifts all floors, for laboratories and tests. Loud in the log and in `doctor`: with it
    /// a live address can be released.
    #[serde(default)]
    pub lab: bool,
}
