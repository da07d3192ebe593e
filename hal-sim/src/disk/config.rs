//! The shape of a simulated disk.
//!
//! Invariant: every unit divides a segment, so no torn unit is shared by two segments.

use super::usize_of;
use lastgasp_core::hal::Geometry;
use std::time::Duration;

/// What `erase` does to the contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EraseModel {
    /// Nothing: the old bytes stay. `Geometry::erased` is `None`.
    Nothing,
    /// Every byte reads as this one, through the cache as any write. `Geometry::erased` is `Some`.
    Fill(u8),
    /// Every byte reads as anything, through the cache as any write. `Geometry::erased` is `None`.
    Scramble,
}

/// Shape of a simulated disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskConfig {
    /// Number of segments.
    pub segments: u32,
    /// Bytes in a segment.
    pub segment_bytes: u32,
    /// Unit of writes.
    pub write_unit: u32,
    /// Unit of reads.
    pub read_unit: u32,
    /// The unit a cut can destroy.
    pub torn_unit: u32,
    /// What `erase` does.
    pub erase: EraseModel,
    /// The unit in which a card moves data, for collateral damage; `None` for a disk without.
    pub allocation_unit: Option<u32>,
    /// What a fresh disk is full of.
    pub blank: u8,
    /// Seed of everything the disk itself leaves to chance before a cut.
    pub seed: u64,
}

impl DiskConfig {
    /// Sectors of 512 bytes, reads at any byte, an `erase` that does nothing, full of zeros.
    #[must_use]
    pub fn new(segments: u32, segment_bytes: u32) -> Self {
        Self {
            segments,
            segment_bytes,
            write_unit: 512,
            read_unit: 1,
            torn_unit: 512,
            erase: EraseModel::Nothing,
            allocation_unit: None,
            blank: 0,
            seed: 0,
        }
    }

    /// The geometry the engine sees.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        Geometry {
            segments: self.segments,
            segment_bytes: self.segment_bytes,
            write_unit: self.write_unit,
            read_unit: self.read_unit,
            torn_unit: self.torn_unit,
            erased: match self.erase {
                EraseModel::Fill(byte) => Some(byte),
                EraseModel::Nothing | EraseModel::Scramble => None,
            },
            erase_block_bytes: 1,
            worst_busy: Duration::from_millis(250),
            ordered: false,
        }
    }

    pub(super) fn check(&self) {
        assert!(self.segments > 0 && self.segment_bytes > 0, "a disk of no bytes");
        for (name, unit) in [("write", self.write_unit), ("read", self.read_unit), ("torn", self.torn_unit)] {
            let fits = unit > 0 && self.segment_bytes.is_multiple_of(unit);
            assert!(fits, "{name} unit {unit} does not divide a segment of {} bytes", self.segment_bytes);
        }
        assert!(self.allocation_unit != Some(0), "an allocation unit of no bytes");
    }

    pub(super) fn total(&self) -> usize {
        usize_of(self.geometry().total_bytes())
    }
}
