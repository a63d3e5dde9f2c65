//! Addresses that are set apart.

use tests::scenario::Family;

use crate::{tells, tells_in};

#[test]
fn a_gateway_whose_mac_is_known() {
    tells(
        "pool gateway G R
         0 up REP R G A X
         9.0 vD REP D G A X
         9.5 vD REP D G B Y
         10.0 up REQ R G X",
        "9 #1 reserved-address G Critical D since 9
         10 #1 duplicate-address G Critical D R since 9",
    );
}

#[test]
fn a_gateway_that_is_this_host() {
    tells(
        "pool gateway G
         own G
         5 vD ANN D G
         200 end",
        "5 #1 reserved-address G Critical D since 5
         6 #1 duplicate-address G Critical D H since 5
         125 #1 over G Critical D H since 5",
    );
}

#[test]
fn an_excluded_address() {
    tells(
        "pool excluding D F
         0 vB ANN B E
         1 vB ANN B G
         300 end",
        "0 #1 reserved-address E Info B since 0
         6 #2 unleased-address G Warning B since 1
         120 #1 over E Info B since 0
         121 #2 over G Warning B since 1",
    );
}

#[test]
fn an_excluded_address_that_is_leased_to_who_has_it() {
    tells(
        "pool excluding D F
         other lease E B
         0 vB ANN B E",
        "",
    );
}

#[test]
fn the_network_and_the_broadcast_address() {
    tells_in(
        Family::V4,
        "pool
         0 vB ANN B NET
         1 vB ANN B ALL",
        "0 #1 reserved-address NET Warning B since 0
         1 #2 reserved-address ALL Warning B since 1",
    );
}

#[test]
fn a_virtual_routers_address() {
    tells(
        "0 up REP V' G A X
         9 vD ANN D G
         10 up REP V' G A X",
        "9 #1 reserved-address G Warning D since 9
         10 #1 duplicate-address G Warning V' D since 9",
    );
}

#[test]
fn a_virtual_router_that_was_given_up() {
    tells(
        "0 up REP V' G A X
         4000 up ANN D G
         4100 up ANN D G
         4300 end",
        "4000 address-moved G V' D",
    );
}

#[test]
fn a_virtual_router_that_changes_places() {
    tells(
        "0,10,20 up REP V' G A X
         5,15,25 vF REP V' G A X
         300 end",
        "",
    );
}

#[test]
fn an_excluded_address_granted_while_in_use() {
    tells(
        "pool excluding D F
         0 vB ANN B E
         10 grant E A",
        "0 #1 reserved-address E Info B since 0
         10 #1 lease-mismatch E Critical B since 0",
    );
}

#[test]
fn who_had_the_address_before_a_virtual_router_did_nothing_wrong() {
    tells(
        "0 up REP R G A X
         60 up REP V' G A X
         200 end",
        "60 address-moved G R V'",
    );
    tells(
        "0 up REP R G A X
         60 up REP V' G A X
         90 up REP R G A X
         300 end",
        "90 #1 reserved-address G Warning R since 90
         210 #1 over G Warning R since 90
         60 address-moved G R V'",
    );
}

#[test]
fn a_leased_address_is_its_holders_and_no_virtual_routers() {
    tells(
        "lease X A
         0 vA ANN A X
         5 up ANN V' X",
        "5 #1 lease-mismatch X Warning V' since 5",
    );
}
