//! Reading files that are followed into parcels, in turn.
//!
//! Invariants: how far a file was read rides in the batch of its records; what was read counts only if the file is in
//! the same life afterwards; a file that was moved away is read to its end before the one in its place; a window is as
//! large as a record has to be, and small again behind it.

use std::cmp::Reverse;
use std::io;
use std::mem;

use super::cut::{Flush, Rules, first_record};
use super::identity::{Id, Trail};
use super::tail::{Tail, WINDOW_BYTES, fill};
use super::{FINAL_AFTER_US, Follower, micros};
use crate::parcel::{Parcel, Slot};
use crate::queue::Closed;
use crate::sources::severity;

/// A batch is ended here: it has to fit into the smallest memtable.
pub(super) const BATCH_BYTES: usize = 24 << 10;
/// A parcel is handed over here.
const PARCEL_BYTES: usize = 128 << 10;
/// Records of a parcel at most.
const PARCEL_RECORDS: usize = 2048;
/// So much of one file before the others have their turn.
const TURN_BYTES: u64 = 1 << 20;
/// A longer line is kept in parts, if not told otherwise.
const LINE_BYTES_MAX: usize = 1 << 20;

/// How reading a file ended.
enum Read {
    Done,
    More,
    /// It is not what was read before.
    Reborn,
}

enum Failed {
    Closed,
    Io(io::Error),
}

impl From<Closed> for Failed {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<E> Follower<'_, E> {
    /// Reads what there is to read; `true` if there is more. Files that were moved away come first, then those that
    /// were written to longer ago: so what rotation has torn apart comes in its order.
    pub(super) fn drain_all(&mut self) -> Result<bool, Closed> {
        let age = |(id, tail): (&Id, &Tail)| {
            let modified =
                if tail.dirty { tail.file.metadata().and_then(|metadata| metadata.modified()).ok() } else { None };
            (!tail.moved, modified, Reverse(tail.path.clone()), *id)
        };
        let mut order: Vec<_> = self.tails.iter().map(age).collect();
        order.sort_unstable();
        let mut busy = false;
        for (is_current, .., id) in order {
            let has_more = self.drain(id)?;
            busy |= has_more;
            if has_more && !is_current {
                break; // it has to be read to its end first
            }
        }
        Ok(busy)
    }

    /// Reads one file as far as its turn goes; `true` if there is more.
    pub(super) fn drain(&mut self, id: Id) -> Result<bool, Closed> {
        let Some(mut tail) = self.tails.remove(&id) else { return Ok(false) };
        let read = self.drain_tail(id, &mut tail);
        let path = tail.path.clone();
        self.tails.insert(id, tail);
        match read {
            Ok(Read::Done) => Ok(false),
            Ok(Read::More) => Ok(true),
            Ok(Read::Reborn) => self.reborn(id),
            Err(Failed::Closed) => Err(Closed),
            Err(Failed::Io(error)) => {
                if self.refused.insert(path, error.to_string()).is_none() {
                    self.ctx.status.erred();
                    self.say_what_it_does();
                }
                Ok(false)
            }
        }
    }

    /// A file was emptied, and may have new bytes.
    fn reborn(&mut self, id: Id) -> Result<bool, Closed> {
        let Some(tail) = self.tails.get_mut(&id) else { return Ok(false) };
        let (mark, path, stream) = (tail.trail.mark(), tail.path.clone(), tail.stream.clone());
        tail.trail = Trail::default();
        (tail.scanned, tail.waits, tail.dirty, tail.severity) = (0, false, true, None);
        self.rescue(id, &path, &stream, &mark)?;
        Ok(true)
    }

