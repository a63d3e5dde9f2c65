//! docs/configuration.md is made of the types: each key with its default and the reason.

use std::{env, fmt::Write as _, fs, path::Path};

use serde_json::{Map, Value, json};

use super::parse;
use crate::config::schema;

const BEGIN: &str = "<!-- made of the types: begin -->\n";
const END: &str = "<!-- made of the types: end -->";

/// A schema, and what it refers to.
struct Keys {
    root: Value,
}

impl Keys {
    fn new() -> Self {
        Self {
            root: schema().to_value(),
        }
    }

    /// The schema that one stands for: behind a reference, or null left out.
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let pointer = reference.trim_start_matches('#');
            return self.resolved(self.root.pointer(pointer).expect("a definition"));
        }
        let of = schema["anyOf"].as_array().or(schema["allOf"].as_array());
        let some = of.and_then(|all| all.iter().find(|one| one["type"] != "null"));
        some.map_or(schema, |one| self.resolved(one))
    }

    fn properties<'a>(&'a self, schema: &'a Value) -> Option<&'a Map<String, Value>> {
        self.resolved(schema)["properties"].as_object()
    }

    /// The elements of a list, if they have keys.
    fn elements<'a>(&'a self, schema: &'a Value) -> Option<&'a Value> {
        let items = &self.resolved(schema)["items"];
        self.properties(items).map(|_| items)
    }

    /// What is there when nobody says anything, as far as it can be said.
    fn defaults(&self, schema: &Value) -> Value {
        let mut defaults = Map::new();
        for (key, property) in self.properties(schema).into_iter().flatten() {
            if self.properties(property).is_some() {
                defaults.insert(key.clone(), self.defaults(property));
            } else if let Some(default) = default(property) {
                defaults.insert(key.clone(), default);
            }
        }
        Value::Object(defaults)
    }
}

fn default(property: &Value) -> Option<Value> {
    let default = property.get("default")?;
    (!default.is_null()).then(|| default.clone())
}

/// As it is written in the file.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("{value}")).collect();
            format!("[{}]", values.join(", "))
        }
        other => other.to_string(),
    }
}

fn described(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn reference() -> String {
    let keys = Keys::new();
    let mut text = String::new();
    for (key, property) in keys.properties(&keys.root).expect("keys") {
        let _ = write!(text, "\n### {key}\n\n{}\n", described(property));
        let elements = keys.elements(property);
        let of = elements.unwrap_or(property);
        if keys.properties(of).is_some() {
            if elements.is_some() {
                text += "\nA list; each entry has these keys:\n";
            }
            text += "\n| key | default | what, and why |\n| --- | --- | --- |\n";
            table(&keys, of, "", &mut text);
        } else if let Some(default) = default(property) {
            let _ = write!(text, "\nDefault: `{}`.\n", written(&default));
        }
    }
    text + "\n"
}

fn table(keys: &Keys, schema: &Value, parent: &str, text: &mut String) {
    let required = keys.resolved(schema)["required"].as_array();
    for (key, property) in keys.properties(schema).into_iter().flatten() {
        let must = required.is_some_and(|all| all.iter().any(|one| one == key));
        let default = match default(property) {
            _ if must => "must be said".to_owned(),
            Some(default) => format!("`{}`", written(&default)),
            None => "–".to_owned(),
        };
        let name = format!("{parent}{key}");
        let what = described(property).replace('|', "\\|");
        let _ = writeln!(text, "| `{name}` | {default} | {what} |");
        if let Some(elements) = keys.elements(property) {
            table(keys, elements, &format!("{name}[]."), text);
        }
    }
}

/// With `UPDATE=1` in the environment the page is written anew.
#[test]
fn the_page_has_what_the_types_say() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = fs::read_to_string(&page).expect("the page");
    let (before, rest) = text.split_once(BEGIN).expect("a beginning");
    let (there, after) = rest.split_once(END).expect("an end");
    let made = reference();
    if env::var_os("UPDATE").is_some() {
        fs::write(&page, format!("{before}{BEGIN}{made}{END}{after}")).expect("written");
        return;
    }
    assert!(
        there == made,
        "docs/configuration.md differs: run this test with UPDATE=1"
    );
}

#[test]
fn the_defaults_that_the_page_tells_are_those_that_count() {
    let keys = Keys::new();
    let told = keys.defaults(&keys.root);
    assert_eq!(told["reclaim"]["gate"], "15m", "{told:#}");
    let default = parse("").expect("valid");
    let said = parse(&told.to_string()).expect("valid");
    assert_eq!(format!("{said:?}"), format!("{default:?}"));

    let store = &keys.root["properties"]["stores"];
    let mut told = keys.defaults(keys.elements(store).expect("stores have keys"));
    told["kind"] = json!("host-local");
    told.as_object_mut().expect("keys").remove("path");
    let said = parse(&json!({ "stores": [told] }).to_string()).expect("valid");
    assert_eq!(
        format!("{:?}", said.stores),
        format!("{:?}", default.stores)
    );
}

/// Every key has its sentence.
#[test]
fn no_key_is_without_a_word() {
    fn check(keys: &Keys, schema: &Value, path: &str) {
        for (key, property) in keys.properties(schema).into_iter().flatten() {
            let path = format!("{path}.{key}");
            assert!(!described(property).is_empty(), "{path} is not described");
            check(keys, property, &path);
            if let Some(elements) = keys.elements(property) {
                check(keys, elements, &path);
            }
        }
    }
    let keys = Keys::new();
    check(&keys, &keys.root, "");
}
