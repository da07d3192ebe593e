//! The house rules that neither the compiler nor clippy checks, one test per rule.
//!
//! Each test prints `file:line: what is wrong` for every place before it fails. Looked at are the files that git
//! tracks; where there is no git, all files outside `target` and dot-directories other than `.ci`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand};

/// Longest line of Rust or shell, in characters.
const LINE_COLUMNS: usize = 120;
/// Longest file in `core/src`, in lines.
const CORE_FILE_LINES: usize = 600;
/// Longest function in `core/src`, in lines.
const CORE_FN_LINES: usize = 90;

/// Tests that may hold `unsafe` blocks, besides `hal-linux` and `boards`.
const UNSAFE_TESTS: &[&str] = &[];

/// For the directory of each crate: those of ours that it may depend on, tests and build scripts included.
const ARROWS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("core/fuzz", &["core"]),
    ("boards/drivers", &["core"]),
    ("hal-sim", &["core"]),
    ("hal-linux", &["core", "boards/drivers"]),
    ("boards/ast1030-evb", &["core", "boards/drivers"]),
    ("boards/linux/lastgaspd", &["core", "boards/drivers", "hal-linux"]),
    // The benchmark of many clients measures the daemon's own writer.
    ("tools/bench", &["core", "boards/drivers", "hal-linux", "boards/linux/lastgaspd"]),
    ("tools/client", &["core", "boards/drivers", "hal-linux"]),
    // The tool that cuts the power at every write is part of the command line.
    ("tools/lastgasp", &["core", "boards/drivers", "hal-linux", "hal-sim", "tools/client"]),
    (
        "tests",
        &[
            "core",
            "boards/drivers",
            "hal-sim",
            "hal-linux",
            "boards/linux/lastgaspd",
            "tools/bench",
            "tools/client",
            "tools/lastgasp",
        ],
    ),
];

/// The licences a dependency may come under; the same list as in `deny.toml`.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0 WITH LLVM-exception",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Directories that have to be at the top.
const TOP_DIRS: &[&str] = &["boards", "core", "hal-linux", "hal-sim", "tests", "tools"];
/// Files that may be at the top, besides dotfiles.
const TOP_FILES: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
];

/// Words that no Rust file may hold; in pieces, so that this file does not hold them.
const LEFTOVERS: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("#[ig", "nore"),
    concat!("db", "g!("),
    concat!("thread::", "sleep("),
];

/// Where absolute paths of a developer's machine start.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp/ba", "sh_jobs")];

/// A text file of the tree.
struct Source {
    /// Path from the top, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_shell(&self) -> bool {
        let first = self.text.lines().next().unwrap_or_default();
        let has_shell_shebang = first.starts_with("#!") && first.contains("sh");
        self.path.ends_with(".sh") || has_shell_shebang
    }

    fn is_in_core(&self) -> bool {
        self.is_rust() && self.path.starts_with("core/src/")
    }

    /// Whether the whole file is a test module, declared as `#[cfg(test)] mod tests;`.
    fn is_test_module(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Number of the first line that contains `needle`, 1 if none does.
    fn line_of(&self, needle: &str) -> usize {
        self.text.lines().position(|line| line.contains(needle)).map_or(1, |index| index + 1)
    }
}

/// Places where a rule is broken.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, path: &str, line: usize, what: &str) {
        self.0.push(format!("{path}:{line}: {what}"));
    }

    #[track_caller]
    fn assert_none(self) {
        for finding in &self.0 {
            eprintln!("{finding}");
        }
        assert!(self.0.is_empty(), "{} place(s) are not tidy, see above", self.0.len());
    }
}

/// The top of the tree that this run is about: asked for at run time, for clones may share a target directory, and
/// then a test binary that another clone has built.
fn root() -> PathBuf {
    let tests = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&tests).parent().expect("tests lies below the top").to_path_buf()
}

