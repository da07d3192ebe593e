//! Decoding a row group: from packed columns back to row items, found by number.
//!
//! Invariants: nothing here panics, loops or writes outside of what it was given, whatever the bytes; every number of
//! the group comes out exactly once, or the group is refused; each record comes out as the same row item that went in.

// Bytes that are decoded here may be anything: no arithmetic that can wrap or panic, no slice that can be out of range.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

use super::columns::{
    HAS_EVENT_TIMES, HAS_FIELDS, HAS_LENGTHS, HAS_TRACES, ROW_CONTINUED, ROW_EVENT_TIME, ROW_FIELDS, ROW_TRACE,
    TRACE_BYTES,
};
use super::numbers::NumberReader;
use super::{BlockInfo, Group, Packing};
use crate::format::frame::Frame;
use crate::format::row::{Item, ItemReader, ItemWriter, Row, TraceContext};
use crate::lz4;
use core::ffi::CStr;

/// In the slots of [`decode_where`]: the record was left out.
pub const ABSENT: u32 = u32::MAX;

/// Decodes the row group in a frame's payload into `raw` as row items, and notes in `slots` where each record stands,
/// by its number less the frame's first. Returns the bytes of the items, from the front of `raw`.
///
/// `None` if the group is damaged, if `slots` are fewer than its records, or if `raw` is shorter than
/// [`super::group_raw_bytes`] says. What `raw` holds behind the items is of no use.
pub fn decode(payload: &[u8], frame: &Frame, raw: &mut [u8], slots: &mut [u32]) -> Option<usize> {
    decode_where(payload, frame, raw, slots, |_| true)
}

/// As [`decode`], but only sub-blocks that `keep` wants; the slots of all other records are [`ABSENT`].
pub fn decode_where(
    payload: &[u8],
    frame: &Frame,
    raw: &mut [u8],
    slots: &mut [u32],
    mut keep: impl FnMut(&BlockInfo) -> bool,
) -> Option<usize> {
    let group = Group::read(payload, frame.flags.is_part())?;
    if (group.first_seq, group.count, group.upto) != (frame.first_seq, frame.count, None) {
        return None;
    }
    let slots = slots.get_mut(..usize::try_from(group.count).ok()?)?;
    slots.fill(ABSENT);
    let (mut blocks, mut records, mut used) = (group.blocks(), 0u32, 0usize);
    for info in blocks.by_ref() {
        records = records.checked_add(info.count)?;
        if !keep(&info) {
            continue;
        }
        let mut note = |seq: u64, at: u32| {
            let slot = slots.get_mut(usize::try_from(seq.checked_sub(group.first_seq)?).ok()?)?;
            if *slot != ABSENT {
                return None;
            }
            *slot = at;
            Some(())
        };
        used = used.checked_add(block(&group, &info, raw, used, true, &mut note)?)?;
    }
    (blocks.is_whole() && records == group.count).then_some(used)
}

/// What [`decode_sparse`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparseDecoded {
    /// What the numbers in the places are counted from.
    pub first_seq: u64,
    /// Bytes of row items, from the front of `raw`.
    pub bytes: usize,
    /// Records, and so places.
    pub records: usize,
}

/// Decodes the row group of a table into `raw` as row items, and notes in `places`, in ascending order, the number of
/// each record less [`SparseDecoded::first_seq`], and where it stands: [`ABSENT`] for those of sub-blocks that `keep`
/// does not want.
///
/// `None` if the group is damaged, or `raw` or `places` are too short for it.
pub fn decode_sparse(
    payload: &[u8],
    frame: &Frame,
    raw: &mut [u8],
    places: &mut [[u32; 2]],
    mut keep: impl FnMut(&BlockInfo) -> bool,
) -> Option<SparseDecoded> {
    let group = Group::read(payload, frame.flags.is_part())?;
    let upto = group.upto?;
    if group.first_seq < frame.first_seq || group.last_seq > upto || group.count != frame.count {
        return None;
    }
    let (mut blocks, mut records, mut bytes) = (group.blocks(), 0usize, 0usize);
    for info in blocks.by_ref() {
        let wanted = keep(&info);
        let mut note = |seq: u64, at: u32| {
            let delta = u32::try_from(seq.checked_sub(group.first_seq)?).ok()?;
            *places.get_mut(records)? = [delta, if wanted { at } else { ABSENT }];
            records = records.checked_add(1)?;
            Some(())
        };
        bytes = bytes.checked_add(block(&group, &info, raw, bytes, wanted, &mut note)?)?;
    }
    let places = places.get_mut(..records)?;
    places.sort_unstable();
    let is_sound = blocks.is_whole()
        && usize::try_from(group.count) == Ok(records)
        && places.windows(2).all(|w| matches!(w, [a, b] if a.first() < b.first()));
    is_sound.then_some(SparseDecoded { first_seq: group.first_seq, bytes, records })
}

