//! Whether what is written to a directory is still there after a reboot.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};

/// linux/magic.h; `statfs` of ramfs.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// What is written there would not survive a reboot, or nobody can say.
#[derive(Debug, thiserror::Error)]
pub enum NotPersistent {
    /// In memory.
    #[error("{} is on {file_system}, which a reboot empties; give a state_dir on a disk", .path.display())]
    Memory {
        /// The directory.
        path: PathBuf,
        /// Its file system.
        file_system: &'static str,
    },
    /// On an overlay that goes with the boot or the container.
    #[error("{} is on a volatile overlay ({detail}); give a state_dir on a disk, in a container a hostPath volume", .path.display())]
    Overlay {
        /// The directory.
        path: PathBuf,
        /// What is known of the overlay.
        detail: String,
    },
    /// Unknown.
    #[error("cannot tell whether {} survives a reboot", .path.display())]
    Unknown {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether a reboot keeps what is in `directory`, which need not exist yet. Looks at the
/// file system's kind and, of an overlay, at where its upper layer is.
pub fn persistence(directory: &Path) -> Result<(), NotPersistent> {
    let path = directory.to_owned();
    let unknown = |source| NotPersistent::Unknown {
        path: path.clone(),
        source,
    };
    let there = existing(directory).map_err(unknown)?;
    match in_memory(&there).map_err(unknown)? {
        Kind::Memory(file_system) => return Err(NotPersistent::Memory { path, file_system }),
        Kind::Overlay => {}
        Kind::Disk => return Ok(()),
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(unknown)?;
    let volatile = |detail: String| {
        Err(NotPersistent::Overlay {
            path: path.clone(),
            detail,
        })
    };
    let Some(upper) = upper_directory(&mounts, &there) else {
        return volatile("without an upper layer".to_owned());
    };
    // Of a container's own root the upper layer is the host's, out of sight from in here.
    match in_memory(&upper) {
        Ok(Kind::Disk) => Ok(()),
        Ok(Kind::Memory(file_system)) => volatile(format!(
            "its upper layer {} is on {file_system}",
            upper.display()
        )),
        Ok(Kind::Overlay) => volatile(format!(
            "its upper layer {} is on an overlay again",
            upper.display()
        )),
        Err(_) => volatile("a container's own file system".to_owned()),
    }
}

/// What a file system promises.
enum Kind {
    Memory(&'static str),
    Overlay,
    Disk,
}

fn in_memory(path: &Path) -> io::Result<Kind> {
    Ok(match statfs(path)?.filesystem_type() {
        TMPFS_MAGIC => Kind::Memory("tmpfs"),
        RAMFS_MAGIC => Kind::Memory("ramfs"),
        OVERLAYFS_SUPER_MAGIC => Kind::Overlay,
        _ => Kind::Disk,
    })
}

/// The directory, or the nearest above it that exists, without links.
fn existing(directory: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(directory)?;
    for above in absolute.ancestors() {
        match fs::canonicalize(above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    Ok(PathBuf::from("/"))
}

/// The upper layer of the overlay that `path` is on (proc_pid_mountinfo(5)): the last mount
/// on the longest way to it.
fn upper_directory(mounts: &str, path: &Path) -> Option<PathBuf> {
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let point = PathBuf::from(unescape(front.split(' ').nth(4)?));
            let options = back.split(' ').nth(2)?;
            path.starts_with(&point).then_some((point, options))
        })
        // Of equals the last.
        .max_by_key(|(point, _)| point.components().count())?;
    let upper = mount
        .1
        .split(',')
        .find_map(|option| option.strip_prefix("upperdir="))?;
    Some(PathBuf::from(unescape(upper)))
}

/// A path with spaces, tabs, newlines and backslashes as `\040` and the like.
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (escaped, character) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        plain = plain.replace(escaped, character);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_layer_is_of_the_last_mount_on_the_way() {
        let mounts = "\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:30 / /var rw,relatime shared:1 - overlay overlay rw,lowerdir=/var,upperdir=/run/overlay/var/upper,workdir=/run/overlay/var/work
31 30 8:2 / /var/lib/rancher rw - ext4 /dev/sda2 rw
32 22 0:31 / /with\\040space rw - overlay overlay rw,lowerdir=/a,upperdir=/b\\040c,workdir=/d
33 22 0:32 / /over rw - overlay overlay rw,lowerdir=/a,upperdir=/first,workdir=/d
34 33 0:33 / /over rw - overlay overlay rw,lowerdir=/a,upperdir=/second,workdir=/d
";
        let upper = |path: &str| {
            upper_directory(mounts, Path::new(path)).map(|path| path.display().to_string())
        };
        assert_eq!(
            upper("/var/lib/ipam-agent").as_deref(),
            Some("/run/overlay/var/upper")
        );
        assert_eq!(upper("/var/lib/rancher/ipam-agent"), None);
        assert_eq!(upper("/variant"), None);
        assert_eq!(upper("/with space/x").as_deref(), Some("/b c"));
        assert_eq!(upper("/over/x").as_deref(), Some("/second"));
    }

    #[test]
    fn what_is_in_memory_is_told() {
        let shm = Path::new("/dev/shm");
        if !shm.is_dir() || !matches!(in_memory(shm), Ok(Kind::Memory(_))) {
            eprintln!("skipped: /dev/shm is no tmpfs here");
            return;
        }
        let error = persistence(&shm.join("ipam-agent/not/there/yet")).expect_err("in memory");
        assert!(
            matches!(
                error,
                NotPersistent::Memory {
                    file_system: "tmpfs",
                    ..
                }
            ),
            "{error}"
        );
    }
}
