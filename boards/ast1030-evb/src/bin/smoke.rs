//! Power cuts against the engine: what a commit acknowledged must be there at the next start, whole and in order.
//!
//! Keeps a store on the board's flash chip: formats a blank one, else recovers and reads every record back, compares
//! each with what it must be, and goes on appending until the power is cut. The console speaks the lines that
//! `.ci/ast1030-smoke` reads: `recovered N` once everything up to record N is found right, `ack N` after each commit,
//! `smoke failed: ` with the reason if something is not as it must be, and `footprint` with the sizes.
//!
//! A record holds its own number and the last number of its batch, so a batch that is there in part is noticed.
#![no_std]
#![no_main]

use core::fmt::{self, Write};
use core::time::Duration;

use cortex_m::singleton;
use cortex_m_rt::entry;
use lastgasp_ast1030_evb::delay::CycleDelay;
use lastgasp_ast1030_evb::exit::exit;
use lastgasp_ast1030_evb::fmc::{Fmc, FmcError};
use lastgasp_ast1030_evb::footprint::Footprint;
use lastgasp_ast1030_evb::uart::Uart5;
use lastgasp_core::catalog::Memory;
use lastgasp_core::error::{OpenError, StoreError};
use lastgasp_core::format::header::ClockAnchor;
use lastgasp_core::format::row::Row;
use lastgasp_core::gaps::{Gap, GapCause};
use lastgasp_core::hal::{SliceArena, Storage};
use lastgasp_core::nor::{NorError, NorStorage};
use lastgasp_core::pool::SegmentEntry;
use lastgasp_core::scan::{Entry, Scan, ScanMemory, ScanOptions};
use lastgasp_core::store::{self, FormatError, FormatOptions, OpenOptions, Store};
use lastgasp_core::streams::StreamSlot;
use lastgasp_drivers::w25q::{Error, SECTOR_ERASE_MAX_US, W25q};

type Nor = NorStorage<W25q<Fmc, CycleDelay>>;
type NorFailure = NorError<Error<FmcError>>;
type Log<'m, 's> = Store<'m, &'s mut Nor, SliceArena<'m>>;

/// The 1 MiB chip as 64 segments of four sectors.
const SEGMENTS: u32 = 64;
const SEGMENT_BYTES: u32 = 16 * 1024;
/// One frame: the largest batch below, and what the manifest needs for 64 segments.
const FRAME_BYTES: usize = 1024;
const ARENA_BYTES: usize = 2048;
/// Tells this store from every other. A product draws a random number; one chip of one emulated board needs none.
const STORE_ID: u64 = 0x6c61_7374_6761_7370;

/// Most records between two acknowledgements; `.ci/ast1030-smoke` allows for that many in flight.
const COMMIT_MAX: u8 = 8;
const BODY_MIN: usize = 16;
const BODY_MAX: usize = 64;
/// How many commits lie between two lines with the footprint.
const FOOTPRINT_EVERY: u64 = 1024;

/// Why the firmware stops.
enum Failure {
    /// The chip does not answer as it should.
    Flash(Error<FmcError>),
    /// No store could be made on the blank chip.
    Format(FormatError<NorFailure>),
    /// The store on the chip does not open.
    Open(OpenError),
    /// The store takes no records.
    Store(StoreError<NorFailure>),
    /// Records are missing that were neither dropped by retention nor ever in RAM only.
    Gap(Gap),
    /// A record came out of order.
    Order { is: u64, expected: u64 },
    /// A record is not what was appended under its number.
    Body { seq: u64 },
    /// The last batch is there in part.
    Batch { last: u64, recovered: u64 },
    /// The report and the records disagree about where the log ends.
    End { reported: u64, found: u64 },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(error) => write!(f, "{error}"),
            Self::Format(error) => write!(f, "cannot format: {error}"),
            Self::Open(error) => write!(f, "cannot open: {error}"),
            Self::Store(error) => write!(f, "{error}"),
            Self::Gap(gap) => write!(f, "records {} to {} are gone: {}", gap.first_seq, gap.last_seq, gap.cause.name()),
            Self::Order { is, expected } => write!(f, "record {is} came where {expected} belongs"),
            Self::Body { seq } => write!(f, "record {seq} is not what was appended"),
            Self::Batch { last, recovered } => write!(f, "a batch goes to {last}, the log only to {recovered}"),
            Self::End { reported, found } => write!(f, "the log is said to end at {reported}, but ends at {found}"),
        }
    }
}

