//! One MAC at two places.

use tests::scenario::Family;

use crate::{tells, tells_in};

#[test]
fn a_clone_on_the_same_host() {
    tells(
        "live
         0 vA ANN A X
         5 vB ANN A Y
         200 end",
        "7 #1 duplicate-mac Y Warning A since 5
         120 #1 over Y Warning A since 5",
    );
}

#[test]
fn a_guest_that_changed_ports() {
    tells(
        "0 vA ANN A X
         5 vB ANN A X
         6 link vA gone
         200 end",
        "",
    );
}

#[test]
fn a_live_migration() {
    tells(
        "lease X A
         0 vA ANN A X
         5 up ANN A X
         6 link vA gone
         90 up ANN A X
         300 end",
        "",
    );
}

#[test]
fn a_clone_beyond_the_uplink() {
    tells(
        "0,20,40 vA ANN A X
         10,30,50 up ANN A X
         300 end",
        "50 #1 duplicate-mac X Warning A since 10
         160 #1 over X Warning A since 10",
    );
}

#[test]
fn five_slow_migrations() {
    tells(
        "0,100,200 vA ANN A X
         50,150,250 up ANN A X
         300 end",
        "",
    );
}

#[test]
fn frames_that_another_station_forwards_move_nobody() {
    tells_in(
        Family::V4,
        "0 vA ANN A X
         1 vB FORGED A X B
         30 end",
        "1 sender-mismatch X A B",
    );
}

#[test]
fn a_sender_that_ethernet_does_not_name() {
    tells_in(
        Family::V4,
        "0,1,2 vB FORGED A X B
         3 vB FORGED A Y B
         4000 vB FORGED A X B",
        "0 sender-mismatch X A B
         3 sender-mismatch Y A B
         4000 sender-mismatch X A B",
    );
    // A router that sends in the name of the virtual one, and a bond.
    tells_in(Family::V4, "0 up FORGED V' G R", "");
    tells_in(Family::V4, "owner A B\n 0 up FORGED A X B", "");
}
