//! Documents as the agent could have made them at noon.

use std::net::{IpAddr, Ipv4Addr};

use ipam_common::sighting::Evidence;
use jiff::{SignedDuration, Timestamp};

use crate::{
    engine::{
        lease::Damage,
        plan::{Asker, Reason},
    },
    journal::{Content, Grant, UndoResult},
    report::document::*,
    store::FileOwner,
};

pub fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().expect("a time")
}

fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

fn host() -> String {
    "node1".to_owned()
}

fn address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 52, high, low).into()
}

fn segment(name: &str, vlan: Option<u16>) -> SegmentName {
    SegmentName {
        name: name.to_owned(),
        vlan,
        outer_vlan: None,
    }
}

fn mac(last: u8) -> HardwareAddress {
    // The second is a machine of its own, the others are made up as a pod's are.
    let mac = match last {
        2 => [0x3c, 0xec, 0xef, 0, 0, last],
        _ => [2, 0, 0, 0, 0, last],
    };
    let mac = ipam_common::Mac::new(mac);
    HardwareAddress(mac.expect("unicast"))
}

fn claim(last: u8, interface: &str, first: i64, heard: i64) -> ClaimRecord {
    ClaimRecord {
        mac: mac(last),
        vendor: crate::report::vendor(mac(last).0).map(str::to_owned),
        interface: Some(interface.to_owned()),
        this_host: false,
        first_seen: ago(first),
        last_seen: ago(heard),
        frames: 12,
        evidence: vec![
            EvidenceName(Evidence::ArpReply),
            EvidenceName(Evidence::ArpAnnouncement),
        ],
    }
}

fn holder(pod: &str) -> HolderName {
    HolderName {
        container_id: Some("4f1d".repeat(16)),
        interface: Some("eth0".to_owned()),
        pod: Some(pod.to_owned()),
        mac: Some(mac(1)),
        host_interface: Some("veth1a2b3c4d".to_owned()),
    }
}

fn lease(number: u16, pod: &str, state: LeaseState) -> LeaseName {
    LeaseName {
        store: "host-local:k8s-pod-network".to_owned(),
        address: address(number),
        holder: holder(pod),
        state,
    }
}

fn conflict(number: u16) -> ConflictRecord {
    let duplicate = number % 2 == 1;
    let (kind, severity) = match duplicate {
        true => (ConflictKind::DuplicateAddress, Severity::Critical),
        false => (ConflictKind::UnleasedAddress, Severity::Warning),
    };
    let mut claims = vec![claim(1, "veth1a2b3c4d", 4000, 3)];
    if duplicate {
        claims.push(claim(2, "mgmt-bo", 130, 1));
    }
    ConflictRecord {
        id: format!("c{number:07x}"),
        kind,
        severity,
        state: ConflictState::Active,
        address: address(number),
        segment: segment("mgmt-br", Some(10)),
        first_seen: ago(130),
        last_seen: ago(1),
        resolved_at: None,
        reason: match duplicate {
            true => format!(
                "{} is used by 02:00:00:00:00:01 on veth1a2b3c4d and 3c:ec:ef:00:00:02 (Super \
                 Micro Computer) on mgmt-bo at once: they assert it in turns; \
                 host-local:k8s-pod-network leased it to default/web-0 (02:00:00:00:00:01)",
                address(number)
            ),
            false => format!(
                "{} belongs to host-local:k8s-pod-network, which leased it to nobody, but \
                 02:00:00:00:00:01 on veth1a2b3c4d asserts it",
                address(number)
            ),
        },
        changes: if duplicate { 9 } else { 0 },
        flapping: duplicate,
        claims,
        leases: match duplicate {
            true => vec![lease(number, "default/web-0", LeaseState::Active)],
            false => Vec::new(),
        },
        history: vec![
            ConflictStep {
                at: ago(130),
                kind: ConflictKind::LeaseMismatch,
                severity: Severity::Warning,
                state: ConflictState::Active,
            },
            ConflictStep {
                at: ago(129),
                kind,
                severity,
                state: ConflictState::Active,
            },
        ],
    }
}

