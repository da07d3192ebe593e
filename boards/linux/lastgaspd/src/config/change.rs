//! What a reload changes, and when each change takes effect.
//!
//! Invariants: no change is listed if and only if the two are equal; a section that comes or goes is one change.

use std::collections::BTreeSet;
use std::fmt;

use super::keys::{Apply, KEYS, SECTIONS, concrete};
use super::types::Config;

/// A difference between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path of the key, or of a section that came or went, as `sources.files.app`.
    pub key: String,
    /// The section it is in.
    pub section: String,
    /// When it takes effect.
    pub apply: Apply,
    /// From what to what.
    pub what: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.apply {
            Apply::Live => "from the next record on",
            Apply::Reopen => "its source is started anew",
            Apply::Restart => "NOT yet: only when the node is started anew",
        };
        write!(f, "{}: {} ({when})", self.key, self.what)
    }
}

/// What differs, in the order of the table of keys.
#[must_use]
pub fn changed(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    for section in SECTIONS {
        let (before, after) = ((section.names)(old), (section.names)(new));
        let names: BTreeSet<&String> = before.iter().chain(&after).collect();
        for name in names {
            let place = concrete(section.path, name);
            let keys = || KEYS.iter().filter(|key| key.section() == section.path);
            let what = match (before.contains(name), after.contains(name)) {
                (false, _) => Some("added"),
                (_, false) => Some("removed"),
                _ => None,
            };
            if let Some(what) = what {
                let apply = keys().map(|key| key.apply).max().unwrap_or(Apply::Restart);
                changes.push(Change { key: place.clone(), section: place, apply, what: what.to_owned() });
                continue;
            }
            for key in keys() {
                let (from, to) = (key.written(old, name), key.written(new, name));
                if from != to {
                    let text = |value: Option<String>| value.unwrap_or_else(|| "not set".to_owned());
                    changes.push(Change {
                        key: format!("{place}.{}", key.name()),
                        section: place.clone(),
                        apply: key.apply,
                        what: format!("{} -> {}", text(from), text(to)),
                    });
                }
            }
        }
    }
    changes
}
