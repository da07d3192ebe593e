//! Tables and retention on simulated disks, without cuts: who is evicted when a store is full, and who is not.

use lastgasp_core::format::row::Row;
use lastgasp_core::gaps::GapCause;
use lastgasp_core::hal::{SliceArena, Storage};
use lastgasp_core::node::{Batch, Class, Input, Next, Node};
use lastgasp_core::reader::Reader;
use lastgasp_core::scan::{Entry, Scan, ScanOptions};
use lastgasp_core::store::{FormatOptions, OpenOptions, Stats, Store, format};
use lastgasp_hal_sim::disk::{DiskConfig, SimDisk};
use lastgasp_hal_sim::rig::{Rig, RigSize, ScanRig};

const SEGMENT: u32 = 16 << 10;

fn size(segments: u32) -> RigSize {
    RigSize { group_bytes: 64 << 10, ..RigSize::new(segments, SEGMENT) }
}

fn row(stream: u16, severity: u8, body: &[u8]) -> Row<'_> {
    Row { stream, severity, continued: false, received_us: 1, event_time_us: None, trace: None, body, fields: &[] }
}

fn formatted(size: &RigSize) -> SimDisk {
    let mut disk = SimDisk::new(DiskConfig::new(size.segments, SEGMENT));
    format(&mut disk, Rig::new(size).parts().0, &FormatOptions { store_id: 7 }).unwrap();
    disk
}

/// Numbers and bodies.
type Records = Vec<(u64, String)>;
/// First and last number, cause.
type Gaps = Vec<(u64, u64, GapCause)>;

/// What a store shows: numbers and bodies of its records, and gaps. Every number comes exactly once, in both
/// directions.
fn shown(disk: SimDisk, size: &RigSize) -> (Records, Gaps) {
    let mut rig = Rig::new(size);
    let mut reader = Reader::open(disk, rig.parts().0, &mut |_, _| ()).unwrap();
    let last = reader.report().durable_upto;
    let mut scan_rig = ScanRig::new(size);
    let mut mem = scan_rig.parts();
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    let mut expect = 1;
    let (storage, catalog) = reader.parts();
    let mut scan = Scan::new(catalog, ScanOptions::default());
    while let Some(entry) = scan.next(storage, catalog, &mut mem) {
        match entry {
            Entry::Record(r) => {
                assert_eq!(r.seq, expect);
                expect += 1;
                records.push((r.seq, String::from_utf8_lossy(r.row.body).into_owned()));
            }
            Entry::Gap(gap) => {
                assert_eq!(gap.first_seq, expect);
                expect = gap.last_seq + 1;
                gaps.push((gap.first_seq, gap.last_seq, gap.cause));
            }
            Entry::Event(_) => {}
        }
    }
    assert_eq!(expect, last + 1, "every number is a record or in a gap");
    let mut scan = Scan::new(catalog, ScanOptions { reverse: true, ..ScanOptions::default() });
    let mut backward = Vec::new();
    while let Some(entry) = scan.next(storage, catalog, &mut mem) {
        if let Entry::Record(r) = entry {
            backward.push((r.seq, String::from_utf8_lossy(r.row.body).into_owned()));
        }
    }
    backward.reverse();
    assert_eq!(backward, records, "both directions show the same");
    let mut found = Vec::new();
    lastgasp_core::check::check(storage, catalog, &mut mem, &mut |_, _| (), &mut |finding| found.push(finding));
    assert!(found.iter().all(|finding| !finding.is_damage()), "{found:?}");
    (records, gaps)
}

/// Floods a node with 20 times its store; one line in a thousand is of a quiet stream.
fn flood(lines_per_batch: u64) -> (Vec<String>, Vec<String>, Stats) {
    let size = size(24);
    let mut disk = formatted(&size);
    let mut rig = Rig::new(&size);
    let (memory, [a, b]) = rig.parts();
    let options = OpenOptions::default();
    let store = Store::open(&mut disk, memory, SliceArena(a), Some(SliceArena(b)), &options, &mut |_, _| ()).unwrap();
    let mut node = Node::new(store, 0);
    let (loud, quiet) = (node.stream("loud"), node.stream("quiet"));
    let (mut bytes, mut line, mut now_us) = (0, 0u64, 0);
    while bytes < 20 * u64::from(size.segments) * u64::from(SEGMENT) {
        let bodies: Vec<(u16, String)> = (0..lines_per_batch)
            .map(|_| {
                line += 1;
                if line.is_multiple_of(1000) {
                    (quiet, format!("quiet {line}: the hourly report of the quiet service"))
                } else {
                    (
                        loud,
                        format!(
                            "loud {line}: panic at step {:x}, restarting",
                            line.wrapping_mul(0x9E37_79B9_7F4A_7C15)
                        ),
                    )
                }
            })
            .collect();
        bytes += bodies.iter().map(|(_, body)| body.len() as u64).sum::<u64>();
        let rows: Vec<Row<'_>> = bodies.iter().map(|(stream, body)| row(*stream, 9, body.as_bytes())).collect();
        now_us += 1000;
        let batch = Batch { rows: &rows, states: &[], class: Class::Each };
        node.step(now_us, Input::Batch(batch)).batch.unwrap().unwrap();
        let Next::Sync { .. } = node.step(now_us, Input::Tick).next else { panic!("a commit is due at once") };
        let synced = node.medium().sync();
        node.step(now_us, Input::Synced(synced));
    }
    assert_eq!(node.step(now_us, Input::Stop).next, Next::Stopped { clean: true });
    let stats = node.store().stats();
    drop(node);
    let (records, gaps) = shown(disk, &size);
    assert!(gaps.iter().all(|(_, _, cause)| *cause == GapCause::Retention), "{gaps:?}");
    let of = |name: &str| records.iter().map(|(_, body)| body.clone()).filter(|b| b.starts_with(name)).collect();
    let (loud, quiet): (Vec<String>, Vec<String>) = (of("loud"), of("quiet"));
    let expected: Vec<u64> = (1..=line / 1000).map(|n| n * 1000).collect();
    let there: Vec<u64> = quiet.iter().map(|q| q[6..].split(':').next().unwrap().parse().unwrap()).collect();
    assert_eq!(there, expected, "lines of the quiet stream; {stats:?}");
    let newest = loud.last().unwrap();
    assert!(newest.starts_with(&format!("loud {}", if line.is_multiple_of(1000) { line - 1 } else { line })));
    (loud, quiet, stats)
}

#[test]
fn a_stream_that_floods_the_store_in_small_commits_evicts_only_itself() {
    let (loud, quiet, stats) = flood(5);
    assert!(quiet.len() > 100, "{} lines", quiet.len());
    assert!(loud.len() > 500, "{} lines of the flood; {stats:?}", loud.len());
    assert!(stats.bytes_dropped_share > stats.bytes_dropped_space, "{stats:?}");
}

#[test]
fn a_stream_that_floods_the_store_in_large_commits_evicts_only_itself() {
    let (loud, quiet, stats) = flood(150);
    assert!(quiet.len() > 100, "{} lines", quiet.len());
    assert!(loud.len() > 500, "{} lines of the flood; {stats:?}", loud.len());
}

#[test]
fn a_stream_that_floods_the_store_in_commits_of_two_segments_evicts_only_itself() {
    // As a node under load: each commit takes a whole memtable, which is two segments large.
    let (loud, quiet, stats) = flood(250);
    assert!(quiet.len() > 100, "{} lines", quiet.len());
    assert!(loud.len() > 500, "{} lines of the flood; {stats:?}", loud.len());
}
