//! Mount: what is on the medium, and what of it counts. Writes nothing, so boot loops and read-only opens wear nothing.
//!
//! Invariants: it always ends with a verdict; the verdict depends on the medium alone; everything it reports as adopted
//! is durable by that verdict, because the next writer's `void_from` (rule R) stands right above it.
//!
//! Three passes over the segments that the manifest does not call sealed (all of them in a rebuild), in the order of
//! their generations: evidence (what is proven durable), adoption, and then the items of what was adopted. Adoption is
//! provisional: a later mark takes back what stands at or above its `void_from`. `next` is the next number to adopt.
//!
//! | case | what is met | verdict |
//! |---|---|---|
//! | @A | header or origin, `void_from` >= `next` | go on; numbers from `void_from` to its `first_seq` are a declared hole |
//! | @B | header or origin, `void_from` < `next` | everything adopted at or above `void_from` is void |
//! | @C | bad range | decided by what comes after it |
//! | @D | frame of a lower epoch than one before it, or void by the manifest's verdict | void |
//! | @E | records, last < floor | dropped by retention |
//! | @F | records, first = `next` | adopted |
//! | @G | records, first < `next` | a later frame wins (F10): what it repeats is taken back, then @F |
//! | @H | records, first > `next`, the hole is declared | gap `ram-tier`, adopted |
//! | @I | records, first > `next`, the hole is proven durable | gap `rot`, adopted |
//! | @J | records, first > `next`, the hole is not proven | torn: nothing more is adopted before the next mark |
//! | @K | part of a chain that goes on as expected | adopted with its LAST; taken back if that never comes |
//! | @L | part of a chain whose earlier parts are missing | skipped; its batch is lost whole |
//! | @M | close frame as the last valid thing, and nothing of this life behind it | clean stop |
//! | @N | copy of the last frame in an origin, its original missing | adopted from the copy |
//! | @O | end, and more is proven durable than was adopted | gap `rot` up to there |
//! | @P | end in an unfinished chain | its parts are taken back |
//! | @Q | clean end: nothing of this life behind the last frame | the log goes on there |
//! | @R | dirty end | the segment is abandoned |
//! | @S | no slot of the manifest is complete, or later edits are proven | rebuilt from all headers |

use crate::catalog::Catalog;
use crate::error::OpenError;
use crate::format::edit::SegmentUse;
use crate::format::events::{Close, Origin, PreviousEnd};
use crate::format::frame::{Expected, Frame, FrameFlags, FrameKind};
use crate::format::header::{HeaderError, MAGIC, SegmentHeader, SegmentKind};
use crate::format::row::{Item, Prefix};
use crate::gaps::{Gap, GapCause};
use crate::hal::{Geometry, ReadStorage};
use crate::manifest::{Manifest, SlotScan, read_slot};
use crate::walk::{Found, Walker};

/// How far generations skip ahead after a rebuild: announced ones that were not read may have frames (F13).
const REBUILD_GENERATION_SKIP: u64 = 1 << 20;

/// A case of the decision table, for reports and tests: bit `n` stands for case `@A` + n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cases(pub u32);

impl Cases {
    /// Letters of all cases.
    pub const ALL: &'static [u8] = b"ABCDEFGHIJKLMNOPQRS";

    fn visit(&mut self, letter: u8) {
        self.0 |= 1u32.wrapping_shl(u32::from(letter.wrapping_sub(b'A')));
    }

    /// The letters visited.
    pub fn letters(self) -> impl Iterator<Item = char> {
        Self::ALL.iter().enumerate().filter(move |(i, _)| self.0 & (1 << i) != 0).map(|(_, c)| char::from(*c))
    }
}

/// What a mount found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryReport {
    /// How the boot before ended.
    pub previous_end: PreviousEnd,
    /// Last sequence number adopted.
    pub adopted_upto: u64,
    /// Everything up to here counts as durable: adopted, or reported as a gap.
    pub durable_upto: u64,
    /// The number the next record gets.
    pub next_seq: u64,
    /// The boot epoch a writer takes.
    pub epoch: u32,
    /// Bytes that were written but not durable, and are void.
    pub torn_bytes: u32,
    /// Segments of the log that were read.
    pub segments_read: u32,
    /// Frames that verified in them.
    pub frames: u32,
    /// The log goes on where it ended, or else in the next announced segment.
    pub resumes: bool,
    /// Cases of the decision table that were met.
    pub cases: Cases,
}

/// What the writer starts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    pub(crate) void_from: u64,
    pub(crate) next_seq: u64,
    /// Segment and offset where the log goes on, if it ended cleanly.
    pub(crate) resume: Option<(u32, u32)>,
    /// Segment, offset and header of the last frame adopted, after an unclean stop.
    pub(crate) last_frame: Option<(u32, u32, Frame)>,
}

/// A mounted store, not yet written to.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) manifest: Manifest,
    pub(crate) verdict: Verdict,
    pub(crate) report: RecoveryReport,
}

/// What stands where a segment's header should be.
enum HeaderFound {
    Valid(SegmentHeader),
    Newer(u8),
    Blank,
    Damaged,
    Foreign,
}