/// The memory of the store, lent to one mount after another.
struct Slices {
    entries: &'static mut [SegmentEntry],
    order: &'static mut [u32],
    gaps: &'static mut [Gap],
    clocks: &'static mut [ClockAnchor],
    streams: &'static mut [StreamSlot],
    names: &'static mut [u8],
    state: &'static mut [u8],
    frame: &'static mut [u8],
    arena: &'static mut [u8],
}

impl Slices {
    /// Takes the memory; `None` the second time.
    fn take() -> Option<Self> {
        Some(Self {
            entries: singleton!(: [SegmentEntry; SEGMENTS as usize] = [SegmentEntry::default(); SEGMENTS as usize])?,
            order: singleton!(: [u32; SEGMENTS as usize] = [0; SEGMENTS as usize])?,
            gaps: singleton!(: [Gap; 16] = [Gap::default(); 16])?,
            clocks: singleton!(: [ClockAnchor; 4] = [ClockAnchor::default(); 4])?,
            streams: singleton!(: [StreamSlot; 4] = [StreamSlot::default(); 4])?,
            names: singleton!(: [u8; 64] = [0; 64])?,
            state: singleton!(: [u8; 64] = [0; 64])?,
            frame: singleton!(: [u8; FRAME_BYTES] = [0; FRAME_BYTES])?,
            arena: singleton!(: [u8; ARENA_BYTES] = [0; ARENA_BYTES])?,
        })
    }

    fn split(&mut self) -> (Memory<'_>, SliceArena<'_>) {
        let memory = Memory {
            entries: self.entries,
            order: self.order,
            gaps: self.gaps,
            clocks: self.clocks,
            streams: self.streams,
            names: self.names,
            state: self.state,
            frame: self.frame,
            chains: [&mut [], &mut []],
            group: None,
        };
        (memory, SliceArena(self.arena))
    }
}

/// The body of record `seq` in a batch that ends with `batch_last`, in `into`.
fn body(seq: u64, batch_last: u64, into: &mut [u8; BODY_MAX]) -> &[u8] {
    let [low, high, ..] = seq.to_le_bytes();
    let filler = low.wrapping_mul(29) ^ high;
    into.iter_mut().zip(0_u8..).for_each(|(byte, i)| *byte = filler.wrapping_add(i));
    into[..8].copy_from_slice(&seq.to_le_bytes());
    into[8..16].copy_from_slice(&batch_last.to_le_bytes());
    let len = BODY_MIN + usize::from(low) % (BODY_MAX - BODY_MIN + 1);
    &into[..len]
}

/// The number of the last record of the batch that a body belongs to.
fn batch_last(body: &[u8]) -> Option<u64> {
    body.get(8..16)?.try_into().ok().map(u64::from_le_bytes)
}

fn row(stream: u16, seq: u64, body: &[u8]) -> Row<'_> {
    let severity = u8::try_from(1 + seq % 24).unwrap_or(1);
    let event_time_us = seq.is_multiple_of(3).then_some(seq.cast_signed());
    Row { stream, severity, continued: false, received_us: seq, event_time_us, trace: None, body, fields: &[] }
}

