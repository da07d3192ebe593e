//! What a mount shows: a full scan, the state entries and the report, as the model compares them.
//!
//! Invariants: every field of a record is compared with what its tag says; a scan that does not end is a violation.

use crate::model::{Item, Seen, SeenRecord, Violation, fill_body, tag_of};
use lastgasp_core::catalog::Catalog;
use lastgasp_core::format::header::FLOORS;
use lastgasp_core::format::row::{Row, TraceContext};
use lastgasp_core::gaps::GapCause;
use lastgasp_core::hal::ReadStorage;
use lastgasp_core::recovery::RecoveryReport;
use lastgasp_core::scan::{Entry, Event, Record, Scan, ScanMemory, ScanOptions};
use std::collections::BTreeMap;

/// More entries than any store of the campaigns has.
const ENTRIES_MAX: usize = 20_000;

/// The record with this tag, all but its body and stream.
#[must_use]
pub fn row_of(tag: u64, stream: u16, body: &[u8]) -> Row<'_> {
    let trace = TraceContext { trace_id: [tag.to_le_bytes()[0]; 16], span_id: tag.to_be_bytes() };
    Row {
        stream,
        severity: u8::try_from(tag % 25).unwrap_or(0),
        continued: tag.is_multiple_of(7),
        received_us: tag,
        event_time_us: tag.is_multiple_of(3).then_some(1_700_000_000_000_000 + i64::try_from(tag).unwrap_or(0)),
        trace: tag.is_multiple_of(5).then_some(trace),
        body,
        fields: if tag.is_multiple_of(4) { b"\x01\x02\x03" } else { b"" },
    }
}

/// Name of a stream of the model.
#[must_use]
pub fn stream_name(stream: u8) -> String {
    format!("unit-{stream}")
}

/// Key of a state entry of the model.
#[must_use]
pub fn state_key(key: u8) -> [u8; 2] {
    [b'k', b'0' + key]
}

/// Makes the body that belongs to a tag.
pub type Fill<'f> = &'f dyn Fn(u64, &mut [u8]);

fn seen_record(record: &Record<'_>, catalog: &Catalog<'_>, scratch: &mut Vec<u8>, fill: Fill<'_>) -> SeenRecord {
    let body = record.row.body;
    let tag = tag_of(body).filter(|tag| {
        scratch.resize(body.len(), 0);
        fill(*tag, scratch);
        record.row == row_of(*tag, record.row.stream, scratch)
    });
    let stream = catalog.streams().name(record.row.stream);
    let stream = stream.and_then(|name| name.strip_prefix("unit-")).and_then(|n| n.parse().ok());
    SeenRecord { seq: record.seq, tag, len: u32::try_from(body.len()).unwrap_or(u32::MAX), stream }
}

/// Everything one scan shows.
///
/// # Errors
/// It does not end.
pub fn scan_all<R: ReadStorage>(
    storage: &mut R,
    catalog: &Catalog<'_>,
    mem: &mut ScanMemory<'_>,
    reverse: bool,
) -> Result<Vec<Item>, Violation> {
    scan_with(storage, catalog, mem, reverse, &fill_body)
}

fn scan_with<R: ReadStorage>(
    storage: &mut R,
    catalog: &Catalog<'_>,
    mem: &mut ScanMemory<'_>,
    reverse: bool,
    fill: Fill<'_>,
) -> Result<Vec<Item>, Violation> {
    let mut scan = Scan::new(catalog, ScanOptions { reverse, ..ScanOptions::default() });
    let mut items = Vec::new();
    let mut scratch = Vec::new();
    while let Some(entry) = scan.next(storage, catalog, mem) {
        items.push(match entry {
            Entry::Record(record) => Item::Record(seen_record(&record, catalog, &mut scratch, fill)),
            Entry::Gap(gap) => Item::Gap { first: gap.first_seq, last: gap.last_seq, cause: gap.cause },
            Entry::Event(Event::Boot(origin)) => Item::Boot(origin.epoch),
            Entry::Event(Event::Close(_)) => Item::Close,
        });
        if items.len() > ENTRIES_MAX {
            return Err(Violation::Panicked("a scan that does not end".to_owned()));
        }
    }
    Ok(items)
}

fn state_of(catalog: &Catalog<'_>) -> Option<BTreeMap<u8, u64>> {
    catalog
        .state()
        .iter()
        .map(|(key, value)| {
            let key = key.strip_prefix(b"k").and_then(|k| k.first()).and_then(|k| k.checked_sub(b'0'))?;
            Some((key, u64::from_le_bytes(value.try_into().ok()?)))
        })
        .collect()
}

/// The floors of the classes, and that of the log.
#[must_use]
pub fn floors_of(catalog: &Catalog<'_>) -> [u64; FLOORS] {
    let [a, b, c, d] = catalog.class_floors();
    [a, b, c, d, catalog.log_floor()]
}

/// Everything a mount shows.
///
/// # Errors
/// Its scan does not end.
pub fn observe<R: ReadStorage>(
    storage: &mut R,
    catalog: &Catalog<'_>,
    report: &RecoveryReport,
    mem: &mut ScanMemory<'_>,
) -> Result<Seen, Violation> {
    observe_with(storage, catalog, report, mem, &fill_body)
}

/// As [`observe`], with bodies that `fill` makes.
///
/// # Errors
/// Its scan does not end.
pub fn observe_with<R: ReadStorage>(
    storage: &mut R,
    catalog: &Catalog<'_>,
    report: &RecoveryReport,
    mem: &mut ScanMemory<'_>,
    fill: Fill<'_>,
) -> Result<Seen, Violation> {
    Ok(Seen {
        items: scan_with(storage, catalog, mem, false, fill)?,
        state: state_of(catalog),
        floor: catalog.floor(),
        floors: floors_of(catalog),
        durable_upto: report.durable_upto,
        next_seq: report.next_seq,
        epoch: report.epoch,
        previous_end: report.previous_end,
    })
}

/// Records and gaps with neighbours of one cause merged, in order: what both directions have to agree on.
fn outline(items: &[Item]) -> Vec<Item> {
    let mut out: Vec<Item> = Vec::new();
    for item in items {
        match (item, out.last_mut()) {
            (Item::Boot(_) | Item::Close | Item::Gap { cause: GapCause::LedgerLost, .. }, _) => {}
            (Item::Gap { first, last, cause }, Some(Item::Gap { last: end, cause: before, .. }))
                if before == cause && *end + 1 == *first =>
            {
                *end = *last;
            }
            _ => out.push(item.clone()),
        }
    }
    out
}

/// Compares a reverse scan with what the forward scan showed.
///
/// # Errors
/// They differ, or the scan does not end.
pub fn check_reverse<R: ReadStorage>(
    storage: &mut R,
    catalog: &Catalog<'_>,
    mem: &mut ScanMemory<'_>,
    forward: &[Item],
) -> Result<(), Violation> {
    let mut reverse = scan_all(storage, catalog, mem, true)?;
    reverse.reverse();
    let (forward, reverse) = (outline(forward), outline(&reverse));
    if forward == reverse {
        return Ok(());
    }
    let differs = forward.iter().zip(&reverse).find(|(a, b)| a != b);
    let text = match differs {
        Some((a, b)) => format!("forward {a:?}, reverse {b:?}"),
        None => format!("forward {} entries, reverse {}", forward.len(), reverse.len()),
    };
    Err(Violation::Reverse(text))
}