fn probe_header<S: ReadStorage>(s: &mut S, g: &Geometry, segment: u32, buf: &mut [u8]) -> HeaderFound {
    let want = g.torn_unit.max(256).min(g.segment_bytes);
    let want = want.checked_next_multiple_of(g.read_unit.max(1)).unwrap_or(want);
    let Some(into) = usize::try_from(want).ok().and_then(|n| buf.get_mut(..n)) else { return HeaderFound::Damaged };
    if s.read(g.segment_start(segment), into).is_err() {
        return HeaderFound::Damaged;
    }
    match SegmentHeader::decode(into) {
        Ok(header) => HeaderFound::Valid(header),
        Err(HeaderError::NewerVersion { major }) => HeaderFound::Newer(major),
        Err(HeaderError::Damaged) => HeaderFound::Damaged,
        Err(HeaderError::NotOurs) if into.iter().all(|b| *b == 0) || into.iter().all(|b| *b == 0xFF) => {
            HeaderFound::Blank
        }
        // One damaged byte of the magic does not make a header foreign.
        Err(HeaderError::NotOurs) => {
            let alike = into.iter().zip(MAGIC).filter(|(a, b)| **a == *b).count();
            if alike >= 4 { HeaderFound::Damaged } else { HeaderFound::Foreign }
        }
    }
}

/// The header of a segment, if it verifies and stands where it belongs.
pub(crate) fn read_header<S: ReadStorage>(
    s: &mut S,
    g: &Geometry,
    segment: u32,
    buf: &mut [u8],
) -> Option<SegmentHeader> {
    match probe_header(s, g, segment, buf) {
        HeaderFound::Valid(h) if h.segment == segment && same_shape(&h, g) => Some(h),
        _ => None,
    }
}

fn same_shape(h: &SegmentHeader, g: &Geometry) -> bool {
    h.segments == g.segments && h.segment_bytes == g.segment_bytes && h.torn_unit == g.torn_unit
}

/// Mounts the store into `catalog`.
pub(crate) fn mount<S: ReadStorage>(
    s: &mut S,
    catalog: &mut Catalog<'_>,
    buf: &mut [u8],
    progress: &mut dyn FnMut(u32, u32),
) -> Result<Mounted, OpenError> {
    let slots = identify(s, catalog, buf)?;
    let pick = match (slots[0].complete, slots[1].complete) {
        (true, true) => Some(usize::from(slots[1].edit_no > slots[0].edit_no)),
        (true, false) => Some(0),
        (false, true) => Some(1),
        (false, false) => None,
    };
    let mut evidence = Evidence::of_slots(&slots);
    catalog.clear();
    if let Some(i) = pick {
        let segment = if i == 0 { catalog.pool.manifest_slots()[0] } else { catalog.pool.manifest_slots()[1] };
        read_slot(s, catalog, segment, buf, true);
        catalog.pool.all_published();
    }
    let known_edit = catalog.head.edit_no;
    let mut cases = Cases::default();
    let mut first_unsealed = find_begun(s, catalog, buf);
    let mut pass = Pass { s, buf, progress, cases: &mut cases, segments_read: 0, frames: 0 };
    pass.evidence(catalog, first_unsealed, &mut evidence);
    let rebuilt = pick.is_none() || evidence.edit_no > known_edit;
    if rebuilt {
        pass.cases.visit(b'S');
        pass.list_all(catalog, &mut evidence);
        first_unsealed = 0;
        pass.evidence(catalog, 0, &mut evidence);
    }
    let replay = pass.adopt(catalog, first_unsealed, &evidence, rebuilt);
    pass.apply_items(catalog, first_unsealed);
    let (segments_read, frames) = (pass.segments_read, pass.frames);
    Ok(settle(catalog, &slots, &evidence, &replay, rebuilt, cases, segments_read, frames))
}

/// Finds out whose store this is; reads both slots of its manifest.
fn identify<S: ReadStorage>(s: &mut S, catalog: &mut Catalog<'_>, buf: &mut [u8]) -> Result<[SlotScan; 2], OpenError> {
    let g = catalog.geometry;
    let mut best: Option<[SlotScan; 2]> = None;
    for segment in catalog.pool.manifest_slots() {
        match probe_header(s, &g, segment, buf) {
            HeaderFound::Newer(major) => return Err(OpenError::NewerVersion { major }),
            HeaderFound::Valid(h) if !same_shape(&h, &g) => {
                let (segments, segment_bytes) = (h.segments, h.segment_bytes);
                return Err(OpenError::GeometryMismatch { segments, segment_bytes });
            }
            HeaderFound::Valid(h) if h.segment == segment && h.kind == SegmentKind::Manifest => {
                catalog.store_id = h.store_id;
                let slots = catalog.pool.manifest_slots().map(|slot| read_slot(s, catalog, slot, buf, false));
                if slots.iter().any(|slot| slot.complete) {
                    return Ok(slots);
                }
                best = best.or(Some(slots));
            }
            _ => {}
        }
    }
    identify_by_log(s, catalog, buf, best)
}

