//! The bill of materials of a binary: CycloneDX, by cargo-cyclonedx, and what cargo doesn't
//! know of.

use std::{fs, process::Command};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    machine,
    release::{self, Arch},
    setup,
};

/// cargo-cyclonedx writes beside the manifest of each; the last is the program's.
const MEMBERS: [&str; 4] = ["ipam-common", "tests", "xtask", "ipam-agent"];

/// What the binary for this architecture is made of. Nothing random is in it, and no path of
/// this machine.
pub fn make(arch: Arch) -> anyhow::Result<Vec<u8>> {
    let tool = setup::cyclonedx()?;
    let name = format!("ipam-agent-{}", arch.name());
    machine::run(
        Command::new(tool)
            .current_dir(machine::root())
            .args(["cyclonedx", "--manifest-path", "ipam-agent/Cargo.toml"])
            .args(["--format", "json", "--spec-version", "1.5"])
            .arg("--no-build-deps")
            .args(["--target", arch.target(), "--override-filename", &name])
            .arg("--quiet")
            .env("SOURCE_DATE_EPOCH", release::epoch()?.to_string()),
    )?;
    let mut written = String::new();
    for member in MEMBERS {
        let file = machine::root().join(member).join(format!("{name}.json"));
        written = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
        fs::remove_file(&file)?;
    }
    let root = machine::root().canonicalize()?;
    let written = written.replace(
        &format!("file://{}/", root.display()),
        "file:///ipam-agent/",
    );
    let mut bill: Value = serde_json::from_str(&written)?;
    nameless(&mut bill);
    let components = bill["components"].as_array_mut().context("components")?;
    components.extend(linked(arch)?);
    let mut bill = serde_json::to_vec_pretty(&bill)?;
    bill.push(b'\n');
    Ok(bill)
}

/// What is in no registry can't be had from a directory of whoever built it.
fn nameless(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(purl)) = fields.get_mut("purl")
                && let Some((front, behind)) = purl.split_once("?download_url=file://")
            {
                let part = behind.find('#').map_or("", |part| &behind[part..]);
                *purl = format!("{front}{part}");
            }
            fields.values_mut().for_each(nameless);
        }
        Value::Array(values) => values.iter_mut().for_each(nameless),
        _ => {}
    }
}

/// What a static binary has of the compiler and the system.
fn linked(arch: Arch) -> anyhow::Result<[Value; 2]> {
    let package = match Some(arch) == Arch::own() {
        true => String::from("libc6-dev"),
        false => format!("libc6-dev-{}-cross", arch.name()),
    };
    let version = machine::output(
        Command::new("dpkg-query")
            .args(["-W", "-f", "${Version}"])
            .arg(&package),
    )?;
    let rust = machine::RUST;
    Ok([
        json!({
            "type": "library", "scope": "required", "name": "std", "version": rust,
            "description": "Rust's standard library",
            "licenses": [{ "expression": "Apache-2.0 OR MIT" }],
            "bom-ref": format!("rust-std@{rust}"), "purl": format!("pkg:generic/rust-std@{rust}"),
        }),
        json!({
            "type": "library", "scope": "required", "name": "glibc", "version": version,
            "description": "The GNU C library, linked statically",
            "licenses": [{ "expression": "LGPL-2.1-or-later" }],
            "bom-ref": format!("{package}@{version}"),
            "purl": format!("pkg:deb/debian/{package}@{version}?arch={}", arch.name()),
        }),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::nameless;

    #[test]
    fn a_bill_names_no_directory() {
        let mut bill = json!({ "components": [
            { "purl": "pkg:cargo/ipam-agent@0.1.0?download_url=file://.#src/lib.rs" },
            { "purl": "pkg:cargo/ipam-common@0.1.0?download_url=file://../ipam-common" },
            { "purl": "pkg:cargo/tokio@1.54.0" },
        ] });
        nameless(&mut bill);
        let expected = [
            "pkg:cargo/ipam-agent@0.1.0#src/lib.rs",
            "pkg:cargo/ipam-common@0.1.0",
            "pkg:cargo/tokio@1.54.0",
        ];
        for (component, purl) in bill["components"]
            .as_array()
            .into_iter()
            .flatten()
            .zip(expected)
        {
            assert_eq!(component["purl"], purl);
        }
    }
}
