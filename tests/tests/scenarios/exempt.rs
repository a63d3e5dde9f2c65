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
fn what_is_exempt_is_no_clone_either() {
    tells(
        "exempt R X
         0,10,20 vA REP R X A Y
         5,15,25 vB REP R X A Y
         60 end",
        "",
    );
}
