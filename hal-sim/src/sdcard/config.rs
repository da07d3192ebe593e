//! The shape of a simulated SD card, and what its operations take.
//!
//! Latencies are those of published measurements of cheap cards, none of them ours:
//! - writes: a microSD card of 16 GB, measured with flashbench (pctips.click, 2020): 4 KiB at random 1.20 MB/s, 16 KiB
//!   4.54 MB/s, 64 KiB 8.78 MB/s, 512 KiB 12.07 MB/s. A line through them: 3.0 ms a write and 78 us a KiB more;
//! - reads: the README of flashbench shows 0.72 to 0.81 ms for 1 KiB anywhere on a card; the card above reads 20.4 MB/s
//!   in order, which is 49 us a KiB;
//! - housekeeping: the documentation of NuttX's `sd_bench` shows a run in which single writes took up to 30 to 186 ms
//!   and syncs 240 to 261 ms;
//! - pages of 16 KiB and allocation units of 4 MiB: the same README of flashbench, and Linaro's survey of flash cards,
//!   which also counts how many units a card keeps open: 1 to 5 on the cheap ones.
//!
//! Invariants: a page divides an allocation unit, a torn unit divides a page; the card has spare units, or it could
//! not move anything.

use crate::disk::DiskConfig;

/// How a card finds the place of a logical page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// Each page on its own. Room is made by garbage collection.
    Page,
    /// Whole allocation units; so many are open for writing in order, any other write moves a unit.
    Block {
        /// Units that are open at a time.
        open: u32,
    },
}

/// What the operations of a card take, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardTimes {
    /// Each read.
    pub read_us: u64,
    /// Each KiB of it.
    pub read_kib_us: u64,
    /// Handing a write to the cache.
    pub accept_us: u64,
    /// Each sync that has something to write.
    pub write_us: u64,
    /// Each KiB that is programmed, by the host or by the card for itself.
    pub write_kib_us: u64,
    /// Each allocation unit that is erased.
    pub erase_us: u64,
    /// One of so many syncs waits for housekeeping; 0 for none.
    pub stall_one_in: u64,
    /// How long such a wait is: shortest and longest.
    pub stall_us: (u64, u64),
}

impl Default for CardTimes {
    fn default() -> Self {
        Self {
            read_us: 750,
            read_kib_us: 49,
            accept_us: 60,
            write_us: 3_000,
            write_kib_us: 78,
            erase_us: 3_000,
            stall_one_in: 150,
            stall_us: (30_000, 261_000),
        }
    }
}

/// Shape and habits of a simulated card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardConfig {
    /// What the host sees: segments of the store, sectors of 512 bytes.
    pub disk: DiskConfig,
    /// Bytes that the card moves and erases as one.
    pub unit_bytes: u32,
    /// Bytes that the card programs as one.
    pub page_bytes: u32,
    /// Allocation units beyond what the host sees.
    pub spare_units: u32,
    /// How it finds its pages.
    pub mapping: Mapping,
    /// How often a unit can be erased.
    pub endurance: u32,
    /// A card that lies says that a sync is done and keeps up to so many bytes in its cache; 0 for an honest one.
    pub lies_bytes: u32,
    /// What its operations take.
    pub times: CardTimes,
    /// Seed of what it leaves to chance.
    pub seed: u64,
}

impl CardConfig {
    /// An honest card for a store of this shape, as small as the store: a unit is a segment and a page an eighth of
    /// it. On a real geometry with segments of 4 MiB that is close to what Linaro found.
    #[must_use]
    pub fn new(segments: u32, segment_bytes: u32) -> Self {
        Self {
            disk: DiskConfig::new(segments, segment_bytes),
            unit_bytes: segment_bytes,
            page_bytes: (segment_bytes / 8).max(512),
            spare_units: (segments / 8).max(3),
            mapping: Mapping::Page,
            endurance: u32::MAX,
            lies_bytes: 0,
            times: CardTimes::default(),
            seed: 0,
        }
    }

    pub(super) fn check(&self) {
        let fits = self.page_bytes > 0 && self.unit_bytes.is_multiple_of(self.page_bytes);
        assert!(fits, "pages of {} bytes do not divide a unit of {}", self.page_bytes, self.unit_bytes);
        let torn = self.disk.torn_unit;
        assert!(self.page_bytes.is_multiple_of(torn), "torn units of {torn} bytes do not divide a page");
        assert!(self.spare_units >= 3, "a card needs three spare units to move anything");
    }
}
