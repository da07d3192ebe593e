//! Loading: which files there are, and how they and the flags become one configuration.
//!
//! Invariants: what is merged is merged key by key, and later wins: the file, then the files of its drop-in directory
//! by name, then flags; all problems are found at once; a file larger than any configuration is refused unread; what
//! was loaded says of each value where it came from.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::keys::{KEYS, SECTIONS, concrete};
use super::problem::{Origin, Problem};
use super::read::{self, Document};
use super::rules;
use super::types::{Config, Switch};
use super::values::Value;

/// No configuration is larger. Reading a hostile one takes some 400 times this, and frees it.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Files of a drop-in directory at most.
const DROP_INS_MAX: usize = 128;
/// Sections of one kind that the user names, at most.
const NAMED_MAX: usize = 64;

/// What to load.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The file to read; `None`: the one of this user, if it is there.
    pub file: Option<PathBuf>,
    /// Nothing built in: no file but [`Request::file`], and only the sources that it or flags name.
    pub no_defaults: bool,
    /// What the command line says: they win.
    pub flags: Vec<Flag>,
}

/// A flag that sets a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// As it is written, with its dashes.
    pub flag: &'static str,
    /// Path of the key.
    pub key: &'static str,
    /// Its value, of the key's kind.
    pub value: Value,
}

/// A configuration, and where it came from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    pub(super) origins: Origins,
}

/// Where each key that is set, and each section that is named, comes from; by its path, as `keep.errors.age`.
pub(super) type Origins = BTreeMap<String, Origin>;

impl Config {
    /// Loads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(request: &Request) -> Result<Self, Vec<Problem>> {
        Loaded::load(request).map(|loaded| loaded.config)
    }
}

impl Loaded {
    /// Loads the configuration, and remembers where each value came from.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(request: &Request) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut documents = Vec::new();
        let mut files = Vec::new();
        for file in chain(request, &mut problems) {
            match text_of(&file) {
                Ok(Some(text)) => documents.push(read::document(&Arc::from(file.as_path()), &text)),
                Ok(None) => continue,
                Err(what) => problems.push(Problem { origin: Origin::File(Arc::from(file.as_path())), what }),
            }
            files.push(file);
        }
        let (mut config, origins) = merge(&mut documents, &request.flags);
        if request.no_defaults {
            only_what_is_named(&mut config, &origins);
        }
        problems.extend(documents.into_iter().flat_map(|document| document.problems));
        // Contradictions with what could not be read are no help.
        if problems.is_empty() {
            match too_many_sections(&config, &origins) {
                Some(problem) => problems.push(problem),
                None => problems.extend(rules::check(&config, &origins)),
            }
            if request.no_defaults {
                problems.extend(rules::check_without_defaults(&config));
            }
        }
        problems.sort_by_cached_key(|problem| place_of(&problem.origin, &files));
        if problems.is_empty() { Ok(Self { config, files, origins }) } else { Err(problems) }
    }

    /// Where a key's value comes from; `path` as `keep.errors.age`.
    #[must_use]
    pub fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or(Origin::Default)
    }
}

/// Where a problem is listed: in the order of files, then of lines, flags last.
fn place_of(origin: &Origin, files: &[PathBuf]) -> (usize, usize, usize) {
    let number = |file: &Path| files.iter().position(|other| other == file).unwrap_or_default();
    match origin {
        Origin::File(file) => (number(file), 0, 0),
        Origin::Line { file, line, column } => (number(file), *line, *column),
        Origin::Flag(_) | Origin::Default => (usize::MAX, 0, 0),
    }
}

/// The configuration file of this user: `/etc/lastgasp/lastgaspd.toml` for root, else
/// `$XDG_CONFIG_HOME/lastgasp/lastgaspd.toml`. `None` if there is no home directory.
#[must_use]
pub fn default_file() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = absolute("XDG_CONFIG_HOME");
    let directory = if rustix::process::geteuid().is_root() && own.is_none() {
        PathBuf::from("/etc")
    } else {
        own.or_else(|| absolute("HOME").map(|home| home.join(".config")))?
    };
    Some(directory.join("lastgasp/lastgaspd.toml"))
}

/// The drop-in directory of a file: `lastgaspd.d` beside `lastgaspd.toml`.
#[must_use]
pub fn drop_in_directory(file: &Path) -> PathBuf {
    file.with_extension("d")
}

