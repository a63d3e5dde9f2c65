//! A small language for judgements: frames on the ports of a bridge, and what becomes of
//! leases, links and addresses meanwhile, one line each. Frames are built as bytes and go
//! through the parser that the kernel runs; the engine's own timers drive its clock.
//!
//! ```text
//! lease X A                  at the start, host-local leases X to the MAC A
//! 0 vA ANN A X               at 0 s, A announces X on port vA
//! 5.0 vB ANN B X
//! 10,20 vB REQ B X G         twice: B, whose address is X, asks for G
//! 60 grant Y A               at 60 s, Y is leased to A
//! 70 end                     the clock goes on until 70 s
//! ```
//!
//! Frames, of MAC `m` and addresses `s`, `t`: `ANN m s` gratuitous request, `GREP m s`
//! gratuitous reply, `REQ m s t` request, `REP m s n t` reply to `n`, `PROBE m t` probe,
//! `UPROBE m t n` probe sent to `n` alone; in IPv6 the advertisement or solicitation that
//! says the same, and `WEAK m s` an advertisement without Override, `FAR m s` one that came
//! through a router. `tag 100` at the end tags the frame.
//!
//! Names: ports `vA` to `vF` (a guest's veth each) and `up` (a bond); MACs and addresses
//! are one letter, or a letter and a digit.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ipam_agent::engine::{
    Engine, Settings,
    conflict::Conflict,
    input::{Command, Input, Notice, Seen},
    lease::{Generation, Holder, Lease, Mode, Place, Pool, StoreName, StoreView},
    owner::{Exemption, Owner, Owners},
    reclaim::ReclaimSettings,
    segment::{Bridge, OwnAddress, Port, PortKind, Segment, Topology, Wiring},
    time::Timestamp,
};
use ipam_common::{
    Address, Captured, Mac, Parsed, Refusal, parse,
    sighting::{SightingKey, Tally},
};

use crate::frames::{self, Arp, Nd, flags};

/// The bridge that every port is in.
const BRIDGE: &str = "br0";
/// Its ifindex, and its own MAC's name.
const BRIDGE_INDEX: u32 = 100;
const HOST: &str = "H";

/// Which of the two protocols the frames are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ARP.
    V4,
    /// Neighbor Discovery.
    V6,
}

/// How the engine learns what was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Each frame as an event, at once.
    Events,
    /// The frames of each second at its end, as events, the latest first.
    Backwards,
    /// No events: the table of sightings at the end of each second.
    Snapshots,
}

/// A wire, a host on it, and the engine that judges it.
#[derive(Debug)]
pub struct World {
    family: Family,
    /// The engine.
    pub engine: Engine,
    /// Frames that the parser refused, by reason.
    pub refused: BTreeMap<&'static str, u32>,
    now: Timestamp,
    topology: Topology,
    view: StoreView,
    owners: Owners,
    grants: i64,
    ids: Vec<Arc<str>>,
    told: String,
    tallies: BTreeMap<SightingKey, Tally>,
}

/// Plays a script and gives back what the engine told, one line each: when, which
/// conflict, what, how bad, who and since when; at the end what moved.
pub fn play(family: Family, script: &str) -> Result<World> {
    World::play(family, Telling::Events, script)
}

