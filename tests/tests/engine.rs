//! The engine on simulated media, without cuts: what goes in comes out.

use lastgasp_core::error::StoreError;
use lastgasp_core::format::row::Row;
use lastgasp_core::hal::{ReadStorage, SliceArena, Storage};
use lastgasp_core::reader::Reader;
use lastgasp_core::scan::{Entry, Scan, ScanOptions};
use lastgasp_core::store::{FormatOptions, OpenOptions, Store, format};
use lastgasp_hal_sim::disk::{DiskConfig, SimDisk};
use lastgasp_hal_sim::rig::{Rig, RigSize, ScanRig};

fn row(stream: u16, body: &[u8]) -> Row<'_> {
    Row { stream, severity: 9, continued: false, received_us: 1, event_time_us: None, trace: None, body, fields: &[] }
}

fn scan_all<R: ReadStorage>(reader: &mut Reader<'_, R>, size: &RigSize, reverse: bool) -> Vec<String> {
    let mut rig = ScanRig::new(size);
    let mut mem = rig.parts();
    let mut scan = Scan::new(reader.catalog(), ScanOptions { reverse, ..ScanOptions::default() });
    let mut out = Vec::new();
    let (storage, catalog) = reader.parts();
    while let Some(entry) = scan.next(storage, catalog, &mut mem) {
        out.push(match entry {
            Entry::Record(r) => format!("{} {}", r.seq, String::from_utf8_lossy(r.row.body)),
            Entry::Gap(g) => format!("gap {}..{} {}", g.first_seq, g.last_seq, g.cause.name()),
            Entry::Event(e) => format!("event {}", format!("{e:?}").split('(').next().unwrap_or("")),
        });
        assert!(out.len() < 100_000, "endless scan");
    }
    out
}

fn run<S: Storage + Clone>(mut medium: S, size: RigSize, records: u64, per_commit: u64, boots: u64) -> Vec<String> {
    let mut rig = Rig::new(&size);
    let (memory, _) = rig.parts();
    format(&mut medium, memory, &FormatOptions { store_id: 77 }).unwrap();
    let mut n = 0;
    for _ in 0..boots {
        let (memory, [a, b]) = rig.parts();
        let options = OpenOptions::default();
        let mut store =
            Store::open(medium, memory, SliceArena(a), Some(SliceArena(b)), &options, &mut |_, _| ()).unwrap();
        let stream = store.stream("app");
        for _ in 0..records / boots / per_commit {
            let bodies: Vec<String> = (0..per_commit).map(|i| format!("record {}", n + i + 1)).collect();
            let rows: Vec<Row<'_>> = bodies.iter().map(|b| row(stream, b.as_bytes())).collect();
            let (first, last) = store.append(&rows, &[]).unwrap();
            assert_eq!((first, last), (n + 1, n + per_commit));
            n += per_commit;
            assert_eq!(store.commit().unwrap(), n);
        }
        store.close().unwrap();
        medium = store.into_storage();
    }
    let mut rig = Rig::new(&size);
    let (memory, _) = rig.parts();
    let mut reader = Reader::open(medium, memory, &mut |_, _| ()).unwrap();
    assert_eq!(reader.report().previous_end, lastgasp_core::format::events::PreviousEnd::Clean);
    let forward = scan_all(&mut reader, &size, false);
    let mut backward = scan_all(&mut reader, &size, true);
    backward.reverse();
    let no_events: Vec<_> = forward.iter().filter(|l| !l.starts_with("event")).cloned().collect();
    assert_eq!(no_events, backward);
    forward
}

#[test]
fn what_goes_in_comes_out_in_both_directions() {
    let config = DiskConfig::new(16, 8192);
    let out = run(SimDisk::new(config), RigSize::new(16, 8192), 60, 3, 2);
    let records: Vec<_> = out.iter().filter(|l| !l.starts_with("event")).collect();
    assert_eq!(records.len(), 60, "{out:?}");
    assert!(records.iter().zip(1..).all(|(l, n)| **l == format!("{n} record {n}")));
    assert_eq!(out.iter().filter(|l| *l == "event Boot").count(), 2, "{out:?}");
    assert_eq!(out.iter().filter(|l| *l == "event Close").count(), 2, "{out:?}");
}

