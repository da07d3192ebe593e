//! The retention classes in the form that the engine takes: numbers, and rules of which the first that matches wins.
//!
//! Invariants: the plan puts every record into the class that [`Keep::class_of`] names; class 0 is the rest; there are
//! at most [`KEEP_CLASSES_MAX`] classes.
//!
//! Streams in `[keep]` are whole names or beginnings, so of two that share a stream one lies within the other. Rules
//! come with the narrower stream first; within one stream, from the worst severity down, one rule for each change of
//! class.

use std::time::Duration;

use lastgasp_core::retention::{ClassKeep, KeepPolicy, KeepRule};

use super::pattern::Pattern;
use super::severities::UNKNOWN;
use super::types::{KEEP_CLASSES_MAX, Keep, REST};

/// Rules and classes for the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepPlan {
    /// The first that matches a record gives its class; without one it is class 0.
    pub rules: Vec<PlanRule>,
    /// The classes by number.
    pub classes: Vec<PlanClass>,
    /// What one stream may fill when others need room, in thousandths of the store.
    pub stream_share_per_mille: u16,
}

/// Which class a record falls under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRule {
    /// Name of the stream, or with a `*` at the end how it begins; `None` for any.
    pub stream: Option<String>,
    /// Only this severity and worse.
    pub severity_min: u8,
    /// Number of the class.
    pub class: u8,
}

/// A class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanClass {
    /// Its name.
    pub name: String,
    /// What it may fill when others need room, in thousandths of the store.
    pub share_per_mille: u16,
    /// Older records may go.
    pub age: Option<Duration>,
}

impl Keep {
    /// The plan for the engine.
    #[must_use]
    pub fn plan(&self) -> KeepPlan {
        let names: Vec<&str> = self.names().take(KEEP_CLASSES_MAX).collect();
        let classes = names.iter().map(|name| PlanClass {
            name: (*name).to_owned(),
            share_per_mille: u16::from(self.share_percent_of(name)).saturating_mul(10),
            age: self.classes.get(*name).and_then(|class| class.age),
        });
        let number = |name: &str| names.iter().position(|other| *other == name).and_then(|at| u8::try_from(at).ok());
        let mut streams: Vec<&Pattern> = self.selectors().filter_map(|(_, selector)| selector.stream).collect();
        streams.sort_by_key(|pattern| std::cmp::Reverse(pattern.rank()));
        streams.dedup();
        let mut rules = Vec::new();
        for stream in streams.into_iter().map(Some).chain([None]) {
            let class_at = |severity| number(self.class_within(stream, severity)).unwrap_or_default();
            for severity in (1..=super::severities::MOST).rev() {
                // The last one of a run is where the engine's "and worse" begins.
                let goes_on = severity > 1 && class_at(severity - 1) == class_at(severity);
                if !goes_on {
                    let stream = stream.map(|pattern| pattern.as_str().to_owned());
                    rules.push(PlanRule { stream, severity_min: severity, class: class_at(severity) });
                }
            }
        }
        KeepPlan {
            rules,
            classes: classes.collect(),
            stream_share_per_mille: u16::from(self.stream_share_percent).saturating_mul(10),
        }
    }

    /// The class of a record whose stream lies within `stream` and no narrower one.
    fn class_within(&self, stream: Option<&Pattern>, severity: u8) -> &str {
        let covers = |pattern: &Pattern| match stream {
            None => false,
            // Beginnings nest: one covers another if it matches what that begins with.
            Some(narrow) => pattern == narrow || (pattern.as_str().ends_with('*') && pattern.matches(narrow.as_str())),
        };
        let matching = self
            .selectors()
            .filter(|(_, selector)| selector.stream.is_none_or(covers) && selector.severities().contains(severity));
        let best = matching.reduce(|best, next| if next.1.rank() > best.1.rank() { next } else { best });
        best.map_or(REST, |(name, _)| name)
    }
}

