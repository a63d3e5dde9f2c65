//! A question and what is heard after it.

use std::time::Duration;

use ipam_common::{Evidence, Mac, Sighting};
use tokio::time::{Instant, timeout_at};

use super::{
    Answer, Confirm, Heard, Look, ProbeError, Prober, Schedule, frame::Question, socket::PortSocket,
};

/// Asks as scheduled and listens until the end, or until `judge` has heard enough.
pub(super) async fn exchange<T>(
    prober: &Prober,
    socket: &PortSocket,
    question: &Question,
    schedule: &Schedule,
    mut judge: impl FnMut(&Sighting) -> Option<T>,
) -> Result<Option<T>, ProbeError> {
    let frame = question.frame();
    for &wait in &schedule.waits {
        let due = Instant::now() + wait;
        let heard = listen(socket, due, &mut judge).await?;
        // Only what is sent takes a slot.
        let heard = match heard {
            None => listen(socket, prober.slot(), &mut judge).await?,
            heard => heard,
        };
        if heard.is_some() {
            return Ok(heard);
        }
        socket.send(&frame).await?;
    }
    let end = Instant::now() + schedule.listen;
    listen(socket, end, &mut judge).await
}

/// Listens until then.
async fn listen<T>(
    socket: &PortSocket,
    until: Instant,
    judge: &mut impl FnMut(&Sighting) -> Option<T>,
) -> Result<Option<T>, ProbeError> {
    loop {
        match timeout_at(until, socket.hear()).await {
            Err(_) => return Ok(None),
            Ok(heard) => {
                let judged = heard?.as_ref().and_then(&mut *judge);
                if judged.is_some() {
                    return Ok(judged);
                }
            }
        }
        // Where there is always something to hear, the time is never asked for.
        if until.saturating_duration_since(Instant::now()) == Duration::ZERO {
            return Ok(None);
        }
    }
}

/// What a frame is to who waits for a claimant's answer to a question from `mac`.
pub(super) fn confirmed(confirm: &Confirm, mac: Mac, seen: &Sighting) -> Option<Answer> {
    if seen.address != confirm.address || seen.tags != confirm.outlet.tags {
        return None;
    }
    if seen.evidence.is_probe() {
        // It would give the address up at our next question.
        let endangered = confirm.asker.is_none() && seen.mac != mac;
        return endangered.then_some(Answer::Withheld);
    }
    let answers = match seen.evidence {
        Evidence::ArpReply => seen.to == mac.bytes(),
        // Duplicate address detection is answered to all nodes (RFC 4861 §7.2.4).
        Evidence::NeighborAdvertisement | Evidence::WeakAdvertisement => {
            confirm.asker.is_none() || seen.to == mac.bytes()
        }
        _ => false,
    };
    (answers && seen.mac == confirm.claimant).then_some(Answer::Answered(seen.evidence))
}

/// What a frame is to who wants to know whether an address is free.
pub(super) fn heard(look: &Look, mac: Mac, seen: &Sighting) -> Option<Heard> {
    let ours = seen.mac == mac || look.own_macs.contains(&seen.mac);
    let it = seen.address == look.address && seen.tags == look.outlet.tags;
    (it && !ours).then_some(Heard {
        mac: seen.mac,
        evidence: seen.evidence,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ipam_common::{Address, sighting::Tags};

    use super::*;
    use crate::prober::{Asker, Outlet};

    const V4: Address = Address::v4([10, 0, 0, 5]).unwrap();
    const OUR: Address = Address::v4([10, 0, 0, 1]).unwrap();
    const OURS: Mac = Mac::new([2, 0, 0, 0, 0, 1]).unwrap();
    const CLAIMANT: Mac = Mac::new([2, 0, 0, 0, 0, 9]).unwrap();
    const OTHER: Mac = Mac::new([2, 0, 0, 0, 0, 8]).unwrap();
    const OUTLET: Outlet = Outlet {
        ifindex: 1,
        tags: Tags {
            outer: 0,
            vlan: 100,
        },
    };

    fn said(mac: Mac, evidence: Evidence, to: [u8; 6]) -> Sighting {
        Sighting {
            address: V4,
            mac,
            evidence,
            asked: None,
            tags: OUTLET.tags,
            ether_src: mac.bytes(),
            to,
            nonce: None,
        }
    }

    fn confirm(asker: Option<Asker>) -> Confirm {
        Confirm {
            outlet: OUTLET,
            address: V4,
            claimant: CLAIMANT,
            asker,
            unprobed: true,
        }
    }

    #[test]
    fn an_answer_is_the_claimants_own_to_our_question() {
        let asker = Asker {
            address: OUR,
            mac: OURS,
        };
        let reply = said(CLAIMANT, Evidence::ArpReply, OURS.bytes());
        let weak = Sighting {
            evidence: Evidence::WeakAdvertisement,
            ..reply
        };
        let strong = Sighting {
            evidence: Evidence::NeighborAdvertisement,
            to: [0x33, 0x33, 0, 0, 0, 1],
            ..reply
        };
        let judge = |asker, seen: &Sighting| confirmed(&confirm(asker), OURS, seen);
        for asker in [None, Some(asker)] {
            for answer in [reply, weak] {
                let expected = Some(Answer::Answered(answer.evidence));
                assert_eq!(judge(asker, &answer), expected);
            }
            for other in [
                Sighting {
                    mac: OTHER,
                    ..reply
                },
                Sighting {
                    address: OUR,
                    ..reply
                },
                Sighting {
                    to: OTHER.bytes(),
                    ..reply
                },
                Sighting {
                    tags: Tags::default(),
                    ..reply
                },
                Sighting {
                    evidence: Evidence::ArpAnnouncement,
                    ..reply
                },
            ] {
                assert_eq!(judge(asker, &other), None, "{other:?}");
            }
        }
        // To all nodes only duplicate address detection is answered.
        assert!(judge(None, &strong).is_some());
        assert_eq!(judge(Some(asker), &strong), None);
    }

    #[test]
    fn nobodys_question_ends_where_somebody_probes_and_ours_goes_on() {
        let asker = Asker {
            address: OUR,
            mac: OURS,
        };
        for evidence in [Evidence::ArpProbe, Evidence::DadProbe] {
            for mac in [CLAIMANT, OTHER] {
                let probe = said(mac, evidence, [0xff; 6]);
                let judged = confirmed(&confirm(None), OURS, &probe);
                assert_eq!(judged, Some(Answer::Withheld));
                assert_eq!(confirmed(&confirm(Some(asker)), OURS, &probe), None);
            }
            let echo = said(OURS, evidence, [0xff; 6]);
            assert_eq!(confirmed(&confirm(None), OURS, &echo), None);
        }
    }

    #[test]
    fn a_look_hears_everybody_but_this_host() {
        let look = Look {
            outlet: OUTLET,
            address: V4,
            asker: None,
            schedule: Schedule::unicast(),
            own_macs: Arc::new([OTHER].into()),
        };
        for evidence in Evidence::ALL {
            let seen = said(CLAIMANT, evidence, [0xff; 6]);
            let mac = CLAIMANT;
            assert_eq!(heard(&look, OURS, &seen), Some(Heard { mac, evidence }));
            for echo in [OURS, OTHER] {
                assert_eq!(heard(&look, OURS, &said(echo, evidence, [0xff; 6])), None);
            }
            let elsewhere = Sighting {
                tags: Tags::default(),
                ..seen
            };
            assert_eq!(heard(&look, OURS, &elsewhere), None);
        }
    }
}
