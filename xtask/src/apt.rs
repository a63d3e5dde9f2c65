//! Packages of other suites of Debian than the machine's own. The system's apt isn't
//! touched: it lends its mirror and its keys.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;

use crate::machine;

/// apt with sources, lists and state of its own.
pub struct Apt {
    directory: PathBuf,
    arguments: Vec<String>,
}

impl Apt {
    /// Reads what packages this suite of Debian has. All that it writes is in the directory.
    pub fn new(directory: &Path, suite: &str) -> anyhow::Result<Self> {
        Self::reading(directory, suite, "deb")
    }

    /// The same of its sources.
    pub fn of_sources(directory: &Path, suite: &str) -> anyhow::Result<Self> {
        Self::reading(directory, suite, "deb-src")
    }

    fn reading(directory: &Path, suite: &str, kind: &str) -> anyhow::Result<Self> {
        let mirror = mirror()?;
        let sources = directory.join("sources.list");
        let lists = directory.join("lists");
        fs::create_dir_all(lists.join("partial"))?;
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        fs::write(
            &sources,
            format!("{kind} [signed-by={keys}] {mirror} {suite} main\n"),
        )?;
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", lists.display()),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache={}", directory.display()),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "APT::Sandbox::User=".to_owned(),
        ];
        let mut arguments = vec!["-qq".to_owned()];
        for option in options {
            arguments.extend(["-o".to_owned(), option]);
        }
        let apt = Self {
            directory: directory.to_owned(),
            arguments,
        };
        machine::run(apt.command("apt-get").arg("update").stdout(Stdio::null()))
            .with_context(|| format!("apt can't read {suite} at {mirror}"))?;
        Ok(apt)
    }

    /// The versions of a package that the suite has, the newest first.
    pub fn versions(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let versions = machine::output(self.command("apt-cache").args(["madison", package]))?;
        let versions = versions.lines().filter_map(|line| line.split('|').nth(1));
        Ok(versions.map(|version| version.trim().to_owned()).collect())
    }

    /// The package's file: `NAME` or `NAME=VERSION`.
    pub fn download(&self, package: &str) -> anyhow::Result<PathBuf> {
        machine::run(
            self.command("apt-get")
                .args(["download", package])
                .current_dir(&self.directory)
                .stdout(Stdio::null()),
        )?;
        package_in(&self.directory)
    }

    /// The archive of a source package that its upstream made.
    pub fn upstream_source(&self, package: &str) -> anyhow::Result<PathBuf> {
        machine::run(
            self.command("apt-get")
                .args(["source", "--download-only", "--tar-only", package])
                .current_dir(&self.directory)
                .stdout(Stdio::null()),
        )?;
        file_in(&self.directory, "gz").context("apt-get source left no archive")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.arguments);
        command
    }
}

/// The mirror that the system's apt uses for Debian itself.
pub fn mirror() -> anyhow::Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| debian_mirror(&text))
        .context("no Debian mirror in /etc/apt: this machine is no Debian, or has no apt sources")
}

/// The first mirror of a sources file, in either of apt's formats, whose path is Debian's.
fn debian_mirror(text: &str) -> Option<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

/// What `apt-get download` left.
pub fn package_in(directory: &Path) -> anyhow::Result<PathBuf> {
    file_in(directory, "deb").context("apt-get download left no package")
}

fn file_in(directory: &Path, extension: &str) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|found| found == extension))
}

#[cfg(test)]
mod tests {
    use super::debian_mirror;

    #[test]
    fn the_mirror_is_debians_in_either_format() {
        let deb822 = "Types: deb\n# old\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        let list = "deb [signed-by=/k.gpg] https://other.example/apt stable main\n\
                    deb http://mirror.example/debian bookworm main\n";
        for text in [deb822, list] {
            assert_eq!(
                debian_mirror(text).as_deref(),
                Some("http://mirror.example/debian")
            );
        }
        assert_eq!(
            debian_mirror("deb https://other.example/apt stable main"),
            None
        );
    }
}
