//! What ARCHITECTURE.md promises of the sources, read from the sources.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            found.push((path, text));
        }
    }
    found
}

#[test]
fn there_are_sources_to_read() {
    for directory in ["ipam-agent/src", "ipam-agent/src/engine", "ipam-ebpf/src"] {
        assert!(sources(&root().join(directory)).len() > 4, "{directory}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The lines of code, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn the_engine_is_pure() {
    let words = [
        "tokio",
        "aya",
        "rtnetlink",
        "netlink",
        "pnet_",
        "kube",
        "async ",
        "std::fs",
        "std::net::",
        "std::time::Instant",
        "SystemTime",
        "clock",
        "std::io",
        "std::process",
        "std::thread",
        "std::env",
    ];
    let allowed = ["std::net::IpAddr", "std::net::Ipv4Addr", "kubelet"];
    for (path, text) in sources(&root().join("ipam-agent/src/engine")) {
        for (number, line) in code(&text) {
            let named = words.iter().find(|word| line.contains(**word));
            let allowed = allowed.iter().any(|word| line.contains(word));
            assert!(
                named.is_none() || allowed,
                "{}:{number} names {}: {line}",
                path.display(),
                named.unwrap_or(&""),
            );
        }
    }
}

#[test]
fn unsafe_code_is_where_it_is_said_to_be() {
    for (path, text) in sources(&root().join("ipam-agent/src")) {
        if path.ends_with("source/live/pod.rs") {
            continue;
        }
        for (number, line) in code(&text) {
            // As rustfmt writes blocks and items, and attributes.
            let is_unsafe = line.contains("unsafe ") || line.contains("unsafe(");
            assert!(!is_unsafe, "{}:{number}: {line}", path.display());
        }
    }
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut all = sources(&root().join("ipam-ebpf/src"));
    all.extend(sources(&root().join("ipam-agent/src/source/live")));
    for (path, text) in all {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in code(&text) {
            let is_lint = line.contains("unsafe_code") || line.contains("unsafe(");
            if is_lint || !line.contains("unsafe ") {
                continue;
            }
            let from = number.saturating_sub(9);
            let said = lines[from..number]
                .iter()
                .any(|line| line.contains("SAFETY") || line.contains("# Safety"));
            assert!(said, "{}:{number}: no SAFETY line: {line}", path.display());
        }
    }
}
