//! A lease's texts in one piece, each as it was read: there may be a million leases, and
//! what host-local writes of one repeats the container's id.

use std::sync::Arc;

use super::{Holder, SHORT_ID};

/// What is between id and interface in host-local's record of a lease
/// (plugins/ipam/host-local/backend/disk/backend.go, `LineBreak`).
const LINE_BREAK: &[u8] = b"\r\n";

/// The id is in 32 bytes, not in 64 digits.
const DIGITS: u8 = 1;
/// The record is the id, a line break and the interface, and is not there once more.
const RECORD: u8 = 2;

/// A holder's texts and a record's bytes. Equal texts are packed equally, unequal ones not:
/// what is packed can be compared in full.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Packed(Box<[u8]>);

/// What was packed.
pub(super) struct Parts<'a> {
    id: Id<'a>,
    pub(super) interface: Option<&'a str>,
    pub(super) pod: Option<&'a str>,
    pub(super) host_interface: Option<&'a str>,
    /// `None`: the id, a line break and the interface.
    content: Option<&'a [u8]>,
}

enum Id<'a> {
    Digits(&'a [u8]),
    Text(Option<&'a str>),
}

impl Packed {
    pub(super) fn new(holder: &Holder, content: &[u8]) -> Self {
        let id = holder.container_id.as_deref();
        let interface = holder.interface.as_deref();
        let digits = id.and_then(from_digits);
        let is_record = id.zip(interface).is_some_and(|(id, interface)| {
            [id.as_bytes(), LINE_BREAK, interface.as_bytes()].concat() == content
        });
        let flag = |flag, set| if set { flag } else { 0 };
        let texts = [
            interface,
            holder.pod.as_deref(),
            holder.host_interface.as_deref(),
        ]
        .map(|text| text.map(str::as_bytes));
        let id_length = digits.map_or(room(id.map(str::as_bytes)), |digits| digits.len());
        let content_length = if is_record { 0 } else { room(Some(content)) };
        let length = 1 + id_length + texts.into_iter().map(room).sum::<usize>() + content_length;
        let mut packed = Vec::with_capacity(length);
        packed.push(flag(DIGITS, digits.is_some()) | flag(RECORD, is_record));
        match digits {
            Some(bytes) => packed.extend(bytes),
            None => put(&mut packed, id.map(str::as_bytes)),
        }
        for text in texts {
            put(&mut packed, text);
        }
        if !is_record {
            put(&mut packed, Some(content));
        }
        debug_assert_eq!(
            packed.len(),
            length,
            "nothing is left over to be given back"
        );
        Self(packed.into())
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        let (flags, mut rest) = self.0.split_first().map_or((0, &[][..]), |(f, r)| (*f, r));
        let id = if flags & DIGITS != 0 {
            let (digits, after) = rest.split_at_checked(32).unwrap_or_default();
            rest = after;
            Id::Digits(digits)
        } else {
            Id::Text(text(&mut rest))
        };
        Parts {
            id,
            interface: text(&mut rest),
            pod: text(&mut rest),
            host_interface: text(&mut rest),
            content: match flags & RECORD {
                0 => Some(take(&mut rest).unwrap_or_default()),
                _ => None,
            },
        }
    }
}

impl Parts<'_> {
    pub(super) fn container_id(&self) -> Option<Arc<str>> {
        match self.id {
            Id::Digits(bytes) => Some(to_digits(bytes).into()),
            Id::Text(text) => text.map(Arc::from),
        }
    }

    pub(super) fn content(&self) -> Box<[u8]> {
        match self.content {
            Some(content) => content.into(),
            None => {
                let id = self.container_id().unwrap_or_default();
                let interface = self.interface.unwrap_or_default();
                [id.as_bytes(), LINE_BREAK, interface.as_bytes()]
                    .concat()
                    .into()
            }
        }
    }

    /// As [`Holder::name`].
    pub(super) fn name(&self) -> Option<Arc<str>> {
        let container = || {
            let id = self.container_id()?;
            let short = id.get(..SHORT_ID).unwrap_or(&id);
            Some(format!("container {short}").into())
        };
        self.pod.map(Arc::from).or_else(container)
    }
}

