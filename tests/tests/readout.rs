//! The node's half of the readout protocol on simulated media: what is asked for comes, once, whatever the windows, the
//! buffers and the writer do meanwhile.

use lastgasp_core::catalog::{Catalog, Memory};
use lastgasp_core::format::events::PreviousEnd;
use lastgasp_core::format::row::Row;
use lastgasp_core::gaps::GapCause;
use lastgasp_core::hal::{ReadStorage, SliceArena};
use lastgasp_core::reader::Reader;
use lastgasp_core::readout::answer::Event;
use lastgasp_core::readout::{
    Answer, BootEnd, End, Fact, LineDecoder, Live, Read, Request, Server, Status, Step, message_bytes_max,
};
use lastgasp_core::scan::ScanMemory;
use lastgasp_core::snapshot::Snapshot;
use lastgasp_core::store::{FormatOptions, OpenOptions, Store, format};
use lastgasp_hal_sim::disk::{DiskConfig, SimDisk};
use lastgasp_hal_sim::rig::{Rig, RigSize, ScanRig};
use lastgasp_hal_sim::rng::Rng;

type TestStore<'m> = Store<'m, SimDisk, SliceArena<'m>>;

fn size() -> RigSize {
    RigSize { group_bytes: 64 << 10, ..RigSize::new(16, 16 << 10) }
}

fn fresh(size: &RigSize) -> SimDisk {
    let mut disk = SimDisk::new(DiskConfig::new(size.segments, 16 << 10));
    format(&mut disk, Rig::new(size).parts().0, &FormatOptions { store_id: 9 }).unwrap();
    disk
}

fn open<'m>(disk: SimDisk, rig: &'m mut Rig) -> TestStore<'m> {
    let (memory, [a, b]) = rig.parts();
    let options = OpenOptions { wall_us: 1_700_000_000_000_000, synchronised: true, volatile_bound: 0 };
    Store::open(disk, memory, SliceArena(a), Some(SliceArena(b)), &options, &mut |_, _| ()).unwrap()
}

/// Appends so many records in one commit: of two streams, every tenth an error.
fn add(store: &mut TestStore<'_>, records: u64) {
    let streams = [store.stream("kernel"), store.stream("app")];
    let first = store.next_seq();
    let bodies: Vec<String> = (first..first + records).map(|n| format!("record {n}")).collect();
    let rows = bodies.iter().zip(first..).map(|(body, n)| Row {
        stream: streams[usize::from(n % 3 == 0)],
        severity: if n % 10 == 0 { 17 } else { 9 },
        continued: false,
        received_us: n,
        event_time_us: None,
        trace: None,
        body: body.as_bytes(),
        fields: &[],
    });
    store.append(&rows.collect::<Vec<_>>(), &[]).unwrap();
    store.commit().unwrap();
}

