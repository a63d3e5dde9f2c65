//! The Debian package, for hosts without Kubernetes.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;

use crate::{
    archive::gzip,
    extras::Extras,
    machine,
    release::{self, Arch},
};

const MAINTAINER: &str = "The ipam-agent maintainers <maintainers@ipam-agent.example>";

/// Makes it in this directory, of this binary; where it is.
pub fn make(binary: &Path, extras: &Extras, directory: &Path) -> anyhow::Result<PathBuf> {
    let arch = Arch::of(binary)?;
    let version = release::version();
    let work = tempfile::tempdir()?;
    let stage = Stage(work.path());
    let deploy = machine::root().join("deploy");
    let read = |path: &str| {
        let path = deploy.join(path);
        fs::read(&path).with_context(|| format!("can't read {}", path.display()))
    };
    stage.put("usr/bin/ipam-agent", 0o755, &fs::read(binary)?)?;
    stage.put(
        "etc/ipam-agent/config.yaml",
        0o644,
        &read("deb/config.yaml")?,
    )?;
    stage.put(
        "usr/lib/systemd/system/ipam-agent.service",
        0o644,
        &read("systemd/ipam-agent.service")?,
    )?;
    for (path, content) in extras.files() {
        stage.put(&format!("usr/{path}"), 0o644, content)?;
    }
    let docs = "usr/share/doc/ipam-agent";
    stage.put(&format!("{docs}/copyright"), 0o644, &copyright()?)?;
    let changes = gzip(changelog(version)?.as_bytes())?;
    stage.put(&format!("{docs}/changelog.gz"), 0o644, &changes)?;
    stage.put(
        "usr/share/lintian/overrides/ipam-agent",
        0o644,
        &read("deb/lintian-overrides")?,
    )?;

    let size = stage.kilobytes()?;
    let control = format!(
        "Package: ipam-agent\nVersion: {version}\nArchitecture: {}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {size}\nSection: net\nPriority: optional\nHomepage: {}\n\
         Description: finds duplicate IP addresses and leases that nobody uses\n \
         Watches ARP and Neighbor Discovery on the host's veths, bridges and bonds by an\n \
         eBPF program, names every address that two machines use at once, and gives back\n \
         leases of host-local that are proven dead. As it comes it gives back nothing\n \
         unasked.\n",
        arch.name(),
        env!("CARGO_PKG_REPOSITORY"),
    );
    stage.put("DEBIAN/control", 0o644, control.as_bytes())?;
    stage.put("DEBIAN/conffiles", 0o644, b"/etc/ipam-agent/config.yaml\n")?;
    for script in ["postinst", "prerm", "postrm"] {
        stage.put(
            &format!("DEBIAN/{script}"),
            0o755,
            &read(&format!("deb/{script}"))?,
        )?;
    }
    stage.put("DEBIAN/md5sums", 0o644, stage.md5sums()?.as_bytes())?;

    let package = directory.join(format!("ipam-agent_{version}_{}.deb", arch.name()));
    machine::run(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .args([stage.0, &package])
            .env("SOURCE_DATE_EPOCH", release::epoch()?.to_string())
            .stdout(Stdio::null()),
    )?;
    Ok(package)
}

/// What is to be in the package, as files.
struct Stage<'a>(&'a Path);

impl Stage<'_> {
    /// Modes are set, as the umask of whoever runs this would else be in the package.
    fn put(&self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let mut directory = self.0.to_owned();
        set_mode(&directory, 0o755)?;
        if let Some((parents, _)) = path.rsplit_once('/') {
            for parent in parents.split('/') {
                directory.push(parent);
                if !directory.is_dir() {
                    fs::create_dir(&directory)?;
                    set_mode(&directory, 0o755)?;
                }
            }
        }
        let file = self.0.join(path);
        fs::write(&file, content)?;
        set_mode(&file, mode)
    }

    /// Every file that is installed, sorted.
    fn files(&self) -> anyhow::Result<Vec<String>> {
        let (mut files, mut open) = (Vec::new(), vec![self.0.to_owned()]);
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                let name = path.strip_prefix(self.0)?.display().to_string();
                match path.is_dir() {
                    true if name != "DEBIAN" => open.push(path),
                    true => {}
                    false => files.push(name),
                }
            }
        }
        files.sort();
        Ok(files)
    }

    fn kilobytes(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for file in self.files()? {
            bytes += fs::metadata(self.0.join(file))?.len();
        }
        Ok(bytes.div_ceil(1024))
    }

    fn md5sums(&self) -> anyhow::Result<String> {
        machine::output(
            Command::new("md5sum")
                .arg("--")
                .args(self.files()?)
                .current_dir(self.0),
        )
    }
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Debian's machine-readable form.
fn copyright() -> anyhow::Result<Vec<u8>> {
    let mit = fs::read_to_string(machine::root().join("LICENSE-MIT"))?;
    let mut text = format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: ipam-agent\nSource: {}\n\n\
         Files: *\nCopyright: the ipam-agent authors\nLicense: Apache-2.0 or Expat\n\n\
         License: Apache-2.0\n On Debian systems its text is in /usr/share/common-licenses/Apache-2.0.\n\n\
         License: Expat\n",
        env!("CARGO_PKG_REPOSITORY"),
    );
    for line in mit.trim().lines() {
        let line = if line.trim().is_empty() { "." } else { line };
        text += &format!(" {line}\n");
    }
    Ok(text.into_bytes())
}

fn changelog(version: &str) -> anyhow::Result<String> {
    let time = jiff::Timestamp::from_second(i64::try_from(release::epoch()?)?)?;
    let date = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
    Ok(format!(
        "ipam-agent ({version}) stable; urgency=medium\n\n  \
         * What is new: {}/blob/main/CHANGELOG.md\n\n -- {MAINTAINER}  {date}\n",
        env!("CARGO_PKG_REPOSITORY"),
    ))
}
