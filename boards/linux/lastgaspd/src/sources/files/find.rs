//! Which files there are to follow, and which directories to watch for more.
//!
//! Invariants: only regular files are found, through symlinks too; the number of paths is bounded; a path that cannot
//! be looked at is named, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::config::Files;
use crate::config::pattern::PATH_OPTIONS;

/// Paths that are looked at for one section.
const PATHS_MAX: usize = 8192;
/// Directories that are watched for one section.
const DIRECTORIES_MAX: usize = 1024;
/// Endings of files that rotation has packed: there are no lines in them.
const PACKED: [&str; 6] = ["gz", "xz", "zst", "bz2", "lz4", "zip"];

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Files that match, by path.
    pub files: BTreeMap<PathBuf, Metadata>,
    /// Directories where more may come.
    pub directories: BTreeSet<PathBuf>,
    /// What could not be looked at, and why.
    pub refused: BTreeMap<PathBuf, String>,
    /// There were more than can be looked at.
    pub is_too_much: bool,
}

/// Looks for the files of a section.
#[must_use]
pub fn find(files: &Files) -> Found {
    let mut found = Found::default();
    for pattern in &files.paths {
        for directory in directories(Path::new(pattern.as_str())) {
            if found.directories.len() >= DIRECTORIES_MAX {
                found.is_too_much = true;
                break;
            }
            found.directories.insert(directory);
        }
        let Ok(paths) = glob::glob_with(pattern.as_str(), PATH_OPTIONS) else { continue };
        for path in paths {
            if found.files.len() >= PATHS_MAX {
                found.is_too_much = true;
                break;
            }
            match path {
                Ok(path) => found.take(path, files, pattern.as_str()),
                Err(error) => {
                    let why = error.error().to_string();
                    found.refused.insert(error.path().to_owned(), why);
                }
            }
        }
    }
    found
}

impl Found {
    fn take(&mut self, path: PathBuf, files: &Files, pattern: &str) {
        let ending = path.extension().and_then(OsStr::to_str).unwrap_or("");
        let is_named = pattern.ends_with(ending);
        if !files.follows(&path) || (PACKED.contains(&ending) && !is_named) {
            return;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => drop(self.files.insert(path, metadata)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => drop(self.refused.insert(path, error.to_string())),
        }
    }
}

/// The directories in which files of a pattern, or directories on the way to them, may appear.
fn directories(pattern: &Path) -> BTreeSet<PathBuf> {
    let is_wild = |c: &Component<'_>| c.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let components: Vec<Component<'_>> = pattern.components().collect();
    let plain = components.iter().take_while(|c| !is_wild(c)).count().min(components.len().saturating_sub(1));
    let base: PathBuf = components.iter().take(plain).collect();
    let mut all = BTreeSet::new();
    // The deepest that is there; what is missing appears in it.
    all.extend(base.ancestors().find(|path| path.is_dir()).map(Path::to_owned));
    for len in plain..components.len() {
        let prefix: PathBuf = components.iter().take(len).collect();
        let Some(prefix) = prefix.to_str() else { continue };
        let paths = glob::glob_with(prefix, PATH_OPTIONS).into_iter().flatten();
        all.extend(paths.filter_map(Result::ok).filter(|path| path.is_dir()).take(DIRECTORIES_MAX));
    }
    all
}

/// A rotated name of a file has its name, or its name without the ending, in front: `app.log.1`, `app-20261120.log`.
#[must_use]
pub fn is_sibling(of: &Path, path: &Path) -> bool {
    let (Some(stem), Some(name)) = (of.file_stem(), path.file_name()) else { return false };
    of.parent() == path.parent() && of != path && name.as_encoded_bytes().starts_with(stem.as_encoded_bytes())
}

/// The regular files of a directory.
pub fn files_in(directory: &Path) -> impl Iterator<Item = (PathBuf, Metadata)> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).take(PATHS_MAX);
    let metadata = |entry: fs::DirEntry| Some((entry.path(), entry.metadata().ok()?));
    entries.filter_map(metadata).filter(|(_, metadata)| metadata.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::pattern::PathPattern;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_are_found_through_wildcards_and_symlinks_but_not_what_is_excluded_or_packed() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        fs::create_dir_all(path("a/deep")).unwrap();
        for name in ["a/x.log", "a/x.log.1", "a/x.log.2.gz", "a/not.log", "b.log", "a/deep/y.log"] {
            fs::write(path(name), "").unwrap();
        }
        symlink(path("b.log"), path("a/link.log")).unwrap();
        symlink(path("nothing"), path("a/dangling.log")).unwrap();
        fs::create_dir(path("a/dir.log")).unwrap();
        let pattern = |name: &str| PathPattern::new(path(name).to_str().unwrap()).unwrap();
        let files = Files {
            paths: vec![pattern("*/*.log*"), pattern("later/*/z.log")],
            exclude: vec![pattern("a/not*")],
            ..Files::default()
        };
        let found = find(&files);
        let names: Vec<PathBuf> = found.files.keys().cloned().collect();
        assert_eq!(names, [path("a/link.log"), path("a/x.log"), path("a/x.log.1")]);
        assert!(found.refused.is_empty() && !found.is_too_much);
        let watched: Vec<PathBuf> = found.directories.iter().cloned().collect();
        assert_eq!(watched, [top.path().to_owned(), path("a")]);
    }

    #[test]
    fn rotated_names_are_told_from_others() {
        let is = |path: &str| is_sibling(Path::new("/l/app.log"), Path::new(path));
        assert!(is("/l/app.log.1") && is("/l/app-20261120.log") && is("/l/app.log-20261120"));
        assert!(!is("/l/app.log") && !is("/m/app.log.1") && !is("/l/other.log"));
    }
}
