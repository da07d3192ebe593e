//! A file that is followed: how far it was read, and what is known of its name.
//!
//! Invariants: nothing in front of the trail's offset is read again; nothing between the offset and `scanned` is a
//! whole record.

use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::find::Found;
use super::identity::{Id, Trail};

/// Read at once, unless a line is longer.
pub(super) const WINDOW_BYTES: usize = 64 << 10;

/// A followed file.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) stream: String,
    pub(super) trail: Trail,
    /// There is no whole record up to here.
    pub(super) scanned: u64,
    /// Whole lines wait for the next one.
    pub(super) waits: bool,
    pub(super) watch: Option<i32>,
    /// Look at it.
    pub(super) dirty: bool,
    /// When it grew last.
    pub(super) grown_us: u64,
    /// It was moved away: its last line may be final.
    pub(super) moved: bool,
    /// No name that matches leads to it any more.
    pub(super) gone: bool,
    /// Severity of the record that goes on.
    pub(super) severity: Option<u8>,
}

impl Tail {
    /// A path that matches leads to it.
    pub(super) fn is_at(&mut self, path: &Path, found: &Found) {
        if mem::take(&mut self.gone) {
            self.dirty = true;
        }
        let leads_here = found
            .files
            .get(&self.path)
            .is_some_and(|metadata| self.file.metadata().is_ok_and(|own| Id::from(&own) == Id::from(metadata)));
        if !leads_here {
            (self.moved, self.dirty) = (true, true);
            path.clone_into(&mut self.path);
        }
    }

    /// Whether nothing but more of one line came since it was looked at last.
    pub(super) fn goes_on_without_newline(&mut self, max: usize, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let offset = self.trail.offset();
        let size = self.file.metadata()?.len();
        if size < self.scanned {
            self.scanned = offset; // what there was of the line is not there any more
        }
        let new = size.saturating_sub(self.scanned);
        if self.scanned <= offset || size.saturating_sub(offset) > max as u64 || new >= WINDOW_BYTES as u64 {
            return Ok(false);
        }
        let is_end = fill(&self.file, self.scanned, WINDOW_BYTES, buffer)?;
        if !is_end || memchr::memchr(b'\n', buffer).is_some() || !self.trail.holds(&self.file)? {
            return Ok(false);
        }
        self.scanned = self.scanned.saturating_add(buffer.len() as u64);
        Ok(true)
    }
}

/// Reads up to `room` bytes from an offset; whether that is the end of the file.
pub(super) fn fill(file: &File, offset: u64, room: usize, window: &mut Vec<u8>) -> io::Result<bool> {
    window.clear();
    window.resize(room, 0);
    let mut len = 0usize;
    while let Some(free) = window.get_mut(len..).filter(|free| !free.is_empty()) {
        match file.read_at(free, offset.saturating_add(len as u64)) {
            Ok(0) => break,
            Ok(bytes) => len = len.saturating_add(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    window.truncate(len);
    Ok(len < room)
}