/// No slot is complete: the newest segment of the log says whose store this is.
fn identify_by_log<S: ReadStorage>(
    s: &mut S,
    catalog: &mut Catalog<'_>,
    buf: &mut [u8],
    slots: Option<[SlotScan; 2]>,
) -> Result<[SlotScan; 2], OpenError> {
    let g = catalog.geometry;
    let mut newest: Option<SegmentHeader> = None;
    let (mut foreign, mut damaged) = (false, false);
    for segment in 0..g.segments {
        match probe_header(s, &g, segment, buf) {
            HeaderFound::Newer(major) => return Err(OpenError::NewerVersion { major }),
            HeaderFound::Valid(h) if !same_shape(&h, &g) => {
                let (segments, segment_bytes) = (h.segments, h.segment_bytes);
                return Err(OpenError::GeometryMismatch { segments, segment_bytes });
            }
            HeaderFound::Valid(h) if h.kind == SegmentKind::Log && h.segment == segment => {
                if newest.is_none_or(|n| h.generation > n.generation) {
                    newest = Some(h);
                }
            }
            HeaderFound::Valid(_) | HeaderFound::Blank => {}
            HeaderFound::Damaged => damaged = true,
            HeaderFound::Foreign => foreign = true,
        }
    }
    match newest {
        Some(header) => {
            catalog.store_id = header.store_id;
            Ok(catalog.pool.manifest_slots().map(|slot| read_slot(s, catalog, slot, buf, false)))
        }
        // Headers of an unfinished format, or nothing at all: no record was ever stored here.
        None if slots.is_some() || !foreign => Err(OpenError::Blank),
        None if damaged => Err(OpenError::Foreign),
        None => Err(OpenError::Foreign),
    }
}

/// Marks the announced segments that the log went into; returns the place of the first unsealed one in the order.
///
/// A header is synced before the first frame, so a segment without one holds frames only if the header rotted; then
/// its first frame, or failing that any frame, gives it away (F2).
fn find_begun<S: ReadStorage>(s: &mut S, catalog: &mut Catalog<'_>, buf: &mut [u8]) -> usize {
    let mut after = 0;
    let mut last_begun = 0;
    while let Some(segment) = catalog.pool.announced_after(after) {
        let generation = catalog.pool.get(segment).state.generation;
        after = generation;
        if is_begun(s, catalog, segment, generation, buf) {
            last_begun = generation;
        }
    }
    mark_begun(catalog, last_begun)
}

fn mark_begun(catalog: &mut Catalog<'_>, last_begun: u64) -> usize {
    let mut after = 0;
    while let Some(segment) = catalog.pool.announced_after(after) {
        let Some(entry) = catalog.pool.entry_mut(segment) else { break };
        after = entry.state.generation;
        entry.begun = after <= last_begun;
    }
    catalog.pool.sort_order(|e| e.state.used_for == SegmentUse::Sealed || e.begun);
    let sealed = |s: &&u32| catalog.pool.get(**s).state.used_for == SegmentUse::Sealed;
    catalog.pool.order().iter().take_while(sealed).count()
}

fn is_begun<S: ReadStorage>(s: &mut S, catalog: &Catalog<'_>, segment: u32, generation: u64, buf: &mut [u8]) -> bool {
    let mut walker = walker_of(catalog, segment, generation, None);
    match probe_header(s, &catalog.geometry, segment, buf) {
        HeaderFound::Valid(h) if h.store_id == catalog.store_id && h.generation == generation => true,
        // An older life, or never used: the header write would have been synced before any frame.
        HeaderFound::Valid(_) | HeaderFound::Blank => {
            matches!(walker.next(s, buf), Some(Found::Frame { .. }))
        }
        HeaderFound::Newer(_) | HeaderFound::Damaged | HeaderFound::Foreign => {
            core::iter::from_fn(|| walker.next(s, buf).map(|f| matches!(f, Found::Frame { .. }))).any(|valid| valid)
        }
    }
}

pub(crate) fn walker_of(
    catalog: &Catalog<'_>,
    segment: u32,
    generation: u64,
    header: Option<&SegmentHeader>,
) -> Walker {
    let life = crate::format::crc::Life { store_id: catalog.store_id, segment, generation };
    let start = header.map_or_else(|| catalog.data_start(), SegmentHeader::data_start);
    let want = Expected { seq: header.map_or(0, |h| h.first_seq), epoch: header.map_or(0, |h| h.epoch) };
    Walker::new(catalog.layout, life, catalog.geometry.read_unit, start, want)
}

/// Reads the frame at a place where `want` was adopted; returns where its payload stands in `buf`.
pub(crate) fn read_frame<S: ReadStorage>(
    s: &mut S,
    catalog: &Catalog<'_>,
    segment: u32,
    offset: u32,
    want: &Frame,
    buf: &mut [u8],
) -> Option<(usize, usize)> {
    let generation = catalog.pool.get(segment).state.generation;
    let mut walker = walker_of(catalog, segment, generation, None);
    (walker.at, walker.want) = (offset, Expected { seq: want.first_seq, epoch: want.epoch });
    match walker.next(s, buf)? {
        Found::Frame { frame, payload, .. } if frame.first_seq == want.first_seq && frame.kind == want.kind => {
            let start = usize::try_from(catalog.layout.payload_at(frame.flags)).ok()?;
            Some((start, payload.len()))
        }
        _ => None,
    }
}

