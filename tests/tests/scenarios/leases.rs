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
