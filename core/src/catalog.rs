//! Everything the engine knows of a store while it is mounted, but for the records themselves.
//!
//! Invariants: it is what the manifest says, plus what recovery or the writer found since, each such difference marked
//! so that the next edit carries it; floors only rise.

use crate::error::MemoryError;
use crate::format::edit::{EditHead, Op, SegmentUse};
use crate::format::frame::Layout;
use crate::format::header::{
    CLASSES_MAX, ClockAnchor, FLOORS, LOG_FLOOR, SEGMENTS_MAX, SEGMENTS_MIN, SegmentHeader, SegmentKind,
};
use crate::gaps::{Gap, GapLedger};
use crate::hal::Geometry;
use crate::memtable::Chain;
use crate::pool::{Pool, SegmentEntry};
use crate::streams::{StateTable, StreamSlot, StreamTable};

/// All memory of a mounted store but its arenas; the caller owns it. See [`Memory::check`] for the sizes.
#[derive(Debug)]
pub struct Memory<'m> {
    /// One entry per segment.
    pub entries: &'m mut [SegmentEntry],
    /// One number per segment.
    pub order: &'m mut [u32],
    /// Gap ledger: 1024 on Linux, 16 on a microcontroller.
    pub gaps: &'m mut [Gap],
    /// Anchors of clock epochs, newest kept.
    pub clocks: &'m mut [ClockAnchor],
    /// One slot per stream, and one for `other`.
    pub streams: &'m mut [StreamSlot],
    /// Bytes of stream names.
    pub names: &'m mut [u8],
    /// Bytes of state entries.
    pub state: &'m mut [u8],
    /// One frame, to build or to read.
    pub frame: &'m mut [u8],
    /// Chains of the two memtables; as long as `streams`, or empty for no row groups.
    pub chains: [&'m mut [Chain]; 2],
    /// For encoding and decoding row groups; `None` for rows only.
    pub group: Option<crate::sstable::GroupMemory<'m>>,
}

impl Memory<'_> {
    /// Checks the sizes against a medium.
    ///
    /// # Errors
    /// Which slice is too short, and what it would need.
    pub fn check(&self, g: &Geometry) -> Result<(), MemoryError> {
        let segments = usize::try_from(g.segments).unwrap_or(usize::MAX);
        let least = |name, have: usize, need: usize| match have >= need {
            true => Ok(()),
            false => Err(MemoryError { name, have, need }),
        };
        least("entries", self.entries.len(), segments)?;
        least("order", self.order.len(), segments)?;
        least("gaps", self.gaps.len(), 2)?;
        least("clocks", self.clocks.len(), 1)?;
        least("streams", self.streams.len(), 2)?;
        let frame_min = g.torn_unit.max(256);
        least("frame", self.frame.len(), usize::try_from(frame_min).unwrap_or(usize::MAX))
    }
}

/// The bounded table of clock epochs: the newest are kept.
#[derive(Debug)]
pub struct ClockTable<'m> {
    slots: &'m mut [ClockAnchor],
    len: usize,
}

impl<'m> ClockTable<'m> {
    fn new(slots: &'m mut [ClockAnchor]) -> Self {
        Self { slots, len: 0 }
    }

    pub(crate) fn of_copy(slots: &'m mut [ClockAnchor], len: usize) -> Self {
        let len = len.min(slots.len());
        Self { slots, len }
    }

    /// The anchors, by clock epoch.
    #[must_use]
    pub fn as_slice(&self) -> &[ClockAnchor] {
        self.slots.get(..self.len).unwrap_or_default()
    }

    /// The anchor of a clock epoch, if it is still kept.
    #[must_use]
    pub fn get(&self, clock_epoch: u32) -> Option<ClockAnchor> {
        let at = self.as_slice().binary_search_by_key(&clock_epoch, |a| a.clock_epoch).ok()?;
        self.as_slice().get(at).copied()
    }