/// What anything valid proves.
#[derive(Debug, Clone, Copy, Default)]
struct Evidence {
    epoch: u32,
    durable_upto: u64,
    edit_no: u64,
    generation: u64,
    /// Highest number that may have been handed out.
    handed_out: u64,
    /// Highest `first_seq` of an origin or header.
    first_seq: u64,
}

impl Evidence {
    fn of_slots(slots: &[SlotScan; 2]) -> Self {
        let mut e = Self::default();
        for slot in slots {
            e.epoch = e.epoch.max(slot.epoch);
            e.durable_upto = e.durable_upto.max(slot.durable_upto);
            e.edit_no = e.edit_no.max(slot.proven_edit_no.max(slot.edit_no));
            e.generation = e.generation.max(slot.header.map_or(0, |h| h.generation));
        }
        e
    }

    fn take_header(&mut self, h: &SegmentHeader) {
        self.epoch = self.epoch.max(h.epoch);
        self.durable_upto = self.durable_upto.max(h.durable_upto);
        self.edit_no = self.edit_no.max(h.edit_no);
        self.generation = self.generation.max(h.generation);
        self.first_seq = self.first_seq.max(h.first_seq);
    }

    fn take_frame(&mut self, frame: &Frame, payload: &[u8]) {
        self.epoch = self.epoch.max(frame.epoch);
        self.durable_upto = self.durable_upto.max(frame.durable_upto);
        let bound = u64::from(frame.volatile_bound);
        self.handed_out = self.handed_out.max(frame.durable_upto.saturating_add(bound));
        match frame.kind {
            FrameKind::Origin => {
                if let Some((origin, _)) = Origin::read(payload) {
                    self.edit_no = self.edit_no.max(origin.edit_no);
                    self.first_seq = self.first_seq.max(origin.first_seq);
                    let handed_out = origin.first_seq.saturating_sub(1).saturating_add(bound);
                    self.handed_out = self.handed_out.max(handed_out);
                }
            }
            FrameKind::Close => {
                if let Some(close) = Close::read(payload) {
                    self.edit_no = self.edit_no.max(close.edit_no);
                    self.first_seq = self.first_seq.max(close.next_seq);
                }
            }
            _ => {}
        }
    }
}

/// The three passes, with what they share.
struct Pass<'p, 'b, S> {
    s: &'p mut S,
    buf: &'b mut [u8],
    progress: &'p mut dyn FnMut(u32, u32),
    cases: &'p mut Cases,
    segments_read: u32,
    frames: u32,
}

impl<S: ReadStorage> Pass<'_, '_, S> {
    fn header(&mut self, catalog: &Catalog<'_>, segment: u32) -> Option<SegmentHeader> {
        let generation = catalog.pool.get(segment).state.generation;
        read_header(self.s, &catalog.geometry, segment, self.buf)
            .filter(|h| h.kind == SegmentKind::Log && h.store_id == catalog.store_id && h.generation == generation)
    }

    /// Pass 1.
    fn evidence(&mut self, catalog: &Catalog<'_>, from: usize, evidence: &mut Evidence) {
        for (i, segment) in catalog.pool.order().iter().copied().enumerate().skip(from) {
            (self.progress)(u32::try_from(i).unwrap_or(0), u32::try_from(catalog.pool.order().len()).unwrap_or(0));
            let header = self.header(catalog, segment);
            if let Some(h) = &header {
                evidence.take_header(h);
            }
            let mut epoch = header.map_or(0, |h| h.epoch);
            let generation = catalog.pool.get(segment).state.generation;
            let mut walker = walker_of(catalog, segment, generation, header.as_ref());
            if header.is_none() {
                walker.want = Expected { seq: evidence.durable_upto.max(1), epoch: evidence.epoch };
            }
            while let Some(found) = walker.next(self.s, self.buf) {
                if let Found::Frame { frame, payload, .. } = found
                    && frame.epoch >= epoch
                {
                    epoch = frame.epoch;
                    evidence.take_frame(&frame, payload);
                }
            }
            self.take_trailer(catalog, segment, evidence);
        }
    }

    fn take_trailer(&mut self, catalog: &Catalog<'_>, segment: u32, evidence: &mut Evidence) {
        if let Some(trailer) = crate::wal::read_trailer(self.s, catalog, segment, self.buf) {
            evidence.durable_upto = evidence.durable_upto.max(trailer.durable_upto);
        }
    }

