//! The real containerd and runc, with the real bridge and host-local plugins, in a
//! laboratory: a node of its own processes and mounts, whose power can be cut.
//!
//! Sandboxes are made over CRI, as kubelet makes them; their image is built here.

use std::{
    collections::HashMap,
    fs,
    future::Future,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ipam_agent::holder::cri::{self, Client, Runtime};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prost::Message;

use crate::{image::Image, lab::Lab, process::Process};

/// Where it listens, as a packaged containerd does.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where plugins are looked for: the machine's, and those of tests.
const PLUGINS: &str = "/usr/lib/cni";
/// What containers are made of, on the node's disk.
const BASE_SPEC: &str = "base-spec.json";
/// The one program of the one image.
const BUSYBOX: &str = "/bin/busybox";
/// Where a boot has its name.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What sandboxes run, and pods: it sleeps.
pub const IMAGE: &str = "registry.local/pause:1";
/// How long anything may take on a machine that does much else; a kubelet tries again after
/// tens of seconds.
const PATIENCE: Duration = Duration::from_secs(240);

/// A node, booted, with its container runtime. Everything in it dies when it is dropped.
pub struct Node {
    dir: PathBuf,
    cgroup: String,
    init: Process,
    containerd: Option<Process>,
}

/// Whether there is all that a node needs; if not, the mend.
pub fn available() -> Result<(), String> {
    crate::runtime::available()?;
    for program in ["/usr/bin/containerd", "/usr/bin/ctr", BUSYBOX] {
        if !Path::new(program).exists() {
            return Err(format!("no {program}: run `cargo xtask setup`"));
        }
    }
    Ok(())
}

/// Runs `test` in a laboratory with a node's programs, or says that it is skipped.
///
/// # Panics
///
/// If the test fails, or is skipped where that is not allowed.
pub fn in_lab<F>(test: F)
where
    F: FnOnce(&mut Lab) -> Result<()> + Send + 'static,
{
    match available() {
        Ok(()) => crate::lab::in_lab(test),
        Err(why) => {
            crate::skip::skip(&why);
        }
    }
}

/// A plugin that passes on what it is given, and whose ADD takes until `release` exists.
/// To be put behind another in a network's list.
pub fn slow_plugin(lab: &Lab, release: &Path) -> Result<&'static str> {
    let place = plugins(lab.disk())?.join("slow");
    let script = format!(
        "#!/bin/sh\n\
         case $CNI_COMMAND in\n\
         VERSION) echo '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}}' ;;\n\
         ADD) conf=$(cat); until [ -e {} ]; do sleep .1; done\n\
         printf %s \"$conf\" | sed 's/.*\"prevResult\":\\({{.*}}\\),\"type\".*/\\1/' ;;\n\
         esac\n",
        release.display()
    );
    fs::write(&place, script)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    Ok("slow")
}

/// The plugins' directory of a laboratory: the machine's by links, and tests' own.
fn plugins(disk: &Path) -> Result<PathBuf> {
    let dir = disk.join("plugins");
    if !dir.exists() {
        fs::create_dir(&dir)?;
        for plugin in fs::read_dir(PLUGINS)?.flatten() {
            std::os::unix::fs::symlink(plugin.path(), dir.join(plugin.file_name()))?;
        }
    }
    Ok(dir)
}

impl Node {
    /// Boots a node in this laboratory and starts its containerd.
    pub fn boot(lab: &Lab) -> Result<Self> {
        static NODES: AtomicU32 = AtomicU32::new(0);
        let dir = lab.disk().to_owned();
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let ready = Path::new("/run/node-is-ready");
        let _ = fs::remove_file(ready);
        let mut init = Command::new("setpriv");
        // Its first process reaps the others, and takes them along when it dies.
        init.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid"])
            .args(["--fork", "--kill-child", "--mount-proc", "sh", "-c"])
            // Its own `/proc` would tell of the machine's boot. Mounts are shared with
            // containers that want it, as an init has it.
            .arg(format!(
                "mount --make-rshared /; mount --bind /run/boot_id {BOOT_ID}; \
                 echo >/run/node-is-ready; while :; do sleep 3600; done"
            ));
        let log = dir.join("node.log");
        let mut node = Self {
            cgroup: format!("ipam-agent-tests-{}-{number}", std::process::id()),
            init: Process::spawn(init, &log, &log)?,
            containerd: None,
            dir,
        };
        wait_for("the node", || Ok(ready.exists().then_some(())))?;
        node.start()?;
        Ok(node)
    }

