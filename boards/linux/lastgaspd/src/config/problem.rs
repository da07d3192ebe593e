//! What is wrong with a configuration, and where each value comes from.
//!
//! Invariants: every problem says where, what is wrong and what to do, in one line; text from files is shortened and
//! escaped, so that no file can write to a terminal.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value, or a problem, comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file as a whole.
    File(Arc<Path>),
    /// A place in a file, both counted from 1.
    Line {
        /// Which file.
        file: Arc<Path>,
        /// Line.
        line: usize,
        /// Character in the line.
        column: usize,
    },
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file) => write!(f, "{}", shown_path(file)),
            Self::Line { file, line, column } => write!(f, "{}:{line}:{column}", shown_path(file)),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Something that keeps a configuration from being used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What is wrong; what to do.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Default => f.write_str(&self.what),
            _ => write!(f, "{}: {}", self.origin, self.what),
        }
    }
}

/// Shown at most; the first ones are what matters.
const SHOWN_MAX: usize = 50;

/// All problems, one a line.
#[must_use]
pub fn report(problems: &[Problem]) -> String {
    let mut lines: Vec<String> = problems.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if let Some(more @ 1..) = problems.len().checked_sub(SHOWN_MAX) {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// Characters of foreign text shown at most.
const TEXT_CHARS_MAX: usize = 60;

/// Text of a file as it may be shown: escaped, and shortened.
pub(super) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut out: String = chars.by_ref().take(TEXT_CHARS_MAX).flat_map(escaped).collect();
    if chars.next().is_some() {
        out.push_str("...");
    }
    out
}

fn shown_path(path: &Path) -> String {
    path.to_string_lossy().chars().flat_map(escaped).collect()
}

/// Control characters, and those that change the direction of writing, escaped; quotes left as they are.
fn escaped(c: char) -> impl Iterator<Item = char> {
    let plain = matches!(c, '"' | '\'' | '\\').then_some(c);
    plain.into_iter().chain(plain.is_none().then(|| c.escape_debug()).into_iter().flatten())
}

/// The candidate that a mistyped word most likely means.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > TEXT_CHARS_MAX {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let edits = |candidate: &str| strsim::damerau_levenshtein(&word, candidate);
    let near = candidates.map(|candidate| (edits(candidate), candidate));
    let near = near.filter(|(edits, candidate)| *edits <= ((candidate.len().max(word.len()) + 1) / 3).max(1));
    near.min_by_key(|(edits, _)| *edits).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_recognised_and_noise_is_not() {
        let known = ["store", "keep", "classes", "limits", "sources", "api"];
        for (typed, meant) in
            [("stroe", "store"), ("Limit", "limits"), ("soruces", "sources"), ("class", "classes"), ("keyp", "keep")]
        {
            assert_eq!(nearest(typed, known.into_iter()), Some(meant));
        }
        assert_eq!(nearest("journald", known.into_iter()), None);
        assert_eq!(nearest(&"s".repeat(100_000), known.into_iter()), None);
    }

    #[test]
    fn nothing_foreign_reaches_a_terminal_as_it_is() {
        assert_eq!(shown("a\x1b[31m\u{202e}\"b\"\n"), "a\\u{1b}[31m\\u{202e}\"b\"\\n");
        assert_eq!(shown(&"x".repeat(61)), "x".repeat(60) + "...");
    }

    #[test]
    fn a_long_list_of_problems_is_cut() {
        let problem = Problem { origin: Origin::Flag("--size"), what: "is odd; do even".to_owned() };
        let report = report(&vec![problem; 60]);
        assert_eq!((report.lines().count(), report.lines().last()), (51, Some("and 10 more")));
        assert!(report.starts_with("--size: is odd; do even\n"));
    }
}
