//! The configuration file as written: every key optional, each value with its line.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

use crate::store::spec::{ExemptSpec, OwnerSpec, PoolSpec};

/// A text and where it stands.
pub(super) type Text = Spanned<String>;

/// Reads a file's text. An empty file is a configuration too.
pub(super) fn parse(text: &str) -> Result<Config, serde_saphyr::Error> {
    Ok(serde_saphyr::from_str::<Option<Config>>(text)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    pub interfaces: Interfaces,
    pub stores: Option<Vec<Store>>,
    #[serde(default)]
    pub holders: Holders,
    #[serde(default)]
    pub observe: Observe,
    #[serde(default)]
    pub owners: Vec<OwnerSpec>,
    #[serde(default)]
    pub exempt: Vec<ExemptSpec>,
    #[serde(default)]
    pub keep: Vec<Text>,
    #[serde(default)]
    pub conflicts: Conflicts,
    #[serde(default)]
    pub reclaim: Reclaim,
    pub state_dir: Option<Text>,
    pub socket: Option<Text>,
    pub listen: Option<Spanned<Listen>>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub max_conflict_info: Option<Spanned<u64>>,
    #[serde(default)]
    pub expose_conflict_info: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interfaces {
    pub include: Option<Vec<Text>>,
    pub exclude: Option<Vec<Text>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub kind: Text,
    pub dir: Option<Text>,
    pub path: Option<Text>,
    pub reclaim: Option<Text>,
    pub fence: Option<Spanned<bool>>,
    #[serde(default)]
    pub pools: Vec<PoolSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Holders {
    pub cri: Option<Text>,
    pub netns: Option<Spanned<bool>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Observe {
    pub data_plane: Option<Spanned<bool>>,
    #[serde(default)]
    pub confirm: Vec<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Conflicts {
    pub quiet: Option<Text>,
    pub lease_grace: Option<Text>,
    pub memory: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reclaim {
    pub gate: Option<Text>,
    pub damaged_gate: Option<Text>,
    pub asked_gate: Option<Text>,
    pub asked_damaged_gate: Option<Text>,
    pub reboot_gate: Option<Text>,
    pub pass_interval: Option<Text>,
    pub max_per_pass: Option<Spanned<u64>>,
    pub max_percent: Option<Spanned<u64>>,
    #[serde(default)]
    pub clean_caches: bool,
    #[serde(default)]
    pub lab: bool,
}