/// Reads every record and compares it; returns the number of the last one.
fn check(log: &mut Log<'_, '_>, stream: u16, frame: &mut [u8]) -> Result<u64, Failure> {
    let reported = log.report().adopted_upto;
    let (medium, catalog) = log.parts();
    let mut scan = Scan::new(catalog, ScanOptions::default());
    let mut memory = ScanMemory { frame, raw: &mut [], slots: &mut [] };
    let mut found = 0;
    let mut open_batch = 0;
    let mut expected_body = [0; BODY_MAX];
    while let Some(entry) = scan.next(medium, catalog, &mut memory) {
        match entry {
            Entry::Record(record) => {
                if record.seq != found + 1 {
                    return Err(Failure::Order { is: record.seq, expected: found + 1 });
                }
                let last = batch_last(record.row.body).ok_or(Failure::Body { seq: record.seq })?;
                let expected = body(record.seq, last, &mut expected_body);
                if last < record.seq || record.row != row(stream, record.seq, expected) {
                    return Err(Failure::Body { seq: record.seq });
                }
                (found, open_batch) = (record.seq, last);
            }
            // The chip is smaller than the log, so the oldest records have to go; nothing else may.
            Entry::Gap(gap) if gap.cause == GapCause::Retention && found == 0 => found = gap.last_seq,
            Entry::Gap(gap) => return Err(Failure::Gap(gap)),
            Entry::Event(_) => {}
        }
    }
    if open_batch > found {
        return Err(Failure::Batch { last: open_batch, recovered: found });
    }
    if found != reported {
        return Err(Failure::End { reported, found });
    }
    Ok(found)
}

/// Appends `count` records, in one batch if `as_batch`, and makes them durable; returns what is durable then.
fn append<S: Storage>(
    log: &mut Store<'_, S, SliceArena<'_>>,
    stream: u16,
    count: u8,
    as_batch: bool,
) -> Result<u64, StoreError<S::Error>> {
    let first = log.next_seq();
    let last = first + u64::from(count) - 1;
    let mut bodies = [[0; BODY_MAX]; COMMIT_MAX as usize];
    let mut rows = [row(stream, 0, &[]); COMMIT_MAX as usize];
    for ((seq, into), slot) in (first..=last).zip(&mut bodies).zip(&mut rows) {
        *slot = row(stream, seq, body(seq, if as_batch { last } else { seq }, into));
    }
    let rows = &rows[..usize::from(count)];
    if as_batch {
        log.append(rows, &[])?;
    } else {
        for one in rows.chunks(1) {
            log.append(one, &[])?;
        }
    }
    log.commit()
}

fn run(uart: &mut Uart5, fmc: Fmc, mut slices: Slices, scan_frame: &mut [u8]) -> Result<(), Failure> {
    let chip = W25q::new(fmc, CycleDelay).map_err(Failure::Flash)?;
    let worst_busy = Duration::from_micros(SECTOR_ERASE_MAX_US.into());
    let mut nor = NorStorage::new(chip, SEGMENTS, SEGMENT_BYTES, worst_busy);
    let options = OpenOptions::default();

    let (memory, arena) = slices.split();
    if matches!(Store::open(&mut nor, memory, arena, None, &options, &mut |_, _| {}), Err(OpenError::Blank)) {
        let (memory, _) = slices.split();
        store::format(&mut &mut nor, memory, &FormatOptions { store_id: STORE_ID }).map_err(Failure::Format)?;
        let _ = writeln!(uart, "formatted");
    }
    let (memory, arena) = slices.split();
    let mut log = Store::open(&mut nor, memory, arena, None, &options, &mut |_, _| {}).map_err(Failure::Open)?;
    let stream = log.stream("smoke");
    let recovered = check(&mut log, stream, scan_frame)?;
    let _ = writeln!(uart, "recovered {recovered}");
    let _ = writeln!(uart, "footprint {}", Footprint::measure());

    for (round, count) in (0_u64..).zip((1..=COMMIT_MAX).cycle()) {
        let durable = append(&mut log, stream, count, round % 2 == 0).map_err(Failure::Store)?;
        let _ = writeln!(uart, "ack {durable}");
        if round % FOOTPRINT_EVERY == FOOTPRINT_EVERY - 1 {
            let _ = writeln!(uart, "footprint {}", Footprint::measure());
        }
    }
    Ok(())
}

#[entry]
fn main() -> ! {
    let (Some(mut uart), Some(fmc)) = (Uart5::take(), Fmc::take()) else { exit(false) };
    let (Some(slices), Some(scan_frame)) = (Slices::take(), singleton!(: [u8; FRAME_BYTES] = [0; FRAME_BYTES])) else {
        exit(false)
    };
    let result = run(&mut uart, fmc, slices, scan_frame);
    if let Err(failure) = &result {
        let _ = writeln!(uart, "smoke failed: {failure}");
    }
    exit(result.is_ok())
}