impl World {
    /// A bridge with ports and nobody on it.
    pub fn new(family: Family) -> Self {
        let mut topology = Topology::default();
        for (ifindex, name) in (1..).zip(["vA", "vB", "vC", "vD", "vE", "vF", "up"]) {
            let kind = match name {
                "up" => PortKind::Bond,
                _ => PortKind::Veth,
            };
            let port = Port {
                name: name.into(),
                kind,
                up: true,
                carrier: true,
                wiring: Wiring::Bridge {
                    bridge: BRIDGE.into(),
                    pvid: None,
                    members: BTreeSet::new(),
                    untagged: BTreeSet::new(),
                },
                wanted: true,
                vlan_devices: BTreeMap::new(),
            };
            topology.ports.insert(ifindex, port);
        }
        let bridge = Bridge {
            ifindex: BRIDGE_INDEX,
            filtering: None,
        };
        topology.bridges.insert(BRIDGE.into(), bridge);
        topology.own_macs.extend(mac(HOST).ok());
        let view = StoreView {
            store: StoreName("host-local:net".into()),
            mode: Mode::Observe,
            writable: Ok(()),
            place: Place::Bridge {
                bridge: BRIDGE.into(),
                vlan: None,
            },
            pools: Vec::new(),
            leases: Vec::new(),
        };
        Self {
            family,
            engine: Engine::new(settings()),
            refused: BTreeMap::new(),
            now: Timestamp(0),
            topology,
            view,
            owners: Owners::default(),
            grants: 0,
            ids: Vec::new(),
            told: String::new(),
            tallies: BTreeMap::new(),
        }
    }