/// Paths of all files, from the top, sorted.
fn paths() -> Vec<String> {
    let git = Command::new("git").args(["ls-files", "-z", "--cached"]).current_dir(root()).output();
    let mut found: Vec<String> = match git {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let listing = String::from_utf8(output.stdout).expect("file names are UTF-8");
            listing.split_terminator('\0').map(String::from).collect()
        }
        _ => {
            let mut found = Vec::new();
            walk(&root(), "", &mut found);
            found
        }
    };
    found.retain(|path| root().join(path).is_file());
    found.sort();
    assert!(found.iter().any(|path| path == "Cargo.toml"), "no tree at {}", root().display());
    found
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("directory can be read").map(|entry| entry.expect("entry can be read")) {
        let name = entry.file_name().into_string().expect("file names are UTF-8");
        let is_dir = entry.file_type().expect("entry has a type").is_dir();
        if !is_dir {
            found.push(format!("{prefix}{name}"));
        } else if name != "target" && (!name.starts_with('.') || name == ".ci") {
            walk(&entry.path(), &format!("{prefix}{name}/"), found);
        }
    }
}

/// All files that are text.
fn sources() -> Vec<Source> {
    let read = |path: String| fs::read_to_string(root().join(&path)).ok().map(|text| Source { path, text });
    paths().into_iter().filter_map(read).collect()
}

fn metadata(manifest: &Path, no_deps: bool) -> Metadata {
    let run = |options: &[&str]| {
        let mut command = MetadataCommand::new();
        command.manifest_path(manifest).other_options(options.iter().map(|o| (*o).to_string()).collect::<Vec<_>>());
        if no_deps {
            command.no_deps();
        }
        command.exec()
    };
    // Crates of platforms that were never built for may be missing here, so that going without a network fails.
    run(&["--locked", "--offline"]).or_else(|_| run(&["--locked"])).expect("cargo metadata runs")
}

/// `text` with comments and the insides of literals blanked, line for line.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

