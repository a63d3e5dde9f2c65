//! Where things are on this machine, and how programs are run on it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// The compiler that the project is built with; rust-toolchain.toml says the same.
pub const RUST: &str = "1.95.0";

/// The linker of the eBPF object; later ones want an LLVM that isn't rustc's.
pub const BPF_LINKER: &str = "0.10.4";

/// The Kubernetes that the tests run: the one whose sources Debian has whole.
pub const KUBERNETES: &str = "1.20.2";

/// The repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// What `cargo xtask setup` unpacks and installs is here: `$XDG_CACHE_HOME/ipam-agent`.
pub fn cache() -> anyhow::Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => env::home_dir()
            .context("neither XDG_CACHE_HOME nor HOME is set: no place for a cache")?
            .join(".cache"),
    };
    Ok(cache.join("ipam-agent"))
}

/// The directory of bpf-linker.
pub fn bpf_linker() -> anyhow::Result<PathBuf> {
    Ok(cache()?.join(format!("bpf-linker-{BPF_LINKER}/bin")))
}

/// The directory of Kubernetes's programs, where the tests look for them. Its name is of when
/// the kubelet was alone in it, so that who has that need not build it again.
pub fn kubernetes() -> anyhow::Result<PathBuf> {
    Ok(cache()?.join(format!("kubelet-{KUBERNETES}")))
}

/// Debian's Prometheus, unpacked; the tests look for it there.
pub fn prometheus() -> anyhow::Result<PathBuf> {
    Ok(cache()?.join("prometheus"))
}

/// The file system of a Debian host.
pub fn debian() -> anyhow::Result<PathBuf> {
    Ok(cache()?.join("debian"))
}

/// Helm's library, and Kubernetes's schemas; the tests look for them there.
pub fn helm() -> anyhow::Result<PathBuf> {
    Ok(cache()?.join("helm-4.2.3"))
}

/// Where Debian's rust-src is unpacked to.
pub fn unpacked_rust_src() -> anyhow::Result<PathBuf> {
    Ok(cache()?.join(format!("rust-src-{RUST}")))
}

/// The sources of `core`, of the compiler's own version: the toolchain's component, else
/// what `cargo xtask setup` unpacked.
pub fn rust_src() -> anyhow::Result<Option<PathBuf>> {
    let component = sysroot()?.join("lib/rustlib/src/rust/library");
    let unpacked = unpacked_rust_src()?.join(format!("usr/src/rustc-{RUST}/library"));
    Ok([component, unpacked]
        .into_iter()
        .find(|library| library.join("core/src/lib.rs").is_file()))
}

/// The compiler's directory.
pub fn sysroot() -> anyhow::Result<PathBuf> {
    Ok(output(Command::new("rustc").args(["--print", "sysroot"]))?
        .trim()
        .into())
}

/// What keeps the paths of this machine out of what rustc builds from these sources.
pub fn remapping(rust_src: &Path, sources: &Path) -> anyhow::Result<Vec<String>> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir()
            .context("neither CARGO_HOME nor HOME is set")?
            .join(".cargo"),
    };
    let mut prefixes = vec![
        (cargo_home.clone(), "/cargo"),
        (sysroot()?, "/rustc"),
        (rust_src.to_owned(), "/rustc/library"),
        (sources.to_owned(), "/ipam-agent"),
    ];
    // A registry's directory is named after where it is mirrored.
    for registry in fs::read_dir(cargo_home.join("registry/src"))
        .into_iter()
        .flatten()
    {
        prefixes.push((registry?.path(), "/cargo"));
    }
    // Of several prefixes that match, the last one counts.
    let flag = |(from, to): (PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
    Ok(prefixes.into_iter().map(flag).collect())
}

/// Run a program to its end; an error names it.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{}: {status}", line(command));
    }
    Ok(())
}

/// What a program prints; an error names it and says what it complained of.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("can't run {}", command.get_program().display()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\n{}", line(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let mut line = command.get_program().display().to_string();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// Build packages of the workspace as `cargo xtask` itself is built.
pub fn build(packages: &[&str]) -> anyhow::Result<()> {
    // stdout is for the task's results; cargo writes to stderr.
    run(Command::new("cargo").arg("build").args(packages))
}

/// Where cargo puts a program that [`build`] built.
pub fn built(program: &str) -> PathBuf {
    target().join("debug").join(program)
}

/// Where cargo puts a program that [`build`] built with `--release`.
pub fn built_for_release(program: &str) -> PathBuf {
    target().join("release").join(program)
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| root().join("target"))
}

/// How a program ended, to end like it; 128 and more: by a signal, as a shell says it.
pub fn exit_code(status: std::process::ExitStatus) -> std::process::ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).map_or(
        std::process::ExitCode::FAILURE,
        std::process::ExitCode::from,
    )
}