/// How much [`put`] adds.
fn room(bytes: Option<&[u8]>) -> usize {
    let length = bytes.map_or(0, |bytes| bytes.len() + 1);
    let bits = usize::BITS - length.leading_zeros();
    bits.div_ceil(7).max(1) as usize + length.saturating_sub(1)
}

/// Its length and one more, seven bits a byte, and the bytes; of nothing a zero.
fn put(packed: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let mut length = bytes.map_or(0, |bytes| bytes.len() + 1);
    while length >= 0x80 {
        packed.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    packed.push(length as u8);
    packed.extend_from_slice(bytes.unwrap_or_default());
}

fn take<'a>(packed: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let (&byte, rest) = packed.split_first()?;
        *packed = rest;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (bytes, rest) = packed.split_at_checked(length.checked_sub(1)?)?;
    *packed = rest;
    Some(bytes)
}

fn text<'a>(packed: &mut &'a [u8]) -> Option<&'a str> {
    str::from_utf8(take(packed)?).ok()
}

/// 64 hexadecimal digits, none of them a capital, as numbers.
fn from_digits(id: &str) -> Option<[u8; 32]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits: &[u8; 64] = id.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

fn to_digits(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    let pairs = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    pairs.map(digit).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = Option<Arc<str>>> {
        let text = prop_oneof![
            "[0-9a-f]{64}",
            "[0-9a-fA-F]{63,65}",
            any::<String>(),
            "[a-z]{126,130}"
        ];
        prop::option::of(text.prop_map(Arc::from))
    }

    fn holder() -> impl Strategy<Value = Holder> {
        let text = || prop::option::of(any::<String>().prop_map(Arc::from));
        (id(), text(), text(), text()).prop_map(|(container_id, interface, pod, host_interface)| {
            Holder {
                container_id,
                interface,
                pod,
                mac: None,
                host_interface,
            }
        })
    }

    /// Bytes, and as often host-local's record of that holder, or nearly.
    fn content(holder: &Holder) -> impl Strategy<Value = Vec<u8>> + use<> {
        let id = holder.container_id.clone().unwrap_or_default();
        let interface = holder.interface.clone().unwrap_or_default();
        let record = move |breaks: &str| format!("{id}{breaks}{interface}").into_bytes();
        let near = prop_oneof![Just("\r\n"), Just("\n"), Just("\r\n\r\n"), Just("")];
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            near.prop_map(record),
        ]
    }

    fn lease() -> impl Strategy<Value = (Holder, Vec<u8>)> {
        holder().prop_flat_map(|holder| (Just(holder.clone()), content(&holder)))
    }

    proptest! {
        /// Compare-and-swap needs every byte.
        #[test]
        fn what_is_packed_comes_out_as_it_was((holder, content) in lease()) {
            let packed = Packed::new(&holder, &content);
            let parts = packed.parts();
            prop_assert_eq!(&*parts.content(), &content[..]);
            prop_assert_eq!(parts.name(), holder.name());
            let back = Holder {
                container_id: parts.container_id(),
                interface: parts.interface.map(Arc::from),
                pod: parts.pod.map(Arc::from),
                mac: None,
                host_interface: parts.host_interface.map(Arc::from),
            };
            prop_assert_eq!(back, holder);
        }
    }

    #[test]
    fn what_host_local_writes_takes_little() {
        let holder = Holder {
            container_id: Some("4f1d".repeat(16).into()),
            interface: Some("eth0".into()),
            ..Holder::default()
        };
        let content = format!("{}\r\neth0", "4f1d".repeat(16));
        let packed = Packed::new(&holder, content.as_bytes());
        assert_eq!(packed.0.len(), 1 + 32 + 5 + 1 + 1);
    }
}
