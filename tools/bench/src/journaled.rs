//! An ext4 with a journal on a loop device of its own, to count on what commits cost the device below.
//!
//! The file system of the run may have no journal and shares its device with others; this one is as on a stock system,
//! and nobody else writes to it.
//!
//! Invariants: errors, panics and interrupts leave nothing behind. The mount is detached and the image unlinked as soon
//! as its root directory is open; from then on the kernel frees mount, loop device and image when that is closed, after
//! SIGKILL too.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Where images are made if there is room: memory, so that it is quick and wears nothing.
const IN_MEMORY: &str = "/dev/shm";
/// Beside the engines' files: journal, inode tables, reserve.
const OVERHEAD_BYTES: u64 = 96 << 20;

/// The file system, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Journaled {
    root: File,
    /// What it is, for people.
    pub(crate) described: String,
}

/// Detaches a mount unless that was done.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = call("umount", &["--lazy"], &[self.0]) {
            eprintln!("lastgasp-bench: {}: still mounted: {error:#}", self.0.display());
        }
    }
}

impl Journaled {
    /// Makes it, with room for `bytes` of files.
    pub(crate) fn make(bytes: u64) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "only root can mount a loop device: run with sudo");
        let image_bytes = bytes + OVERHEAD_BYTES;
        let mut builder = tempfile::Builder::new();
        builder.prefix("lastgasp-bench-");
        let (place, medium) = match has_room(Path::new(IN_MEMORY), image_bytes) {
            true => (builder.tempdir_in(IN_MEMORY), "memory"),
            false => (builder.tempdir(), "a file"),
        };
        let place = place.context("no directory can be made for the image")?;
        let (image, mount_point) = (place.path().join("image"), place.path().join("mount"));
        File::create(&image).and_then(|file| file.set_len(image_bytes)).context("making the image")?;
        // Initialised now: else a kernel thread does it in the background, and it would be counted.
        let extended = "lazy_itable_init=0,lazy_journal_init=0";
        // Blocks as on every card and disk; small images would get smaller ones.
        call("mkfs.ext4", &["-q", "-F", "-b", "4096", "-O", "has_journal", "-E", extended], &[&image])?;
        fs::create_dir(&mount_point)?;
        call("mount", &["-t", "ext4", "-o", "loop"], &[&image, &mount_point])?;
        let mounted = Mounted(&mount_point);
        let root = File::open(&mount_point).context("opening the mounted image")?;
        drop(mounted);
        let described = format!("ext4 with journal, 4 KiB blocks, default options, on a loop device over {medium}");
        Ok(Self { root, described })
    }

    /// The root directory, open.
    pub(crate) fn root(&self) -> &File {
        &self.root
    }

    /// A path to it: the mount has no other one.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()))
    }
}

/// Twice the bytes are free there.
fn has_room(dir: &Path, bytes: u64) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) >= bytes.saturating_mul(2))
}

fn call(program: &str, options: &[&str], paths: &[&Path]) -> Result<()> {
    let output = Command::new(program).args(options).args(paths).output();
    let output = output.with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
