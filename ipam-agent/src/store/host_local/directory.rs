//! One directory, of a network or a cache, held open: everything in it is reached through the handle, so
//! that a directory which replaces it meanwhile is never read or written by mistake.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::{File, Permissions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, PermissionsExt, fchown},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat},
    sys::{
        stat::{Mode, fstatat},
        statfs::{self, FsType, fstatfs},
    },
    unistd::{UnlinkatFlags, fsync, linkat, unlinkat},
};

use crate::{engine::lease::Generation, store::FileOwner};

/// A directory.
pub struct Directory {
    path: PathBuf,
    handle: OwnedFd,
}

/// What stands under a name.
pub enum Entry {
    /// A file, read up to one byte over what was asked for.
    File(Generation),
    /// A symbolic link.
    Link,
    /// Neither.
    Other,
}

impl Directory {
    /// Opens the directory at `path`.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        Self::open_with(path, OFlag::empty())
    }

    /// The same, unless a link stands there.
    pub fn open_itself(path: PathBuf) -> io::Result<Self> {
        Self::open_with(path, OFlag::O_NOFOLLOW)
    }

    fn open_with(path: PathBuf, flags: OFlag) -> io::Result<Self> {
        let flags = flags | OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let handle = open(&path, flags, Mode::empty())?;
        Ok(Self { path, handle })
    }

    /// Where it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its names. A directory that changes while it is listed may show a name or not.
    pub fn names(&self) -> io::Result<Vec<(CString, Option<Type>)>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut listing = Dir::openat(&self.handle, ".", flags, Mode::empty())?;
        let names = listing
            .iter()
            .map(|entry| entry.map(|entry| (entry.file_name().to_owned(), entry.file_type())));
        Ok(names.collect::<Result<_, Errno>>()?)
    }

    /// What stands under `name`, of a file up to one byte over `limit`; `None` if nothing
    /// does (any more).
    pub fn entry(&self, name: &CStr, limit: usize) -> io::Result<Option<Entry>> {
        // A pipe must not block, a link must not lead elsewhere.
        let flags = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_CLOEXEC
            | OFlag::O_NOCTTY;
        let file = match openat(&self.handle, name, flags, Mode::empty()) {
            Ok(handle) => File::from(handle),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Ok(Some(Entry::Link)),
            // What a socket answers, and a device without a driver.
            Err(Errno::ENXIO | Errno::ENODEV) => return Ok(Some(Entry::Other)),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        if !kind.is_file() || kind.is_fifo() {
            return Ok(Some(Entry::Other));
        }
        let mut content = Vec::with_capacity(
            usize::try_from(metadata.size()).map_or(limit, |size| size.min(limit)) + 1,
        );
        file.take(limit as u64 + 1).read_to_end(&mut content)?;
        Ok(Some(Entry::File(Generation {
            inode: metadata.ino(),
            modified: metadata
                .mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.mtime_nsec()),
            content: content.into(),
        })))
    }

    /// Opens the lock as host-local does, which makes it if it isn't there. Read-only, which
    /// is enough for flock(2) and does not pass for a write.
    pub fn open_lock(&self) -> io::Result<File> {
        let flags = OFlag::O_RDONLY
            | OFlag::O_CREAT
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_CLOEXEC;
        Ok(File::from(openat(
            &self.handle,
            LOCK,
            flags,
            Mode::from_bits_truncate(0o750),
        )?))
    }

    /// Whether `lock` is the file that everybody else locks, too.
    pub fn is_the_lock(&self, lock: &File) -> io::Result<bool> {
        let opened = lock.metadata()?;
        match fstatat(&self.handle, LOCK, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((there.st_dev, there.st_ino) == (opened.dev(), opened.ino())),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether its path still leads to it.
    pub fn is_in_place(&self) -> io::Result<bool> {
        let opened = File::from(self.handle.try_clone()?).metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (opened.dev(), opened.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Unlinks the one file `name`.
    pub fn unlink(&self, name: &CStr) -> io::Result<()> {
        Ok(unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Who may read and write the file under `name`.
    pub fn owner(&self, name: &CStr) -> io::Result<FileOwner> {
        let there = fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(FileOwner {
            mode: there.st_mode & 0o7777,
            uid: there.st_uid,
            gid: there.st_gid,
            directory: None,
        })
    }

    /// Makes a file on the directory's file system that has no name yet: whatever happens
    /// before it gets one, nobody ever meets it half written.
    pub fn prepare(&self, content: &[u8], owner: FileOwner) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut file = File::from(openat(&self.handle, ".", flags, private)?);
        file.write_all(content)?;
        // Of another owner at best: who may not give files away keeps them readable for root.
        let _ = fchown(&file, Some(owner.uid), Some(owner.gid));
        file.set_permissions(Permissions::from_mode(owner.mode))?;
        file.sync_all()?;
        Ok(file)
    }

    /// Gives such a file its name, unless there is one of that name.
    pub fn link(&self, file: &File, name: &CStr) -> io::Result<()> {
        // open(2), O_TMPFILE: the way that needs no capability.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        Ok(linkat(AT_FDCWD, path.as_str(), &self.handle, name, follow)?)
    }

    /// Has what was linked and unlinked written to disk.
    pub fn flush(&self) -> io::Result<()> {
        Ok(fsync(self.handle.as_fd())?)
    }

    /// The network file system it is on, if it is: flock(2) there may not reach the others,
    /// and the leases may be another host's.
    pub fn network_file_system(&self) -> io::Result<Option<&'static str>> {
        Ok(network_file_system(
            fstatfs(&self.handle)?.filesystem_type(),
        ))
    }
}

/// host-local's lock in a network's directory.
pub const LOCK: &CStr = c"lock";
/// What the names of host-local's own notes begin with.
pub const LAST_RESERVED: &[u8] = b"last_reserved_ip.";

/// The name of a network or cluster file system (statfs(2), linux/magic.h).
fn network_file_system(kind: FsType) -> Option<&'static str> {
    const CIFS: FsType = FsType(0xff53_4d42);
    const SMB2: FsType = FsType(0xfe53_4d42);
    const CEPH: FsType = FsType(0x00c3_6400);
    const V9FS: FsType = FsType(0x0102_1997);
    const GFS2: FsType = FsType(0x0116_1970);
    const OCFS2: FsType = FsType(0x7461_636f);
    const LUSTRE: FsType = FsType(0x0bd0_0bd0);
    match kind {
        statfs::NFS_SUPER_MAGIC => Some("NFS"),
        statfs::SMB_SUPER_MAGIC | CIFS | SMB2 => Some("CIFS"),
        statfs::CODA_SUPER_MAGIC => Some("Coda"),
        statfs::AFS_SUPER_MAGIC => Some("AFS"),
        statfs::FUSE_SUPER_MAGIC => Some("FUSE"),
        CEPH => Some("Ceph"),
        V9FS => Some("9p"),
        GFS2 => Some("GFS2"),
        OCFS2 => Some("OCFS2"),
        LUSTRE => Some("Lustre"),
        _ => None,
    }
}

/// The name for people.
pub fn shown(name: &CStr) -> String {
    OsStr::from_bytes(name.to_bytes())
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        assert_eq!(network_file_system(statfs::NFS_SUPER_MAGIC), Some("NFS"));
        assert_eq!(network_file_system(FsType(0xff53_4d42)), Some("CIFS"));
        assert_eq!(network_file_system(statfs::EXT4_SUPER_MAGIC), None);
        assert_eq!(network_file_system(statfs::TMPFS_MAGIC), None);
    }

    #[test]
    fn a_lock_that_was_replaced_is_not_the_lock() {
        let base = tempfile::tempdir().expect("a directory");
        let directory = Directory::open(base.path().to_owned()).expect("open");
        let lock = directory.open_lock().expect("made");
        assert!(directory.is_the_lock(&lock).expect("examined"));
        std::fs::remove_file(base.path().join("lock")).expect("removed");
        assert!(!directory.is_the_lock(&lock).expect("examined"));
        let new = directory.open_lock().expect("made again");
        assert!(!directory.is_the_lock(&lock).expect("examined"));
        assert!(directory.is_the_lock(&new).expect("examined"));
    }
}
