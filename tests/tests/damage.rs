//! Damage that once cost more than it hit, each case by name.

use lastgasp_core::error::OpenError;
use lastgasp_core::format::events::PreviousEnd;
use lastgasp_core::format::row::Row;
use lastgasp_core::gaps::GapCause;
use lastgasp_core::hal::{SliceArena, Storage};
use lastgasp_core::nor::NorStorage;
use lastgasp_core::reader::Reader;
use lastgasp_core::scan::{Entry, Filter, Scan, ScanOptions};
use lastgasp_core::store::{FormatOptions, OpenOptions, Store, format};
use lastgasp_hal_sim::disk::{DiskConfig, SimDisk};
use lastgasp_hal_sim::nor::{NorConfig, SimNor};
use lastgasp_hal_sim::rig::{Rig, RigSize, ScanRig};
use std::time::Duration;

const SEGMENT: u32 = 8192;

fn size() -> RigSize {
    RigSize::new(8, SEGMENT)
}

fn row(stream: u16, body: &[u8]) -> Row<'_> {
    Row { stream, severity: 9, continued: false, received_us: 1, event_time_us: None, trace: None, body, fields: &[] }
}

fn formatted(size: &RigSize) -> SimDisk {
    let mut disk = SimDisk::new(DiskConfig::new(8, SEGMENT));
    format(&mut disk, Rig::new(size).parts().0, &FormatOptions { store_id: 9 }).unwrap();
    disk
}

/// One boot that appends `count` records, one commit each; closes, or stops without.
fn boot<S: Storage>(medium: S, size: &RigSize, count: u32, close: bool) -> S {
    let mut rig = Rig::new(size);
    let (memory, [a, b]) = rig.parts();
    let (a, b, options) = (SliceArena(a), SliceArena(b), OpenOptions::default());
    let mut store = Store::open(medium, memory, a, Some(b), &options, &mut |_, _| ()).unwrap();
    let streams = [store.stream("app"), store.stream("kernel")];
    for _ in 0..count {
        let seq = store.next_seq();
        store
            .append(&[row(streams[usize::from(seq.is_multiple_of(2))], format!("record {seq}").as_bytes())], &[])
            .unwrap();
        store.commit().unwrap();
    }
    if close {
        store.close().unwrap();
    }
    store.into_storage()
}

struct Seen {
    records: Vec<(u64, String, String)>,
    gaps: Vec<(u64, u64, GapCause)>,
    previous_end: PreviousEnd,
    next_seq: u64,
}

fn read(disk: SimDisk, size: &RigSize, filter: Filter) -> Seen {
    let mut rig = Rig::new(size);
    let mut reader = Reader::open(disk, rig.parts().0, &mut |_, _| ()).unwrap();
    let (previous_end, next_seq) = (reader.report().previous_end, reader.report().next_seq);
    let mut buffers = ScanRig::new(size);
    let mut mem = buffers.parts();
    let mut scan = Scan::new(reader.catalog(), ScanOptions { filter, ..ScanOptions::default() });
    let (storage, catalog) = reader.parts();
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    while let Some(entry) = scan.next(storage, catalog, &mut mem) {
        match entry {
            Entry::Record(r) => {
                let name = catalog.streams().name(r.row.stream).unwrap_or("?").to_owned();
                records.push((r.seq, name, String::from_utf8(r.row.body.to_vec()).unwrap()));
            }
            Entry::Gap(g) => gaps.push((g.first_seq, g.last_seq, g.cause)),
            Entry::Event(_) => {}
        }
    }
    Seen { records, gaps, previous_end, next_seq }
}

fn all_there(seen: &Seen, count: u64) {
    let numbers: Vec<u64> = seen.records.iter().map(|r| r.0).collect();
    assert!(numbers.iter().copied().eq(1..=count), "{numbers:?}, gaps {:?}", seen.gaps);
    for (seq, name, body) in &seen.records {
        let stream = if seq % 2 == 0 { "kernel" } else { "app" };
        assert_eq!((name.as_str(), body.as_str()), (stream, format!("record {seq}").as_str()));
    }
}

#[test]
fn two_zeroed_units_at_the_front_of_the_newest_segment_lose_no_record() {
    let mut disk = boot(formatted(&size()), &size(), 6, true);
    disk.fill(u64::from(SEGMENT), 1024, 0); // header and origin of segment 1
    let seen = read(disk.clone(), &size(), Filter::default());
    all_there(&seen, 6);
    let disk = boot(disk, &size(), 1, true);
    all_there(&read(disk, &size(), Filter::default()), 7);
}

#[test]
fn losing_the_last_records_and_the_close_frame_of_a_clean_stop_is_a_gap() {
    let mut disk = boot(formatted(&size()), &size(), 6, true);
    // Header, origin and six records take a unit each; the close frame is the ninth.
    disk.fill(u64::from(SEGMENT) + 7 * 512, 1024, 0);
    let seen = read(disk, &size(), Filter::default());
    assert_eq!(seen.records.len(), 5);
    assert_eq!(seen.gaps, [(6, 6, GapCause::Rot)]);
    assert_eq!(seen.next_seq, 7, "no number is given out again");
}