fn live<'a>(running: bool, facts: &'a [Fact<'a>]) -> Live<'a> {
    let status = Status { next_seq: 1000, record_bytes_max: 4096, ..Status::default() };
    let clock = lastgasp_core::format::header::ClockAnchor::default();
    Live { software: "test 1", running, previous_end: BootEnd::Clean, clock, status, facts }
}

fn ask(server: &mut Server, request: &Request<'_>) {
    let mut out = [0; 384];
    let len = request.write(7, &mut out).unwrap();
    let mut buf = [0; 384];
    server.ask(LineDecoder::new().next(&mut &out[..len], &mut buf).unwrap());
}

/// One message as a line of text.
fn text(framed: &[u8], position: u32) -> String {
    let mut buf = vec![0; framed.len()];
    let message = LineDecoder::new().next(&mut &framed[..], &mut buf).expect("a whole frame");
    let (place, answer) = Answer::decode(message).unwrap();
    assert_eq!((place.request, place.position), (7, position), "no message is missing");
    match answer {
        Answer::Record(r) => {
            let wall = 1_700_000_000_000_000 + i64::try_from(r.seq).unwrap();
            assert_eq!((r.received_wall_us(), r.synchronised), (Some(wall), true));
            format!("{} boot {} stream {}: {}", r.seq, r.boot, r.stream, String::from_utf8_lossy(r.body))
        }
        Answer::Stream { id, name } => format!("stream {id} {name}"),
        Answer::Gap(g) => format!("gap {}..{} {}", g.first_seq, g.last_seq, g.cause.name()),
        Answer::Event(Event::Boot { epoch, first_seq, .. }) => format!("boot {epoch} at {first_seq}"),
        Answer::Event(Event::Close { next_seq }) => format!("close at {next_seq}"),
        Answer::Boot(b) => format!("boot {} {}..{} {}", b.epoch, b.first_seq, b.last_seq, b.end.name()),
        Answer::End(End { next, more, waited, durable_upto }) => {
            format!("end next {next} more {more} waited {waited} durable {durable_upto}")
        }
        other => format!("{other:?}"),
    }
}

/// The answer to a request, message by message, over a catalog that does not change.
fn answer<S: ReadStorage>(
    s: &mut S,
    catalog: &Catalog<'_>,
    mem: &mut ScanMemory<'_>,
    request: &Request<'_>,
    release: bool,
) -> Vec<String> {
    let mut server = Server::new();
    ask(&mut server, request);
    let mut out = vec![0; 8];
    let mut lines: Vec<String> = Vec::new();
    let fields = [1, b'k', 0];
    let facts = [Fact { topic: "source", name: "stdin", fields: &fields }];
    loop {
        assert!(lines.len() < 100_000, "endless answer");
        match server.next(s, catalog, &live(false, &facts), mem, &mut out) {
            Step::Message(len) => {
                lines.push(text(&out[..len], u32::try_from(lines.len()).unwrap()));
                out = vec![0; 8]; // too small again
            }
            Step::Room(bytes) => {
                assert!(bytes > out.len() && bytes <= message_bytes_max(4096), "{bytes}");
                out.resize(bytes, 0);
            }
            Step::Refresh => {}
            Step::Idle => return lines,
            step => panic!("{step:?}"),
        }
        if release {
            server.release();
            mem.frame.fill(0xEE);
            mem.raw.fill(0xEE);
        }
    }
}

fn numbers(lines: &[String]) -> Vec<u64> {
    let records = lines.iter().filter(|l| l.contains(": record "));
    records.map(|l| l.split_once(' ').unwrap().0.parse().unwrap()).collect()
}

fn next_of(lines: &[String]) -> u64 {
    let end = lines.last().unwrap().strip_prefix("end next ").unwrap();
    end.split_once(' ').unwrap().0.parse().unwrap()
}

/// Three boots, the second without a clean stop, of 40 records each in commits of many sizes.
fn three_boots() -> SimDisk {
    let mut disk = fresh(&size());
    for boot in 0..3 {
        let mut rig = Rig::new(&size());
        let mut store = open(disk, &mut rig);
        for records in [1, 2, 30, 7] {
            add(&mut store, records);
        }
        if boot != 1 {
            store.close().unwrap();
        }
        disk = store.into_storage();
    }
    disk
}

fn with_reader<T>(disk: SimDisk, each: impl FnOnce(&mut SimDisk, &Catalog<'_>, &mut ScanMemory<'_>) -> T) -> T {
    let mut rig = Rig::new(&size());
    let mut reader = Reader::open(disk, rig.parts().0, &mut |_, _| ()).unwrap();
    assert_eq!(reader.report().previous_end, PreviousEnd::Clean);
    let mut scan = ScanRig::new(&size());
    let (storage, catalog) = reader.parts();
    each(storage, catalog, &mut scan.parts())
}

#[test]
fn windows_of_any_size_put_together_are_the_log_in_both_directions() {
    with_reader(three_boots(), |s, catalog, mem| {
        let whole = answer(s, catalog, mem, &Request::Read(Read::default()), false);
        assert_eq!(numbers(&whole), (1..=120).collect::<Vec<_>>());
        let events: Vec<&String> = whole.iter().filter(|l| l.contains(" at ")).collect();
        assert_eq!(events, ["boot 1 at 1", "close at 41", "boot 2 at 41", "boot 3 at 81", "close at 121"]);
        assert_eq!(whole.iter().filter(|l| l.starts_with("stream")).count(), 2, "names come once");
        assert!(whole.iter().any(|l| *l == "100 boot 3 stream 1: record 100"), "{whole:#?}");
        for (records_max, bytes_max) in [(1, 0), (2, 0), (7, 0), (40, 0), (0, 1), (0, 500), (0, 3000)] {
            for reverse in [false, true] {
                let mut read = Read { records_max, bytes_max, reverse, ..Read::default() };
                let mut lines: Vec<String> = Vec::new();
                loop {
                    lines = [lines, answer(s, catalog, mem, &Request::Read(read), records_max == 7)].concat();
                    let end = lines.last().unwrap();
                    if !end.contains("more true") {
                        break;
                    }
                    let next = next_of(&lines);
                    assert!(if reverse { next < read.to } else { next > read.from }, "a window moves on: {lines:#?}");
                    *if reverse { &mut read.to } else { &mut read.from } = next;
                }
                let mut got = numbers(&lines);
                if reverse {
                    got.reverse();
                } else {
                    // Where a window ends at an event, that may come again: it is told by its number.
                    let mut seen: Vec<&String> = lines.iter().filter(|l| l.contains(" at ")).collect();
                    seen.dedup();
                    assert_eq!(seen, events, "records_max {records_max} bytes_max {bytes_max}");
                }
                assert_eq!(got, (1..=120).collect::<Vec<_>>(), "records_max {records_max} bytes_max {bytes_max}");
            }
        }
    });
}

#[test]
fn a_scan_that_lost_its_memory_between_any_two_messages_goes_on_where_it_was() {
    with_reader(three_boots(), |s, catalog, mem| {
        for reverse in [false, true] {
            for stream in [None, Some("app")] {
                let read = Request::Read(Read { reverse, stream, ..Read::default() });
                let kept = answer(s, catalog, mem, &read, false);
                assert_eq!(answer(s, catalog, mem, &read, true), kept);
            }
        }
    });
}

#[test]
fn filters_leave_out_records_and_nothing_else() {
    with_reader(three_boots(), |s, catalog, mem| {
        let mut read = |read: Read<'_>| answer(s, catalog, mem, &Request::Read(read), false);
        let app = read(Read { stream: Some("app"), ..Read::default() });
        assert_eq!(numbers(&app), (1..=120).filter(|n| n % 3 == 0).collect::<Vec<_>>());
        assert_eq!(app.iter().filter(|l| l.starts_with("boot")).count(), 3);
        let errors = read(Read { severity_min: 17, from: 50, to: 100, ..Read::default() });
        assert_eq!(numbers(&errors), [50, 60, 70, 80, 90, 100]);
        assert_eq!(next_of(&errors), 101);
        assert_eq!(numbers(&read(Read { stream: Some("nobody"), ..Read::default() })), []);
        let (since_us, until_us) = (Some(1_700_000_000_000_010), Some(1_700_000_000_000_013));
        assert_eq!(numbers(&read(Read { since_us, until_us, ..Read::default() })), [10, 11, 12]);
        let beyond = read(Read { from: 500, ..Read::default() });
        assert_eq!((numbers(&beyond), next_of(&beyond)), (vec![], 500));
        let one = read(Read { from: 41, to: 41, ..Read::default() });
        assert_eq!(one[..2], ["close at 41", "boot 2 at 41"], "events in front of the first record belong to it");
        assert!(read(Read { from: 42, to: 42, ..Read::default() })[0].starts_with("stream"));
    });
}

#[test]
fn who_streams_gaps_boots_and_status_are_answered() {
    with_reader(three_boots(), |s, catalog, mem| {
        let mut get = |request: Request<'_>| answer(s, catalog, mem, &request, false);
        let hello = get(Request::Hello { version: 9 });
        assert!(hello[0].contains("version: 1, store_id: 9, boot: 4, running: false"), "{hello:?}");
        assert_eq!(get(Request::Streams)[..2], ["stream 1 kernel", "stream 2 app"]);
        let boots = get(Request::Boots);
        assert_eq!(boots[..3], ["boot 1 1..40 clean", "boot 2 41..80 cut", "boot 3 81..120 clean"]);
        assert!(boots[3].starts_with("end"));
        let status = get(Request::Status);
        assert!(status[0].contains("next_seq: 1000, durable_upto: 120, floor: 1"), "{status:?}");
        assert!(status[1].starts_with("Fact") && status[2].starts_with("end"));
        assert_eq!(get(Request::Gaps).len(), 1);
    });
}

#[test]
fn what_runs_is_a_boot_that_runs_also_before_it_has_written() {
    let mut rig = Rig::new(&size());
    let mut store = open(three_boots(), &mut rig);
    let mut scan = ScanRig::new(&size());
    let boots = |store: &mut TestStore<'_>, scan: &mut ScanRig| {
        let (s, catalog) = store.parts();
        let mut server = Server::new();
        ask(&mut server, &Request::Boots);
        let (mut out, mut lines) = (vec![0; 4096], Vec::new());
        while let Step::Message(len) = server.next(s, catalog, &live(true, &[]), &mut scan.parts(), &mut out) {
            lines.push(text(&out[..len], u32::try_from(lines.len()).unwrap()));
        }
        lines
    };
    assert_eq!(boots(&mut store, &mut scan)[2..4], ["boot 3 81..120 clean", "boot 4 1000..999 running"]);
    add(&mut store, 5);
    assert_eq!(boots(&mut store, &mut scan)[2..4], ["boot 3 81..120 clean", "boot 4 121..125 running"]);
}

