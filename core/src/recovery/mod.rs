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
//! | @A | header or origin, `void_from` >= `next` | go on; `void_from` to `first_seq` is a declared hole |
//! | @B | header or origin, `void_from` < `next` | everything adopted at or above `void_from` is void |
//! | @C | bad range, or a lost header | decided by what comes after it |
//! | @D | frame of a lower epoch than one before it, or void by the manifest's verdict | void |
//! | @E | records, last < floor | dropped by retention |
//! | @F | records, first = `next` | adopted |
//! | @G | records, first < `next` | a later frame wins (F10): what it repeats is taken back, then @F |
//! | @H | records, first > `next`, the hole is declared, or in the ledger | gap `ram-tier` or as known, adopted |
//! | @I | records, first > `next`, the hole is proven durable | gap `rot`, adopted |
//! | @J | records, first > `next`, the hole is not proven | torn: nothing more is adopted before the next mark |
//! | @K | part of a chain that goes on as expected | adopted with its LAST; taken back if that never comes |
//! | @L | part of a chain whose earlier parts are missing | skipped; its batch is lost whole, or torn as in @J |
//! | @M | close frame as the last valid thing, and nothing of this life behind it | clean stop |
//! | @N | copy of the last frame in an origin, its original missing | adopted from the copy |
//! | @O | end, and more is proven durable than was adopted | gap `rot` up to there |
//! | @P | end in an unfinished chain | its parts are taken back |
//! | @Q | clean end: nothing of this life behind the last frame | the log goes on there |
//! | @R | dirty end | the segment is abandoned |
//! | @S | no slot of the manifest is complete, or later edits are proven | rebuilt from all headers |

mod adopt;
mod identify;
mod passes;
mod tables;

pub(crate) use identify::read_header;

use crate::catalog::Catalog;
use crate::error::OpenError;
use crate::format::edit::SegmentUse;
use crate::format::events::{Origin, PreviousEnd};
use crate::format::frame::{Expected, Frame, FrameKind};
use crate::format::header::{SegmentHeader, SegmentKind};
use crate::hal::ReadStorage;
use crate::manifest::{Manifest, SlotScan, read_slot};
use crate::walk::{Found, Walker};
use adopt::Replay;
use identify::{find_begun, identify};
use passes::{Evidence, Pass};

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
    /// The manifest may end in a metastable edit: it is written anew before anything else.
    pub(crate) marginal_edit: bool,
}

/// A mounted store, not yet written to.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) manifest: Manifest,
    pub(crate) verdict: Verdict,
    pub(crate) report: RecoveryReport,
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
    pass.evidence(catalog, first_unsealed, &mut evidence)?;
    let rebuilt = pick.is_none() || evidence.edit_no > known_edit;
    if rebuilt {
        pass.cases.visit(b'S');
        pass.list_all(catalog, &mut evidence);
        first_unsealed = 0;
        pass.evidence(catalog, 0, &mut evidence)?;
    }
    let replay = pass.adopt(catalog, first_unsealed, &evidence, rebuilt);
    pass.apply_items(catalog, first_unsealed);
    let (segments_read, frames) = (pass.segments_read, pass.frames);
    Ok(settle(catalog, &slots, &evidence, &replay, rebuilt, cases, segments_read, frames))
}

/// The header of a segment's present life, if it is intact, and a walker at its first frame.
///
/// Without a header, compact frames are inferred from `carry`, what can follow on the segment before, and from what the
/// manifest knows.
pub(crate) fn open_segment<S: ReadStorage>(
    s: &mut S,
    catalog: &Catalog<'_>,
    segment: u32,
    carry: Expected,
    buf: &mut [u8],
) -> (Option<SegmentHeader>, Walker) {
    let state = catalog.pool.get(segment).state;
    let header = read_header(s, &catalog.geometry, segment, buf)
        .filter(|h| h.kind == SegmentKind::Log && h.store_id == catalog.store_id && h.generation == state.generation);
    let want = match &header {
        Some(h) => Expected { seq: h.first_seq, epoch: h.epoch, volatile_bound: h.volatile_bound },
        None => Expected { epoch: carry.epoch.max(state.epoch), ..carry },
    };
    let start = header.as_ref().map_or_else(|| catalog.data_start(), SegmentHeader::data_start);
    (header, walker_at(catalog, segment, start, want))
}

