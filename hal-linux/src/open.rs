//! Opening a store that exists.
//!
//! Invariants: opening writes nothing to the store. A writer holds the exclusive lock before it looks at a byte. What
//! is read afterwards comes from the medium (F11).
//!
//! **The tail is read from the medium.** After a failed sync the kernel marks the pages clean that never arrived, and
//! goes on serving them: a daemon that restarts without a reboot would adopt records which the next power cut takes
//! back. So a writer first calls fdatasync, then drops the file's pages with `POSIX_FADV_DONTNEED`:
//! - the fdatasync writes what a killed process left dirty, for dirty pages are not dropped; and it takes the news of
//!   an old writeback error, if nobody had it yet, so that the first sync of the engine speaks of the engine's own
//!   bytes. Its failure is no reason not to open (P4): it is reported in [`OpenReport::flush_os_error`];
//! - then all pages are clean, and the drop frees them; only pages that another process has mapped stay, and no
//!   program of ours maps a store.
//!
//! Not a descriptor with `O_DIRECT`: it would do for recovery, but queries later would meet the same stale pages
//! through the cache; many file systems refuse it; and it has no read-ahead, which recovery on a card lives by.
//! A reader does not sync (it may not be allowed to write); it drops the pages unless a writer is live.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use lastgasp_core::hal::Geometry;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::geometry;
use crate::lock::{self, LockError, PAUSE, StoreFile};
use crate::medium::{self, MediumKind};
use crate::open_error::{OpenError, sort};
use crate::probe::{Content, Probe};
use crate::storage::{FileStorage, OpenReport};
use crate::sync::SyncGate;
use crate::syscalls::{Kernel, Syscalls};
use crate::window::Window;

/// How to open a store.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    read_only: bool,
    allow_volatile: bool,
    /// Where the store begins, and how long its piece is.
    piece: Option<(u64, u64)>,
}

impl OpenOptions {
    /// For writing, on a medium that can keep a promise.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens for reading only: no lock is taken, a read-only file or mount will do, every write is refused.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Opens for writing also where nothing is sure to survive a power cut: tmpfs, ramfs, an overlay, a RAM disk.
    #[must_use]
    pub fn allow_volatile(mut self, allow_volatile: bool) -> Self {
        self.allow_volatile = allow_volatile;
        self
    }

    /// Opens, for reading only, a store that lies in a piece of the file or device: a partition of a card's image.
    #[must_use]
    pub fn piece(self, start: u64, len_bytes: u64) -> Self {
        Self { read_only: true, piece: Some((start, len_bytes)), ..self }
    }

    /// Opens the store at `path`; nothing is written to it.
    ///
    /// # Errors
    /// [`OpenError`]; the medium is unchanged.
    pub fn open(self, path: impl AsRef<Path>) -> Result<FileStorage, OpenError> {
        self.open_with(path.as_ref(), Arc::new(Kernel))
    }

    pub(crate) fn open_with(self, path: &Path, mut sys: Arc<dyn Syscalls>) -> Result<FileStorage, OpenError> {
        let (file, kind) = open_medium(path, !self.read_only)?;
        let file = if self.read_only {
            StoreFile::unlocked(file)
        } else {
            refuse_volatile(path, &file, kind, self.allow_volatile)?;
            take_lock(path, file)?
        };
        let mut report = OpenReport::default();
        refresh_cache(sys.as_ref(), &file, self.read_only, &mut report);
        let mut size_bytes = medium::size_bytes(&file, kind).map_err(|e| sort(path, "asking for the size", e))?;
        if let Some((start, len_bytes)) = self.piece {
            size_bytes = size_bytes.saturating_sub(start).min(len_bytes);
            sys = Arc::new(Window { whole: sys, start, len_bytes: size_bytes });
        }
        let probe = Probe { sys: sys.as_ref(), file: &file, kind, size_bytes };
        let content = probe.content().map_err(|e| sort(path, "reading", e))?;
        let geometry = geometry_of(path, &content)?;
        if geometry::is_chip_image(&geometry) && !self.read_only {
            return Err(OpenError::ChipImage { path: path.to_path_buf() });
        }
        report.missing_bytes = geometry.total_bytes().saturating_sub(size_bytes);
        let storage = assemble(path, file, kind, geometry, sys);
        Ok(FileStorage { writable: !self.read_only, present_bytes: size_bytes, report, ..storage })
    }
}

impl FileStorage {
    /// Opens the store at `path` for writing; nothing is written to it yet.
    ///
    /// # Errors
    /// [`OpenError`]; the medium is unchanged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        OpenOptions::new().open(path)
    }

    /// Opens the store at `path` for reading; takes no lock and needs no right to write.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        OpenOptions::new().read_only(true).open(path)
    }
}

