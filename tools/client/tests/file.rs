//! The client on real files, as another program would use it.

use std::path::{Path, PathBuf};

use lastgasp_client::{BootEnd, Client, Entry, Error, Event, Flow, GapCause, Place, Query, Target, Value};
use lastgasp_core::format::fields::FieldsWriter;
use lastgasp_core::format::row::Row;
use lastgasp_core::hal::ReadStorage;
use lastgasp_core::store::{self, OpenOptions as MountOptions, Store};
use lastgasp_hal_linux::{FileStorage, FormatOptions, HeapArena, OpenOptions, StoreMemory};

fn row(stream: u16, body: &[u8]) -> Row<'_> {
    Row { stream, severity: 9, continued: false, received_us: 5, event_time_us: None, trace: None, body, fields: &[] }
}

/// A store of three records in two streams, with a cursor; a boot that was cut with records in RAM, one that stopped.
fn sample(directory: &Path) -> PathBuf {
    let path = directory.join("store");
    let options = FormatOptions { allow_volatile: true, ..FormatOptions::new(512 << 10) };
    let mut storage = FileStorage::create(&path, &options, &mut |_, _| {}).unwrap();
    let mut memory = StoreMemory::new(&storage.geometry());
    store::format(&mut storage, memory.parts(), &store::FormatOptions { store_id: 7 }).unwrap();
    drop(storage);
    for boot in 0..2 {
        let storage = OpenOptions::new().allow_volatile(true).open(&path).unwrap();
        let mut memory = StoreMemory::new(&storage.geometry());
        let options = MountOptions { wall_us: 1_000_000 * (boot + 1), synchronised: true, volatile_bound: 4 };
        let arena = HeapArena::new(1 << 20);
        let mut node = Store::open(storage, memory.parts(), arena, None, &options, &mut |_, _| ()).unwrap();
        let (a, b) = (node.stream("a"), node.stream("b"));
        if boot == 0 {
            let mut out = [0; 64];
            let mut fields = FieldsWriter::new(&mut out);
            fields.field("k", Value::U64(3)).unwrap();
            let first = Row { fields: fields.into_bytes(), severity: 17, ..row(a, b"one") };
            node.append(&[first, row(b, b"two")], &[(b"cursor", b"here")]).unwrap();
            node.commit().unwrap();
        } else {
            node.append(&[row(a, b"three")], &[]).unwrap();
            node.commit().unwrap();
            node.close().unwrap();
        }
    }
    path
}

fn open(path: &Path) -> Client {
    Client::open(&Target::Store(path.to_path_buf()), &mut |_| ()).unwrap()
}

fn bodies(client: &mut Client, query: &Query) -> Vec<String> {
    let mut found = Vec::new();
    client
        .read(query, &mut |entry, _| {
            if let Entry::Record(record) = entry {
                found.push(String::from_utf8(record.body.to_vec()).unwrap());
            }
            Ok(Flow::On)
        })
        .unwrap();
    found
}

#[test]
fn records_gaps_and_boots_come_in_order_and_a_read_can_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = open(&sample(dir.path()));
    let mut seen = Vec::new();
    let next = client
        .read(&Query::default(), &mut |entry, _| {
            seen.push(match entry {
                Entry::Record(record) => format!("{} {}", record.seq, record.stream),
                Entry::Gap(gap) => format!("{} to {} {}", gap.first_seq, gap.last_seq, gap.cause.name()),
                Entry::Event(event) => format!("{event:?}").chars().take_while(|c| c.is_alphabetic()).collect(),
            });
            Ok(Flow::On)
        })
        .unwrap();
    assert_eq!(seen, ["Boot", "1 a", "2 b", "Boot", "3 to 6 ram-tier", "7 a", "Close"]);
    assert_eq!((next, client.next_seq().unwrap()), (8, 8));
    assert_eq!(bodies(&mut client, &Query { from: next, ..Query::default() }), Vec::<String>::new());
}

#[test]
fn events_come_with_the_records_that_they_stand_in_front_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = open(&sample(dir.path()));
    for (from, to, want) in
        [(1, 1, "Boot 1"), (2, 2, ""), (3, 6, "Boot 7"), (7, 7, "Boot 7, Close 8"), (8, 9, "Close 8")]
    {
        let mut events = Vec::new();
        client
            .read(&Query { from, to, ..Query::default() }, &mut |entry, _| {
                match entry {
                    Entry::Event(Event::Boot { first_seq, .. }) => events.push(format!("Boot {first_seq}")),
                    Entry::Event(Event::Close { next_seq }) => events.push(format!("Close {next_seq}")),
                    _ => {}
                }
                Ok(Flow::On)
            })
            .unwrap();
        assert_eq!(events.join(", "), want, "{from} to {to}");
    }
}