/// Decodes one sub-block to `raw[used..]`, or only its numbers; returns the bytes of its row items.
fn block(
    group: &Group<'_>,
    info: &BlockInfo,
    raw: &mut [u8],
    used: usize,
    wanted: bool,
    note: &mut impl FnMut(u64, u32) -> Option<()>,
) -> Option<usize> {
    let packed = group.packed(info)?;
    let room = raw.get_mut(used..)?;
    let row_bytes = usize::try_from(info.row_bytes).ok()?;
    match (info.packing, wanted) {
        (Packing::Stored, true) => rows(info, packed, used, room.get_mut(..row_bytes)?, note)?,
        (Packing::Stored, false) => numbers_of(info, packed, note)?,
        (Packing::Lz4, _) => {
            let columns_at = room.len().checked_sub(usize::try_from(info.raw_bytes).ok()?)?;
            let (room, columns) = room.split_at_mut_checked(columns_at)?;
            lz4::decompress(packed, columns).ok()?;
            if wanted {
                rows(info, columns, used, room.get_mut(..row_bytes)?, note)?;
            } else {
                numbers_of(info, columns, note)?;
            }
        }
        (Packing::Unknown(_), _) => return None,
    }
    Some(if wanted { row_bytes } else { 0 })
}

/// Notes the numbers of a sub-block whose records are not wanted.
fn numbers_of(info: &BlockInfo, columns: &[u8], note: &mut impl FnMut(u64, u32) -> Option<()>) -> Option<()> {
    let mut columns = Columns::open(columns, usize::try_from(info.count).ok()?)?;
    let mut seq = info.first_seq;
    for i in 0..info.count {
        if i > 0 {
            seq = seq.wrapping_add(columns.seqs.next()?.cast_unsigned());
        }
        note(seq, ABSENT)?;
    }
    (seq == info.last_seq).then_some(())
}

/// Splits `n` bytes off the front of `rest`.
fn take<'b>(rest: &mut &'b [u8], n: usize) -> Option<&'b [u8]> {
    let (front, behind) = rest.split_at_checked(n)?;
    *rest = behind;
    Some(front)
}

/// Splits a column of numbers off the front of `rest`.
fn numbers<'b>(rest: &mut &'b [u8], count: usize) -> Option<NumberReader<'b>> {
    let (column, behind) = NumberReader::split(rest, count)?;
    *rest = behind;
    Some(column)
}

/// The columns of a sub-block, opened.
struct Columns<'b> {
    severities: &'b [u8],
    flags: &'b [u8],
    received_us: u64,
    event_us: i64,
    seqs: NumberReader<'b>,
    received: NumberReader<'b>,
    events: NumberReader<'b>,
    lengths: Option<NumberReader<'b>>,
    field_lengths: NumberReader<'b>,
    traces: &'b [u8],
    fields: &'b [u8],
    bodies: &'b [u8],
}

