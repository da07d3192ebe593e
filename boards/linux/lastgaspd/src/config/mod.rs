//! The configuration: what the node is told, from files and flags, as typed values.
//!
//! Invariants: no file, or an empty one, is a working node.

pub mod pattern;
mod policy;
mod severities;
mod types;

pub use policy::ERROR;
pub use severities::Severities;
pub use types::{
    Api, Begin, ClassRule, Classes, Config, Files, Http, Journald, KEEP_CLASSES_MAX, Keep, KeepClass, Limits,
    NAME_BYTES_MAX, REST, Sources, Stdin, Store, Switch, Syslog,
};
