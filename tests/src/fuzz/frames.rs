//! The frame parser.

use ipam_common::{
    Captured, Parsed, Sighting,
    frame::{parse, source},
    sighting::Tags,
};

use crate::frames::{DOT1Q, tagged};

const VLAN: u16 = 100;

pub(super) fn run(bytes: &[u8]) {
    let _ = source(&Captured::new(bytes));
    let stripped = Captured {
        bytes,
        stripped_tag: Some(VLAN),
    };
    let stripped = parse(&stripped);
    let Parsed::Sighting(said) = parse(&Captured::new(bytes)) else {
        return;
    };
    assert!(bytes.len() >= 42, "a claim of {} bytes", bytes.len());
    if said.tags != Tags::default() {
        return;
    }
    // A tag moves what a frame says to another segment, and changes nothing else.
    let moved = Parsed::Sighting(Sighting {
        tags: Tags {
            outer: 0,
            vlan: VLAN,
        },
        ..said
    });
    // One with a tag of priority alone has room for one more, but not for two.
    if bytes[12..14] != DOT1Q.to_be_bytes() && bytes[12..14] != [0x88, 0xa8] {
        let inside = tagged(bytes, &[(DOT1Q, VLAN)]);
        assert_eq!(parse(&Captured::new(&inside)), moved);
        assert_eq!(stripped, moved);
    }
    // Padding says nothing.
    let padded = [bytes, &[0; 6]].concat();
    assert_eq!(parse(&Captured::new(&padded)), Parsed::Sighting(said));
}
