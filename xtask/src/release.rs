//! The binaries that are handed out: static, for every architecture, without a path of this
//! machine in them.
//!
//! Static, as their image has nothing else in it and hosts have every C library there is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use object::{Object as _, read::elf::FileHeader as _};

use crate::{machine, setup};

/// A release's binary is smaller than this, in bytes, so that it may go to every node.
pub const SIZE: u64 = 15 << 20;

/// What it is built for, each by the name that everybody but Rust has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Arch {
    /// x86-64
    Amd64,
    /// aarch64
    Arm64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// As OCI, Debian and Go say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As rustc says it.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// What links it on a machine of another architecture.
    fn linker(self) -> String {
        let machine = self.target().split('-').next().unwrap_or_default();
        format!("{machine}-linux-gnu-gcc")
    }

    /// This machine's.
    pub fn own() -> Option<Self> {
        match env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// What an ELF file is for.
    pub fn of(binary: &Path) -> anyhow::Result<Self> {
        let bytes = read(binary)?;
        let file = object::File::parse(&*bytes)
            .with_context(|| format!("{} is no program", binary.display()))?;
        match file.architecture() {
            object::Architecture::X86_64 => Ok(Self::Amd64),
            object::Architecture::Aarch64 => Ok(Self::Arm64),
            other => bail!("{} is for {other:?}", binary.display()),
        }
    }
}

/// Builds it, and has it say its version; where it is.
pub fn build(arch: Arch) -> anyhow::Result<PathBuf> {
    let target = arch.target();
    let directory = directory()?;
    eprintln!("ipam-agent for {}: building", arch.name());
    let rust_src = machine::rust_src()?;
    let shipped = machine::sysroot()?.join("lib/rustlib/src/rust/library");
    let root = machine::root().canonicalize()?;
    let mut flags = machine::remapping(rust_src.as_deref().unwrap_or(&shipped), &root)?;
    // What is generated is not among the sources, where cargo has been told so.
    let generated = directory.canonicalize()?;
    flags.push(format!(
        "--remap-path-prefix={}=/target",
        generated.display()
    ));
    flags.push("-Ctarget-feature=+crt-static".to_owned());
    // Relocations in a fiftieth of the space, where the linker can; libc's start applies them.
    flags.push("-Clink-arg=-Wl,-z,pack-relative-relocs".to_owned());
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(machine::root())
        .args(["build", "--locked", "--release", "--package", "ipam-agent"])
        .args(["--bin", "ipam-agent", "--target", target])
        .arg("--target-dir")
        .arg(&directory)
        .env_remove("RUSTFLAGS");
    if !machine::sysroot()?
        .join("lib/rustlib")
        .join(target)
        .is_dir()
    {
        setup::cross(arch)?;
        let rust_src = rust_src.with_context(|| {
            format!(
                "no rust-src for rustc {}: `cargo xtask setup`",
                machine::RUST
            )
        })?;
        flags.push(format!("-Clinker={}", arch.linker()));
        cargo
            .arg("-Zbuild-std=std,panic_unwind")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("__CARGO_TESTS_ONLY_SRC_ROOT", rust_src);
    }
    machine::run(cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")))?;
    let built = directory.join(target).join("release/ipam-agent");
    if interpreter(&built)?.is_some() {
        bail!("{} is not static", built.display());
    }
    let size = fs::metadata(&built)?.len();
    if size >= SIZE {
        bail!("{} has {size} bytes: {SIZE} are too many", built.display());
    }
    let said = machine::output(execute(arch, &built)?.arg("--version"))?;
    if said.trim() != format!("ipam-agent {}", version()) {
        bail!("{} says that it is {said}", built.display());
    }
    Ok(built)
}

/// What runs a static binary for this architecture here.
fn execute(arch: Arch, binary: &Path) -> anyhow::Result<Command> {
    if Some(arch) == Arch::own() {
        return Ok(Command::new(binary));
    }
    let mut emulated = Command::new(setup::emulator(arch)?);
    emulated.arg(binary);
    Ok(emulated)
}

/// What loads it, unless it is static.
pub fn interpreter(binary: &Path) -> anyhow::Result<Option<PathBuf>> {
    let bytes = read(binary)?;
    let header = object::elf::FileHeader64::<object::Endianness>::parse(&*bytes)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, &*bytes)? {
        if let Some(name) = object::read::elf::ProgramHeader::interpreter(segment, endian, &*bytes)?
        {
            return Ok(Some(PathBuf::from(String::from_utf8(name.to_vec())?)));
        }
    }
    Ok(None)
}

/// Where what is released is put.
pub fn directory() -> anyhow::Result<PathBuf> {
    let directory = machine::target().join("dist");
    fs::create_dir_all(&directory)
        .with_context(|| format!("can't make {}", directory.display()))?;
    Ok(directory)
}

/// The one version of all that is released: the workspace's.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// When what is released was made, in seconds since 1970: `SOURCE_DATE_EPOCH`, else the last
/// commit's time.
pub fn epoch() -> anyhow::Result<u64> {
    if let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") {
        return epoch
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH: {epoch}: not seconds since 1970"));
    }
    let commit = machine::output(
        Command::new("git")
            .args(["log", "-1", "--format=%ct"])
            .current_dir(machine::root()),
    )
    .context("give SOURCE_DATE_EPOCH where there is no repository")?;
    Ok(commit.trim().parse()?)
}

/// The commit it is made of, where there is a repository.
pub fn revision() -> Option<String> {
    let commit = machine::output(
        Command::new("git")
            .args(["rev-parse", "HEAD"])
            .current_dir(machine::root()),
    );
    Some(commit.ok()?.trim().to_owned())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can't read {}", path.display()))
}
