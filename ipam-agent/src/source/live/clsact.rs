//! Our filter at the clsact qdisc, for kernels without TCX (before Linux 6.6).
//!
//! It is known by its name and handle, at a fixed priority, so that what a killed agent
//! left is found and replaced. Only filters of that name are ever changed or removed.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{Message, Netlink, NetlinkError, Request, attributes, first, number, text};

/// The filter's name, which is the program's too.
const NAME: &str = "ipam_agent";
/// Runs before every other priority.
const PRIORITY: u16 = 1;
/// Ours among other programs at that priority: "ipam".
const HANDLE: u32 = 0x6970_616d;

/// `TC_H_CLSACT` as a parent, and the handle of a qdisc there.
const CLSACT: u32 = 0xffff_fff1;
const QDISC: u32 = 0xffff_0000;
/// `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` of it.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// Linux `include/uapi/linux/pkt_cls.h`, not in the libc crate.
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// A filter on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    priority: u16,
    handle: u32,
    chain: u32,
    /// `bpf`, `flower`, …
    pub(super) kind: String,
    name: Option<String>,
    /// The id of its program, if it is one.
    pub(super) program: Option<u32>,
}

impl Filter {
    fn read(message: &Message<'_>) -> Option<Self> {
        let (header, attrs) = message.split::<20>()?;
        let [.., h1, h2, h3, h4, _, _, _, _, i1, i2, i3, i4] = *header;
        let mut filter = Self {
            priority: (u32::from_ne_bytes([i1, i2, i3, i4]) >> 16) as u16,
            handle: u32::from_ne_bytes([h1, h2, h3, h4]),
            chain: 0,
            kind: String::new(),
            name: None,
            program: None,
        };
        for (kind, value) in attributes(attrs) {
            match kind {
                libc::TCA_KIND => filter.kind = text(value)?.to_owned(),
                libc::TCA_CHAIN => filter.chain = number(value)?,
                libc::TCA_OPTIONS => {
                    filter.name = first(value, TCA_BPF_NAME).and_then(text).map(str::to_owned);
                    filter.program = first(value, TCA_BPF_ID).and_then(number);
                }
                _ => {}
            }
        }
        // The kernel lists the classifier itself too, without a handle.
        (filter.handle != 0).then_some(filter)
    }

    fn is_ours(&self) -> bool {
        self.kind == "bpf" && self.name.as_deref() == Some(NAME)
    }
}

/// Whether an `RTM_NEWTFILTER` or `RTM_DELTFILTER` is of a filter of somebody else's that may
/// see frames before ours, which is the first of its priority only as long as it is the newest.
pub(crate) fn may_come_first(message: &Message<'_>) -> bool {
    Filter::read(message)
        .is_some_and(|filter| filter.chain == 0 && filter.priority <= PRIORITY && !filter.is_ours())
}

/// The filters that see the port's frames, in the order in which they do.
pub(super) fn ingress(netlink: &mut Netlink, ifindex: u32) -> Result<Vec<Filter>, NetlinkError> {
    let mut filters = filters(netlink, ifindex, INGRESS)?;
    filters.retain(|filter| filter.chain == 0);
    // Stable: those of one priority are listed in their order.
    filters.sort_by_key(|filter| filter.priority);
    Ok(filters)
}

/// The kind of filter that keeps ours from its place, if that is why it was refused.
pub(super) fn occupant(
    netlink: &mut Netlink,
    ifindex: u32,
    refusal: &NetlinkError,
) -> Option<String> {
    if refusal.refusal() != Some(libc::EINVAL) {
        return None;
    }
    let first = ingress(netlink, ifindex).ok()?.into_iter().next()?;
    (first.priority == PRIORITY).then_some(first.kind)
}

/// Whether a filter of ours is on the port.
pub(super) fn has_ours(netlink: &mut Netlink, ifindex: u32) -> Result<bool, NetlinkError> {
    Ok(filters(netlink, ifindex, INGRESS)?
        .iter()
        .any(Filter::is_ours))
}

