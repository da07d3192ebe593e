//! The engine's memory on Linux, owned: what a store and what a scan are handed.
//!
//! Invariants: the sizes depend on the geometry and the number of streams alone, so whoever reads a store can hold
//! every frame that its writer could make; a slice never grows; buffers are taken as untouched zeros from the system,
//! so what is never used costs address space and no memory.

use lastgasp_core::catalog::Memory;
use lastgasp_core::format::header::{CLASSES_MAX, ClockAnchor};
use lastgasp_core::format::row::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX, STREAM_NAME_BYTES_MAX};
use lastgasp_core::gaps::Gap;
use lastgasp_core::hal::Geometry;
use lastgasp_core::memtable::Chain;
use lastgasp_core::pool::SegmentEntry;
use lastgasp_core::scan::ScanMemory;
use lastgasp_core::sstable::GroupMemory;
use lastgasp_core::store::{GROUP_RECORDS_MAX, GROUP_ROWS_BYTES_MAX};
use lastgasp_core::streams::StreamSlot;

/// Named streams a store on Linux takes; records of further ones go to `other`.
pub const STREAMS_DEFAULT: u16 = 256;
/// Entries of the gap ledger.
pub const GAPS: usize = 1024;
/// Clock epochs whose anchors are kept.
pub const CLOCKS: usize = 4096;
/// Largest frame, and so the frame buffer, in bytes; less where a segment is smaller.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Records of one row group, decoded, and the columns of one of its sub-blocks; or one record of the largest size.
pub const GROUP_BYTES: usize = FRAME_BYTES_MAX + BLOCK_BYTES;
const _: () = assert!(GROUP_BYTES >= GROUP_ROWS_BYTES_MAX + BLOCK_BYTES, "a row group of the log fits too");
/// Places of the records of a row group per retention class, or of the records of a frame.
const SLOTS: usize = FRAME_BYTES_MAX / ROW_BYTES_MIN;
const _: () = assert!(SLOTS >= CLASSES_MAX * 2 * GROUP_RECORDS_MAX as usize, "two numbers a record");
/// Columns of one sub-block of a row group.
const BLOCK_BYTES: usize = 1 << 20;

/// Allocations of this size go back to the system when they are freed. Of smaller ones, glibc keeps some of the pages
/// once it has seen a large one go; it counts as large what is below 32 MiB where addresses have 64 bits, and 512 KiB
/// elsewhere. What is not touched takes no memory.
const APART_BYTES: usize = if size_of::<usize>() > 4 { (32 << 20) + 4096 } else { 0 };

/// State entries of the longest key and value there is room for.
const STATE_ENTRIES: usize = 64;
/// Lengths in front of a state entry.
const STATE_ENTRY_HEAD_BYTES: usize = 3;
/// Entries in the hash table of the LZ4 encoder.
const TABLE: usize = 4096;
/// The shortest record as it is stored; see [`lastgasp_core::format::row`].
const ROW_BYTES_MIN: usize = 5;

/// All memory of a mounted store but its arenas.
#[derive(Debug)]
pub struct StoreMemory {
    entries: Vec<SegmentEntry>,
    order: Vec<u32>,
    gaps: Vec<Gap>,
    clocks: Vec<ClockAnchor>,
    streams: Vec<StreamSlot>,
    names: Vec<u8>,
    state: Vec<u8>,
    frame: Vec<u8>,
    chains: [Vec<Chain>; 2],
    raw: Vec<u8>,
    table: Vec<u32>,
    slots: Vec<u32>,
}

impl StoreMemory {
    /// For a store of this shape with [`STREAMS_DEFAULT`] streams.
    #[must_use]
    pub fn new(geometry: &Geometry) -> Self {
        Self::with_streams(geometry, STREAMS_DEFAULT)
    }

    /// For a store of this shape with so many named streams.
    ///
    /// A reader needs room for the streams its writer had; the names of others it does not know.
    #[must_use]
    pub fn with_streams(geometry: &Geometry, streams: u16) -> Self {
        // Slot 0 is `other`.
        let slots = usize::from(streams.max(1)).saturating_add(1);
        let segments = usize::try_from(geometry.segments).unwrap_or(usize::MAX);
        let state_entry_bytes = STATE_ENTRY_HEAD_BYTES + STATE_KEY_BYTES_MAX + STATE_VALUE_BYTES_MAX;
        Self {
            entries: vec![SegmentEntry::default(); segments],
            order: vec![0; segments],
            gaps: vec![Gap::default(); GAPS],
            clocks: vec![ClockAnchor::default(); CLOCKS],
            streams: vec![StreamSlot::default(); slots],
            names: vec![0; slots.saturating_mul(STREAM_NAME_BYTES_MAX + 1).max(64 << 10)],
            state: vec![0; STATE_ENTRIES * state_entry_bytes],
            frame: vec![0; frame_bytes(geometry)],
            chains: [vec![Chain::default(); slots], vec![Chain::default(); slots]],
            raw: vec![0; GROUP_BYTES],
            table: vec![0; TABLE],
            slots: vec![0; SLOTS],
        }
    }

