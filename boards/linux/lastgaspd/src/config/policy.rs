//! Which rule a record falls under: how soon it becomes durable, and in which retention class it is kept.
//!
//! Invariants: the order in which rules are written does not matter, so files merge without surprises. Of those that
//! match, **the one that says more wins**: a stream named in full over a pattern, a pattern with more plain characters
//! over one with fewer, any stream over none; then the narrower range of severities, then the worse one; then the name
//! that comes first in the alphabet.

use std::num::NonZeroU32;
use std::sync::Arc;

use lastgasp_core::node::Class;

use super::pattern::Pattern;
use super::severities::Severities;
use super::types::{Classes, Config, Keep, REST};
use crate::policy::{Policy, RateLimit};

/// The severity that `errors` begins with.
pub const ERROR: u8 = 17;

/// What a rule is about. `None` is all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selector<'a> {
    pub(super) stream: Option<&'a Pattern>,
    pub(super) severity: Option<Severities>,
}

impl<'a> Selector<'a> {
    /// A pattern that takes everything says no more than none.
    pub(super) fn new(stream: Option<&'a Pattern>, severity: Option<Severities>) -> Self {
        Self { stream: stream.filter(|pattern| pattern.as_str().contains(|c| c != '*')), severity }
    }

    pub(super) fn matches(&self, stream: &str, severity: u8) -> bool {
        self.stream.is_none_or(|pattern| pattern.matches(stream)) && self.severities().contains(severity)
    }

    /// How much it says: the greatest that matches wins.
    pub(super) fn rank(&self) -> impl Ord + Copy + use<> {
        (self.stream.map(Pattern::rank), self.severities().rank())
    }

    /// Whether nothing escapes it.
    pub(super) fn takes_all(&self) -> bool {
        self.stream.is_none() && self.severities() == Severities::ALL
    }

    /// Whether it is about every stream that the other is about. `false` where that is not plain to see.
    pub(super) fn covers_streams_of(&self, other: &Self) -> bool {
        self.stream.is_none_or(|pattern| other.stream.is_some_and(|other| pattern == other))
    }

    pub(super) fn severities(&self) -> Severities {
        self.severity.unwrap_or(Severities::ALL)
    }
}

/// The name of the rule that wins. Of equal ones the first wins, and they come sorted by name.
fn winner<'a>(rules: impl Iterator<Item = (&'a str, Selector<'a>)>, stream: &str, severity: u8) -> Option<&'a str> {
    let matching = rules.filter(|(_, selector)| selector.matches(stream, severity));
    let best = matching.reduce(|best, next| if next.1.rank() > best.1.rank() { next } else { best });
    best.map(|(name, _)| name)
}

impl Classes {
    /// What triggers the commit of a record. Severity 0 is unknown, and counts as `info`.
    #[must_use]
    pub fn class_of(&self, stream: &str, severity: u8) -> Class {
        let built_in = if severity >= ERROR { self.errors } else { self.default };
        self.rule_for(stream, severity).unwrap_or(built_in)
    }

    /// The same if a rule of the user names the record: a source that acknowledges uses `group` where none does.
    #[must_use]
    pub fn rule_for(&self, stream: &str, severity: u8) -> Option<Class> {
        let rules = self.rules.iter().map(|(name, r)| (name.as_str(), Selector::new(r.stream.as_ref(), r.severity)));
        winner(rules, stream, severity).and_then(|name| self.rules.get(name)).map(|rule| rule.class)
    }
}

impl Config {
    /// How the writer treats records by their stream and severity.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let classes = self.classes.clone();
        let burst = NonZeroU32::new(self.limits.burst_records());
        let rate = NonZeroU32::new(self.limits.rate).zip(burst);
        Policy {
            class_of: Arc::new(move |stream, severity| classes.class_of(stream, severity)),
            rate: rate.map(|(per_second, burst)| RateLimit { per_second, burst }),
            keep: self.keep.plan().policy(),
            stall: self.limits.stall,
        }
    }
}

impl Keep {
    /// The name of the retention class of a record: one of [`Keep::names`]. Severity 0 is unknown, and counts as
    /// `info`.
    #[must_use]
    pub fn class_of(&self, stream: &str, severity: u8) -> &str {
        winner(self.selectors(), stream, severity).unwrap_or(REST)
    }