/// Where the comment or literal that starts at `at` ends; `at` if none starts there.
fn literal_or_comment_end(chars: &[char], at: usize) -> usize {
    let char_at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let find = |from: usize, ends: &str| {
        let ends: Vec<char> = ends.chars().collect();
        (from..chars.len()).find(|i| chars[*i..].starts_with(&ends)).map_or(chars.len(), |i| i + ends.len())
    };
    let is_in_word = at > 0 && (char_at(at - 1).is_alphanumeric() || char_at(at - 1) == '_');
    match (char_at(at), char_at(at + 1)) {
        ('/', '/') => (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len()),
        ('/', '*') => {
            let (mut depth, mut i) = (1, at + 2);
            while depth > 0 && i < chars.len() {
                match (chars[i], char_at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
            }
            i
        }
        ('r', '"' | '#') if !is_in_word || matches!(char_at(at - 1), 'b' | 'c') => {
            let hashes = (at + 1..chars.len()).take_while(|i| chars[*i] == '#').count();
            if char_at(at + 1 + hashes) == '"' {
                find(at + 2 + hashes, &format!("\"{}", "#".repeat(hashes)))
            } else {
                at
            }
        }
        ('"', _) => {
            let mut i = at + 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            (i + 1).min(chars.len())
        }
        ('\'', '\\') => find(at + 3, "'"),
        ('\'', _) if char_at(at + 2) == '\'' => at + 3,
        _ => at,
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` begins in `line` and is not the end of a longer word.
fn word_starts<'l>(line: &'l str, word: &'l str) -> impl Iterator<Item = usize> + 'l {
    let starts = line.match_indices(word).map(|(at, _)| at);
    starts.filter(|at| !line[..*at].chars().next_back().is_some_and(is_word_char))
}

/// Where `word` stands in `line` as a word of its own.
fn whole_words<'l>(line: &'l str, word: &'l str) -> impl Iterator<Item = usize> + 'l {
    word_starts(line, word).filter(|at| !line[at + word.len()..].chars().next().is_some_and(is_word_char))
}

/// The last line of the item that begins on line `first` (both from 0), by counting braces in blanked code.
fn item_end(lines: &[&str], first: usize) -> usize {
    let mut depth = 0_usize;
    for (index, line) in lines.iter().enumerate().skip(first) {
        for c in line.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth <= 1 => return index,
                '}' => depth -= 1,
                // Without a body; the length of an array type does not count.
                ';' if depth == 0 && line.trim_end().ends_with(';') => return index,
                _ => {}
            }
        }
    }
    lines.len() - 1
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let mut findings = Findings::default();
    let mut packages = metadata(&root().join("Cargo.toml"), true).packages;
    for source in sources().iter().filter(|source| source.path.ends_with("/Cargo.toml")) {
        // Crates outside the workspace are bound by the same arrows.
        let manifest = root().join(&source.path);
        if !packages.iter().any(|package| package.manifest_path == manifest) {
            packages.extend(metadata(&manifest, true).packages);
        }
    }
    for package in packages {
        let from_top = |path: &Path| path.strip_prefix(root()).ok().map(|dir| dir.to_string_lossy().into_owned());
        let manifest = from_top(package.manifest_path.as_std_path()).expect("a crate of ours is below the top");
        let dir = manifest.trim_end_matches("Cargo.toml").trim_end_matches('/');
        let text = fs::read_to_string(root().join(&manifest)).expect("manifest can be read");
        let source = Source { path: manifest.clone(), text };
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == dir) else {
            findings.add(&manifest, 1, "no row for this crate in the table of arrows in tidy.rs");
            continue;
        };
        for dependency in &package.dependencies {
            let Some(to) = dependency.path.as_ref().and_then(|path| from_top(path.as_std_path())) else { continue };
            if !allowed.contains(&to.as_str()) {
                let line = source.line_of(dependency.rename.as_ref().unwrap_or(&dependency.name));
                findings.add(&manifest, line, &format!("{dir} must not depend on {to}"));
            }
        }
    }
    findings.assert_none();
}

#[test]
fn core_is_no_std_safe_and_documented() {
    let mut findings = Findings::default();
    let lib = sources().into_iter().find(|source| source.path == "core/src/lib.rs").expect("core has a lib.rs");
    for attribute in ["#![no_std]", "#![forbid(unsafe_code)]", "#![deny(missing_docs)]"] {
        if !lib.text.lines().any(|line| line == attribute) {
            findings.add(&lib.path, 1, &format!("{attribute} is missing"));
        }
    }
    findings.assert_none();
}

#[test]
fn core_takes_nothing_from_std_or_alloc() {
    let mut findings = Findings::default();
    for source in sources().iter().filter(|source| source.is_in_core() && !source.is_test_module()) {
        let code = code_of(&source.text);
        let lines: Vec<&str> = code.lines().collect();
        let mut index = 0;
        while index < lines.len() {
            if lines[index].trim() == "#[cfg(test)]" {
                // Skips attributes, then the one item that is for tests.
                let first = (index + 1..lines.len()).find(|i| !lines[*i].trim_start().starts_with("#["));
                let first = first.unwrap_or(lines.len() - 1);
                let end = item_end(&lines, first);
                let is_inline_module = lines[first].trim_start().starts_with("mod ") && end > first;
                if is_inline_module && lines[end + 1..].iter().any(|line| !line.trim().is_empty()) {
                    findings.add(&source.path, end + 2, "code after the test module, which ends a file");
                }
                index = end + 1;
                continue;
            }
            for banned in ["std::", "alloc::", "extern crate std", "extern crate alloc", "use std", "use alloc"] {
                if word_starts(lines[index], banned).next().is_some() {
                    findings.add(&source.path, index + 1, &format!("`{banned}` outside of tests"));
                }
            }
            if ["mod tests;", "mod tests {"].contains(&lines[index].trim()) {
                findings.add(&source.path, index + 1, "a test module without #[cfg(test)]");
            }
            index += 1;
        }
    }
    findings.assert_none();
}

#[test]
fn rust_files_open_with_what_they_are_for() {
    let mut findings = Findings::default();
    for source in sources().iter().filter(|source| source.is_rust() && !source.text.starts_with("//! ")) {
        findings.add(&source.path, 1, "does not open with `//! ` and a sentence");
    }
    findings.assert_none();
}

#[test]
fn lines_fit_the_page() {
    let mut findings = Findings::default();
    for source in sources().iter().filter(|source| source.is_rust() || source.is_shell()) {
        for (index, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > LINE_COLUMNS {
                findings.add(&source.path, index + 1, &format!("{columns} columns, {LINE_COLUMNS} are allowed"));
            }
        }
    }
    findings.assert_none();
}

#[test]
fn core_files_and_functions_are_short() {
    let mut findings = Findings::default();
    for source in sources().iter().filter(|source| source.is_in_core()) {
        let code = code_of(&source.text);
        let lines: Vec<&str> = code.lines().collect();
        if lines.len() > CORE_FILE_LINES {
            let what = format!("{} lines, {CORE_FILE_LINES} are allowed", lines.len());
            findings.add(&source.path, CORE_FILE_LINES + 1, &what);
        }
        for (index, line) in lines.iter().enumerate() {
            let is_named = |at: usize| line[at + 3..].starts_with(is_word_char);
            if word_starts(line, "fn ").any(is_named) {
                let long = item_end(&lines, index) + 1 - index;
                if long > CORE_FN_LINES {
                    let what = format!("function of {long} lines, {CORE_FN_LINES} are allowed");
                    findings.add(&source.path, index + 1, &what);
                }
            }
        }
    }
    findings.assert_none();
}

#[test]
fn unsafe_is_argued_for_and_only_where_the_kernel_or_the_metal_is() {
    let mut findings = Findings::default();
    for source in sources().iter().filter(|source| source.is_rust()) {
        let is_allowed = source.path.starts_with("hal-linux/")
            || source.path.starts_with("boards/")
            || UNSAFE_TESTS.contains(&source.path.as_str());
        let text: Vec<&str> = source.text.lines().collect();
        for (index, line) in code_of(&source.text).lines().enumerate() {
            for at in whole_words(line, "unsafe") {
                if !is_allowed {
                    findings.add(&source.path, index + 1, "unsafe is not for this place");
                }
                // A function or trait states what it demands in its docs; clippy asks for those.
                let rest = line[at + "unsafe".len()..].trim_start();
                let is_function = whole_words(rest, "fn").next().is_some_and(|at| !rest[..at].contains('{'));
                let is_block = !is_function && !rest.starts_with("trait") && !rest.starts_with('(');
                let comment = text[..index].iter().rev().take_while(|line| line.trim_start().starts_with("//")).count();
                let above = &text[index.saturating_sub(comment.max(3))..index];
                if is_block && !above.iter().any(|line| line.contains("SAFETY:")) {
                    findings.add(&source.path, index + 1, "unsafe without a SAFETY: comment right above");
                }
            }
        }
    }
    findings.assert_none();
}

#[test]
fn nothing_is_left_for_later() {
    let mut findings = Findings::default();
    for source in sources().iter().filter(|source| source.is_rust()) {
        for (index, line) in source.text.lines().enumerate() {
            // The kernel has no flock with a time limit, and no event for a lock that is given back.
            let polls_a_lock = source.path.starts_with("hal-linux/src/") && line.contains("sleep(PAUSE)");
            for word in LEFTOVERS.iter().filter(|word| line.contains(**word) && !polls_a_lock) {
                findings.add(&source.path, index + 1, &format!("`{word}`"));
            }
        }
    }
    findings.assert_none();
}

#[test]
fn the_top_level_holds_what_it_should() {
    let mut findings = Findings::default();
    let paths = paths();
    let dirs: BTreeSet<&str> = paths.iter().filter_map(|path| path.split_once('/')).map(|(dir, _)| dir).collect();
    for dir in TOP_DIRS.iter().filter(|dir| !dirs.contains(**dir)) {
        findings.add(dir, 1, "this directory is missing at the top");
    }
    for dir in dirs.iter().filter(|dir| !dir.starts_with('.') && !TOP_DIRS.contains(dir)) {
        findings.add(dir, 1, "this directory does not belong at the top");
    }
    for file in paths.iter().filter(|path| !path.contains('/') && !path.starts_with('.')) {
        if !TOP_FILES.contains(&file.as_str()) {
            findings.add(file, 1, "this file does not belong at the top");
        }
    }
    findings.assert_none();
}

#[test]
fn dependencies_come_under_allowed_licences() {
    let mut findings = Findings::default();
    let parse = |licence: &&str| spdx::Licensee::parse(licence).expect("our list is well-formed");
    let allowed: Vec<spdx::Licensee> = LICENCES.iter().map(parse).collect();
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock can be read");
    let lock = Source { path: "Cargo.lock".into(), text: lock };
    for package in metadata(&root().join("Cargo.toml"), false).packages {
        let line = lock.line_of(&format!("name = \"{}\"", package.name));
        let what = match &package.license {
            None => "has no licence expression".to_string(),
            Some(licence) => match spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX) {
                Err(error) => format!("licence `{licence}` is not an SPDX expression: {}", error.reason),
                Ok(terms) if !terms.evaluate(|term| allowed.iter().any(|licence| licence.satisfies(term))) => {
                    format!("licence `{licence}` is not allowed")
                }
                Ok(_) => continue,
            },
        };
        findings.add(&lock.path, line, &format!("{} {}: {what}", package.name, package.version));
    }
    findings.assert_none();
}