/// A walker at the first frame of a table segment.
pub(crate) fn open_table<S: ReadStorage>(s: &mut S, catalog: &Catalog<'_>, segment: u32, buf: &mut [u8]) -> Walker {
    let generation = catalog.pool.get(segment).state.generation;
    let header = read_header(s, &catalog.geometry, segment, buf)
        .filter(|h| h.kind == SegmentKind::Table && h.store_id == catalog.store_id && h.generation == generation);
    let start = header.as_ref().map_or_else(|| catalog.data_start(), SegmentHeader::data_start);
    let life = crate::format::crc::Life { store_id: catalog.store_id, segment, generation }.of_table();
    Walker::new(catalog.layout, life, catalog.geometry.read_unit, start, Expected::default())
}

fn walker_at(catalog: &Catalog<'_>, segment: u32, at: u32, want: Expected) -> Walker {
    let generation = catalog.pool.get(segment).state.generation;
    let life = crate::format::crc::Life { store_id: catalog.store_id, segment, generation };
    Walker::new(catalog.layout, life, catalog.geometry.read_unit, at, want)
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
    let mut walker =
        walker_at(catalog, segment, offset, Expected { seq: want.first_seq, epoch: want.epoch, volatile_bound: 0 });
    match walker.next(s, buf)? {
        Found::Frame { frame, payload, .. } => {
            let start = usize::try_from(catalog.layout.payload_at(frame.flags)).ok()?;
            match frame.kind {
                FrameKind::Origin => {
                    let copy = Origin::read(payload)?.1.filter(|copy| copy.first_seq == want.first_seq)?;
                    Some((start.checked_add(copy.at)?, copy.payload.len()))
                }
                kind => (kind == want.kind && frame.first_seq == want.first_seq).then_some((start, payload.len())),
            }
        }
        _ => None,
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
    let closed = replay.closed.filter(|_| !replay.tail.claimed && !rebuilt);
    cases.visit(if dirty { b'R' } else { b'Q' });
    let base = replay.durable_upto;
    let mut next_seq = base.saturating_add(1).max(evidence.first_seq);
    let used = replay.any || last_segment.is_some() || base > 0 || catalog.head.seq_ceiling > 0;
    let previous_end = match (rebuilt, closed, used) {
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
    let unclean = matches!(previous_end, PreviousEnd::Cut);
    // A new store too: its first edit may have been cut.
    let compact_cut = !catalog.layout.wide && !matches!(previous_end, PreviousEnd::Clean);
    let skip = |at: u32| if compact_cut { past_marginal_page(at) } else { at };
    let mut manifest = Manifest::resume(slots, edit_no, rebuilt);
    // An edit may have been under way and read as nothing now, and as itself at the next mount.
    let marginal_edit = compact_cut && !rebuilt;
    if marginal_edit {
        manifest.distrust_last_edit();
    }
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
    catalog.published_floor = catalog.floor;
    seal_ended(catalog, dirty);
    tables::settle_tables(catalog, matches!(previous_end, PreviousEnd::Clean));
    let resume = last_segment.filter(|_| !dirty).map(|segment| (segment, skip(replay.tail.at)));
    let last_frame = replay.last_frame.filter(|_| unclean);
    let verdict = Verdict { void_from, next_seq, resume, last_frame, marginal_edit };
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

/// Where to write on after a cut on NOR flash: bytes that read as erased may be half-programmed up to the end of the
/// page that was being programmed. 256 bytes is the page of all common serial NOR flashes.
fn past_marginal_page(at: u32) -> u32 {
    at.saturating_add(1).checked_next_multiple_of(256).unwrap_or(at)
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