fn segment_records() -> Vec<SegmentRecord> {
    vec![
        SegmentRecord {
            segment: segment("mgmt-br", None),
            watched_since: Some(ago(7500)),
            complete: true,
            lost: 0,
            evicted: 0,
            interfaces: vec!["mgmt-bo".to_owned(), "veth1a2b3c4d".to_owned()],
        },
        SegmentRecord {
            segment: segment("mgmt-br", Some(10)),
            watched_since: None,
            complete: false,
            lost: 7,
            evicted: 12,
            interfaces: vec!["mgmt-bo".to_owned()],
        },
    ]
}

fn event(at: i64) -> EventRecord {
    EventRecord {
        kind: EventKind::AddressMoved,
        severity: Severity::Info,
        address: address(9),
        segment: segment("mgmt-br", None),
        at: ago(at),
        macs: vec![mac(3), mac(4)],
        reason: "02:00:00:00:00:03 left, and 02:00:00:00:00:04 uses the address now".to_owned(),
    }
}

pub fn report(conflicts: u16) -> Report {
    let mut conflicts: Vec<_> = (1..=conflicts).map(conflict).collect();
    if let [_, last] = conflicts.as_mut_slice() {
        last.state = ConflictState::Resolved;
        last.resolved_at = Some(ago(20));
    }
    crate::report::compose::sort_conflicts(&mut conflicts);
    Report {
        schema: ReportSchema::V1,
        generated_at: now(),
        host: host(),
        boot_id: Some("5f0c6d8e-1b7a-4c1e-9a57-0d3c2b1a9f8e".to_owned()),
        blind: vec!["mgmt-br VLAN 10: veth9 can't be attached: permission denied".to_owned()],
        segments: segment_records(),
        summary: Summary::of(&conflicts),
        conflicts,
        events: vec![event(400), event(70)],
        leases: [LeaseState::Active, LeaseState::Active, LeaseState::Stale]
            .into_iter()
            .collect(),
        captures: Vec::new(),
    }
}

pub fn quiet_report() -> Report {
    let mut quiet = report(0);
    quiet.blind.clear();
    quiet.events.clear();
    quiet.segments.truncate(1);
    quiet
}

pub fn segments() -> Segments {
    Segments {
        schema: SegmentsSchema::V1,
        generated_at: now(),
        host: host(),
        segments: segment_records(),
    }
}

fn blocker(reason: Reason, detail: &str, ready: Option<i64>) -> BlockerRecord {
    BlockerRecord {
        reason,
        detail: detail.to_owned(),
        ready_at: ready.map(|seconds| ago(-seconds)),
    }
}

