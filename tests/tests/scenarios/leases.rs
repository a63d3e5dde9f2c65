//! Leases that contradict each other.

use crate::tells;

#[test]
fn two_stores_lease_one_address() {
    tells(
        "lease X A
         5 other grant X B
         20 other revoke X",
        "5 #1 duplicate-lease X Warning since 5
         20 #1 over X Warning since 5",
    );
}

#[test]
fn two_stores_that_agree() {
    tells(
        "lease X A
         other lease X A
         0 vA ANN A X
         10 end",
        "",
    );
}

#[test]
fn either_holder_may_use_what_is_leased_to_both() {
    tells(
        "lease X A
         other lease X B
         1 vA ANN A X
         20 end",
        "0 #1 duplicate-lease X Warning since 0",
    );
}

#[test]
fn both_use_what_is_leased_to_both() {
    tells(
        "lease X A
         other lease X B
         1 vA ANN A X
         2 vB ANN B X
         3 vA ANN A X",
        "0 #1 duplicate-lease X Warning since 0
         3 #2 duplicate-address X Warning A B since 2",
    );
}

#[test]
fn who_squats_after_another_has_the_grace_too() {
    tells(
        "pool
         0 vB ANN B Y
         1000 vC ANN C Y
         1010 end",
        "5 #1 unleased-address Y Warning B since 0
         120 #1 over Y Warning B since 0
         1005 #1 unleased-address Y Warning C since 0",
    );
}