#[test]
fn deny_toml_lists_the_same_licences() {
    let deny = fs::read_to_string(root().join("deny.toml")).expect("deny.toml can be read");
    let section = deny.split_once("\n[licenses]\n").expect("deny.toml has a section [licenses]").1;
    let section = section.split_once("\n[").map_or(section, |(section, _)| section);
    let list = section.split_once("\nallow = [").and_then(|(_, rest)| rest.split_once(']')).expect("allow = [...]").0;
    let listed: BTreeSet<&str> = list.split('"').skip(1).step_by(2).collect();
    let ours: BTreeSet<&str> = LICENCES.iter().copied().collect();
    let mut findings = Findings::default();
    let source = Source { path: "deny.toml".into(), text: deny.clone() };
    for only in listed.symmetric_difference(&ours) {
        let line = source.line_of(&format!("\"{only}\""));
        findings.add("deny.toml", line, &format!("`{only}` is in one of the lists of deny.toml and tidy.rs"));
    }
    findings.assert_none();
}

#[test]
fn scripts_stop_at_the_first_error() {
    let mut findings = Findings::default();
    for source in sources().iter().filter(|source| source.is_shell()) {
        let is_command = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let first = source.text.lines().enumerate().find(|(_, line)| is_command(line));
        if first.is_none_or(|(_, line)| line != "set -euo pipefail") {
            let line = first.map_or(1, |(index, _)| index + 1);
            findings.add(&source.path, line, "the first command is not `set -euo pipefail`");
        }
    }
    findings.assert_none();
}

