//! host-local's record of one lease: `id CRLF interface`, and what power cuts and older
//! versions leave instead (plugins/ipam/host-local/backend/disk/backend.go).

use std::sync::Arc;

use crate::engine::lease::Damage;

/// The most that is read of a lease file, in bytes. host-local's own records are under 400.
pub const LIMIT: usize = 4096;

/// What a lease file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The container's id.
    pub container_id: Option<Arc<str>>,
    /// The interface inside the container.
    pub interface: Option<Arc<str>>,
    /// What is wrong with it.
    pub damage: Option<Damage>,
}

impl Record {
    /// Reads a lease file's bytes. Any bytes are a record, if only a damaged one.
    pub fn parse(content: &[u8]) -> Self {
        let damaged = |damage| Self {
            damage: Some(damage),
            ..Self::default()
        };
        if content.is_empty() {
            return damaged(Damage::Empty);
        }
        if content.len() > LIMIT {
            return damaged(Damage::Oversized);
        }
        if content.contains(&0) {
            return damaged(Damage::Nul);
        }
        let Ok(text) = str::from_utf8(content) else {
            return damaged(Damage::Truncated);
        };
        let mut lines = text.trim().lines();
        let (id, interface, more) = (lines.next(), lines.next(), lines.next());
        match (id.filter(|id| is_container_id(id)), interface, more) {
            (Some(id), Some(interface), None) if is_interface(interface) => Self {
                container_id: Some(id.into()),
                interface: Some(interface.into()),
                damage: None,
            },
            // Whole CRI ids only: a shorter one can as well be the rest of a longer.
            (Some(id), None, None) if is_sandbox_id(id) => Self {
                container_id: Some(id.into()),
                interface: None,
                damage: Some(Damage::IdOnly),
            },
            _ => damaged(Damage::Truncated),
        }
    }
}

/// What containerd and CRI-O call a sandbox: 64 hexadecimal digits.
fn is_sandbox_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// CNI specification 1.0, "CNI_CONTAINERID": an alphanumeric character, then any of
/// alphanumeric characters, `_`, `.` and `-`.
fn is_container_id(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// The kernel's rule for names of links (`dev_valid_name`).
fn is_interface(text: &str) -> bool {
    (1..16).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "247610f4dedd4ab7247d07dbda19c81ca9817f85820742cad49d407ffae9e4ed";

    #[test]
    fn every_form_that_stands_on_disks_is_told_apart() {
        let of = |text: &str| Record::parse(text.as_bytes());
        for whole in [
            format!("{ID}\r\neth0"),
            format!("{ID}\neth0"),
            format!("{ID}\r\neth0\n"),
        ] {
            let record = of(&whole);
            assert_eq!(record.container_id.as_deref(), Some(ID), "{whole:?}");
            assert_eq!(record.interface.as_deref(), Some("eth0"), "{whole:?}");
            assert_eq!(record.damage, None, "{whole:?}");
        }
        for id_only in [ID.to_owned(), format!("{ID}\r"), format!("{ID}\r\n")] {
            let record = of(&id_only);
            assert_eq!(record.container_id.as_deref(), Some(ID), "{id_only:?}");
            assert_eq!(record.damage, Some(Damage::IdOnly), "{id_only:?}");
        }
        assert_eq!(of("").damage, Some(Damage::Empty));
        assert_eq!(of(&"\0".repeat(17)).damage, Some(Damage::Nul));
        assert_eq!(of(&format!("{ID}\r\neth\0")).damage, Some(Damage::Nul));
        assert_eq!(of(&ID[..40]).damage, Some(Damage::Truncated));
        assert_eq!(of(&ID[..40]).container_id, None);
        assert_eq!(
            of(&format!("{ID}\r\neth0\r\nmore")).damage,
            Some(Damage::Truncated)
        );
        assert_eq!(of("\r\neth0").damage, Some(Damage::Truncated));
        for filler in ["a", "\0"] {
            let most = filler.repeat(LIMIT);
            assert_ne!(of(&most).damage, Some(Damage::Oversized));
            assert_eq!(of(&(most + filler)).damage, Some(Damage::Oversized));
        }
    }

    proptest! {
        #[test]
        fn a_record_is_whole_or_named_damaged(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let record = Record::parse(&content);
            let whole = record.container_id.is_some() && record.interface.is_some();
            prop_assert_eq!(whole, record.damage.is_none());
        }

        #[test]
        fn no_cut_of_a_record_names_another_container(cut in 0usize..70) {
            let whole = format!("{ID}\r\neth0");
            let record = Record::parse(&whole.as_bytes()[..cut]);
            prop_assert!(record.container_id.is_none_or(|id| &*id == ID));
        }
    }
}
