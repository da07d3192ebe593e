//! From the text of a file to entries: keys with their values and places.
//!
//! Invariants: only keys of the table become entries, with values of their kind; everything else becomes a problem with
//! its line; tables that are not known are not looked into, so depth is bounded by the table of keys; memory is bounded
//! by the size of the text, which its caller limits.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Key, SECTIONS, Section, concrete};
use super::problem::{Origin, Problem, nearest, shown};
use super::values::{Value, Wrong, shown_value};

/// A key that is set.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: &'static Key,
    /// The name in the place of its `*`, or empty.
    pub(super) name: String,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A section that is there, perhaps without a key.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) section: &'static Section,
    pub(super) name: String,
    pub(super) origin: Origin,
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) entries: Vec<Entry>,
    pub(super) sections: Vec<Named>,
    pub(super) problems: Vec<Problem>,
}

/// Longest name of a section.
const NAME_BYTES_MAX: usize = 64;

/// Problems of a file that are kept; nobody reads more at once.
const PROBLEMS_MAX: usize = 200;

/// Reads the text of a file.
pub(super) fn document(file: &Arc<Path>, text: &[u8]) -> Document {
    let mut reader = Reader { lines: Lines::new(file, text), document: Document::default() };
    let nul = memchr::memchr(0, text);
    let text = match (std::str::from_utf8(text), nul) {
        (Ok(text), None) => text,
        (valid, nul) => {
            let end = valid.map_or_else(|error| error.valid_up_to(), str::len);
            reader.problem(nul.map_or(end, |nul| nul.min(end)), NOT_TEXT.to_owned());
            return reader.document;
        }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    reader.table(&mut Vec::new(), "", table.get_ref());
    let broken = reader.broken(text, &errors);
    let mut document = reader.document;
    // Where the grammar is broken, what was made of it means nothing.
    let line_of = |origin: &Origin| if let Origin::Line { line, .. } = origin { *line } else { 0 };
    document.problems.retain(|problem| !broken.iter().any(|b| line_of(&b.origin) == line_of(&problem.origin)));
    document.problems.extend(broken);
    document
}

const NOT_TEXT: &str = "this is no text file (a byte here is not UTF-8, or is NUL); give a TOML file";

/// Where lines begin.
struct Lines<'t> {
    file: Arc<Path>,
    text: &'t [u8],
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(file: &Arc<Path>, text: &'t [u8]) -> Self {
        let starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text).map(|at| at + 1)).collect();
        Self { file: Arc::clone(file), text, starts }
    }

    fn origin(&self, at: usize) -> Origin {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..at.min(self.text.len())).unwrap_or_default();
        // Characters, counted by their first bytes.
        let column = 1 + before.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        Origin::Line { file: Arc::clone(&self.file), line, column }
    }
}

struct Reader<'t> {
    lines: Lines<'t>,
    document: Document,
}

