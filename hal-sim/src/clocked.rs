//! A medium on virtual time, fed by a reserve: every call takes what its hardware takes, and draws what it draws.
//!
//! Fault model: power fails at the instant the reserve is empty. If a call is under way, its operation at that instant
//! is in flight: a write of many units has done those before it.
//!
//! Invariants: time only goes forward, by calls and by [`Clocked::wait`]; after the power is off nothing takes time;
//! a call whose power holds does on the medium exactly what it would do without a clock.

use crate::disk::SimDisk;
use crate::driver::medium::{Flash, Medium};
use crate::driver::workload::Shape;
use crate::supply::Reserve;
use lastgasp_core::hal::{Geometry, ReadStorage, Storage};

/// A call of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads so many bytes.
    Read {
        /// How many.
        len: u64,
    },
    /// Writes so many bytes.
    Write {
        /// How many.
        len: u64,
    },
    /// Erases a segment of so many bytes.
    Erase {
        /// How many.
        len: u64,
    },
    /// Syncs.
    Sync,
}

/// A medium that knows what its calls take.
pub trait Timed {
    /// What this call would take now, in microseconds.
    fn cost_us(&self, access: Access) -> u64;

    /// How often each erase unit was erased, by place; empty if the medium has none that wear.
    fn wear_of_segments(&self, _: &Shape) -> Vec<u32> {
        Vec::new()
    }

    /// Bytes that the flash inside programmed, to save and to move; 0 if that is not known.
    fn flash_bytes(&self) -> u64 {
        0
    }
}

/// The disk: a consumer SSD or eMMC without power protection. A sync takes about 12 ms, the floor that the kvrocks
/// project measured for one (its issue 3603); 4 KiB go to the cache in about 30 us, as on the machine that
/// `tools/bench` was first run on.
impl Timed for SimDisk {
    fn cost_us(&self, access: Access) -> u64 {
        match access {
            Access::Read { len } => 80 + len / 200,
            Access::Write { len } => 25 + len / 500,
            Access::Erase { .. } => 0,
            Access::Sync if self.unsynced_writes() == 0 => 30,
            Access::Sync => 12_000,
        }
    }
}

/// The flash: a W25Q serial NOR. Its data sheet: 0.7 ms to program a page of up to 256 bytes, 45 ms to erase a sector,
/// typically; read here at 10 MHz, about 1 us a byte.
impl Timed for Flash {
    fn cost_us(&self, access: Access) -> u64 {
        match access {
            Access::Read { len } => 5 + len,
            Access::Write { len } => 700 * len.div_ceil(256),
            Access::Erase { len } => 45_000 * len.div_ceil(1024),
            Access::Sync => 0,
        }
    }

    fn wear_of_segments(&self, shape: &Shape) -> Vec<u32> {
        let blocks = (shape.segment_bytes / 1024).max(1) as usize;
        self.erase_counts().iter().copied().step_by(blocks).collect()
    }
}

/// What a medium did with its time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    /// Bytes written into each segment.
    pub written: Vec<u64>,
    /// The longest sync, in microseconds.
    pub longest_sync_us: u64,
    /// Syncs.
    pub syncs: u64,
}

/// A medium with a clock and a reserve.
#[derive(Debug)]
pub struct Clocked<M: Medium + Timed> {
    storage: M::Storage,
    segment_bytes: u64,
    now_us: u64,
    off: bool,
    /// The call that was under way when the power failed; `None` if it was between two.
    pub cut_in: Option<Access>,
    /// Calls take no time, and the power does not fail in them: for looking.
    pub free: bool,
    /// Lets the power fail at this operation, whatever the reserve says.
    pub cut_at_op: Option<u64>,
    /// The reserve.
    pub reserve: Reserve,
    /// What it did.
    pub spent: Spent,
}

impl<M: Medium + Timed> Clocked<M> {
    /// The medium with a clock that stands at `now_us`.
    pub fn new(medium: M, shape: &Shape, now_us: u64, reserve: Reserve, mut spent: Spent) -> Self {
        spent.written.resize(shape.segments as usize, 0);
        let storage = medium.into_storage(shape);
        let segment_bytes = u64::from(storage.geometry().segment_bytes);
        let (off, cut_in, free, cut_at_op) = (false, None, false, None);
        Self { storage, segment_bytes, now_us, off, cut_in, free, cut_at_op, reserve, spent }
    }

    /// The medium.
    pub fn medium(&mut self) -> &mut M {
        M::inside(&mut self.storage)
    }

