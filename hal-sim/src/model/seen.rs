//! What a mount shows, as the model compares it, and what was damaged on purpose.
//!
//! Invariant: nothing of it is the engine's own; it is what a user of the engine sees.

use super::undo::Undo;
use lastgasp_core::format::events::PreviousEnd;
use lastgasp_core::format::header::FLOORS;
use lastgasp_core::gaps::GapCause;
use std::collections::BTreeMap;

/// What one entry of a scan showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record.
    Record(SeenRecord),
    /// A gap.
    Gap {
        /// First number.
        first: u64,
        /// Last number.
        last: u64,
        /// Cause.
        cause: GapCause,
    },
    /// A boot with its epoch.
    Boot(u32),
    /// A clean stop.
    Close,
}

/// A record as it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenRecord {
    /// Its number.
    pub seq: u64,
    /// Its tag, if everything in it is as that tag says.
    pub tag: Option<u64>,
    /// Length of its body.
    pub len: u32,
    /// Its stream, if its name is one of the model's.
    pub stream: Option<u8>,
}

/// What a mount showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// A full forward scan.
    pub items: Vec<Item>,
    /// State entries; `None` stands for one that no batch could have set.
    pub state: Option<BTreeMap<u8, u64>>,
    /// Below it everything is gone.
    pub floor: u64,
    /// The floors of the classes, and that of the log.
    pub floors: [u64; FLOORS],
    /// Everything up to here counts as durable.
    pub durable_upto: u64,
    /// The number the next record gets.
    pub next_seq: u64,
    /// The epoch of the next boot that writes.
    pub epoch: u32,
    /// How the boot before ended.
    pub previous_end: PreviousEnd,
}

/// What was damaged on purpose, so that its loss is no violation.
#[derive(Debug, Clone, Default)]
pub struct Damage {
    /// Batches that may be missing, if they are reported as rot.
    pub may_lose: Vec<u32>,
    /// Something of the log was hit: holes may be called rot.
    pub log_hit: bool,
    /// The ledger may be lost: a rebuild is no violation.
    pub ledger_hit: bool,
    /// Acknowledgements that the damage made unprovable: their records may be taken for a tear.
    pub may_undo: Option<Undo>,
    /// A card did it at a cut, anywhere: records may have lost the name of their stream, and with the ledger what only
    /// it knew may be gone.
    pub by_card: bool,
    /// No header is left: the store may be refused.
    pub may_refuse: bool,
}
