//! journald's configuration as systemd merges it.
//!
//! Invariants: of files of one name the one in the first directory counts, and hides the others; one that is empty or
//! leads to /dev/null hides them without setting anything; drop-ins follow the main file, sorted by name; the last
//! assignment wins. Paths are followed inside the root only as far as systemd's own directories go.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where systemd looks, the first wins.
pub(super) const DIRECTORIES: [&str; 4] = ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];
/// More than any configuration has.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Where journald keeps the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// On the medium if /var/log/journal is there, else in RAM. What journald does if nothing is set.
    Auto,
    /// On the medium.
    Persistent,
    /// In RAM.
    Volatile,
    /// Nowhere.
    None,
}

impl Storage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Persistent => "persistent",
            Self::Volatile => "volatile",
            Self::None => "none",
        }
    }

    /// As systemd reads it; what it does not know it ignores.
    fn parse(text: &str) -> Option<Self> {
        [Self::Auto, Self::Persistent, Self::Volatile, Self::None].into_iter().find(|storage| storage.name() == text)
    }
}

/// What one file assigns to `Storage=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The file, as it is called inside the root.
    pub(super) path: PathBuf,
    pub(super) storage: Storage,
    /// The name of the drop-in; none for the main file.
    pub(super) dropin: Option<String>,
}

/// Everything that says where the journal is kept, in the order in which systemd applies it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) assignments: Vec<Assignment>,
}

impl Config {
    /// Reads the configuration of the system at `root`.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut assignments = Vec::new();
        let main = DIRECTORIES.iter().map(|directory| format!("{directory}/journald.conf"));
        let main = main.map(PathBuf::from).find(|path| fs::symlink_metadata(root.join(path)).is_ok());
        for (dropin, path) in main.map(|path| (None, path)).into_iter().chain(dropins(root)?) {
            let storage = content(root, &path)?.and_then(|text| storage_in(&text));
            let path = Path::new("/").join(path);
            assignments.extend(storage.map(|storage| Assignment { path, storage, dropin }));
        }
        Ok(Self { assignments })
    }

    /// What counts in the end.
    pub(super) fn storage(&self) -> Storage {
        self.assignments.last().map_or(Storage::Auto, |last| last.storage)
    }
}

/// Drop-ins by name, those that are hidden left out.
fn dropins(root: &Path) -> Result<Vec<(Option<String>, PathBuf)>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES {
        let directory = Path::new(directory).join("journald.conf.d");
        let at = root.join(&directory);
        let entries = match fs::read_dir(&at) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error).with_context(|| format!("{}: cannot be read", at.display())),
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("{}: cannot be read", at.display()))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.ends_with(".conf") && !name.starts_with('.') {
                found.entry(name.clone()).or_insert_with(|| directory.join(name));
            }
        }
    }
    Ok(found.into_iter().map(|(name, path)| (Some(name), path)).collect())
}

/// The text of a file; none if it hides others only.
fn content(root: &Path, path: &Path) -> Result<Option<String>> {
    let at = root.join(path);
    let target = fs::read_link(&at).ok();
    if target.as_deref() == Some(Path::new("/dev/null")) {
        return Ok(None);
    }
    // An absolute link leads inside the root.
    let at = match target {
        Some(target) if target.is_absolute() => root.join(target.strip_prefix("/").unwrap_or(&target)),
        _ => at,
    };
    let read = || {
        if fs::metadata(&at)?.len() > CONFIG_BYTES_MAX {
            return Err(io::Error::other("it is too large"));
        }
        fs::read(&at)
    };
    match read() {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        // A link that leads nowhere; systemd passes it by.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{}: cannot be read", at.display())),
    }
}

/// The last value of `Storage=` in `[Journal]`.
fn storage_in(text: &str) -> Option<Storage> {
    let (mut section, mut storage) = (String::new(), None);
    let mut held = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue; // also between the parts of a line
        }
        if let Some(part) = line.strip_suffix('\\') {
            held += part;
            held.push(' ');
            continue;
        }
        let whole = std::mem::take(&mut held) + line;
        if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if section == "Journal"
            && let Some((key, value)) = whole.split_once('=')
            && key.trim() == "Storage"
        {
            storage = Storage::parse(value.trim()).or(storage);
        }
    }
    storage
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn storage(files: &[(&str, &str)]) -> (Storage, Option<String>) {
        let config = Config::read(root(files).path()).unwrap();
        (config.storage(), config.assignments.last().map(|last| last.path.display().to_string()))
    }

    const PERSISTENT: &str = "[Journal]\nStorage=persistent\n";
    const VOLATILE: &str = "[Journal]\nStorage=volatile\n";

    #[test]
    fn drop_ins_follow_the_main_file_by_name_wherever_they_lie() {
        assert_eq!(storage(&[]), (Storage::Auto, None));
        assert_eq!(storage(&[("etc/systemd/journald.conf", PERSISTENT)]).0, Storage::Persistent);
        let vendor = "usr/lib/systemd/journald.conf.d/40-rpi-volatile-storage.conf";
        let both = [("etc/systemd/journald.conf", PERSISTENT), (vendor, VOLATILE)];
        assert_eq!(storage(&both), (Storage::Volatile, Some(format!("/{vendor}"))));
        let later = [
            ("etc/systemd/journald.conf.d/10-a.conf", PERSISTENT),
            ("run/systemd/journald.conf.d/20-b.conf", VOLATILE),
        ];
        assert_eq!(storage(&later).0, Storage::Volatile);
    }

    #[test]
    fn a_file_hides_those_of_its_name_in_later_directories() {
        let name = "journald.conf.d/40-rpi-volatile-storage.conf";
        let (vendor, admin) = (format!("usr/lib/systemd/{name}"), format!("etc/systemd/{name}"));
        assert_eq!(storage(&[(&vendor, VOLATILE), (&admin, PERSISTENT)]).0, Storage::Persistent);
        assert_eq!(storage(&[(&vendor, VOLATILE), (&admin, "")]).0, Storage::Auto);
        let root = root(&[(&vendor, VOLATILE)]);
        fs::create_dir_all(root.path().join("etc/systemd/journald.conf.d")).unwrap();
        symlink("/dev/null", root.path().join(&admin)).unwrap();
        assert_eq!(Config::read(root.path()).unwrap().storage(), Storage::Auto);
    }

    #[test]
    fn assignments_are_read_as_systemd_reads_them() {
        for (text, want) in [
            ("[Journal]\nStorage = volatile \n", Some(Storage::Volatile)),
            ("[Journal]\nStorage=volatile\nStorage=none\n", Some(Storage::None)),
            ("[Journal]\nStorage=\\\n# why\nvolatile\n", Some(Storage::Volatile)),
            ("#Storage=volatile\n[Journal]\n;Storage=none\n", None),
            ("[Other]\nStorage=volatile\n", None),
            ("Storage=volatile\n", None),
            ("[Journal]\nStorage=persistent\nStorage=nonsense\n", Some(Storage::Persistent)),
            ("[Journal]\nstorage=volatile\n", None),
        ] {
            assert_eq!(storage_in(text), want, "{text}");
        }
    }
}
