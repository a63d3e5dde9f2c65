//! What the frame parser's types are called in documents.

use std::{borrow::Cow, fmt};

use ipam_common::{Mac, sighting::Evidence};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A MAC address: six pairs of lower-case hexadecimal digits, separated by colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardwareAddress(pub Mac);

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Mac> for HardwareAddress {
    fn from(mac: Mac) -> Self {
        Self(mac)
    }
}

impl Serialize for HardwareAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HardwareAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for HardwareAddress {
    fn schema_name() -> Cow<'static, str> {
        "HardwareAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A MAC address.",
            "type": "string",
            "pattern": "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$",
        })
    }
}

/// How a frame says that an address is somebody's, or asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EvidenceName(pub Evidence);

impl EvidenceName {
    /// The kinds in `kinds`, the bits of [`ipam_common::sighting::Tally::kinds`].
    pub fn of_bits(kinds: u32) -> Vec<Self> {
        let known = Evidence::ALL.into_iter();
        known
            .filter(|kind| kinds & kind.bit() != 0)
            .map(Self)
            .collect()
    }
}

impl fmt::Display for EvidenceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.name())
    }
}

impl Serialize for EvidenceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de> Deserialize<'de> for EvidenceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let mut known = Evidence::ALL.into_iter();
        known
            .find(|kind| kind.name() == text)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format_args!("`{text}` is no kind of evidence")))
    }
}

impl JsonSchema for EvidenceName {
    fn schema_name() -> Cow<'static, str> {
        "EvidenceName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "By which kind of frame.",
            "type": "string",
            "enum": Evidence::ALL.map(Evidence::name),
        })
    }
}
