//! A throw-away host on this machine: network and mount namespaces of its own, with its
//! own `/run`, `/var/lib/cni`, `/etc/cni/net.d` and boot id. Pods are network namespaces
//! on veths.
//!
//! Everything happens on one thread that has left the machine's namespaces; when the
//! thread ends the kernel takes it all away again. Programs started from that thread see
//! the laboratory, nothing else does.

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::runtime::{Network, Pod};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// The machine as the laboratory's programs see it.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    boots: u32,
}

/// Whether a laboratory can be made here; if not, why.
pub fn available() -> Result<(), String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err(String::from("this needs root"));
    }
    for program in ["ip", "bridge"] {
        run(program, &["-V"]).map_err(|e| format!("{e:#}: run `cargo xtask setup`"))?;
    }
    Ok(())
}

/// Runs `test` in a laboratory of its own. Without the means it says so and does nothing,
/// or fails where skips are not allowed (`IPAM_AGENT_NO_SKIP`).
///
/// # Panics
///
/// If the test fails.
pub fn in_lab<F>(test: F)
where
    F: FnOnce(&mut Lab) -> Result<()> + Send + 'static,
{
    if let Err(why) = available() {
        crate::skip::skip(&why);
        return;
    }
    if let Err(error) = try_in_lab(test) {
        panic!("{error:?}");
    }
}