#[test]
fn no_file_tells_of_the_machine_it_was_written_on() {
    let mut findings = Findings::default();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            let is_absolute = |at: &usize| {
                !line[..*at].ends_with(|c: char| is_word_char(c) || matches!(c, '.' | '-' | '}' | ')' | '~' | '*'))
            };
            for path in MACHINE_PATHS {
                for _ in line.match_indices(path).map(|(at, _)| at).filter(is_absolute) {
                    findings.add(&source.path, index + 1, &format!("mentions {path}"));
                }
            }
        }
    }
    findings.assert_none();
}

/// The blanking that the checks rest on.
#[test]
fn comments_and_literals_are_not_code() {
    let text = "a // \"x\nb \"// y\" c '\"' d /* e /* f */ g\n */ h 'i j r#\"k\" l\"# m br\"n\" '\\'' o \"\\\"p\" q";
    let code = code_of(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert_eq!(code.split_whitespace().collect::<String>(), "abcdh'ijmboq");
}

/// The counting that the checks rest on.
#[test]
fn items_end_where_their_braces_do() {
    let lines = ["fn a(x: [u8; 3]) {", "    {}", "}", "fn b();", "fn c(", ") {", "    d();", "}"];
    assert_eq!([item_end(&lines, 0), item_end(&lines, 3), item_end(&lines, 4)], [2, 3, 7]);
    assert_eq!(whole_words("unsafe_code unsafe { not_unsafe }", "unsafe").collect::<Vec<_>>(), [12]);
}
