//! `cargo xtask test --kernels`: the suite of the kernels that a developer's machine doesn't
//! run. Each is a distribution's own, booted under qemu's software emulation with the agent
//! inside, so KVM isn't needed, and the machine's own network is not touched.
//!
//! The guest says how its suite ended over the serial console. Whatever else happens (a
//! panic, a hang, another kernel than the one asked for) is a failure.

mod initramfs;
mod package;
mod power_cut;
mod system;

use std::{
    env,
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

/// How long a kernel may take, from its start to its end: several times what it takes two
/// emulated processors on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(600);

/// A kernel that the suite runs on.
struct Kernel {
    /// What `--kernels` calls it.
    name: &'static str,
    /// The packages it comes in: a regular expression as `apt-cache search` takes it. The
    /// newest is taken.
    packages: &'static str,
    /// Where they are.
    suite: &'static str,
}

const KERNELS: [Kernel; 1] = [Kernel {
    name: "6.1",
    packages: r"^linux-image-6\.1\.0-[0-9]+-cloud-amd64-unsigned$",
    suite: "Debian 12, bookworm",
}];

/// Runs the suite on these kernels, one after the other, with the workspace's programs as
/// they are built.
pub fn run(names: &[String]) -> anyhow::Result<()> {
    let kernels = names
        .iter()
        .map(|name| Kernel::named(name))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let programs = Programs::find()?;
    for kernel in kernels {
        kernel
            .test(&programs)
            .with_context(|| format!("Linux {}", kernel.name))?;
    }
    Ok(())
}

impl Kernel {
    fn named(name: &str) -> anyhow::Result<&'static Self> {
        KERNELS
            .iter()
            .find(|kernel| kernel.name == name)
            .with_context(|| {
                let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
                format!("no kernel {name}: there is {}", known.join(", "))
            })
    }

    fn test(&self, programs: &Programs) -> anyhow::Result<()> {
        let unpacked = package::unpacked(self, programs)?;
        let stage = tempfile::tempdir()?;
        let guest = Guest {
            initramfs: initramfs::build(stage.path(), &unpacked, programs)?,
            kernel: unpacked,
            programs,
        };
        guest.run("the suite", &Boot::default())?;
        power_cut::test(&guest, stage.path())?;
        system::test(&guest)
    }
}

/// What boots.
struct Guest<'a> {
    kernel: package::Unpacked,
    initramfs: PathBuf,
    programs: &'a Programs,
}

/// How it is booted.
#[derive(Default)]
struct Boot<'a> {
    /// The part of the guest's program that runs, without a name the suite; or `system`.
    part: Option<&'a str>,
    /// `/dev/vda`.
    disk: Option<&'a Path>,
    /// The power is cut as soon as there is a verdict.
    cut: bool,
}

impl Guest<'_> {
    /// Boots it, and fails unless its verdict is that all passed.
    fn run(&self, what: &str, how: &Boot<'_>) -> anyhow::Result<()> {
        let started = Instant::now();
        let verdict = self.boot(how).context(what.to_owned())?;
        ensure!(
            verdict.kernel == self.kernel.release,
            "{} was to be booted, {} says it ran",
            self.kernel.release,
            verdict.kernel
        );
        println!(
            "Linux {}, {what}: {} passed, {} failed, {:.0} s",
            verdict.kernel,
            verdict.passed,
            verdict.failed,
            started.elapsed().as_secs_f64()
        );
        ensure!(
            verdict.failed == 0 && verdict.passed > 0,
            "{what} failed: see above"
        );
        Ok(())
    }

    /// Boots the kernel, shows what its console says, and gives back the verdict.
    fn boot(&self, how: &Boot<'_>) -> anyhow::Result<Verdict> {
        let mut qemu = Command::new(&self.programs.qemu);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .args(["-machine", "q35", "-cpu", "max"])
            .args(["-accel", "tcg,thread=multi"])
            .args(["-smp", "2", "-m", "1024"])
            .args([OsStr::new("-kernel"), self.kernel.vmlinuz.as_os_str()])
            .args([OsStr::new("-initrd"), self.initramfs.as_os_str()]);
        if let Some(disk) = how.disk {
            // What the guest has written is kept when the emulator is killed.
            let file = format!("file={},format=raw,if=none,id=disk", disk.display());
            qemu.args(["-drive", &format!("{file},cache=writeback")])
                .args(["-device", "virtio-blk-pci,drive=disk"]);
        }
        // panic=-1 and -no-reboot: a panic ends the emulator.
        let part = how.part.unwrap_or_default();
        // The console is nobody's to log in on.
        let words = format!(
            "console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=0 \
             systemd.mask=serial-getty@ttyS0.service -- {part}"
        );
        let mut qemu = qemu
            .args(["-append", &words])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("can't run {}", self.programs.qemu.display()))?;
        let verdict = listen(&mut qemu, how.cut);
        // It has ended, or is to.
        let _ = qemu.kill();
        qemu.wait()?;
        verdict
    }
}

/// The programs of this machine that are needed, here or in the guest.
struct Programs {
    qemu: PathBuf,
    busybox: PathBuf,
    cpio: PathBuf,
    depmod: PathBuf,
    modprobe: PathBuf,
    mkfs: PathBuf,
    /// For the guest's `/bin`.
    tools: Vec<PathBuf>,
    /// For the guest's `/usr/lib/cni`.
    plugins: Vec<PathBuf>,
}

impl Programs {
    fn find() -> anyhow::Result<Self> {
        let mut missing = Vec::new();
        let mut find = |name: &str| {
            program(name).unwrap_or_else(|| {
                missing.push(name.to_owned());
                PathBuf::new()
            })
        };
        let programs = Self {
            qemu: find("qemu-system-x86_64"),
            busybox: find("busybox"),
            cpio: find("cpio"),
            depmod: find("depmod"),
            modprobe: find("modprobe"),
            mkfs: find("mkfs.ext4"),
            tools: ["ip", "bridge", "tc"].map(&mut find).into(),
            plugins: ["/usr/lib/cni/bridge", "/usr/lib/cni/host-local"]
                .map(&mut find)
                .into(),
        };
        ensure!(
            missing.is_empty(),
            "{} not found: `cargo xtask setup` installs what is missing",
            missing.join(", ")
        );
        Ok(programs)
    }
}

/// Where a program is; the system's are found too where the PATH is an ordinary user's.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// What the guest's suite says of itself.
#[derive(Deserialize)]
struct Verdict {
    schema: String,
    kernel: String,
    passed: u32,
    failed: u32,
}

impl Verdict {
    /// The verdict, if this line of the console is one.
    fn in_line(line: &str) -> Option<Self> {
        let verdict: Self = serde_json::from_str(line).ok()?;
        (verdict.schema == "ipam-agent/kernel-suite/v1").then_some(verdict)
    }
}

/// Follows the console, for no longer than there is patience: to its end, or to the verdict
/// where the power is then cut.
fn listen(qemu: &mut Child, cut: bool) -> anyhow::Result<Verdict> {
    let console = qemu.stdout.take().context("no console")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || follow(console, &sender));
    let deadline = Instant::now() + PATIENCE;
    let mut verdict = None;
    while !(cut && verdict.is_some()) {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => match Verdict::in_line(&line) {
                None => eprintln!("  {line}"),
                found => verdict = found,
            },
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("no end after {} s: see above", PATIENCE.as_secs())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    verdict.context("the guest ended without a verdict: see above")
}

fn follow(console: ChildStdout, lines: &mpsc::Sender<String>) {
    for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if lines.send(line.trim_end().to_owned()).is_err() {
            break;
        }
    }
}
