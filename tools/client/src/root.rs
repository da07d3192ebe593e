//! The store of a card that is mounted somewhere: `--root`.
//!
//! Invariant: every path is followed inside the root, also where the card has absolute links.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::config::{self, CONFIG, STORE};
use crate::error::Error;
use crate::target::STORE_DEFAULT;

/// The path of the store of the node whose root is mounted at `root`.
pub(crate) fn store_of(root: &Path) -> Result<PathBuf, Error> {
    if !root.is_dir() {
        return Err(Error::unfit(root, "is no directory; give the one that the card's root is mounted at"));
    }
    let named = config::named(Path::new(CONFIG), STORE, &|path| resolve(root, path).ok().flatten())?;
    let path = named.clone().unwrap_or_else(|| PathBuf::from(STORE_DEFAULT));
    let found = resolve(root, &path).map_err(|source| Error::io(&joined(root, &path), "looking at it", source))?;
    let Some(found) = found else {
        let whence = if named.is_some() { "its configuration names this store" } else { "a node keeps its store here" };
        let what = format!("not found: {whence}; if it is elsewhere, name it with --store");
        return Err(Error::unfit(&joined(root, &path), what));
    };
    if path.starts_with("/dev") {
        let what = format!(
            "the store of this card is a device ({}); name it as it is called here, with --store",
            path.display()
        );
        return Err(Error::unfit(root, what));
    }
    Ok(found)
}

fn joined(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Where a path of the card is here; none if there is nothing.
fn resolve(root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let directory = openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty())?;
    match openat2(&directory, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(file) => fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map(Some),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        // A kernel before 5.6.
        Err(rustix::io::Errno::NOSYS) => Ok(Some(joined(root, path)).filter(|path| path.exists())),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn card() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in ["var/lib/lastgasp", "etc/lastgasp/lastgaspd.d", "data"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        root
    }

    #[test]
    fn the_store_is_at_its_usual_place_or_where_the_configuration_says() {
        let root = card();
        let missing = store_of(root.path()).unwrap_err().to_string();
        assert!(missing.contains("var/lib/lastgasp/store.lg") && missing.contains("--store"), "{missing}");
        fs::write(root.path().join("var/lib/lastgasp/store.lg"), "x").unwrap();
        let real = root.path().canonicalize().unwrap();
        assert_eq!(store_of(root.path()).unwrap(), real.join("var/lib/lastgasp/store.lg"));
        fs::write(root.path().join("etc/lastgasp/lastgaspd.toml"), "[store]\npath = \"/data/a\"\n").unwrap();
        fs::write(root.path().join("etc/lastgasp/lastgaspd.d/10-x.toml"), "[store]\npath = \"/data/b\"\n").unwrap();
        fs::write(root.path().join("data/b"), "x").unwrap();
        assert_eq!(store_of(root.path()).unwrap(), real.join("data/b"));
    }

    #[test]
    fn links_of_the_card_stay_inside_it() {
        let root = card();
        fs::write(root.path().join("data/store"), "x").unwrap();
        symlink("/data/store", root.path().join("var/lib/lastgasp/store.lg")).unwrap();
        assert_eq!(store_of(root.path()).unwrap(), root.path().canonicalize().unwrap().join("data/store"));
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_named() {
        let root = card();
        fs::write(root.path().join("etc/lastgasp/lastgaspd.toml"), "[store\n").unwrap();
        let error = store_of(root.path()).unwrap_err().to_string();
        assert!(error.contains("lastgaspd.toml") && error.contains("is no TOML"), "{error}");
        fs::write(root.path().join("etc/lastgasp/lastgaspd.toml"), "[store]\npath = \"/dev/null\"\n").unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        fs::write(root.path().join("dev/null"), "").unwrap();
        assert!(store_of(root.path()).unwrap_err().to_string().contains("is a device"));
        assert!(store_of(Path::new("/nonexistent")).unwrap_err().to_string().contains("no directory"));
    }
}
