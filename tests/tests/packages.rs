//! What is handed out: the image in a real containerd, the Debian package in a root of its
//! own, the unit before systemd. All of it is made of the binary that the tests use; `cargo
//! xtask dist` makes the same of static ones.

#[path = "packages/debian.rs"]
mod debian;
#[path = "packages/image.rs"]
mod image;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use anyhow::{Context, Result, ensure};
use tests::daemon::{beside, binary};

/// A release made of the tests' own binary, twice.
struct Release {
    _work: tempfile::TempDir,
    first: PathBuf,
    second: PathBuf,
}

/// Made once for all tests of this program.
fn release() -> &'static Release {
    static RELEASE: LazyLock<Release> = LazyLock::new(|| make().expect("a release"));
    &RELEASE
}

fn make() -> Result<Release> {
    let work = tempfile::tempdir()?;
    let (first, second) = (work.path().join("1"), work.path().join("2"));
    // As a release's, and a third as long to pack.
    let stripped = work.path().join("ipam-agent");
    output(
        Command::new("strip")
            .arg("-o")
            .arg(&stripped)
            .arg(binary()?),
    )?;
    for (directory, umask) in [(&first, "022"), (&second, "077")] {
        let xtask = beside("xtask")?;
        let made = Command::new("sh")
            .args(["-c", "umask $0; exec \"$@\"", umask])
            .arg(xtask)
            .args(["dist", "--output"])
            .arg(directory)
            .arg("--binary")
            .arg(&stripped)
            .env("SOURCE_DATE_EPOCH", "1790000000")
            .output()?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "{said}");
    }
    Ok(Release {
        _work: work,
        first,
        second,
    })
}

/// The one file of a release whose name ends so.
fn file(release: &Path, ending: &str) -> Result<PathBuf> {
    let files = fs::read_dir(release)?.flatten().map(|entry| entry.path());
    let mut files = files.filter(|path| path.to_string_lossy().ends_with(ending));
    files.next().with_context(|| format!("no file *{ending}"))
}

/// A program's output; an error says what it complained of.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_same_binary_makes_the_same_release() {
    let release = release();
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).expect("a directory").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let found = names(&release.first);
    assert_eq!(found, names(&release.second));
    assert_eq!(found.len(), 9, "{found:?}");
    for name in &found {
        let read = |directory: &Path| fs::read(directory.join(name)).expect("a file");
        assert!(
            read(&release.first) == read(&release.second),
            "{} is not the same twice",
            name.display()
        );
    }
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--quiet", "--strict", "SHA256SUMS"]);
    output(check.current_dir(&release.first)).expect("the checksums are right");
}

#[test]
fn the_archive_has_all_that_a_host_needs() {
    let archive = file(&release().first, ".tar.gz").expect("an archive");
    let listed = output(Command::new("tar").arg("-tzf").arg(archive)).expect("listed");
    for name in [
        "/ipam-agent",
        "/ipam-agent.service",
        "/config.yaml",
        "/CHANGELOG.md",
        "/LICENSE-MIT",
        "/share/man/man8/ipam-agent.8.gz",
        "/share/bash-completion/completions/ipam-agent",
    ] {
        assert!(
            listed.lines().any(|line| line.ends_with(name)),
            "{name}: {listed}"
        );
    }
}

#[test]
fn helm_takes_the_packed_chart_for_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let render = |chart: PathBuf| {
        let yaml = "prometheusRule: { enabled: true }\ndashboard: { enabled: true }\n";
        let request = tests::helm::Request {
            chart,
            renders: vec![tests::helm::Render {
                name: "a".to_owned(),
                namespace: "b".to_owned(),
                yaml: yaml.to_owned(),
            }],
            ..tests::helm::Request::default()
        };
        let mut answer = tests::helm::ask(&request)?.expect("an answer");
        Some(answer.renders.remove(0).texts)
    };
    let directory = root.join("deploy/chart").canonicalize().expect("a chart");
    let Some(unpacked) = render(directory) else {
        return;
    };
    let packed = file(&release().first, ".tgz").expect("a chart");
    assert!(!unpacked.is_empty());
    assert_eq!(render(packed), Some(unpacked));
}
