//! Who contests nobody.

use tests::scenario::Family;

use crate::{tells, tells_in};

#[test]
fn calicos_answers_are_no_claims() {
    tells_in(
        Family::V4,
        "0,2,4 vA ANN A X
         1,3 up REP EE X B Y
         5 vB REP EE X A X",
        "",
    );
}

#[test]
fn a_pod_with_two_interfaces_answers_by_both() {
    let frames = "
         0,10 up REQ R G X
         0.001,10.001 vA REP A X R G
         0.002,10.002 vB REP B X R G";
    tells(&format!("pod vA vB {frames}"), "");
    tells(
        frames,
        "0.002 #1 duplicate-address X Critical A B since 0.002",
    );
    // Behind one port there may be several machines.
    tells(
        "pod vA vB
         0 vA ANN A X
         1 vA ANN B X
         2 vA ANN A X",
        "2 #1 duplicate-address X Warning A B since 1",
    );
    // Who is in an owner that the configuration names is in it still, and its kin with it.
    tells(
        "pod vA vB
         owner B C
         0 vA ANN A Y
         1 vB ANN B Y
         2,4 up ANN C X
         3,5 vB ANN B X
         6 vA ANN A X
         7 up ANN C X",
        "",
    );
    // When a port is gone its MAC may be anybody's.
    tells(
        "pod vA vB
         0 vA ANN A X
         1 vB ANN B X
         2 link vA gone
         30 vC ANN A X
         31 vB ANN B X",
        "31 #1 duplicate-address X Critical A B since 1",
    );
}

#[test]
fn what_is_exempt_is_no_clone_either() {
    tells(
        "exempt R X
         0,10,20 vA REP R X A Y
         5,15,25 vB REP R X A Y
         60 end",
        "",
    );
}

#[test]
fn what_is_exempt_is_no_claimant_of_a_contest_either() {
    tells(
        "exempt R X
         0 vA ANN A X
         1 vB ANN B X
         2 vA ANN A X
         3 vC REQ C Y X
         3.001 vA REP A X C Y
         3.2 up REP R X C Y
         3.3 vB REP B X C Y",
        "2 #1 duplicate-address X Warning A B since 1
         3.3 #1 duplicate-address X Critical A B since 1",
    );
}

#[test]
fn what_is_exempt_collides_with_nobodys_probe() {
    tells(
        "exempt R X
         0 vB PROBE B X
         0.001 up ANN R X
         2 vB ANN B X",
        "",
    );
    tells(
        "exempt R X
         0 up PROBE R X
         1 vB PROBE B X
         20 end",
        "",
    );
}
