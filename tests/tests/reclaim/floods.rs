//! What a broken or hostile pod does to the wire must not keep leaked leases for ever.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use tests::{
    frames::{self, Arp},
    lab::{self, Sender},
    runtime::{Network, in_lab},
};

use super::*;

/// Does `act` while `noise` is made again and again, each in a thread of its own.
fn amid<T>(
    noises: &mut [&mut (dyn FnMut() -> Result<()> + Send)],
    act: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let makers: Vec<_> = noises
            .iter_mut()
            .map(|noise| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        noise()?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        let result = act();
        done.store(true, Ordering::Relaxed);
        for maker in makers {
            maker.join().map_err(|_| anyhow!("the noise failed"))??;
        }
        result
    })
}

#[test]
fn forged_addresses_events_and_short_lived_ports_block_nothing_for_ever() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let leaked = pods(lab, &net, &["one", "two", "three"])?;
        power_cut(lab)?;
        let guest = lab.guest("guest", "veth1", "cni0")?;
        let daemon = start(lab, &config(lab, "continuous", ""))?;

        // Addresses beyond the pool that nobody has a lease of, ever new ones and by ever new
        // machines: more than the tables hold, and more events than are told.
        let mut sender = guest.inside(|| Sender::open("eth0"))?;
        let mut next = 0u32;
        let mut forge = || {
            for _ in 0..512 {
                next = next.wrapping_add(1);
                let address = Ipv4Addr::from(0x0b00_0000 | next & 0xff_ffff);
                let machine = frames::mac(u16::try_from(next % 60_000)?);
                sender.send(&Arp::announcement(machine, address).frame())?;
            }
            Ok(())
        };
        // Pods that come and go faster than anybody looks.
        let mut flicker = || {
            let bridge = ["link", "set", "vethflick", "master", "cni0", "up"];
            lab::ip(&[
                "link",
                "add",
                "vethflick",
                "type",
                "veth",
                "peer",
                "name",
                "flick",
            ])?;
            lab::ip(&bridge)?;
            lab::ip(&["link", "del", "vethflick"])
        };
        // And some that take their namespace with them.
        let mut vanish = || {
            let pod = lab.pod("brief")?;
            let add = [
                "link",
                "add",
                "vethbrief",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
            ];
            lab::ip(&[&add[..], &["netns", pod.name()]].concat())?;
            lab::ip(&["link", "set", "vethbrief", "master", "cni0", "up"])?;
            lab::ip(&["netns", "del", pod.name()])?;
            // The kernel takes it down in its own time.
            while lab::run("ip", &["link", "show", "vethbrief"]).is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        };
        amid(&mut [&mut forge, &mut flicker, &mut vanish], || {
            released(&daemon, lab, leaked.len())?;
            ensure!(on_disk(&net)?.is_empty(), "{:?}", on_disk(&net)?);
            Ok(())
        })
    });
}
