//! The log writer's bytes: headers, frames, seals. What to write, and when, is decided in [`crate::store`].
//!
//! Invariants: writes go forward only; whatever is written is a multiple of the write unit; a segment that failed once
//! is never written again.

use crate::catalog::Catalog;
use crate::error::{Doing, MediumError};
use crate::format::crc::Life;
use crate::format::events::{IndexEntry, write_index};
use crate::format::frame::{Frame, FrameFlags, FrameKind, Layout};
use crate::format::header::SegmentHeader;
use crate::format::row::ItemWriter;
use crate::format::trailer::Trailer;
use crate::hal::{Geometry, ReadStorage, Storage};

/// Why bytes were not written.
#[derive(Debug)]
pub(crate) enum WriteError<E> {
    /// The medium failed.
    Medium(MediumError<E>),
    /// They do not fit the buffer, the frame or the segment. Sizes are checked before; nothing may be lost in silence
    /// if one is wrong after all.
    Misfit,
}

impl<E> From<MediumError<E>> for WriteError<E> {
    fn from(e: MediumError<E>) -> Self {
        Self::Medium(e)
    }
}

/// Writes a segment's header, zero-padded to the first frame; returns where that stands.
pub(crate) fn write_header<S: Storage>(
    s: &mut S,
    g: &Geometry,
    header: &SegmentHeader,
    buf: &mut [u8],
) -> Result<u32, WriteError<S::Error>> {
    let start = header.data_start();
    let out = usize::try_from(start).ok().and_then(|n| buf.get_mut(..n)).ok_or(WriteError::Misfit)?;
    out.fill(0);
    header.encode(out).ok_or(WriteError::Misfit)?;
    let failed = |source| MediumError { doing: Doing::Write, segment: header.segment, offset: 0, source };
    s.write(g.segment_start(header.segment), out).map_err(failed)?;
    Ok(start)
}

/// Seals the frame whose payload stands in `buf` and writes it at `at`; returns the offset after it.
pub(crate) fn write_sealed<S: Storage>(
    s: &mut S,
    layout: &Layout,
    buf: &mut [u8],
    life: &Life,
    at: u32,
    frame: &Frame,
) -> Result<u32, WriteError<S::Error>> {
    let len = layout.seal(buf, frame, life, at).ok_or(WriteError::Misfit)?;
    let end = at.checked_add(len).filter(|end| *end <= layout.data_end()).ok_or(WriteError::Misfit)?;
    let bytes = usize::try_from(len).ok().and_then(|n| buf.get(..n)).ok_or(WriteError::Misfit)?;
    let start = u64::from(life.segment).saturating_mul(u64::from(layout.segment_bytes));
    let failed = |source| MediumError { doing: Doing::Write, segment: life.segment, offset: at, source };
    s.write(start.saturating_add(u64::from(at)), bytes).map_err(failed)?;
    Ok(end)
}

/// The trailer of a segment's present life, if it verifies.
pub(crate) fn read_trailer<S: ReadStorage>(
    s: &mut S,
    catalog: &Catalog<'_>,
    segment: u32,
    buf: &mut [u8],
) -> Option<Trailer> {
    let generation = catalog.pool.get(segment).state.generation;
    let life = Life { store_id: catalog.store_id, segment, generation };
    let at = catalog.layout.data_end();
    let into = buf.get_mut(..usize::try_from(catalog.layout.reserve_bytes).ok()?)?;
    s.read(catalog.geometry.segment_start(segment).checked_add(u64::from(at))?, into).ok()?;
    Trailer::decode(into, &life, at)
}

/// Entries an index frame holds at most.
const INDEX_ENTRIES: usize = 32;

/// Collects a sparse index while a segment is written: when it is full, every second entry merges into the one before.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    entries: heapless::Vec<IndexEntry, INDEX_ENTRIES>,
    /// Frames per entry.
    stride: u32,
    /// Frames in the last entry.
    filled: u32,
}

impl IndexBuilder {
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        (self.stride, self.filled) = (1, 0);
    }

    pub(crate) fn note(&mut self, offset: u32, first_seq: u64, severities: u32, streams: u64) {
        if self.filled < self.stride
            && let Some(last) = self.entries.last_mut()
        {
            last.severities |= severities;
            last.streams |= streams;
            self.filled = self.filled.saturating_add(1);
            return;
        }
        if self.entries.is_full() {
            self.halve();
            return self.note(offset, first_seq, severities, streams);
        }
        self.entries.push(IndexEntry { offset, first_seq, severities, streams }).ok();
        self.filled = 1;
    }

    fn halve(&mut self) {
        let mut kept: heapless::Vec<IndexEntry, INDEX_ENTRIES> = heapless::Vec::new();
        for pair in self.entries.chunks(2) {
            let Some((first, rest)) = pair.split_first() else { continue };
            let mut merged = *first;
            for entry in rest {
                merged.severities |= entry.severities;
                merged.streams |= entry.streams;
            }
            kept.push(merged).ok();
        }
        self.entries = kept;
        self.stride = self.stride.saturating_mul(2);
        self.filled = self.stride;
    }
}

