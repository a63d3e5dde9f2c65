//! Whether the agent runs in a pod, and in which sandbox.

use std::{env, fs};

use crate::engine::holders::Own;

/// What kubelet sets in every container of every pod.
const IN_A_POD: &str = "KUBERNETES_SERVICE_HOST";
/// What runtimes mount into every container from a directory that is named after its
/// sandbox.
const FROM_THE_SANDBOX: [&str; 3] = ["/etc/hostname", "/etc/resolv.conf", "/dev/shm"];
/// Hex digits of an id (containerd, CRI-O and Docker alike).
const ID: usize = 64;

/// How the agent runs.
pub fn own() -> Own {
    if env::var_os(IN_A_POD).is_none() {
        return Own::Host;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Own::Pod(sandbox_of(&mounts).map(Into::into))
}

/// The sandbox of the process whose `/proc/PID/mountinfo` this is. Its cgroup would tell
/// the container only, and inside a cgroup namespace nothing at all.
pub fn sandbox_of(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        // Mount id, parent, device, root, mount point (proc_pid_mountinfo(5)).
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if !FROM_THE_SANDBOX.contains(&point) {
            return None;
        }
        let is_id = |part: &&str| part.len() == ID && part.bytes().all(|b| b.is_ascii_hexdigit());
        root.split('/').find(is_id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_is_told_by_what_is_mounted_from_it() {
        let id = "3f0c".repeat(16);
        for root in [
            format!(
                "/var/lib/rancher/rke2/agent/containerd/io.containerd.grpc.v1.cri/sandboxes/{id}/resolv.conf"
            ),
            format!("/containers/storage/overlay-containers/{id}/userdata/resolv.conf"),
        ] {
            let other = "a1".repeat(32);
            let mounts = format!(
                "830 740 0:51 / / rw,relatime master:1 - overlay overlay rw\n\
                 831 830 8:1 /var/lib/kubelet/pods/{other}/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw\n\
                 832 830 8:1 {root} /etc/resolv.conf rw,relatime - ext4 /dev/sda1 rw\n"
            );
            assert_eq!(sandbox_of(&mounts), Some(&*id));
        }
        assert_eq!(sandbox_of(""), None);
        assert_eq!(
            sandbox_of("1 2 3\n\n8 1 8:1 /etc/hostname /etc/hostname rw"),
            None
        );
    }
}