#[test]
fn queries_choose_and_records_tell_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = open(&sample(dir.path()));
    let all = Query::default;
    let streams = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (query, want) in [
        (Query { streams: streams(&["a"]), ..all() }, &["one", "three"][..]),
        (Query { streams: streams(&["a", "b"]), reverse: true, ..all() }, &["three", "two", "one"]),
        (Query { streams: streams(&["nobody"]), ..all() }, &[]),
        (Query { severity_min: Some(10), ..all() }, &["one"]),
        (Query { severity_max: Some(10), ..all() }, &["two", "three"]),
        (Query { since_us: Some(2_000_000), ..all() }, &["three"]),
        (Query { until_us: Some(2_000_000), from: 2, ..all() }, &["two"]),
    ] {
        assert_eq!(bodies(&mut client, &query), want, "{query:?}");
    }
    client
        .read(&Query { to: 1, ..all() }, &mut |entry, look| {
            let Entry::Record(record) = entry else { return Ok(Flow::On) };
            assert_eq!((record.boot, record.severity, record.received_us), (Some(1), 17, Some(1_000_005)));
            assert_eq!(record.fields().get("k"), Some(Value::U64(3)));
            // While it is held, one can look elsewhere.
            let mut last = Vec::new();
            let newest = Query { reverse: true, ..Query::default() };
            look.look(&newest, &mut |entry| {
                if let Entry::Record(record) = entry {
                    last = record.body.to_vec();
                }
                Ok(Flow::Stop)
            })
            .unwrap();
            assert_eq!((record.body, last.as_slice()), (&b"one"[..], &b"three"[..]));
            Ok(Flow::Stop)
        })
        .unwrap();
}

#[test]
fn what_is_known_of_a_log_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = sample(dir.path());
    let mut client = open(&path);
    assert_eq!(client.streams().unwrap(), ["a", "b"]);
    assert_eq!(client.identity().unwrap(), 7);
    assert_eq!(client.state(b"cursor").unwrap().as_deref(), Some(&b"here"[..]));
    assert_eq!(client.state(b"other").unwrap(), None);
    let boots = client.boots().unwrap();
    let ends: Vec<_> = boots.as_slice().iter().map(|boot| (boot.epoch, boot.last_seq, boot.ended)).collect();
    assert_eq!(ends, [(1, 2, BootEnd::Cut), (2, 7, BootEnd::Clean)]);
    assert_eq!((boots.range(boots.find(-1).unwrap()), boots.find(2)), ((1, 6), boots.find(0)));
    assert_eq!((boots.find(-2), boots.find(9), boots.find(i64::MIN)), (None, None, None));
    let gaps = client.gaps(false, &mut |_, _| ()).unwrap();
    assert_eq!(gaps.len(), 1);
    let gap = &gaps[0];
    assert_eq!((gap.cause, gap.first_seq, gap.last_seq, gap.exact), (GapCause::RamTier, 3, 6, false));
    assert_eq!((gap.after_us, gap.before_us), (Some(1_000_005), Some(2_000_005)));
    assert_eq!(client.gaps(true, &mut |_, _| ()).unwrap(), gaps);
    assert!(matches!(client.checkpoint(), Err(Error::NeedsNode { .. })));
}

#[test]
fn an_error_of_the_caller_comes_back_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = open(&sample(dir.path()));
    let done = client.read(&Query::default(), &mut |_, _| Err(std::io::ErrorKind::BrokenPipe.into()));
    assert!(matches!(done, Err(Error::Caller(error)) if error.kind() == std::io::ErrorKind::BrokenPipe));
}

#[test]
fn what_is_named_wins() {
    let place = Place { store: Some("/a".into()), ..Place::default() };
    assert_eq!(place.find().unwrap(), Target::Store("/a".into()));
    let place = Place { socket: Some("/s".into()), ..place };
    assert_eq!(place.find().unwrap(), Target::Node { socket: "/s".into(), store: Some("/a".into()) });
    assert_eq!(place.find_medium().unwrap(), Path::new("/a"));
}