    /// For a rebuild: every segment with a header of this store, or that a valid edit speaks of, by generation.
    fn list_all(&mut self, catalog: &mut Catalog<'_>, evidence: &mut Evidence) {
        let slots = catalog.pool.manifest_slots();
        for segment in 0..catalog.geometry.segments {
            let header = read_header(self.s, &catalog.geometry, segment, self.buf);
            let Some(h) = header.filter(|h| h.store_id == catalog.store_id) else { continue };
            evidence.take_header(&h);
            for (floor, known) in catalog.floor.iter_mut().zip(h.floor_seq) {
                *floor = (*floor).max(known);
            }
            let Some(entry) = catalog.pool.entry_mut(segment) else { continue };
            if slots.contains(&segment) || h.kind != SegmentKind::Log || h.generation < entry.state.generation {
                continue;
            }
            entry.state.used_for = SegmentUse::Announced;
            entry.state.generation = h.generation;
            entry.state.erase_count = entry.state.erase_count.max(h.erase_count);
            entry.begun = true;
        }
        for segment in 0..catalog.geometry.segments {
            let Some(entry) = catalog.pool.entry_mut(segment) else { continue };
            entry.dirty = true;
            entry.begun |= matches!(entry.state.used_for, SegmentUse::Announced | SegmentUse::Sealed);
        }
        catalog.pool.sort_order(|e| e.begun);
        let floor = catalog.floor();
        catalog.gaps.raise_floor(floor);
    }

    /// Pass 2.
    fn adopt(&mut self, catalog: &mut Catalog<'_>, from: usize, evidence: &Evidence, rebuilt: bool) -> Replay {
        let sealed_upto = catalog.pool.order().iter().take(from);
        let sealed_upto = sealed_upto.map(|s| catalog.pool.get(*s).state.last_seq).max().unwrap_or(0);
        let mut replay = Replay::new(catalog.floor().max(sealed_upto.saturating_add(1)), evidence.durable_upto);
        for i in from..catalog.pool.order().len() {
            let Some(segment) = catalog.pool.order().get(i).copied() else { break };
            self.segments_read = self.segments_read.saturating_add(1);
            self.adopt_segment(catalog, segment, &mut replay);
        }
        replay.finish(catalog, self.cases, rebuilt);
        replay
    }

    fn adopt_segment(&mut self, catalog: &mut Catalog<'_>, segment: u32, replay: &mut Replay) {
        let header = self.header(catalog, segment);
        let generation = catalog.pool.get(segment).state.generation;
        if let Some(h) = &header {
            replay.epoch = replay.epoch.max(h.epoch);
            replay.mark(catalog, h.void_from, h.first_seq, self.cases);
        } else {
            self.cases.visit(b'C');
        }
        let mut walker = walker_of(catalog, segment, generation, header.as_ref());
        if header.is_none() {
            walker.want = Expected { seq: replay.next, epoch: replay.epoch };
        }
        if let Some(entry) = catalog.pool.entry_mut(segment) {
            entry.state.first_seq = replay.next;
            entry.state.last_seq = replay.next.saturating_sub(1);
            entry.state.chain_tail = 0;
            entry.dirty = true;
        }
        replay.tail = Tail { segment, at: walker.at, dirty: header.is_none(), bad: false, claimed: false };
        while let Some(found) = walker.next(self.s, self.buf) {
            match found {
                Found::Frame { at, end, frame, payload } => {
                    self.frames = self.frames.saturating_add(1);
                    let void = frame.epoch < replay.epoch
                        || (frame.kind.holds_records()
                            && generation <= catalog.head.void_gen
                            && frame.last_seq() >= catalog.head.void_from);
                    replay.epoch = replay.epoch.max(frame.epoch);
                    replay.tail.dirty |= replay.tail.bad || void;
                    replay.tail.at = end;
                    if void {
                        self.cases.visit(b'D');
                        replay.closed = None;
                        continue;
                    }
                    replay.frame(catalog, segment, at, &frame, payload, self.cases);
                }
                Found::Bad { claimed, .. } => {
                    self.cases.visit(b'C');
                    replay.tail.bad = true;
                    replay.tail.claimed |= claimed;
                    if claimed {
                        replay.torn_bytes = replay.torn_bytes.saturating_add(walker.layout.frame_unit);
                    }
                }
                Found::TooLarge => replay.tail.dirty = true,
            }
        }
    }

    /// Pass 3: names, states and clocks of what was adopted, and only of that.
    fn apply_items(&mut self, catalog: &mut Catalog<'_>, from: usize) {
        for i in from..catalog.pool.order().len() {
            let Some(segment) = catalog.pool.order().get(i).copied() else { break };
            let entry = catalog.pool.get(segment).state;
            let header = self.header(catalog, segment);
            if let Some(h) = &header {
                catalog.clocks.set(h.anchor);
            }
            let mut walker = walker_of(catalog, segment, entry.generation, header.as_ref());
            if header.is_none() {
                walker.want.seq = entry.first_seq;
            }
            let mut next = entry.first_seq;
            while let Some(found) = walker.next(self.s, self.buf) {
                let Found::Frame { frame, payload, .. } = found else { continue };
                if frame.kind == FrameKind::Origin {
                    if let Some((origin, _)) = Origin::read(payload) {
                        catalog.clocks.set(origin.anchor);
                    }
                    continue;
                }
                let lost = catalog.gaps.first_in(frame.first_seq, frame.last_seq()).is_some();
                if !frame.kind.holds_records() || frame.first_seq < next || frame.last_seq() > entry.last_seq || lost {
                    continue;
                }
                next = frame.last_seq().saturating_add(1);
                apply_frame_items(catalog, &frame, payload);
            }
        }
        catalog.tables_dirty = true;
    }
}

