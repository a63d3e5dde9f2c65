//! `cargo xtask vendors`: the list of who makes which MACs, of the IEEE's registries as
//! Debian packages them. Downloads some megabytes; writes `ipam-agent/src/report/vendors.txt`.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{apt::Apt, machine};

/// The Debian suite whose list is the newest.
const SUITE: &str = "sid";
const PACKAGE: &str = "ieee-data";
/// The registries: blocks of 24, 28 and 36 bits, and the old ones of 36.
const REGISTRIES: [&str; 4] = ["oui.csv", "mam.csv", "oui36.csv", "iab.csv"];
/// The list in the repository.
const LIST: &str = "ipam-agent/src/report/vendors.txt";

/// What follows a firm's name, without dots and in small letters.
const LEGAL_FORMS: &[&str] = &[
    "ab",
    "ag",
    "aps",
    "as",
    "bv",
    "co",
    "company",
    "corp",
    "corporation",
    "gmbh",
    "inc",
    "incorporated",
    "kg",
    "kk",
    "limited",
    "llc",
    "lp",
    "ltd",
    "nv",
    "oy",
    "plc",
    "pte",
    "pty",
    "pvt",
    "sa",
    "sas",
    "sl",
    "spa",
    "srl",
];

/// Writes the list anew.
pub fn run() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let apt = Apt::new(work.path(), SUITE)?;
    let versions = apt.versions(PACKAGE)?;
    let version = versions
        .first()
        .with_context(|| format!("{SUITE} has no {PACKAGE}"))?;
    let package = apt.download(&format!("{PACKAGE}={version}"))?;
    let files = work.path().join("files");
    machine::run(
        Command::new("dpkg")
            .arg("-x")
            .args([&package, &files])
            .stdout(Stdio::null()),
    )?;
    let mut vendors = BTreeMap::new();
    for registry in REGISTRIES {
        let file = files.join("usr/share/ieee-data").join(registry);
        read(&file, &mut vendors).with_context(|| format!("{registry} of {PACKAGE} {version}"))?;
    }
    // In order: the key ends before the other begins, and a space is less than a digit.
    let mut list = format!(
        "# Who makes which MACs: the IEEE's public listing, by Debian's {PACKAGE} {version}\n"
    );
    for (prefix, vendor) in &vendors {
        list.push_str(&format!("{prefix} {vendor}\n"));
    }
    fs::write(machine::root().join(LIST), &list).with_context(|| format!("can't write {LIST}"))?;
    println!(
        "{LIST}: {} prefixes, {} bytes, {PACKAGE} {version}",
        vendors.len(),
        list.len()
    );
    Ok(())
}

/// Adds what a registry has. Of a prefix that was given out twice the first counts.
fn read(file: &Path, vendors: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    let mut registry = csv::Reader::from_path(file)?;
    let before = vendors.len();
    for row in registry.records() {
        let row = row?;
        let (prefix, name) = (&row[1], &row[2]);
        ensure!(
            matches!(prefix.len(), 6 | 7 | 9) && is_hexadecimal(prefix),
            "`{prefix}` is no prefix"
        );
        // Given to nobody, or to somebody who wants to stay unknown.
        if name.is_empty() || name == "Private" || name == "IEEE Registration Authority" {
            continue;
        }
        vendors
            .entry(prefix.to_owned())
            .or_insert_with(|| short(name));
    }
    ensure!(vendors.len() > before, "nothing in it");
    Ok(())
}

fn is_hexadecimal(prefix: &str) -> bool {
    prefix
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

/// The name without the legal form behind it, in one line of what can be seen.
fn short(name: &str) -> String {
    let visible: String = name
        .chars()
        .map(|character| {
            if is_visible(character) {
                character
            } else {
                ' '
            }
        })
        .collect();
    let mut words: Vec<&str> = visible
        .split([' ', ','])
        .filter(|word| !word.is_empty())
        .collect();
    while words.len() > 1 && words.last().is_some_and(|word| is_legal_form(word)) {
        words.pop();
    }
    words.join(" ")
}

fn is_visible(character: char) -> bool {
    !character.is_control()
        && !character.is_whitespace()
        && !matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn is_legal_form(word: &str) -> bool {
    let word = word.replace(['.', '(', ')'], "").to_lowercase();
    // `Co.Ltd`, `CO.LTD`: two in one.
    word.is_empty() || word == "coltd" || LEGAL_FORMS.contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn a_name_loses_its_legal_form_and_nothing_else() {
        for (long, name) in [
            ("Arista Networks", "Arista Networks"),
            ("Dell Inc.", "Dell"),
            ("Cisco Systems, Inc", "Cisco Systems"),
            ("Nokia Shanghai Bell Co., Ltd.", "Nokia Shanghai Bell"),
            (
                "Fiberhome Telecommunication Technologies Co.,LTD",
                "Fiberhome Telecommunication Technologies",
            ),
            ("QUERCUS TECHNOLOGIES, S.L.", "QUERCUS TECHNOLOGIES"),
            ("San Telequip (P) Ltd.,", "San Telequip (P)"),
            ("SA", "SA"),
            ("Jan\u{a0}Müller\t GmbH", "Jan Müller"),
        ] {
            assert_eq!(short(long), name);
        }
    }
}
