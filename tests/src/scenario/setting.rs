//! The world before the first frame, and what may change about it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use ipam_agent::engine::{
    Engine, Settings, Windows,
    lease::{Generation, Holder, Lease, Mode, Place, Pool, StoreName, StoreView},
    owner::{Exemption, Owner, Owners},
    reclaim::ReclaimSettings,
    segment::{Bridge, OwnAddress, Port, PortKind, Topology, Wiring},
    time::Timestamp,
};

use ipam_common::Address;

use super::{BRIDGE, Family, World, words};

/// The ports, each with the ifindex of its place, from 1.
pub(super) const PORTS: [&str; 7] = ["vA", "vB", "vC", "vD", "vE", "vF", "up"];
/// The bridge's ifindex, and its own MAC's name.
const BRIDGE_INDEX: u32 = 100;
pub(super) const HOST: &str = "H";

impl World {
    /// A bridge with ports and nobody on it.
    pub fn new(family: Family) -> Self {
        let mut topology = Topology::default();
        for (ifindex, name) in (1..).zip(PORTS) {
            let kind = match name {
                "up" => PortKind::Bond,
                _ => PortKind::Veth,
            };
            let port = Port::new(name, kind, Wiring::bridge(BRIDGE));
            topology.ports.insert(ifindex, port);
        }
        let bridge = Bridge {
            ifindex: BRIDGE_INDEX,
            filtering: None,
        };
        topology.bridges.insert(BRIDGE.into(), bridge);
        topology.own_macs.extend(words::mac(HOST).ok());
        let [view, other] = ["host-local:net", "file:other"].map(|name| StoreView {
            fencing: Default::default(),
            store: StoreName(name.into()),
            mode: Mode::Observe,
            writable: Ok(()),
            place: Place::Bridge {
                bridge: BRIDGE.into(),
                vlan: None,
            },
            pools: Vec::new(),
            leases: Vec::new(),
        });
        Self {
            family,
            engine: Engine::new(settings()),
            refused: BTreeMap::new(),
            asked: Vec::new(),
            now: Timestamp(0),
            topology,
            view,
            other,
            owners: Owners::default(),
            grants: 0,
            ids: Vec::new(),
            told: String::new(),
            tallies: BTreeMap::new(),
        }
    }

