//! What one frame leaves in the maps.
//!
//! All that is written here is written by several CPUs, mostly without a lock. What that
//! may cost is said where it is done: a count, never an entry, and never one station's
//! MAC beside another's port.

use aya_ebpf::{bindings::BPF_ANY, programs::TcContext};
use ipam_common::{
    Address, Counter, Evidence, Sighting,
    sighting::{Event, EventClass, SightingKey, Speaker, Tally},
};

use crate::{
    clock,
    maps::{self, EVENTS, LEASED, PORTS, SIGHTINGS, SPEAKERS, Train, count},
};

/// An IP packet from `address`.
///
/// Packets come in trains, and times are kept to a jiffy: what a CPU stamped in this jiffy
/// it doesn't stamp again.
#[inline(always)]
pub fn packet(address: Address) {
    let jiffies = clock::jiffies();
    let address = address.mapped();
    let slot = u32::from(address[15]) % maps::TRAINS;
    if let Some(train) = maps::TRAIN.get_ptr_mut(slot) {
        // SAFETY: the slot is this CPU's own, and TC programs don't interrupt each other.
        let train = unsafe { &mut *train };
        if train.jiffies == jiffies && train.address == address {
            return;
        }
        *train = Train { jiffies, address };
    }
    if let Some(stamps) = LEASED.get_ptr_mut(address) {
        // SAFETY: a map's value outlives the program's run; another CPU may write the same
        // word, with a time as good as ours.
        unsafe { (*stamps).packet = clock::recently() };
    }
}

/// As [`sighting`], for callers whose stack has no room for it.
#[inline(never)]
pub fn sighting_apart(ctx: &TcContext, sighting: &Sighting) {
    self::sighting(ctx, sighting);
}

/// An assertion of an address, or a probe for it.
///
/// What was heard before is noted in place, with the time to a jiffy; what is repeated
/// within a jiffy is counted only. (Where the agent enters a lease between two such frames,
/// the second gives it no stamp: it is in SIGHTINGS all the same.) For everything else the
/// clock is read: times in events order what several speakers said.
#[inline(always)]
pub fn sighting(ctx: &TcContext, sighting: &Sighting) {
    let evidence = sighting.evidence;
    count(if evidence.is_arp() {
        Counter::Arp
    } else {
        Counter::Nd
    });
    // SAFETY: the context is valid while the program runs.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let recently = clock::recently();
    let mut key = SightingKey {
        ifindex,
        outer_vlan: sighting.tags.outer,
        vlan: sighting.tags.vlan,
        address: sighting.address.mapped(),
        mac: sighting.mac.bytes(),
        probe: evidence.is_probe() as u8,
        reserved: 0,
    };
    if sighting.nonce.is_some() && !evidence.is_probe() {
        // A solicitation with a nonce may be an echo. The agent knows it from the one that it
        // echoes, so every one is told of, and nothing is kept of what may be nobody's word;
        // but if it is somebody's, what the last speaker says next is a return.
        let leased = stamp(&key.address, evidence, recently);
        let last = SPEAKERS.get_ptr_mut(&key.address);
        tell(&key, sighting, last, leased, clock::now());
        if let Some(last) = last {
            // SAFETY: a map's value outlives the program's run.
            let last = unsafe { &mut *last };
            if !is_at(last, &key) {
                last.probed = Speaker::ANSWERS;
                unsettle(&mut key, last);
            }
        }
        return;
    }
    let tally = SIGHTINGS.get_ptr_mut(&key);
    if let Some(tally) = tally {
        // SAFETY: a map's value outlives the program's run. Frames of one speaker seldom
        // come by two CPUs at once; if they do, a count may be lost.
        let tally = unsafe { &mut *tally };
        if tally.is_repeat(sighting, recently) {
            tally.frames = tally.frames.wrapping_add(1);
            return;
        }
    }
    let leased = stamp(&key.address, evidence, recently);
    let contests = !evidence.is_probe() && !evidence.is_weak();
    let last = SPEAKERS.get_ptr_mut(&key.address);
    let (again, asked) = match last {
        Some(last) if contests => again(last, &key, sighting, recently),
        _ => (false, false),
    };

    if let Some(tally) = tally {
        // SAFETY: as above.
        let tally = unsafe { &mut *tally };
        if !asked && !tally.is_news(sighting, recently) && (!contests || again) {
            tally.add(sighting, recently);
            tally.settled = 1;
            return;
        }
    }

    let now = clock::now();
    let news = match tally {
        // SAFETY: as above.
        Some(tally) => unsafe {
            let news = (*tally).is_news(sighting, now);
            (*tally).add(sighting, now);
            news || asked
        },
        // A leased address is told of even where the port's share is used up: who floods
        // may hide a conflict in the flood.
        None => enter(&key, &Tally::first(sighting, now)) || leased,
    };
    // Speakers are entered of addresses that have a sighting or a lease, so there are no
    // more of them; one that is there already may be replaced by anybody.
    let changes = contests && !again && (last.is_some() || tally.is_some() || news);
    if news || changes {
        tell(&key, sighting, last, leased, now);
    }
    // A probe sent to one station is a keep-alive, which asks nobody for the address.
    let asks = evidence.is_probe() && sighting.to[0] & 1 != 0;
    if (asks || changes)
        && let Some(last) = last
    {
        if asks {
            // SAFETY: a map's value outlives the program's run.
            unsafe { (*last).probed = Speaker::ANSWERS };
        }
        unsettle(&mut key, last);
        key.ifindex = ifindex;
        key.outer_vlan = sighting.tags.outer;
        key.vlan = sighting.tags.vlan;
        key.mac = sighting.mac.bytes();
    }
    if changes {
        change(&key, sighting, now);
    }
}

