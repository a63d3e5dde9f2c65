//! Every script of this suite on real veths, before the real daemon.
//!
//! Scripts are arguments of tests, and played they take half a minute each; so this suite is
//! run once more by one of its tests, which has it write down its scripts, and plays all of
//! them at the same time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    env,
    fs::{self, File},
    io::Write as _,
    panic::Location,
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};
use tests::{
    lab,
    scenario::{
        Family,
        live::{LAST, Live, Played, expected, filters_vlans, has_vlans, play_all},
    },
    skip::skip,
};

/// The file that scripts are written to, if it is for them that this suite runs.
const COLLECTED: &str = "IPAM_AGENT_SCENARIOS";

/// For what is told late: long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why scripts with VLANs of ports are not played.
const NO_VLANS: &str = "this kernel's bridges don't filter VLANs";

/// Writes a script down, if it is for them that this suite runs.
#[track_caller]
pub fn collect(family: Family, script: &str) {
    let Some(path) = env::var_os(COLLECTED) else {
        return;
    };
    let written = (Location::caller().to_string(), script, family);
    let write = || -> Result<()> {
        let mut file = File::options().append(true).open(path)?;
        // One call: other threads write too.
        Ok(file.write_all(format!("{}\n", serde_json::to_string(&written)?).as_bytes())?)
    };
    write().expect("a script is written down");
}

/// All scripts of this suite, by where they are, and in which families they are told.
fn scripts() -> Result<BTreeMap<(String, String), BTreeSet<Family>>> {
    let file = tempfile::NamedTempFile::new()?;
    let suite = Command::new(env::current_exe()?)
        .args(["--skip", "live::", "--skip", "telling::"])
        .env(COLLECTED, file.path())
        .output()?;
    let said = String::from_utf8_lossy(&suite.stdout);
    ensure!(suite.status.success(), "{said}");
    let mut scripts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for line in fs::read_to_string(file.path())?.lines() {
        let (at, script, family) = serde_json::from_str(line)?;
        scripts.entry((at, script)).or_default().insert(family);
    }
    Ok(scripts)
}

/// What is to be played of a script. Both protocols are played in one laboratory, unless the
/// station itself is judged, of which there is one then.
fn played(script: &str, families: BTreeSet<Family>) -> Result<Vec<Played>> {
    let families: Vec<Family> = families.into_iter().collect();
    let told: Result<Vec<_>> = families.iter().map(|&of| expected(of, script)).collect();
    let told = told?;
    let station = told
        .iter()
        .flatten()
        .any(|line| line.contains("duplicate-mac"));
    let of = |families: &[Family], told: &[Vec<String>]| Played {
        families: families.to_owned(),
        script: script.to_owned(),
        expected: told.concat(),
    };
    Ok(match station {
        true => families
            .chunks(1)
            .zip(told.chunks(1))
            .map(|(f, t)| of(f, t))
            .collect(),
        false => vec![of(&families, &told)],
    })
}

/// Plays scripts; what went wrong, and where.
fn failures(all: Vec<(String, Played)>) -> Vec<String> {
    let (places, all): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let results = places.iter().zip(play_all(all, PATIENCE));
    let failed = results.filter_map(|(at, result)| Some(format!("{at}: {:#}", result.err()?)));
    failed.collect()
}

#[test]
fn every_script_is_told_the_same_on_veths() -> Result<()> {
    if let Err(why) = lab::available() {
        skip(&why);
        return Ok(());
    }
    let filters = filters_vlans()?;
    let (mut all, mut left_out, mut cut) = (Vec::new(), Vec::new(), 0);
    for ((at, script), families) in scripts()? {
        match Live::of(&script)? {
            Live::Nothing(why) => left_out.push(format!("{at}: {why}")),
            Live::Script(script, _) if has_vlans(&script) && !filters => {
                left_out.push(format!("{at}: {NO_VLANS}"));
            }
            Live::Script(script, scenes) => {
                cut += usize::from(scenes > 0);
                all.extend(
                    played(&script, families)?
                        .into_iter()
                        .map(|one| (at.clone(), one)),
                );
            }
        }
    }
    // Those that take longest begin first.
    all.sort_by_key(|(_, one)| Reverse(one.length().ok()));
    println!(
        "{} laboratories; {cut} scripts are played up to {LAST} s; left out: {left_out:#?}",
        all.len()
    );
    let failed = failures(all);
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

#[test]
fn what_is_told_otherwise_on_veths_is_a_failure() -> Result<()> {
    if let Err(why) = lab::available() {
        skip(&why);
        return Ok(());
    }
    let script = "lease X A\n 0 vA ANN A X\n 1 up ANN B X\n 1.5 vA ANN A X";
    let told = expected(Family::V4, script)?;
    assert_eq!(
        told,
        [
            "IPv4 X: heard A",
            "IPv4 X: heard B",
            "IPv4 X: lease-mismatch Warning, duplicate-address Warning; by A B",
        ]
    );
    let bad = [
        ("by A B", "by A C"),
        ("duplicate-address Warning", "duplicate-address Critical"),
        ("lease-mismatch", "reserved-address"),
        ("lease-mismatch Warning, ", ""),
        ("heard A", "heard C"),
    ];
    let with = |(from, to)| told.iter().map(|line| line.replace(from, to)).collect();
    let mut all: Vec<(_, Vec<String>)> = bad.map(|change| (script, with(change))).into();
    // More than should be, and less.
    all.push((script, told[..2].into()));
    all.push(("0 vA ANN A X\n 1.5 up ANN B X", told.clone()));
    let all = all.into_iter().map(|(script, expected)| Played {
        families: vec![Family::V4],
        script: script.to_owned(),
        expected,
    });
    for result in play_all(all.collect(), Duration::from_secs(1)) {
        let error = result
            .expect_err("it is not what should be told")
            .to_string();
        assert!(error.contains("on veths"), "{error}");
    }
    Ok(())
}
