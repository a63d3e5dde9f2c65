//! Bare network namespaces for the suites of single sources. Nothing of them has a name
//! outside of the test, and all of it is gone when the test is.

use std::{
    fs::File,
    os::fd::AsRawFd,
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, there for as long as this is.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new one, with `lo` up.
    ///
    /// # Panics
    ///
    /// Without the privilege: ask [`available`] first.
    #[expect(
        clippy::new_without_default,
        reason = "not a value: it is a part of the kernel's state"
    )]
    pub fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("CLONE_NEWNET");
            File::open("/proc/thread-self/ns/net").expect("the thread's namespace")
        });
        let namespace = Self(made.join().expect("a network namespace"));
        namespace.ip("link set lo up");
        namespace
    }

    /// Do something inside, on a thread of its own, and wait for it.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
            work()
        };
        let done = thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// `ip` with these arguments.
    pub fn ip(&self, arguments: &str) {
        self.command(&format!("ip {arguments}"));
    }

    /// A command that must succeed, and what it prints.
    ///
    /// # Panics
    ///
    /// If it doesn't.
    pub fn command(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        let output = self.run(|| command.output());
        let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What `ip link … netns` takes for this namespace.
    pub fn id(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// A veth called `name` here, whose other end is `peer` inside `pod`; both up.
    pub fn veth(&self, name: &str, pod: &Self, peer: &str) {
        let id = pod.id();
        self.ip(&format!(
            "link add {name} type veth peer name {peer} netns {id}"
        ));
        pod.ip(&format!("link set {peer} up"));
        self.ip(&format!("link set {name} up"));
    }

    /// Waits until frames go through a link: before the kernel has acted on its carrier it
    /// drops what is sent, without a word.
    ///
    /// # Panics
    ///
    /// If that takes more than ten seconds.
    pub fn await_carrier(&self, link: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self
            .command(&format!("ip link show dev {link}"))
            .contains("state UP")
        {
            assert!(Instant::now() < deadline, "{link} has no carrier");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The ifindex of a link inside.
    ///
    /// # Panics
    ///
    /// If there is no such link.
    pub fn ifindex(&self, name: &str) -> u32 {
        self.run(|| nix::net::if_::if_nametoindex(name))
            .expect("the link exists")
    }
}

/// Whether namespaces can be made; if not, the skip is told.
///
/// # Panics
///
/// Where skips are failures.
pub fn available() -> bool {
    crate::skip::privileged("a network namespace").is_some()
}
