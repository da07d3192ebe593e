//! What a key is, and how keys are found.
//!
//! Invariants: a key is in the table ([`KEYS`]) or it is not accepted; what reads, explains, shows and compares
//! configurations goes through the table, so none of them can know more keys than another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lastgasp_core::node::Class;

use super::pattern::{LineStart, PathPattern, Pattern};
use super::severities::Severities;
pub(super) use super::table::{KEYS, SECTIONS};
use super::types::{Begin, Config, OnFailure, Switch};
use super::values::{Kind, Value};

/// A key.
#[derive(Debug)]
pub(super) struct Key {
    /// Its path, as `store.size`; a `*` stands for the name of a section, as in `keep.*.age`.
    pub(super) path: &'static str,
    /// What it takes.
    pub(super) kind: Kind,
    /// What holds if it is not set and there is no default to write down; else empty.
    pub(super) unset: &'static str,
    /// What it does.
    pub(super) doc: &'static str,
    /// A value that is not the default, as TOML.
    pub(super) example: &'static str,
    /// When a change of it takes effect.
    pub(super) apply: Apply,
    pub(super) get: fn(&Config, &str) -> Option<Value>,
    pub(super) set: fn(&mut Config, &str, Value),
}

/// A table of keys.
#[derive(Debug)]
pub(super) struct Section {
    /// Its path, as `store`; a last `*` stands for a name that the user gives.
    pub(super) path: &'static str,
    /// What it is about.
    pub(super) doc: &'static str,
    /// A name for the explanation; empty if it has none.
    pub(super) example: &'static str,
    /// The names there are; one empty name if it has none.
    pub(super) names: fn(&Config) -> Vec<String>,
    /// Makes one of that name.
    pub(super) make: fn(&mut Config, &str),
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Apply {
    /// On SIGHUP, for the next record.
    Live,
    /// On SIGHUP, by starting its source anew; nothing is lost by that.
    Reopen,
    /// Only when the node is started anew.
    Restart,
}

impl Apply {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Live => "on reload, from the next record on",
            Self::Reopen => "on reload; its source is started anew for it",
            Self::Restart => "when the node is started anew",
        }
    }
}

impl Key {
    /// Its section, as `keep.*`.
    pub(super) fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its last part, as `age`.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// Its value as TOML, in the section of this name; `None` if it is not set.
    pub(super) fn written(&self, config: &Config, name: &str) -> Option<String> {
        (self.get)(config, name).map(|value| self.kind.write(&value))
    }
}

/// A path with a name in the place of the `*`.
pub(super) fn concrete(path: &str, name: &str) -> String {
    path.replacen('*', name, 1)
}

/// A field of the configuration that a key sets.
pub(super) trait Field {
    /// Its value, if it is set.
    fn get(&self) -> Option<Value>;
    /// Sets it. A value of another kind, which no key has for it, changes nothing.
    fn set(&mut self, value: Value);
}

macro_rules! fields {
    ($($type:ty => $variant:ident,)*) => { $(
        impl Field for $type {
            fn get(&self) -> Option<Value> {
                Some(Value::$variant(self.clone()))
            }
            fn set(&mut self, value: Value) {
                if let Value::$variant(value) = value {
                    *self = value;
                }
            }
        }
    )* };
}

fields! {
    bool => Bool,
    Switch => Switch,
    Duration => Time,
    Class => Class,
    Severities => Severities,
    String => Text,
    Pattern => Pattern,
    Vec<Pattern> => Patterns,
    Vec<PathPattern> => PathPatterns,
    PathBuf => Path,
    LineStart => Regex,
    Begin => Begin,
    OnFailure => OnFailure,
    Vec<SocketAddr> => Addresses,
}

macro_rules! numbers {
    ($($type:ty),*) => { $(
        impl Field for $type {
            fn get(&self) -> Option<Value> {
                Some(Value::Number(u64::from(*self)))
            }
            fn set(&mut self, value: Value) {
                // The bounds of the key lie within the type.
                if let Value::Number(number) = value
                    && let Ok(number) = <$type>::try_from(number)
                {
                    *self = number;
                }
            }
        }
    )* };
}

numbers!(u8, u16, u32, u64);

macro_rules! optional {
    ($($type:ty = $blank:expr),* $(,)?) => { $(
        impl Field for Option<$type> {
            fn get(&self) -> Option<Value> {
                self.as_ref().and_then(Field::get)
            }
            fn set(&mut self, value: Value) {
                let mut field: $type = $blank;
                field.set(value);
                *self = Some(field);
            }
        }
    )* };
}

optional!(u8 = 0, u64 = 0, Duration = Duration::ZERO, String = String::new(), PathBuf = PathBuf::new());
optional!(Class = Class::Interval, Severities = Severities::ALL);

macro_rules! optional_pattern {
    ($($type:ty => $variant:ident),*) => { $(
        impl Field for Option<$type> {
            fn get(&self) -> Option<Value> {
                self.as_ref().and_then(Field::get)
            }
            fn set(&mut self, value: Value) {
                if let Value::$variant(value) = value {
                    *self = Some(value);
                }
            }
        }
    )* };
}

optional_pattern!(Pattern => Pattern, LineStart => Regex);