    /// Starts containerd, which must not run, and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.containerd.is_none(), "containerd runs already");
        let config = self.dir.join("containerd.toml");
        self.write_base_spec()?;
        fs::write(&config, self.config()?)?;
        let mut containerd = self.inside("containerd")?;
        containerd.arg("--config").arg(&config);
        let log = self.dir.join("containerd.log");
        self.containerd = Some(Process::spawn(containerd, &log, &log)?);
        wait_for("containerd", || Ok(self.ask().ok()))
            .with_context(|| fs::read_to_string(log).unwrap_or_default())?;
        self.import_sandbox_image()
    }

    /// What it answers now, as the agent asks it.
    pub fn ask(&self) -> Result<Runtime> {
        Ok(cri::ask(&[SOCKET.into()], cri::PATIENCE).remove(0)?)
    }

    /// Kills containerd, if it wasn't yet. What runs in sandboxes runs on.
    pub fn kill_containerd(&mut self) -> Result<()> {
        let parent = self.containerd.take().context("containerd doesn't run")?;
        if let Some(containerd) = children(parent.pid())?.first() {
            kill(*containerd, Signal::SIGKILL)?;
        }
        // It ends with its child.
        parent.end(Signal::SIGCONT)?;
        Ok(())
    }

    /// Sends containerd a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let parent = self.containerd.as_ref().context("containerd doesn't run")?;
        kill(child_of(parent.pid())?, signal)?;
        Ok(())
    }

    /// Cuts the power of all that runs in the node; the laboratory's own is another matter.
    pub fn power_cut(self) {
        drop(self);
    }

    /// A sandbox as kubelet makes it; its id.
    pub fn run_pod(&self, name: &str, labels: &[(&str, &str)]) -> Result<String> {
        let request = RunPodSandboxRequest {
            config: Some(self.pod(name, labels)),
        };
        let answer: RunPodSandboxResponse = self.call("RunPodSandbox", request)?;
        Ok(answer.pod_sandbox_id)
    }

    /// Stops a sandbox as kubelet does: its lease goes with it.
    pub fn stop_pod(&self, id: &str) -> Result<()> {
        self.call::<_, Nothing>("StopPodSandbox", PodSandboxId { id: id.into() })?;
        Ok(())
    }

    /// Removes a sandbox that is stopped.
    pub fn remove_pod(&self, id: &str) -> Result<()> {
        self.call::<_, Nothing>("RemovePodSandbox", PodSandboxId { id: id.into() })?;
        Ok(())
    }

    /// Kills a sandbox's process, and waits until it is listed as NOTREADY.
    pub fn kill_pod(&self, id: &str) -> Result<()> {
        let pid = self.process(id)?.to_string();
        self.run(&["kill", "-KILL", &pid])?;
        wait_for("NOTREADY", || {
            let runtime = self.ask()?;
            let mut sandboxes = runtime.sandboxes.iter();
            let found = sandboxes.any(|sandbox| &*sandbox.id == id && !sandbox.ready);
            Ok(found.then_some(()))
        })
    }

    /// Runs a program in a container to its end, as kubelet does for a probe; what it printed,
    /// and its exit status.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<(String, i32)> {
        let request = ExecSyncRequest {
            container_id: container.into(),
            cmd: command.iter().map(|&word| word.into()).collect(),
            timeout: 60,
        };
        let answer: ExecSyncResponse = self.call("ExecSync", request)?;
        let said = [answer.stdout, answer.stderr].concat();
        Ok((
            String::from_utf8_lossy(&said).into_owned(),
            answer.exit_code,
        ))
    }

    /// Where containerd keeps a sandbox's files.
    pub fn files(&self, id: &str) -> PathBuf {
        let sandboxes = "containerd/io.containerd.grpc.v1.cri/sandboxes";
        self.dir.join(sandboxes).join(id)
    }

    /// The `mountinfo` of a sandbox's process, or of a container's.
    pub fn mounts(&self, id: &str) -> Result<String> {
        self.of_process(id, "mountinfo")
    }

    /// This file in `/proc` of a sandbox's process, or of a container's.
    pub fn of_process(&self, id: &str, file: &str) -> Result<String> {
        let pid = self.process(id)?;
        self.run(&["cat", &format!("/proc/{pid}/{file}")])
    }

    /// Runs a program in the node to its end; what it prints.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let output = self
            .inside(args[0])?
            .args(&args[1..])
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The process id, in the node, of a container's process, or of a sandbox's.
    fn process(&self, id: &str) -> Result<u32> {
        let tasks = self.ctr(&["tasks", "list"])?;
        let line = tasks.lines().find(|line| line.starts_with(id));
        let pid = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(pid
            .with_context(|| format!("no task {id}: {tasks}"))?
            .parse()?)
    }

    fn pod(&self, name: &str, labels: &[(&str, &str)]) -> PodSandboxConfig {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-of-{name}"),
                namespace: "default".into(),
            }),
            hostname: name.into(),
            labels: labels.collect(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.cgroup),
            }),
        }
    }

    fn call<Q, A>(&self, call: &'static str, request: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        block_on(async {
            let client = Client::connect(Path::new(SOCKET)).await?;
            let answer = tokio::time::timeout(PATIENCE, client.call(call, request));
            Ok(answer
                .await
                .with_context(|| format!("{call} takes too long"))??)
        })
    }

    /// How many containers run beside the sandboxes' own.
    pub fn running(&self) -> Result<usize> {
        let sandboxes = self.ask()?.sandboxes;
        let tasks = self.ctr(&["tasks", "list"])?;
        let running = tasks.lines().filter(|line| line.ends_with("RUNNING"));
        let of = running.filter(|line| !sandboxes.iter().any(|s| line.starts_with(&*s.id)));
        Ok(of.count())
    }

    /// The cgroup that all of its pods are to be in.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// A program in the node.
    pub fn inside(&self, program: &str) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &child_of(self.init.pid())?.to_string()])
            .args(["--mount", "--pid", "--"])
            .arg(program)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command)
    }

    fn ctr(&self, args: &[&str]) -> Result<String> {
        self.run(&[&["ctr", "--address", SOCKET, "--namespace", "k8s.io"], args].concat())
    }

    fn config(&self) -> Result<String> {
        let dir = self.dir.display();
        let plugins = plugins(&self.dir)?;
        let plugins = plugins.display();
        Ok(format!(
            r#"
version = 2
root = "{dir}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
disable_apparmor = true
restrict_oom_score_adj = true
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{dir}/{BASE_SPEC}"
"#
        ))
    }

    /// What every container is made of: containerd's own, and this boot's name in `/proc`,
    /// which is new in each. A hook of runc's puts it there before the container is entered
    /// (opencontainers/runtime-spec, `createContainer`).
    fn write_base_spec(&self) -> Result<()> {
        let hook = self.dir.join("boot-id-hook");
        fs::write(
            &hook,
            format!(
                "#!/bin/sh\n\
                 bundle=$(sed 's/.*\"bundle\": *\"\\([^\"]*\\)\".*/\\1/')\n\
                 exec mount --bind /run/boot_id \"$bundle/rootfs{BOOT_ID}\"\n"
            ),
        )?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        let mut spec: serde_json::Value =
            serde_json::from_str(&self.run(&["ctr", "oci", "spec"])?)?;
        spec["hooks"] = serde_json::json!({ "createContainer": [{ "path": hook }] });
        Ok(fs::write(self.dir.join(BASE_SPEC), spec.to_string())?)
    }

    /// Gives containerd the image of sandboxes, if it hasn't it: one static program.
    fn import_sandbox_image(&self) -> Result<()> {
        let image = Image {
            name: IMAGE,
            entrypoint: &["/busybox", "sleep", "1000000"],
            stop_signal: None,
        };
        self.import(&image, &[(BUSYBOX.into(), "/busybox".into())])
    }

    /// Gives containerd an image of these files, each with its place in it, if it has none of
    /// this name.
    pub fn import(&self, image: &Image, files: &[(PathBuf, PathBuf)]) -> Result<()> {
        if self.ctr(&["images", "list", "-q"])?.contains(image.name) {
            return Ok(());
        }
        let work = tempfile::tempdir_in(&self.dir)?;
        let archive = image.pack(work.path(), files)?.display().to_string();
        self.ctr(&["images", "import", "--snapshotter", "native", &archive])?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Who waits for containerd stops along with it, and would keep it from being gone.
        drop(self.containerd.take());
        // The kernel takes down what the first process leaves behind; its namespaces are
        // gone when the last of them is.
        if let Ok(first) = child_of(self.init.pid()) {
            let _ = kill(first, Signal::SIGKILL);
            let gone = || Ok((!Path::new("/proc").join(first.to_string()).exists()).then_some(()));
            let _ = wait_for("the node's end", gone);
        }
        remove_cgroups(&self.cgroup);
    }
}

