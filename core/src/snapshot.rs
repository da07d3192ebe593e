//! A copy of what a writer knows of its store, for readers in other threads.
//!
//! Invariants: taking one costs the writer a copy of bytes and nothing else, and holds nothing back; a copy is right
//! about what was durable when it was taken. Readers that are overtaken since find frames that do not verify: before
//! they call such a range rotten, they take a newer copy (see [`crate::readout::Step::Refresh`]).

use crate::catalog::{Catalog, ClockTable, Memory};
use crate::error::MemoryError;
use crate::format::edit::EditHead;
use crate::format::frame::Layout;
use crate::format::header::FLOORS;
use crate::gaps::GapLedger;
use crate::hal::Geometry;
use crate::pool::Pool;
use crate::streams::{StateTable, StreamTable};

/// What a copy is, beside the bytes in its memory.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    geometry: Geometry,
    layout: Layout,
    store_id: u64,
    order_len: usize,
    gaps_len: usize,
    clocks_len: usize,
    streams: (u32, u16),
    floor: [u64; FLOORS],
    published_floor: [u64; FLOORS],
    head: EditHead,
    durable_upto: u64,
}

impl Snapshot {
    /// Copies a catalog into `memory`, which is to hold as many segments, gaps, clocks, streams and names as that has
    /// in use. State entries are not copied; frame, chains and groups are not used and may be empty.
    ///
    /// # Errors
    /// Which slice is too short; then the memory holds no copy.
    pub fn take(catalog: &Catalog<'_>, memory: &mut Memory<'_>) -> Result<Self, MemoryError> {
        let (order_len, entries) = catalog.pool.copy_to(memory.entries, memory.order);
        if !entries {
            let (have, need) = (memory.entries.len().min(memory.order.len()), catalog.pool.iter().count());
            return Err(MemoryError { name: "entries", have, need });
        }
        let gaps_len = copy("gaps", catalog.gaps.as_slice(), memory.gaps)?;
        let clocks_len = copy("clocks", catalog.clocks.as_slice(), memory.clocks)?;
        let streams = catalog.streams.copy_to(memory.streams, memory.names)?;
        Ok(Self {
            geometry: catalog.geometry,
            layout: catalog.layout,
            store_id: catalog.store_id,
            order_len,
            gaps_len,
            clocks_len,
            streams,
            floor: catalog.floor,
            published_floor: catalog.published_floor,
            head: catalog.head,
            durable_upto: catalog.durable_upto,
        })
    }

    /// The copy, over the memory that it was taken into.
    #[must_use]
    pub fn catalog<'m>(&self, memory: Memory<'m>) -> Catalog<'m> {
        Catalog {
            geometry: self.geometry,
            layout: self.layout,
            store_id: self.store_id,
            pool: Pool::of_copy(memory.entries, memory.order, self.geometry.segments, self.order_len),
            gaps: GapLedger::of_copy(memory.gaps, self.gaps_len),
            streams: StreamTable::of_copy(memory.streams, memory.names, self.streams),
            state: StateTable::new(memory.state),
            clocks: ClockTable::of_copy(memory.clocks, self.clocks_len),
            floor: self.floor,
            published_floor: self.published_floor,
            head: self.head,
            durable_upto: self.durable_upto,
            tables_dirty: false,
        }
    }

    /// Everything up to here was durable.
    #[must_use]
    pub fn durable_upto(&self) -> u64 {
        self.durable_upto
    }
}

/// Copies into the front of `to`.
pub(crate) fn copy<T: Copy>(name: &'static str, from: &[T], to: &mut [T]) -> Result<usize, MemoryError> {
    let (have, need) = (to.len(), from.len());
    to.get_mut(..need).ok_or(MemoryError { name, have, need })?.copy_from_slice(from);
    Ok(need)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Memory;
    use crate::format::edit::{Op, SegmentState, SegmentUse};
    use crate::format::header::ClockAnchor;
    use crate::gaps::{Gap, GapCause};
    use crate::pool::SegmentEntry;
    use crate::streams::StreamSlot;
    use core::time::Duration;

    struct Room {
        entries: [SegmentEntry; 8],
        order: [u32; 8],
        gaps: [Gap; 4],
        clocks: [ClockAnchor; 4],
        streams: [StreamSlot; 4],
        names: [u8; 16],
    }

    impl Room {
        fn new() -> Self {
            Self {
                entries: [SegmentEntry::default(); 8],
                order: [9; 8],
                gaps: [Gap::default(); 4],
                clocks: [ClockAnchor::default(); 4],
                streams: [StreamSlot::default(); 4],
                names: [7; 16],
            }
        }

        fn parts(&mut self) -> Memory<'_> {
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

    fn geometry() -> Geometry {
        Geometry {
            segments: 8,
            segment_bytes: 4096,
            write_unit: 512,
            read_unit: 1,
            torn_unit: 512,
            erased: None,
            erase_block_bytes: 1,
            worst_busy: Duration::ZERO,
            ordered: false,
        }
    }

    #[test]
    fn a_copy_tells_what_its_catalog_told_and_stays_as_it_was() {
        let (mut room, mut copied) = (Room::new(), Room::new());
        let (mut catalog, _) = Catalog::new(geometry(), room.parts());
        let state = SegmentState { used_for: SegmentUse::Announced, generation: 5, ..SegmentState::default() };
        catalog.apply(&Op::Segment { segment: 3, state });
        catalog.pool.begin(3, 1, 1);
        catalog.apply(&Op::Gap(Gap::new(2, 4, false, GapCause::Torn)));
        catalog.apply(&Op::Stream { id: 2, name: "kernel" });
        catalog.apply(&Op::Clock(ClockAnchor { clock_epoch: 1, wall_us: 8, synchronised: true }));
        catalog.apply(&Op::Floor { class: 1, seq: 3 });
        (catalog.store_id, catalog.durable_upto) = (77, 40);
        let snapshot = Snapshot::take(&catalog, &mut copied.parts()).unwrap();

        catalog.apply(&Op::Stream { id: 1, name: "later" });
        catalog.pool.begin(4, 1, 1);
        let copy = snapshot.catalog(copied.parts());
        assert_eq!((copy.store_id(), copy.durable_upto(), snapshot.durable_upto()), (77, 40, 40));
        assert_eq!((copy.pool().order(), copy.pool().segments()), (&[3][..], 8));
        assert_eq!(copy.pool().get(3).state.generation, 5);
        assert_eq!(copy.gaps(), [Gap::new(2, 4, false, GapCause::Torn)]);
        assert!(copy.streams().iter().eq([(2, "kernel")]));
        assert_eq!(copy.clocks().get(1).map(|c| c.wall_us), Some(8));
        assert_eq!(copy.floor(), 1);
    }

    #[test]
    fn memory_that_is_too_small_is_named() {
        let (mut room, mut copied) = (Room::new(), Room::new());
        let (mut catalog, _) = Catalog::new(geometry(), room.parts());
        catalog.apply(&Op::Stream { id: 2, name: "a-long-name" });
        let mut small = copied.parts();
        small.names = &mut [];
        assert_eq!(Snapshot::take(&catalog, &mut small).unwrap_err().name, "names");
        small.entries = &mut [];
        assert_eq!(Snapshot::take(&catalog, &mut small).unwrap_err().name, "entries");
    }
}
