//! Segments of the log: opened, sealed, announced, dropped, retired.
//!
//! Invariants: a segment is announced by a synced edit before its first byte is written, and that edit is also the one
//! that drops what it held; its header is synced before its first frame, and that sync covers everything before it.

use super::{Stop, Store, announce, at};
use crate::error::{Doing, ReadOnlyReason};
use crate::format::edit::{SegmentState, SegmentUse};
use crate::format::header::{SEGMENTS_MIN, SegmentKind};
use crate::hal::{Arena, Storage, StorageError, StorageErrorKind};
use crate::wal::{self, WriteError};

impl<'m, S: Storage, A: Arena> Store<'m, S, A> {
    /// Opens the next announced segment; `void_from` and `first_seq` go into its header. Its header is synced, and with
    /// it everything before.
    pub(super) fn open_next(&mut self, void_from: u64, first_seq: u64) -> Result<(), Stop<S::Error>> {
        let left = self.log.open.take();
        self.top_up(left.map(|(segment, _)| segment))?;
        let (segment, generation) = self.prepare_next()?;
        self.catalog.pool.begin(segment, first_seq, self.catalog.head.epoch);
        self.stats.segments_opened = self.stats.segments_opened.saturating_add(1);
        let mut header = self.catalog.header(SegmentKind::Log, segment, generation);
        (header.first_seq, header.void_from) = (first_seq, void_from);
        header.volatile_bound = self.volatile_bound;
        let geometry = self.catalog.geometry;
        let start =
            wal::write_header(&mut self.storage, &geometry, &header, self.memory.frame).map_err(Stop::of_write)?;
        self.storage.sync().map_err(|source| Stop::of(at(Doing::Sync, segment, 0, source)))?;
        if let Some((old, end)) = left {
            // Its frames are synced now. Index and trailer only help; if they fail, so will what comes next.
            self.log.seal(&mut self.storage, &self.catalog, old, end, self.memory.frame).ok();
        }
        self.log.open = Some((segment, start));
        self.log.index.clear();
        self.log.index_whole = true;
        self.catalog.streams.begin_segment();
        Ok(())
    }

    /// Erases the next announced segment if this mount has not yet; retires those that fail.
    fn prepare_next(&mut self) -> Result<(u32, u64), Stop<S::Error>> {
        while let Some(segment) = self.catalog.pool.next_announced() {
            let entry = self.catalog.pool.get(segment);
            if entry.ready {
                return Ok((segment, entry.state.generation));
            }
            match self.storage.erase(segment) {
                Ok(()) => return Ok((segment, entry.state.generation)),
                Err(e) if e.kind() == StorageErrorKind::Worn => self.retire(segment),
                Err(source) => return Err(Stop::of(at(Doing::Erase, segment, 0, source))),
            }
        }
        Err(Stop::ReadOnly(ReadOnlyReason::WornOut))
    }

    fn retire(&mut self, segment: u32) {
        let state = self.catalog.pool.get(segment).state;
        self.catalog.pool.set(segment, SegmentState { used_for: SegmentUse::Retired, ..state });
    }

    /// Publishes an edit that seals what the log has left and announces further segments, and prepares those.
    fn top_up(&mut self, leaving: Option<u32>) -> Result<(), Stop<S::Error>> {
        if self.catalog.pool.usable() < SEGMENTS_MIN as usize {
            return Err(Stop::ReadOnly(ReadOnlyReason::WornOut));
        }
        self.seal_left();
        let wanted = self.catalog.announced_wanted();
        let mut fresh: heapless::Vec<u32, 16> = heapless::Vec::new();
        while self.catalog.pool.announced() < wanted {
            let Some(segment) = self.catalog.pool.least_worn_free().or_else(|| self.drop_oldest(leaving)) else {
                break;
            };
            announce(&mut self.catalog, segment);
            fresh.push(segment).ok();
        }
        self.publish()?;
        for segment in fresh {
            match self.storage.erase(segment) {
                Ok(()) => {
                    if let Some(entry) = self.catalog.pool.entry_mut(segment) {
                        entry.ready = true;
                    }
                }
                Err(e) if e.kind() == StorageErrorKind::Worn => self.retire(segment),
                Err(source) => return Err(Stop::of(at(Doing::Erase, segment, 0, source))),
            }
        }
        Ok(())
    }

    /// Segments the log has left are sealed, unless they hold something of the commit under way.
    fn seal_left(&mut self) {
        for i in 0..self.catalog.pool.order().len() {
            let Some(segment) = self.catalog.pool.order().get(i).copied() else { break };
            let Some(entry) = self.catalog.pool.entry_mut(segment) else { continue };
            if entry.state.used_for == SegmentUse::Announced {
                // In order: an unsealed segment keeps all later ones unsealed.
                if entry.pending {
                    break;
                }
                entry.state.used_for = SegmentUse::Sealed;
                entry.dirty = true;
            }
        }
    }

    pub(super) fn publish(&mut self) -> Result<(), Stop<S::Error>> {
        for _ in 0..2 {
            let done = self.manifest.publish(&mut self.storage, &mut self.catalog, self.memory.frame);
            if let Err(e) = done {
                let reason = match e {
                    WriteError::Medium(e) if e.source.kind() == StorageErrorKind::ReadOnly => {
                        ReadOnlyReason::Medium(StorageErrorKind::ReadOnly)
                    }
                    _ => ReadOnlyReason::ManifestFailed,
                };
                return Err(Stop::ReadOnly(reason));
            }
            self.stats.edits = self.stats.edits.saturating_add(1);
            if self.manifest.is_mirrored() {
                return Ok(());
            }
        }
        Err(Stop::ReadOnly(ReadOnlyReason::ManifestFailed))
    }

    /// Makes room: a sealed segment with neither records nor a boot goes, or else the oldest one, and the floor rises
    /// to the end of its last batch (F6). The one that is being left stays: its trailer is still to be written.
    fn drop_oldest(&mut self, leaving: Option<u32>) -> Option<u32> {
        self.drop_job();
        if let Some(free) = self.catalog.pool.least_worn_free() {
            return Some(free); // the rewrite had it
        }
        let state = |s: &u32| self.catalog.pool.get(*s).state;
        let is_sealed = |s: &u32| state(s).used_for == SegmentUse::Sealed && Some(*s) != leaving;
        let is_empty = |s: &u32| is_sealed(s) && state(s).last_seq < state(s).first_seq && !state(s).holds_boot;
        let order = self.catalog.pool.order();
        let empty = order.iter().copied().find(is_empty);
        if let Some(table) = self.oldest_table().filter(|_| empty.is_none()) {
            self.rewriting.surveyed = false;
            self.forget_table(table);
            return Some(table);
        }
        let segment = empty.or_else(|| order.iter().copied().find(is_sealed))?;
        let state = self.catalog.pool.get(segment).state;
        let end = state.last_seq.saturating_add(u64::from(state.chain_tail)).saturating_add(1);
        if state.last_seq >= state.first_seq {
            self.catalog.raise_floor(end);
        }
        let bytes = u64::from(self.catalog.data_room());
        self.stats.bytes_dropped_space = self.stats.bytes_dropped_space.saturating_add(bytes);
        self.catalog.pool.remove_from_order(segment);
        self.stats.segments_dropped = self.stats.segments_dropped.saturating_add(1);
        Some(segment)
    }
}
