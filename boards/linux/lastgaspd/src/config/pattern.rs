//! Patterns: of names, of paths, and of how a record of several lines begins.
//!
//! Invariants: one that exists is valid; matching takes no more than about (pattern x text) steps, whatever the text;
//! two are equal if they were written alike.

use std::path::Path;

use glob::MatchOptions;

/// `*`, `?` and `[a-z]` over a name: of a stream or a unit. A `*` takes every character. Upper and lower case differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(glob::Pattern);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        compile(text).map(Self)
    }

    /// Reads a name, or with a `*` at its end how one begins: what the engine can tell apart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn beginning(text: &str) -> Result<Self, String> {
        if text.strip_suffix('*').unwrap_or(text).contains(['*', '?', '[', ']']) {
            return Err("is more than retention can tell apart; write a whole name, or its beginning and a * at the \
                        end, as \"nginx*\""
                .to_owned());
        }
        Self::new(text)
    }

    /// Whether a name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// How much it says: a name without wildcards over every pattern, then more plain characters over fewer.
    pub(super) fn rank(&self) -> (bool, usize) {
        let wild = |c: &char| matches!(c, '*' | '?' | '[' | ']');
        let plain = self.as_str().chars().filter(|c| !wild(c)).count();
        (!self.as_str().contains(['*', '?', '[']), plain)
    }
}

/// The same over absolute paths: `*` and `?` stay within one directory, `**` goes through all below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(glob::Pattern);

/// How patterns match paths, also for walking with [`glob::glob_with`]: hidden files have to be named.
pub const PATH_OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It is not absolute, or what else is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("is not absolute; begin it with /".to_owned());
        }
        compile(text).map(Self)
    }

    /// Whether a path matches.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        self.0.matches_path_with(path, PATH_OPTIONS)
    }

    /// As it was written: also what [`glob::glob_with`] takes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

fn compile(text: &str) -> Result<glob::Pattern, String> {
    match text {
        "" => Err("is empty; leave the key out, or write * for all".to_owned()),
        _ if text.chars().any(char::is_control) => Err("holds a control character; take it out".to_owned()),
        _ => glob::Pattern::new(text)
            .map_err(|e| format!("is no pattern ({} at character {}); * ? and [a-z] are understood", e.msg, e.pos + 1)),
    }
}

/// A regular expression that the first line of a record matches.
#[derive(Debug, Clone)]
pub struct LineStart(regex_lite::Regex);

/// Compiled, one may take this much memory.
const REGEX_BYTES_MAX: usize = 256 << 10;
/// So much of a line is looked at.
const LINE_BYTES_SEEN: usize = 1 << 10;

impl LineStart {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let built = regex_lite::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
        let regex =
            built.map_err(|e| format!("is no regular expression: {e}; write \\ before what is meant as it stands"))?;
        if text.is_empty() || regex.is_match("") {
            return Err("matches every line, so nothing would be joined; begin it with ^ and name what opens a \
                        record, as ^[0-9]{4}-"
                .to_owned());
        }
        Ok(Self(regex))
    }

    /// Whether a line begins a record. Looks at its first KiB; what is no UTF-8 there is replaced.
    #[must_use]
    pub fn matches(&self, line: &[u8]) -> bool {
        let seen = line.get(..LINE_BYTES_SEEN).unwrap_or(line);
        self.0.is_match(&String::from_utf8_lossy(seen))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for LineStart {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for LineStart {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        let matches = |pattern: &str, name| Pattern::new(pattern).unwrap().matches(name);
        assert!(matches("nginx*", "nginx") && matches("nginx*", "nginx/access") && matches("*", ""));
        assert!(!matches("nginx*", "my-nginx") && !matches("nginx", "Nginx") && matches("tty[0-9]", "tty1"));
        for bad in ["", "[a", "a\nb"] {
            assert!(Pattern::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_match_within_a_directory_unless_told_otherwise() {
        let matches = |pattern: &str, path: &str| PathPattern::new(pattern).unwrap().matches(Path::new(path));
        assert!(matches("/var/log/*.log", "/var/log/a.log") && !matches("/var/log/*.log", "/var/log/x/a.log"));
        assert!(matches("/var/**/*.log", "/var/log/x/a.log") && !matches("/var/log/*", "/var/log/.hidden"));
        assert!(PathPattern::new("log/*.log").unwrap_err().contains("absolute"));
    }

    #[test]
    fn many_stars_do_not_take_forever() {
        let pattern = Pattern::new(&"a*".repeat(100)).unwrap();
        assert!(!pattern.matches(&"a".repeat(99)));
        assert!(!Pattern::new(&("*a".repeat(60) + "b")).unwrap().matches(&"a".repeat(5_000)));
    }

    #[test]
    fn a_record_begins_where_the_expression_matches_whatever_the_bytes() {
        let start = LineStart::new("^[0-9]{4}-").unwrap();
        assert!(start.matches(b"2026-11-20 x") && !start.matches(b"\tat x(2026-)") && !start.matches(b"\xff\xfe2026-"));
        assert!(start.matches(&[b"2026-".as_slice(), &[0xff; 5000]].concat()));
        for bad in ["", ".*", "(", "(((a{1000}){1000}){1000})"] {
            assert!(LineStart::new(bad).is_err(), "{bad:?}");
        }
    }
}
