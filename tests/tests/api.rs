//! Readers of a running node: the daemon's own writer and socket, a real file, and the client.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::node::TestNode;
use crossbeam_channel::bounded;
use lastgasp_client::{Entry, Flow, GapCause, NodeSource, Query};
use lastgasp_core::readout::{REQUEST_BYTES_MAX, Read as Window, Request};
use lastgasp_hal_sim::rng::Rng;
use lastgaspd::parcel::Slot;

fn start(size_bytes: u64) -> TestNode {
    TestNode::start_in(tempfile::tempdir().unwrap(), size_bytes, "test")
}

/// Sends so many records of three streams and waits until they are durable.
fn send(node: &TestNode, from: u64, records: u64, pad: usize) {
    node.send(|parcel| {
        for n in from..from + records {
            let body = format!("record {n} {}", "x".repeat(pad));
            let stream = parcel.stream(["kernel", "app", "sshd"][usize::try_from(n % 3).unwrap()]);
            let body = parcel.copy(body.as_bytes());
            parcel.push(Slot { severity: if n % 10 == 0 { 17 } else { 9 }, ..Slot::plain(stream, body) });
        }
        parcel.state(b"cursor", &(from + records).to_le_bytes());
    });
}

fn connect(node: &TestNode) -> NodeSource {
    NodeSource::open(&node.socket()).unwrap()
}

fn line(entry: &Entry<'_>) -> String {
    match entry {
        Entry::Record(r) => {
            let body = String::from_utf8_lossy(r.body);
            format!("{} {} {:?} {}", r.seq, r.stream, r.boot, body.trim_end_matches([' ', 'x']))
        }
        Entry::Gap(g) => format!("gap {}..{} {}", g.first_seq, g.last_seq, g.cause.name()),
        Entry::Event(e) => format!("event {e:?}"),
    }
}

fn read(client: &mut NodeSource, query: &Query) -> Vec<String> {
    let mut lines = Vec::new();
    client
        .read(query, &mut |entry, _| {
            lines.push(line(&entry));
            Ok(Flow::On)
        })
        .unwrap();
    lines
}

