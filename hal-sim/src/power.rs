//! The supply of one medium: it counts the operations that change something, and fails at the one it was told.
//!
//! Fault model: power fails at one operation. That operation is in flight (the medium decides what it left), it and
//! every later one return an error, reads too. Nothing after it reaches the medium.
//!
//! Invariants:
//! - operations are numbered from 0 since power came on, in the order of the calls; reads take no number;
//! - an operation that fails for another reason than power takes a number too;
//! - after a cut, [`Meter::ops`] is the number of the operation that was cut;
//! - once off, always off: only a fresh medium ([`crate::cuttable::Cuttable::after`]) has power again.

use embedded_storage::nor_flash::{NorFlashError, NorFlashErrorKind};
use lastgasp_core::hal::{StorageError, StorageErrorKind};
use std::fmt;

/// Why a call on a simulated medium failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power is off. Looks like any input or output error to the engine.
    Off,
    /// The hardware fails in this way.
    Broken(StorageErrorKind),
}

impl StorageError for Fault {
    fn kind(&self) -> StorageErrorKind {
        match self {
            Self::Off => StorageErrorKind::Io,
            Self::Broken(kind) => *kind,
        }
    }
}

impl NorFlashError for Fault {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Broken(StorageErrorKind::NotAligned) => NorFlashErrorKind::NotAligned,
            Self::Broken(StorageErrorKind::OutOfBounds) => NorFlashErrorKind::OutOfBounds,
            _ => NorFlashErrorKind::Other,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("the power is off"),
            Self::Broken(kind) => write!(f, "the medium reports {kind:?}"),
        }
    }
}

impl std::error::Error for Fault {}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// A write, on NOR the programming of one unit.
    Write,
    /// An erase of a segment, on NOR of one block.
    Erase,
    /// A sync.
    Sync,
}

/// One operation of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// Its number since power came on.
    pub number: u64,
    /// What it does.
    pub kind: OpKind,
    /// First byte it touches; 0 for a sync.
    pub at: u64,
    /// How many bytes it touches; 0 for a sync.
    pub len: u64,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            OpKind::Sync => write!(f, "{} sync", self.number),
            OpKind::Write => write!(f, "{} write {:#x}+{}", self.number, self.at, self.len),
            OpKind::Erase => write!(f, "{} erase {:#x}+{}", self.number, self.at, self.len),
        }
    }
}

/// A unit of what is lost or kept by chance if power fails now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtRisk {
    /// Number of the operation that wrote it.
    pub op: u64,
    /// First byte that was written.
    pub at: u64,
    /// How many bytes were written.
    pub len: u64,
    /// First byte that a cut can destroy.
    pub unit_at: u64,
    /// How many bytes a cut can destroy.
    pub unit_len: u64,
}

/// What a medium did in its whole life, over all power cycles. Operations that were cut or failed are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of `read`.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes; on NOR, units programmed.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Segments erased; on NOR, blocks.
    pub erases: u64,
    /// Syncs that returned `Ok`.
    pub syncs: u64,
}

/// Whether an operation goes through or is the one in flight when power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Power holds.
    Goes,
    /// Power fails during this operation.
    Cut,
}

/// The power meter of one medium.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    ops: u64,
    cut_at: Option<u64>,
    off: bool,
    log: Option<Vec<Op>>,
}

impl Meter {
    /// Operations that went through or failed since power came on; after a cut, the number of the one that was cut.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.ops
    }

    /// Lets power fail at operation `op`.
    pub fn cut_at(&mut self, op: Option<u64>) {
        self.cut_at = op;
    }

    /// `true` once power has failed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// Lets power fail now, between two operations.
    pub fn power_off(&mut self) {
        self.off = true;
    }

    /// Starts a recording of the operations, or ends it and drops it.
    pub fn record(&mut self, on: bool) {
        self.log = on.then(Vec::new);
    }

    /// The recording so far, the operation that was cut included.
    #[must_use]
    pub fn log(&self) -> &[Op] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Takes the recording out, so that a clone does not carry it; [`Meter::put_log`] brings it back.
    pub(crate) fn take_log(&mut self) -> Option<Vec<Op>> {
        self.log.take()
    }

    /// Brings back what [`Meter::take_log`] took.
    pub(crate) fn put_log(&mut self, log: Option<Vec<Op>>) {
        self.log = log;
    }

    /// An error if the power is off.
    pub(crate) fn powered(&self) -> Result<(), Fault> {
        if self.off { Err(Fault::Off) } else { Ok(()) }
    }

    /// Counts one operation, or lets power fail at it.
    pub(crate) fn step(&mut self, kind: OpKind, at: u64, len: u64) -> Result<Step, Fault> {
        self.powered()?;
        if let Some(log) = &mut self.log {
            log.push(Op { number: self.ops, kind, at, len });
        }
        if self.cut_at == Some(self.ops) {
            self.off = true;
            return Ok(Step::Cut);
        }
        self.ops += 1;
        Ok(Step::Goes)
    }
}
