//! Workloads: what a node does with its store between two boots, as lists of steps.
//!
//! Invariants: a workload is a value, and the one of a seed is the same for ever; every path of the engine that writes
//! is crossed by at least one workload written by hand.

pub use super::by_hand::{append, boot, by_hand};
pub use super::by_seed::{by_seed, tables_by_seed};

use super::medium::Fate;
use crate::disk::faults::FailSync;
use crate::model::Keep;
use crate::nor::Wear;
use crate::rig::RigSize;

/// Sizes of a store and of the memory it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Segments in the pool.
    pub segments: u32,
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// Bytes of the frame buffer: no frame is larger.
    pub frame_bytes: usize,
    /// Bytes of each memtable.
    pub arena_bytes: usize,
    /// A second memtable, so that appends go on during a commit.
    pub spare: bool,
    /// Bytes for row groups; 0 for rows only.
    pub group_bytes: usize,
    /// Which retention classes there are.
    pub keep: Keep,
}

/// The shapes that the workloads of one medium come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shapes {
    /// Small, one frame a commit.
    pub plain: Shape,
    /// Batches span frames and segments.
    pub chains: Shape,
    /// Large commits become row groups, if the medium has them.
    pub groups: Option<[Shape; 2]>,
    /// Old log becomes tables, if the medium has them: of one class, of three, and with batches that span segments.
    pub tables: Option<[Shape; 3]>,
}

impl Shapes {
    /// Those of a disk.
    #[must_use]
    pub fn disk() -> Self {
        let (plain, chains) = (Shape::disk(), Shape::disk_chains());
        let groups = [Shape { group_bytes: 16_384, ..plain }, Shape { group_bytes: 16_384, ..chains }];
        let tables = Shape { segments: 12, ..groups[0] };
        let three = Shape { segments: 16, keep: Keep::Three, ..tables };
        Self { plain, chains, groups: Some(groups), tables: Some([tables, three, groups[1]]) }
    }

    /// Those of NOR flash.
    #[must_use]
    pub fn nor() -> Self {
        Self { plain: Shape::nor(), chains: Shape::nor_chains(), groups: None, tables: None }
    }
}

impl Shape {
    /// The smallest disk: 8 segments of six frames.
    #[must_use]
    pub fn disk() -> Self {
        Self {
            segments: 8,
            segment_bytes: 4096,
            frame_bytes: 4096,
            arena_bytes: 8192,
            spare: true,
            group_bytes: 0,
            keep: Keep::One,
        }
    }

    /// A disk where batches span frames and segments.
    #[must_use]
    pub fn disk_chains() -> Self {
        Self {
            segments: 16,
            segment_bytes: 4096,
            frame_bytes: 1024,
            arena_bytes: 8192,
            spare: true,
            group_bytes: 0,
            keep: Keep::One,
        }
    }

    /// The smallest flash: 8 segments of two erase blocks.
    #[must_use]
    pub fn nor() -> Self {
        Self {
            segments: 8,
            segment_bytes: 2048,
            frame_bytes: 2048,
            arena_bytes: 2048,
            spare: false,
            group_bytes: 0,
            keep: Keep::One,
        }
    }

    /// A flash where batches span frames and segments.
    #[must_use]
    pub fn nor_chains() -> Self {
        Self {
            segments: 16,
            segment_bytes: 2048,
            frame_bytes: 768,
            arena_bytes: 4096,
            spare: false,
            group_bytes: 0,
            keep: Keep::One,
        }
    }

    /// The memory that goes with it.
    #[must_use]
    pub fn rig_size(&self) -> RigSize {
        let size = RigSize::new(self.segments, self.segment_bytes);
        let (frame_bytes, arena_bytes, group_bytes) = (self.frame_bytes, self.arena_bytes, self.group_bytes);
        RigSize { frame_bytes, arena_bytes, group_bytes, ..size }
    }
}

/// One step of a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A batch: stream and body length of each record, and keys of state entries that it sets.
    Append {
        /// Records.
        rows: Vec<(u8, u32)>,
        /// State entries.
        states: Vec<u8>,
    },
    /// So many records of a stream were lost before they got here.
    Lose(u8, u32),
    /// From the next commit on so many records may be acknowledged in RAM.
    Bound(u32),
    /// A commit as a microcontroller does it.
    Commit,
    /// The first part of a split commit.
    Begin,
    /// Its sync, by the storage itself.
    Sync,
    /// Its last part.
    End,
    /// At most so many steps of rewriting, as an idle node does them.
    Rewrite(u32),
    /// Syncs fail from here on.
    FailSyncs(FailSync),
    /// After this many writes, so many fail.
    FailWrites(u64, u64),
    /// A segment wears out.
    WearOut(u32, Wear),
}

/// How a boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// By `close`.
    Close,
    /// Without.
    Crash(Fate),
}

/// Damage done on purpose before a boot, beyond what a cut can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruin {
    /// None.
    Nothing,
    /// Both slots of the manifest.
    Manifest,
    /// The last edit in both slots.
    LastEdits,
    /// The header of the newest segment of the log.
    LastHeader,
    /// The header of the newest segment of the log, and the last edit in both slots.
    LastHeaderAndEdits,
}

/// One boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// How many records may be acknowledged in RAM.
    pub bound: u32,
    /// What is damaged before.
    pub ruin: Ruin,
    /// What it does.
    pub steps: Vec<Step>,
    /// How it ends.
    pub stop: Stop,
}

/// A named list of boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its name, the second part of a trace id.
    pub name: String,
    /// What it crosses.
    pub about: &'static str,
    /// Sizes.
    pub shape: Shape,
    /// What it does.
    pub boots: Vec<Boot>,
}
