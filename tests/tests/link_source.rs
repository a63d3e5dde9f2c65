//! The links source against the real kernel's bridges, VLANs and addresses.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ipam_agent::{
    engine::segment::{PortKind, Topology, Wiring},
    source::links::{LinkEvent, Links, NameFilter, Touch},
};
use tests::netns::{Namespace, available};

/// Follow the links of `host` on a runtime of its own.
fn follow(host: &Namespace, test: impl AsyncFnOnce(&mut Links) + Send) {
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let filter = NameFilter::new(&["veth*", "*-bo"], &["veth-no*"]).expect("patterns");
            test(&mut Links::open(filter).expect("subscribed")).await;
        });
    });
}

/// The first topology for which this holds, of those told within five seconds.
async fn until(links: &mut Links, holds: impl Fn(&Topology) -> bool) -> Arc<Topology> {
    let search = async {
        loop {
            if let LinkEvent::Topology(topology) = links.next().await.expect("news")
                && holds(&topology)
            {
                return topology;
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(5), search).await;
    found.expect("the topology comes in time")
}

fn wiring(topology: &Topology, port: &str) -> Option<Wiring> {
    let mut ports = topology.ports.values();
    ports
        .find(|known| &*known.name == port)
        .map(|known| known.wiring.clone())
}

fn bridged(pvid: u16, members: &[u16], untagged: &[u16]) -> Option<Wiring> {
    Some(Wiring::Bridge {
        bridge: "br0".into(),
        pvid: Some(pvid),
        members: members.iter().copied().collect(),
        untagged: untagged.iter().copied().collect(),
    })
}

#[test]
fn vlans_of_a_bridge_are_followed() {
    if !available() {
        return;
    }
    let host = Namespace::new();
    let mut bridge = Command::new("ip");
    bridge.args([
        "link",
        "add",
        "br0",
        "up",
        "type",
        "bridge",
        "vlan_filtering",
        "1",
    ]);
    if !host
        .run(|| bridge.status())
        .is_ok_and(|status| status.success())
    {
        eprintln!("SKIPPED: this kernel's bridges don't filter VLANs");
        return;
    }
    follow(&host, async |links| {
        let first = until(links, |_| true).await;
        assert_eq!(first.bridges["br0"].filtering, Some(1));
        host.ip("link add veth0 up type veth peer name other0");
        until(links, |now| wiring(now, "veth0") == Some(Wiring::Routed)).await;
        host.ip("link set veth0 master br0");
        let now = until(links, |now| wiring(now, "veth0") == bridged(1, &[1], &[1])).await;
        let port = now
            .ports
            .values()
            .find(|port| &*port.name == "veth0")
            .expect("it is there");
        assert!(port.kind == PortKind::Veth && port.up && port.wanted);

        host.command("bridge vlan add dev veth0 vid 100-103");
        until(links, |now| {
            wiring(now, "veth0") == bridged(1, &[1, 100, 101, 102, 103], &[1])
        })
        .await;
        host.command("bridge vlan add dev veth0 vid 100 pvid untagged");
        host.command("bridge vlan del dev veth0 vid 1");
        let all = [100, 101, 102, 103];
        until(links, |now| {
            wiring(now, "veth0") == bridged(100, &all, &[100])
        })
        .await;

        // Told by the bridge's VLAN group alone, not as news of the port.
        host.ip("link add veth1 up type veth peer name other1");
        host.ip("link set veth1 master br0");
        until(links, |now| wiring(now, "veth1") == bridged(1, &[1], &[1])).await;
        host.ip("link set br0 type bridge vlan_default_pvid 7");
        let now = until(links, |now| wiring(now, "veth1") == bridged(7, &[7], &[7])).await;
        assert_eq!(now.bridges["br0"].filtering, Some(7));

        host.ip("link set veth0 nomaster");
        until(links, |now| wiring(now, "veth0") == Some(Wiring::Routed)).await;
        host.ip("link del veth0");
        until(links, |now| wiring(now, "veth0").is_none()).await;
    });
}

#[test]
fn addresses_and_names_are_followed() {
    if !available() {
        return;
    }
    let host = Namespace::new();
    host.ip("link add br0 up type bridge");
    host.ip("link add veth0 up type veth peer name other0");
    host.command("sysctl -qw net.ipv6.conf.br0.dad_transmits=600");
    follow(&host, async |links| {
        let own = |topology: &Topology, text: &str| {
            let mut own = topology.own_addresses.iter();
            own.any(|own| own.address.to_string() == text)
        };
        until(links, |_| true).await;
        host.ip("addr add 10.0.0.9/32 dev lo");
        host.ip("addr add 2001:db8::1/64 dev br0");
        host.ip("addr add 2001:db8::2/64 nodad dev br0");
        host.ip("addr add 10.0.0.1/24 dev br0");
        let now = until(links, |now| own(now, "10.0.0.1") && own(now, "2001:db8::2")).await;
        assert!(!own(&now, "10.0.0.9") && !own(&now, "127.0.0.1"));
        assert!(
            !own(&now, "2001:db8::1"),
            "a tentative address isn't ours yet"
        );
        host.ip("addr del 10.0.0.1/24 dev br0");
        until(links, |now| !own(now, "10.0.0.1")).await;

        host.ip("link set veth0 master br0");
        host.ip("link set other0 name veth-no");
        let wanted = |topology: &Topology, name: &str| {
            topology
                .ports
                .values()
                .find(|port| &*port.name == name)
                .map(|port| port.wanted)
        };
        until(links, |now| {
            wanted(now, "veth0") == Some(true) && wanted(now, "veth-no") == Some(false)
        })
        .await;
        host.ip("link set veth-no name uplink0");
        host.ip("link set uplink0 master br0");
        until(links, |now| wanted(now, "uplink0") == Some(true)).await;
    });
}

#[test]
fn touched_filters_are_told() {
    if !available() {
        return;
    }
    let host = Namespace::new();
    host.ip("link add veth0 up type veth peer name other0");
    let ifindex = host.ifindex("veth0");
    follow(&host, async |links| {
        until(links, |_| true).await;
        host.command("tc qdisc add dev veth0 clsact");
        while links.next().await.expect("news") != LinkEvent::Touched(ifindex, Touch::Shown) {}
        let filter = "tc filter add dev veth0 ingress protocol all";
        host.command(&format!("{filter} prio 2 u32 match u32 0 0 flowid 1:1"));
        while links.next().await.expect("news") != LinkEvent::Touched(ifindex, Touch::Shown) {}
        // One that may come first may be gone by now.
        host.command(&format!("{filter} prio 1 u32 match u32 0 0 flowid 1:1"));
        while links.next().await.expect("news") != LinkEvent::Touched(ifindex, Touch::Filter) {}
        host.command("tc qdisc del dev veth0 clsact");
        while links.next().await.expect("news") != LinkEvent::Touched(ifindex, Touch::Shown) {}
    });
}

/// What has come while the runtime did not run is told, and nothing is waited for.
#[test]
fn what_waits_is_told_before_anything_else() {
    if !available() {
        return;
    }
    let host = Namespace::new();
    follow(&host, async |links| {
        until(links, |_| true).await;
        while links.waiting().await.expect("news").is_some() {}
        for number in 0..20 {
            host.ip(&format!(
                "link add veth{number} type veth peer name other{number}"
            ));
            let mut there = false;
            while let Some(event) = links.waiting().await.expect("news") {
                if let LinkEvent::Topology(topology) = event {
                    there |= wiring(&topology, &format!("veth{number}")).is_some();
                }
            }
            assert!(there, "veth{number}");
            assert!(links.is_current());
        }
    });
}

/// What is not read in time is dropped by the kernel, and found out by listing anew.
#[test]
fn an_overrun_is_told_and_made_good() {
    if !available() {
        return;
    }
    let host = Namespace::new();
    host.ip("link add veth0 type veth peer name other0");
    follow(&host, async |links| {
        until(links, |_| true).await;
        let mut batch = "link set veth0 up\nlink set veth0 down\n".repeat(6000);
        batch.push_str("link add veth1 type veth peer name other1\nlink del veth0\n");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), batch).expect("written");
        let mut ip = Command::new("ip");
        ip.arg("-batch").arg(file.path()).stdout(Stdio::null());
        assert!(host.run(|| ip.status()).expect("ip").success());
        let mut lost = false;
        let end = async {
            loop {
                match links.next().await.expect("news") {
                    LinkEvent::Lost => lost = true,
                    LinkEvent::Topology(now) => {
                        let known = |name| wiring(&now, name).is_some();
                        if lost && known("veth1") && !known("veth0") {
                            return;
                        }
                    }
                    LinkEvent::Touched(..) => {}
                }
            }
        };
        let made_good = tokio::time::timeout(Duration::from_secs(10), end).await;
        assert!(made_good.is_ok());
    });
}
