//! Network namespaces for tests: each is a thread that lives in one of its own. Nothing
//! has a name outside of the test, and all of it is gone when the thread is.

use std::{
    process::Command,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Pid, geteuid, gettid},
};

type Work = Box<dyn FnOnce() + Send>;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    thread: Pid,
    work: Option<Sender<Work>>,
    join: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A new one, with `lo` up.
    ///
    /// # Panics
    ///
    /// Without the privilege: ask [`available`] first.
    #[expect(
        clippy::new_without_default,
        reason = "it isn't a value, it is a part of the kernel's state"
    )]
    pub fn new() -> Self {
        let (work, todo) = channel::<Work>();
        let (ready, made) = channel();
        let join = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("CLONE_NEWNET");
            ready.send(gettid()).expect("the maker waits");
            for work in todo {
                work();
            }
        });
        let namespace = Self {
            thread: made.recv().expect("a network namespace"),
            work: Some(work),
            join: Some(join),
        };
        namespace.ip("link set lo up");
        namespace
    }

    /// Do something inside, and wait for it.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, answer) = channel();
        let work: Work = Box::new(move || drop(done.send(work())));
        let queue = self.work.as_ref().expect("open until dropped");
        queue.send(work).expect("the namespace's thread");
        answer.recv().expect("the work panicked")
    }

    /// `ip` with these arguments.
    pub fn ip(&self, arguments: &str) {
        self.command(&format!("ip {arguments}"));
    }

    /// A command, which must succeed.
    pub fn command(&self, line: &str) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let output = self.run(move || Command::new(&words[0]).args(&words[1..]).output());
        let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
    }

    /// What `ip link set netns` takes for this namespace.
    pub fn id(&self) -> Pid {
        self.thread
    }

    /// A veth called `name` here, whose other end is `peer` inside `pod`; both up.
    pub fn veth(&self, name: &str, pod: &Namespace, peer: &str) {
        let id = pod.id();
        self.ip(&format!(
            "link add {name} type veth peer name {peer} netns {id}"
        ));
        pod.ip(&format!("link set {peer} up"));
        self.ip(&format!("link set {name} up"));
    }

    /// The ifindex of a link inside.
    pub fn ifindex(&self, name: &str) -> u32 {
        let name = name.to_owned();
        self.run(move || nix::net::if_::if_nametoindex(name.as_str()))
            .expect("the link exists")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.join.take() {
            let _ = thread.join();
        }
    }
}

/// Whether namespaces can be made. If not, says on stderr that the test is skipped, or
/// fails it where `IPAM_AGENT_NO_SKIP=1` is set.
pub fn available() -> bool {
    let root = geteuid().is_root();
    let strict = std::env::var_os("IPAM_AGENT_NO_SKIP").is_some_and(|value| value == "1");
    assert!(root || !strict, "network namespaces need root");
    if !root {
        eprintln!("SKIPPED: network namespaces need root");
    }
    root
}
