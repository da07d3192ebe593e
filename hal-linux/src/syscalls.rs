//! The system calls the storage rests on, behind one trait, so that tests can make any single one fail.
//!
//! Invariants: every call here maps to one system call and retries nothing; the loops that complete short transfers
//! and repeat interrupted ones stand in the functions below the trait; no loop anywhere repeats a sync.

use core::fmt::Debug;
use core::num::NonZeroU64;
use std::os::fd::BorrowedFd;

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// One method per system call; the real kernel is [`Kernel`].
pub(crate) trait Syscalls: Debug + Send + Sync {
    fn pread(&self, fd: BorrowedFd<'_>, into: &mut [u8], at: u64) -> Result<usize, Errno>;
    fn pwrite(&self, fd: BorrowedFd<'_>, bytes: &[u8], at: u64) -> Result<usize, Errno>;
    fn fdatasync(&self, fd: BorrowedFd<'_>) -> Result<(), Errno>;
    fn fsync(&self, fd: BorrowedFd<'_>) -> Result<(), Errno>;
    fn fallocate(&self, fd: BorrowedFd<'_>, len_bytes: u64) -> Result<(), Errno>;
    fn ftruncate(&self, fd: BorrowedFd<'_>, len_bytes: u64) -> Result<(), Errno>;
    /// The first hole (or unwritten extent) at or after `from`; the end of the file counts as one.
    fn seek_hole(&self, fd: BorrowedFd<'_>, from: u64) -> Result<u64, Errno>;
    /// The first data at or after `from`; `ENXIO` if there is none.
    fn seek_data(&self, fd: BorrowedFd<'_>, from: u64) -> Result<u64, Errno>;
    /// Drops clean pages of the range from the page cache; `None` means up to the end of the file.
    fn drop_cache(&self, fd: BorrowedFd<'_>, at: u64, len_bytes: Option<NonZeroU64>) -> Result<(), Errno>;
}

/// The running kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernel;

impl Syscalls for Kernel {
    fn pread(&self, fd: BorrowedFd<'_>, into: &mut [u8], at: u64) -> Result<usize, Errno> {
        rustix::io::pread(fd, into, at)
    }
    fn pwrite(&self, fd: BorrowedFd<'_>, bytes: &[u8], at: u64) -> Result<usize, Errno> {
        rustix::io::pwrite(fd, bytes, at)
    }
    fn fdatasync(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        rustix::fs::fdatasync(fd)
    }
    fn fsync(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        rustix::fs::fsync(fd)
    }
    fn fallocate(&self, fd: BorrowedFd<'_>, len_bytes: u64) -> Result<(), Errno> {
        rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, len_bytes)
    }
    fn ftruncate(&self, fd: BorrowedFd<'_>, len_bytes: u64) -> Result<(), Errno> {
        rustix::fs::ftruncate(fd, len_bytes)
    }
    fn seek_hole(&self, fd: BorrowedFd<'_>, from: u64) -> Result<u64, Errno> {
        rustix::fs::seek(fd, SeekFrom::Hole(from))
    }
    fn seek_data(&self, fd: BorrowedFd<'_>, from: u64) -> Result<u64, Errno> {
        rustix::fs::seek(fd, SeekFrom::Data(from))
    }
    fn drop_cache(&self, fd: BorrowedFd<'_>, at: u64, len_bytes: Option<NonZeroU64>) -> Result<(), Errno> {
        rustix::fs::fadvise(fd, at, len_bytes, Advice::DontNeed)
    }
}

/// Reads until `into` is full or the file ends; returns the number of bytes read.
pub(crate) fn read_up_to(sys: &dyn Syscalls, fd: BorrowedFd<'_>, into: &mut [u8], at: u64) -> Result<usize, Errno> {
    let mut done = 0_usize;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match sys.pread(fd, rest, at.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done = done.saturating_add(n),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Writes all of `bytes`, completing short writes and repeating interrupted ones.
pub(crate) fn write_all(sys: &dyn Syscalls, fd: BorrowedFd<'_>, bytes: &[u8], at: u64) -> Result<(), Errno> {
    let mut done = 0_usize;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match sys.pwrite(fd, rest, at.saturating_add(done as u64)) {
            // POSIX forbids it for a regular file; a device that does it makes no progress and never will.
            Ok(0) => return Err(Errno::IO),
            Ok(n) => done = done.saturating_add(n),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Gives the file its size on the medium; `false` where the file system has no preallocation and only the size is set.
pub(crate) fn preallocate(sys: &dyn Syscalls, fd: BorrowedFd<'_>, len_bytes: u64) -> Result<bool, Errno> {
    loop {
        match sys.fallocate(fd, len_bytes) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return sys.ftruncate(fd, len_bytes).map(|()| false),
            Err(errno) => return Err(errno),
        }
    }
}

/// A block of zeros to write from.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Writes `len_bytes` zeros at `at`.
pub(crate) fn write_zeros(sys: &dyn Syscalls, fd: BorrowedFd<'_>, at: u64, len_bytes: u64) -> Result<(), Errno> {
    let mut done = 0_u64;
    while done < len_bytes {
        let step = usize::try_from(len_bytes.saturating_sub(done)).unwrap_or(usize::MAX).min(ZEROS.len());
        write_all(sys, fd, ZEROS.get(..step).unwrap_or(&ZEROS), at.saturating_add(done))?;
        done = done.saturating_add(step as u64);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod faulty {
    //! A kernel whose calls fail on demand: the nth call of one kind from now on, counted from 1.

    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum Call {
        Pread,
        Pwrite,
        Fdatasync,
        Fsync,
        Fallocate,
        SeekHole,
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Fault {
        /// The call fails without touching the medium.
        Errno(Errno),
        /// The transfer stops after this many bytes.
        Short(usize),
    }

    #[derive(Debug, Default)]
    pub(crate) struct Faulty {
        counts: Mutex<BTreeMap<Call, u64>>,
        plan: Mutex<BTreeMap<(Call, u64), Fault>>,
    }

    impl Faulty {
        /// How often `call` was made so far.
        pub(crate) fn count(&self, call: Call) -> u64 {
            self.counts.lock().unwrap().get(&call).copied().unwrap_or(0)
        }

        /// Makes the `nth` further call of this kind fail.
        pub(crate) fn fail(&self, call: Call, nth: u64, fault: Fault) {
            let at = self.count(call) + nth;
            self.plan.lock().unwrap().insert((call, at), fault);
        }

        fn next(&self, call: Call) -> Option<Fault> {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry(call).or_default();
            *count += 1;
            self.plan.lock().unwrap().remove(&(call, *count))
        }

        fn check(&self, call: Call) -> Result<(), Errno> {
            match self.next(call) {
                Some(Fault::Errno(errno)) => Err(errno),
                Some(Fault::Short(_)) => panic!("{call:?} cannot be short"),
                None => Ok(()),
            }
        }
    }

    impl Syscalls for Faulty {
        fn pread(&self, fd: BorrowedFd<'_>, into: &mut [u8], at: u64) -> Result<usize, Errno> {
            match self.next(Call::Pread) {
                Some(Fault::Errno(errno)) => Err(errno),
                Some(Fault::Short(n)) => Kernel.pread(fd, &mut into[..n], at),
                None => Kernel.pread(fd, into, at),
            }
        }
        fn pwrite(&self, fd: BorrowedFd<'_>, bytes: &[u8], at: u64) -> Result<usize, Errno> {
            match self.next(Call::Pwrite) {
                Some(Fault::Errno(errno)) => Err(errno),
                Some(Fault::Short(n)) => Kernel.pwrite(fd, &bytes[..n], at),
                None => Kernel.pwrite(fd, bytes, at),
            }
        }
        fn fdatasync(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
            self.check(Call::Fdatasync)?;
            Kernel.fdatasync(fd)
        }
        fn fsync(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
            self.check(Call::Fsync)?;
            Kernel.fsync(fd)
        }
        fn fallocate(&self, fd: BorrowedFd<'_>, len_bytes: u64) -> Result<(), Errno> {
            self.check(Call::Fallocate)?;
            Kernel.fallocate(fd, len_bytes)
        }
        fn ftruncate(&self, fd: BorrowedFd<'_>, len_bytes: u64) -> Result<(), Errno> {
            Kernel.ftruncate(fd, len_bytes)
        }
        fn seek_hole(&self, fd: BorrowedFd<'_>, from: u64) -> Result<u64, Errno> {
            self.check(Call::SeekHole)?;
            Kernel.seek_hole(fd, from)
        }
        fn seek_data(&self, fd: BorrowedFd<'_>, from: u64) -> Result<u64, Errno> {
            Kernel.seek_data(fd, from)
        }
        fn drop_cache(&self, fd: BorrowedFd<'_>, at: u64, len_bytes: Option<NonZeroU64>) -> Result<(), Errno> {
            Kernel.drop_cache(fd, at, len_bytes)
        }
    }
}
