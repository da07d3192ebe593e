//! Syncing one store from several threads without losing a failure between them.
//!
//! The kernel reports a writeback error **once** per open file description, and all handles of a store share one. So
//! two syncs that overlap could split: one gets the error, the other `Ok`, for bytes that are gone. Invariants:
//! - syncs of one store run one after the other ([`SyncGate`]);
//! - a sync that was asked for before another one failed fails too, without a system call;
//! - a failure met by this layer's own syncs (first-lap fill, extension) also fails the next sync of the engine;
//! - no failed sync is ever repeated, not even one that was interrupted: after an error the kernel marks pages clean,
//!   and the second try would succeed over bytes that never arrived.
//!
//! One shared description, not one each: with one each a failure would come back once per handle, also long after the
//! engine has dealt with it, and void good bytes.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lastgasp_core::hal::StorageErrorKind;

use crate::error::{LinuxStorageError, Operation};
use crate::lock::StoreFile;
use crate::syscalls::Syscalls;

/// Who asks for a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The engine, which hears of the failure itself.
    Engine,
    /// This layer, for its own needs: the engine must hear of a failure by its next sync as well.
    Layer,
}

/// Which system call makes it durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Data, and what is needed to find it again.
    Data,
    /// Everything, the size and times of the file too.
    All,
}

/// One at a time, and no failure is lost.
#[derive(Debug)]
pub(crate) struct SyncGate {
    sys: Arc<dyn Syscalls>,
    path: Arc<Path>,
    turn: Mutex<()>,
    failures: AtomicU64,
    owed: AtomicBool,
    good: AtomicU64,
}

impl SyncGate {
    pub(crate) fn new(sys: Arc<dyn Syscalls>, path: Arc<Path>) -> Self {
        Self {
            sys,
            path,
            turn: Mutex::new(()),
            failures: AtomicU64::new(0),
            owed: AtomicBool::new(false),
            good: AtomicU64::new(0),
        }
    }

    /// Number of syncs that succeeded, by whomever.
    pub(crate) fn good(&self) -> u64 {
        self.good.load(Ordering::SeqCst)
    }

    /// Number of failures so far: what a sync that is about to be asked for has seen.
    fn seen(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    pub(crate) fn sync(&self, file: &File, asker: Asker, reach: Reach) -> Result<(), LinuxStorageError> {
        self.sync_having_seen(self.seen(), file, asker, reach)
    }

    fn sync_having_seen(&self, seen: u64, file: &File, asker: Asker, reach: Reach) -> Result<(), LinuxStorageError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.seen() != seen {
            return Err(self.refusal("a sync of the same store failed while this one waited"));
        }
        if asker == Asker::Engine && self.owed.swap(false, Ordering::SeqCst) {
            return Err(self.refusal("an earlier sync, made to prepare a segment, failed"));
        }
        let done = match reach {
            Reach::Data => self.sys.fdatasync(file.as_fd()),
            Reach::All => self.sys.fsync(file.as_fd()),
        };
        match done {
            Ok(()) => {
                self.good.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            Err(errno) => {
                self.failures.fetch_add(1, Ordering::SeqCst);
                if asker == Asker::Layer {
                    self.owed.store(true, Ordering::SeqCst);
                }
                Err(LinuxStorageError::from_errno(Operation::Sync, 0, 0, errno, &self.path))
            }
        }
    }

    fn refusal(&self, rule: &'static str) -> LinuxStorageError {
        LinuxStorageError::from_rule(StorageErrorKind::SyncFailed, Operation::Sync, 0, 0, rule, &self.path)
    }
}

/// Syncs a store from another thread, without borrowing it.
///
/// It keeps the file open, and with it the store's lock, for as long as it lives.
#[derive(Debug)]
pub struct SyncHandle {
    pub(crate) file: Arc<StoreFile>,
    pub(crate) gate: Arc<SyncGate>,
}

impl SyncHandle {
    /// Makes everything written to the store before this call durable.
    ///
    /// # Power loss
    /// As [`lastgasp_core::hal::Storage::sync`].
    ///
    /// # Errors
    /// `SyncFailed`, also if another sync of the same store failed since this one was asked for; `ReadOnly`.
    pub fn sync(&self) -> Result<(), LinuxStorageError> {
        self.gate.sync(&self.file, Asker::Engine, Reach::Data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscalls::faulty::{Call, Fault, Faulty};
    use lastgasp_core::hal::StorageError;
    use rustix::io::Errno;

    fn gate() -> (Arc<Faulty>, SyncGate, File) {
        let sys = Arc::new(Faulty::default());
        let gate = SyncGate::new(sys.clone(), Arc::from(Path::new("store")));
        (sys, gate, tempfile::tempfile().unwrap())
    }

    #[test]
    fn a_failed_sync_is_reported_once_and_never_repeated() {
        for errno in [Errno::IO, Errno::INTR, Errno::NOSPC] {
            let (sys, gate, file) = gate();
            sys.fail(Call::Fdatasync, 1, Fault::Errno(errno));
            let error = gate.sync(&file, Asker::Engine, Reach::Data).unwrap_err();
            assert_eq!(error.kind(), StorageErrorKind::SyncFailed);
            assert_eq!(sys.count(Call::Fdatasync), 1, "{errno} must not be tried again");
            gate.sync(&file, Asker::Engine, Reach::Data).unwrap();
            assert_eq!(gate.good(), 1);
        }
    }

    #[test]
    fn a_sync_that_waited_while_another_failed_fails_without_a_system_call() {
        let (sys, gate, file) = gate();
        let seen_by_the_waiting_one = gate.seen();
        sys.fail(Call::Fdatasync, 1, Fault::Errno(Errno::IO));
        gate.sync(&file, Asker::Engine, Reach::Data).unwrap_err();
        let waited = gate.sync_having_seen(seen_by_the_waiting_one, &file, Asker::Engine, Reach::Data);
        assert_eq!(waited.unwrap_err().kind(), StorageErrorKind::SyncFailed);
        assert_eq!(sys.count(Call::Fdatasync), 1);
    }

    #[test]
    fn a_failure_of_the_layer_fails_the_engines_next_sync_too() {
        let (sys, gate, file) = gate();
        sys.fail(Call::Fdatasync, 1, Fault::Errno(Errno::IO));
        gate.sync(&file, Asker::Layer, Reach::Data).unwrap_err();
        assert!(gate.sync(&file, Asker::Layer, Reach::Data).is_ok(), "only the engine is owed the news");
        let owed = gate.sync(&file, Asker::Engine, Reach::Data).unwrap_err();
        assert_eq!(owed.kind(), StorageErrorKind::SyncFailed);
        assert_eq!(sys.count(Call::Fdatasync), 2);
        gate.sync(&file, Asker::Engine, Reach::Data).unwrap();
    }
}