/// Somebody else speaks for the address, or asks for it: what the last speaker repeats is a
/// return, or an answer. Leaves the last speaker's place in `key`.
///
/// Where both speak at the same moment by two CPUs, one of them may stay settled: for the
/// rest of its jiffy at most.
#[inline(always)]
fn unsettle(key: &mut SightingKey, last: *const Speaker) {
    // SAFETY: the pointer was looked up in this run, and a map's memory outlives it. If the
    // speaker is replaced while being read, the wrong tally is unsettled or none, which
    // costs one look more.
    unsafe {
        key.ifindex = (*last).ifindex;
        key.outer_vlan = (*last).outer_vlan;
        key.vlan = (*last).vlan;
        key.mac = (*last).mac;
        key.probe = 0;
        if let Some(tally) = SIGHTINGS.get_ptr_mut(key) {
            (*tally).settled = 0;
        }
    }
}

/// Note a sign of life of a leased address; yields whether it is leased.
#[inline(always)]
fn stamp(address: &[u8; 16], evidence: Evidence, at: u64) -> bool {
    let Some(stamps) = LEASED.get_ptr_mut(address) else {
        return false;
    };
    // SAFETY: as in `packet`.
    unsafe {
        if evidence.is_probe() {
            (*stamps).probe = at;
        } else {
            (*stamps).assertion = at;
        }
    }
    true
}

/// Whether the last speaker for the address is the one at this place; if so, that it spoke
/// again is noted. And whether that may be the answer to a probe.
#[inline(always)]
fn again(last: *mut Speaker, key: &SightingKey, sighting: &Sighting, at: u64) -> (bool, bool) {
    // SAFETY: a map's value outlives the program's run, and only the speaker that it names
    // writes into it in place, but for the count of answers to be told of, which is as good
    // one more or less.
    let last = unsafe { &mut *last };
    if !is_at(last, key) {
        return (false, false);
    }
    last.at = last.at.max(at);
    last.to = sighting.to;
    last.evidence = sighting.evidence as u8;
    let asked = last.probed != 0;
    if asked {
        last.probed -= 1;
    }
    (true, asked)
}

/// Whether a speaker is the one at this place.
#[inline(always)]
fn is_at(speaker: &Speaker, key: &SightingKey) -> bool {
    speaker.mac == key.mac
        && speaker.ifindex == key.ifindex
        && speaker.outer_vlan == key.outer_vlan
        && speaker.vlan == key.vlan
}