fn lease_records() -> Vec<LeaseRecord> {
    let wire = Some(segment("mgmt-br", None));
    vec![
        LeaseRecord {
            lease: lease(2, "default/web-0", LeaseState::Active),
            segment: wire.clone(),
            damage: None,
            reason: "heard 3 s ago".to_owned(),
            since: Some(ago(4000)),
            last_heard: Some(ago(3)),
            blockers: vec![
                blocker(Reason::Seen, "heard 3 s ago", None),
                blocker(Reason::Holder, "configured behind veth1a2b3c4d", None),
            ],
            quarantine: None,
        },
        LeaseRecord {
            lease: LeaseName {
                holder: HolderName::default(),
                ..lease(7, "", LeaseState::Quiet)
            },
            segment: wire,
            damage: Some(Damage::Empty),
            reason: "neither heard nor held; its record is empty, as power loss leaves it"
                .to_owned(),
            since: Some(ago(600)),
            last_heard: None,
            blockers: vec![blocker(
                Reason::Age,
                "seen unchanged for 10 of 15 min",
                Some(300),
            )],
            quarantine: None,
        },
        LeaseRecord {
            lease: LeaseName {
                store: "host-local:storage".to_owned(),
                address: "fd00:52::5c".parse().expect("an address"),
                ..lease(
                    0,
                    "longhorn-system/instance-manager-0f3c",
                    LeaseState::Stale,
                )
            },
            segment: Some(segment("storage-br", Some(20))),
            damage: None,
            reason: "nobody uses it: silent for 2 h, no holder, two passes agree".to_owned(),
            since: Some(ago(7300)),
            last_heard: None,
            blockers: Vec::new(),
            quarantine: None,
        },
        LeaseRecord {
            lease: LeaseName {
                store: "host-local:storage".to_owned(),
                address: "fd00:52::5d".parse().expect("an address"),
                ..lease(
                    0,
                    "longhorn-system/share-manager-1",
                    LeaseState::Quarantined,
                )
            },
            segment: Some(segment("storage-br", Some(20))),
            damage: None,
            reason: "given back, and watched in case somebody uses it after all".to_owned(),
            since: None,
            last_heard: None,
            blockers: Vec::new(),
            quarantine: Some(QuarantineRecord {
                id: "00000031".to_owned(),
                released_at: ago(300),
                until: ago(300 - 86_400),
            }),
        },
    ]
}

pub fn leases() -> Leases {
    Leases {
        schema: LeasesSchema::V1,
        generated_at: now(),
        host: host(),
        blind: vec!["host-local:backup: cannot read /srv/backup: permission denied".to_owned()],
        leases: lease_records(),
    }
}

pub fn addresses() -> Addresses {
    let record = |number, last, interface, leased: bool| AddressRecord {
        address: address(number),
        segment: segment("mgmt-br", None),
        claim: claim(last, interface, 4000, 3),
        leases: match leased {
            true => vec![lease(number, "default/web-0", LeaseState::Active)],
            false => Vec::new(),
        },
    };
    let elsewhere = AddressRecord {
        address: "fe80::42:acff:fe11:2".parse().expect("an address"),
        segment: segment("storage-br", Some(20)),
        ..record(1, 4, "storage-bo", false)
    };
    Addresses {
        schema: AddressesSchema::V1,
        generated_at: now(),
        host: host(),
        addresses: vec![
            record(2, 1, "veth1a2b3c4d", true),
            record(200, 2, "mgmt-bo", false),
            elsewhere,
        ],
    }
}

pub fn explain() -> Explain {
    let conflict = conflict(1);
    let claims = conflict.claims.iter().cloned();
    Explain {
        schema: ExplainSchema::V1,
        generated_at: now(),
        host: host(),
        address: address(1),
        verdict: "Two machines use it, and default/web-0 has leased it.".to_owned(),
        this_host: None,
        set_apart: Vec::new(),
        claims: claims
            .map(|claim| SegmentClaim {
                segment: conflict.segment.clone(),
                claim,
            })
            .collect(),
        life: Life {
            assertion: Some(ago(1)),
            probe: None,
            packet: Some(ago(2)),
        },
        holders: vec![
            HolderAnswer {
                source: "namespaces".to_owned(),
                answer: Held::Yes,
                detail: Some("configured behind veth1a2b3c4d".to_owned()),
            },
            HolderAnswer {
                source: "cri".to_owned(),
                answer: Held::Unknown,
                detail: Some("no socket was found".to_owned()),
            },
        ],
        leases: lease_records().into_iter().take(1).collect(),
        conflicts: vec![conflict],
        events: vec![event(5000)],
        story: vec![
            StoryRecord {
                at: ago(4000),
                what: "02:00:00:00:00:01 on veth1a2b3c4d was first heard".to_owned(),
            },
            StoryRecord {
                at: ago(130),
                what: "a conflict opens: lease-mismatch, warning".to_owned(),
            },
        ],
        blind: vec!["3 lines of the journal can't be read".to_owned()],
    }
}