#[test]
fn a_full_store_drops_its_oldest_segment_with_a_gap_and_goes_on() {
    let config = DiskConfig::new(8, 4096);
    let out = run(SimDisk::new(config), RigSize::new(8, 4096), 400, 1, 2);
    let gap = out.iter().find(|l| l.starts_with("gap")).unwrap();
    assert!(gap.starts_with("gap 1..") && gap.ends_with("retention"), "{gap}");
    let records: Vec<_> = out.iter().filter(|l| l.contains("record")).collect();
    assert_eq!(**records.last().unwrap(), "400 record 400");
    assert!(records.len() > 10 && records.len() < 60, "{}", records.len());
}

#[test]
fn without_a_spare_memtable_an_append_waits_for_the_commit_under_way() {
    let size = RigSize::new(8, 4096);
    let mut disk = SimDisk::new(DiskConfig::new(8, 4096));
    let mut rig = Rig::new(&size);
    format(&mut disk, rig.parts().0, &FormatOptions { store_id: 1 }).unwrap();
    let (memory, [a, _]) = rig.parts();
    let mut store = Store::open(disk, memory, SliceArena(a), None, &OpenOptions::default(), &mut |_, _| ()).unwrap();
    let (stream, max) = (store.stream("app"), store.record_bytes_max());
    store.append(&[row(stream, b"1")], &[]).unwrap();
    let ticket = store.begin_commit().unwrap().unwrap();
    assert!(matches!(store.append(&[row(stream, b"2")], &[]), Err(StoreError::CommitPending)));
    assert_eq!(store.record_bytes_max(), max);
    let synced = store.parts().0.sync();
    assert_eq!(store.end_commit(ticket, synced).unwrap(), 1);
    store.append(&[row(stream, b"2")], &[]).unwrap();
    assert_eq!(store.commit().unwrap(), 2);
}

#[test]
fn a_large_commit_is_written_once_and_compressed() {
    let size = RigSize { group_bytes: 256 << 10, ..RigSize::new(16, 64 << 10) };
    let mut disk = SimDisk::new(DiskConfig::new(16, 64 << 10));
    let mut rig = Rig::new(&size);
    format(&mut disk, rig.parts().0, &FormatOptions { store_id: 1 }).unwrap();
    let (memory, [a, b]) = rig.parts();
    let (a, b) = (SliceArena(a), SliceArena(b));
    let mut store = Store::open(disk, memory, a, Some(b), &OpenOptions::default(), &mut |_, _| ()).unwrap();
    let streams = [store.stream("kernel"), store.stream("app")];
    let bodies: Vec<String> = (1..=800).map(|n| format!("unit {n} of the service started after a while")).collect();
    for (i, pair) in bodies.chunks(2).enumerate() {
        let rows: Vec<Row<'_>> = pair.iter().map(|b| row(streams[i % 2], b.as_bytes())).collect();
        store.append(&rows, &[(b"cursor", &[u8::try_from(i % 256).unwrap()])]).unwrap();
        if i == 0 {
            store.commit().unwrap(); // from now on the entry only changes
        }
    }
    store.commit().unwrap();
    let stats = store.stats();
    assert!(stats.payload_bytes * 3 < stats.record_bytes, "{stats:?}");
    assert!(stats.frames < 6, "{stats:?}");
    store.close().unwrap();
    let disk = store.into_storage();
    let mut rig = Rig::new(&size);
    let mut reader = Reader::open(disk, rig.parts().0, &mut |_, _| ()).unwrap();
    assert_eq!(reader.catalog().state().get(b"cursor"), Some(&[143u8][..]));
    let forward = scan_all(&mut reader, &size, false);
    let records: Vec<_> = forward.iter().filter(|l| !l.starts_with("event")).cloned().collect();
    let want: Vec<_> = bodies.iter().zip(1..).map(|(body, n)| format!("{n} {body}")).collect();
    assert_eq!(records, want);
    let mut backward = scan_all(&mut reader, &size, true);
    backward.reverse();
    assert_eq!(backward, want);
}