    fn drain_tail(&mut self, id: Id, tail: &mut Tail) -> Result<Read, Failed> {
        let now_us = self.ctx.clock.now_us();
        let size = tail.file.metadata()?.len();
        if size > tail.scanned {
            tail.grown_us = now_us;
        }
        let quiet_us = now_us.saturating_sub(tail.grown_us);
        let flush = match () {
            () if tail.moved && quiet_us >= FINAL_AFTER_US => Flush::All,
            () if tail.waits && quiet_us >= micros(self.options.files.multiline_wait) => Flush::Lines,
            () => Flush::Wait,
        };
        let pending = tail.scanned > tail.trail.offset();
        let is_due = pending && flush != Flush::Wait;
        if !tail.dirty && !is_due {
            return Ok(Read::Done);
        }
        if size < tail.trail.offset() {
            return Ok(Read::Reborn);
        }
        let max =
            self.options.files.max_line_bytes.map_or(LINE_BYTES_MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let max = max.min(self.ctx.record_bytes_max).max(1);
        let mut turn = 0;
        let mut window = mem::take(&mut self.window);
        let read = self.read_records(id, tail, max, flush, &mut turn, &mut window);
        window.clear();
        window.shrink_to(WINDOW_BYTES);
        self.window = window;
        let read = read?;
        tail.dirty = matches!(read, Read::More);
        Ok(read)
    }

    fn read_records(
        &mut self,
        id: Id,
        tail: &mut Tail,
        max: usize,
        flush: Flush,
        turn: &mut u64,
        window: &mut Vec<u8>,
    ) -> Result<Read, Failed> {
        let options = self.options;
        let rules = Rules { max, start: options.files.multiline_start.as_ref() };
        let mut room = WINDOW_BYTES;
        loop {
            let offset = tail.trail.offset();
            if flush == Flush::Wait && tail.goes_on_without_newline(max, window)? {
                return Ok(Read::Done);
            }
            let is_end = fill(&tail.file, offset, room, window)?;
            // Only now: what was read has to be of the same life as what was read before.
            if !tail.trail.holds(&tail.file)? {
                return Ok(Read::Reborn);
            }
            let used = self.put(id, tail, rules, flush, window)?;
            let rest = window.get(used..).unwrap_or_default();
            tail.scanned = tail.trail.offset().saturating_add(rest.len() as u64);
            tail.waits = rules.start.is_some() && memchr::memchr(b'\n', rest).is_some();
            *turn = turn.saturating_add(used as u64);
            if is_end {
                return Ok(Read::Done);
            }
            if *turn >= TURN_BYTES {
                return Ok(Read::More);
            }
            // Without a whole record in it, the window was too small.
            room = if used == 0 { room.saturating_mul(2) } else { WINDOW_BYTES };
        }
    }

    /// Puts the whole records of a window into the parcel; how many bytes they took.
    fn put(&mut self, id: Id, tail: &mut Tail, rules: Rules<'_>, flush: Flush, window: &[u8]) -> Result<usize, Closed> {
        let (mut at, mut begun) = (0usize, 0usize);
        loop {
            let rest = window.get(at..).unwrap_or_default();
            let cut = first_record(rest, rules, flush);
            // The batch ends before the record with which it would be too large.
            let bytes = cut.map_or(0, |cut| cut.next);
            let is_full = at.saturating_sub(begun).saturating_add(bytes) > BATCH_BYTES;
            if at > begun && (cut.is_none() || is_full) {
                tail.trail.advance(window.get(begun..at).unwrap_or_default());
                begun = at;
                self.book.set(id, tail.trail.mark(), &tail.stream);
                let states = self.book.states_with(id);
                let parcel = self.parcel()?;
                for (key, value) in &states {
                    parcel.state(key, value);
                }
                parcel.end_batch(None);
                if parcel.bytes.len() >= PARCEL_BYTES || parcel.records() >= PARCEL_RECORDS {
                    self.hand_over()?;
                }
            }
            let Some(cut) = cut else { return Ok(at) };
            let body = rest.get(..cut.end).unwrap_or_default();
            let severity = tail.severity.take().unwrap_or_else(|| severity::detect(body));
            tail.severity = cut.continued.then_some(severity);
            let parcel = self.parcel()?;
            let stream = parcel.stream(&tail.stream);
            let body = parcel.copy(body);
            parcel.push(Slot { severity, continued: cut.continued, ..Slot::plain(stream, body) });
            self.ctx.status.read(1);
            at = at.saturating_add(cut.next);
        }
    }

    pub(super) fn parcel(&mut self) -> Result<&mut Parcel, Closed> {
        let parcel = match self.parcel.take() {
            Some(parcel) => parcel,
            None => self.ctx.intake.parcel()?,
        };
        Ok(self.parcel.insert(parcel))
    }

    pub(super) fn hand_over(&mut self) -> Result<(), Closed> {
        let Some(mut parcel) = self.parcel.take() else { return Ok(()) };
        parcel.received_us = self.ctx.clock.now_us();
        self.ctx.intake.send(parcel)
    }
}