#[test]
fn a_flipped_bit_in_both_slot_headers_and_the_newest_log_header_loses_no_record() {
    let mut disk = boot(formatted(&size()), &size(), 20, true);
    for segment in [0, 4, 2] {
        disk.flip_bit(u64::from(segment * SEGMENT) + 0x30, 1);
    }
    let seen = read(disk.clone(), &size(), Filter::default());
    assert_eq!(seen.previous_end, PreviousEnd::Rebuilt);
    assert!(seen.gaps.iter().all(|g| g.2 == GapCause::LedgerLost), "{:?}", seen.gaps);
    assert_eq!(seen.records.len(), 20);
}

fn open_error(disk: SimDisk) -> OpenError {
    Reader::open(disk, Rig::new(&size()).parts().0, &mut |_, _| ()).map(|_| ()).unwrap_err()
}

#[test]
fn what_cannot_be_read_is_not_called_blank() {
    let mut disk = boot(formatted(&size()), &size(), 6, true);
    disk.make_unreadable(0, u64::from(8 * SEGMENT));
    assert!(matches!(open_error(disk), OpenError::Unreadable { .. }));
}

#[test]
fn a_store_with_records_is_not_called_blank_whatever_its_headers_say() {
    let mut disk = boot(formatted(&size()), &size(), 6, true);
    for segment in [0, 4] {
        disk.fill(u64::from(segment * SEGMENT) + 512, u64::from(SEGMENT) - 512, 0); // both bodies
    }
    disk.fill(u64::from(SEGMENT), 512, 0); // the only log header
    assert!(matches!(open_error(disk), OpenError::NoIntactHeader { .. }));
    let blank = SimDisk::new(DiskConfig::new(8, SEGMENT));
    assert_eq!(open_error(blank), OpenError::Blank);
}

#[test]
fn a_full_gap_ledger_costs_no_stream_its_name() {
    let size = RigSize { gaps: 2, ..size() };
    let mut disk = formatted(&size);
    for _ in 0..12 {
        let mut rig = Rig::new(&size);
        let (memory, [a, b]) = rig.parts();
        let options = OpenOptions { volatile_bound: 2, ..OpenOptions::default() };
        let mut store =
            Store::open(disk, memory, SliceArena(a), Some(SliceArena(b)), &options, &mut |_, _| ()).unwrap();
        let stream = store.stream("app");
        store.append(&[row(stream, b"one")], &[]).unwrap();
        store.commit().unwrap();
        disk = store.into_storage(); // without a close: each boot leaves a hole
    }
    let seen = read(disk, &size, Filter::default());
    assert!(seen.records.len() >= 10, "{:?}", seen.records);
    assert!(seen.records.iter().all(|r| r.1 == "app"), "{:?}", seen.records);
}

#[test]
fn a_manifest_body_of_several_parts_verifies_on_nor_flash() {
    let size = RigSize { frame_bytes: 256, arena_bytes: 1024, ..RigSize::new(48, 2048) };
    let nor: SimNor<4, 2048> = SimNor::new(NorConfig::new(48, 4));
    let mut nor = NorStorage::new(nor, 48, 2048, Duration::from_millis(400));
    let mut big = Rig::new(&RigSize { frame_bytes: 512, ..size });
    format(&mut nor, big.parts().0, &FormatOptions { store_id: 3 }).unwrap();
    let size = RigSize { frame_bytes: 512, ..size };
    for _ in 0..40 {
        nor = boot(nor, &size, 30, true);
    }
    let mut rig = Rig::new(&size);
    let reader = Reader::open(nor, rig.parts().0, &mut |_, _| ()).unwrap();
    assert_eq!(reader.report().previous_end, PreviousEnd::Clean);
    assert_eq!(reader.report().next_seq, 1201);
}

#[test]
fn a_filter_shows_the_same_records_of_a_row_group_as_of_rows() {
    for group_bytes in [0, 256 << 10] {
        let size = RigSize { group_bytes, ..RigSize::new(8, SEGMENT) };
        let mut rig = Rig::new(&size);
        let (memory, [a, b]) = rig.parts();
        let (a, b, options) = (SliceArena(a), SliceArena(b), OpenOptions::default());
        let mut store = Store::open(formatted(&size), memory, a, Some(b), &options, &mut |_, _| ()).unwrap();
        let streams = [store.stream("app"), store.stream("kernel")];
        for n in 1..=150u32 {
            let body = format!("record {n}");
            store.append(&[row(streams[usize::from(n.is_multiple_of(2))], body.as_bytes())], &[]).unwrap();
        }
        store.commit().unwrap();
        store.close().unwrap();
        let filter = Filter { stream: Some(streams[1]), ..Filter::default() };
        let seen = read(store.into_storage(), &size, filter);
        assert!(seen.records.iter().map(|r| r.0).eq((1..=75).map(|n| 2 * n)), "{:?}", seen.records);
        assert!(seen.gaps.is_empty(), "{:?}", seen.gaps);
    }
}
