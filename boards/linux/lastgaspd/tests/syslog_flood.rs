//! Syslog by many, by slow ones and by those who never end a line: memory stays bounded.
//!
//! These tests look at the memory of their process, so they are in one of their own, and run one after another.

mod support;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lastgaspd::sources::listen;
use lastgaspd::sources::syslog::tcp;
use support::{Bench, memory_kib};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_tcp(bench: &mut Bench) -> SocketAddr {
    let listeners = listen::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let at = listeners[0].local_addr().unwrap();
    bench.start(move |ctx| tcp::run(listeners, ctx).unwrap());
    at
}

#[test]
fn a_line_of_a_gibibyte_is_kept_in_bounded_memory() {
    let _alone = alone();
    let mut bench = Bench::new(1 << 20);
    let at = start_tcp(&mut bench);
    let total: u64 = 1 << 30;
    let before = memory_kib();
    let sender = std::thread::spawn(move || {
        let mut sender = TcpStream::connect(at).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        sender.write_all(b"<13>big: ").unwrap();
        (0..total >> 20).for_each(|_| sender.write_all(&chunk).unwrap());
        sender.write_all(b"\n").unwrap();
    });
    let (mut got, mut most) = (0u64, 0);
    let mut is_done = false;
    while !is_done {
        let mut records = Vec::new();
        let event = bench.queue.next(Some(std::time::Instant::now() + support::PATIENCE)).expect("more of it");
        bench.take(event, &mut records);
        for record in &records {
            assert_eq!(record.stream, "big");
            got += record.body.len() as u64;
            is_done |= !record.continued;
        }
        most = most.max(memory_kib());
    }
    sender.join().unwrap();
    assert_eq!(got, total);
    let grown = most.saturating_sub(before);
    println!("memory grew by {grown} KiB");
    assert!(grown < 64 << 10, "{grown} KiB");
    bench.stop();
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_do_not_get_in_the_way() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let _alone = alone();
    let mut bench = Bench::new(1 << 20);
    let at = start_tcp(&mut bench);
    // Both ends are in this process; the source takes half of what there is.
    let wanted = 10_000.min(usize::try_from(files.saturating_sub(256) / 2).unwrap_or(usize::MAX)).saturating_sub(200);
    if wanted < 9_800 {
        println!("scaled down to {wanted} connections: the limit of open files is {files}");
    }
    let before = memory_kib();
    let mut idle = Vec::new();
    for i in 0..wanted {
        let mut stream = match TcpStream::connect(at) {
            Ok(stream) => stream,
            Err(e) if e.kind() == ErrorKind::AddrNotAvailable => {
                println!("scaled down to {i} connections: no more local ports");
                break;
            }
            Err(e) => panic!("connection {i}: {e}"),
        };
        // Slow ones: a part of a message, and never the rest.
        stream.write_all(b"<13>slow: never en").unwrap();
        idle.push(stream);
    }
    let mut live = TcpStream::connect(at).unwrap();
    live.write_all(b"<13>live: here\n").unwrap();
    assert_eq!(bench.records(1)[0].text(), "here");
    let grown = memory_kib().saturating_sub(before);
    println!("{} connections, memory grew by {grown} KiB", idle.len());
    assert!(grown < 16 << 10, "{grown} KiB");
    assert!(bench.status.report().words.contains("connections"));
    drop(idle);
    assert_eq!(bench.records(wanted.min(100))[0].text(), "never en", "what came is kept when the connection ends");
    bench.stop();
}

#[test]
fn connections_that_hold_long_lines_together_hold_bounded_memory() {
    let _alone = alone();
    let mut bench = Bench::new(1 << 20);
    let at = start_tcp(&mut bench);
    let before = memory_kib();
    let line = vec![b'y'; 200 << 10];
    // 40 MB in all, none of them with an end.
    let reader = std::thread::spawn(move || {
        let mut open = Vec::new();
        for _ in 0..200 {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(b"<13>long: ").unwrap();
            stream.write_all(&line).unwrap();
            open.push(stream);
        }
        open
    });
    let mut most = 0;
    let mut got = 0usize;
    let mut open = None;
    let mut reader = Some(reader);
    while got < 200 * (200 << 10) {
        let mut records = Vec::new();
        if let Some(event) = bench.queue.next(Some(std::time::Instant::now() + Duration::from_millis(50))) {
            bench.take(event, &mut records);
        } else if reader.as_ref().is_some_and(std::thread::JoinHandle::is_finished) {
            // All is sent, and all that does not fit was handed over: the rest comes with the end.
            open = reader.take().map(|r| r.join().unwrap());
            drop(open.take());
        }
        got += records.iter().map(|r| r.body.len()).sum::<usize>();
        most = most.max(memory_kib());
    }
    drop(open);
    let grown = most.saturating_sub(before);
    println!("memory grew by {grown} KiB");
    assert!(grown < 48 << 10, "{grown} KiB");
    bench.stop();
}
