//! Syslog from real senders and over real sockets.

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use lastgaspd::sources::listen;
use lastgaspd::sources::syslog::{tcp, udp};
use support::{Bench, Process, has};

const LOOPBACK: &str = "127.0.0.1:0";

fn start_udp(bench: &mut Bench) -> SocketAddr {
    let sockets = udp::bind(&[LOOPBACK.parse().unwrap()]).unwrap();
    let at = sockets[0].local_addr().unwrap();
    bench.start(move |ctx| udp::run(sockets, ctx));
    at
}

fn start_tcp(bench: &mut Bench) -> SocketAddr {
    let listeners = listen::bind(&[LOOPBACK.parse().unwrap()]).unwrap();
    let at = listeners[0].local_addr().unwrap();
    bench.start(move |ctx| tcp::run(listeners, ctx).unwrap());
    at
}

#[test]
fn a_datagram_is_a_record_with_what_its_header_says() {
    let mut bench = Bench::new(1 << 20);
    let at = start_udp(&mut bench);
    let sender = UdpSocket::bind(LOOPBACK).unwrap();
    let data = r#"[id@1 a="1" b="say \"hi\" \n"][two c=""]"#;
    let message = format!("<165>1 2003-10-11T22:14:15.003Z pi web 7 M1 {data} caf\u{e9} ");
    sender.send_to(message.as_bytes(), at).unwrap();
    sender.send_to(b"no header, \xff\0bytes\n", at).unwrap();
    sender.send_to(b"", at).unwrap();
    let records = bench.records(3);
    let first = &records[0];
    assert_eq!((first.stream.as_str(), first.severity, first.text()), ("web", 10, "caf\u{e9} "));
    assert_eq!(first.event_time_us, Some(1_065_910_455_003_000));
    let want = [
        ("facility", "local4"),
        ("hostname", "pi"),
        ("procid", "7"),
        ("msgid", "M1"),
        ("source_ip", "127.0.0.1"),
        ("structured_data", "{id@1={a=1 b=say \"hi\" \\n} two={c=}}"),
    ];
    assert!(first.fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(want), "{:?}", first.fields);
    assert_eq!((records[1].stream.as_str(), records[1].severity), ("syslog", 0));
    assert_eq!(records[1].body, b"no header, \xff\0bytes");
    assert!(records[2].body.is_empty());
    assert!(bench.stop().is_empty());
    let report = bench.status.report();
    assert_eq!((report.works, report.records, report.errors), (true, 3, 2));
    assert_eq!(report.words, format!("listening on udp {at}"));
}

#[test]
fn what_was_sent_before_the_stop_is_handed_over() {
    let mut bench = Bench::new(1 << 20);
    let sockets = udp::bind(&[LOOPBACK.parse().unwrap()]).unwrap();
    let at = sockets[0].local_addr().unwrap();
    let sender = UdpSocket::bind(LOOPBACK).unwrap();
    for i in 0..200 {
        sender.send_to(format!("<13>m: {i}").as_bytes(), at).unwrap();
    }
    drop(bench.ring.take());
    bench.start(move |ctx| udp::run(sockets, ctx));
    assert_eq!(bench.stop().len(), 200);

    let mut bench = Bench::new(1 << 20);
    let at = start_tcp(&mut bench);
    let mut sender = TcpStream::connect(at).unwrap();
    sender.write_all(b"<13>m: first\n").unwrap();
    assert_eq!(bench.records(1)[0].text(), "first");
    sender.write_all(b"<13>m: whole\n<13>m: half").unwrap();
    let records = bench.stop();
    let seen: Vec<_> = records.iter().map(|r| (r.text(), r.continued)).collect();
    assert_eq!(seen, [("whole", false), ("half", true)], "what the stop cuts off is a part");
}

#[test]
fn what_the_kernel_has_no_room_for_is_counted() {
    let mut bench = Bench::new(1 << 20).stall(Duration::from_millis(1));
    let sockets = udp::bind(&[LOOPBACK.parse().unwrap()]).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&sockets[0], 4096).unwrap();
    let at = sockets[0].local_addr().unwrap();
    let sender = UdpSocket::bind(LOOPBACK).unwrap();
    for i in 0..500 {
        sender.send_to(format!("<13>m: {i}").as_bytes(), at).unwrap();
    }
    // Nobody read until now.
    drop(bench.ring.take());
    bench.start(move |ctx| udp::run(sockets, ctx));
    let kept = bench.stop().len() as u64;
    assert!(kept < 500);
    assert_eq!(kept + bench.queue.drops().total(), 500);
    assert_eq!(bench.queue.drops().take()[0].stream, "syslog");
}