/// Enter a new sighting, if its port has any of its share left.
#[inline(always)]
fn enter(key: &SightingKey, tally: &Tally) -> bool {
    let room = match PORTS.get_ptr_mut(key.ifindex) {
        // SAFETY: a map's value outlives the program's run; two CPUs may both take the last
        // of the share.
        Some(port) => unsafe { (*port).take_sighting() },
        None => false,
    };
    if !room {
        count(Counter::SightingsOverShare);
        return false;
    }
    let entered = SIGHTINGS.insert(key, tally, BPF_ANY.into()).is_ok();
    if !entered {
        count(Counter::SightingsFailed);
    }
    entered
}

/// Make the sighting's speaker the last one. It replaces the former as a whole, so that
/// nobody reads the MAC of one beside the port of another. If the map takes it not, the next
/// frame will be told of as a change once more.
#[inline(always)]
fn change(key: &SightingKey, sighting: &Sighting, now: u64) {
    let speaker = Speaker {
        at: now,
        ifindex: key.ifindex,
        outer_vlan: key.outer_vlan,
        vlan: key.vlan,
        mac: key.mac,
        to: sighting.to,
        evidence: sighting.evidence as u8,
        probed: 0,
        reserved: [0; 2],
    };
    let _ = SPEAKERS.insert(&key.address, &speaker, BPF_ANY.into());
}

const NOBODY: Speaker = Speaker {
    at: 0,
    ifindex: 0,
    outer_vlan: 0,
    vlan: 0,
    mac: [0; 6],
    to: [0; 6],
    evidence: 0,
    probed: 0,
    reserved: [0; 2],
};

/// The last speaker, unless it is `mac`, or was replaced while being read: an LRU map gives a replaced
/// value's memory to another address at once.
#[inline(always)]
fn other(last: *const Speaker, mac: [u8; 6]) -> Speaker {
    // SAFETY: the pointer was looked up in this run, and a map's memory outlives it. What
    // another CPU writes meanwhile is found out by `at`.
    unsafe {
        let at = (&raw const (*last).at).read_volatile();
        let copied = last.read();
        if copied.mac == mac || (&raw const (*last).at).read_volatile() != at {
            return NOBODY;
        }
        copied
    }
}

/// Send an event, within the port's limits, that names the last speaker if it was another.
#[inline(always)]
fn tell(
    key: &SightingKey,
    sighting: &Sighting,
    last: Option<*mut Speaker>,
    leased: bool,
    now: u64,
) {
    let previous = match last {
        Some(last) => other(last, key.mac),
        None => NOBODY,
    };
    let class = if leased || previous.at != 0 {
        EventClass::Change
    } else {
        EventClass::Fresh
    };
    let allowed = match PORTS.get_ptr_mut(key.ifindex) {
        // SAFETY: a map's value outlives the program's run; two CPUs may both take the
        // last token.
        Some(port) => unsafe { (*port).take_event(class, now) },
        None => false,
    };
    if !allowed {
        return count(Counter::EventsLimited);
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        return count(Counter::EventsLost);
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the reservation is writable, aligned to 8 and as long as an event. Written by
    // fields, because a whole event has no room on the stack beside the rest.
    unsafe {
        (&raw mut (*event).at).write(now);
        (&raw mut (*event).address).write(key.address);
        let asked = sighting.asked.map(Address::mapped).unwrap_or_default();
        (&raw mut (*event).asked).write(asked);
        (&raw mut (*event).ifindex).write(key.ifindex);
        (&raw mut (*event).outer_vlan).write(key.outer_vlan);
        (&raw mut (*event).vlan).write(key.vlan);
        (&raw mut (*event).mac).write(key.mac);
        (&raw mut (*event).ether_src).write(sighting.ether_src);
        (&raw mut (*event).to).write(sighting.to);
        (&raw mut (*event).nonce).write(sighting.nonce.unwrap_or_default());
        (&raw mut (*event).evidence).write(sighting.evidence as u8);
        (&raw mut (*event).reserved).write([0; 7]);
        (&raw mut (*event).previous).write(previous);
    }
    entry.submit(0);
    count(Counter::EventsSent);
}
