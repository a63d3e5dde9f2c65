//! Scripts whose ports have VLANs. Few kernels that build things have bridges that filter
//! them, so these are played on veths in a booted kernel that does, too.

/// A guest on an access port, another by a tagged uplink, in one VLAN.
pub const ACROSS: &str = "access vA 100
     trunk up 100 200
     0 vA ANN A X
     3 up ANN B X tag 100
     3.5 vA ANN A X";

/// Two VLANs of one trunk that use the same address.
pub const APART: &str = "trunk up 100 200
     0,10,20 up ANN A X tag 100
     5,15,25 up ANN B X tag 200";

/// The same, on a bridge that filters no VLANs.
pub const APART_UNFILTERED: &str = "0,10,20 up ANN A X tag 100
     5,15,25 up ANN B X tag 200";

/// An address goes from an access port to the tagged uplink.
pub const MOVED: &str = "access vA 100
     trunk up 100 200
     0 vA ANN A X
     3 up ANN B X tag 100";