fn apply_frame_items(catalog: &mut Catalog<'_>, frame: &Frame, payload: &[u8]) {
    let items = match frame.kind {
        FrameKind::RowGroup => crate::sstable::preamble(payload, frame.flags.is_part()),
        _ => Prefix::read(payload, frame.flags.is_part()).map(|(_, items)| items),
    };
    for item in items.into_iter().flatten() {
        match item {
            Item::Row(_) => {}
            Item::Stream { id, name } => {
                catalog.streams.define(id, name);
            }
            Item::State { key, value } => {
                catalog.state.set(key, value);
            }
            Item::Clock(anchor) => catalog.clocks.set(anchor),
        }
    }
}

/// The end of the last segment.
#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    segment: u32,
    at: u32,
    dirty: bool,
    bad: bool,
    claimed: bool,
}

#[derive(Debug, Clone, Copy)]
struct OpenChain {
    first: u64,
    last: u64,
    part: u16,
    epoch: u32,
}

/// The state of adoption.
#[derive(Debug)]
struct Replay {
    next: u64,
    durable_upto: u64,
    epoch: u32,
    stopped: bool,
    chain: Option<OpenChain>,
    /// Declared holes [from, to) at or above `next`, in order.
    holes: heapless::Vec<(u64, u64), 8>,
    tail: Tail,
    closed: Option<Close>,
    last_frame: Option<(u32, u32, Frame)>,
    /// Highest number of adopted records plus the bound of their frame.
    handed_out: u64,
    torn_bytes: u32,
    any: bool,
}

impl Replay {
    fn new(next: u64, durable_upto: u64) -> Self {
        Self {
            next,
            durable_upto,
            epoch: 0,
            stopped: false,
            chain: None,
            holes: heapless::Vec::new(),
            tail: Tail::default(),
            closed: None,
            last_frame: None,
            handed_out: 0,
            torn_bytes: 0,
            any: false,
        }
    }

    /// Takes back everything adopted at or above `from`.
    fn take_back(&mut self, catalog: &mut Catalog<'_>, from: u64) {
        catalog.pool.truncate(from);
        catalog.gaps.truncate(from);
        self.next = self.next.min(from);
        self.handed_out = self.handed_out.min(from);
        if self.last_frame.is_some_and(|(_, _, f)| f.last_seq() >= from) {
            self.last_frame = None;
        }
        if self.chain.is_some_and(|c| c.first >= from || c.last >= from) {
            self.chain = None;
        }
    }

    /// @A and @B: a header or an origin.
    fn mark(&mut self, catalog: &mut Catalog<'_>, void_from: u64, first_seq: u64, cases: &mut Cases) {
        (self.stopped, self.closed, self.any) = (false, None, true);
        if void_from < self.next {
            cases.visit(b'B');
            self.tail.dirty = true;
            self.take_back(catalog, void_from.max(catalog.floor()));
        } else {
            cases.visit(b'A');
        }
        self.holes.retain(|hole| hole.0 < void_from);
        if let Some(last) = self.holes.last_mut() {
            last.1 = last.1.min(void_from);
        }
        if first_seq > void_from {
            if self.holes.is_full() {
                // More boots without a record than any log shows; the last hole takes this one in, "at most".
                if let Some(last) = self.holes.last_mut() {
                    last.1 = first_seq;
                }
            } else {
                self.holes.push((void_from, first_seq)).ok();
            }
        }
    }

    fn frame(
        &mut self,
        catalog: &mut Catalog<'_>,
        segment: u32,
        at: u32,
        frame: &Frame,
        payload: &[u8],
        cases: &mut Cases,
    ) {
        self.any = true;
        match frame.kind {
            FrameKind::Origin => {
                let Some((origin, copy)) = Origin::read(payload) else { return };
                if let Some(copy) = copy.filter(|c| c.first_seq == self.next && c.count > 0 && self.chain.is_none()) {
                    cases.visit(b'N');
                    let flags = FrameFlags::WHOLE;
                    let copied =
                        Frame { kind: FrameKind::Rows, flags, first_seq: copy.first_seq, count: copy.count, ..*frame };
                    self.adopt(catalog, segment, at, &copied);
                }
                self.drop_chain(catalog);
                self.mark(catalog, origin.void_from, origin.first_seq, cases);
            }
            FrameKind::Close => self.closed = Close::read(payload),
            FrameKind::Index | FrameKind::Edit => self.closed = None,
            FrameKind::Rows | FrameKind::RowGroup => {
                self.closed = None;
                self.records(catalog, segment, at, frame, payload, cases);
            }
        }
    }

    fn drop_chain(&mut self, catalog: &mut Catalog<'_>) {
        if let Some(chain) = self.chain.take() {
            self.take_back(catalog, chain.first);
        }
    }

