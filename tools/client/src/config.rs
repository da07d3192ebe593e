//! What a node's configuration says of where things are.
//!
//! Invariants: drop-ins win over the file, later names over earlier ones, as for the node itself; nothing else of the
//! configuration is looked at.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A node's configuration, below the root; its drop-ins are in the directory beside it that ends in `.d`.
pub(crate) const CONFIG: &str = "etc/lastgasp/lastgaspd.toml";
/// More than any configuration has.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Where a key of two words leads.
pub(crate) type Key = (&'static str, &'static str);

/// The store.
pub(crate) const STORE: Key = ("store", "path");
/// The socket at which it is read.
pub(crate) const SOCKET: Key = ("api", "socket");

/// The path that the configuration at `file` gives to a key, if it does; `resolve` says where a path really is.
pub(crate) fn named(
    file: &Path,
    key: Key,
    resolve: &dyn Fn(&Path) -> Option<PathBuf>,
) -> Result<Option<PathBuf>, Error> {
    let dropins = resolve(&file.with_extension("d")).map(|directory| listing(&directory)).unwrap_or_default();
    let mut named = None;
    for path in resolve(file).into_iter().chain(dropins) {
        if path.metadata().is_ok_and(|metadata| metadata.len() > CONFIG_BYTES_MAX) {
            return Err(Error::unfit(&path, "is too large for a configuration; name the store with --store"));
        }
        let text = fs::read_to_string(&path).map_err(|source| Error::io(&path, "reading the configuration", source))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let what = format!("is no TOML ({}); name the store with --store", error.message());
            Error::unfit(&path, what)
        })?;
        let path = table.get(key.0).and_then(|section| section.get(key.1)).and_then(|path| path.as_str());
        named = path.map(PathBuf::from).filter(|path| path.is_absolute()).or(named);
    }
    Ok(named)
}

/// As [`named`], on this machine; none if it cannot be read.
pub(crate) fn named_here(file: &Path, key: Key) -> Option<PathBuf> {
    named(file, key, &|path| path.exists().then(|| path.to_path_buf())).ok().flatten()
}

/// The drop-ins of a directory, by name.
fn listing(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_toml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_toml).collect();
    paths.sort();
    paths
}
