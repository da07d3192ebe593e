//! Walking the frames of one segment, through damage.
//!
//! Invariants: it always ends; what it yields as a frame verified as a whole; what cannot be read is bad, never an
//! error: damage must not keep a store from opening.

use crate::format::crc::Life;
use crate::format::edit::EditHead;
use crate::format::events::Origin;
use crate::format::frame::{Claim, Expected, Frame, FrameKind, Layout};
use crate::format::row::Prefix;
use crate::hal::ReadStorage;

/// What stands at a place in a segment.
#[derive(Debug)]
pub(crate) enum Found<'b> {
    /// A frame that verifies.
    Frame {
        /// Its offset.
        at: u32,
        /// The offset after it.
        end: u32,
        /// Its header.
        frame: Frame,
        /// Its payload.
        payload: &'b [u8],
    },
    /// Bytes that are no frame of this life.
    Bad {
        /// Something of this life was written here: a header that claims a frame, or on a compact medium any bytes
        /// that are not erased.
        claimed: bool,
    },
    /// Erased bytes with something behind them (compact media only).
    Blank,
    /// A frame that the caller's buffer cannot hold.
    TooLarge {
        /// Its size in bytes.
        bytes: u32,
    },
}

/// A position in a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walker {
    pub(crate) layout: Layout,
    pub(crate) life: Life,
    segment_start: u64,
    read_unit: u32,
    /// Offset of the next thing to look at.
    pub(crate) at: u32,
    /// What compact frames are inferred from.
    pub(crate) want: Expected,
}

impl Walker {
    pub(crate) fn new(layout: Layout, life: Life, read_unit: u32, at: u32, want: Expected) -> Self {
        let segment_start = u64::from(life.segment).saturating_mul(u64::from(layout.segment_bytes));
        Self { layout, life, segment_start, read_unit: read_unit.max(1), at, want }
    }