    /// The newest anchor.
    #[must_use]
    pub fn newest(&self) -> Option<ClockAnchor> {
        self.as_slice().last().copied()
    }

    /// Sets the anchor of its epoch; the oldest makes room.
    pub(crate) fn set(&mut self, anchor: ClockAnchor) {
        match self.as_slice().binary_search_by_key(&anchor.clock_epoch, |a| a.clock_epoch) {
            Ok(at) => {
                if let Some(slot) = self.slots.get_mut(at) {
                    *slot = anchor;
                }
            }
            Err(mut at) => {
                if self.len == self.slots.len() {
                    if at == 0 {
                        return;
                    }
                    self.slots.copy_within(1..self.len, 0);
                    self.len = self.len.saturating_sub(1);
                    at = at.saturating_sub(1);
                }
                self.slots.copy_within(at..self.len, at.saturating_add(1));
                if let Some(slot) = self.slots.get_mut(at) {
                    *slot = anchor;
                    self.len = self.len.saturating_add(1);
                }
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Catalog<'m> {
    /// Shape of the medium.
    pub(crate) geometry: Geometry,
    /// How frames lie on it.
    pub(crate) layout: Layout,
    /// The store's id.
    pub(crate) store_id: u64,
    /// The segments.
    pub(crate) pool: Pool<'m>,
    /// What is known to be lost.
    pub(crate) gaps: GapLedger<'m>,
    /// Stream names.
    pub(crate) streams: StreamTable<'m>,
    /// State entries.
    pub(crate) state: StateTable<'m>,
    /// Clock epochs.
    pub(crate) clocks: ClockTable<'m>,
    /// Below its class's floor a record is gone; below the last one it is in no log segment any more.
    pub(crate) floor: [u64; FLOORS],
    /// The floors as the last published edit has them: what the header of a roll may prove.
    pub(crate) published_floor: [u64; FLOORS],
    /// Of the last edit.
    pub(crate) head: EditHead,
    /// Everything up to here is durable.
    pub(crate) durable_upto: u64,
    /// The manifest does not know all gaps, clocks and state entries.
    pub(crate) tables_dirty: bool,
}

/// What remains of [`Memory`] for the writer.
#[derive(Debug)]
pub(crate) struct WriterMemory<'m> {
    pub(crate) frame: &'m mut [u8],
    pub(crate) chains: [&'m mut [Chain]; 2],
    pub(crate) group: Option<crate::sstable::GroupMemory<'m>>,
}

impl<'m> Catalog<'m> {
    /// An empty catalog over the caller's memory, and what the writer gets of it.
    pub(crate) fn new(geometry: Geometry, m: Memory<'m>) -> (Self, WriterMemory<'m>) {
        let n = usize::try_from(geometry.segments).unwrap_or(usize::MAX);
        let (entries, order) = (m.entries, m.order);
        let (n_e, n_o) = (n.min(entries.len()), n.min(order.len()));
        let pool = Pool::new(entries.split_at_mut(n_e).0, order.split_at_mut(n_o).0);
        let catalog = Self {
            geometry,
            layout: Layout::of(&geometry),
            store_id: 0,
            pool,
            gaps: GapLedger::new(m.gaps),
            streams: StreamTable::new(m.streams, m.names),
            state: StateTable::new(m.state),
            clocks: ClockTable::new(m.clocks),
            floor: [1; FLOORS],
            published_floor: [1; FLOORS],
            head: EditHead::default(),
            durable_upto: 0,
            tables_dirty: false,
        };
        (catalog, WriterMemory { frame: m.frame, chains: m.chains, group: m.group })
    }

    /// Forgets everything but the geometry and the store's id.
    pub(crate) fn clear(&mut self) {
        self.pool.clear();
        self.gaps.clear();
        self.streams.clear();
        self.state.clear();
        self.clocks.len = 0;
        self.floor = [1; FLOORS];
        self.published_floor = [1; FLOORS];
        self.head = EditHead::default();
        self.durable_upto = 0;
        self.tables_dirty = false;
    }

    /// The lowest floor: everything below is gone.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.class_floors().iter().copied().min().unwrap_or(1)
    }

    /// Below its class's floor a record is gone.
    #[must_use]
    pub fn class_floors(&self) -> [u64; CLASSES_MAX] {
        let [a, b, c, d, _] = self.floor;
        [a, b, c, d]
    }

    /// Below this number nothing is in the log any more: it is in the tables, or gone.
    #[must_use]
    pub fn log_floor(&self) -> u64 {
        self.floor.get(LOG_FLOOR).copied().unwrap_or(1)
    }

    /// Everything up to here is adopted or reported as a gap: holes that a mount declared are gaps beyond what is
    /// durable.
    pub(crate) fn verdict_last(&self) -> u64 {
        self.gaps.as_slice().iter().map(|g| g.last_seq).max().unwrap_or(0)
    }

    /// Gaps that are known.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        self.gaps.as_slice()
    }

    /// The segments.
    #[must_use]
    pub fn pool(&self) -> &Pool<'m> {
        &self.pool
    }