/// Removes a cgroup, which nothing is in any more, from every hierarchy.
fn remove_cgroups(name: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    let hierarchies = hierarchies.map(|entry| entry.path().join(name));
    for top in hierarchies.chain([root.join(name)]) {
        // A cgroup may be busy for a moment after its last process.
        let deadline = Instant::now() + Duration::from_secs(2);
        while top.is_dir() && !remove_tree(&top) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Of cgroups only directories can be removed, from below.
fn remove_tree(directory: &Path) -> bool {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    fs::remove_dir(directory).is_ok()
}

/// The one child of a process, as soon as there is one.
fn child_of(pid: u32) -> Result<Pid> {
    wait_for("a child", || Ok(children(pid)?.first().copied()))
}

fn children(pid: u32) -> Result<Vec<Pid>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).context(path)?;
    let children = children.split_whitespace();
    children
        .map(|pid| Ok(Pid::from_raw(pid.parse()?)))
        .collect()
}

/// Asks again and again until there is an answer.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio.block_on(future)
}

/// Writes a network whose plugins are these, one behind the other.
pub fn write_network(name: &str, plugins: &[serde_json::Value]) -> Result<()> {
    let list = serde_json::json!({ "cniVersion": "1.0.0", "name": name, "plugins": plugins });
    let mut file = fs::File::create(format!("/etc/cni/net.d/10-{name}.conflist"))?;
    file.write_all(list.to_string().as_bytes())?;
    Ok(())
}

// What the agent never says, from kubernetes/cri-api's `pkg/apis/runtime/v1/api.proto`.

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxResponse {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ExecSyncRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, repeated, tag = "2")]
    cmd: Vec<String>,
    /// Seconds.
    #[prost(int64, tag = "3")]
    timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ExecSyncResponse {
    #[prost(bytes = "vec", tag = "1")]
    stdout: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    stderr: Vec<u8>,
    #[prost(int32, tag = "3")]
    exit_code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(map = "string, string", tag = "6")]
    labels: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
}

/// `StopPodSandboxRequest` and `RemovePodSandboxRequest`.
#[derive(Clone, PartialEq, Message)]
struct PodSandboxId {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}