impl<'b> Columns<'b> {
    fn open(bytes: &'b [u8], count: usize) -> Option<Self> {
        let (has, rest) = bytes.split_first()?;
        let has = *has;
        if has & !(HAS_LENGTHS | HAS_EVENT_TIMES | HAS_TRACES | HAS_FIELDS) != 0 {
            return None;
        }
        let mut head = ItemReader::new(rest);
        let received_us = head.value()?;
        let event_us = if has & HAS_EVENT_TIMES == 0 { 0 } else { head.value()? };
        let field_bytes: u32 = if has & HAS_FIELDS == 0 { 0 } else { head.value()? };
        let mut rest = head.rest();
        let severities = take(&mut rest, count)?;
        let flags = take(&mut rest, count)?;
        if flags.iter().any(|flags| flags & !(ROW_EVENT_TIME | ROW_TRACE | ROW_FIELDS | ROW_CONTINUED) != 0) {
            return None;
        }
        let with = |bit: u8| flags.iter().filter(|flags| *flags & bit != 0).count();
        let (timed, traced, fielded) = (with(ROW_EVENT_TIME), with(ROW_TRACE), with(ROW_FIELDS));
        let told = (has & HAS_EVENT_TIMES != 0, has & HAS_TRACES != 0, has & HAS_FIELDS != 0);
        if told != (timed > 0, traced > 0, fielded > 0) {
            return None;
        }
        let seqs = numbers(&mut rest, count.checked_sub(1)?)?;
        let received = numbers(&mut rest, count.checked_sub(1)?)?;
        let events = numbers(&mut rest, timed.saturating_sub(1))?;
        let lengths = if has & HAS_LENGTHS == 0 { None } else { Some(numbers(&mut rest, count)?) };
        let field_lengths = numbers(&mut rest, fielded)?;
        let traces = take(&mut rest, traced.checked_mul(TRACE_BYTES)?)?;
        let fields = take(&mut rest, usize::try_from(field_bytes).ok()?)?;
        let bodies = rest;
        Some(Self {
            severities,
            flags,
            received_us,
            event_us,
            seqs,
            received,
            events,
            lengths,
            field_lengths,
            traces,
            fields,
            bodies,
        })
    }

    #[inline]
    fn body(&mut self) -> Option<&'b [u8]> {
        if let Some(lengths) = &mut self.lengths {
            return take(&mut self.bodies, usize::try_from(lengths.next()?).ok()?);
        }
        let body = CStr::from_bytes_until_nul(self.bodies).ok()?.to_bytes();
        take(&mut self.bodies, body.len().checked_add(1)?)?;
        Some(body)
    }

    #[inline]
    fn fields(&mut self, flags: u8) -> Option<&'b [u8]> {
        if flags & ROW_FIELDS == 0 {
            return Some(&[]);
        }
        take(&mut self.fields, usize::try_from(self.field_lengths.next()?).ok()?)
    }

    #[inline]
    fn trace(&mut self, flags: u8) -> Option<Option<TraceContext>> {
        if flags & ROW_TRACE == 0 {
            return Some(None);
        }
        let trace_id = take(&mut self.traces, 16)?.try_into().ok()?;
        let span_id = take(&mut self.traces, TRACE_BYTES - 16)?.try_into().ok()?;
        Some(Some(TraceContext { trace_id, span_id }))
    }

    /// Nothing is left over.
    fn is_used_up(&self) -> bool {
        self.traces.is_empty() && self.fields.is_empty() && self.bodies.is_empty()
    }
}

/// Writes the records of a sub-block as row items, which fill `out` exactly, and notes their places, `base` and up.
fn rows(
    info: &BlockInfo,
    columns: &[u8],
    base: usize,
    out: &mut [u8],
    note: &mut impl FnMut(u64, u32) -> Option<()>,
) -> Option<()> {
    let count = usize::try_from(info.count).ok()?;
    let mut columns = Columns::open(columns, count)?;
    let (severities, all_flags) = (columns.severities, columns.flags);
    let room = out.len();
    let mut out = ItemWriter::new(out);
    let (mut seq, mut received_us, mut event_us) = (info.first_seq, columns.received_us, columns.event_us);
    let mut timed_before = false;
    for (i, (severity, flags)) in severities.iter().zip(all_flags).enumerate() {
        if i > 0 {
            seq = seq.wrapping_add(columns.seqs.next()?.cast_unsigned());
            received_us = received_us.wrapping_add(columns.received.next()?.cast_unsigned());
        }
        let timed = flags & ROW_EVENT_TIME != 0;
        if timed && timed_before {
            event_us = event_us.wrapping_add(columns.events.next()?);
        }
        timed_before |= timed;
        note(seq, u32::try_from(base.checked_add(out.len())?).ok().filter(|at| *at != ABSENT)?)?;
        out.item(&Item::Row(Row {
            stream: info.stream,
            severity: *severity,
            continued: flags & ROW_CONTINUED != 0,
            received_us,
            event_time_us: timed.then_some(event_us),
            trace: columns.trace(*flags)?,
            body: columns.body()?,
            fields: columns.fields(*flags)?,
        }))?;
    }
    (out.len() == room && seq == info.last_seq && columns.is_used_up()).then_some(())
}