    /// Stream names.
    #[must_use]
    pub fn streams(&self) -> &StreamTable<'m> {
        &self.streams
    }

    /// State entries, durable with the batches that set them.
    #[must_use]
    pub fn state(&self) -> &StateTable<'m> {
        &self.state
    }

    /// Clock epochs.
    #[must_use]
    pub fn clocks(&self) -> &ClockTable<'m> {
        &self.clocks
    }

    /// The store's id.
    #[must_use]
    pub fn store_id(&self) -> u64 {
        self.store_id
    }

    /// Shape of the medium.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Everything up to here is durable.
    #[must_use]
    pub fn durable_upto(&self) -> u64 {
        self.durable_upto
    }

    /// Number of the last manifest edit.
    #[must_use]
    pub fn edit_no(&self) -> u64 {
        self.head.edit_no
    }

    /// How many segments are kept announced.
    pub(crate) fn announced_wanted(&self) -> usize {
        usize::try_from((self.geometry.segments / 8).clamp(2, 8)).unwrap_or(2)
    }

    /// How many floors are written on this medium; where it is one, all are alike.
    pub(crate) fn floors(&self) -> u8 {
        if self.layout.wide { 5 } else { 1 }
    }

    /// Raises all floors and trims what lies below.
    pub(crate) fn raise_floor(&mut self, floor: u64) {
        for f in &mut self.floor {
            *f = (*f).max(floor);
        }
        self.gaps.raise_floor(floor);
    }

    /// Applies one operation of an edit. Numbers that make no sense are ignored: the bytes verified, so a writer meant
    /// them, but nothing here may depend on that.
    pub(crate) fn apply(&mut self, op: &Op<'_>) {
        match *op {
            Op::End | Op::BodySum(_) => {}
            Op::Segment { segment, state } => {
                if segment < self.pool.segments() && self.pool.get(segment).state.used_for != SegmentUse::Manifest {
                    self.pool.set(segment, state);
                }
            }
            Op::Floor { class, seq } => {
                for (i, f) in (0u8..).zip(&mut self.floor) {
                    if i == class || !self.layout.wide {
                        *f = (*f).max(seq);
                    }
                }
                let floor = self.floor();
                self.gaps.raise_floor(floor);
            }
            Op::Gap(gap) => self.gaps.add(gap),
            Op::Stream { id, name } => {
                if self.streams.define(id, name).is_some() {
                    self.streams.set_published(id.saturating_add(1));
                }
            }
            Op::State { key, value } => {
                self.state.set(key, value);
            }
            Op::Clock(anchor) => self.clocks.set(anchor),
        }
    }

    /// The operations of the next edit (`full` = false), or of a whole body.
    pub(crate) fn ops(&self, full: bool) -> impl Iterator<Item = Op<'_>> {
        let tables = full || self.tables_dirty;
        let floors = (0u8..).zip(self.floor).take(usize::from(self.floors()));
        let floors = floors.map(|(class, seq)| Op::Floor { class, seq });
        let segments = self.pool.iter().filter(move |(_, e)| {
            e.state.used_for != SegmentUse::Manifest && (e.dirty || (full && *e != &SegmentEntry::default()))
        });
        let segments = segments.map(|(segment, e)| Op::Segment { segment, state: e.state });
        let streams = self.streams.iter().filter(move |(id, _)| full || self.streams.unpublished(*id) == Some(*id));
        let streams = streams.map(|(id, name)| Op::Stream { id, name });
        let gaps = self.gaps.as_slice().iter().filter(move |_| tables).map(|gap| Op::Gap(*gap));
        let state = self.state.iter().filter(move |_| tables).map(|(key, value)| Op::State { key, value });
        let clocks = self.clocks.as_slice().iter().filter(move |_| tables).map(|anchor| Op::Clock(*anchor));
        floors.chain(segments).chain(streams).chain(gaps).chain(state).chain(clocks)
    }

    /// The manifest knows everything.
    pub(crate) fn all_published(&mut self) {
        self.pool.all_published();
        self.streams.set_published(u16::MAX);
        self.published_floor = self.floor;
        self.tables_dirty = false;
    }

    /// The header of a segment's next life.
    pub(crate) fn header(&self, kind: SegmentKind, segment: u32, generation: u64) -> SegmentHeader {
        SegmentHeader {
            kind,
            store_id: self.store_id,
            segment,
            segments: self.geometry.segments,
            segment_bytes: self.geometry.segment_bytes,
            torn_unit: self.geometry.torn_unit,
            write_unit: self.geometry.write_unit,
            generation,
            epoch: self.head.epoch,
            erase_count: self.pool.get(segment).state.erase_count,
            first_seq: 0,
            void_from: 0,
            edit_no: self.head.edit_no,
            durable_upto: self.durable_upto,
            anchor: self.clocks.newest().unwrap_or_default(),
            volatile_bound: 0,
            floor_seq: self.floor,
            floors: self.floors(),
            codec: u8::from(self.layout.wide),
            reserve_bytes: self.layout.reserve_bytes,
            later_bytes: 0,
        }
    }

    /// Longest value of a state entry: it must fit into a frame beside other things.
    pub(crate) fn state_room(&self) -> usize {
        let room = usize::try_from(self.data_room()).unwrap_or(0) / 4;
        room.min(crate::format::row::STATE_VALUE_BYTES_MAX)
    }

    /// Offset of the first frame in a segment that this version writes.
    pub(crate) fn data_start(&self) -> u32 {
        let end = self.header(SegmentKind::Log, 0, 0).encoded_bytes();
        end.checked_next_multiple_of(self.layout.frame_unit).unwrap_or(u32::MAX)
    }

    /// Room for frames in an empty segment.
    pub(crate) fn data_room(&self) -> u32 {
        self.layout.data_end().saturating_sub(self.data_start())
    }
}

/// `true` if a store can be made on this medium.
pub(crate) fn is_usable(g: &Geometry) -> bool {
    (SEGMENTS_MIN..=SEGMENTS_MAX).contains(&g.segments)
        && g.segment_bytes >= crate::format::header::SEGMENT_BYTES_MIN
        && (1..=65_536).contains(&g.torn_unit)
        && (1..=4096).contains(&g.write_unit)
        && g.read_unit >= 1
        && g.torn_unit.is_multiple_of(g.write_unit)
        && g.segment_bytes.is_multiple_of(g.torn_unit)
        && g.segment_bytes.is_multiple_of(g.write_unit.max(4))
        && Layout::of(g).frame_unit.is_multiple_of(g.read_unit)
        && Layout::of(g).data_end() >= 512
        && (Layout::of(g).wide || g.erased == Some(0xFF))
}
