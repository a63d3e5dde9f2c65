//! A real Kubernetes for the tests: the agent as a pod of it, and who is first after a boot,
//! its kubelet or the agent.
//!
//! Debian has no binaries of its servers, but the whole source of one Kubernetes, its
//! dependencies included, so that no other registry is needed; in an older suite the Go that
//! it was written for; and the etcd that it stores to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::Done;
use crate::{
    apt::Apt,
    machine::{self, KUBERNETES},
};

/// What is built of the sources.
const SERVERS: [&str; 4] = [
    "kubelet",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];
/// What the API server stores to. Its package would start it on this machine.
const ETCD: &str = "etcd";
/// Where the sources are, and etcd.
const SUITE: &str = "bookworm";
/// Where the compiler is, and its packages. A newer one builds an API server that dies of a
/// dependency which knows the runtime's maps from within.
const GO_SUITE: &str = "bullseye";
const GO: [&str; 2] = ["golang-1.15-go", "golang-1.15-src"];
/// The root of the packages, and of their dependencies.
const ROOT: &str = "k8s.io/kubernetes";
/// What the API server says of its types. The sources lack it: their makefile makes it.
const OPENAPI: &str = "pkg/generated/openapi";

/// Puts in the cache what isn't there.
pub fn install() -> anyhow::Result<Done> {
    let place = machine::kubernetes()?;
    let missing = |program: &&str| !place.join(program).is_file();
    let servers: Vec<_> = SERVERS.into_iter().filter(missing).collect();
    if servers.is_empty() && !missing(&ETCD) {
        return Ok(Done::Before);
    }
    fs::create_dir_all(&place)?;
    // Some gigabytes for some minutes: not in a `/tmp` that is memory.
    let work = tempfile::tempdir_in(machine::cache()?)?;
    let work = work.path();
    let mut made = Vec::new();
    if missing(&ETCD) {
        made.push(etcd(work)?);
    }
    if !servers.is_empty() {
        let names = servers.join(", ");
        eprintln!("{names}: building {KUBERNETES}, which takes some minutes");
        let built = go(work)
            .and_then(|go| Sources::unpack(work, go))
            .and_then(|sources| sources.build(&servers));
        made.extend(built.with_context(|| {
            format!("{names} are built of what Debian's {SUITE} and {GO_SUITE} have")
        })?);
    }
    for program in made {
        let name = program.file_name().context("a program has a name")?;
        fs::rename(&program, place.join(name))?;
    }
    Ok(Done::Now)
}

/// The one program of its package.
fn etcd(work: &Path) -> anyhow::Result<PathBuf> {
    let root = work.join("etcd-server");
    unpack(&work.join("etcd"), SUITE, "etcd-server", &root)?;
    Ok(root.join("usr/bin").join(ETCD))
}

/// The compiler's directory.
fn go(work: &Path) -> anyhow::Result<PathBuf> {
    let root = work.join("go");
    for package in GO {
        unpack(&work.join(package), GO_SUITE, package, &root)?;
    }
    Ok(root.join("usr/lib/go-1.15"))
}

/// Unpacks a package to `root`; what is needed for it is in `work`.
fn unpack(work: &Path, suite: &str, package: &str, root: &Path) -> anyhow::Result<()> {
    fs::create_dir(work)?;
    let file = Apt::new(work, suite)?.download(package)?;
    machine::run(Command::new("dpkg").arg("-x").args([&file, root]))
}

/// The sources, and what builds them.
struct Sources {
    work: PathBuf,
    go: PathBuf,
}

impl Sources {
    fn unpack(work: &Path, go: PathBuf) -> anyhow::Result<Self> {
        let apt = work.join("source");
        fs::create_dir(&apt)?;
        let archive = Apt::of_sources(&apt, SUITE)?.upstream_source("kubernetes")?;
        let sources = Self {
            work: work.to_owned(),
            go,
        };
        let place = sources.place();
        fs::create_dir_all(&place)?;
        machine::run(
            Command::new("tar")
                .args(["--extract", "--strip-components=1", "--directory"])
                .arg(&place)
                .arg("--file")
                .arg(archive),
        )?;
        Ok(sources)
    }