    /// The slices, to hand to [`lastgasp_core::store::format`], to a store or to a reader.
    pub fn parts(&mut self) -> Memory<'_> {
        let [first, second] = &mut self.chains;
        Memory {
            entries: &mut self.entries,
            order: &mut self.order,
            gaps: &mut self.gaps,
            clocks: &mut self.clocks,
            streams: &mut self.streams,
            names: &mut self.names,
            state: &mut self.state,
            frame: &mut self.frame,
            chains: [first, second],
            group: Some(GroupMemory { raw: &mut self.raw, table: &mut self.table, slots: &mut self.slots }),
        }
    }
}

/// Memory of a copy of a catalog, see [`lastgasp_core::snapshot`].
#[derive(Debug)]
pub struct SnapshotMemory {
    entries: Vec<SegmentEntry>,
    order: Vec<u32>,
    gaps: Vec<Gap>,
    clocks: Vec<ClockAnchor>,
    streams: Vec<StreamSlot>,
    names: Vec<u8>,
}

impl SnapshotMemory {
    /// For copies of the catalog of a store of this shape, whose [`StoreMemory`] has room for so many named streams.
    #[must_use]
    pub fn new(geometry: &Geometry, streams: u16) -> Self {
        let StoreMemory { entries, order, gaps, clocks, streams, names, .. } =
            StoreMemory::with_streams(geometry, streams);
        Self { entries, order, gaps, clocks, streams, names }
    }

    /// The slices, to take a copy into, or to look at one.
    pub fn parts(&mut self) -> Memory<'_> {
        Memory {
            entries: &mut self.entries,
            order: &mut self.order,
            gaps: &mut self.gaps,
            clocks: &mut self.clocks,
            streams: &mut self.streams,
            names: &mut self.names,
            state: &mut [],
            frame: &mut [],
            chains: [&mut [], &mut []],
            group: None,
        }
    }
}

/// Memory of a scan.
#[derive(Debug)]
pub struct ScanBuffers {
    frame: Vec<u8>,
    raw: Vec<u8>,
    slots: Vec<u32>,
    /// What is handed out of each.
    lens: (usize, usize, usize),
}

impl ScanBuffers {
    /// For scanning a store of this shape, whoever wrote it with a [`StoreMemory`].
    #[must_use]
    pub fn new(geometry: &Geometry) -> Self {
        let lens = (frame_bytes(geometry), CLASSES_MAX * GROUP_BYTES, SLOTS);
        Self {
            frame: vec![0; lens.0.max(APART_BYTES)],
            raw: vec![0; lens.1.max(APART_BYTES)],
            slots: vec![0; lens.2.max(APART_BYTES / size_of::<u32>())],
            lens,
        }
    }

    /// The slices, to hand to a scan.
    pub fn parts(&mut self) -> ScanMemory<'_> {
        let (frame, raw, slots) = self.lens;
        ScanMemory {
            frame: self.frame.get_mut(..frame).unwrap_or_default(),
            raw: self.raw.get_mut(..raw).unwrap_or_default(),
            slots: self.slots.get_mut(..slots).unwrap_or_default(),
        }
    }
}

/// The largest frame of a store of this shape, in bytes; at least what mounting needs.
fn frame_bytes(geometry: &Geometry) -> usize {
    let segment_bytes = usize::try_from(geometry.segment_bytes).unwrap_or(usize::MAX);
    let torn_unit = usize::try_from(geometry.torn_unit).unwrap_or(FRAME_BYTES_MAX);
    segment_bytes.min(FRAME_BYTES_MAX).max(torn_unit).max(256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose_geometry;

    #[test]
    fn the_memory_fits_every_store_from_the_smallest_to_the_largest() {
        for size in [512 << 10, 64 << 20, 1 << 30, 4096 << 30] {
            let geometry = choose_geometry(size).unwrap();
            let mut memory = StoreMemory::with_streams(&geometry, 1);
            memory.parts().check(&geometry).unwrap();
            let mut scan = ScanBuffers::new(&geometry);
            assert_eq!(scan.parts().frame.len(), memory.parts().frame.len(), "a scan holds what a writer makes");
        }
    }

    #[test]
    fn a_frame_is_a_segment_up_to_4_mib() {
        let table = [(512 << 10, 16 << 10), (64 << 20, 2 << 20), (1 << 30, 4 << 20), (1024 << 30, 4 << 20)];
        for (size, frame) in table {
            assert_eq!(frame_bytes(&choose_geometry(size).unwrap()), frame, "size {size}");
        }
    }

    #[test]
    fn every_stream_has_room_for_the_longest_name() {
        let geometry = choose_geometry(1 << 20).unwrap();
        let mut memory = StoreMemory::with_streams(&geometry, 300);
        let parts = memory.parts();
        let mut table = lastgasp_core::streams::StreamTable::new(parts.streams, parts.names);
        for i in 0..300 {
            assert_eq!(table.intern(&format!("{i:0>255}")), Some(i + 1));
        }
        assert_eq!(table.intern("one more"), None);
    }
}
