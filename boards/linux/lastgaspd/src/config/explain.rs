//! The explanation of every key, made from the table of keys.
//!
//! Invariants: the explanation of all keys is a valid file that says just what holds without a file; without the `# `
//! before examples it is valid too.

use std::fmt::Write;

use super::keys::{KEYS, Key, SECTIONS, Section, concrete};
use super::problem::{nearest, shown};
use super::types::Config;

/// Width of the text.
const COLUMNS: usize = 100;

const HEAD: &str = "Configuration of lastgaspd. Every key is here with its default: as it stands, this file changes \
                    nothing. A file with just the keys that differ is enough, and so is none.\n\nRead are \
                    /etc/lastgasp/lastgaspd.toml (for root; else $XDG_CONFIG_HOME/lastgasp/lastgaspd.toml, or what \
                    --config names) and then all /etc/lastgasp/lastgaspd.d/*.toml beside it by name; later ones win, \
                    key by key, and flags win over files. `lastgaspd config --check` says what is wrong, `lastgaspd \
                    config --show` what holds and why; SIGHUP reloads.";

/// Everything, as a file that equals the defaults.
#[must_use]
pub fn explain() -> String {
    let mut out = wrapped(HEAD);
    for section in SECTIONS {
        out.push('\n');
        out.push_str(&explain_section(section));
    }
    out
}

fn explain_section(section: &Section) -> String {
    let mut out = wrapped(section.doc);
    let off = if section.example.is_empty() { "" } else { "# " };
    let _ = writeln!(out, "{off}[{}]", concrete(section.path, section.example));
    for key in KEYS.iter().filter(|key| key.section() == section.path) {
        out.push('\n');
        out.push_str(&about(key));
        let _ = match default_of(key).filter(|_| off.is_empty()) {
            Some(value) => writeln!(out, "{} = {value}", key.name()),
            None => writeln!(out, "# {} = {}", key.name(), key.example),
        };
    }
    out
}

/// What a key does and takes, as comments.
fn about(key: &Key) -> String {
    let mut out = wrapped(key.doc);
    out.push_str(&wrapped(&format!("Takes {}.", key.kind.words())));
    let default = default_of(key).unwrap_or_else(|| key.unset.to_owned());
    out.push_str(&wrapped(&format!("Default: {default}. A change takes effect {}.", key.apply.words())));
    out
}

/// The default as TOML; of a key in a section that the user names, that of a new one.
fn default_of(key: &Key) -> Option<String> {
    let mut config = Config::default();
    let section = SECTIONS.iter().find(|section| section.path == key.section())?;
    (section.make)(&mut config, section.example);
    // A rule's class has a value in the type, but no default that anybody may rely on.
    key.written(&config, section.example).filter(|_| key.unset.is_empty())
}

/// What is asked for: a key (`store.size`, `keep.errors.age`, or just `age`) or a section (`keep`).
///
/// # Errors
/// There is none of this name; which one may be meant.
pub fn explain_key(asked: &str) -> Result<String, String> {
    let asked = asked.trim().trim_matches(['[', ']']);
    let sections: Vec<_> = SECTIONS.iter().filter(|section| is_at(section.path, asked)).collect();
    if !sections.is_empty() {
        let texts: Vec<String> = sections.into_iter().map(explain_section).collect();
        return Ok(texts.join("\n"));
    }
    let exact: Vec<&Key> = KEYS.iter().filter(|key| matches(key.path, asked)).collect();
    let keys: Vec<&Key> = match exact.is_empty() {
        true => KEYS.iter().filter(|key| key.name() == asked).collect(),
        false => exact,
    };
    if keys.is_empty() {
        let hint = meant(asked).map_or_else(
            || "`lastgaspd config --explain` lists all".to_owned(),
            |meant| format!("did you mean {}?", concrete(meant, "NAME")),
        );
        return Err(format!("there is no key or section {}; {hint}", shown(asked)));
    }
    let texts = keys.into_iter().map(|key| {
        let section = SECTIONS.iter().find(|section| section.path == key.section());
        let example = section.map_or("", |section| section.example);
        format!("{}[{}]\n{} = {}\n", about(key), concrete(key.section(), example), key.name(), key.example)
    });
    Ok(texts.collect::<Vec<_>>().join("\n"))
}

/// The path that was most likely meant.
fn meant(asked: &str) -> Option<&'static str> {
    if let Some((section, name)) = asked.rsplit_once('.') {
        let siblings = || KEYS.iter().filter(|key| matches(key.section(), section));
        if let Some(name) = nearest(name, siblings().map(Key::name)) {
            return siblings().find(|key| key.name() == name).map(|key| key.path);
        }
    }
    let paths = KEYS.iter().flat_map(|key| [key.path, key.name()]);
    nearest(asked, paths.chain(SECTIONS.iter().map(|section| section.path)))
}

/// Whether a path is what was asked for or lies below it; a `*` stands for any name.
fn is_at(path: &str, asked: &str) -> bool {
    let mut parts = path.split('.');
    !asked.is_empty() && asked.split('.').all(|asked| parts.next().is_some_and(|part| part == "*" || part == asked))
}

fn matches(path: &str, asked: &str) -> bool {
    is_at(path, asked) && path.split('.').count() == asked.split('.').count()
}

/// Text as comments.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    for paragraph in text.split('\n') {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > COLUMNS {
                out.push_str(&line);
                out.push('\n');
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}
