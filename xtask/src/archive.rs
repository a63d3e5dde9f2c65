//! Archives whose bytes depend on nothing but what is in them.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use flate2::{Compression, GzBuilder};

/// What is to be in an archive, by its path, in the order of which it is written.
#[derive(Debug, Default)]
pub struct Archive(BTreeMap<String, Entry>);

#[derive(Debug)]
enum Entry {
    Directory,
    File(u32, Vec<u8>),
}

impl Archive {
    /// A file, and the directories above it.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.parents(path);
        self.0
            .insert(path.to_owned(), Entry::File(mode, content.into()));
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let parent = path[..=end].to_owned();
            self.0.entry(parent).or_insert(Entry::Directory);
        }
    }

    /// The archive as tar, all of it root's and of this time, in seconds since 1970.
    pub fn tar(&self, time: u64) -> io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_ustar();
            header.set_mtime(time);
            header.set_uid(0);
            header.set_gid(0);
            header.set_username("root")?;
            header.set_groupname("root")?;
            header.set_size(0);
            match entry {
                Entry::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    tar.append_data(&mut header, path, io::empty())?;
                }
                Entry::File(mode, content) => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    tar.append_data(&mut header, path, content.as_slice())?;
                }
            }
        }
        tar.into_inner()
    }
}

/// Packed by gzip, without a name or a time of its own.
pub fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
    packed.write_all(bytes)?;
    packed.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_the_same_in_whatever_order_it_was_filled() {
        let files = ["usr/bin/b", "usr/bin/a", "etc/passwd", "usr/share/x/y"];
        let packed = |names: &[&str]| {
            let mut archive = Archive::default();
            for name in names {
                archive.file(name, 0o644, *name);
            }
            gzip(&archive.tar(7).expect("packed")).expect("packed")
        };
        let mut reversed = files;
        reversed.reverse();
        assert_eq!(packed(&files), packed(&reversed));

        let mut archive = Archive::default();
        archive.file("usr/bin/a", 0o755, "a");
        let bytes = archive.tar(7).expect("packed");
        let mut read = tar::Archive::new(bytes.as_slice());
        let found: Vec<_> = read
            .entries()
            .expect("an archive")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let header = entry.header();
                let path = entry.path().expect("a path").display().to_string();
                (
                    path,
                    header.mode().expect("a mode"),
                    header.mtime().expect("a time"),
                )
            })
            .collect();
        let expected = [
            ("usr/".to_owned(), 0o755, 7),
            ("usr/bin/".to_owned(), 0o755, 7),
            ("usr/bin/a".to_owned(), 0o755, 7),
        ];
        assert_eq!(found, expected);
    }
}
