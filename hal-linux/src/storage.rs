//! The store's medium while it is open: reads, writes, syncs and the first-lap fill.
//!
//! Invariants: while running, the file never grows, shrinks, is punched or renamed; the one exception is a file that
//! somebody cut short, which gets its full size again before the first write beyond its end. A write is whole or an
//! error; a failed sync is reported and never repeated ([`crate::sync`]). A segment whose range still has unwritten
//! extents is filled with zeros when it is prepared, so that a commit later changes no metadata.
//!
//! Reads and writes go through the page cache. What this needs to be safe is in [`crate::open`].

use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lastgasp_core::hal::{Geometry, ReadStorage, Storage, StorageErrorKind};
use rustix::io::Errno;

use crate::error::{LinuxStorageError, Operation};
use crate::lock::{self, StoreFile};
use crate::medium::MediumKind;
use crate::sync::{Asker, Reach, SyncGate, SyncHandle};
use crate::syscalls::{Syscalls, preallocate, read_up_to, write_all, write_zeros};

/// What opening found out, for reports to people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// How many bytes of the store lie beyond the end of the file or device: it was cut short. They read as
    /// `OutOfBounds`; a file gets them back before the first write there.
    pub missing_bytes: u64,
    /// `true` if the page cache was dropped, so that reads come from the medium.
    pub cache_dropped: bool,
    /// The kernel's error number if bytes a former writer left in the page cache could not be written to the medium.
    /// They were no part of any promise; what is read now is what the medium holds.
    pub flush_os_error: Option<i32>,
}

/// Counts what an open medium did, from any thread.
#[derive(Debug, Clone)]
pub struct Meter {
    written_bytes: Arc<AtomicU64>,
    gate: Arc<SyncGate>,
}

impl Meter {
    /// Bytes the engine wrote since opening.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Syncs that succeeded since opening, by whomever.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.gate.good()
    }
}

/// A store's medium: one preallocated regular file or one block device.
#[derive(Debug)]
pub struct FileStorage {
    pub(crate) file: Arc<StoreFile>,
    pub(crate) sys: Arc<dyn Syscalls>,
    pub(crate) path: Arc<Path>,
    pub(crate) kind: MediumKind,
    pub(crate) geometry: Geometry,
    pub(crate) writable: bool,
    /// How much of the store the medium has; less than the whole if it was cut short.
    pub(crate) present_bytes: u64,
    pub(crate) report: OpenReport,
    pub(crate) gate: Arc<SyncGate>,
    pub(crate) written_bytes: Arc<AtomicU64>,
    pub(crate) fill_bytes: u64,
}