impl KeepPlan {
    /// The plan as the engine takes it. Its rules live as long as the process: each reload leaves a few hundred bytes
    /// behind.
    #[must_use]
    pub fn policy(self) -> KeepPolicy<'static> {
        let rule = |rule: PlanRule| KeepRule {
            stream: rule.stream.map(|name| &*name.leak()),
            severity_min: rule.severity_min,
            class: rule.class,
        };
        let rules: Vec<KeepRule<'static>> = self.rules.into_iter().map(rule).collect();
        let mut policy = KeepPolicy {
            rules: rules.leak(),
            stream_share_per_mille: self.stream_share_per_mille,
            ..KeepPolicy::default()
        };
        for (class, planned) in policy.classes.iter_mut().zip(&self.classes) {
            let max_age_us = planned.age.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
            *class = ClassKeep { share_per_mille: planned.share_per_mille, max_age_us };
        }
        policy
    }

    /// The number of the class of a record. A severity of 0 is unknown, and counts as `info`.
    #[must_use]
    pub fn class(&self, stream: &str, severity: u8) -> u8 {
        let severity = if severity == 0 { UNKNOWN } else { severity };
        let named = |rule: &PlanRule| match rule.stream.as_deref() {
            None => true,
            Some(pattern) => match pattern.strip_suffix('*') {
                Some(front) => stream.starts_with(front),
                None => stream == pattern,
            },
        };
        let rule = self.rules.iter().find(|rule| severity >= rule.severity_min && named(rule));
        rule.map_or(0, |rule| rule.class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Severities;
    use crate::config::types::KeepClass;

    fn keep(classes: &[(&str, &str, &str)]) -> Keep {
        let class = |(name, stream, severity): &(&str, &str, &str)| {
            let stream = (!stream.is_empty()).then(|| Pattern::beginning(stream).unwrap());
            let severity = (!severity.is_empty()).then(|| Severities::parse(severity).unwrap());
            ((*name).to_owned(), KeepClass { stream, severity, ..KeepClass::default() })
        };
        Keep { classes: classes.iter().map(class).collect(), ..Keep::default() }
    }

    #[test]
    fn without_classes_everything_is_the_rest() {
        let plan = Keep::default().plan();
        assert_eq!((plan.classes.len(), plan.class("x", 24), plan.stream_share_per_mille), (1, 0, 500));
        assert_eq!(plan.classes[0], PlanClass { name: REST.into(), share_per_mille: 1000, age: None });
    }

    #[test]
    fn a_range_becomes_rules_from_the_worst_down() {
        let plan = keep(&[("noise", "", "debug..debug")]).plan();
        let rules: Vec<_> = plan.rules.iter().map(|rule| (rule.severity_min, rule.class)).collect();
        assert_eq!(rules, [(9, 0), (5, 1), (1, 0)]);
        assert_eq!((plan.class("x", 0), plan.class("x", 6), plan.class("x", 4)), (0, 1, 0));
    }

    #[test]
    fn the_plan_agrees_with_the_rules_for_every_record() {
        let streams = ["", "*", "web*", "web-f*", "web-front", "web", "db"];
        let severities = ["", "error", "trace..debug", "debug..error", "info..info", "warn"];
        let all: Vec<_> = streams.iter().flat_map(|stream| severities.map(|severity| (*stream, severity))).collect();
        let names = ["a", "b", "c"];
        for first in 0..all.len() {
            for second in (first % 3..all.len()).step_by(5) {
                for third in (second % 7..all.len()).step_by(11) {
                    let picked = [all[first], all[second], all[third]];
                    let classes: Vec<_> = names.iter().zip(picked).map(|(n, (s, v))| (*n, s, v)).collect();
                    let keep = keep(&classes);
                    let plan = keep.plan();
                    for stream in ["web", "web-", "web-front", "web-front2", "db", "d", "", "we"] {
                        for severity in 0..=24 {
                            let number = usize::from(plan.class(stream, severity));
                            let expected = keep.class_of(stream, severity);
                            assert_eq!(plan.classes[number].name, expected, "{classes:?} {stream} {severity}");
                        }
                    }
                }
            }
        }
    }
}
