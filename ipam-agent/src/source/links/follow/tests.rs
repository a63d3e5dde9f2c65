use std::collections::BTreeMap;

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use proptest::prelude::*;

use super::*;
use crate::netlink::Request;

const NEW_LINK: u16 = libc::RTM_NEWLINK;
const DEL_LINK: u16 = libc::RTM_DELLINK;

fn follower() -> Follower {
    Follower::new(NameFilter::new(&["veth*"], &[]).unwrap())
}

/// A message as the kernel would send it.
fn message(kind: u16, flags: i32, family: &[u8], name: Option<&str>) -> NetlinkMessage<News> {
    let mut message = Request::new(kind, flags, family);
    if let Some(name) = name {
        message = message.with(libc::IFLA_IFNAME, format!("{name}\0").as_bytes());
    }
    NetlinkMessage::deserialize(&message.finish(0)).unwrap()
}

fn overrun(follower: &mut Follower) {
    let overrun = NetlinkPayload::Overrun(Vec::new());
    let message = NetlinkMessage::new(Default::default(), overrun);
    follower.read(message).unwrap();
}

fn link(index: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[2..4].copy_from_slice(&libc::ARPHRD_ETHER.to_ne_bytes());
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

fn news(follower: &mut Follower, kind: u16, index: u32, name: &str) {
    follower
        .read(message(kind, 0, &link(index), Some(name)))
        .unwrap();
}

fn end(follower: &mut Follower, flags: i32) {
    follower
        .read(message(libc::NLMSG_DONE as u16, flags, &[0; 4], None))
        .unwrap();
}

fn listed(follower: &mut Follower, index: u32, name: &str) {
    follower
        .read(message(
            NEW_LINK,
            libc::NLM_F_MULTI,
            &link(index),
            Some(name),
        ))
        .unwrap();
}

/// Whether this asks for the links, not for VLANs or addresses.
fn is_of_links(request: &NetlinkMessage<News>) -> bool {
    matches!(
        &request.payload,
        NetlinkPayload::InnerMessage(News::Question(RouteNetlinkMessage::GetLink(message)))
            if message.header.interface_family == AddressFamily::Unspec
    )
}

/// Answer every dump with these links.
fn list(follower: &mut Follower, links: &BTreeMap<u32, String>) {
    follower.drained();
    while let Some(request) = follower.request() {
        let of_links = is_of_links(&request);
        for (index, name) in links.iter().filter(|_| of_links) {
            listed(follower, *index, name);
        }
        end(follower, libc::NLM_F_MULTI);
    }
}

fn ports(follower: &mut Follower) -> Option<Vec<u32>> {
    let mut last = None;
    while let Some(event) = follower.event() {
        if let LinkEvent::Topology(topology) = event {
            last = Some(topology.ports.keys().copied().collect());
        }
    }
    last
}

#[test]
fn nothing_is_told_before_all_is_known() {
    let mut follower = follower();
    news(&mut follower, NEW_LINK, 7, "veth7");
    assert_eq!(ports(&mut follower), None);
    list(&mut follower, &[(3, "veth3".to_owned())].into());
    // The notification came before the dump, which doesn't have it any more.
    assert_eq!(ports(&mut follower), Some(vec![3]));
}

#[test]
fn a_host_without_ports_is_told_too() {
    let mut follower = follower();
    list(&mut follower, &BTreeMap::new());
    assert_eq!(ports(&mut follower), Some(vec![]));
}

#[test]
fn what_happens_during_a_dump_is_kept() {
    let mut follower = follower();
    list(
        &mut follower,
        &[(3, "veth3".to_owned()), (4, "veth4".to_owned())].into(),
    );
    assert_eq!(ports(&mut follower), Some(vec![3, 4]));
    overrun(&mut follower);
    follower.drained();
    follower.request().unwrap();
    assert_eq!(follower.event(), Some(LinkEvent::Lost));
    // A link appears while the tables are listed: told at once.
    news(&mut follower, NEW_LINK, 5, "veth5");
    assert_eq!(ports(&mut follower), Some(vec![3, 4, 5]));
    news(&mut follower, DEL_LINK, 4, "veth4");
    listed(&mut follower, 3, "veth3");
    end(&mut follower, libc::NLM_F_MULTI);
    assert_eq!(ports(&mut follower), Some(vec![3, 5]));
}

#[test]
fn an_inconsistent_dump_forgets_nothing_and_is_made_again() {
    let mut follower = follower();
    list(&mut follower, &[(3, "veth3".to_owned())].into());
    overrun(&mut follower);
    follower.drained();
    follower.request().unwrap();
    end(&mut follower, libc::NLM_F_DUMP_INTR);
    assert_eq!(ports(&mut follower), Some(vec![3]));
    list(&mut follower, &BTreeMap::new());
    assert_eq!(ports(&mut follower), Some(vec![]));
}

#[test]
fn a_refused_dump_is_an_error_and_not_an_empty_table() {
    for kind in [libc::NLMSG_DONE, libc::NLMSG_ERROR] {
        let mut follower = follower();
        follower.request().unwrap();
        let refused = message(kind as u16, 0, &(-libc::EPERM).to_ne_bytes(), None);
        let error = match follower.read(refused) {
            Err(LinksError::Refused(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}

#[test]
fn a_port_that_leaves_its_bridge_is_no_link_that_goes() {
    let mut follower = follower();
    list(&mut follower, &[(3, "veth3".to_owned())].into());
    let mut header = link(3);
    header[0] = libc::AF_BRIDGE as u8;
    follower
        .read(message(DEL_LINK, 0, &header, Some("veth3")))
        .unwrap();
    assert_eq!(ports(&mut follower), Some(vec![3]));
}

#[test]
fn a_touched_filter_is_told_for_links_that_exist() {
    let mut follower = follower();
    list(&mut follower, &[(3, "veth3".to_owned())].into());
    ports(&mut follower);
    for (index, parent) in [(3u32, 0xffff_fff2_u32), (4, 0xffff_fff2), (3, 0x1_0000)] {
        let mut header = [0; 20];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[12..16].copy_from_slice(&parent.to_ne_bytes());
        follower
            .read(message(libc::RTM_NEWTFILTER, 0, &header, None))
            .unwrap();
    }
    assert_eq!(follower.event(), Some(LinkEvent::Touched(3, Touch::Shown)));
    assert_eq!(follower.event(), None);
}

#[test]
fn what_came_and_went_is_told_though_nothing_is_left_of_it() {
    let mut follower = follower();
    list(&mut follower, &[(3, "veth3".to_owned())].into());
    ports(&mut follower);
    let change = |follower: &mut Follower, xdp: u8, changes: u32| {
        let message = Request::new(NEW_LINK, 0, &link(3))
            .with(libc::IFLA_IFNAME, b"veth3\0")
            .with_nested(libc::IFLA_XDP, &[(2, &[xdp])])
            .with(libc::IFLA_CARRIER_CHANGES, &changes.to_ne_bytes());
        let message = NetlinkMessage::deserialize(&message.finish(0)).unwrap();
        follower.read(message).unwrap();
    };
    change(&mut follower, 0, 2);
    assert_eq!(follower.event(), Some(LinkEvent::Touched(3, Touch::Shown)));
    for xdp in [1, 0] {
        change(&mut follower, xdp, 2);
    }
    change(&mut follower, 0, 4);
    // The gravest of all.
    assert_eq!(follower.event(), Some(LinkEvent::Touched(3, Touch::Xdp)));
    assert_eq!(follower.event(), None);
}

#[test]
fn after_a_loss_it_is_behind_until_all_is_listed() {
    let mut follower = follower();
    assert!(!follower.is_current());
    list(&mut follower, &BTreeMap::new());
    assert!(follower.is_current());
    overrun(&mut follower);
    // More may be dropped until all is read.
    assert_eq!(ports(&mut follower), Some(vec![]));
    assert!(!follower.is_current());
    follower.drained();
    assert_eq!(follower.event(), Some(LinkEvent::Lost));
    assert!(!follower.is_current());
    list(&mut follower, &BTreeMap::new());
    assert!(follower.is_current());
}

#[derive(Clone, Debug)]
enum Step {
    New(u32),
    Del(u32),
    /// A notification that the kernel had no room for.
    Dropped(u32, bool),
    /// A notification from before that, which is read after the kernel told of it.
    Stale(u32),
    List,
}

fn step() -> impl Strategy<Value = Step> {
    let index = 1u32..6;
    prop_oneof![
        index.clone().prop_map(Step::New),
        index.clone().prop_map(Step::Del),
        index.clone().prop_map(Step::Stale),
        (index, any::<bool>()).prop_map(|(index, new)| Step::Dropped(index, new)),
        Just(Step::List),
    ]
}

proptest! {
    /// Whatever happens and whatever is dropped, after a list it knows what the kernel has.
    #[test]
    fn it_ends_where_the_kernel_is(steps in prop::collection::vec(step(), 0..40)) {
        let mut kernel = BTreeMap::new();
        let mut follower = follower();
        for step in steps {
            match step {
                Step::New(index) => {
                    kernel.insert(index, format!("veth{index}"));
                    news(&mut follower, NEW_LINK, index, &format!("veth{index}"));
                }
                Step::Del(index) => {
                    if kernel.remove(&index).is_some() {
                        news(&mut follower, DEL_LINK, index, &format!("veth{index}"));
                    }
                }
                Step::Dropped(index, new) => {
                    if new {
                        kernel.insert(index, format!("veth{index}"));
                    } else {
                        kernel.remove(&index);
                    }
                    overrun(&mut follower);
                }
                Step::Stale(index) => {
                    overrun(&mut follower);
                    // It would list at once, if it didn't know better.
                    prop_assert!(follower.request().is_none());
                    news(&mut follower, NEW_LINK, index, &format!("veth{index}"));
                }
                Step::List => list(&mut follower, &kernel),
            }
        }
        list(&mut follower, &kernel);
        while follower.event().is_some() {}
        let known: Vec<_> = follower.topology.as_ref().unwrap().ports.keys().collect();
        prop_assert_eq!(known, kernel.keys().collect::<Vec<_>>());
    }
}