/// Put the program on the port, in the place of a leftover if there is one, and say whether
/// the qdisc is ours to remove: we made it now, or an agent before us did.
pub(super) fn attach(
    netlink: &mut Netlink,
    ifindex: u32,
    program: BorrowedFd<'_>,
    id: u32,
) -> Result<bool, NetlinkError> {
    let made = add_qdisc(netlink, ifindex)?;
    let leftover = has_ours(netlink, ifindex)?;
    let added = add_filter(netlink, ifindex, program).and_then(|()| {
        // Of one priority the newest is first, and a replaced filter isn't new.
        let first = ingress(netlink, ifindex)?.into_iter().next();
        if first.is_none_or(|filter| filter.program != Some(id)) {
            remove_filters(netlink, ifindex, |_| true)?;
            add_filter(netlink, ifindex, program)?;
        }
        remove_filters(netlink, ifindex, |filter| filter.program != Some(id))
    });
    match added {
        Ok(_) => Ok(made || leftover),
        Err(error) => {
            // The refusal is what matters; what can't be undone either is not worth more.
            let _ = detach(netlink, ifindex, made || leftover);
            Err(error)
        }
    }
}

/// Take our filters off the port and, if it is ours and empty, the qdisc; whether there
/// was anything of ours.
pub(super) fn detach(
    netlink: &mut Netlink,
    ifindex: u32,
    ours: bool,
) -> Result<bool, NetlinkError> {
    let removed = remove_filters(netlink, ifindex, |_| true)?;
    let empty = filters(netlink, ifindex, INGRESS)?.is_empty()
        && filters(netlink, ifindex, EGRESS)?.is_empty();
    if ours && empty {
        let request = Request::new(
            libc::RTM_DELQDISC,
            libc::NLM_F_ACK,
            &header(ifindex, QDISC, CLSACT, 0),
        );
        netlink.change(request)?;
    }
    Ok(removed)
}

/// Whether the qdisc had to be made.
fn add_qdisc(netlink: &mut Netlink, ifindex: u32) -> Result<bool, NetlinkError> {
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let request = Request::new(
        libc::RTM_NEWQDISC,
        flags,
        &header(ifindex, QDISC, CLSACT, 0),
    )
    .with(libc::TCA_KIND, b"clsact\0");
    match netlink.change(request) {
        Ok(()) => Ok(true),
        // A clsact of somebody else's, or an ingress qdisc, which takes filters as well.
        Err(error) if error.refusal() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

fn add_filter(
    netlink: &mut Netlink,
    ifindex: u32,
    program: BorrowedFd<'_>,
) -> Result<(), NetlinkError> {
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE;
    let request = Request::new(
        libc::RTM_NEWTFILTER,
        flags,
        &header(ifindex, HANDLE, INGRESS, info(PRIORITY)),
    )
    .with(libc::TCA_KIND, b"bpf\0")
    .with_nested(
        libc::TCA_OPTIONS,
        &[
            (TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes()),
            (TCA_BPF_NAME, format!("{NAME}\0").as_bytes()),
            (TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes()),
        ],
    );
    netlink.change(request)
}

/// Remove those of our filters; whether there was one.
fn remove_filters(
    netlink: &mut Netlink,
    ifindex: u32,
    which: impl Fn(&Filter) -> bool,
) -> Result<bool, NetlinkError> {
    let mut removed = false;
    for filter in filters(netlink, ifindex, INGRESS)? {
        if filter.is_ours() && which(&filter) {
            let header = header(ifindex, filter.handle, INGRESS, info(filter.priority));
            netlink.change(Request::new(libc::RTM_DELTFILTER, libc::NLM_F_ACK, &header))?;
            removed = true;
        }
    }
    Ok(removed)
}

/// The filters in the order in which they run; none where there is no qdisc.
fn filters(netlink: &mut Netlink, ifindex: u32, parent: u32) -> Result<Vec<Filter>, NetlinkError> {
    let request = Request::new(
        libc::RTM_GETTFILTER,
        libc::NLM_F_DUMP,
        &header(ifindex, 0, parent, 0),
    );
    netlink.dump(&request, |message| Filter::read(&message))
}

/// `struct tcmsg`.
fn header(ifindex: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    for (at, value) in [(4, ifindex), (8, handle), (12, parent), (16, info)] {
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

/// Priority, and all protocols.
fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())
}