impl FileStorage {
    /// A handle by which another thread can sync this store. It shares everything with it, the lock too.
    ///
    /// # Errors
    /// When the store is open read-only.
    pub fn sync_handle(&self) -> io::Result<SyncHandle> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the store is open read-only"));
        }
        Ok(SyncHandle { file: Arc::clone(&self.file), gate: Arc::clone(&self.gate) })
    }

    /// `true` if a live writer has this store open; always so for a writer itself.
    ///
    /// What a reader finds beside a live writer may change or vanish at any time.
    ///
    /// # Errors
    /// `Io` if the file system does not lock.
    pub fn is_locked_by_writer(&self) -> Result<bool, LinuxStorageError> {
        if self.writable {
            return Ok(true);
        }
        lock::is_locked_by_another(&self.file)
            .map_err(|errno| LinuxStorageError::from_errno(Operation::Lock, 0, 0, errno, &self.path))
    }

    /// The process that has this store open for writing, if the system tells.
    #[must_use]
    pub fn writer_pid(&self) -> Option<u32> {
        lock::writer_pid(&self.file)
    }

    /// What opening found out.
    #[must_use]
    pub fn open_report(&self) -> OpenReport {
        self.report
    }

    /// A regular file or a block device.
    #[must_use]
    pub fn kind(&self) -> MediumKind {
        self.kind
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes the engine wrote since opening.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// What other threads may ask of [`Self::written_bytes`] and [`Self::syncs`].
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter { written_bytes: Arc::clone(&self.written_bytes), gate: Arc::clone(&self.gate) }
    }

    /// Zeros written since opening to fill segments before their first use; not part of [`Self::written_bytes`].
    #[must_use]
    pub fn fill_bytes(&self) -> u64 {
        self.fill_bytes
    }

    /// Syncs that succeeded since opening, by whomever.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.gate.good()
    }

    fn errno(&self, operation: Operation, at: u64, len: u64, errno: Errno) -> LinuxStorageError {
        LinuxStorageError::from_errno(operation, at, len, errno, &self.path)
    }

    fn refuse(
        &self,
        kind: StorageErrorKind,
        operation: Operation,
        at: u64,
        len: u64,
        rule: &'static str,
    ) -> LinuxStorageError {
        LinuxStorageError::from_rule(kind, operation, at, len, rule, &self.path)
    }

    fn must_be_writable(&self, operation: Operation, at: u64, len: u64) -> Result<(), LinuxStorageError> {
        if self.writable {
            return Ok(());
        }
        Err(self.refuse(StorageErrorKind::ReadOnly, operation, at, len, "the store is open read-only"))
    }

    /// The rules of [`Storage::write`].
    fn check_write(&self, at: u64, len: u64) -> Result<(), LinuxStorageError> {
        self.must_be_writable(Operation::Write, at, len)?;
        let unit = u64::from(self.geometry.write_unit.max(1));
        if !at.is_multiple_of(unit) || !len.is_multiple_of(unit) {
            let rule = "offset and length must be multiples of the write unit";
            return Err(self.refuse(StorageErrorKind::NotAligned, Operation::Write, at, len, rule));
        }
        let segment_bytes = u64::from(self.geometry.segment_bytes.max(1));
        let left_in_segment = segment_bytes.saturating_sub(at % segment_bytes);
        if at >= self.geometry.total_bytes() || len > left_in_segment {
            let rule = "the range must lie inside one segment of the store";
            return Err(self.refuse(StorageErrorKind::OutOfBounds, Operation::Write, at, len, rule));
        }
        Ok(())
    }

    /// Gives a file that was cut short its full size before something is written beyond its end.
    fn make_room(&mut self, end: u64) -> Result<(), LinuxStorageError> {
        if end <= self.present_bytes {
            return Ok(());
        }
        let total = self.geometry.total_bytes();
        if self.kind == MediumKind::BlockDevice {
            let rule = "the device is smaller than the store on it";
            return Err(self.refuse(StorageErrorKind::OutOfBounds, Operation::Extend, end, 0, rule));
        }
        // Without preallocation the size is all there is; the first-lap fill does the rest.
        preallocate(self.sys.as_ref(), self.file.as_fd(), total)
            .map_err(|errno| self.errno(Operation::Extend, end, 0, errno))?;
        self.gate.sync(&self.file, Asker::Layer, Reach::All)?;
        self.present_bytes = total;
        Ok(())
    }

    /// Writes zeros over every unwritten extent of the range and makes them durable.
    ///
    /// Stateless: the file system is asked each time. It counts a page that is in the cache as data, also one that was
    /// only read, so the clean pages of the range are dropped first.
    fn fill_holes(&mut self, start: u64, end: u64) -> Result<(), LinuxStorageError> {
        let file = self.file.as_fd();
        let fail = |errno| LinuxStorageError::from_errno(Operation::Erase, start, end - start, errno, &self.path);
        // Advice: where it is not taken, a fill may be missed and a later commit carries the metadata. Still safe.
        let _ = self.sys.drop_cache(file, start, NonZeroU64::new(end.saturating_sub(start)));
        let mut at = start;
        let mut filled = 0_u64;
        while at < end {
            let hole = match self.sys.seek_hole(file, at) {
                Ok(hole) => hole,
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => break, // it has no holes to tell of
                Err(errno) => return Err(fail(errno)),
            };
            if hole >= end {
                break;
            }
            let data = match self.sys.seek_data(file, hole) {
                Ok(data) => data.min(end),
                Err(Errno::NXIO) => end,
                Err(errno) => return Err(fail(errno)),
            };
            if data <= hole {
                break;
            }
            write_zeros(self.sys.as_ref(), file, hole, data.saturating_sub(hole)).map_err(fail)?;
            filled = filled.saturating_add(data.saturating_sub(hole));
            at = data;
        }
        if filled == 0 {
            return Ok(());
        }
        self.fill_bytes = self.fill_bytes.saturating_add(filled);
        self.gate.sync(&self.file, Asker::Layer, Reach::Data)
    }
}

impl ReadStorage for FileStorage {
    type Error = LinuxStorageError;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), LinuxStorageError> {
        let len = into.len() as u64;
        if at.checked_add(len).is_none_or(|end| end > self.geometry.total_bytes()) {
            let rule = "the range lies beyond the end of the store";
            return Err(self.refuse(StorageErrorKind::OutOfBounds, Operation::Read, at, len, rule));
        }
        let got = read_up_to(self.sys.as_ref(), self.file.as_fd(), into, at)
            .map_err(|errno| self.errno(Operation::Read, at, len, errno))?;
        if got < into.len() {
            let rule = "the file or device ends before it: it was cut short";
            return Err(self.refuse(StorageErrorKind::OutOfBounds, Operation::Read, at, len, rule));
        }
        Ok(())
    }
}

impl Storage for FileStorage {
    /// On a range that was written before it does nothing. Else it fills it with zeros and syncs them, once in the life
    /// of a file; that sync covers everything written before, too, and takes as long as the medium needs for a segment.
    ///
    /// # Errors
    /// Also `SyncFailed`: then nothing written since the last good sync may be believed, and the next sync fails too.
    fn erase(&mut self, segment: u32) -> Result<(), LinuxStorageError> {
        let start = self.geometry.segment_start(segment);
        let len = u64::from(self.geometry.segment_bytes);
        self.must_be_writable(Operation::Erase, start, len)?;
        if segment >= self.geometry.segments {
            let rule = "the store has no such segment";
            return Err(self.refuse(StorageErrorKind::OutOfBounds, Operation::Erase, start, len, rule));
        }
        let end = start.saturating_add(len);
        self.make_room(end)?;
        match self.kind {
            MediumKind::File => self.fill_holes(start, end),
            MediumKind::BlockDevice => Ok(()),
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), LinuxStorageError> {
        let len = bytes.len() as u64;
        self.check_write(at, len)?;
        self.make_room(at.saturating_add(len))?;
        write_all(self.sys.as_ref(), self.file.as_fd(), bytes, at)
            .map_err(|errno| self.errno(Operation::Write, at, len, errno))?;
        self.written_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LinuxStorageError> {
        self.must_be_writable(Operation::Sync, 0, 0)?;
        self.gate.sync(&self.file, Asker::Engine, Reach::Data)
    }
}

#[cfg(test)]
#[path = "storage_faults.rs"]
mod faults;