fn records(lines: &[String]) -> Vec<u64> {
    let numbered = lines.iter().filter(|l| l.contains(" record "));
    numbered.map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn what_was_sent_is_read_in_both_directions_filtered_and_told_of() {
    let node = start(8 << 20);
    send(&node, 1, 500, 10);
    let mut client = connect(&node);
    let all = read(&mut client, &Query::default());
    assert_eq!(records(&all), (1..=500).collect::<Vec<_>>());
    assert!(all.iter().any(|l| l == "500 sshd Some(1) record 500"), "{:?}", all.last());
    let mut reverse = records(&read(&mut client, &Query { reverse: true, ..Query::default() }));
    reverse.reverse();
    assert_eq!(reverse, (1..=500).collect::<Vec<_>>());
    let app = Query { streams: vec!["app".into()], severity_min: Some(17), ..Query::default() };
    assert_eq!(records(&read(&mut client, &app)), (1..=500).filter(|n| n % 30 == 10).collect::<Vec<_>>());
    let two = Query { streams: vec!["app".into(), "sshd".into()], to: 9, ..Query::default() };
    assert_eq!(records(&read(&mut client, &two)), [1, 2, 4, 5, 7, 8]);
    assert_eq!(client.streams().unwrap(), ["app", "sshd", "kernel"]);
    let status = client.status().unwrap();
    assert_eq!((status.numbers.durable_upto, status.numbers.records, status.numbers.running), (500, 500, 1));
    assert!(status.numbers.device_bytes > 5000 && status.numbers.syncs > 0, "{:?}", status.numbers);
    assert_eq!(client.state(b"cursor").unwrap(), Some(501u64.to_le_bytes().to_vec()));
    assert_eq!(client.state(b"other").unwrap(), None);
    let of = |topic: &str| status.facts.iter().filter(|f| f.topic == topic).count();
    assert_eq!((of("source"), of("stream")), (1, 3), "{:?}", status.facts);
    let boots = client.boots().unwrap();
    assert_eq!((boots.len(), boots[0].last_seq, boots[0].end.name()), (1, 500, "running"));
    assert_eq!(client.checkpoint().unwrap(), 500);
    // A look elsewhere while an entry is held.
    let mut found = Vec::new();
    let held = Query { from: 100, to: 101, ..Query::default() };
    client
        .read(&held, &mut |entry, look| {
            let Entry::Record(record) = entry else { return Ok(Flow::On) };
            let before = Query { to: record.seq - 1, reverse: true, ..Query::default() };
            look.look(&before, &mut |entry| {
                found.push((line(&Entry::Record(record)), line(&entry)));
                Ok(Flow::Stop)
            })
            .unwrap();
            Ok(Flow::On)
        })
        .unwrap();
    assert_eq!(found[1], ("101 sshd Some(1) record 101".into(), "100 app Some(1) record 100".into()));
    // What a former boot kept, and how it ended, is known to the next one.
    let node = TestNode::start_in(node.stop(), 8 << 20, "test");
    let mut client = connect(&node);
    assert_eq!(client.boots().unwrap().iter().map(|b| b.end.name()).collect::<Vec<_>>(), ["clean", "running"]);
    assert_eq!(records(&read(&mut client, &Query::default())).len(), 500);
}

#[test]
fn who_follows_is_woken_by_what_becomes_durable_and_by_nothing_else() {
    let node = start(8 << 20);
    send(&node, 1, 3, 0);
    let socket = node.socket();
    let (to, got) = bounded(0);
    let follower = thread::spawn(move || {
        let mut client = NodeSource::open(&socket).unwrap();
        let mut next = 4;
        while next <= 50 {
            assert!(client.wait(next, Duration::from_secs(60)).unwrap());
            let query = Query { from: next, ..Query::default() };
            let lines = read(&mut client, &query);
            let numbers = records(&lines);
            assert_eq!(numbers.first(), Some(&next));
            next = numbers.last().unwrap() + 1;
            to.send(next).unwrap();
        }
    });
    for n in 4..=50 {
        send(&node, n, 1, 0);
        // It hears of each before the next is sent.
        assert_eq!(got.recv_timeout(Duration::from_secs(30)), Ok(n + 1));
    }
    follower.join().unwrap();
    let mut client = connect(&node);
    assert!(!client.wait(51, Duration::from_millis(20)).unwrap(), "nothing came");
}

/// Passes bytes on between a client and the node, so many from the node for each connection, then breaks it.
fn breaking_line(node: &Path, at: &Path, mut rng: Rng, cut_max: u64) -> JoinHandle<u64> {
    let listener = UnixListener::bind(at).unwrap();
    let node = node.to_path_buf();
    thread::spawn(move || {
        let mut broken = 0;
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut server = UnixStream::connect(&node).unwrap();
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let up = thread::spawn(move || {
                let mut bytes = [0; 4096];
                let mut first = true;
                while let Ok(len @ 1..) = from_client.read(&mut bytes) {
                    if first && bytes[0] == b'!' {
                        let _ = to_server.shutdown(std::net::Shutdown::Both);
                        return true; // the test is over
                    }
                    first = false;
                    if to_server.write_all(&bytes[..len]).is_err() {
                        break;
                    }
                }
                let _ = to_server.shutdown(std::net::Shutdown::Both);
                false
            });
            let mut left = usize::try_from(200 + rng.below(cut_max)).unwrap();
            let mut bytes = [0; 4096];
            while left > 0 {
                let want = left.min(bytes.len());
                let Ok(len @ 1..) = server.read(&mut bytes[..want]) else { break };
                if client.write_all(&bytes[..len]).is_err() {
                    break;
                }
                left -= len;
            }
            broken += u64::from(left == 0);
            let _ = client.shutdown(std::net::Shutdown::Both);
            let _ = server.shutdown(std::net::Shutdown::Both);
            if up.join().unwrap() {
                break;
            }
        }
        broken
    })
}

#[test]
fn a_connection_that_breaks_at_any_byte_is_made_again_and_every_entry_comes_once() {
    // Four boots, the log of each behind that of the one before, with gaps of lost records between.
    let mut dir = tempfile::tempdir().unwrap();
    for boot in 0..4 {
        let node = TestNode::start_in(dir, 8 << 20, "test");
        send(&node, boot * 200 + 1, 200, 20);
        dir = node.stop();
    }
    let node = TestNode::start_in(dir, 8 << 20, "test");
    send(&node, 801, 1200, 5);
    for seed in 0..12 {
        let query = Query { reverse: seed % 3 == 2, ..Query::default() };
        let whole = read(&mut connect(&node), &query);
        assert_eq!(records(&whole).len(), 2000);
        let proxy = node.dir().join(format!("p{seed}"));
        let line = breaking_line(&node.socket(), &proxy, Rng::new(seed), 1 << (7 + seed % 8));
        let mut client = NodeSource::open(&proxy).unwrap();
        assert_eq!(read(&mut client, &query), whole, "seed {seed}");
        drop(client);
        UnixStream::connect(&proxy).unwrap().write_all(b"!").unwrap();
        let broken = line.join().unwrap();
        assert!(broken > 3, "seed {seed}: broken {broken} times");
    }
}