pub fn plan() -> Plan {
    let release = |number, pod: Option<&str>, damage| PlannedRelease {
        store: "host-local:k8s-pod-network".to_owned(),
        address: address(number),
        holder: pod.map(holder).unwrap_or_default(),
        damage,
        reason: "no sign of life since the watch began, nobody holds it, two passes agree"
            .to_owned(),
        evidence: ProofRecord {
            watched_since: ago(1300),
            gate_seconds: 900,
            quiet_seconds: 1300,
            unchanged_seconds: 1290,
            earlier_boot: None,
            sources: vec!["namespaces".to_owned()],
            passes: 2,
            unanswered_probes: Some(6),
        },
    };
    let kept = |number, blockers| KeptLease {
        store: "host-local:k8s-pod-network".to_owned(),
        address: address(number),
        blockers,
    };
    let dead = |name, damage, blockers| DeadCache {
        path: format!("/var/lib/cni/results/{name}-eth0"),
        damage,
        container_id: Some("5a5a".to_owned()),
        blockers,
    };
    let young = kept(
        40,
        vec![
            blocker(Reason::Age, "seen unchanged for 4 of 5 min", Some(60)),
            blocker(Reason::SecondPass, "one pass agrees", Some(70)),
        ],
    );
    let alive = |number| {
        let seen = blocker(Reason::Seen, "heard 3 s ago", None);
        kept(number, vec![seen, blocker(Reason::Holder, "web-0", None)])
    };
    let covered = |number| {
        let detail = "mgmt-br was not watched from 11:50 to 11:51";
        let ready = 60 * i64::from(1 + number % 5);
        kept(number, vec![blocker(Reason::Coverage, detail, Some(ready))])
    };
    Plan {
        schema: PlanSchema::V1,
        generated_at: now(),
        host: host(),
        complete: false,
        blind: vec!["cri: no socket was found".to_owned()],
        paused: Some(PausedRecord {
            at: Some(ago(7200)),
            by: Some("ada".to_owned()),
        }),
        releases: vec![
            release(30, Some("default/job-7"), None),
            release(31, None, Some(Damage::Nul)),
        ],
        kept: std::iter::once(young)
            .chain((50..53).map(alive))
            .chain((60..90).map(covered))
            .collect(),
        caches: vec![
            dead("k8s-pod-network-5a5a", Damage::Nul, vec![]),
            dead(
                "k8s-pod-network-7e7e",
                Damage::Empty,
                vec![blocker(
                    Reason::Age,
                    "seen unchanged for 4 min of 30 min",
                    Some(1560),
                )],
            ),
        ],
    }
}

pub fn applied() -> Applied {
    let outcome = |number, result, blocker, error: Option<&str>| OutcomeRecord {
        store: "host-local:k8s-pod-network".to_owned(),
        address: address(number),
        result,
        blocker,
        error: error.map(str::to_owned),
    };
    let changed = blocker(Reason::Changed, "its file was written anew meanwhile", None);
    Applied {
        schema: AppliedSchema::V1,
        generated_at: now(),
        host: host(),
        blind: Vec::new(),
        outcomes: vec![
            outcome(30, ReleaseResult::Released, None, None),
            outcome(31, ReleaseResult::Kept, Some(changed), None),
            outcome(
                32,
                ReleaseResult::Failed,
                None,
                Some("read-only file system"),
            ),
        ],
    }
}

