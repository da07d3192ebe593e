//! The configuration that holds, with where each value came from.
//!
//! Invariants: it is TOML, and loading it gives the same configuration.

use std::fmt::Write;

use super::keys::{KEYS, SECTIONS, concrete};
use super::load::Loaded;
use super::values::quoted;

/// Where comments begin, if the value leaves room.
const COMMENT_COLUMN: usize = 40;

impl Loaded {
    /// As TOML; each value has its origin behind it.
    #[must_use]
    pub fn show(&self) -> String {
        let mut out = String::new();
        for section in SECTIONS {
            for name in (section.names)(&self.config) {
                let place = concrete(section.path, &name);
                let blank = if out.is_empty() { "" } else { "\n" };
                let _ = writeln!(out, "{blank}[{place}]");
                for key in KEYS.iter().filter(|key| key.section() == section.path) {
                    let line = match key.written(&self.config, &name) {
                        Some(value) => {
                            let origin = self.origin(&format!("{place}.{}", key.name()));
                            format!("{:<COMMENT_COLUMN$}# {origin}", format!("{} = {value} ", key.name()))
                        }
                        None => format!("{:<COMMENT_COLUMN$}# {}", format!("# {} is not set", key.name()), key.unset),
                    };
                    let _ = writeln!(out, "{line}");
                }
            }
        }
        out
    }

    /// As JSON: an object of `{"value", "origin"}` by key. The value is null where none is set.
    #[must_use]
    pub fn show_json(&self) -> String {
        let mut lines = Vec::new();
        for section in SECTIONS {
            for name in (section.names)(&self.config) {
                for key in KEYS.iter().filter(|key| key.section() == section.path) {
                    let path = concrete(key.path, &name);
                    let value = (key.get)(&self.config, &name);
                    let value = value.map_or_else(|| "null".to_owned(), |value| key.kind.write_json(&value));
                    let origin = quoted(&self.origin(&path).to_string());
                    lines.push(format!("  {}: {{\"value\": {value}, \"origin\": {origin}}}", quoted(&path)));
                }
            }
        }
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}
