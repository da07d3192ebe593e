//! The records of one loaded frame.
//!
//! Invariant: a record is found by its number alone, wherever the frame puts it.

use super::{Scan, ScanMemory};
use crate::catalog::Catalog;
use crate::format::events::Origin;
use crate::format::frame::{Frame, FrameKind};
use crate::format::row::{Item, ItemReader, Lost, Prefix, Row};
use crate::sstable::{self, BlockInfo};

/// The frame whose records are being given out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loaded {
    pub(super) first_seq: u64,
    pub(super) count: u32,
    pub(super) clock_epoch: u32,
    /// Boot that wrote the frame; 0 if it is not known.
    pub(super) boot: u32,
    /// Where the rows stand, in the frame buffer or, if `in_raw`, among the decoded ones.
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) in_raw: bool,
    pub(super) has_slots: bool,
    /// It holds no records: these are lost.
    pub(super) lost: Option<Lost>,
}

impl Loaded {
    /// The record was left out when the group was decoded: the filter does not want it.
    pub(super) fn is_left_out(&self, mem: &ScanMemory<'_>, seq: u64) -> bool {
        let index = seq.checked_sub(self.first_seq).and_then(|i| usize::try_from(i).ok());
        self.in_raw && index.and_then(|i| mem.slots.get(i)) == Some(&sstable::ABSENT)
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(u64::from(self.count)).saturating_sub(1)
    }
}

impl Scan {
    /// Makes the frame's records ready to be given out; `false` if it cannot be decoded.
    pub(super) fn load(
        &mut self,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
        frame: &Frame,
        start: usize,
    ) -> bool {
        let len = usize::try_from(frame.payload_bytes).unwrap_or(0);
        let end = start.saturating_add(len);
        let ScanMemory { frame: buffer, raw, slots } = mem;
        let Some(payload) = buffer.get(start..end) else { return false };
        if frame.kind == FrameKind::RowGroup {
            let Some((prefix, _)) = Prefix::read(payload, frame.flags.is_part()) else { return false };
            // Sub-blocks that the filter cannot want are not even unpacked.
            let (filter, clock) = (self.options.filter, catalog.clocks.get(prefix.clock_epoch));
            let keep = |block: &BlockInfo| block.may_match(&filter, clock);
            let decoded = sstable::decode_where(payload, frame, raw, slots, keep);
            self.loaded = decoded.map(|len| Loaded {
                first_seq: frame.first_seq,
                count: frame.count,
                clock_epoch: prefix.clock_epoch,
                boot: frame.epoch,
                start: 0,
                len,
                in_raw: true,
                has_slots: true,
                lost: None,
            });
            return self.loaded.is_some();
        }
        self.load_rows(payload, frame, start);
        if let Some(loaded) = self.loaded.as_mut().filter(|loaded| loaded.lost.is_none()) {
            loaded.has_slots = fill_slots(payload, loaded, start, slots);
        }
        self.loaded.is_some()
    }

    pub(super) fn load_rows(&mut self, payload: &[u8], frame: &Frame, start: usize) {
        let read = Prefix::read(payload, frame.flags.is_part());
        self.loaded = read.map(|(prefix, items)| {
            let rest = items.rest().len();
            // What was lost has a frame of its own, behind the name of its stream at most.
            let lost = items.clone().find_map(|item| match item {
                Item::Lost(lost) => Some(Some(lost)),
                Item::Row(_) => Some(None),
                Item::Stream { .. } | Item::State { .. } | Item::Clock(_) => None,
            });
            Loaded {
                first_seq: frame.first_seq,
                count: frame.count,
                clock_epoch: prefix.clock_epoch,
                boot: frame.epoch,
                start: start.saturating_add(payload.len().saturating_sub(rest)),
                len: rest,
                in_raw: false,
                has_slots: false,
                lost: lost.flatten(),
            }
        });
    }
}

/// Notes where each row stands; `false` if there are more rows than slots.
fn fill_slots(payload: &[u8], loaded: &Loaded, start: usize, slots: &mut [u32]) -> bool {
    let Some(rows) = payload.get(loaded.start.saturating_sub(start)..) else { return false };
    let Some(slots) = usize::try_from(loaded.count).ok().and_then(|n| slots.get_mut(..n)) else { return false };
    let mut items = ItemReader::new(rows);
    let mut filled = 0;
    loop {
        let at = rows.len().saturating_sub(items.rest().len());
        match items.next() {
            None => return filled == slots.len(),
            Some(Item::Row(_)) => {
                let (Some(slot), Ok(at)) = (slots.get_mut(filled), u32::try_from(at)) else { return false };
                *slot = at;
                filled = filled.saturating_add(1);
            }
            Some(_) => {}
        }
    }
}

/// The row item that stands at `at`.
pub(super) fn row_at(rows: &[u8], at: u32) -> Option<Row<'_>> {
    match ItemReader::new(rows.get(usize::try_from(at).ok()?..)?).next()? {
        Item::Row(row) => Some(row),
        _ => None,
    }
}

pub(super) fn row_of<'b>(loaded: &Loaded, mem: &'b ScanMemory<'_>, seq: u64) -> Option<Row<'b>> {
    let index = usize::try_from(seq.checked_sub(loaded.first_seq)?).ok()?;
    let bytes: &[u8] = if loaded.in_raw { mem.raw } else { mem.frame };
    let rows = bytes.get(loaded.start..)?.get(..loaded.len)?;
    if loaded.has_slots {
        return row_at(rows, *mem.slots.get(index)?);
    }
    let mut rows = ItemReader::new(rows).filter_map(|item| match item {
        Item::Row(row) => Some(row),
        _ => None,
    });
    rows.nth(index)
}

/// The records of a frame: its own, or those of the frame that an origin repeats; with their payload, and where that
/// stands in the frame's payload.
pub(super) fn records_in<'p>(frame: &Frame, payload: &'p [u8]) -> Option<(Frame, &'p [u8], usize)> {
    let (records, payload, at) = match frame.kind {
        FrameKind::Rows | FrameKind::RowGroup => (*frame, payload, 0),
        FrameKind::Origin => {
            let copy = Origin::read(payload)?.1?;
            (copy.frame(frame), copy.payload, copy.at)
        }
        FrameKind::Index | FrameKind::Edit | FrameKind::Close => return None,
    };
    (records.count > 0).then_some((records, payload, at))
}