    /// Gives the medium back, and what it did.
    pub fn into_parts(self) -> (M, Spent) {
        (M::of_storage(self.storage), self.spent)
    }

    /// What its clock shows.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// The power fails now, between two operations.
    pub fn power_off(&mut self) {
        self.off = true;
        self.medium().power_off();
    }

    /// What a sync would take now.
    pub fn sync_cost_us(&mut self) -> u64 {
        self.medium().cost_us(Access::Sync)
    }

    /// Time goes by until `at_us`; `busy` if the medium works in it. If the power fails, it is between two operations,
    /// or in the sync that is under way.
    pub fn wait(&mut self, at_us: u64, busy: bool) {
        let us = at_us.saturating_sub(self.now_us);
        if self.off {
            return;
        }
        match self.reserve.pass(us, busy) {
            None => self.now_us += us,
            Some(lasted) => {
                self.now_us += lasted;
                if busy {
                    let now = self.medium().ops();
                    self.medium().cut_at(Some(now));
                    // The power fails in it: what it returns is known.
                    _ = self.storage.sync();
                    self.cut_in = Some(Access::Sync);
                } else {
                    self.medium().power_off();
                }
                self.off = true;
            }
        }
    }

    /// The sync whose time has gone by already.
    ///
    /// # Errors
    /// Those of the medium.
    pub fn finish_sync(&mut self, took_us: u64) -> Result<(), <M::Storage as ReadStorage>::Error> {
        self.arm();
        self.note_sync(took_us);
        let synced = self.storage.sync();
        self.notice(Access::Sync);
        synced
    }

    fn note_sync(&mut self, took_us: u64) {
        self.spent.syncs += 1;
        self.spent.longest_sync_us = self.spent.longest_sync_us.max(took_us);
    }

    /// Lets the operation fail that was asked for.
    fn arm(&mut self) {
        if let Some(op) = self.cut_at_op {
            self.medium().cut_at(Some(op));
        }
    }

    fn notice(&mut self, access: Access) {
        if !self.off && self.medium().is_off() {
            self.off = true;
            self.cut_in = Some(access);
        }
    }

    /// Takes the time of a call; if the power fails in it, the medium is told at which of its `operations`.
    fn spend(&mut self, access: Access, operations: u64) {
        if self.off || self.free {
            return;
        }
        self.arm();
        let cost = self.medium().cost_us(access);
        if access == Access::Sync {
            self.note_sync(cost);
        }
        match self.reserve.pass(cost, true) {
            None => self.now_us += cost,
            Some(lasted) => {
                self.now_us += lasted;
                let done = lasted * operations / cost.max(1);
                let op = self.medium().ops() + done.min(operations.saturating_sub(1));
                match operations {
                    0 => self.medium().power_off(),
                    _ => self.medium().cut_at(Some(op)),
                }
                self.off = true;
                self.cut_in = Some(access);
            }
        }
    }
}

impl<M: Medium + Timed> ReadStorage for Clocked<M> {
    type Error = <M::Storage as ReadStorage>::Error;

    fn geometry(&self) -> Geometry {
        self.storage.geometry()
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        self.spend(Access::Read { len: into.len() as u64 }, 0);
        self.storage.read(at, into)
    }
}

impl<M: Medium + Timed> Storage for Clocked<M> {
    fn erase(&mut self, segment: u32) -> Result<(), Self::Error> {
        let geometry = self.storage.geometry();
        let blocks = geometry.segment_bytes / geometry.erase_block_bytes.max(1);
        let operations = if geometry.erased.is_some() { blocks } else { 1 };
        let access = Access::Erase { len: u64::from(geometry.segment_bytes) };
        self.spend(access, u64::from(operations));
        let erased = self.storage.erase(segment);
        self.notice(access);
        erased
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        let len = bytes.len() as u64;
        let wide = self.storage.geometry().is_wide();
        // NOR flash programs in units of 32 bytes here, each an operation.
        let operations = if wide { 1 } else { len.div_ceil(32).max(1) };
        self.spend(Access::Write { len }, operations);
        let written = self.storage.write(at, bytes);
        if written.is_ok() {
            let segment = usize::try_from(at / self.segment_bytes).unwrap_or(usize::MAX);
            if let Some(sum) = self.spent.written.get_mut(segment) {
                *sum += len;
            }
        }
        self.notice(Access::Write { len });
        written
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        let operations = u64::from(self.storage.geometry().is_wide());
        self.spend(Access::Sync, operations);
        let synced = self.storage.sync();
        self.notice(Access::Sync);
        synced
    }
}
