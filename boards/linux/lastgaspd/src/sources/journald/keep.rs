//! Puts entries into parcels, each behind the cursor of the one before.
//!
//! Invariants: the cursor of a batch is that of its last entry, so what comes again after a cut is what was not kept;
//! numbers that are missing between two entries are counted as dropped; each part of a long body is a batch that says
//! how far the body is kept.

use lastgasp_core::gaps::GapCause;

use super::Reader;
use super::cursor::{Cursor, Place, STATE_KEY};
use super::entry;
use super::export::Entry;
use crate::parcel::{Parcel, Slot};
use crate::queue::Closed;

/// A batch is ended here: it has to fit into the smallest memtable.
pub(super) const BATCH_BYTES: usize = 24 << 10;
/// A parcel is handed over here.
const PARCEL_BYTES: usize = 128 << 10;
/// Records of a parcel at most.
const PARCEL_RECORDS: usize = 2048;
/// After so many entries that are left out the cursor is kept without a record.
pub(super) const LEFT_OUT_MAX: u32 = 4096;
/// The stream of gaps.
const GAP_STREAM: &str = "journald";

/// The batch that is not ended yet.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) stream: u16,
    pub(super) bytes: usize,
    pub(super) cursor: Option<Cursor>,
}

impl<E> Reader<'_, E> {
    /// Takes an entry in.
    pub(super) fn take(&mut self, entry: &Entry) -> Result<(), Closed> {
        let cursor = entry.text(b"__CURSOR").and_then(Cursor::parse);
        let mut from = 0;
        if let Some(cursor) = &cursor {
            match self.pass_by(cursor) {
                Some(kept) => from = kept,
                None => return Ok(()),
            }
        }
        self.entries = self.entries.saturating_add(1);
        if entry.malformed.is_some() {
            self.ctx.status.erred();
        }
        let too_old = cursor.as_ref().is_some_and(|c| c.realtime_us < self.not_before_us);
        if too_old || !self.is_wanted(entry) {
            return self.leave_out(cursor, too_old);
        }
        self.put(entry, cursor, from)
    }

    /// Compares an entry with where the source is: from which byte of its body on it is to be kept, if it is.
    fn pass_by(&mut self, cursor: &Cursor) -> Option<usize> {
        let mut from = 0;
        if let Some(last) = &self.last {
            let partial = last.partial_bytes;
            let is_same = self.resuming && cursor.is_same(&last.cursor);
            if is_same && let Some(bytes) = partial {
                from = bytes;
            } else if is_same || (self.resuming && cursor.is_at_or_before(&last.cursor)) {
                return None;
            }
            let cut_off = u64::from(partial.is_some() && !is_same);
            let missing = if self.blind { 0 } else { cursor.missing_after(&last.cursor) };
            let missing = missing.saturating_add(cut_off);
            self.ctx.intake.dropped(GAP_STREAM, GapCause::Overload, missing, self.ctx.clock.now_us());
        }
        self.resuming = false;
        self.last = Some(Place { cursor: cursor.clone(), partial_bytes: None });
        Some(from)
    }

    fn is_wanted(&self, entry: &Entry) -> bool {
        let journal = &self.options.journal;
        if entry::is_kernel(entry) { journal.kernel } else { journal.keeps_unit(entry::unit(entry).unwrap_or("")) }
    }

    /// An entry that is not kept: its cursor is, with the next one that is, or by itself before too many have to be
    /// read again.
    fn leave_out(&mut self, cursor: Option<Cursor>, at_once: bool) -> Result<(), Closed> {
        self.left_out = self.left_out.saturating_add(1);
        if at_once || self.left_out >= LEFT_OUT_MAX {
            self.end_batch();
            self.parcel()?;
            self.open.cursor = cursor;
            self.end_batch();
        }
        Ok(())
    }

    fn parcel(&mut self) -> Result<&mut Parcel, Closed> {
        let parcel = match self.parcel.take() {
            Some(parcel) => parcel,
            None => self.ctx.intake.parcel()?,
        };
        Ok(self.parcel.insert(parcel))
    }

    /// Puts an entry into the parcel, from a byte of its body on.
    fn put(&mut self, entry: &Entry, cursor: Option<Cursor>, from: usize) -> Result<(), Closed> {
        let body = entry::body(entry);
        let severity = entry::severity(entry, body);
        let rest = body.get(from..).unwrap_or_default();
        let (event_time_us, max) = (entry::event_time_us(entry), self.ctx.record_bytes_max.max(1));
        let name = entry::stream(entry);
        let room = if from == 0 { entry::fields_room(entry) } else { 0 };
        let stream = self.parcel()?.stream(name);
        let bytes = rest.len().saturating_add(room);
        if self.open.stream != stream || self.open.bytes.saturating_add(bytes) > BATCH_BYTES {
            self.end_batch();
        }
        let parcel = self.parcel()?;
        let fields = match from {
            0 => parcel.fields(room, |out| entry::write_fields(entry, out)).unwrap_or(0..0),
            _ => 0..0,
        };
        let first = rest.len().min(max.saturating_sub(fields.len()));
        let slot =
            |body, fields, continued| Slot { severity, continued, event_time_us, fields, ..Slot::plain(stream, body) };
        if first == rest.len() {
            let body = parcel.copy(rest);
            parcel.push(slot(body, fields, false));
            self.open.stream = stream;
            self.open.bytes = self.open.bytes.saturating_add(bytes);
            // Malformed entries may have none: that of the one before stays.
            self.open.cursor = cursor.or(self.open.cursor.take());
        } else {
            // Each part is a batch, and says how far the body is kept.
            self.end_batch();
            let (mut fields, mut at, mut end) = (fields, 0, first);
            loop {
                let parcel = self.parcel()?;
                let stream = parcel.stream(name);
                let body = parcel.copy(rest.get(at..end).unwrap_or_default());
                let continued = end < rest.len();
                parcel.push(Slot { stream, ..slot(body, std::mem::replace(&mut fields, 0..0), continued) });
                if let Some(cursor) = &cursor {
                    let partial_bytes = continued.then_some(from.saturating_add(end));
                    parcel.state(STATE_KEY, &Place { cursor: cursor.clone(), partial_bytes }.encode());
                }
                parcel.end_batch(None);
                if !continued {
                    break;
                }
                self.hand_over_if_large()?;
                (at, end) = (end, end.saturating_add(max).min(rest.len()));
            }
        }
        self.left_out = 0;
        self.ctx.status.read(1);
        self.hand_over_if_large()
    }

    /// Ends the batch, with the cursor of its last entry.
    fn end_batch(&mut self) {
        let open = std::mem::take(&mut self.open);
        let Some(parcel) = &mut self.parcel else { return };
        if let Some(cursor) = open.cursor {
            parcel.state(STATE_KEY, &Place { cursor, partial_bytes: None }.encode());
            self.left_out = 0;
        }
        parcel.end_batch(None);
    }

    fn hand_over_if_large(&mut self) -> Result<(), Closed> {
        let is_large = |p: &Parcel| p.bytes.len() >= PARCEL_BYTES || p.records() >= PARCEL_RECORDS;
        if self.parcel.as_ref().is_some_and(is_large) { self.hand_over() } else { Ok(()) }
    }

    pub(super) fn hand_over(&mut self) -> Result<(), Closed> {
        self.end_batch();
        let Some(mut parcel) = self.parcel.take() else { return Ok(()) };
        parcel.received_us = self.ctx.clock.now_us();
        self.ctx.intake.send(parcel)
    }
}