    /// Plays a script.
    pub fn play(family: Family, telling: Telling, script: &str) -> Result<Self> {
        let mut world = Self::new(family);
        let (mut setting, mut scenes) = (Vec::new(), Vec::new());
        for line in script.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            let times: Result<Vec<Timestamp>, _> = first.split(',').map(seconds).collect();
            match times {
                _ if line.is_empty() => {}
                Ok(times) => scenes.extend(times.into_iter().map(|at| (at, rest))),
                Err(_) => setting.push(line),
            }
        }
        scenes.sort_by_key(|(at, _)| *at);
        for line in setting {
            world.set(line).with_context(|| format!("in {line:?}"))?;
        }
        world.tell_links();
        world.tell_leases();
        let mut told = Told::new(telling);
        for (at, line) in scenes {
            world
                .scene(at, line, &mut told)
                .with_context(|| format!("in {line:?}"))?;
        }
        world.deliver(&mut told);
        let moved: Vec<String> = world
            .engine
            .events()
            .map(|event| {
                let [from, to] = [0, 1].map(|i| event.macs.get(i).map_or("?".into(), |&m| name(m)));
                format!(
                    "{} {} {} {from} {to}\n",
                    clock(event.at),
                    event.kind.name(),
                    place(&event.segment, event.address)
                )
            })
            .collect();
        world.told.extend(moved);
        Ok(world)
    }

    /// What the engine told.
    pub fn told(&self) -> &str {
        &self.told
    }

    /// The conflicts that were ever told of and are known, as address and kind.
    pub fn conflicts(&self) -> BTreeSet<(Address, &'static str)> {
        let conflicts = self.engine.conflicts();
        conflicts
            .map(|(_, address, _, conflict)| (address, conflict.verdict.kind().name()))
            .collect()
    }

    /// Lets the clock go on, timer by timer.
    pub fn advance(&mut self, to: Timestamp) {
        while let Some(at) = self.engine.poll_timeout()
            && at <= to
        {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.listen();
        }
        self.now = self.now.max(to);
    }

    /// A frame comes in by a port, now.
    pub fn hear(&mut self, port: &str, frame: &[u8]) -> Result<()> {
        if let Some(seen) = self.seen(port, frame, self.now)? {
            self.tell(Input::Seen(seen));
        }
        Ok(())
    }

    fn seen(&mut self, port: &str, frame: &[u8], at: Timestamp) -> Result<Option<Seen>> {
        let mut ports = self.topology.ports.iter();
        let (&ifindex, _) = ports
            .find(|(_, known)| *known.name == *port)
            .with_context(|| format!("no port {port}"))?;
        Ok(match parse(&Captured::new(frame)) {
            Parsed::Sighting(sighting) => Some(Seen {
                at,
                ifindex,
                sighting,
            }),
            Parsed::Refused(refusal) => {
                *self.refused.entry(Refusal::name(refusal)).or_default() += 1;
                None
            }
            Parsed::Other => None,
        })
    }

    fn set(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["lease", address, holder] => self.grant(address, holder)?,
            ["pool"] => self.pool(None)?,
            ["pool", "gateway", gateway] => self.pool(Some(gateway))?,
            ["owner", ref macs @ ..] => {
                let macs: Result<Vec<_>> = macs.iter().map(|m| Ok(mac(m)?.into())).collect();
                let owner = Owner {
                    name: "one".into(),
                    macs: macs?,
                };
                self.owners.owners.push(owner);
            }
            ["exempt", who, address] => {
                let exemption = Exemption {
                    addresses: vec![self.address(address)?.ip().into()],
                    macs: vec![mac(who)?.into()],
                    reason: "said so".into(),
                };
                self.owners.exempt.push(exemption);
            }
            ["own", address] => self.own(address)?,
            ["access", port, vlan] => self.vlans(port, Some(vlan.parse()?), &[])?,
            ["trunk", port, ref vlans @ ..] => {
                let vlans: Result<Vec<u16>, _> = vlans.iter().map(|vlan| vlan.parse()).collect();
                self.vlans(port, Some(1), &vlans?)?;
            }
            _ => bail!("no setting"),
        }
        Ok(())
    }

    fn scene(&mut self, at: Timestamp, line: &str, told: &mut Told) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let second = Timestamp(at.0 / SECOND * SECOND);
        if told.telling != Telling::Events && told.second != second {
            self.deliver(told);
            told.second = second;
        }
        let (words, tag) = match words[..] {
            [ref words @ .., "tag", vlan] => (words, Some(vlan.parse::<u16>()?)),
            ref words => (words, None),
        };
        match *words {
            ["end"] => self.advance(at),
            ["grant", address, holder] => {
                self.advance(at);
                self.grant(address, holder)?;
                self.tell_leases();
            }
            ["revoke", address] => {
                self.advance(at);
                let address = self.address(address)?;
                self.view.leases.retain(|lease| lease.address != address);
                self.tell_leases();
            }
            ["disown", address] => {
                self.advance(at);
                let address = self.address(address)?;
                self.topology
                    .own_addresses
                    .retain(|own| own.address != address);
                self.tell_links();
            }
            ["link", port, "gone"] => {
                self.advance(at);
                self.topology.ports.retain(|_, known| *known.name != *port);
                self.tell_links();
            }
            [port, ref what @ ..] => {
                let mut frame = self.frame(what)?;
                if let Some(vlan) = tag {
                    frame = frames::tagged(&frame, &[(frames::DOT1Q, vlan)]);
                }
                if told.telling == Telling::Events {
                    self.advance(at);
                    self.hear(port, &frame)?;
                } else if let Some(seen) = self.seen(port, &frame, at)? {
                    told.heard.push(seen);
                }
            }
            [] => bail!("nothing happens"),
        }
        Ok(())
    }

    /// Tells what was kept back.
    fn deliver(&mut self, told: &mut Told) {
        if told.heard.is_empty() {
            return;
        }
        self.advance(told.second + Duration::from_secs(1));
        let heard = std::mem::take(&mut told.heard);
        if told.telling == Telling::Backwards {
            for seen in heard.into_iter().rev() {
                self.tell(Input::Seen(seen));
            }
            return;
        }
        for seen in heard {
            let sighting = seen.sighting;
            let key = SightingKey {
                ifindex: seen.ifindex,
                outer_vlan: sighting.tags.outer,
                vlan: sighting.tags.vlan,
                address: sighting.address.mapped(),
                mac: sighting.mac.bytes(),
                probe: sighting.evidence.is_probe().into(),
                reserved: 0,
            };
            self.tallies
                .entry(key)
                .and_modify(|tally| {
                    tally.add(sighting.evidence, seen.at.0);
                })
                .or_insert_with(|| Tally::first(sighting.evidence, seen.at.0));
        }
        let table = self.tallies.iter().map(|(&key, &tally)| (key, tally));
        self.tell(Input::Snapshot(table.collect()));
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        self.listen();
    }

    fn tell_links(&mut self) {
        self.tell(Input::Links(Arc::new(self.topology.clone())));
    }

    fn tell_leases(&mut self) {
        self.tell(Input::Stores {
            source: 0,
            views: vec![self.view.clone()],
            failed: Vec::new(),
            owners: self.owners.clone(),
        });
    }

    /// Writes down what the engine publishes.
    fn listen(&mut self) {
        while let Some(command) = self.engine.next_command() {
            if let Command::Publish(
                Notice::Opened(segment, address, conflict)
                | Notice::Resolved(segment, address, conflict),
            ) = command
            {
                let line = self.line(&segment, address, &conflict);
                self.told.push_str(&line);
            }
        }
    }

    fn line(&mut self, segment: &Segment, address: Address, conflict: &Conflict) -> String {
        let known = self.ids.iter().position(|id| *id == conflict.id);
        let number = known.unwrap_or_else(|| {
            self.ids.push(Arc::clone(&conflict.id));
            self.ids.len() - 1
        });
        let at = conflict.steps.last().map_or(self.now, |step| step.at);
        let what = match conflict.is_active() {
            true => conflict.verdict.kind().name(),
            false => "over",
        };
        let mut line = format!(
            "{} #{} {what} {} {:?}",
            clock(at),
            number + 1,
            place(segment, address),
            conflict.severity,
        );
        for &mac in conflict.verdict.macs() {
            let _ = write!(line, " {}", name(mac));
        }
        let _ = writeln!(line, " since {}", clock(conflict.first_seen));
        line
    }

    fn grant(&mut self, address: &str, holder: &str) -> Result<()> {
        let address = self.address(address)?;
        self.grants += 1;
        self.view.leases.retain(|lease| lease.address != address);
        self.view.leases.push(Lease {
            store: self.view.store.clone(),
            address,
            holder: Holder {
                mac: Some(mac(holder)?),
                ..Holder::default()
            },
            generation: Generation {
                modified: self.grants,
                ..Generation::default()
            },
            damage: None,
        });
        Ok(())
    }

    fn pool(&mut self, gateway: Option<&str>) -> Result<()> {
        let gateway = gateway.map(|gateway| self.address(gateway)).transpose()?;
        let prefix = match self.family {
            Family::V4 => "10.0.0.0/24".parse()?,
            Family::V6 => "fd00::/64".parse()?,
        };
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
            address: self.address(address)?,
            ifindex: BRIDGE_INDEX,
            mac: Some(mac(HOST)?),
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

    fn address(&self, name: &str) -> Result<Address> {
        let ip = match self.family {
            Family::V4 => self.v4(name)?.into(),
            Family::V6 => self.v6(name)?.into(),
        };
        Address::from_ip(ip).with_context(|| format!("{name} is no address"))
    }

    fn v4(&self, name: &str) -> Result<Ipv4Addr> {
        if name == "-" {
            return Ok(Ipv4Addr::UNSPECIFIED);
        }
        Ok(Ipv4Addr::new(10, 0, 0, number(name)?.to_be_bytes()[0]))
    }

    fn v6(&self, name: &str) -> Result<Ipv6Addr> {
        Ok(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number(name)?))
    }

    fn frame(&self, words: &[&str]) -> Result<Vec<u8>> {
        let of = |name: &str| Ok::<_, anyhow::Error>(mac(name)?.bytes());
        if self.family == Family::V6 {
            let source = |name| self.v6(name);
            return Ok(match *words {
                ["ANN" | "GREP", m, s] => {
                    Nd::advertisement(of(m)?, source(s)?, flags::OVERRIDE).frame()
                }
                ["REQ", m, s, t] => Nd::solicitation(of(m)?, source(s)?, source(t)?).frame(),
                ["REP", m, s, n, t] => {
                    let said = flags::OVERRIDE | flags::SOLICITED;
                    Nd::advertisement(of(m)?, source(s)?, said)
                        .unicast(of(n)?, source(t)?)
                        .frame()
                }
                ["PROBE", m, t] => Nd::dad(of(m)?, source(t)?).frame(),
                ["WEAK", m, s] => Nd::advertisement(of(m)?, source(s)?, 0).frame(),
                ["FAR", m, s] => Nd {
                    hop_limit: 64,
                    ..Nd::advertisement(of(m)?, source(s)?, flags::OVERRIDE)
                }
                .frame(),
                _ => bail!("no frame of IPv6"),
            });
        }
        let source = |name| self.v4(name);
        let arp = match *words {
            ["ANN", m, s] => Arp::announcement(of(m)?, source(s)?),
            ["GREP", m, s] => Arp::gratuitous_reply(of(m)?, source(s)?),
            ["REQ", m, s, t] => Arp::request(of(m)?, source(s)?, source(t)?),
            ["REP", m, s, n, t] => Arp::reply(of(m)?, source(s)?, of(n)?, source(t)?),
            ["PROBE", m, t] => Arp::probe(of(m)?, source(t)?),
            ["UPROBE", m, t, n] => Arp {
                ether_dst: of(n)?,
                ..Arp::probe(of(m)?, source(t)?)
            },
            _ => bail!("no frame of IPv4"),
        };
        Ok(arp.frame())
    }
}