#[test]
fn a_store_that_is_stalled_drops_messages_under_their_own_streams_and_goes_on_after_it() {
    let mut bench = Bench::new(1 << 20).stall(Duration::from_millis(1));
    let at = start_tcp(&mut bench);
    // All parcels are with somebody else.
    let intake = bench.queue.intake();
    let parcels: Vec<_> = (0..4).map(|_| intake.parcel().unwrap()).collect();
    let mut sender = TcpStream::connect(at).unwrap();
    sender.write_all(b"<13>a: 1\n<13>b: 2\n<13>a: 3\n").unwrap();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while bench.queue.drops().total() < 3 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    let dropped: Vec<_> = bench.queue.drops().take().into_iter().map(|d| (d.stream, d.records)).collect();
    assert_eq!(dropped, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    assert!(!bench.status.report().works);
    parcels.into_iter().for_each(|parcel| bench.queue.recycle(parcel));
    drop(intake);
    sender.write_all(b"<13>a: 4\n").unwrap();
    assert_eq!(bench.records(1)[0].text(), "4");
    assert!(bench.status.report().works);
    bench.stop();
}

#[test]
fn connections_bring_messages_in_every_framing() {
    let mut bench = Bench::new(1 << 20);
    let at = start_tcp(&mut bench);
    let send = |bytes: &[u8]| TcpStream::connect(at).unwrap().write_all(bytes).unwrap();
    send(b"<13>lf: 1\n<13>lf: \xff2\n");
    send(b"<13>crlf: 1\r\n<13>crlf: 2");
    send(b"<13>nul: 1\0<13>nul: 2\na\0");
    send(b"12 <13>count: \n12 <13>count: b");
    send(b"12 <13>short: ");
    let mut records = bench.records(9);
    records.sort_by(|a, b| (&a.stream, &a.body).cmp(&(&b.stream, &b.body)));
    let seen: Vec<_> = records.iter().map(|r| (r.stream.as_str(), r.body.as_slice())).collect();
    let want: [(&str, &[u8]); 9] = [
        ("count", b""),
        ("count", b"b"),
        ("crlf", b"1"),
        ("crlf", b"2"),
        ("lf", b"1"),
        ("lf", b"\xff2"),
        ("nul", b"1"),
        ("nul", b"2\na"),
        ("short", b""),
    ];
    assert_eq!(seen, want);
    bench.stop();
    assert_eq!(bench.status.report().errors, 1, "a message was cut off");
}

#[test]
fn a_message_longer_than_a_record_is_kept_in_parts_with_its_fields_on_the_first() {
    for bytes in [b"<13>1 - h app - - [a b=\"c\"] ".to_vec(), b"<13>app: ".to_vec()] {
        let mut bench = Bench::new(1000);
        let at = start_tcp(&mut bench);
        let body: Vec<u8> = (0..10_000u32).map(|i| b'a' + (i % 26) as u8).collect();
        let message = [bytes, body.clone(), b"\n<13>app: next\n".to_vec()].concat();
        TcpStream::connect(at).unwrap().write_all(&message).unwrap();
        let records = bench.records_until(|records| records.iter().any(|r| r.body == b"next"));
        let parts = &records[..records.len() - 1];
        assert!(parts.iter().all(|r| r.stream == "app" && r.severity == 10 && r.body.len() <= 1000));
        let continued: Vec<bool> = parts.iter().map(|r| r.continued).collect();
        assert!(continued.iter().rev().skip(1).all(|c| *c) && !continued[parts.len() - 1]);
        assert_eq!(parts.iter().flat_map(|r| r.body.clone()).collect::<Vec<u8>>(), body);
        assert_eq!(parts[0].field("source_ip"), Some("127.0.0.1"));
        assert!(parts[1..].iter().all(|r| r.fields.is_empty()));
        bench.stop();
    }
}

#[test]
fn logger_sends_in_all_its_ways() {
    if !has("logger") {
        return;
    }
    for is_tcp in [false, true] {
        let mut bench = Bench::new(1 << 20);
        let at = if is_tcp { start_tcp(&mut bench) } else { start_udp(&mut bench) };
        let port = at.port().to_string();
        let log = |options: &[&str], text: &str| {
            let transport = if is_tcp { "-T" } else { "-d" };
            let mut logger = Command::new("logger");
            logger.args(["-n", "127.0.0.1", "-P", &port, transport, "-t", "tester", "-p", "daemon.err"]);
            assert!(logger.args(options).arg(text).status().unwrap().success());
        };
        log(&["--rfc5424", "--id=42", "--msgid", "M7"], "five");
        log(&["--rfc3164", "--id=42"], "three");
        log(&["--rfc5424=notime"], "no time");
        if is_tcp {
            log(&["--octet-count", "--rfc5424"], "counted");
        }
        let mut records = bench.records(if is_tcp { 4 } else { 3 });
        records.sort_by(|a, b| a.body.cmp(&b.body));
        let texts: Vec<&str> = records.iter().map(|r| r.text()).collect();
        let want = ["counted", "five", "no time", "three"];
        assert_eq!(texts, if is_tcp { &want[..] } else { &want[1..] });
        for record in &records {
            assert_eq!((record.stream.as_str(), record.severity), ("tester", 17), "{record:?}");
            assert_eq!((record.field("facility"), record.field("source_ip")), (Some("daemon"), Some("127.0.0.1")));
            assert_eq!(record.event_time_us.is_some(), record.text() != "no time");
        }
        let five = records.iter().find(|r| r.text() == "five").unwrap();
        assert_eq!((five.field("procid"), five.field("msgid")), (Some("42"), Some("M7")));
        let three = records.iter().find(|r| r.text() == "three").unwrap();
        assert_eq!(three.field("procid"), Some("42"));
        bench.stop();
    }
}

/// Runs rsyslogd, which follows what `logger` puts into a socket of its own, and forwards it; the records that come.
fn by_rsyslog(action: &str, at: SocketAddr, bench: &mut Bench) -> Vec<support::Record> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let config = format!(
        "global(workDirectory=\"{}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{}\" CreatePath=\"on\")\n\
         *.* action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{}\" {action})\n",
        dir.path().display(),
        path("in.sock"),
        at.port(),
    );
    std::fs::write(path("conf"), config).unwrap();
    let mut daemon = Command::new("rsyslogd");
    daemon.args(["-n", "-f", &path("conf"), "-i", &path("pid")]);
    let _daemon = Process(daemon.spawn().unwrap());
    let deadline = std::time::Instant::now() + support::PATIENCE;
    let log = |text: &str| {
        let mut logger = Command::new("logger");
        logger.args(["-u", &path("in.sock"), "-t", "relay", "-p", "local3.warning", "--id=9", text]);
        logger.stderr(std::process::Stdio::null()).status().unwrap().success()
    };
    // Early ones are lost where nobody listens yet.
    let mut early = Vec::new();
    while early.is_empty() {
        assert!(std::time::Instant::now() < deadline, "rsyslogd does not forward");
        log("early");
        if let Some(event) = bench.queue.next(Some(std::time::Instant::now() + Duration::from_millis(100))) {
            bench.take(event, &mut early);
        }
    }
    for i in 0..50 {
        assert!(log(&format!("message {i}")));
    }
    let is_ours = |r: &support::Record| r.stream == "relay" && r.text().contains("message");
    let of_us = |records: &[support::Record]| records.iter().filter(|r| is_ours(r)).count();
    bench.records_until(|records| of_us(records) >= 50).into_iter().filter(is_ours).collect()
}

