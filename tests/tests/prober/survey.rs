//! Many addresses asked for side by side.

use std::collections::BTreeMap;

use ipam_agent::prober::{Survey, Surveyed};

use super::*;

fn survey(outlets: Vec<(Outlet, Option<Asker>)>, addresses: &[&str], millis: u64) -> Survey {
    Survey {
        outlets,
        addresses: addresses.iter().map(|text| claimable(text)).collect(),
        within: Some(Duration::from_millis(millis)),
        own_macs: Arc::new(BTreeSet::new()),
    }
}

fn surveyed(host: &Host, survey: &Survey) -> BTreeMap<Address, Surveyed> {
    within(&host.namespace, async || {
        Prober::default().survey(survey).await
    })
}

fn heard(pod: &Namespace, evidence: Evidence, ifindex: u32) -> Surveyed {
    let mac = mac(pod, "eth0");
    Surveyed::Heard(Heard { mac, evidence }, ifindex)
}

#[test]
fn each_address_is_asked_for_out_of_every_port_and_who_answers_is_named() {
    if !available() {
        return;
    }
    let host = Host::new(2);
    host.pods[0].ip("address add 10.77.0.5/24 dev eth0");
    host.pods[1].ip("address add fd00:77::5/64 dev eth0 nodad");
    host.pods[1].ip("address add fd00:77::6/64 dev eth0 nodad");
    let outlets: Vec<Outlet> = (0..2).map(|number| host.outlet(number, UNTAGGED)).collect();
    for in_our_name in [false, true] {
        let asker = |outlet| {
            host.asker(outlet, claimable("fd00:77::7"))
                .filter(|_| in_our_name)
        };
        let asked = outlets
            .iter()
            .map(|&outlet| (outlet, asker(outlet)))
            .collect();
        let addresses = [
            "10.77.0.5",
            "10.77.0.6",
            "fd00:77::5",
            "fd00:77::6",
            "fd00:77::7",
        ];
        let found = surveyed(&host, &survey(asked, &addresses, 700));
        let answered = heard(&host.pods[0], Evidence::ArpReply, outlets[0].ifindex);
        let advertised = |_| {
            heard(
                &host.pods[1],
                Evidence::NeighborAdvertisement,
                outlets[1].ifindex,
            )
        };
        let expected = [
            (addresses[0], answered),
            (addresses[1], Surveyed::Silent(6)),
            (addresses[2], advertised(())),
            (addresses[3], advertised(())),
            (addresses[4], Surveyed::Silent(6)),
        ];
        let expected = expected.map(|(text, surveyed)| (claimable(text), surveyed));
        assert_eq!(found, BTreeMap::from(expected), "{in_our_name}");
    }
}

#[test]
fn a_batch_of_hundreds_loses_no_answer() {
    if !available() {
        return;
    }
    let host = Host::new(1);
    let outlet = host.outlet(0, UNTAGGED);
    let texts: Vec<String> = (2..=254).map(|last| format!("10.77.0.{last}")).collect();
    let more: Vec<String> = (2..=100).map(|last| format!("10.77.1.{last}")).collect();
    let has = |text: &String| text.ends_with('7');
    for text in texts.iter().chain(&more).filter(|text| has(text)) {
        host.pods[0].ip(&format!("address add {text}/16 dev eth0"));
    }
    let addresses: Vec<&str> = texts.iter().chain(&more).map(String::as_str).collect();
    let found = surveyed(&host, &survey(vec![(outlet, None)], &addresses, 700));
    assert_eq!(found.len(), addresses.len());
    for text in texts.iter().chain(&more) {
        let expected = match has(text) {
            true => heard(&host.pods[0], Evidence::ArpReply, outlet.ifindex),
            false => Surveyed::Silent(3),
        };
        assert_eq!(found[&claimable(text)], expected, "{text}");
    }
}

#[test]
fn a_kernel_in_its_own_detection_keeps_the_address() {
    if !available() {
        return;
    }
    let host = Host::new(1);
    let pod = &host.pods[0];
    pod.command("sysctl -qw net.ipv6.neigh.eth0.retrans_time_ms=200");
    detecting(pod);
    let outlet = host.outlet(0, UNTAGGED);
    // As when nobody was heard: it is heard in the second before the first question.
    let found = surveyed(&host, &survey(vec![(outlet, None)], &["fd00:77::5"], 4000));
    let expected = heard(pod, Evidence::DadProbe, outlet.ifindex);
    assert_eq!(found[&claimable("fd00:77::5")], expected);
    until(pod, "the address", |shown| {
        let mut lines = shown.lines().filter(|line| line.contains("fd00:77::5"));
        lines.any(|line| !line.contains("tentative") && !line.contains("dadfailed"))
    });
}

#[test]
fn a_port_that_cannot_be_asked_is_named_and_one_that_is_gone_leads_to_nobody() {
    if !available() {
        return;
    }
    let host = Host::new(2);
    let outlets: Vec<_> = (0..2)
        .map(|number| (host.outlet(number, UNTAGGED), None))
        .collect();
    let survey = survey(outlets, &["10.77.0.5"], 3000);
    let look = |end: &str| {
        let found = thread::scope(|scope| {
            let looking = scope.spawn(|| surveyed(&host, &survey));
            thread::sleep(Duration::from_millis(300));
            host.namespace.ip(end);
            looking.join().expect("looked")
        });
        found.into_values().next().expect("one address")
    };
    let unasked = look("link set veth1 down");
    let named = |why: &str| why.contains("veth1");
    assert!(
        matches!(&unasked, Surveyed::Unasked(why) if named(why)),
        "{unasked:?}"
    );
    // Down from the beginning.
    let unasked = look("link set veth1 down");
    assert!(
        matches!(&unasked, Surveyed::Unasked(why) if named(why)),
        "{unasked:?}"
    );
    host.namespace.ip("link set veth1 up");
    host.namespace.await_carrier("veth1");
    assert_eq!(look("link del veth1"), Surveyed::Silent(3));
    assert_eq!(look("link show veth0"), Surveyed::Silent(3));
}