    fn records(
        &mut self,
        catalog: &mut Catalog<'_>,
        segment: u32,
        at: u32,
        frame: &Frame,
        payload: &[u8],
        cases: &mut Cases,
    ) {
        if frame.count > 0 && frame.last_seq() < catalog.floor() {
            cases.visit(b'E');
            return;
        }
        if self.stopped {
            self.tail.dirty = true;
            return;
        }
        if !frame.flags.has(FrameFlags::FIRST) {
            return self.middle_of_chain(catalog, segment, at, frame, payload, cases);
        }
        self.drop_chain(catalog);
        if frame.first_seq < self.next {
            cases.visit(b'G');
            self.tail.dirty = true;
            if frame.count == 0 {
                return;
            }
            self.take_back(catalog, frame.first_seq.max(catalog.floor()));
        }
        if frame.first_seq > self.next && !self.bridge(catalog, frame.first_seq, cases) {
            cases.visit(b'J');
            (self.stopped, self.tail.dirty) = (true, true);
            return;
        }
        cases.visit(b'F');
        if frame.flags.is_part() {
            let Some((first, last)) = Prefix::read(payload, true).and_then(|(prefix, _)| prefix.batch) else { return };
            self.chain = Some(OpenChain { first, last, part: 1, epoch: frame.epoch });
        }
        self.adopt(catalog, segment, at, frame);
    }

    /// @K and @L.
    fn middle_of_chain(
        &mut self,
        catalog: &mut Catalog<'_>,
        segment: u32,
        at: u32,
        frame: &Frame,
        payload: &[u8],
        cases: &mut Cases,
    ) {
        let batch = Prefix::read(payload, true).and_then(|(prefix, _)| prefix.batch);
        let goes_on = self.chain.filter(|c| {
            c.part == frame.part
                && c.epoch == frame.epoch
                && frame.first_seq == self.next
                && batch == Some((c.first, c.last))
        });
        let Some(mut chain) = goes_on else {
            cases.visit(b'L');
            self.drop_chain(catalog);
            // Not proven durable: whatever follows was not adopted by anyone either.
            if batch.is_none_or(|(_, last)| last > self.durable_upto) && frame.first_seq >= catalog.floor() {
                (self.stopped, self.tail.dirty) = (true, true);
            }
            return;
        };
        cases.visit(b'K');
        chain.part = chain.part.saturating_add(1);
        self.chain = (!frame.flags.has(FrameFlags::LAST)).then_some(chain);
        self.adopt(catalog, segment, at, frame);
    }

    /// @F: the frame's records follow on `next`.
    fn adopt(&mut self, catalog: &mut Catalog<'_>, segment: u32, at: u32, frame: &Frame) {
        let last = frame.last_seq();
        if let Some(entry) = catalog.pool.entry_mut(segment) {
            let state = &mut entry.state;
            if state.last_seq < state.first_seq {
                state.first_seq = frame.first_seq.max(state.first_seq);
            }
            state.last_seq = state.last_seq.max(last);
            let batch_end = self.chain.map_or(last, |c| c.last);
            state.chain_tail = u32::try_from(batch_end.saturating_sub(last)).unwrap_or(u32::MAX);
        }
        self.next = self.next.max(last.saturating_add(1));
        self.handed_out = self.handed_out.max(last.saturating_add(u64::from(frame.volatile_bound)));
        if frame.count > 0 {
            self.last_frame = Some((segment, at, *frame));
        }
    }

    /// @H and @I: decides on the numbers from `next` up to `first`; `false` if one of them is neither declared as a
    /// hole nor proven durable.
    fn bridge(&mut self, catalog: &mut Catalog<'_>, first: u64, cases: &mut Cases) -> bool {
        if self.missing(first).any(|(_, to, declared)| !declared && self.durable_upto < to.saturating_sub(1)) {
            return false;
        }
        self.report_missing(catalog, first, cases);
        true
    }

