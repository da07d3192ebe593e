//! The first frame of a boot and the last of a clean stop.
//!
//! Invariants: nothing of a boot is written before its origin is synced; on a compact medium the origin repeats the
//! last adopted frame after an unclean stop, because its words may be metastable.

use super::{ATTEMPTS, Stop, Store};
use crate::error::{ReadOnlyReason, StoreError};
use crate::format::events::{Close, FrameCopy, Origin};
use crate::format::frame::{Frame, FrameFlags, FrameKind};
use crate::format::row::ItemWriter;
use crate::gaps::{Gap, GapCause};
use crate::hal::{Arena, Storage};
use crate::recovery;

impl<'m, S: Storage, A: Arena> Store<'m, S, A> {
    /// Before the first frame of a mount: its origin, synced alone.
    pub(super) fn start(&mut self) -> Result<(), StoreError<S::Error>> {
        if self.started {
            return Ok(());
        }
        let (void_from, next_seq) = (self.verdict.void_from, self.verdict.next_seq);
        self.catalog.clocks.set(self.anchor);
        self.catalog.tables_dirty = true;
        self.catalog.gaps.truncate(void_from);
        if next_seq > void_from {
            let last = next_seq.saturating_sub(1);
            self.catalog.gaps.add(Gap::new(void_from, last, false, GapCause::RamTier));
        }
        let mut result = Ok(());
        if self.verdict.marginal_edit {
            // Settle the manifest before anything is written that its last edit does not know of.
            self.publish().map_err(|stop| self.stopped(stop))?;
        }
        for _ in 0..ATTEMPTS {
            result = self.write_origin(void_from, next_seq);
            match &result {
                Ok(()) => {
                    self.started = true;
                    self.ram_limit = next_seq.saturating_sub(1).saturating_add(u64::from(self.volatile_bound));
                    self.catalog.head.seq_ceiling = self.catalog.head.seq_ceiling.max(self.ram_limit);
                    return Ok(());
                }
                Err(Stop::ReadOnly(_)) => break,
                Err(Stop::Medium(_)) => self.abandon(),
            }
        }
        let reason = match result {
            Err(Stop::ReadOnly(reason)) => reason,
            Err(Stop::Medium(_)) | Ok(()) => ReadOnlyReason::CommitFailed,
        };
        Err(StoreError::ReadOnly(self.stop_writing(reason)))
    }

    fn write_origin(&mut self, void_from: u64, next_seq: u64) -> Result<(), Stop<S::Error>> {
        if self.log.open.is_none() {
            self.open_next(void_from, next_seq)?;
        }
        let mut payload_bytes = self.encode_origin(true);
        if self.catalog.layout.frame_bytes(payload_bytes) > self.log.room(&self.catalog.layout) {
            self.open_next(void_from, next_seq)?;
            payload_bytes = self.encode_origin(true);
        }
        if self.catalog.layout.frame_bytes(payload_bytes) > self.log.room(&self.catalog.layout) {
            payload_bytes = self.encode_origin(false); // the copy is too large for any frame
        }
        let frame = self.frame(FrameKind::Origin, next_seq, payload_bytes);
        let segment = self.log.open.map_or(0, |(segment, _)| segment);
        if let Some(entry) = self.catalog.pool.entry_mut(segment) {
            entry.state.holds_boot = true;
        }
        self.put(&frame)?;
        self.sync_log()
    }

    fn encode_origin(&mut self, with_copy: bool) -> u32 {
        let origin = Origin {
            epoch: self.catalog.head.epoch,
            first_seq: self.verdict.next_seq,
            void_from: self.verdict.void_from,
            anchor: self.anchor,
            edit_no: self.catalog.head.edit_no,
            volatile_bound: self.volatile_bound,
            durable_upto: self.catalog.durable_upto,
            previous_end: self.report.previous_end,
            torn_bytes: self.report.torn_bytes,
        };
        let mut head = [0u8; 128];
        let copied =
            if with_copy && !self.catalog.layout.wide { self.read_last_frame(&origin, &mut head) } else { None };
        if let Some(bytes) = copied {
            return bytes;
        }
        self.encode(FrameFlags::WHOLE, |w| origin.write(None, w))
    }

    /// Reads the last adopted frame and puts its payload behind the origin, all in the frame buffer.
    fn read_last_frame(&mut self, origin: &Origin, head: &mut [u8; 128]) -> Option<u32> {
        let (segment, offset, want) = self.verdict.last_frame?;
        let buf = &mut *self.memory.frame;
        let found = recovery::read_frame(&mut self.storage, &self.catalog, segment, offset, &want, buf)?;
        let (start, len) = found;
        let to = usize::try_from(self.catalog.layout.payload_at(FrameFlags::WHOLE)).ok()?;
        // Everything but the copied bytes themselves, to learn how long it is.
        let mut w = ItemWriter::new(head);
        let Frame { first_seq, count, flags, part, .. } = want;
        let copy = FrameCopy { first_seq, count, flags, part, payload: &[], at: 0 };
        origin.write(Some(&copy), &mut w)?;
        let mut written = w.len().checked_sub(1)?;
        let mut w = ItemWriter::new(head.get_mut(written..)?);
        w.value(&len)?;
        written = written.checked_add(w.len())?;
        let place = to.checked_add(written)?;
        let end = place.checked_add(len)?;
        if end.checked_add(16)? > buf.len() {
            return None;
        }
        buf.copy_within(start..start.checked_add(len)?, place);
        buf.get_mut(to..place)?.copy_from_slice(head.get(..written)?);
        u32::try_from(end.checked_sub(to)?).ok()
    }

    pub(super) fn write_close(&mut self, next_seq: u64) -> Result<(), Stop<S::Error>> {
        if self.log.room(&self.catalog.layout) < self.catalog.layout.frame_bytes(32) {
            self.open_next(next_seq, next_seq)?;
        }
        self.drop_job();
        // The manifest then knows how far the log went, whatever becomes of its last frames.
        self.publish()?;
        let edit_no = self.catalog.head.edit_no;
        let payload_bytes = self.encode(FrameFlags::WHOLE, |w| Close { next_seq, edit_no }.write(w));
        let frame = Frame {
            durable_upto: next_seq.saturating_sub(1),
            volatile_bound: 0,
            ..self.frame(FrameKind::Close, next_seq, payload_bytes)
        };
        self.put(&frame)?;
        self.sync_log()
    }
}
