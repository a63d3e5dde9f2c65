//! Packs the list of who makes which MACs, of the text that `cargo xtask vendors` writes, to
//! two fifths: tables to be searched where they lie in the program's image, and the names.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write as _,
    path::Path,
};

use flate2::{Compression, write::DeflateEncoder};

const LIST: &str = "src/report/vendors.txt";

/// The IEEE's blocks by the digits of their prefixes, and the file of each: entries of a
/// prefix, in whole bytes, and the place of the name, in three, all most significant byte
/// first, in the order of the prefixes.
const BLOCKS: [(usize, &str); 3] = [(6, "24"), (7, "28"), (9, "36")];

fn main() {
    println!("cargo::rerun-if-changed={LIST}");
    let list = fs::read_to_string(LIST).expect("the list can be read");
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<(&str, &str)> = lines
        .map(|line| line.split_once(' ').expect("a prefix and a name"))
        .collect();

    // Each name once, each followed by a newline.
    let mut names = String::new();
    let mut places = BTreeMap::new();
    for name in lines.iter().map(|(_, name)| *name).collect::<BTreeSet<_>>() {
        places.insert(name, names.len());
        names.push_str(name);
        names.push('\n');
    }

    let directory = env::var_os("OUT_DIR").expect("cargo says where");
    let put = |name: &str, bytes: &[u8]| {
        let file = Path::new(&directory).join(format!("vendors-{name}"));
        fs::write(file, bytes).expect("the directory can be written to");
    };
    let mut deflated = DeflateEncoder::new(Vec::new(), Compression::best());
    deflated
        .write_all(names.as_bytes())
        .expect("memory takes it");
    put("names", &deflated.finish().expect("memory takes it"));
    for (digits, file) in BLOCKS {
        let mut blocks = BTreeMap::new();
        for (prefix, name) in lines.iter().filter(|(prefix, _)| prefix.len() == digits) {
            let prefix = u64::from_str_radix(prefix, 16).expect("hexadecimal digits");
            blocks.insert(prefix, places[name]);
        }
        let mut table = Vec::new();
        for (prefix, place) in blocks {
            let place = u32::try_from(place).expect("of three bytes");
            assert!(place < 1 << 24, "the names are too long for three bytes");
            table.extend(&prefix.to_be_bytes()[8 - digits.div_ceil(2)..]);
            table.extend(&place.to_be_bytes()[1..]);
        }
        put(file, &table);
    }
}