/// The files to read, in order.
fn chain(request: &Request, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let default = || default_file().filter(|_| !request.no_defaults);
    let Some(main) = request.file.clone().or_else(default) else { return Vec::new() };
    let directory = drop_in_directory(&main);
    let mut files = Vec::new();
    // One that was asked for has to be there.
    if request.file.is_some() || fs::symlink_metadata(&main).is_ok() {
        files.push(main);
    }
    match drop_ins(&directory) {
        Ok(found) => files.extend(found),
        Err(what) => problems.push(Problem { origin: Origin::File(Arc::from(directory.as_path())), what }),
    }
    files
}

/// The files of a drop-in directory, by name. None if it is not there.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: io::Error| format!("cannot be read ({error}); give the node the right to, or remove it");
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().as_bytes();
        if name.ends_with(b".toml") && !name.starts_with(b".") {
            files.push(path);
            if files.len() > DROP_INS_MAX {
                return Err(format!("holds more than {DROP_INS_MAX} files; join some"));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The text of a file; `None` for a link to `/dev/null`, which masks a drop-in.
fn text_of(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "is not there; check the path, or write the file".to_owned(),
        io::ErrorKind::PermissionDenied => "cannot be read: permission denied; give the node the right to".to_owned(),
        _ => format!("cannot be read ({error})"),
    };
    // Opening may block on what is no file, so look first. A pipe that the shell has opened for us is open already.
    let kind = fs::metadata(path).map_err(missing)?;
    if fs::canonicalize(path).is_ok_and(|real| real == Path::new("/dev/null")) {
        return Ok(None);
    }
    let of_shell = path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") || path == Path::new("/dev/stdin");
    if !kind.is_file() && !of_shell {
        return Err("is no regular file; give the path of a TOML file".to_owned());
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(missing)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(missing)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("has more than {} KiB; no configuration needs that", FILE_BYTES_MAX >> 10));
    }
    Ok(Some(text))
}

/// Later wins, key by key.
fn merge(documents: &mut [Document], flags: &[Flag]) -> (Config, Origins) {
    let (mut config, mut origins) = (Config::default(), Origins::new());
    for document in documents {
        for named in document.sections.drain(..) {
            (named.section.make)(&mut config, &named.name);
            origins.entry(concrete(named.section.path, &named.name)).or_insert(named.origin);
        }
        for entry in document.entries.drain(..) {
            (entry.key.set)(&mut config, &entry.name, entry.value);
            origins.insert(concrete(entry.key.path, &entry.name), entry.origin);
        }
    }
    for flag in flags {
        if let Some(key) = KEYS.iter().find(|key| key.path == flag.key) {
            (key.set)(&mut config, "", flag.value.clone());
            origins.insert(flag.key.to_owned(), Origin::Flag(flag.flag));
        }
    }
    (config, origins)
}

/// Turns off what nobody named.
fn only_what_is_named(config: &mut Config, origins: &Origins) {
    let sources = &mut config.sources;
    for (section, switch) in [
        ("sources.journald", &mut sources.journald.enabled),
        ("sources.syslog", &mut sources.syslog.enabled),
        ("sources.http", &mut sources.http.enabled),
        ("sources.stdin", &mut sources.stdin.enabled),
        ("api", &mut config.api.enabled),
    ] {
        let named = origins.iter().any(|(path, origin)| {
            // `--stream` alone asks for no source: `--stdin` does.
            !matches!(origin, Origin::Flag(_))
                && path.strip_prefix(section).is_some_and(|p| matches!(p.as_bytes(), [] | [b'.', ..]))
        });
        if *switch == Switch::Auto && !named {
            *switch = Switch::Off;
        }
    }
}

fn too_many_sections(config: &Config, origins: &Origins) -> Option<Problem> {
    let crowded = SECTIONS.iter().find(|section| (section.names)(config).len() > NAMED_MAX)?;
    let last = (crowded.names)(config).into_iter().nth(NAMED_MAX)?;
    let origin = origins.get(&concrete(crowded.path, &last)).cloned().unwrap_or(Origin::Default);
    let what = format!(
        "there are more than {NAMED_MAX} sections [{}]; join some with patterns",
        concrete(crowded.path, "NAME")
    );
    Some(Problem { origin, what })
}
