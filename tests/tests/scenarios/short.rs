//! What takes minutes elsewhere in this suite, in less than half of one: for those who play
//! scripts in real time.

use crate::tells;

#[test]
fn a_failover_of_keepalived() {
    tells(
        "0 up ANN R1 V
         11,11.1,11.2 up ANN R2 V
         15 up ANN R1 W
         18,24 up ANN R2 V",
        "11 address-moved V R1 R2",
    );
}

#[test]
fn a_failover_of_metallb() {
    tells(
        "0 up ANN N1 V
         0 up GREP N1 V
         11,12.1 up ANN N2 V
         11,12.1 up GREP N2 V",
        "11 address-moved V N1 N2",
    );
}

#[test]
fn a_silent_pod_keeps_its_claim() {
    tells(
        "lease X A
         0,10,20 up REQ B X G",
        "0 #1 lease-mismatch X Warning B since 0",
    );
}

#[test]
fn a_grant_does_not_make_a_squatter_right() {
    tells(
        "pool
         0,8 up REQ B Y G
         12 grant Y A
         15 up REQ B Y G",
        "5 #1 unleased-address Y Warning B since 0
         12 #1 lease-mismatch Y Critical B since 0",
    );
}

#[test]
fn a_squat_that_was_leased_meanwhile_is_one_again() {
    tells(
        "pool
         0 vB ANN B Y
         10 grant Y B
         15 revoke Y
         16 vB ANN B Y
         22 end",
        "5 #1 unleased-address Y Warning B since 0
         10 #1 over Y Warning B since 0
         21 #1 unleased-address Y Warning B since 0",
    );
}

#[test]
fn a_router_that_preempts_at_once() {
    let frames = "
         0 up ANN R1 V
         11 up ANN R2 V
         15,18,24 up ANN R1 V";
    tells(frames, "15 #1 duplicate-address V Warning R1 R2 since 11");
    tells(&format!("owner R1 R2 {frames}"), "");
}
