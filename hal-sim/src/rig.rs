//! The memory of a small store, owned, for simulations and tests.
//!
//! Invariant: its sizes are those of a microcontroller or of a tiny host, so that every bound of the engine is near.

use lastgasp_core::catalog::Memory;
use lastgasp_core::format::header::{CLASSES_MAX, ClockAnchor};
use lastgasp_core::gaps::Gap;
use lastgasp_core::memtable::Chain;
use lastgasp_core::pool::SegmentEntry;
use lastgasp_core::scan::ScanMemory;
use lastgasp_core::sstable::GroupMemory;
use lastgasp_core::streams::StreamSlot;

/// Places for the records of a frame, or of a row group per retention class.
const SLOTS: usize = 4096;

/// Sizes of a [`Rig`].
#[derive(Debug, Clone, Copy)]
pub struct RigSize {
    /// Segments of the store.
    pub segments: u32,
    /// Bytes of one frame buffer.
    pub frame_bytes: usize,
    /// Bytes of each arena.
    pub arena_bytes: usize,
    /// Streams, without `other`.
    pub streams: usize,
    /// Entries of the gap ledger.
    pub gaps: usize,
    /// Bytes for row groups; 0 for none.
    pub group_bytes: usize,
}

impl RigSize {
    /// For a store of `segments` segments of `segment_bytes`.
    #[must_use]
    pub fn new(segments: u32, segment_bytes: u32) -> Self {
        let segment_bytes = segment_bytes as usize;
        let (frame_bytes, arena_bytes) = (segment_bytes, 2 * segment_bytes);
        Self { segments, frame_bytes, arena_bytes, streams: 8, gaps: 16, group_bytes: 0 }
    }
}

/// Owned memory of a store and of a scan.
#[derive(Debug)]
pub struct Rig {
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
    /// The two arenas.
    pub arenas: [Vec<u8>; 2],
}

impl Rig {
    /// Memory of these sizes.
    #[must_use]
    pub fn new(size: &RigSize) -> Self {
        let slots = size.streams + 1;
        let chains = || vec![Chain::default(); if size.group_bytes > 0 { slots } else { 0 }];
        Self {
            entries: vec![SegmentEntry::default(); size.segments as usize],
            order: vec![0; size.segments as usize],
            gaps: vec![Gap::default(); size.gaps],
            clocks: vec![ClockAnchor::default(); 16],
            streams: vec![StreamSlot::default(); slots],
            names: vec![0; slots * 16],
            state: vec![0; 256],
            frame: vec![0; size.frame_bytes],
            chains: [chains(), chains()],
            raw: vec![0; size.group_bytes],
            table: vec![0; if size.group_bytes > 0 { 256 } else { 0 }],
            slots: vec![0; if size.group_bytes > 0 { SLOTS } else { 0 }],
            arenas: [vec![0; size.arena_bytes], vec![0; size.arena_bytes]],
        }
    }

    /// Fills the memory with garbage, as RAM has it after a cut: a mount may not rely on anything in it.
    pub fn poison(&mut self) {
        let [a, b] = &mut self.arenas;
        for bytes in [&mut self.frame, &mut self.names, &mut self.state, &mut self.raw, a, b] {
            bytes.fill(0xa5);
        }
        self.order.fill(u32::MAX);
        self.gaps.fill(Gap::new(1, 1 << 40, true, lastgasp_core::gaps::GapCause::Overload));
    }

    /// The memory, to hand to a store, and its arenas.
    pub fn parts(&mut self) -> (Memory<'_>, [&mut [u8]; 2]) {
        let [first, second] = &mut self.chains;
        let [a, b] = &mut self.arenas;
        let group = (!self.raw.is_empty()).then_some(GroupMemory {
            raw: &mut self.raw,
            table: &mut self.table,
            slots: &mut self.slots,
        });
        let memory = Memory {
            entries: &mut self.entries,
            order: &mut self.order,
            gaps: &mut self.gaps,
            clocks: &mut self.clocks,
            streams: &mut self.streams,
            names: &mut self.names,
            state: &mut self.state,
            frame: &mut self.frame,
            chains: [first, second],
            group,
        };
        (memory, [a, b])
    }
}

/// Owned memory of a scan.
#[derive(Debug)]
pub struct ScanRig {
    frame: Vec<u8>,
    raw: Vec<u8>,
    slots: Vec<u32>,
}

impl ScanRig {
    /// Memory for scanning a store of these sizes.
    #[must_use]
    pub fn new(size: &RigSize) -> Self {
        let raw = vec![0; size.group_bytes * CLASSES_MAX];
        Self { frame: vec![0; size.frame_bytes], raw, slots: vec![0; SLOTS] }
    }

    /// The memory, to hand to a scan.
    pub fn parts(&mut self) -> ScanMemory<'_> {
        ScanMemory { frame: &mut self.frame, raw: &mut self.raw, slots: &mut self.slots }
    }
}
