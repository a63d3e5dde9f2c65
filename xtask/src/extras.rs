//! What goes along with the binary, and is made by it: its man page and completions.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::Context as _;

use crate::{archive::gzip, machine};

/// Where each shell looks for its completions, below `/usr`.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/ipam-agent"),
    ("fish", "share/fish/vendor_completions.d/ipam-agent.fish"),
    ("zsh", "share/zsh/vendor-completions/_ipam-agent"),
];

/// By their paths below `/usr`.
#[derive(Debug)]
pub struct Extras(BTreeMap<String, Vec<u8>>);

impl Extras {
    /// As a binary that runs here tells them.
    pub fn of(binary: &Path) -> anyhow::Result<Self> {
        let asked = |args: &[&str]| {
            machine::output(Command::new(binary).args(args))
                .with_context(|| format!("{} doesn't tell", binary.display()))
        };
        let manual = gzip(asked(&["man"])?.as_bytes())?;
        let mut files = BTreeMap::from([("share/man/man8/ipam-agent.8.gz".to_owned(), manual)]);
        for (shell, path) in COMPLETIONS {
            files.insert(path.to_owned(), asked(&["completions", shell])?.into());
        }
        Ok(Self(files))
    }

    /// Path and content.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let files = self.0.iter();
        files.map(|(path, content)| (path.as_str(), content.as_slice()))
    }
}