    /// Builds these, without C; the programs.
    fn build(&self, programs: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        if programs.contains(&"kube-apiserver") {
            self.make_openapi()?;
        }
        let built = self.work.join("built");
        fs::create_dir(&built)?;
        let packages = programs.iter().map(|name| format!("{ROOT}/cmd/{name}"));
        machine::run(
            self.run(self.go.join("bin/go"))
                .args(["build", "-trimpath", "-ldflags", &stamps(), "-o"])
                // A directory, even for one.
                .arg(built.join(""))
                .args(packages),
        )?;
        Ok(programs.iter().map(|name| built.join(name)).collect())
    }

    /// As its own makefile does (`make gen_openapi`): of every package that asks for it.
    fn make_openapi(&self) -> anyhow::Result<()> {
        let generator = self.work.join("openapi-gen");
        machine::run(
            self.run(self.go.join("bin/go"))
                .args(["build", "-o"])
                .arg(&generator)
                .arg(format!("{ROOT}/vendor/k8s.io/kube-openapi/cmd/openapi-gen")),
        )?;
        let asking = machine::output(
            self.run("grep".into())
                .args(["-rl", "--include=*.go", "--exclude=*_test.go"])
                .args(
                    ["code-generator", "sample-apiserver"]
                        .map(|dir| format!("--exclude-dir={dir}")),
                )
                .arg("^// +k8s:openapi-gen=true")
                .args(["pkg", "staging/src/k8s.io", "cmd"]),
        )?;
        let mut packages: Vec<_> = asking.lines().filter_map(package).collect();
        packages.sort();
        packages.dedup();
        machine::run(
            self.run(generator)
                .args(["--input-dirs", &packages.join(",")])
                .args(["--output-package", &format!("{ROOT}/{OPENAPI}")])
                .args(["--output-file-base", "zz_generated.openapi"])
                .arg("--go-header-file")
                .arg("vendor/k8s.io/code-generator/hack/boilerplate.go.txt")
                .args(["--report-filename", "/dev/null"]),
        )
    }

    /// In a GOPATH, not as a module: as its own makefile does.
    fn place(&self) -> PathBuf {
        self.work.join("gopath/src").join(ROOT)
    }

    fn run(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.place())
            .env("GOROOT", &self.go)
            .env("GOPATH", self.work.join("gopath"))
            .env("GOCACHE", self.work.join("gocache"))
            .env("GOFLAGS", "")
            .env("GO111MODULE", "off")
            .env("CGO_ENABLED", "0");
        command
    }
}

/// The package that a file of the sources is in.
fn package(file: &str) -> Option<String> {
    let (directory, _) = file.rsplit_once('/')?;
    Some(match directory.strip_prefix("staging/src/") {
        Some(dependency) => format!("{ROOT}/vendor/{dependency}"),
        None => format!("{ROOT}/{directory}"),
    })
}

/// Else its version is one that nobody can parse.
fn stamps() -> String {
    let mut numbers = KUBERNETES.split('.');
    let mut next = || numbers.next().unwrap_or_default();
    let (major, minor) = (next(), next());
    let stamps = [
        ("gitVersion", format!("v{KUBERNETES}")),
        ("gitMajor", major.to_owned()),
        ("gitMinor", minor.to_owned()),
        ("gitTreeState", "clean".to_owned()),
        ("gitCommit", "debian".to_owned()),
        ("buildDate", "1970-01-01T00:00:00Z".to_owned()),
    ];
    let mut flags = String::from("-s -w");
    for package in ["component-base/version", "client-go/pkg/version"] {
        for (name, value) in &stamps {
            let name = format!("{ROOT}/vendor/k8s.io/{package}.{name}");
            flags.push_str(&format!(" -X {name}={value}"));
        }
    }
    flags
}
