//! The guest's whole file system: an archive that the kernel unpacks into memory.
//!
//! It is staged as symbolic links to this machine's files, which cpio follows, each program
//! with the shared libraries that the dynamic linker finds for it here.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use super::{Programs, package::Unpacked};
use crate::machine;

/// What the suite needs of the kernel, where it isn't built in.
const MODULES: [&str; 13] = [
    "veth",
    "bridge",
    "vxlan",
    "8021q",
    "bonding",
    "dummy",
    "af_packet",
    "ipv6",
    "sch_ingress",
    "cls_bpf",
    "cls_matchall",
    "virtio_pci",
    "virtio_blk",
];

/// Builds the archive in `stage`.
pub fn build(stage: &Path, kernel: &Unpacked, programs: &Programs) -> anyhow::Result<PathBuf> {
    let root = stage.join("root");
    for dir in ["proc", "sys", "dev", "run", "tmp", "etc", "var/lib"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let built = ["ipam-agent", "guest"].map(machine::built);
    let bin = programs.tools.iter().chain(&built);
    for program in bin.chain([&programs.busybox]) {
        add_program(&root, "bin", program)?;
    }
    for plugin in &programs.plugins {
        add_program(&root, "usr/lib/cni", plugin)?;
    }
    let init = root.join("init");
    fs::write(&init, script(&add_modules(&root, kernel, programs)?))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let archive = stage.join("initramfs");
    pack(&root, &archive, programs)?;
    Ok(archive)
}

/// The first program that the kernel starts.
fn script(modules: &[String]) -> String {
    let modules = modules.join(" ");
    format!(
        "#!/bin/busybox sh
export PATH=/bin
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t tmpfs tmpfs /run
ip link set lo up
for module in {modules}; do $b insmod /modules/$module || echo no module $module; done
read up rest < /proc/uptime
echo booted in $up s
# A disk that a whole system is on: what it runs is its own affair.
if [ \"$1\" = system ]; then
    $b mkdir /disk
    $b mount -t ext4 /dev/vda /disk
    $b umount /sys/fs/bpf /sys /run /proc
    $b mount --move /dev /disk/dev
    exec $b switch_root /disk /sbin/init
fi
guest \"$@\"
$b poweroff -f
"
    )
}

/// Puts a program into `dir`, and its shared libraries where they are on this machine.
fn add_program(root: &Path, dir: &str, program: &Path) -> anyhow::Result<()> {
    let name = program.file_name().context("a program has a name")?;
    link(program, &root.join(dir).join(name))?;
    for library in libraries(program)? {
        let inside = library.strip_prefix("/").unwrap_or(&library);
        let place = root.join(inside);
        if !place.exists() {
            link(&library, &place)?;
        }
    }
    Ok(())
}

/// The shared libraries of a program, and its dynamic linker; none of a static one.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("can't run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        ensure!(
            complaint.contains("not a dynamic executable"),
            "ldd {}: {}",
            program.display(),
            complaint.trim()
        );
        return Ok(Vec::new());
    }
    // `NAME => PATH (ADDRESS)`, or the dynamic linker's `PATH (ADDRESS)`.
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), missing.trim());
    }
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

/// Puts the modules and what they depend on into `/modules`; their names, in the order in
/// which they are to be loaded.
fn add_modules(root: &Path, kernel: &Unpacked, programs: &Programs) -> anyhow::Result<Vec<String>> {
    let plan = machine::output(
        Command::new(&programs.modprobe)
            // Not this machine's settings.
            .args(["-C", "/dev/null", "--show-depends", "-d"])
            .arg(&kernel.root)
            .args(["-S", &kernel.release, "-a"])
            .args(MODULES),
    )?;
    let mut order: Vec<String> = Vec::new();
    // `insmod PATH`, or `builtin NAME`.
    for file in plan.lines().filter_map(|line| line.strip_prefix("insmod ")) {
        let file = Path::new(file.trim());
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.context("a module has a name")?.to_owned();
        if !order.contains(&name) {
            link(file, &root.join("modules").join(&name))?;
            order.push(name);
        }
    }
    Ok(order)
}

fn link(file: &Path, place: &Path) -> anyhow::Result<()> {
    if let Some(dir) = place.parent() {
        fs::create_dir_all(dir)?;
    }
    symlink(file, place)
        .with_context(|| format!("can't link {} to {}", place.display(), file.display()))
}

/// Packs what is under `root`, as root's whoever runs this.
fn pack(root: &Path, archive: &Path, programs: &Programs) -> anyhow::Result<()> {
    let mut names = Vec::new();
    list(root, root, &mut names)?;
    let mut cpio = Command::new(&programs.cpio)
        .current_dir(root)
        .args([
            "--create",
            "--format=newc",
            "--dereference",
            "--owner=+0:+0",
        ])
        .args(["--quiet", "--null"])
        .stdin(Stdio::piped())
        .stdout(fs::File::create(archive)?)
        .spawn()
        .with_context(|| format!("can't run {}", programs.cpio.display()))?;
    let mut stdin = cpio.stdin.take().context("no pipe to cpio")?;
    stdin.write_all(&names)?;
    drop(stdin);
    let status = cpio.wait()?;
    ensure!(status.success(), "cpio: {status}");
    Ok(())
}

/// The names of everything under `dir`, relative to `root`, directories before what is in
/// them.
fn list(root: &Path, dir: &Path, names: &mut Vec<u8>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        names.extend(path.strip_prefix(root)?.as_os_str().as_encoded_bytes());
        names.push(0);
        if path.is_dir() {
            list(root, &path, names)?;
        }
    }
    Ok(())
}