    /// The numbers from `next` up to `to`, in pieces [from, to, declared as a hole).
    fn missing(&self, to: u64) -> impl Iterator<Item = (u64, u64, bool)> + '_ {
        let mut from = self.next;
        core::iter::from_fn(move || {
            if from >= to {
                return None;
            }
            let inside = self.holes.iter().filter(|h| h.0 <= from && from < h.1).map(|h| h.1).max();
            let piece_end = match inside {
                Some(end) => end.min(to),
                None => self.holes.iter().map(|h| h.0).filter(|start| *start > from).min().unwrap_or(to).min(to),
            };
            let piece = (from, piece_end, inside.is_some());
            from = piece_end;
            Some(piece)
        })
    }

    fn report_missing(&self, catalog: &mut Catalog<'_>, to: u64, cases: &mut Cases) {
        for (from, to, declared) in self.missing(to) {
            cases.visit(if declared { b'H' } else { b'I' });
            let (exact, cause) = if declared { (false, GapCause::RamTier) } else { (true, GapCause::Rot) };
            catalog.gaps.add(Gap::new(from, to.saturating_sub(1), exact, cause));
        }
    }

    /// @O to @R: what remains once everything was read.
    fn finish(&mut self, catalog: &mut Catalog<'_>, cases: &mut Cases, rebuilt: bool) {
        if self.chain.is_some() {
            cases.visit(b'P');
            self.tail.dirty = true;
            self.drop_chain(catalog);
        }
        let adopted = self.next.saturating_sub(1);
        let holes_end = self.holes.iter().map(|h| h.1).max().unwrap_or(0);
        let end = self.durable_upto.saturating_add(1).max(holes_end);
        for (from, to, declared) in self.missing(end) {
            if declared {
                catalog.gaps.add(Gap::new(from, to.saturating_sub(1), false, GapCause::RamTier));
            } else if from <= self.durable_upto {
                cases.visit(b'O');
                let last = to.saturating_sub(1).min(self.durable_upto);
                catalog.gaps.add(Gap::new(from, last, true, GapCause::Rot));
            }
        }
        let tail_generation = catalog.pool.get(self.tail.segment).state.generation;
        self.tail.dirty |= self.tail.claimed || self.stopped || rebuilt || tail_generation <= catalog.head.void_gen;
        self.durable_upto = self.durable_upto.max(adopted);
        if rebuilt {
            catalog.gaps.add(Gap::new(catalog.floor(), 0, false, GapCause::LedgerLost));
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the end of mount: everything the passes found comes together here")]
fn settle(
    catalog: &mut Catalog<'_>,
    slots: &[SlotScan; 2],
    evidence: &Evidence,
    replay: &Replay,
    rebuilt: bool,
    mut cases: Cases,
    segments_read: u32,
    frames: u32,
) -> Mounted {
    let adopted_upto = replay.next.saturating_sub(1);
    let last_segment = catalog.pool.last();
    let dirty = replay.tail.dirty || last_segment.is_none();
    let closed = replay.closed.filter(|_| !dirty);
    cases.visit(if dirty { b'R' } else { b'Q' });
    let base = replay.durable_upto;
    let mut next_seq = base.saturating_add(1).max(evidence.first_seq);
    let previous_end = match (rebuilt, closed, replay.any) {
        (true, _, _) => PreviousEnd::Rebuilt,
        (false, Some(close), _) => {
            cases.visit(b'M');
            next_seq = next_seq.max(close.next_seq);
            PreviousEnd::Clean
        }
        (false, None, true) => PreviousEnd::Cut,
        (false, None, false) => PreviousEnd::New,
    };
    if !matches!(previous_end, PreviousEnd::Clean | PreviousEnd::New) {
        let handed_out = evidence.handed_out.max(replay.handed_out).max(catalog.head.seq_ceiling);
        next_seq = next_seq.max(handed_out.saturating_add(1));
    }
    let void_from = base.saturating_add(1);
    let epoch = evidence.epoch.saturating_add(1);
    let edit_no = catalog.head.edit_no;
    let manifest = Manifest::resume(slots, edit_no, rebuilt);
    let head = &mut catalog.head;
    let slot_generations = slots.iter().map(|s| s.header.map_or(0, |h| h.generation)).max().unwrap_or(0);
    head.edit_no = head.edit_no.max(evidence.edit_no);
    head.next_generation = head.next_generation.max(slot_generations.saturating_add(1));
    if rebuilt {
        let fresh = evidence.generation.saturating_add(1).saturating_add(REBUILD_GENERATION_SKIP);
        head.next_generation = head.next_generation.max(fresh);
    }
    let last_generation = last_segment.map_or(0, |s| catalog.pool.get(s).state.generation);
    head.void_gen = if dirty { last_generation } else { last_generation.saturating_sub(1) };
    (head.void_from, head.epoch) = (void_from, epoch);
    head.seq_ceiling = head.seq_ceiling.max(next_seq.saturating_sub(1));
    catalog.durable_upto = base;
    seal_ended(catalog, dirty);
    let resume = last_segment.filter(|_| !dirty).map(|segment| (segment, replay.tail.at));
    let unclean = matches!(previous_end, PreviousEnd::Cut);
    let verdict = Verdict { void_from, next_seq, resume, last_frame: replay.last_frame.filter(|_| unclean) };
    let report = RecoveryReport {
        previous_end,
        adopted_upto,
        durable_upto: base,
        next_seq,
        epoch,
        torn_bytes: if unclean { replay.torn_bytes } else { 0 },
        segments_read,
        frames,
        resumes: resume.is_some(),
        cases,
    };
    Mounted { manifest, verdict, report }
}

/// Segments the log has left are sealed; the next edit says so.
fn seal_ended(catalog: &mut Catalog<'_>, dirty: bool) {
    let last = catalog.pool.last().filter(|_| !dirty);
    for i in 0..catalog.pool.order().len() {
        let Some(segment) = catalog.pool.order().get(i).copied() else { break };
        if Some(segment) == last {
            continue;
        }
        if let Some(entry) = catalog.pool.entry_mut(segment)
            && entry.state.used_for == SegmentUse::Announced
        {
            entry.state.used_for = SegmentUse::Sealed;
            entry.dirty = true;
        }
    }
}