/// Memory of a copy of a catalog.
fn copy_memory(rig: &mut Rig) -> Memory<'_> {
    rig.parts().0
}

#[test]
fn a_reader_that_retention_overtakes_gets_a_retention_gap_and_never_rot() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let reverse = seed % 2 == 1;
        let mut rig = Rig::new(&size());
        let mut store = open(fresh(&size()), &mut rig);
        for _ in 0..30 {
            add(&mut store, rng.below(60) + 1);
        }
        let mut copied = Rig::new(&size());
        let mut snapshot = Snapshot::take(store.catalog(), &mut copy_memory(&mut copied)).unwrap();
        let mut server = Server::new();
        let upto = snapshot.durable_upto();
        ask(&mut server, &Request::Read(Read { reverse, to: upto, ..Read::default() }));
        let mut scan = ScanRig::new(&size());
        let (mut out, mut lines, mut refreshed) = (vec![0; 8192], Vec::new(), 0);
        loop {
            let catalog = snapshot.catalog(copy_memory(&mut copied));
            let step = server.next(store.parts().0, &catalog, &live(true, &[]), &mut scan.parts(), &mut out);
            match step {
                Step::Message(len) => lines.push(text(&out[..len], u32::try_from(lines.len()).unwrap())),
                Step::Refresh => {
                    refreshed += 1;
                    snapshot = Snapshot::take(store.catalog(), &mut copy_memory(&mut copied)).unwrap();
                }
                Step::Idle => break,
                step => panic!("{step:?}"),
            }
            if rng.below(3) == 0 {
                add(&mut store, rng.below(120) + 1);
            }
        }
        let seed = format!("seed {seed}, {refreshed} newer copies: {lines:#?}");
        assert!(!lines.iter().any(|l| l.ends_with(GapCause::Rot.name())), "{seed}");
        // Every number exactly once, as a record or in a gap.
        let mut ranges: Vec<(u64, u64)> = numbers(&lines).into_iter().map(|n| (n, n)).collect();
        for gap in lines.iter().filter_map(|l| l.strip_prefix("gap ")) {
            let (first, rest) = gap.split_once("..").unwrap();
            ranges.push((first.parse().unwrap(), rest.split_once(' ').unwrap().0.parse().unwrap()));
        }
        ranges.sort_unstable();
        let end = ranges.iter().try_fold(1, |next, (first, last)| (*first == next).then_some(last + 1));
        assert_eq!(end, Some(upto + 1), "{seed}");
    }
}

