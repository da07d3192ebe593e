//! The socket in the file system.
//!
//! Invariants: what a dead node left is replaced, what a live one serves is not, and what is no socket is never
//! touched; nobody can connect before mode and group are set.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::peer::Allowed;

/// Name of the socket in its directory.
const NAME: &str = "lastgasp.sock";
/// Owner and group read and write; others do not.
const MODE: u32 = 0o660;
/// A path of a socket has so many bytes at most, with those that are added while it is made.
const PATH_BYTES_MAX: usize = 107;
/// Added while it is made.
const NEW: &str = ".new";

/// The built-in path: that of the system for root, of the session for others, else beside the store.
#[must_use]
pub fn default_path(store: &Path) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return Path::new("/run/lastgasp").join(NAME);
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(runtime) => runtime.join("lastgasp").join(NAME),
        None => store.with_extension("sock"),
    }
}

/// A socket that is listened at. Its file goes with it.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    pub(super) allowed: Allowed,
    path: PathBuf,
    /// Which file it is: another node may have replaced it meanwhile.
    file: (u64, u64),
}

impl Drop for Bound {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket.
///
/// # Errors
/// Another node serves it, something else is there, or it cannot be made: what is wrong and what to do.
pub(super) fn bind(path: &Path, group: &str) -> Result<Bound> {
    let here = path.display();
    let mut new = path.as_os_str().to_owned();
    new.push(NEW);
    let new = PathBuf::from(new);
    if new.as_os_str().as_bytes().len() > PATH_BYTES_MAX {
        let max = PATH_BYTES_MAX - NEW.len();
        bail!("{here}: a socket's path has at most {max} bytes; name a shorter one");
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let mut made = DirBuilder::new();
        made.recursive(true).mode(0o755);
        made.create(directory).with_context(|| format!("{}: the directory cannot be made", directory.display()))?;
    }
    refuse_what_is_there(path)?;
    // What a node left that died while it made its socket.
    if fs::symlink_metadata(&new).is_ok_and(|m| m.file_type().is_socket()) {
        let _ = fs::remove_file(&new);
    }
    let made = |error: io::Error| anyhow!("{here}: the socket cannot be made: {error}");
    let listener = UnixListener::bind(&new).map_err(made)?;
    let allowed = open_to(&new, group).and_then(|allowed| {
        listener.set_nonblocking(true)?;
        let metadata = fs::symlink_metadata(&new)?;
        fs::rename(&new, path)?;
        Ok((allowed, (metadata.dev(), metadata.ino())))
    });
    match allowed {
        Ok((allowed, file)) => Ok(Bound { listener, allowed, path: path.to_path_buf(), file }),
        Err(error) => {
            let _ = fs::remove_file(&new);
            Err(made(error))
        }
    }
}

fn refuse_what_is_there(path: &Path) -> Result<()> {
    let here = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(anyhow!("{here}: {error}")),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            bail!("{here}: something else than a socket is there; remove it, or name another path")
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => bail!("{here}: another node answers there; stop it, or give this one a socket of its own"),
            // Nobody listens: a node that was killed has left it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(anyhow!("{here}: another node's socket is there, and it does not answer: {error}")),
        },
    }
}

/// Sets group and mode; says who may read.
fn open_to(path: &Path, group: &str) -> io::Result<Allowed> {
    let (uid, own) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let wanted = group_number(&groups, group);
    // Who is not in the group may not give it; then it stays their own.
    let gid = wanted.filter(|gid| chown(path, None, Some(*gid)).is_ok()).unwrap_or(own);
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(Allowed { uid, gid })
}

/// The number of a group in `/etc/group`.
fn group_number(groups: &str, name: &str) -> Option<u32> {
    let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_nodes_socket_is_replaced_and_a_live_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/s.sock");
        let first = bind(&path, "no-such-group").unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, MODE);
        assert_eq!(metadata.gid(), rustix::process::getegid().as_raw());
        let words = bind(&path, "").unwrap_err().to_string();
        assert!(words.contains("another node answers"), "{words}");

        // As if it had been killed: the file stays, and nobody listens.
        let dead = dir.path().join("dead.sock");
        drop(UnixListener::bind(&dead).unwrap());
        let second = bind(&dead, "").unwrap();
        UnixStream::connect(&dead).unwrap();
        // Who was replaced does not take its successor's file away.
        fs::rename(&dead, &path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        drop(second);
    }

    #[test]
    fn a_file_that_is_no_socket_and_a_path_that_is_too_long_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert!(bind(&path, "").unwrap_err().to_string().contains("something else"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let long = dir.path().join("x".repeat(120));
        assert!(bind(&long, "").unwrap_err().to_string().contains("at most 103 bytes"));
    }

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nadm:x:4:a,b\nlastgasp:x:977:\n";
        assert_eq!(group_number(groups, "lastgasp"), Some(977));
        assert_eq!(group_number(groups, "lastgas"), None);
        assert_eq!(group_number(groups, ""), None);
    }
}