pub fn history() -> History {
    let entry = |number, at, result, detail: Option<&str>| HistoryEntry {
        id: format!("{number:08}"),
        at: ago(at),
        boot_id: "5f0c6d8e-1b7a-4c1e-9a57-0d3c2b1a9f8e".to_owned(),
        asker: Asker::Person,
        by: Some("ada".to_owned()),
        store: "host-local:k8s-pod-network".to_owned(),
        address: address(number),
        holder: holder("default/job-7"),
        damage: None,
        record: Grant {
            inode: 7,
            modified: 1_700_000_000_000_000_000,
            content: Content::Text("4bd7\r\neth0".to_owned()),
            file: Some(FileOwner {
                mode: 0o600,
                uid: 0,
                gid: 0,
                directory: Some("/var/lib/cni/networks/k8s-pod-network".to_owned()),
            }),
        },
        reason: "silent for 21 min, nobody holds it, two passes agree".to_owned(),
        evidence: plan().releases[0].evidence.clone(),
        result,
        finished_at: Some(ago(at - 1)),
        detail: detail.map(str::to_owned),
        undo: None,
        taken: None,
    };
    History {
        schema: HistorySchema::V1,
        generated_at: now(),
        host: host(),
        damaged_lines: 1,
        entries: vec![
            HistoryEntry {
                finished_at: None,
                ..entry(31, 40, ReleaseResult::Unknown, None)
            },
            HistoryEntry {
                taken: Some(TakenRecord {
                    at: ago(20),
                    holder: holder("default/web-9"),
                }),
                ..entry(30, 90, ReleaseResult::Released, None)
            },
            HistoryEntry {
                asker: Asker::Daemon,
                by: None,
                undo: Some(UndoRecord {
                    at: Some(ago(50)),
                    asker: Some(Asker::Daemon),
                    by: None,
                    reason: Some("10.52.0.29 was asserted after the release".to_owned()),
                    result: Some(UndoResult::PutBack),
                    finished_at: Some(ago(50)),
                    detail: None,
                }),
                ..entry(29, 100, ReleaseResult::Released, None)
            },
            entry(
                28,
                200_000,
                ReleaseResult::Failed,
                Some("read-only file system"),
            ),
        ],
        fences: vec![
            FenceEntry {
                id: "00000033".to_owned(),
                at: ago(30),
                change: FenceChange::Lowered,
                squatter: None,
                reason: "nobody was heard with 10.52.0.77 for a gate, and nobody answered for it"
                    .to_owned(),
                result: FenceOutcome::Failed,
                finished_at: Some(ago(29)),
                detail: Some("read-only file system".to_owned()),
                ..raised_fence()
            },
            raised_fence(),
        ],
        caches: vec![CacheEntry {
            id: "00000027".to_owned(),
            at: ago(4000),
            boot_id: raised_fence().boot_id,
            path: format!("/var/lib/cni/results/cbr0-{}-eth0", "4bd7".repeat(16)),
            container_id: "4bd7".repeat(16),
            damage: Damage::Empty,
            record: Grant {
                inode: 9,
                modified: 1_700_000_000_000_000_000,
                content: Content::Text(String::new()),
                file: None,
            },
            unchanged_seconds: 1900,
            sources: vec!["cri".to_owned()],
            reason: "it can't be read (empty), was not written to for 31 min, no container of its \
                     id is known to cri, and two passes agree"
                .to_owned(),
            result: CacheOutcome::Removed,
            finished_at: Some(ago(3999)),
            detail: None,
        }],
    }
}

fn raised_fence() -> FenceEntry {
    FenceEntry {
        id: "00000032".to_owned(),
        at: ago(1000),
        boot_id: "5f0c6d8e-1b7a-4c1e-9a57-0d3c2b1a9f8e".to_owned(),
        change: FenceChange::Raised,
        store: "host-local:k8s-pod-network".to_owned(),
        address: address(77),
        squatter: Some(mac(7)),
        reason: "02:00:00:00:00:07 behind mgmt-bo uses 10.52.0.77 without a lease, and answered \
                 for it"
            .to_owned(),
        result: FenceOutcome::Done,
        finished_at: Some(ago(1000)),
        detail: None,
    }
}

