//! What one frame leaves in the maps.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::generated::bpf_ktime_get_boot_ns,
    programs::TcContext,
};
use ipam_common::{
    Address, Counter, Evidence, Mac, Sighting,
    sighting::{Event, EventClass, PortBudget, SightingKey, Speaker, Tally},
};

use crate::maps::{EVENTS, LEASED, PORTS, SIGHTINGS, SPEAKERS, count};

/// An IP packet from `address`.
#[inline(always)]
pub fn packet(address: Address) {
    if let Some(stamps) = LEASED.get_ptr_mut(address.mapped()) {
        // SAFETY: a map's value outlives the program's run; another CPU may write the same
        // word, with a time as good as ours. The helper can't fail.
        unsafe { (*stamps).packet = bpf_ktime_get_boot_ns() };
    }
}

/// An assertion of an address, or a probe for it.
// Not inlined: its stack and the parser's are needed one after the other.
#[inline(never)]
pub fn sighting(ctx: &TcContext, sighting: &Sighting, now: u64) {
    count(match sighting.evidence {
        Evidence::ArpRequest
        | Evidence::ArpReply
        | Evidence::ArpAnnouncement
        | Evidence::ArpGratuitousReply
        | Evidence::ArpProbe => Counter::Arp,
        _ => Counter::Nd,
    });
    let address = sighting.address.mapped();
    let place = Place {
        // SAFETY: the context is valid while the program runs.
        ifindex: unsafe { (*ctx.skb.skb).ifindex },
        now,
        leased: stamp(&address, sighting.evidence, now),
    };
    let heard = hear(&place, sighting);
    let spoke = if sighting.evidence.is_probe() || sighting.evidence.is_weak() {
        ask(&address, sighting)
    } else {
        speak(&place, sighting, heard != Heard::NoRoom)
    };
    // A leased address is told of even where the port's share is used up: somebody floods,
    // and one of the flood may be a conflict.
    let news = match heard {
        Heard::Known => false,
        Heard::New => true,
        Heard::NoRoom => place.leased,
    };
    if news || spoke.changed {
        tell(&place, sighting, spoke.previous);
    }
}

/// Where and when a frame came, and whether it concerns a lease.
struct Place {
    ifindex: u32,
    now: u64,
    leased: bool,
}

/// Note a sign of life of a leased address; yields whether it is leased.
#[inline(always)]
fn stamp(address: &[u8; 16], evidence: Evidence, now: u64) -> bool {
    let Some(stamps) = LEASED.get_ptr_mut(address) else {
        return false;
    };
    // SAFETY: as in `packet`.
    unsafe {
        if evidence.is_probe() {
            (*stamps).probe = now;
        } else {
            (*stamps).assertion = now;
        }
    }
    true
}

/// What SIGHTINGS held of the speaker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// The same before.
    Known,
    /// Nothing, or nothing of this kind.
    New,
    /// Nothing, and it couldn't be entered.
    NoRoom,
}

#[inline(always)]
fn hear(place: &Place, sighting: &Sighting) -> Heard {
    let key = SightingKey {
        ifindex: place.ifindex,
        outer_vlan: sighting.tags.outer,
        vlan: sighting.tags.vlan,
        address: sighting.address.mapped(),
        mac: sighting.mac.bytes(),
        probe: sighting.evidence.is_probe() as u8,
        reserved: 0,
    };
    if let Some(tally) = SIGHTINGS.get_ptr_mut(&key) {
        // SAFETY: a map's value outlives the program's run. One port's frames of one
        // speaker seldom come by two CPUs at once; if they do, a count may be lost, no time
        // and no entry.
        return match unsafe { (*tally).add(sighting.evidence, place.now) } {
            true => Heard::New,
            false => Heard::Known,
        };
    }
    let room = match PORTS.get_ptr_mut(place.ifindex) {
        // SAFETY: as above; two CPUs may both take the last of the share.
        Some(port) => unsafe { (*port).take_sighting() },
        None => false,
    };
    if !room {
        count(Counter::SightingsOverShare);
        return Heard::NoRoom;
    }
    let tally = Tally::first(sighting.evidence, place.now);
    if SIGHTINGS.insert(&key, &tally, BPF_ANY.into()).is_err() {
        count(Counter::SightingsFailed);
        return Heard::NoRoom;
    }
    Heard::New
}

/// What SPEAKERS held of the address.
struct Spoke {
    /// Whether somebody else spoke last, or the same one elsewhere, or nobody.
    changed: bool,
    /// Who, if somebody else; all zero if not.
    previous: Speaker,
}