#[test]
fn rsyslog_forwards_by_datagrams_and_connections_in_its_formats() {
    if !has("rsyslogd") || !has("logger") {
        return;
    }
    let ways = [
        (false, "protocol=\"udp\""),
        (true, "protocol=\"tcp\""),
        (true, "protocol=\"tcp\" TCP_Framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\""),
        (true, "protocol=\"tcp\" template=\"RSYSLOG_TraditionalForwardFormat\""),
    ];
    for (is_tcp, action) in ways {
        let mut bench = Bench::new(1 << 20);
        let at = if is_tcp { start_tcp(&mut bench) } else { start_udp(&mut bench) };
        let records = by_rsyslog(action, at, &mut bench);
        let texts: Vec<&str> = records.iter().map(|r| r.text().trim_start()).collect();
        let want: Vec<String> = (0..50).map(|i| format!("message {i}")).collect();
        assert_eq!(texts, want, "{action}");
        for record in &records {
            assert_eq!((record.severity, record.field("facility")), (13, Some("local3")), "{action}: {record:?}");
            assert_eq!(record.field("procid"), Some("9"), "{action}: {record:?}");
            assert!(record.event_time_us.is_some() && record.field("hostname").is_some());
        }
        bench.stop();
    }
}

#[test]
fn hostile_datagrams_are_kept_and_never_panic() {
    let mut bench = Bench::new(2000);
    let at = start_udp(&mut bench);
    let sender = UdpSocket::bind(LOOPBACK).unwrap();
    let seeds: [&[u8]; 3] = [
        b"<34>1 2003-10-11T22:14:15.003Z my.example su 12 ID47 [a b=\"c\\\"\"][x@1 y=\"z\"] fail",
        b"<13>Oct 11 22:14:15 host app[12]: [x y=\"z\"] hello",
        b"<30>2026-11-20T10:22:03.123456+01:00 pi systemd[1]: Up.",
    ];
    let mut x = 0xfeed_u64;
    println!("seed {x:#x}");
    let mut random = |below: usize| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(x >> 33).unwrap() % below
    };
    for i in 0..8_000 {
        let mut message = seeds[i % 3].to_vec();
        for _ in 0..random(6) {
            let place = random(message.len());
            match random(5) {
                0 => message[place] = random(256).to_le_bytes()[0],
                1 => message.truncate(place.max(1)),
                2 => message.insert(place, b"<>[]\"\\=:- 0129"[random(14)]),
                3 => message.insert(place, random(256).to_le_bytes()[0]),
                _ => message
                    .splice(place..place, std::iter::repeat_n(b"[a9 \xff"[random(5)], random(3000)))
                    .for_each(drop),
            }
        }
        sender.send_to(&message, at).unwrap();
        let records = bench.records_until(|records| records.last().is_some_and(|r| !r.continued));
        let kept: usize = records.iter().map(|r| r.body.len()).sum();
        assert!(kept <= message.len());
        for record in &records {
            let fields: usize = record.fields.iter().map(|(k, v)| k.len() + v.len()).sum();
            assert!(record.body.len() + fields <= 2000, "{record:?}");
        }
    }
    bench.stop();
}