    /// Reads whole read units that cover `len` bytes at `offset` (a multiple of the frame unit, so of the read unit).
    fn read<'b, S: ReadStorage>(&self, s: &mut S, offset: u32, len: u32, buf: &'b mut [u8]) -> Option<&'b [u8]> {
        let len = usize::try_from(len.checked_next_multiple_of(self.read_unit)?).ok()?;
        let into = buf.get_mut(..len)?;
        s.read(self.segment_start.checked_add(u64::from(offset))?, into).ok()?;
        Some(into)
    }

    /// Offset and first number of the first frame of records whose header verifies at or after `from`, before `to`.
    /// Wide frames only; the payload is not looked at.
    pub(crate) fn header_at_or_after<S: ReadStorage>(
        &self,
        s: &mut S,
        from: u32,
        to: u32,
        buf: &mut [u8],
    ) -> Option<(u32, u64)> {
        let mut at = from;
        while at < to {
            let head = self.read(s, at, self.layout.claim_bytes(), buf);
            if let Some(Claim::Frame { frame: Some(frame), .. }) = head.map(|h| self.layout.claim(h, &self.life, at))
                && frame.kind.holds_records()
            {
                return Some((at, frame.first_seq));
            }
            at = at.saturating_add(self.layout.frame_unit);
        }
        None
    }

    /// Passes by a wide frame of records that is next, by its header alone; `false` if something else is next.
    pub(crate) fn pass_records<S: ReadStorage>(&mut self, s: &mut S, buf: &mut [u8]) -> bool {
        if !self.layout.wide || self.at >= self.layout.data_end() {
            return false;
        }
        let head = self.read(s, self.at, self.layout.claim_bytes(), buf);
        match head.map(|head| self.layout.claim(head, &self.life, self.at)) {
            Some(Claim::Frame { frame: Some(frame), frame_bytes }) if frame.kind.holds_records() => {
                self.at = self.at.saturating_add(frame_bytes.max(1));
                true
            }
            _ => false,
        }
    }

    /// The same segment from another offset.
    pub(crate) fn moved_to(self, at: u32) -> Self {
        Self { at, ..self }
    }

    /// No frame fits behind it.
    pub(crate) fn is_at_end(&self) -> bool {
        self.layout.data_end().saturating_sub(self.at) < self.layout.frame_bytes(0)
    }

    /// The next thing in the segment; `None` at its end, or where a compact segment is erased to its end.
    pub(crate) fn next<'b, S: ReadStorage>(&mut self, s: &mut S, buf: &'b mut [u8]) -> Option<Found<'b>> {
        let room = self.layout.data_end().checked_sub(self.at)?;
        if room < self.layout.frame_bytes(0) {
            return None;
        }
        let at = self.at;
        // Wide: one unit at once, as most frames of single commits fit into one.
        let first = if self.layout.wide { self.layout.frame_unit } else { self.layout.claim_bytes() };
        let head = self.read(s, at, first.min(u32::try_from(buf.len()).unwrap_or(u32::MAX)), buf);
        let claim = head.map_or(Claim::Nothing, |head| self.layout.claim(head, &self.life, at));
        match claim {
            Claim::Blank => self.skip_blank(s, buf),
            Claim::Nothing => {
                self.at = at.saturating_add(self.layout.frame_unit);
                Some(Found::Bad { claimed: !self.layout.wide })
            }
            Claim::Frame { frame_bytes, .. } => {
                if usize::try_from(frame_bytes).is_ok_and(|n| n > buf.len()) {
                    if !self.layout.wide {
                        // Six bits of check make no header: noise must not hide the frames behind it.
                        self.at = at.saturating_add(self.layout.frame_unit);
                        return Some(Found::Bad { claimed: true });
                    }
                    self.at = at.saturating_add(frame_bytes);
                    return Some(Found::TooLarge { bytes: frame_bytes });
                }
                if (frame_bytes > first || !self.layout.wide) && self.read(s, at, frame_bytes, buf).is_none() {
                    self.at = at.saturating_add(self.layout.frame_unit);
                    return Some(Found::Bad { claimed: true });
                }
                self.verified(at, frame_bytes, buf)
            }
        }
    }

    fn verified<'b>(&mut self, at: u32, frame_bytes: u32, buf: &'b [u8]) -> Option<Found<'b>> {
        let bytes = usize::try_from(frame_bytes).ok().and_then(|n| buf.get(..n)).unwrap_or_default();
        let verified = self.layout.verify(bytes, &self.life, at, self.want);
        let Some((frame, payload)) =
            verified.and_then(|(f, p)| Some((complete(f, p, self.want, self.layout.wide)?, p)))
        else {
            self.at = at.saturating_add(self.layout.frame_unit);
            return Some(Found::Bad { claimed: true });
        };
        self.at = at.saturating_add(frame_bytes);
        self.want.epoch = self.want.epoch.max(frame.epoch);
        match frame.kind {
            FrameKind::Rows | FrameKind::RowGroup => self.want.seq = frame.last_seq().saturating_add(1),
            FrameKind::Origin => {
                self.want.seq = self.want.seq.max(frame.first_seq);
                self.want.volatile_bound = frame.volatile_bound;
            }
            FrameKind::Index | FrameKind::Edit | FrameKind::Close => {}
        }
        Some(Found::Frame { at, end: self.at, frame, payload })
    }

    /// Goes on at the next byte that is not erased.
    fn skip_blank<'b, S: ReadStorage>(&mut self, s: &mut S, buf: &'b mut [u8]) -> Option<Found<'b>> {
        let at = self.at;
        let step = u32::try_from(buf.len()).unwrap_or(u32::MAX).min(self.layout.data_end());
        let step = step.checked_div(self.layout.frame_unit)?.checked_mul(self.layout.frame_unit)?;
        let mut from = at;
        while let Some(left) = self.layout.data_end().checked_sub(from).filter(|n| *n > 0) {
            let len = left.min(step);
            let dirty = match self.read(s, from, len, buf) {
                Some(bytes) => bytes.iter().position(|b| *b != 0xFF).and_then(|p| u32::try_from(p).ok()),
                None => Some(0),
            };
            if let Some(p) = dirty {
                let unit = self.layout.frame_unit;
                // The word at `at` was read as erased: if it is not any more, it is metastable.
                let next = from.saturating_add(p.checked_div(unit)?.checked_mul(unit)?);
                self.at = next.max(at.saturating_add(unit));
                return Some(if next == at { Found::Bad { claimed: true } } else { Found::Blank });
            }
            from = from.saturating_add(len);
        }
        self.at = self.layout.data_end();
        None
    }
}

/// Fills in what a compact frame says only in its payload; `None` if the payload is malformed.
fn complete(frame: Frame, payload: &[u8], want: Expected, wide: bool) -> Option<Frame> {
    if wide {
        return Some(frame);
    }
    match frame.kind {
        FrameKind::Edit => {
            let (head, _) = EditHead::read(payload)?;
            let durable_upto = head.durable_upto;
            Some(Frame { first_seq: head.edit_no, epoch: head.epoch, durable_upto, ..frame })
        }
        FrameKind::Origin => {
            let (origin, _) = Origin::read(payload)?;
            Some(Frame {
                first_seq: origin.first_seq,
                epoch: origin.epoch,
                durable_upto: origin.durable_upto,
                volatile_bound: origin.volatile_bound,
                ..frame
            })
        }
        FrameKind::Close => {
            let close = crate::format::events::Close::read(payload)?;
            let durable_upto = close.next_seq.checked_sub(1)?;
            Some(Frame { first_seq: close.next_seq, epoch: want.epoch, durable_upto, ..frame })
        }
        FrameKind::Rows => {
            let frame = Frame { count: count_rows(&frame, payload)?, ..frame };
            frame.first_seq.checked_add(u64::from(frame.count))?;
            Some(frame)
        }
        FrameKind::RowGroup | FrameKind::Index => None, // never written on a compact medium
    }
}

/// Counts the records of a compact frame, whose header does not say; `None` if it is malformed.
fn count_rows(frame: &Frame, payload: &[u8]) -> Option<u32> {
    let (_, mut items) = Prefix::read(payload, frame.flags.is_part())?;
    let count = items.by_ref().try_fold(0u32, |count, item| count.checked_add(item.numbers()))?;
    if items.is_malformed() { None } else { Some(count) }
}