/// Frames kept back until their second is over.
#[derive(Debug)]
struct Told {
    telling: Telling,
    second: Timestamp,
    heard: Vec<Seen>,
}

impl Told {
    fn new(telling: Telling) -> Self {
        Self {
            telling,
            second: Timestamp(0),
            heard: Vec::new(),
        }
    }
}

const SECOND: u64 = 1_000_000_000;

fn settings() -> Settings {
    Settings {
        boot: "boot".into(),
        owners: Owners::default(),
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

/// A name's number: its letter, and its digit if it has one.
fn number(name: &str) -> Result<u16> {
    match *name.as_bytes() {
        [letter] if letter.is_ascii_uppercase() => Ok(u16::from_be_bytes([letter, 0])),
        [letter, digit] if letter.is_ascii_uppercase() && digit.is_ascii_digit() => {
            Ok(u16::from_be_bytes([letter, digit]))
        }
        _ => bail!("{name} is no name"),
    }
}

fn mac(name: &str) -> Result<Mac> {
    Mac::new(frames::mac(number(name)?)).context("no MAC")
}

fn name_of(number: [u8; 2]) -> String {
    let letters = number.iter().take_while(|&&byte| byte != 0);
    letters.map(|&byte| char::from(byte)).collect()
}

fn name(mac: Mac) -> String {
    let [.., high, low] = mac.bytes();
    name_of([high, low])
}

/// An address by its name, with its VLAN if it has one.
fn place(segment: &Segment, address: Address) -> String {
    let name = match address.ip() {
        IpAddr::V4(ip) => name_of([ip.octets()[3], 0]),
        IpAddr::V6(ip) => name_of(ip.segments()[7].to_be_bytes()),
    };
    match segment.vlan {
        Some(vlan) => format!("{name}.{vlan}"),
        None => name,
    }
}

fn seconds(text: &str) -> Result<Timestamp> {
    let seconds: f64 = text.parse()?;
    ensure!(seconds.is_finite() && seconds >= 0.0, "no time");
    // The engine takes zero for never, as the kernel's tables do.
    Ok(Timestamp(SECOND) + Duration::from_micros((seconds * 1e6).round() as u64))
}

/// Seconds as a script has them.
fn clock(at: Timestamp) -> String {
    let seconds = at.since(Timestamp(SECOND)).as_secs_f64();
    format!("{seconds}")
}
