//! A piece of a file or device, seen as a whole one: a partition inside the image of a card.
//!
//! Invariants: nothing outside the piece is read; nothing is ever written through it.

use core::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::syscalls::Syscalls;

/// The system calls of a piece, by those of the whole.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) whole: Arc<dyn Syscalls>,
    /// Where the piece begins.
    pub(crate) start: u64,
    /// How long it is.
    pub(crate) len_bytes: u64,
}

impl Window {
    fn at(&self, at: u64) -> Result<u64, Errno> {
        self.start.checked_add(at).ok_or(Errno::OVERFLOW)
    }

    fn inside(&self, at: u64) -> u64 {
        at.saturating_sub(self.start).min(self.len_bytes)
    }
}

impl Syscalls for Window {
    fn pread(&self, fd: BorrowedFd<'_>, into: &mut [u8], at: u64) -> Result<usize, Errno> {
        let left = usize::try_from(self.len_bytes.saturating_sub(at)).unwrap_or(usize::MAX).min(into.len());
        match into.get_mut(..left) {
            Some(into) if !into.is_empty() => self.whole.pread(fd, into, self.at(at)?),
            _ => Ok(0),
        }
    }
    fn pwrite(&self, _: BorrowedFd<'_>, _: &[u8], _: u64) -> Result<usize, Errno> {
        Err(Errno::ROFS)
    }
    fn fdatasync(&self, _: BorrowedFd<'_>) -> Result<(), Errno> {
        Err(Errno::ROFS)
    }
    fn fsync(&self, _: BorrowedFd<'_>) -> Result<(), Errno> {
        Err(Errno::ROFS)
    }
    fn fallocate(&self, _: BorrowedFd<'_>, _: u64) -> Result<(), Errno> {
        Err(Errno::ROFS)
    }
    fn ftruncate(&self, _: BorrowedFd<'_>, _: u64) -> Result<(), Errno> {
        Err(Errno::ROFS)
    }
    fn seek_hole(&self, fd: BorrowedFd<'_>, from: u64) -> Result<u64, Errno> {
        Ok(self.inside(self.whole.seek_hole(fd, self.at(from)?)?))
    }
    fn seek_data(&self, fd: BorrowedFd<'_>, from: u64) -> Result<u64, Errno> {
        let data = self.inside(self.whole.seek_data(fd, self.at(from)?)?);
        if data < self.len_bytes { Ok(data) } else { Err(Errno::NXIO) }
    }
    fn drop_cache(&self, fd: BorrowedFd<'_>, at: u64, len_bytes: Option<NonZeroU64>) -> Result<(), Errno> {
        let len = len_bytes.or_else(|| NonZeroU64::new(self.len_bytes.saturating_sub(at)));
        self.whole.drop_cache(fd, self.at(at)?, len)
    }
}