/// A writable storage over an open medium that has all its bytes.
pub(crate) fn assemble(
    path: &Path,
    file: StoreFile,
    kind: MediumKind,
    geometry: Geometry,
    sys: Arc<dyn Syscalls>,
) -> FileStorage {
    let path: Arc<Path> = Arc::from(path);
    FileStorage {
        gate: Arc::new(SyncGate::new(Arc::clone(&sys), Arc::clone(&path))),
        file: Arc::new(file),
        sys,
        path,
        kind,
        geometry,
        writable: true,
        present_bytes: geometry.total_bytes(),
        report: OpenReport::default(),
        written_bytes: Arc::default(),
        fill_bytes: 0,
    }
}

fn geometry_of(path: &Path, content: &Content) -> Result<Geometry, OpenError> {
    let path = path.to_path_buf();
    match *content {
        Content::Ours(ref header) => Ok(geometry::from_header(header)),
        Content::Newer { major } => Err(OpenError::NewerVersion { path, major }),
        Content::OnlyDamaged { at } => Err(OpenError::NoIntactHeader { path, damaged_at: at }),
        Content::Blank | Content::HalfFormatted => Err(OpenError::Blank { path }),
        Content::Foreign { first_byte_at } => Err(OpenError::Foreign { path, first_byte_at }),
    }
}

/// Looks at the path, opens what is there, and looks again at what was opened.
pub(crate) fn open_medium(path: &Path, write: bool) -> Result<(File, MediumKind), OpenError> {
    let kind = kind_of(path, &fs::metadata(path).map_err(|e| sort(path, "looking at it", e))?)?;
    let exclusive = write && kind == MediumKind::BlockDevice;
    // O_EXCL without O_CREAT claims a block device for this descriptor: it fails while the device, the disk it is part
    // of or a partition of it is mounted or claimed, and nobody can mount it afterwards.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | if exclusive { OFlags::EXCL } else { OFlags::empty() };
    let mut options = fs::OpenOptions::new();
    options.read(true).write(write).custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    let mut tried = 0;
    let file = loop {
        tried += 1;
        match options.open(path) {
            Ok(file) => break file,
            Err(error) if raw(&error) == Some(Errno::BUSY) => busy(path, tried)?,
            Err(error) => return Err(sort(path, "opening", error)),
        }
    };
    let metadata = file.metadata().map_err(|e| sort(path, "looking at it", e))?;
    if kind_of(path, &metadata)? != kind {
        return Err(OpenError::NotAFile { path: path.to_path_buf() });
    }
    Ok((file, kind))
}

fn raw(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

fn kind_of(path: &Path, metadata: &fs::Metadata) -> Result<MediumKind, OpenError> {
    let path = path.to_path_buf();
    if metadata.is_dir() {
        return Err(OpenError::IsDirectory { path });
    }
    MediumKind::of(metadata).ok_or(OpenError::NotAFile { path })
}

/// Says who claims a device: a mount, or another writer of ours, which locks it too. As with the lock, the claim may
/// be one for an instant (a tool that looks for a free device): unless it is a mount, it is worth trying again.
fn busy(path: &Path, tried: u32) -> Result<(), OpenError> {
    let mounted_at = medium::mounted_at(path);
    if mounted_at.is_some() {
        return Err(OpenError::Busy { path: path.to_path_buf(), mounted_at });
    }
    if tried >= lock::TRIES {
        let path = path.to_path_buf();
        return Err(match File::open(&path).ok().and_then(|file| lock::writer_pid(&file)) {
            Some(pid) => OpenError::Locked { path, pid: Some(pid) },
            None => OpenError::Busy { path, mounted_at: None },
        });
    }
    thread::sleep(PAUSE);
    Ok(())
}

pub(crate) fn refuse_volatile(path: &Path, file: &File, kind: MediumKind, allowed: bool) -> Result<(), OpenError> {
    if allowed {
        return Ok(());
    }
    match medium::volatile_because(file, kind).map_err(|e| sort(path, "asking for the file system", e))? {
        Some(because) => Err(OpenError::Volatile { path: path.to_path_buf(), because }),
        None => Ok(()),
    }
}

pub(crate) fn take_lock(path: &Path, file: File) -> Result<StoreFile, OpenError> {
    let file = StoreFile::locked(file).map_err(|error| match error {
        LockError::Held { pid } => OpenError::Locked { path: path.to_path_buf(), pid },
        LockError::Io(error) => sort(path, "locking", error),
    })?;
    // Whoever created it may have failed and removed it between our open and our lock.
    let links = file.metadata().map_err(|e| sort(path, "looking at it", e))?.nlink();
    if links == 0 {
        return Err(OpenError::NotFound { path: path.to_path_buf() });
    }
    Ok(file)
}

/// F11: see the head of this file.
fn refresh_cache(sys: &dyn Syscalls, file: &File, read_only: bool, report: &mut OpenReport) {
    if read_only {
        if lock::is_locked_by_another(file).unwrap_or(true) {
            return;
        }
    } else if let Err(errno) = sys.fdatasync(file.as_fd()) {
        report.flush_os_error = Some(errno.raw_os_error());
    }
    report.cache_dropped = sys.drop_cache(file.as_fd(), 0, None).is_ok();
}