#[test]
fn garbage_and_half_requests_harm_nobody() {
    let node = start(8 << 20);
    send(&node, 1, 50, 0);
    let seed = 7;
    let mut rng = Rng::new(seed);
    for round in 0..300 {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        for _ in 0..rng.below(6) {
            let mut bytes = vec![0; REQUEST_BYTES_MAX];
            if rng.chance(1, 2) {
                let window = Window {
                    from: rng.any() >> rng.below(64),
                    to: rng.any() >> rng.below(64),
                    reverse: rng.chance(1, 2),
                    stream: rng.chance(1, 2).then_some("app"),
                    wait_ms: 5,
                    ..Window::default()
                };
                let all = [Request::Status, Request::Boots, Request::Gaps, Request::Checkpoint, Request::Streams];
                let request = if rng.chance(1, 2) { Request::Read(window) } else { all[rng.index(all.len())] };
                let len = request.write(9, &mut bytes).unwrap();
                bytes.truncate(len);
                if rng.chance(1, 2) {
                    let at = rng.index(len);
                    bytes[at] ^= rng.byte();
                }
            } else {
                rng.fill(&mut bytes);
            }
            // It may have been thrown out already.
            let _ = stream.write_all(&bytes);
        }
        if rng.chance(1, 3) {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let _ = stream.read_to_end(&mut answer);
        }
        if round % 50 == 49 {
            assert_eq!(records(&read(&mut connect(&node), &Query::default())).len(), 50, "seed {seed} round {round}");
        }
    }
}

#[test]
fn hundreds_that_only_connect_take_nobodys_place() {
    let node = start(8 << 20);
    send(&node, 1, 20, 0);
    let mut client = connect(&node);
    let idle: Vec<UnixStream> = (0..400).map(|_| UnixStream::connect(node.socket()).unwrap()).collect();
    // It was the one idle the longest, and is let go like others: it comes again by itself.
    assert_eq!(records(&read(&mut client, &Query::default())).len(), 20);
    assert_eq!(records(&read(&mut connect(&node), &Query::default())).len(), 20);
    // The oldest were let go.
    let mut first = &idle[0];
    first.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
}

#[test]
fn readers_that_do_not_read_hold_up_neither_the_writer_nor_others() {
    let node = start(32 << 20);
    for n in 0..20 {
        send(&node, n * 100 + 1, 100, 1000);
    }
    let mut out = [0; REQUEST_BYTES_MAX];
    let len = Request::Read(Window::default()).write(1, &mut out).unwrap();
    let stuck: Vec<UnixStream> = (0..7)
        .map(|_| {
            let mut stream = UnixStream::connect(node.socket()).unwrap();
            stream.write_all(&out[..len]).unwrap();
            stream
        })
        .collect();
    for n in 20..30 {
        send(&node, n * 100 + 1, 100, 1000);
    }
    let mut client = connect(&node);
    assert_eq!(records(&read(&mut client, &Query::default())).len(), 3000);
    drop(stuck);
}

#[test]
fn a_reader_that_retention_overtakes_gets_a_gap_that_says_so() {
    let node = start(2 << 20);
    for n in 0..3 {
        send(&node, n * 100 + 1, 100, 1000);
    }
    let mut client = connect(&node);
    let (mut lines, mut next) = (Vec::new(), 301);
    client
        .read(&Query::default(), &mut |entry, _| {
            lines.push(line(&entry));
            if lines.len() == 20 {
                // The whole store is written anew.
                for _ in 0..40 {
                    send(&node, next, 100, 1000);
                    next += 100;
                }
            }
            Ok(Flow::On)
        })
        .unwrap();
    let gaps: Vec<&String> = lines.iter().filter(|l| l.starts_with("gap")).collect();
    assert!(gaps.iter().all(|l| l.ends_with(GapCause::Retention.name())), "{gaps:?}");
    let numbers = records(&lines);
    assert!(numbers.len() >= 18 && numbers.windows(2).all(|w| w[0] < w[1]), "{gaps:?} {}", numbers.len());
}

#[test]
fn a_record_of_the_largest_size_passes() {
    let node = start(128 << 20);
    let large = 3 << 20;
    send(&node, 1, 1, large - 100);
    send(&node, 2, 2, 10);
    let mut client = connect(&node);
    let mut sizes = Vec::new();
    client
        .read(&Query::default(), &mut |entry, _| {
            if let Entry::Record(record) = entry {
                sizes.push(record.body.len());
            }
            Ok(Flow::On)
        })
        .unwrap();
    assert_eq!(sizes, [large - 100 + 9, 19, 19]);
}

#[test]
fn a_node_that_is_silent_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let words = NodeSource::open(&path).unwrap_err().to_string();
    assert!(words.contains("does not answer"), "{words}");
    let nobody = NodeSource::open(&dir.path().join("none")).unwrap_err().to_string();
    assert!(nobody.contains("no node answers there"), "{nobody}");
}
