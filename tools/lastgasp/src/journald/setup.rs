//! Whether this system is one where the journal can be taken over.
//!
//! Invariant: where anything is not as expected, it is refused, with what was found and what to do.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

use super::config::{Config, DIRECTORIES, Storage};

/// Our drop-in: after those of vendors, before those of an administrator who means it.
pub(super) const DROPIN_NAME: &str = "60-lastgasp.conf";
/// The directory it lies in.
pub(super) const DROPIN_DIRECTORY: &str = "etc/systemd/journald.conf.d";
/// What it says; the first line marks it as ours.
pub(super) const DROPIN: &str = "\
# Written by `lastgasp journald takeover`; `lastgasp journald release` removes it.
# lastgasp keeps the journal: journald itself needs to keep it in RAM only.
[Journal]
Storage=volatile
";
/// The start of every drop-in that we ever wrote.
const MARK: &str = "# Written by `lastgasp journald takeover`";
/// OVERLAYFS_SUPER_MAGIC.
const OVERLAY: u64 = 0x794c_7630;

/// Where our drop-in is, below the root.
pub(super) fn dropin(root: &Path) -> PathBuf {
    root.join(DROPIN_DIRECTORY).join(DROPIN_NAME)
}

/// systemd is the init that runs here.
pub(super) fn systemd_runs(root: &Path) -> bool {
    root.join("run/systemd/system").is_dir()
}

/// Whether our drop-in is there; one of that name that is not ours is an error.
pub(super) fn has_dropin(root: &Path) -> Result<bool> {
    let path = dropin(root);
    let Ok(metadata) = fs::symlink_metadata(&path) else { return Ok(false) };
    let text = if metadata.is_file() { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
    if !text.starts_with(MARK) {
        bail!("{}: is not what lastgasp wrote; look at it, and move it away if it is not needed", path.display());
    }
    Ok(true)
}

/// Refuses a system that has no journald as it is known here.
pub(super) fn must_have_journald(root: &Path) -> Result<()> {
    let places = ["usr/lib/systemd/systemd-journald", "lib/systemd/systemd-journald"];
    if !places.iter().any(|place| root.join(place).exists()) {
        bail!("{}: there is no systemd-journald here, so there is no journal to take over", root.display());
    }
    Ok(())
}

/// Refuses what a takeover would not survive or would break.
pub(super) fn must_be_familiar(root: &Path, config: &Config) -> Result<()> {
    must_have_journald(root)?;
    let comes_after = |dropin: &Option<String>| dropin.as_deref().is_some_and(|name| name > DROPIN_NAME);
    let last = config.assignments.last().filter(|last| comes_after(&last.dropin));
    if let Some(later) = last.filter(|last| last.storage != Storage::Volatile) {
        bail!(
            "{}: sets Storage={} and comes after {DROPIN_NAME}, so it would win; remove the line, then try again",
            later.path.display(),
            later.storage.name()
        );
    }
    if config.storage() == Storage::None {
        let by = config.assignments.last().map(|last| last.path.display().to_string()).unwrap_or_default();
        bail!("{by}: sets Storage=none: journald keeps nothing, so there is nothing to take over; remove the line");
    }
    let namespaces = namespaces(root);
    if !namespaces.is_empty() {
        bail!(
            "journal namespaces are in use ({}); lastgasp reads the default journal alone, and theirs would stay as \
             they are. This setup is not supported yet",
            namespaces.join(", ")
        );
    }
    must_last(root)
}

/// Refuses a place for our file where it would not be there after a restart.
fn must_last(root: &Path) -> Result<()> {
    let etc = root.join("etc");
    let overlay = statfs(&etc).with_context(|| format!("{}: cannot be looked at", etc.display()))?;
    #[expect(clippy::cast_sign_loss, reason = "a magic number; its type differs by architecture")]
    if overlay.f_type as u64 == OVERLAY {
        bail!(
            "{}: lies on an overlay, so a change would be gone after the next start; switch the overlay off first \
             (raspi-config), then try again",
            etc.display()
        );
    }
    let flags = statvfs(&etc).with_context(|| format!("{}: cannot be looked at", etc.display()))?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        bail!("{}: is mounted read-only; make it writable first (mount -o remount,rw /)", etc.display());
    }
    Ok(())
}

/// Names of journal namespaces that are set up or in use.
fn namespaces(root: &Path) -> Vec<String> {
    let names = |directory: PathBuf| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let configured = DIRECTORIES.iter().flat_map(|directory| names(root.join(directory))).filter_map(|name| {
        let name = name.strip_prefix("journald@")?;
        Some(name.strip_suffix(".conf").or_else(|| name.strip_suffix(".conf.d"))?.to_owned())
    });
    // A namespace's journals lie in MACHINE.NAMESPACE.
    let used = ["var/log/journal", "run/log/journal"].iter().flat_map(|directory| names(root.join(directory)));
    let used = used.filter_map(|name| {
        let (machine, namespace) = name.split_once('.')?;
        (machine.len() == 32 && machine.bytes().all(|b| b.is_ascii_hexdigit())).then(|| namespace.to_owned())
    });
    let mut all: Vec<String> = configured.chain(used).collect();
    all.sort();
    all.dedup();
    all
}