impl Reader<'_> {
    fn problem(&mut self, at: usize, what: String) {
        if self.document.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let origin = self.lines.origin(at);
        self.document.problems.push(Problem { origin, what });
    }

    /// Walks a table. `path` is where it is in the table of keys, `name` what stands for the `*` in it.
    fn table(&mut self, path: &mut Vec<&'static str>, name: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let (at, text) = (key.span().start, key.get_ref().as_ref());
            let Some(step) = step(path, text, value.get_ref()) else {
                self.unknown(at, path, name, text, value);
                continue;
            };
            let name = if step == "*" { text } else { name };
            path.push(step);
            self.meant(path, name, at, value);
            path.pop();
        }
    }

    fn meant(&mut self, path: &mut Vec<&'static str>, name: &str, at: usize, value: &Spanned<DeValue<'_>>) {
        let shown_path = shown(&concrete(&path.join("."), name));
        match (key_at(path), value.get_ref()) {
            (Some(key), _) => match key.kind.read(value) {
                Ok(value) => {
                    let origin = self.lines.origin(at);
                    self.document.entries.push(Entry { key, name: name.to_owned(), value, origin });
                }
                Err(Wrong { span, value, what }) => {
                    self.problem(span.start, format!("{shown_path} = {value} {what}"));
                }
            },
            (_, DeValue::Table(table)) => {
                if path.last() == Some(&"*") && !is_name(name) {
                    let what = "is no name for a section; write up to 64 letters, digits, - and _";
                    return self.problem(at, format!("{shown_path} {what}"));
                }
                self.section(path, name, at);
                self.table(path, name, table);
            }
            (_, DeValue::Array(entries)) if entries.iter().any(|e| e.get_ref().is_table()) => {
                let what = format!("is a section and no list; write [{}]", section_to_write(path, name));
                self.problem(at, format!("{shown_path} {what}"));
            }
            (_, other) => {
                let what = format!("is a section; write [{}] and its keys below it", section_to_write(path, name));
                self.problem(at, format!("{shown_path} = {} {what}", shown_value(other)));
            }
        }
    }

    fn section(&mut self, path: &[&'static str], name: &str, at: usize) {
        let path = path.join(".");
        if let Some(section) = SECTIONS.iter().find(|section| section.path == path) {
            let origin = self.lines.origin(at);
            self.document.sections.push(Named { section, name: name.to_owned(), origin });
        }
    }

    fn unknown(&mut self, at: usize, path: &[&'static str], name: &str, text: &str, value: &Spanned<DeValue<'_>>) {
        if self.document.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let above = concrete(&path.join("."), name);
        let known: Vec<&str> = children(path).filter(|child| *child != "*").collect();
        let what = if let Some(meant) = nearest(text, known.iter().copied()) {
            format!("did you mean {meant}?")
        } else if let Some(key) = elsewhere(text) {
            format!("did you mean {} in [{}]?", key.name(), concrete(key.section(), "NAME"))
        } else if !value.get_ref().is_table() && children(path).any(|child| child == "*") && !path.is_empty() {
            format!("known are {}, and sections as [{above}.NAME]", known.join(", "))
        } else {
            format!("known are {}; `lastgaspd config --explain` says more", known.join(", "))
        };
        let place = if path.is_empty() { String::new() } else { format!(" in [{}]", shown(&above)) };
        self.problem(at, format!("unknown key {}{place}; {what}", quoted_if_odd(text)));
    }

    /// Problems of the grammar: the first of each line.
    fn broken(&self, text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
        let mut found: Vec<Problem> = Vec::new();
        for error in errors {
            let span = error.span().unwrap_or_default();
            let origin = self.lines.origin(span.start);
            let same_line = |origin: &Origin, other: &Origin| match (origin, other) {
                (Origin::Line { line, .. }, Origin::Line { line: other, .. }) => line == other,
                _ => false,
            };
            if found.len() >= PROBLEMS_MAX {
                break;
            }
            if found.last().is_none_or(|last| !same_line(&last.origin, &origin)) {
                found.push(Problem { origin, what: grammar(text, &span, error.message()) });
            }
        }
        found
    }
}

/// An error of the grammar in words.
fn grammar(text: &str, span: &Range<usize>, message: &str) -> String {
    let there = text.get(span.clone()).unwrap_or_default().lines().next().unwrap_or_default();
    if message.contains("duplicate key") {
        return format!("{} is here for the second time in this file; join the two", quoted_if_odd(there));
    }
    if message.contains("recurs") {
        return "this is nested too deeply; no key needs that".to_owned();
    }
    let there = if there.is_empty() { String::new() } else { format!(" at {}", quoted_if_odd(there)) };
    format!("this is not TOML{there}: {message}; write key = value, with text in quotes")
}

fn quoted_if_odd(text: &str) -> String {
    if is_name(text) { text.to_owned() } else { format!("\"{}\"", shown(text)) }
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(fits)
}

/// Paths of all keys and sections.
fn paths() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|section| section.path).chain(KEYS.iter().map(|key| key.path))
}

/// The next parts of paths that begin with `path`.
fn children<'a>(path: &'a [&'static str]) -> impl Iterator<Item = &'static str> + 'a {
    let mut seen: Vec<&'static str> = Vec::new();
    paths().filter_map(move |full| {
        let mut parts = full.split('.');
        let below = path.iter().all(|part| parts.next() == Some(*part));
        let child = parts.next().filter(|child| below && !seen.contains(child))?;
        seen.push(child);
        Some(child)
    })
}

/// The part of the table's paths that `text` stands for below `path`: itself, or a name.
fn step(path: &[&'static str], text: &str, value: &DeValue<'_>) -> Option<&'static str> {
    let known = children(path).find(|child| *child == text && *child != "*");
    // Only a table has a name that the user gives, so that a mistyped key is not taken for one.
    let table = match value {
        DeValue::Table(_) => true,
        DeValue::Array(entries) => entries.iter().any(|entry| entry.get_ref().is_table()),
        _ => false,
    };
    known.or_else(|| children(path).find(|child| table && *child == "*"))
}

fn key_at(path: &[&'static str]) -> Option<&'static Key> {
    let path = path.join(".");
    KEYS.iter().find(|key| key.path == path)
}

/// A key of about this name in another section, if there is just one.
fn elsewhere(text: &str) -> Option<&'static Key> {
    let name = nearest(text, KEYS.iter().map(Key::name))?;
    let mut found = KEYS.iter().filter(|key| key.name() == name);
    found.next().filter(|_| found.next().is_none())
}

fn section_to_write(path: &[&'static str], name: &str) -> String {
    let full = path.join(".");
    let named = full.contains('*') || SECTIONS.iter().any(|section| section.path == full);
    if named { concrete(&full, name) } else { format!("{full}.NAME") }
}
