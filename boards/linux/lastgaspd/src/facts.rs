//! What the node tells of its configuration and its sources when somebody asks for its status.
//!
//! Invariant: a fact is told under a name that stays; one that is unknown is left out.

use std::sync::{Arc, Mutex, PoisonError};

use lastgasp_core::node::{Class, GROUP_US, INTERVAL_US, RAM_US};

use crate::api::{FactValue, OwnedFact};
use crate::config::Config;
use crate::sources::status::Sources;

/// The configuration that holds, for those who show it.
pub type SharedConfig = Arc<Mutex<Config>>;

/// Sources, durability classes and limits.
#[must_use]
pub fn facts(config: &SharedConfig, sources: &Sources) -> Vec<OwnedFact> {
    let mut all: Vec<OwnedFact> = sources.reports().iter().map(OwnedFact::from).collect();
    let config = config.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(class("default", config.classes.default));
    all.push(class("errors", config.classes.errors));
    all.extend(config.classes.rules.iter().map(|(name, rule)| class(name, rule.class)));
    let limits = [
        ("rate", u64::from(config.limits.rate).into()),
        ("burst", u64::from(config.limits.burst_records()).into()),
        ("streams", u64::from(config.limits.streams).into()),
        ("stall_ms", FactValue::Number(u64::try_from(config.limits.stall.as_millis()).unwrap_or(u64::MAX))),
    ];
    all.push(OwnedFact::new("limit", "limits", &limits));
    all
}

/// A rule, and for how long what it is about may be lost by a cut.
fn class(rule: &str, class: Class) -> OwnedFact {
    let (name, within_us) = match class {
        Class::Each => ("each", 0),
        Class::Group => ("group", GROUP_US),
        Class::Interval => ("interval", INTERVAL_US),
        Class::Ram => ("ram", RAM_US),
    };
    OwnedFact::new("class", rule, &[("class", name.into()), ("within_ms", (within_us / 1000).into())])
}