    /// Does what a line without a time says.
    pub(super) fn set(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["lease", address, holder] => self.grant(address, holder)?,
            ["pool"] => self.pool(None)?,
            ["pool", "gateway", gateway] => self.pool(Some(gateway))?,
            ["pool", "gateway", gateway, mac] => {
                self.pool(Some(gateway))?;
                let mac = words::mac(mac)?;
                self.view
                    .pools
                    .iter_mut()
                    .for_each(|pool| pool.gateway_mac = Some(mac));
            }
            ["pool", "excluding", first, last] => {
                self.pool(None)?;
                let range = (self.family.address(first)?, self.family.address(last)?);
                self.view
                    .pools
                    .iter_mut()
                    .for_each(|pool| pool.exclude = vec![range]);
            }
            ["other", "lease", address, holder] => self.grant_other(address, holder)?,
            ["owner", ref macs @ ..] => {
                let macs: Result<Vec<_>> = macs.iter().map(|m| Ok(words::mac(m)?.into())).collect();
                let owner = Owner {
                    name: "one".into(),
                    macs: macs?,
                };
                self.owners.owners.push(owner);
            }
            ["exempt", who, address] => {
                let exemption = Exemption {
                    addresses: vec![self.family.address(address)?.ip().into()],
                    macs: vec![words::mac(who)?.into()],
                    reason: "said so".into(),
                };
                self.owners.exempt.push(exemption);
            }
            ["own", address] => self.own(address)?,
            // A capture doesn't say that its ports are this host's.
            ["live"] => {}
            // As `conflicts.quiet` has it.
            ["quiet", seconds] => {
                let windows = Windows {
                    quiet: Duration::from_secs(seconds.parse()?),
                    ..Windows::default()
                };
                self.engine = Engine::new(Settings {
                    windows,
                    ..settings()
                });
            }
            ["pod", ref ports @ ..] => {
                let known = self.topology.ports.values_mut();
                known
                    .filter(|port| ports.contains(&&*port.name))
                    .for_each(|port| port.namespace = Some(7));
            }
            ["access", port, vlan] => self.vlans(port, Some(vlan.parse()?), &[])?,
            ["trunk", port, ref vlans @ ..] => {
                let vlans: Result<Vec<u16>, _> = vlans.iter().map(|vlan| vlan.parse()).collect();
                self.vlans(port, Some(1), &vlans?)?;
            }
            _ => bail!("no setting"),
        }
        Ok(())
    }

    /// Leases an address to a MAC.
    pub(super) fn grant(&mut self, address: &str, holder: &str) -> Result<()> {
        self.grants += 1;
        grant(
            &mut self.view,
            self.family.address(address)?,
            holder,
            self.grants,
        )
    }

    /// The second store leases an address to a MAC.
    pub(super) fn grant_other(&mut self, address: &str, holder: &str) -> Result<()> {
        self.grants += 1;
        grant(
            &mut self.other,
            self.family.address(address)?,
            holder,
            self.grants,
        )
    }

    fn pool(&mut self, gateway: Option<&str>) -> Result<()> {
        let gateway = gateway
            .map(|gateway| self.family.address(gateway))
            .transpose()?;
        let prefix = self.family.prefix().parse()?;
        self.view.pools.push(Pool {
            prefix,
            range: None,
            gateway,
            gateway_mac: None,
            exclude: Vec::new(),
            place: None,
        });
        Ok(())
    }

    fn own(&mut self, address: &str) -> Result<()> {
        let own = OwnAddress {
            address: self.family.address(address)?,
            ifindex: BRIDGE_INDEX,
            mac: Some(words::mac(HOST)?),
        };
        self.topology.own_addresses.push(own);
        Ok(())
    }

    fn vlans(&mut self, name: &str, pvid: Option<u16>, tagged: &[u16]) -> Result<()> {
        if let Some(bridge) = self.topology.bridges.get_mut(BRIDGE) {
            bridge.filtering = Some(1);
        }
        let mut ports = self.topology.ports.values_mut();
        let port = ports.find(|port| *port.name == *name).context("no port")?;
        let of = |vlans: &[u16]| pvid.iter().chain(vlans).copied().collect();
        port.wiring = Wiring::Bridge {
            bridge: BRIDGE.into(),
            pvid,
            members: of(tagged),
            untagged: of(&[]),
        };
        Ok(())
    }
}

/// An engine's settings as a host without a configuration file has them, that may ask who is
/// on the bridge.
pub fn settings() -> Settings {
    Settings {
        boot: "boot".into(),
        owners: Owners::default(),
        confirm: vec![BRIDGE.into()],
        windows: Windows::default(),
        reclaim: ReclaimSettings {
            gate: Duration::from_secs(900),
            damaged_gate: Duration::from_secs(1800),
            asked_gate: Duration::from_secs(300),
            asked_damaged_gate: Duration::from_secs(900),
            reboot_gate: Duration::from_secs(60),
            pass_interval: Duration::from_secs(60),
            max_per_pass: 64,
            max_percent: 10,
            keep: Vec::new(),
            data_plane: true,
        },
    }
}

fn grant(view: &mut StoreView, address: Address, holder: &str, grants: i64) -> Result<()> {
    view.leases.retain(|lease| lease.address != address);
    let holder = Holder {
        mac: Some(words::mac(holder)?),
        ..Holder::default()
    };
    let generation = Generation {
        modified: grants,
        ..Generation::default()
    };
    let lease = Lease::new(view.store.clone(), address, &holder, &generation, None);
    view.leases.push(lease);
    Ok(())
}
