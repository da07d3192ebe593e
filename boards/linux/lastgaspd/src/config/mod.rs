//! The configuration: what the node is told, from files and flags, as typed values.
//!
//! What a value goes through: its file is found and read in bounds (`load`); its text becomes entries with their places
//! (`read`), each of the kind (`values`, `units`, `severities`, [`pattern`]) that the table of keys (`table`, `keys`)
//! says; entries are merged, flags last, into the typed structs (`types`); contradictions are found (`rules`). The same
//! table explains all keys (`explain`), shows what holds (`show`) and says what a reload changes (`change`). Which rule
//! a record falls under is in `policy`, and for the engine in `plan`.
//!
//! Invariants: no file, or an empty one, is a working node; a key is in the table or is refused; a configuration with a
//! problem is never used in part; all problems are found at once, with file, line and what to do.

pub mod pattern;

mod change;
mod command;
mod explain;
mod keys;
mod load;
mod plan;
mod policy;
mod problem;
mod read;
mod rules;
mod severities;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod types;
mod units;
mod values;

pub use change::{Change, changed};
pub use command::{ConfigArgs, run};
pub use explain::{explain, explain_key};
pub use keys::Apply;
pub use load::{Flag, Loaded, Request, default_file, drop_in_directory};
pub use plan::{KeepPlan, PlanClass, PlanRule};
pub use policy::ERROR;
pub use problem::{Origin, Problem, report};
pub use severities::Severities;
pub use types::{
    Api, Begin, ClassRule, Classes, Config, Files, Http, Journald, KEEP_CLASSES_MAX, Keep, KeepClass, Limits,
    NAME_BYTES_MAX, OnFailure, REST, Sources, Stdin, Store, Switch, Syslog,
};
pub(crate) use units::read_size;
pub use values::Value;