impl Spoke {
    /// Nothing that is news.
    const NOTHING: Self = Self {
        changed: false,
        previous: NOBODY,
    };
}

const NOBODY: Speaker = Speaker {
    at: 0,
    ifindex: 0,
    outer_vlan: 0,
    vlan: 0,
    mac: [0; 6],
    ether_dst: [0; 6],
    evidence: 0,
    reserved: [0; 3],
};

/// The last speaker, for one who doesn't assert the address.
#[inline(always)]
fn ask(address: &[u8; 16], sighting: &Sighting) -> Spoke {
    match SPEAKERS.get_ptr(address) {
        Some(last) => Spoke {
            changed: false,
            previous: other(last, sighting.mac),
        },
        None => Spoke::NOTHING,
    }
}

/// Make the sighting's speaker the last one. A new address is entered only with `room`, or
/// where a lease covers it: of those there are no more than the agent put in.
#[inline(always)]
fn speak(place: &Place, sighting: &Sighting, room: bool) -> Spoke {
    let address = sighting.address.mapped();
    let speaker = Speaker {
        at: place.now,
        ifindex: place.ifindex,
        outer_vlan: sighting.tags.outer,
        vlan: sighting.tags.vlan,
        mac: sighting.mac.bytes(),
        ether_dst: sighting.ether_dst,
        evidence: sighting.evidence as u8,
        reserved: [0; 3],
    };
    let previous = match SPEAKERS.get_ptr_mut(&address) {
        None if room || place.leased => NOBODY,
        None => return Spoke::NOTHING,
        Some(last) => {
            // SAFETY: a map's value outlives the program's run, and only its own speaker
            // writes into it; another one replaces it.
            unsafe {
                if same(&*last, &speaker) {
                    (*last).at = speaker.at;
                    (*last).ether_dst = speaker.ether_dst;
                    (*last).evidence = speaker.evidence;
                    return Spoke::NOTHING;
                }
            }
            other(last, sighting.mac)
        }
    };
    // Replaced as a whole, so that nobody reads the MAC of one beside the port of another.
    let changed = SPEAKERS.insert(&address, &speaker, BPF_ANY.into()).is_ok();
    Spoke {
        changed,
        previous,
    }
}

/// Whether the same machine speaks at the same place.
#[inline(always)]
fn same(a: &Speaker, b: &Speaker) -> bool {
    a.mac == b.mac && a.ifindex == b.ifindex && a.outer_vlan == b.outer_vlan && a.vlan == b.vlan
}

/// The last speaker, unless it is `mac`, or was replaced while being read: an LRU map gives
/// a replaced value's memory to another address at once.
#[inline(always)]
fn other(last: *const Speaker, mac: Mac) -> Speaker {
    // SAFETY: the pointer was looked up in this run, and a map's memory outlives it. What
    // another CPU writes meanwhile is found out by `at`.
    unsafe {
        let at = (&raw const (*last).at).read_volatile();
        let copied = last.read();
        if copied.mac == mac.bytes() || (&raw const (*last).at).read_volatile() != at {
            return NOBODY;
        }
        copied
    }
}

/// Send an event, within the port's limits.
#[inline(always)]
fn tell(place: &Place, sighting: &Sighting, previous: Speaker) {
    let class = if place.leased || previous.at != 0 {
        EventClass::Change
    } else {
        EventClass::Fresh
    };
    let allowed = match PORTS.get_ptr_mut(place.ifindex) {
        // SAFETY: a map's value outlives the program's run; two CPUs may both take the
        // last token.
        Some(port) => unsafe { PortBudget::take_event(&mut *port, class, place.now) },
        None => false,
    };
    if !allowed {
        return count(Counter::EventsLimited);
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        return count(Counter::EventsLost);
    };
    entry.write(Event {
        at: place.now,
        address: sighting.address.mapped(),
        asked: sighting.asked.map(Address::mapped).unwrap_or_default(),
        ifindex: place.ifindex,
        outer_vlan: sighting.tags.outer,
        vlan: sighting.tags.vlan,
        mac: sighting.mac.bytes(),
        ether_src: sighting.ether_src,
        ether_dst: sighting.ether_dst,
        nonce: sighting.nonce.unwrap_or_default(),
        evidence: sighting.evidence as u8,
        reserved: [0; 7],
        previous,
    });
    entry.submit(0);
    count(Counter::EventsSent);
}