/// Where the log is written.
#[derive(Debug, Default)]
pub(crate) struct LogWriter {
    /// Segment, and the offset of the next frame; `None` if a segment has to be opened first.
    pub(crate) open: Option<(u32, u32)>,
    pub(crate) index: IndexBuilder,
    /// The index covers the segment from its first frame on.
    pub(crate) index_whole: bool,
}

impl LogWriter {
    /// Never write there again.
    pub(crate) fn abandon(&mut self) {
        self.open = None;
    }

    /// Room for a frame in the open segment.
    pub(crate) fn room(&self, layout: &Layout) -> u32 {
        self.open.map_or(0, |(_, at)| layout.data_end().saturating_sub(at))
    }

    /// Writes the index and the trailer of the segment that ended at `at`, whose frames are synced. It costs nothing if
    /// it fails: both only help.
    pub(crate) fn seal<S: Storage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        segment: u32,
        at: u32,
        buf: &mut [u8],
    ) -> Result<(), WriteError<S::Error>> {
        let state = catalog.pool.get(segment).state;
        let life = Life { store_id: catalog.store_id, segment, generation: state.generation };
        let mut end = at.min(catalog.layout.data_end());
        let mut index_at = 0;
        if let Some(payload_bytes) = self.encode_index(catalog, at, buf) {
            let frame = Frame {
                kind: FrameKind::Index,
                flags: FrameFlags::WHOLE,
                part: 0,
                payload_bytes,
                first_seq: state.first_seq,
                count: 0,
                epoch: catalog.head.epoch,
                durable_upto: catalog.durable_upto,
                volatile_bound: 0,
            };
            end = write_sealed(s, &catalog.layout, buf, &life, at, &frame)?;
            index_at = at;
        }
        let (last_seq, durable_upto) = (state.last_seq, catalog.durable_upto);
        let trailer = Trailer { data_end: end, index_at, last_seq, durable_upto };
        let offset = catalog.layout.data_end();
        let reserve = usize::try_from(catalog.layout.reserve_bytes).unwrap_or(0);
        let Some(out) = buf.get_mut(..reserve) else { return Ok(()) };
        let start = catalog.geometry.segment_start(segment).saturating_add(u64::from(offset));
        if let Some(erased) = catalog.geometry.erased
            && (s.read(start, out).is_err() || out.iter().any(|byte| *byte != erased))
        {
            return Ok(()); // a cell that rotted before it was used: programming over it would make it worse
        }
        trailer.encode(out, &life, offset);
        s.write(start, out).map_err(|source| MediumError { doing: Doing::Write, segment, offset, source })?;
        Ok(())
    }

    /// Writes the index payload to where it stands in a frame; `None` if there is none or no room.
    fn encode_index(&self, catalog: &Catalog<'_>, at: u32, buf: &mut [u8]) -> Option<u32> {
        if !catalog.layout.wide || !self.index_whole || self.index.entries.is_empty() {
            return None;
        }
        let payload_at = usize::try_from(catalog.layout.payload_at(FrameFlags::WHOLE)).ok()?;
        let mut w = ItemWriter::new(buf.get_mut(payload_at..)?);
        write_index(&self.index.entries, &mut w)?;
        let bytes = u32::try_from(w.len()).ok()?;
        (catalog.layout.frame_bytes(bytes) <= catalog.layout.data_end().saturating_sub(at)).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_segment_keeps_a_sparse_index_that_covers_all_of_it() {
        let mut index = IndexBuilder::default();
        index.clear();
        for i in 0..1000u32 {
            index.note(i * 512, u64::from(i) + 1, 1 << (i % 24), 1 << (i % 64));
        }
        assert!(index.entries.len() > INDEX_ENTRIES / 2);
        assert_eq!(index.entries[0].offset, 0);
        assert!(index.entries.windows(2).all(|w| w[0].first_seq < w[1].first_seq));
        let all = index.entries.iter().fold(0, |mask, e| mask | e.severities);
        assert_eq!(all, (1 << 24) - 1);
    }
}
