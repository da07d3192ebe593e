//! What is kept, and for how long: retention classes, and each stream's share of the store.
//!
//! Invariants: a policy is plain data of the caller's; whatever it says, every record has exactly one class; it decides
//! only what a rewrite takes along and which table goes first, never what is durable.

use crate::format::header::CLASSES_MAX;

/// Which class a record falls under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepRule<'p> {
    /// Name of its stream, or with a `*` at the end how that begins; `None` for any.
    pub stream: Option<&'p str>,
    /// Only records of this severity and worse (higher).
    pub severity_min: u8,
    /// The class, 0 to 3.
    pub class: u8,
}

impl KeepRule<'_> {
    fn matches(&self, name: &str, severity: u8) -> bool {
        let named = self.stream.is_none_or(|pattern| match pattern.strip_suffix('*') {
            Some(front) => name.starts_with(front),
            None => name == pattern,
        });
        named && severity >= self.severity_min
    }
}

/// How long the records of a class are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassKeep {
    /// Its share of the store in thousandths: where space is short, the class most over its share gives way first.
    pub share_per_mille: u16,
    /// Records older than this are dropped, in microseconds; counts only between synchronised clocks.
    pub max_age_us: Option<u64>,
}

impl Default for ClassKeep {
    fn default() -> Self {
        Self { share_per_mille: 1000, max_age_us: None }
    }
}

/// What is kept. The default is one class without an age limit, where no stream takes more than half from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepPolicy<'p> {
    /// The first rule that matches a record gives its class; without one it is class 0.
    pub rules: &'p [KeepRule<'p>],
    /// The classes.
    pub classes: [ClassKeep; CLASSES_MAX],
    /// Share of the store in thousandths that a stream keeps when space is short and others need it.
    pub stream_share_per_mille: u16,
}

impl Default for KeepPolicy<'_> {
    fn default() -> Self {
        Self { rules: &[], classes: [ClassKeep::default(); CLASSES_MAX], stream_share_per_mille: 500 }
    }
}

impl KeepPolicy<'_> {
    /// The class of a record of the stream with this name. A severity of 0 is unknown, and counts as INFO.
    #[must_use]
    pub fn class(&self, name: &str, severity: u8) -> u8 {
        let severity = if severity == 0 { 9 } else { severity };
        let rule = self.rules.iter().find(|rule| rule.matches(name, severity));
        rule.map_or(0, |rule| rule.class).min(3)
    }

    /// How long a class is kept.
    #[must_use]
    pub fn of_class(&self, class: u8) -> ClassKeep {
        self.classes.get(usize::from(class)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_gives_the_class() {
        let rules = [
            KeepRule { stream: Some("kernel"), severity_min: 0, class: 2 },
            KeepRule { stream: None, severity_min: 17, class: 1 },
            KeepRule { stream: Some("app*"), severity_min: 9, class: 9 },
        ];
        let policy = KeepPolicy { rules: &rules, ..KeepPolicy::default() };
        let class = |name, severity| policy.class(name, severity);
        assert_eq!((class("kernel", 21), class("kernel2", 21), class("kernel2", 16)), (2, 1, 0));
        assert_eq!((class("app-1", 9), class("app-1", 8), class("", 0)), (3, 0, 0));
    }
}
