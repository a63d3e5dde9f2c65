//! What fuzzing found worth keeping goes through the same readers in every test run.

use std::{collections::BTreeSet, fs, path::PathBuf};

use tests::fuzz::TARGETS;

fn corpora() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus"]
        .iter()
        .collect()
}

#[test]
fn every_kept_input_is_taken() {
    for target in TARGETS {
        let corpus = corpora().join(target.name);
        let mut inputs: Vec<_> = fs::read_dir(&corpus)
            .expect("a corpus")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        inputs.sort();
        assert!(inputs.len() > 9, "{} has lost its corpus", target.name);
        for input in inputs {
            // Named should it panic.
            println!("{}", input.display());
            (target.run)(&fs::read(&input).expect("an input"));
        }
    }
}

/// Each target has an entry under libFuzzer, and each corpus a target.
#[test]
fn targets_and_corpora_fit() {
    let names = TARGETS.map(|target| target.name.to_owned()).into();
    let listed = |dir: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(dir).expect("a directory");
        entries
            .filter_map(|entry| {
                let path = entry.expect("an entry").path();
                Some(path.file_stem()?.to_str()?.to_owned())
            })
            .collect()
    };
    assert_eq!(listed(corpora()), names);
    assert_eq!(listed(corpora().join("../fuzz_targets")), names);
}
