//! Messages and attributes (RFC 3549 §2.3; Linux `include/uapi/linux/netlink.h`).

use std::iter;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Messages and attributes begin at multiples of this.
const ALIGN: usize = 4;
/// Without the bits for "nested" and "network byte order".
const TYPE_MASK: u16 = libc::NLA_TYPE_MASK as u16;

/// A request, being put together.
#[derive(Clone, Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// A request of this message type with these flags besides `NLM_F_REQUEST`; `family`
    /// is the family's own header (`struct ifinfomsg`, `ifaddrmsg`, `tcmsg`).
    pub fn new(kind: u16, flags: i32, family: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        // Sequence and port number: the socket sets them.
        bytes.extend([0; 8]);
        bytes.extend(family);
        Self(bytes)
    }

    /// With one attribute more.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.0, kind, value);
        self
    }

    /// With one attribute more that holds these.
    pub fn with_nested(self, kind: u16, inner: &[(u16, &[u8])]) -> Self {
        let mut value = Vec::new();
        for (kind, bytes) in inner {
            put(&mut value, *kind, bytes);
        }
        self.with(kind | libc::NLA_F_NESTED as u16, &value)
    }

    /// The bytes to send.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    bytes.extend((ALIGN as u16 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
}

/// One message of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `RTM_…` or `NLMSG_…`.
    pub kind: u16,
    /// `NLM_F_…`.
    pub flags: u16,
    /// The sequence number of the request it answers; 0: it answers none.
    pub sequence: u32,
    /// All after the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The family's own header of `N` bytes, and the attributes after it.
    pub fn split<const N: usize>(&self) -> Option<(&'a [u8; N], &'a [u8])> {
        self.body.split_first_chunk()
    }

    /// The errno in an `NLMSG_ERROR` or `NLMSG_DONE`; 0: none. A refused dump ends with an
    /// errno in its `NLMSG_DONE` and looks empty without it.
    pub fn errno(&self) -> i32 {
        let code = self
            .body
            .first_chunk()
            .map(|code| i32::from_ne_bytes(*code));
        // An older kernel's NLMSG_DONE may be empty.
        code.unwrap_or(0).saturating_neg()
    }
}

/// The messages in a datagram, up to the first that doesn't fit.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    iter::from_fn(move || {
        let header: &[u8; HEADER] = rest.first_chunk()?;
        let [a, b, c, d, k1, k2, f1, f2, s1, s2, s3, s4, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some(Message {
            kind: u16::from_ne_bytes([k1, k2]),
            flags: u16::from_ne_bytes([f1, f2]),
            sequence: u32::from_ne_bytes([s1, s2, s3, s4]),
            body,
        })
    })
}

/// The attributes in these bytes, types without flag bits, up to the first that doesn't fit.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    iter::from_fn(move || {
        let [l1, l2, k1, k2] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l1, l2]));
        let value = rest.get(ALIGN..length)?;
        rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([k1, k2]) & TYPE_MASK, value))
    })
}

/// The value of the first attribute of this type.
pub fn first(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(k, value)| (k == kind).then_some(value))
}

/// A `u32` in host order.
pub fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

/// A string, without the NUL at its end.
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_to_an_end(bytes: Vec<u8>) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / ALIGN);
        }

        #[test]
        fn what_is_put_into_a_request_is_read_back(
            kind: u16, sequence: u32, family: [u8; 12],
            attrs in prop::collection::vec(
                (0..=TYPE_MASK, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let mut request = Request::new(kind, libc::NLM_F_ACK, &family);
            for (kind, value) in &attrs {
                request = request.with(*kind, value);
            }
            let bytes = request.finish(sequence);
            let read: Vec<_> = messages(&bytes).collect();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!((read[0].kind, read[0].sequence), (kind, sequence));
            let (header, rest) = read[0].split::<12>().unwrap();
            prop_assert_eq!(header, &family);
            let back: Vec<_> = attributes(rest).map(|(k, v)| (k, v.to_vec())).collect();
            prop_assert_eq!(back, attrs);
        }
    }

    #[test]
    fn an_attribute_shorter_than_its_own_header_ends_the_list() {
        assert_eq!(attributes(&[3, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
    }
}