    /// The names of all retention classes: [`REST`] first, the others sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(REST).chain(self.selectors().map(|(name, _)| name))
    }

    /// What a class may fill when others need room, in per cent. Classes without a share have what the others leave,
    /// in equal parts.
    #[must_use]
    pub fn share_percent_of(&self, name: &str) -> u8 {
        let given = |name: &str| self.classes.get(name).and_then(|class| class.share_percent);
        if let Some(share) = given(name) {
            return share;
        }
        let taken: u32 = self.names().filter_map(given).map(u32::from).sum();
        let sharing = u32::try_from(self.names().filter(|name| given(name).is_none()).count()).unwrap_or(u32::MAX);
        u8::try_from(100_u32.saturating_sub(taken) / sharing.max(1)).unwrap_or(100)
    }

    pub(super) fn selectors(&self) -> impl Iterator<Item = (&str, Selector<'_>)> {
        let named = self.classes.iter().filter(|(name, _)| *name != REST);
        named.map(|(name, c)| (name.as_str(), Selector::new(c.stream.as_ref(), c.severity)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::{ClassRule, KeepClass};

    fn rule(stream: &str, severity: &str, class: Class) -> ClassRule {
        let stream = (!stream.is_empty()).then(|| Pattern::new(stream).unwrap());
        let severity = (!severity.is_empty()).then(|| Severities::parse(severity).unwrap());
        ClassRule { stream, severity, class }
    }

    #[test]
    fn errors_are_grouped_and_the_rest_is_committed_at_intervals() {
        let classes = Classes::default();
        for (severity, class) in [(0, Class::Interval), (16, Class::Interval), (17, Class::Group), (24, Class::Group)] {
            assert_eq!(classes.class_of("any", severity), class, "{severity}");
        }
    }

    #[test]
    fn of_the_rules_that_match_the_one_that_says_more_wins() {
        let mut classes = Classes::default();
        let mut add = |name: &str, r| classes.rules.insert(name.to_owned(), r);
        add("a-all", rule("*", "debug", Class::Ram));
        add("b-web", rule("web*", "", Class::Interval));
        add("c-web-front", rule("web-f*", "warn", Class::Group));
        add("d-one", rule("web-front", "", Class::Ram));
        add("e-one-error", rule("web-front", "error", Class::Each));
        let of = |stream, severity| classes.class_of(stream, severity);
        assert_eq!(of("db", 5), Class::Ram);
        assert_eq!(of("db", 17), Class::Ram, "a rule wins over the built-in one for errors");
        assert_eq!(of("db", 1), Class::Interval);
        assert_eq!(of("web-back", 17), Class::Interval);
        assert_eq!(of("web-fast", 17), Class::Group);
        assert_eq!(of("web-fast", 9), Class::Interval);
        assert_eq!(of("web-front", 13), Class::Ram);
        assert_eq!(of("web-front", 18), Class::Each);
        assert_eq!((classes.rule_for("web-front", 18), classes.rule_for("db", 1)), (Some(Class::Each), None));
    }

    #[test]
    fn the_writer_follows_the_rules_and_the_limits() {
        let mut config = Config::default();
        assert_eq!(config.policy().rate, None);
        config.limits.rate = 100;
        config.classes.errors = Class::Each;
        let policy = config.policy();
        let rate = policy.rate.map(|rate| (rate.per_second.get(), rate.burst.get()));
        assert_eq!((rate, (policy.class_of)("x", 17)), (Some((100, 1000)), Class::Each));
        config.limits.burst = 150;
        assert_eq!(config.policy().rate.map(|rate| rate.burst.get()), Some(150));
    }

    #[test]
    fn a_record_is_kept_where_it_is_named_most_closely() {
        let mut keep = Keep::default();
        let class = |stream: &str, severity: &str, share_percent| {
            let r = rule(stream, severity, Class::Ram);
            KeepClass { stream: r.stream, severity: r.severity, share_percent, age: None }
        };
        assert_eq!((keep.class_of("x", 24), keep.share_percent_of(REST)), (REST, 100));
        keep.classes.insert("errors".into(), class("", "error", Some(20)));
        keep.classes.insert("web".into(), class("nginx*", "", Some(31)));
        keep.classes.insert("noise".into(), class("", "trace..debug", None));
        assert_eq!(keep.class_of("cron", 17), "errors");
        assert_eq!(keep.class_of("nginx", 17), "web");
        assert_eq!(keep.class_of("cron", 8), "noise");
        assert_eq!(keep.class_of("cron", 0), REST);
        assert_eq!(keep.names().collect::<Vec<_>>(), ["rest", "errors", "noise", "web"]);
        assert_eq!(["rest", "errors", "noise", "web"].map(|name| keep.share_percent_of(name)), [24, 20, 24, 31]);
    }
}