/// Runs `act` in a laboratory of its own.
///
/// # Errors
///
/// What `act` gives back, or why there is no laboratory.
///
/// # Panics
///
/// If `act` does.
pub fn try_in_lab<T, F>(act: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(&mut Lab) -> Result<T> + Send + 'static,
{
    let thread = thread::Builder::new().name(String::from("lab"));
    let lab = thread.spawn(|| {
        let dir = disk()?;
        let mut lab = Lab::enter(dir.path())?;
        act(&mut lab)
    })?;
    lab.join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A directory for what a disk would hold. `/tmp` is in memory on many machines, and the
/// agent releases nothing whose record a reboot would empty.
fn disk() -> Result<tempfile::TempDir> {
    let place = Path::new("/var/tmp");
    let dir = if place.is_dir() {
        tempfile::tempdir_in(place)
    } else {
        tempfile::tempdir()
    };
    dir.context("no place for the laboratory's disk")
}

impl Lab {
    /// Leaves the machine's namespaces with this thread and sets up the host in `dir`,
    /// which holds what a disk would.
    pub fn enter(dir: &Path) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .context("can't leave the machine's namespaces")?;
        mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)
            .context("can't make mounts private")?;
        let mut lab = Self::whole_machine(dir)?;
        lab.boot()?;
        Ok(lab)
    }

    /// The machine itself, with its own boot id and namespaces: only for one that is there
    /// for nothing else. What survives a power cut is in `dir`.
    pub fn whole_machine(dir: &Path) -> Result<Self> {
        for (name, place) in [("cni", "/var/lib/cni"), ("net.d", "/etc/cni/net.d")] {
            let disk = dir.join(name);
            fs::create_dir_all(&disk)?;
            fs::create_dir_all(place)?;
            bind(&disk, Path::new(place))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            boots: 0,
        })
    }

    /// The machine itself, as it is: only for one that is there for nothing else.
    pub fn this_machine() -> Self {
        Self {
            dir: PathBuf::from("/"),
            boots: 0,
        }
    }

    /// The host's disk: what survives a power cut.
    pub fn disk(&self) -> &Path {
        &self.dir
    }

    /// Starts the host: an empty `/run`, a new boot id, the loopback up.
    fn boot(&mut self) -> Result<()> {
        self.boots += 1;
        mount::<str, str, str, str>(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), None)
            .context("can't mount a tmpfs on /run")?;
        fs::create_dir_all("/run/netns")?;
        mount::<str, str, str, str>(
            Some("bpf"),
            "/sys/fs/bpf",
            Some("bpf"),
            MsFlags::empty(),
            None,
        )
        .context("can't mount a BPF file system")?;
        let id = format!("00000000-0000-4000-8000-{:012x}", self.boots);
        fs::write("/run/boot_id", format!("{id}\n"))?;
        bind(
            Path::new("/run/boot_id"),
            Path::new("/proc/sys/kernel/random/boot_id"),
        )?;
        ip(&["link", "set", "lo", "up"])
    }

    /// Cuts the power and boots again: every namespace, link and mount is gone, `/run` is
    /// empty, the boot id is another; the disk stays.
    pub fn power_cut(&mut self) -> Result<()> {
        for pod in fs::read_dir("/run/netns")?.flatten() {
            if let Some(name) = pod.file_name().to_str() {
                ip(&["netns", "del", name])?;
            }
        }
        for link in links()? {
            if link != "lo" {
                // Its peer may have taken it along.
                let _ = Command::new("ip")
                    .args(["link", "del", &link])
                    .stderr(Stdio::null())
                    .status();
            }
        }
        self.boot()
    }

    /// Has a pod of before the power cut come back with its old addresses and MAC, without
    /// asking the plugins: as what restores itself does.
    pub fn restore(&self, network: &Network, pod: &Pod) -> Result<Pod> {
        let netns = self.pod(&pod.name)?;
        let host = &pod.host_interface;
        let bridge = network.make_bridge()?;
        let mut link = vec!["link", "add", host, "type", "veth", "peer", "name", "eth0"];
        link.extend(["address", &pod.mac, "netns", netns.name()]);
        ip(&link)?;
        ip(&["link", "set", host, "master", &bridge, "up"])?;
        let inside = |args: &[&str]| ip(&[&["-n", netns.name()], args].concat());
        inside(&["link", "set", "eth0", "up"])?;
        for (address, prefix) in &pod.prefixed {
            let with_prefix = format!("{address}/{prefix}");
            let mut add = vec!["address", "add", &with_prefix, "dev", "eth0"];
            if address.is_ipv6() {
                add.push("nodad");
            }
            inside(&add)?;
        }
        Ok(Pod {
            netns,
            ..pod.clone()
        })
    }

    /// A network namespace for a pod.
    pub fn pod(&self, name: &str) -> Result<Netns> {
        ip(&["netns", "add", name])?;
        let netns = Netns {
            path: Path::new("/run/netns").join(name),
        };
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// A guest on a bridge, made by no plugin: a namespace whose `eth0` is the other end of
    /// `port` here. It has no address and says nothing by itself.
    pub fn guest(&self, name: &str, port: &str, bridge: &str) -> Result<Netns> {
        let guest = self.pod(name)?;
        self.plug(&guest, "eth0", port, bridge)?;
        Ok(guest)
    }

    /// Gives a guest an interface: the other end of `port`, which is put on the bridge.
    pub fn plug(&self, guest: &Netns, interface: &str, port: &str, bridge: &str) -> Result<()> {
        let name = guest.name();
        let add = ["link", "add", port, "type", "veth", "peer", "name"];
        ip(&[&add[..], &[interface, "netns", name]].concat())?;
        guest.inside(|| {
            // Else its kernel solicits routers.
            let conf = Path::new("/proc/sys/net/ipv6/conf").join(interface);
            fs::write(conf.join("accept_dad"), "0")?;
            fs::write(conf.join("addr_gen_mode"), "1")?;
            Ok(())
        })?;
        ip(&["-n", name, "link", "set", interface, "up"])?;
        ip(&["link", "set", port, "master", bridge, "up"])?;
        // Until the kernel has acted on the carrier it drops what is sent, without a word.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !run("ip", &["-n", name, "link", "show", interface])?.contains("state UP") {
            ensure!(Instant::now() < deadline, "{name} has no carrier");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// A network namespace by its path.
#[derive(Clone, Debug)]
pub struct Netns {
    path: PathBuf,
}

impl Netns {
    /// Its path, as CNI wants it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name in `/run/netns`.
    pub fn name(&self) -> &str {
        self.path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }

    /// Does something inside it, on a thread of its own.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(&self.path).with_context(|| format!("no namespace {self:?}"))?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).context("can't enter the namespace")?;
                act()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Has the pod's kernel ask for `peer`: an ARP request or Neighbor Solicitation with
    /// the pod's own source, as any first packet makes it send.
    pub fn speak_to(&self, peer: IpAddr) -> Result<()> {
        let any: IpAddr = match peer {
            IpAddr::V4(_) => [0, 0, 0, 0].into(),
            IpAddr::V6(_) => [0u16; 8].into(),
        };
        self.speak_from(any, peer)
    }

    /// The same from one of the pod's addresses.
    pub fn speak_from(&self, source: IpAddr, peer: IpAddr) -> Result<()> {
        self.inside(move || {
            // What is known already would not be asked for.
            let _ = Command::new("ip")
                .args(["neigh", "flush", "to", &peer.to_string()])
                .stderr(Stdio::null())
                .status();
            let socket = UdpSocket::bind(SocketAddr::new(source, 0))?;
            socket
                .send_to(b"hello", SocketAddr::new(peer, 9))
                .with_context(|| format!("can't send to {peer}"))?;
            Ok(())
        })
    }

    /// Sends frames, as they are, out of `interface`.
    pub fn send(&self, interface: &str, frames: &[Vec<u8>]) -> Result<()> {
        self.inside(|| send(interface, frames))
    }
}

/// Sends frames, as they are, out of `interface` of this thread's network namespace.
pub fn send(interface: &str, frames: &[Vec<u8>]) -> Result<()> {
    let mut sender = Sender::open(interface)?;
    frames.iter().try_for_each(|frame| sender.send(frame))
}

/// Sends frames, as they are, out of one interface, from whatever thread has it.
pub struct Sender {
    interface: String,
    socket: Box<dyn pnet_datalink::DataLinkSender>,
}

impl Sender {
    /// Of an interface of this thread's network namespace.
    pub fn open(interface: &str) -> Result<Self> {
        let link = pnet_datalink::interfaces()
            .into_iter()
            .find(|link| link.name == interface)
            .with_context(|| format!("no interface {interface}"))?;
        let channel = pnet_datalink::channel(&link, pnet_datalink::Config::default())
            .with_context(|| format!("can't open {interface}"))?;
        let pnet_datalink::Channel::Ethernet(socket, _) = channel else {
            bail!("{interface} is no Ethernet");
        };
        Ok(Self {
            interface: interface.to_owned(),
            socket,
        })
    }

    /// Sends one frame.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        let interface = &self.interface;
        loop {
            match self.socket.send_to(frame, None) {
                Some(Ok(())) => return Ok(()),
                // The device's queue is full.
                Some(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    thread::yield_now();
                }
                Some(Err(error)) => {
                    return Err(error).with_context(|| format!("can't send out of {interface}"));
                }
                None => bail!("{interface} takes no frame of {} bytes", frame.len()),
            }
        }
    }
}

/// Runs `ip` with these arguments.
pub fn ip(args: &[&str]) -> Result<()> {
    run("ip", args).map(drop)
}

/// Runs a program to its end and gives back what it printed.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {} failed: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim(),
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn links() -> Result<Vec<String>> {
    let links: Vec<serde_json::Value> = serde_json::from_str(&run("ip", &["-j", "link"])?)?;
    Ok(links
        .iter()
        .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
        .collect())
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount::<_, _, str, str>(Some(from), to, None, MsFlags::MS_BIND, None)
        .with_context(|| format!("can't bind {} to {}", from.display(), to.display()))
}
