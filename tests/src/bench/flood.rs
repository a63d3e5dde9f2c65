//! Frames by the hundred thousand a second, out of one interface, at a set pace.

use std::{
    io::IoSlice,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, socket,
    },
};

use crate::{
    frames::{Arp, Mac},
    lab::Netns,
};

/// How many frames go to the kernel at once.
const TRAIN: usize = 256;

/// Who announces what.
#[derive(Clone, Copy, Debug)]
pub enum Claims {
    /// 65,536 addresses of each sender, each with its MAC, over and over.
    Known,
    /// A new address and a new MAC each time.
    Forged,
}

impl Claims {
    /// Of a sender's frame of this number.
    fn of(self, sender: u8, number: u32) -> (Mac, [u8; 4]) {
        let (net, number) = match self {
            Self::Known => (16, number & 0xffff),
            Self::Forged => (32, number & 0x00ff_ffff),
        };
        let [_, a, b, c] = number.to_be_bytes();
        ([2, net + sender, 0, a, b, c], [net + sender, a, b, c])
    }
}

/// Sends announcements out of a pod's `eth0` until told to stop, no more than so many a
/// second; how many it sent, and in what time.
pub fn flood(
    pod: &Netns,
    sender: u8,
    claims: Claims,
    per_s: u32,
    stop: &AtomicBool,
) -> Result<(u32, Duration)> {
    let socket = pod.inside(|| open("eth0"))?;
    let template = Arp::announcement([2, 0, 0, 0, 0, 0], [0, 0, 0, 0].into()).frame();
    let mut frames = vec![template; TRAIN];
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(TRAIN, None);
    let nobody = [None; TRAIN];
    let begin = Instant::now();
    let mut sent: u32 = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = begin + Duration::from_secs(1) * sent / per_s;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        for (number, frame) in (sent..).zip(&mut frames) {
            let (mac, address) = claims.of(sender, number);
            frame[6..12].copy_from_slice(&mac);
            frame[22..28].copy_from_slice(&mac);
            frame[28..32].copy_from_slice(&address);
            frame[38..42].copy_from_slice(&address);
        }
        let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|f| [IoSlice::new(f)]).collect();
        let all = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &slices,
            nobody,
            [],
            MsgFlags::empty(),
        );
        match all {
            Ok(results) => sent += u32::try_from(results.count())?,
            // The device's queue is full.
            Err(Errno::ENOBUFS) => thread::yield_now(),
            Err(error) => return Err(error).context("can't send a storm"),
        }
    }
    Ok((sent, begin.elapsed()))
}

/// A socket that sends out of this interface and receives nothing.
fn open(interface: &str) -> Result<OwnedFd> {
    let mut links = getifaddrs()?.filter(|link| link.interface_name == interface);
    let address = links
        .find_map(|link| link.address?.as_link_addr().copied())
        .with_context(|| format!("no interface {interface}"))?;
    let raw = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(raw.as_raw_fd(), &address).with_context(|| format!("can't open {interface}"))?;
    Ok(raw)
}
