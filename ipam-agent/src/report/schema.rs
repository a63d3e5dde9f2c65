//! JSON Schema of every document, and of a line of the journal, for `docs/schema/`.

use schemars::{Schema, schema_for};

use super::document::{
    AddressCheck, Addresses, Applied, ApplyRequest, Doctor, EventList, Explain, History, Leases,
    Overview, PauseRequest, Pausing, Plan, Pools, Report, Segments, UndoRequest, Undone, WatchLine,
};

/// Each document's file name and schema.
pub fn all() -> [(&'static str, Schema); 21] {
    [
        ("report-v1.json", schema_for!(Report)),
        ("segments-v1.json", schema_for!(Segments)),
        ("leases-v1.json", schema_for!(Leases)),
        ("addresses-v1.json", schema_for!(Addresses)),
        ("pools-v1.json", schema_for!(Pools)),
        ("events-v1.json", schema_for!(EventList)),
        ("explain-v1.json", schema_for!(Explain)),
        ("plan-v1.json", schema_for!(Plan)),
        ("apply-request-v1.json", schema_for!(ApplyRequest)),
        ("applied-v1.json", schema_for!(Applied)),
        ("undo-request-v1.json", schema_for!(UndoRequest)),
        ("undone-v1.json", schema_for!(Undone)),
        ("pause-request-v1.json", schema_for!(PauseRequest)),
        ("pausing-v1.json", schema_for!(Pausing)),
        ("history-v1.json", schema_for!(History)),
        ("journal-v1.json", schema_for!(crate::journal::Record)),
        ("doctor-v1.json", schema_for!(Doctor)),
        ("watch-v1.json", schema_for!(WatchLine)),
        ("check-v1.json", schema_for!(AddressCheck)),
        ("top-v1.json", schema_for!(Overview)),
        ("config-v1.json", crate::config::schema()),
    ]
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs, path::Path};

    /// With `UPDATE=1` in the environment the files are written instead.
    #[test]
    fn the_published_schemas_are_those_of_the_types() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
        let mut names = BTreeSet::new();
        for (name, schema) in super::all() {
            let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
            let file = directory.join(name);
            if env::var_os("UPDATE").is_some() {
                fs::write(&file, &text).expect("written");
            }
            let published = fs::read_to_string(&file).unwrap_or_default();
            assert!(
                published == text,
                "{name} differs: run this test with UPDATE=1"
            );
            names.insert(name.to_owned());
        }
        let files = fs::read_dir(&directory).expect("a directory").map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("UTF-8")
        });
        assert_eq!(files.collect::<BTreeSet<_>>(), names);
    }
}