pub fn undone() -> [Undone; 2] {
    let undone = Undone {
        schema: UndoneSchema::V1,
        generated_at: now(),
        host: host(),
        id: "00000030".to_owned(),
        result: UndoOutcome::PutBack,
        store: Some("host-local:k8s-pod-network".to_owned()),
        address: Some(address(30)),
        holder: Some(holder("default/job-7")),
        detail: None,
    };
    let refused = Undone {
        result: UndoOutcome::Refused,
        store: None,
        address: None,
        holder: None,
        detail: Some("00000030 was put back already".to_owned()),
        ..undone.clone()
    };
    [undone, refused]
}

pub fn doctor() -> Doctor {
    let check = |name: &str, status, detail: &str, mend: Option<&str>| Check {
        name: name.to_owned(),
        status,
        detail: detail.to_owned(),
        mend: mend.map(str::to_owned),
    };
    Doctor {
        schema: DoctorSchema::V1,
        generated_at: now(),
        host: host(),
        checks: vec![
            check("kernel", CheckStatus::Ok, "6.18.5", None),
            check(
                "state",
                CheckStatus::Warn,
                "/var/lib/ipam-agent is on tmpfs and does not survive a reboot: nothing is released",
                Some("put state_dir on a disk"),
            ),
            check(
                "capabilities",
                CheckStatus::Fail,
                "missing: bpf, perfmon",
                Some("run it as root, or grant them in the unit file"),
            ),
        ],
    }
}

/// A line of each kind.
pub fn watched() -> Vec<WatchLine> {
    let line = |what, at| WatchLine {
        schema: WatchSchema::V1,
        at: ago(at),
        host: host(),
        what,
        conflict: None,
        release: None,
        event: None,
        missed: None,
    };
    let with = |what, at, number| WatchLine {
        conflict: Some(conflict(number)),
        ..line(what, at)
    };
    vec![
        with(Happening::Open, 4000, 1),
        line(Happening::Watching, 60),
        with(Happening::Opened, 50, 2),
        with(Happening::Changed, 40, 1),
        with(Happening::Resolved, 30, 1),
        WatchLine {
            release: plan().releases.into_iter().next(),
            ..line(Happening::Released, 20)
        },
        WatchLine {
            event: Some(EventRecord {
                kind: EventKind::ReleasedButAlive,
                severity: Severity::Critical,
                reason: "10.52.0.9 was released and is in use by 02:00:00:00:00:03: its lease, \
                         released as 00000030, was put back"
                    .to_owned(),
                macs: vec![mac(3)],
                ..event(15)
            }),
            ..line(Happening::ReleasedButAlive, 15)
        },
        WatchLine {
            missed: Some(17),
            ..line(Happening::Missed, 10)
        },
        line(Happening::Stopping, 0),
    ]
}

/// Of a free address, one in use, one being claimed, and one of this host.
pub fn checks() -> [AddressCheck; 4] {
    use AddressVerdict::*;
    let check = |verdict, heard: Option<(u8, Evidence)>, reason: &str| AddressCheck {
        schema: AddressCheckSchema::V1,
        generated_at: now(),
        host: host(),
        address: address(9),
        interface: "mgmt-br".to_owned(),
        verdict,
        mac: heard.map(|(number, _)| mac(number)),
        evidence: heard.map(|(_, evidence)| EvidenceName(evidence)),
        own_interface: None,
        probes: (verdict == Free).then_some(3),
        listened_ms: (verdict == Free).then_some(6214),
        reason: format!("10.52.0.9 is {reason}"),
    };
    [
        check(
            Free,
            None,
            "free: nobody on mgmt-br answered 3 probes in 6.2 s",
        ),
        check(
            InUse,
            Some((1, Evidence::ArpReply)),
            "in use by 02:00:00:00:00:01, heard on mgmt-br (arp-reply)",
        ),
        check(
            BeingClaimed,
            Some((2, Evidence::ArpProbe)),
            "being claimed by 3c:ec:ef:00:00:02, which probes for it on mgmt-br",
        ),
        AddressCheck {
            own_interface: Some("mgmt-br".to_owned()),
            ..check(InUse, None, "in use by this host, on mgmt-br")
        },
    ]
}
