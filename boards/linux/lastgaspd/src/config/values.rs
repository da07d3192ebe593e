//! Values of keys: what kinds there are, how each is read from TOML, and how it is written.
//!
//! Invariants: what is written reads back as the same; every refusal is a predicate that follows `KEY = VALUE` and says
//! what to write instead; the size of a value is bounded by the file it comes from.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use lastgasp_core::node::Class;
use toml::Spanned;
use toml::de::DeValue;

use super::pattern::{LineStart, PathPattern, Pattern};
use super::problem::{nearest, shown};
use super::severities::Severities;
use super::types::{Begin, NAME_BYTES_MAX, OnFailure, Switch};
use super::units;

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `true` or `false`.
    Bool,
    /// `true`, `false` or `"auto"`.
    Switch,
    /// A whole number within bounds.
    Count {
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// Bytes, as `"64M"`, within bounds.
    Size {
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A time, as `"5s"`, within bounds.
    Time {
        /// The least.
        least: Duration,
        /// The most.
        most: Duration,
    },
    /// Per cent of the store, as `"20%"`.
    Share,
    /// A durability class.
    Class,
    /// A severity or a range.
    Severities,
    /// The name of a stream.
    Stream,
    /// The same with `{stem}` and `{dir}`.
    StreamOfFile,
    /// The name of a group.
    Group,
    /// A pattern over names.
    Pattern,
    /// A name, or with a `*` how one begins.
    Beginning,
    /// Patterns over names.
    Patterns,
    /// Patterns over absolute paths.
    PathPatterns,
    /// An absolute path.
    Path,
    /// A regular expression.
    Regex,
    /// `"start"`, `"boot"` or `"end"`.
    BeginOfJournal,
    /// `"start"` or `"end"`.
    BeginOfFile,
    /// Addresses with ports.
    Addresses,
    /// `"exit"` or `"memory"`.
    OnFailure,
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Switch`].
    Switch(Switch),
    /// Of [`Kind::Count`], [`Kind::Size`] and [`Kind::Share`].
    Number(u64),
    /// Of [`Kind::Time`].
    Time(Duration),
    /// Of [`Kind::Class`].
    Class(Class),
    /// Of [`Kind::Severities`].
    Severities(Severities),
    /// Of [`Kind::Stream`], [`Kind::StreamOfFile`] and [`Kind::Group`].
    Text(String),
    /// Of [`Kind::Pattern`] and [`Kind::Beginning`].
    Pattern(Pattern),
    /// Of [`Kind::Patterns`].
    Patterns(Vec<Pattern>),
    /// Of [`Kind::PathPatterns`].
    PathPatterns(Vec<PathPattern>),
    /// Of [`Kind::Path`].
    Path(PathBuf),
    /// Of [`Kind::Regex`].
    Regex(LineStart),
    /// Of [`Kind::BeginOfJournal`] and [`Kind::BeginOfFile`].
    Begin(Begin),
    /// Of [`Kind::Addresses`].
    Addresses(Vec<SocketAddr>),
    /// Of [`Kind::OnFailure`].
    OnFailure(OnFailure),
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Bytes of the file it is about.
    pub(super) span: Range<usize>,
    /// The value as it may be shown.
    pub(super) value: String,
    /// What is wrong with it; what to do.
    pub(super) what: String,
}

/// Entries of a list.
const LIST_MAX: usize = 64;
/// Longest path Linux takes.
const PATH_BYTES_MAX: usize = 4095;
/// Longest name of a group Linux takes.
const GROUP_BYTES_MAX: usize = 32;
/// The names of the durability classes.
const CLASSES: [(&str, Class); 4] =
    [("each", Class::Each), ("group", Class::Group), ("interval", Class::Interval), ("ram", Class::Ram)];
/// The names of what may be done when a medium fails.
const ON_FAILURE: [(&str, OnFailure); 2] = [("exit", OnFailure::Exit), ("memory", OnFailure::Memory)];
/// The names of beginnings.
const BEGINS: [(&str, Begin); 3] = [("start", Begin::Start), ("end", Begin::End), ("boot", Begin::Boot)];

impl Kind {
    /// What it takes, in words.
    pub(super) fn words(self) -> String {
        let text = match self {
            Self::Bool => "true or false",
            Self::Switch => "true, false or \"auto\"",
            Self::Count { least, most } => return format!("a whole number from {least} to {most}"),
            Self::Size { least, most } => {
                return format!("a size in bytes from \"{}\" to \"{}\"", units::size(least), units::size(most));
            }
            Self::Time { least, most } => {
                return format!("a time from \"{}\" to \"{}\"", units::time(least), units::time(most));
            }
            Self::Share => "a share of the store in per cent from \"1%\" to \"100%\"",
            Self::Class => "\"each\", \"group\", \"interval\" or \"ram\"",
            Self::Severities => "a severity (it and worse) or a range, as \"error\" or \"trace..debug\"",
            Self::Stream => "the name of a stream",
            Self::StreamOfFile => "the name of a stream, with {stem} and {dir} for parts of the file's path",
            Self::Group => "the name of a group",
            Self::Pattern => "a name, with * ? and [a-z] as in a shell",
            Self::Beginning => "a name, or the beginning of one with * at its end",
            Self::Patterns => "names, with * ? and [a-z] as in a shell",
            Self::PathPatterns => "absolute paths, with * ? ** and [a-z] as in a shell",
            Self::Path => "an absolute path",
            Self::Regex => "a regular expression",
            Self::BeginOfJournal => "\"start\", \"boot\" or \"end\"",
            Self::BeginOfFile => "\"start\" or \"end\"",
            Self::OnFailure => "\"exit\" or \"memory\"",
            Self::Addresses => "addresses with ports, as \"127.0.0.1:5514\" or \"[::1]:5514\"",
        };
        text.to_owned()
    }

    /// Reads a value.
    pub(super) fn read(self, value: &Spanned<DeValue<'_>>) -> Result<Value, Wrong> {
        let wrong = |what: String| Wrong { span: value.span(), value: shown_value(value.get_ref()), what };
        let read = match self {
            Self::Patterns => list(value, Pattern::new)?.map(Value::Patterns),
            Self::PathPatterns => list(value, PathPattern::new)?.map(Value::PathPatterns),
            Self::Addresses => list(value, address)?.map(Value::Addresses),
            _ => match value.get_ref() {
                DeValue::Boolean(yes) => self.of_bool(*yes),
                DeValue::Integer(number) => {
                    let digits = i64::from_str_radix(number.as_str(), number.radix());
                    self.of_number(digits.ok()).map_err(wrong)?
                }
                DeValue::String(text) => self.of_text(text).map_err(wrong)?,
                _ => None,
            },
        };
        read.ok_or_else(|| wrong(format!("is {}; write {}", type_of(value.get_ref()), self.words())))
    }

    fn of_bool(self, yes: bool) -> Option<Value> {
        match self {
            Self::Bool => Some(Value::Bool(yes)),
            Self::Switch => Some(Value::Switch(if yes { Switch::On } else { Switch::Off })),
            _ => None,
        }
    }

    /// `None` for a number that is too large for a number.
    fn of_number(self, number: Option<i64>) -> Result<Option<Value>, String> {
        let number = number.map(u64::try_from);
        match (self, number) {
            (Self::Count { least, most }, Some(Ok(number))) if (least..=most).contains(&number) => {
                Ok(Some(Value::Number(number)))
            }
            (Self::Count { .. }, _) => Err(format!("is out of bounds; write {}", self.words())),
            (Self::Size { .. }, Some(Ok(n))) => {
                Err(format!("has no unit; write \"{n}M\", or another of K, M, G, T, B"))
            }
            (Self::Time { .. }, Some(Ok(n))) => {
                Err(format!("has no unit; write \"{n}s\", or another of ms, m, h, d, w"))
            }
            (Self::Share, Some(Ok(n))) => Err(format!("has no unit; write \"{n}%\"")),
            _ => Ok(None),
        }
    }

    fn of_text(self, text: &str) -> Result<Option<Value>, String> {
        let value = match self {
            Self::Switch if text == "auto" => Value::Switch(Switch::Auto),
            Self::Switch | Self::Bool if matches!(text, "true" | "false") => {
                return Err(format!("is text; write {text} without quotes"));
            }
            Self::Count { .. } if text.parse::<u64>().is_ok() => {
                return Err(format!("is text; write {text} without quotes"));
            }
            Self::Size { least, most } => Value::Number(within(units::read_size(text)?, least, most, self)?),
            Self::Time { least, most } => Value::Time(within(units::read_time(text)?, least, most, self)?),
            Self::Share => Value::Number(units::read_share(text)?),
            Self::Class => Value::Class(one_of(text, &CLASSES)?),
            Self::BeginOfJournal => Value::Begin(one_of(text, &BEGINS)?),
            Self::BeginOfFile => Value::Begin(one_of(text, &BEGINS[..2])?),
            Self::OnFailure => Value::OnFailure(one_of(text, &ON_FAILURE)?),
            Self::Severities => Value::Severities(Severities::parse(text)?),
            Self::Stream => Value::Text(stream(text)?),
            Self::StreamOfFile => Value::Text(stream_of_file(text)?),
            Self::Group => Value::Text(group(text)?),
            Self::Pattern => Value::Pattern(Pattern::new(text)?),
            Self::Beginning => Value::Pattern(Pattern::beginning(text)?),
            Self::Path => Value::Path(path(text)?),
            Self::Regex => Value::Regex(LineStart::new(text)?),
            _ => return Ok(None),
        };
        Ok(Some(value))
    }

    /// The value as TOML that reads back as it.
    pub(super) fn write(self, value: &Value) -> String {
        self.write_with(value, toml_text)
    }

    /// The value as JSON.
    pub(super) fn write_json(self, value: &Value) -> String {
        self.write_with(value, quoted)
    }

    fn write_with(self, value: &Value, text: fn(&str) -> String) -> String {
        let list = |texts: Vec<String>| format!("[{}]", texts.join(", "));
        match value {
            Value::Bool(yes) => yes.to_string(),
            Value::Switch(Switch::Auto) => text("auto"),
            Value::Switch(switch) => (*switch == Switch::On).to_string(),
            Value::Number(n) => match self {
                Self::Size { .. } => text(&units::size(*n)),
                Self::Share => text(&format!("{n}%")),
                _ => n.to_string(),
            },
            Value::Time(time) => text(&units::time(*time)),
            Value::Class(class) => text(name_of(*class, &CLASSES)),
            Value::Begin(begin) => text(name_of(*begin, &BEGINS)),
            Value::OnFailure(what) => text(name_of(*what, &ON_FAILURE)),
            Value::Severities(range) => text(&range.to_string()),
            Value::Text(name) => text(name),
            Value::Pattern(pattern) => text(pattern.as_str()),
            Value::Patterns(patterns) => list(patterns.iter().map(|p| text(p.as_str())).collect()),
            Value::PathPatterns(patterns) => list(patterns.iter().map(|p| text(p.as_str())).collect()),
            Value::Path(path) => text(&path.to_string_lossy()),
            Value::Regex(regex) => text(regex.as_str()),
            Value::Addresses(addresses) => list(addresses.iter().map(|a| text(&a.to_string())).collect()),
        }
    }
}

/// Text as a TOML string: literal where that is easier to read.
fn toml_text(text: &str) -> String {
    if text.contains('\\') && !text.contains('\'') && !text.chars().any(char::is_control) {
        return format!("'{text}'");
    }
    quoted(text)
}

/// Text as a string of both TOML and JSON.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn within<T: PartialOrd>(value: T, least: T, most: T, kind: Kind) -> Result<T, String> {
    if value < least || value > most {
        return Err(format!("is out of bounds; write {}", kind.words()));
    }
    Ok(value)
}

fn one_of<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let all: Vec<String> = known.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    Err(match nearest(text, known.iter().map(|(name, _)| *name)) {
        Some(meant) => format!("is not known; did you mean \"{meant}\"?"),
        None => format!("is not known; write one of {}", all.join(", ")),
    })
}

fn name_of<T: Copy + PartialEq>(value: T, known: &[(&'static str, T)]) -> &'static str {
    known.iter().find(|(_, other)| *other == value).map_or("", |(name, _)| *name)
}

/// A list, or a single text that is a list of one. `None` if it is neither.
fn list<T>(value: &Spanned<DeValue<'_>>, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<Vec<T>>, Wrong> {
    let one = |value: &Spanned<DeValue<'_>>| {
        let wrong = |what| Wrong { span: value.span(), value: shown_value(value.get_ref()), what };
        match value.get_ref() {
            DeValue::String(text) => read(text).map_err(wrong),
            other => Err(wrong(format!("is {}; write text in quotes", type_of(other)))),
        }
    };
    match value.get_ref() {
        DeValue::String(_) => one(value).map(|entry| Some(vec![entry])),
        DeValue::Array(entries) if entries.len() > LIST_MAX => Err(Wrong {
            span: value.span(),
            value: shown_value(value.get_ref()),
            what: format!("has {} entries; {LIST_MAX} are allowed, join some with patterns", entries.len()),
        }),
        DeValue::Array(entries) => entries.iter().map(one).collect::<Result<_, _>>().map(Some),
        _ => Ok(None),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let error = match text.parse() {
        Ok(address) => return Ok(address),
        Err(_) if text.trim_start_matches(':').parse::<u16>().is_ok() => {
            let port = text.trim_start_matches(':');
            format!("is a port without an address; write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for all")
        }
        Err(_) if text.parse::<std::net::Ipv4Addr>().is_ok() => format!("has no port; write \"{}:5514\"", shown(text)),
        Err(_) if text.parse::<std::net::Ipv6Addr>().is_ok() => format!("has no port; write \"[{text}]:5514\""),
        Err(_) => "is no address with a port; write one as \"127.0.0.1:5514\" (names are not looked up)".to_owned(),
    };
    Err(error)
}

fn stream(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("is empty; a stream needs a name".to_owned()),
        n if n > NAME_BYTES_MAX => Err(format!("has {n} bytes; a stream's name has {NAME_BYTES_MAX} at most")),
        _ if text.chars().any(char::is_control) => Err("holds a control character; take it out".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn stream_of_file(text: &str) -> Result<String, String> {
    let left = text.replace("{stem}", "").replace("{dir}", "");
    if left.contains(['{', '}']) {
        return Err("holds braces that mean nothing; {stem} and {dir} are understood".to_owned());
    }
    stream(text)
}

fn group(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.is_empty() || text.len() > GROUP_BYTES_MAX || text.starts_with('-') || !text.chars().all(fits) {
        return Err("is no name of a group; write one as \"lastgasp\" (see `getent group`)".to_owned());
    }
    Ok(text.to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        _ if text.contains('\0') => Err("holds a NUL character; take it out".to_owned()),
        _ if text.len() > PATH_BYTES_MAX => Err(format!("is too long; a path has {PATH_BYTES_MAX} bytes at most")),
        _ if text.starts_with('~') => Err("is not expanded; write the whole path, from / on".to_owned()),
        _ if !text.starts_with('/') => Err("is not absolute; begin it with /".to_owned()),
        _ => Ok(PathBuf::from(text)),
    }
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A value as it may be shown.
pub(super) fn shown_value(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", shown(text)),
        DeValue::Integer(number) => shown(&number.to_string()),
        DeValue::Float(number) => shown(number.as_str()),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(entries) if entries.is_empty() => "[]".to_owned(),
        DeValue::Array(_) => "[...]".to_owned(),
        DeValue::Table(_) => "{...}".to_owned(),
    }
}
