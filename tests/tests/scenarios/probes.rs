//! Asking for an address before taking it (RFC 5227 §2.1, RFC 4862 §5.4).

use tests::scenario::Family;

use crate::{tells, tells_in};

#[test]
fn two_who_probe_at_once() {
    tells(
        "0,1.5,3 vA PROBE A X
         0.4,1.7 vB PROBE B X",
        "0.4 probe-collision X A B",
    );
}

#[test]
fn one_who_probes_after_another_gave_up_meets_nobody() {
    tells(
        "0,1.5,3 vA PROBE A X
         5.1 vB PROBE B X",
        "",
    );
}

#[test]
fn each_attempt_is_told_of_once() {
    tells_in(
        Family::V4,
        "0,1,2,30,31 vB PROBE B X
         0.001,1.001,2.001,30.001,31.001 vA REP A X B -",
        "0.001 probe-collision X B A
         30.001 probe-collision X B A",
    );
}

#[test]
fn an_owner_who_defends_by_announcing_has_answered() {
    tells(
        "0 vA ANN A X
         5 up PROBE B X
         5.1 vA ANN A X",
        "5.1 probe-collision X B A",
    );
}

#[test]
fn what_the_owner_says_to_others_meanwhile_is_no_answer() {
    tells_in(
        Family::V4,
        "0 vA REQ A X G
         5 up PROBE B X
         5.1 vA REQ A X G
         5.2 vA REP A X R G",
        "",
    );
}

#[test]
fn probing_for_an_address_of_ones_own_is_no_collision() {
    tells(
        "owner A B
         0 vA ANN A X
         5 vB PROBE B X
         5.1 vA ANN A X
         8,8.1 vA PROBE A Y
         8.2 vB PROBE B Y",
        "",
    );
}

#[test]
fn a_probe_that_comes_back_is_an_echo() {
    let world = tells_in(
        Family::V6,
        "0 vA NPROBE A X 7
         0.1 up NPROBE A X 7
         0.2 up NPROBE B X 7",
        "",
    );
    assert_eq!(world.engine.counts().echoes, 2);
    tells_in(
        Family::V6,
        "0 vA NPROBE A X 7
         0.2 up NPROBE B X 8",
        "0.2 probe-collision X A B",
    );
    // Though another was sent since.
    tells_in(
        Family::V6,
        "0 vA NPROBE A X 7
         1 vA NPROBE A X 8
         1.01 up NPROBE B X 7",
        "",
    );
}

#[test]
fn a_solicitation_that_comes_back_is_an_echo() {
    let world = tells_in(
        Family::V6,
        "0 vA NREQ A X G 7
         0.001 up NREQ B X G 7
         1 vA NREQ A X G 8
         1.001 up NREQ B X G 8
         2 vA REQ A X G",
        "",
    );
    assert_eq!(world.engine.counts().echoes, 2);
    tells_in(
        Family::V6,
        "0 vA NREQ A X G 7
         0.1 up NREQ B X G 8
         1 vA NREQ A X G 9",
        "1 #1 duplicate-address X Warning A B since 0.1",
    );
}

#[test]
fn who_goes_on_after_a_solicitation_with_a_nonce_is_alive() {
    tells_in(
        Family::V6,
        "0 vB ANN B X
         1 vA NREQ A X G 7
         5,12 vB ANN B X
         13 vA NREQ A X G 8",
        "5 #1 duplicate-address X Warning A B since 1
         13 #1 duplicate-address X Critical A B since 1",
    );
}

#[test]
fn who_probes_in_anothers_frame_is_told_of() {
    tells_in(Family::V4, "0 up FPROBE A X B", "0 sender-mismatch X A B");
}

#[test]
fn a_prober_who_was_told_off_and_keeps_away_stays_an_event() {
    tells(
        "lease X A
         0 vA ANN A X
         5 vB PROBE B X
         5.001 vA ANN A X
         100 vA ANN A X
         400 end",
        "5.001 probe-collision X B A",
    );
}

#[test]
fn an_attempt_becomes_part_of_the_conflict() {
    tells(
        "lease X A
         0 vA ANN A X
         5 vB PROBE B X
         5.001 vA ANN A X
         6 vB ANN B X",
        "6 #1 lease-mismatch X Warning B since 6",
    );
}

#[test]
fn an_attempt_is_no_part_of_others_conflict() {
    let frames = "
         0 vA ANN A X
         3 vB PROBE B X
         3.001 vA ANN A X";
    tells(
        &format!("lease X A {frames}\n 9 vC ANN C X"),
        "9 #1 lease-mismatch X Warning C since 9
         3.001 probe-collision X B A",
    );
    let squatted = "5 #1 unleased-address X Warning A since 0";
    tells(
        &format!("pool {frames}\n 10 end"),
        &format!("{squatted}\n 3.001 probe-collision X B A"),
    );
    // Until the prober is one of those who use it.
    tells(&format!("pool {frames}\n 8 vB ANN B X"), squatted);
}

#[test]
fn either_of_two_who_probed_may_take_it() {
    for taker in ["A", "B"] {
        tells(
            &format!(
                "pool
                 0 vA PROBE A X
                 0.4 vB PROBE B X
                 3 v{taker} ANN {taker} X
                 10 end"
            ),
            &format!("8 #1 unleased-address X Warning {taker} since 3"),
        );
    }
}

#[test]
fn two_owners_who_answer_one_probe() {
    // Who asked keeps away.
    let told = "0.001 #1 duplicate-address X Critical A B since 0.001
                0.0004 probe-collision X C A";
    tells_in(
        Family::V4,
        "0 vC PROBE C X
         0.0004 vA REP A X C -
         0.001 vB REP B X C -",
        told,
    );
    // To all, as there is no other way.
    tells_in(
        Family::V6,
        "0 vC PROBE C X
         0.0004 vA ANN A X
         0.001 vB ANN B X",
        told,
    );
}

#[test]
fn two_who_answer_one_asker_by_telling_all() {
    // As they must for link-local addresses (RFC 3927 §2.5).
    tells_in(
        Family::V4,
        "0 vC REQ C Y X
         0.001 vA REPALL A X C Y
         0.5 vB REPALL B X C Y",
        "0.5 #1 duplicate-address X Critical A B since 0.5",
    );
    tells_in(
        Family::V4,
        "0 vC REQ C Y X
         0.001 vA REPALL A X C Y
         0.5 vB REPALL B X D W",
        "0.5 address-moved X A B",
    );
}

#[test]
fn who_answers_another_meanwhile_has_answered() {
    tells(
        "0 vC REQ C Y X
         0.001 vA REP A X C Y
         0.1 vD REQ D W X
         0.101 vA REP A X D W
         0.5 vB REP B X C Y",
        "0.5 #1 duplicate-address X Critical A B since 0.5",
    );
}

#[test]
fn a_weak_answer_beside_the_owners_proves_nothing() {
    tells_in(
        Family::V6,
        "0 vA ANN A X
         60 vB ANN B X
         80 vC REQ C Y X
         80.001 vB REP B X C Y
         80.3 vA WREP A X C Y
         81 vB REQ B X G",
        "60 address-moved X A B",
    );
}