#[test]
fn what_is_rotten_is_called_rotten_by_an_old_copy_too() {
    let mut rig = Rig::new(&size());
    let mut store = open(fresh(&size()), &mut rig);
    for _ in 0..20 {
        add(&mut store, 10);
    }
    store.close().unwrap();
    let mut disk = store.into_storage();
    let at = disk.image().to_vec().windows(10).position(|w| w == b"record 105").unwrap();
    disk.flip_bit(u64::try_from(at).unwrap(), 1);
    with_reader(disk, |s, catalog, mem| {
        let lines = answer(s, catalog, mem, &Request::Read(Read::default()), false);
        assert!(lines.iter().any(|l| *l == "gap 101..110 rot"), "{lines:#?}");
        assert_eq!(numbers(&lines).len(), 190);
    });
}

#[test]
fn a_window_that_waits_gets_what_becomes_durable_or_ends_when_the_wait_is_over() {
    let mut rig = Rig::new(&size());
    let mut store = open(fresh(&size()), &mut rig);
    add(&mut store, 3);
    let mut scan = ScanRig::new(&size());
    let mut out = vec![0; 8192];
    let mut server = Server::new();
    let mut next = |server: &mut Server, store: &mut TestStore<'_>| {
        let (s, catalog) = store.parts();
        match server.next(s, catalog, &live(true, &[]), &mut scan.parts(), &mut out) {
            Step::Message(len) => {
                let mut buf = vec![0; len];
                let message = LineDecoder::new().next(&mut &out[..len], &mut buf).unwrap().to_vec();
                let (place, _) = Answer::decode(&message).unwrap();
                text(&out[..len], place.position)
            }
            step => format!("{step:?}"),
        }
    };
    ask(&mut server, &Request::Read(Read { from: 4, wait_ms: 500, ..Read::default() }));
    assert_eq!(next(&mut server, &mut store), "Wait { ms: 500 }");
    assert_eq!(next(&mut server, &mut store), "Wait { ms: 500 }");
    assert!(!server.is_idle());
    add(&mut store, 2);
    let lines: Vec<String> = (0..5).map(|_| next(&mut server, &mut store)).collect();
    assert_eq!(lines[1], "4 boot 1 stream 1: record 4");
    assert_eq!(lines[3], "end next 6 more false waited false durable 5");
    assert_eq!(lines[4], "Idle");
    ask(&mut server, &Request::Read(Read { from: 6, wait_ms: 500, ..Read::default() }));
    assert_eq!(next(&mut server, &mut store), "Wait { ms: 500 }");
    server.wait_over();
    assert_eq!(next(&mut server, &mut store), "end next 6 more false waited true durable 5");
    // A new request ends the one that waits.
    ask(&mut server, &Request::Read(Read { from: 6, wait_ms: 500, ..Read::default() }));
    assert_eq!(next(&mut server, &mut store), "Wait { ms: 500 }");
    ask(&mut server, &Request::Checkpoint);
    assert_eq!(next(&mut server, &mut store), "Checkpoint");
    server.checkpointed(Ok(5));
    assert_eq!(next(&mut server, &mut store), "Durable { upto: 5 }");
    assert!(next(&mut server, &mut store).starts_with("end"));
    server.ask(&[0x44, 9]);
    ask(&mut server, &Request::Read(Read { from: 1, to: 1, wait_ms: 500, ..Read::default() }));
    assert_eq!(next(&mut server, &mut store), "boot 1 at 1", "what is there needs no wait");
}
