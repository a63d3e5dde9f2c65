//! The lease file that says what a script's lines say.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Result;

use super::{Family, words};

/// A lease file; what it leases may change.
#[derive(Clone, Debug)]
pub(super) struct LeaseFile {
    families: Vec<Family>,
    /// The entries of its lists. Without a lease the list is there, and empty.
    lists: BTreeMap<&'static str, Vec<String>>,
    /// The holders, by the names of addresses.
    leases: BTreeMap<String, String>,
}

impl LeaseFile {
    /// One that says nothing; what it will say it says in each of these families.
    pub(super) fn new(families: &[Family]) -> Self {
        Self {
            families: families.to_owned(),
            lists: BTreeMap::new(),
            leases: BTreeMap::new(),
        }
    }

    /// Writes down what a line without a time says; whether a lease file can say it.
    pub(super) fn set(&mut self, words: &[&str]) -> Result<bool> {
        match *words {
            ["lease", address, holder] => self.grant(address, holder)?,
            ["pool", ref more @ ..] => {
                for family in self.families.clone() {
                    self.add("pools", pool(family, more)?);
                }
            }
            ["owner", ref macs @ ..] => {
                let macs: Result<Vec<_>> = macs.iter().map(|name| mac(name)).collect();
                let macs = macs?.join(", ");
                self.add("owners", format!("name: one, macs: [{macs}]"));
            }
            ["exempt", who, address] => {
                let who = mac(who)?;
                for family in self.families.clone() {
                    let address = family.address(address)?.ip();
                    let width = if address.is_ipv4() { 32 } else { 128 };
                    let item = format!(
                        "addresses: [\"{address}/{width}\"], macs: [{who}], reason: said so"
                    );
                    self.add("exempt", item);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Leases an address to a MAC, and to nobody else.
    pub(super) fn grant(&mut self, address: &str, holder: &str) -> Result<()> {
        self.leases.insert(address.to_owned(), mac(holder)?);
        Ok(())
    }

    /// Leases it to nobody.
    pub(super) fn revoke(&mut self, address: &str) {
        self.leases.remove(address);
    }

    /// How many leases there are.
    pub(super) fn count(&self) -> usize {
        self.leases.len() * self.families.len()
    }

    /// The file.
    pub(super) fn text(&self) -> Result<String> {
        let mut lists = self.lists.clone();
        let mut leases = Vec::new();
        for family in &self.families {
            for (address, holder) in &self.leases {
                let address = family.address(address)?.ip();
                leases.push(format!("address: \"{address}\", mac: {holder}"));
            }
        }
        lists.insert("leases", leases);
        let mut text = String::new();
        for (name, items) in lists {
            let items: String = items
                .iter()
                .map(|item| format!("\n  - {{ {item} }}"))
                .collect();
            let items = if items.is_empty() { " []" } else { &items };
            text += &format!("{name}:{items}\n");
        }
        Ok(text)
    }

    fn add(&mut self, list: &'static str, item: String) {
        self.lists.entry(list).or_default().push(item);
    }
}

fn pool(family: Family, more: &[&str]) -> Result<String> {
    let ip = |name| Ok::<_, anyhow::Error>(family.address(name)?.ip());
    let mut pool = format!("cidr: \"{}\"", family.prefix());
    match *more {
        ["gateway", gateway, ref known @ ..] => {
            let _ = write!(pool, ", gateway: \"{}\"", ip(gateway)?);
            for known in known {
                let _ = write!(pool, ", gateway_mac: {}", mac(known)?);
            }
        }
        ["excluding", first, last] => {
            let (first, last) = (ip(first)?, ip(last)?);
            let _ = write!(pool, ", exclude: [\"{first}-{last}\"]");
        }
        _ => {}
    }
    Ok(pool)
}

fn mac(name: &str) -> Result<String> {
    Ok(format!("\"{}\"", words::mac(name)?))
}
