//! Records by HTTP, from real clients and from rude ones.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use lastgasp_core::node::{Class, Refused};
use lastgaspd::parcel::Answer;
use lastgaspd::queue::Event;
use lastgaspd::sources::http::{self, Access, Options};
use lastgaspd::sources::listen;
use lastgaspd::sources::status::Sources;
use lastgaspd::view::Handle;
use support::{Bench, PATIENCE, Record, has};

fn start(bench: &mut Bench, options: Options) -> SocketAddr {
    let listeners = listen::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let at = listeners[0].local_addr().unwrap();
    let handle = Handle::new(bench.queue.events());
    bench.start(move |ctx| http::run(listeners, options, ctx, handle, Sources::default()).unwrap());
    at
}

fn small() -> Options {
    Options { max_request_bytes: 100_000, ..Options::default() }
}

/// What a client makes of it, while the queue is emptied: its result, and the records that came.
fn while_serving<T: Send + 'static>(
    bench: &mut Bench,
    client: impl FnOnce() -> T + Send + 'static,
) -> (T, Vec<Record>) {
    let client = thread::spawn(client);
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !client.is_finished() {
        assert!(Instant::now() < deadline, "the client gets no answer");
        if let Some(event) = bench.queue.next(Some(Instant::now() + Duration::from_millis(5))) {
            bench.take(event, &mut records);
        }
    }
    while let Some(event) = bench.queue.try_next() {
        bench.take(event, &mut records);
    }
    (client.join().unwrap(), records)
}

/// Sends bytes, and reads until the server has closed the connection.
fn exchange(at: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        if stream.write_all(piece).is_err() {
            break; // refused early: the answer says why
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    format!("{head}Content-Length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

/// Statuses of the answers in `text`, and their bodies.
fn answers(text: &str) -> Vec<(u16, String)> {
    let mut rest = text;
    let mut all = Vec::new();
    while let Some(after) = rest.strip_prefix("HTTP/1.1 ") {
        let status = after[..3].parse().unwrap();
        let (head, body) = after.split_once("\r\n\r\n").unwrap();
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
        all.push((status, body[..length].trim_end().to_owned()));
        rest = &body[length..];
    }
    assert!(rest.is_empty(), "{text}");
    all
}

#[track_caller]
fn one(text: &str) -> (u16, String) {
    let all = answers(text);
    assert_eq!(all.len(), 1, "{text}");
    all[0].clone()
}

#[test]
fn a_request_is_answered_when_its_batch_is_durable() {
    let mut bench = Bench::new(1 << 16);
    let at = start(&mut bench, small());
    let body = "{\"message\":\"one\",\"level\":\"warn\",\"service\":\"web\",\"user\":{\"id\":7}}\n\"two\"\n";
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(&post("", body)).unwrap();
    let deadline = Some(Instant::now() + PATIENCE);
    let Some(Event::Parcel(mut parcel)) = bench.queue.next(deadline) else { panic!("a parcel") };
    assert_eq!((parcel.class, parcel.records(), parcel.has_batch(1)), (Some(Class::Group), 2, false));
    stream.set_nonblocking(true).unwrap();
    assert!(stream.read(&mut [0; 1]).is_err(), "nothing is said before it is durable");
    stream.set_nonblocking(false).unwrap();
    parcel.take_reply(0).unwrap().answer(Answer::Durable { first_seq: 41, last_seq: 42 });
    bench.queue.recycle(parcel);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(one(&answer), (200, "{\"first_seq\":41,\"last_seq\":42}".to_owned()));
    let (answer, records) = while_serving(&mut bench, move || exchange(at, &[&post("", body)]));
    assert_eq!(one(&answer).0, 200);
    assert_eq!((records[0].stream.as_str(), records[0].severity, records[0].text()), ("web", 13, "one"));
    assert_eq!(records[0].field("user"), Some("{id=7}"));
    assert_eq!((records[1].stream.as_str(), records[1].text()), ("http", "two"));
    bench.stop();
}

#[test]
fn a_configured_class_wins_and_the_most_urgent_record_decides() {
    let mut bench = Bench::new(1 << 16);
    let class_of = |stream: &str, severity| match (stream, severity) {
        ("slow", 17..) => Some(Class::Each),
        ("slow", _) => Some(Class::Ram),
        _ => None,
    };
    let at = start(&mut bench, Options { class_of: Arc::new(class_of), ..small() });
    let record =
        |stream: &str, level: &str| format!("{{\"body\":\"x\",\"stream\":\"{stream}\",\"level\":\"{level}\"}}\n");
    for (body, want) in [
        (record("slow", "info"), Class::Ram),
        (record("slow", "info") + &record("slow", "error"), Class::Each),
        (record("slow", "info") + &record("web", "info"), Class::Group),
    ] {
        let client = thread::spawn(move || exchange(at, &[&post("", &body)]));
        let Some(Event::Parcel(parcel)) = bench.queue.next(Some(Instant::now() + PATIENCE)) else { panic!("a parcel") };
        assert_eq!(parcel.class, Some(want));
        bench.take(Event::Parcel(parcel), &mut Vec::new());
        assert_eq!(one(&client.join().unwrap()).0, 200);
    }
    bench.stop();
}

#[test]
fn a_request_that_is_wrong_leaves_nothing_and_names_its_line() {
    let mut bench = Bench::new(1 << 10);
    let at = start(&mut bench, small());
    let too_deep = format!("\"a\"\n{{\"body\":1,\"x\":\"{}\"}}", "y".repeat(2000));
    for (body, status, says) in [
        ("\"a\"\n\"b\"\nhello\n".to_owned(), 400, "\"line\":3"),
        ("\"a\"\n{\"text\":1}\n".to_owned(), 400, "\"error\":\"there is no body (or message, or msg)\",\"line\":2"),
        (too_deep, 413, "\"line\":2"),
    ] {
        let request = post("", &body);
        let (answer, records) = while_serving(&mut bench, move || exchange(at, &[&request]));
        let (got, text) = one(&answer);
        assert!(got == status && text.contains(says) && records.is_empty(), "{answer}");
    }
    // The next one finds a clean parcel.
    let (answer, records) = while_serving(&mut bench, move || exchange(at, &[&post("", "\"fine\"")]));
    assert_eq!((one(&answer).0, records.len(), records[0].text()), (200, 1, "fine"));
    let (answer, records) = while_serving(&mut bench, move || exchange(at, &[&post("", "[]")]));
    assert_eq!((one(&answer), records.len()), ((200, "{\"first_seq\":2,\"last_seq\":1}".to_owned()), 0));
    bench.stop();
    assert_eq!(bench.status.report().errors, 2);
}

#[test]
fn what_the_writer_says_becomes_a_status() {
    let mut bench = Bench::new(1 << 16);
    let at = start(&mut bench, small());
    for (answer, status, retries) in [
        (Answer::OverLimit, 429, true),
        (Answer::Refused(Refused::TooLarge { bytes: 9, max: 8 }), 413, false),
        (Answer::Refused(Refused::Stopping), 503, true),
        (Answer::Closed, 503, true),
    ] {
        bench.answer = Some(answer);
        let (text, _) = while_serving(&mut bench, move || exchange(at, &[&post("", "\"x\"")]));
        assert_eq!((one(&text).0, text.contains("Retry-After: 1\r\n")), (status, retries), "{text}");
    }
    bench.stop();
}

#[test]
fn a_stalled_store_says_so_and_holds_no_other_connection_up() {
    let mut bench = Bench::new(1 << 16).stall(Duration::from_millis(300));
    let at = start(&mut bench, small());
    let intake = bench.queue.intake();
    let parcels: Vec<_> = (0..4).map(|_| intake.parcel().unwrap()).collect();
    let waiting = thread::spawn(move || exchange(at, &[&post("", "\"x\"")]));
    let other = exchange(at, &[b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]);
    assert_eq!(one(&other).0, 404);
    let (status, text) = one(&waiting.join().unwrap());
    assert!(status == 503 && text.contains("stalled"), "{text}");
    parcels.into_iter().for_each(|parcel| bench.queue.recycle(parcel));
    drop(intake);
    let (answer, _) = while_serving(&mut bench, move || exchange(at, &[&post("", "\"x\"")]));
    assert_eq!(one(&answer).0, 200);
    bench.stop();
}

#[test]
fn requests_come_in_chunks_packed_and_one_behind_another() {
    let mut bench = Bench::new(1 << 16);
    let at = start(&mut bench, small());
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(b"\"packed\"\n").unwrap();
    let packed = packer.finish().unwrap();
    let head = "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\n";
    let chunks = "2;x=y\r\n\"b\r\n1\r\n\"\r\n0\r\nT: u\r\n\r\n";
    let large = format!("{:x}\r\n\"{}\"\r\n0\r\n\r\n", 80_002, "c".repeat(80_000));
    let first = [
        format!("{head}Content-Length: 3\r\n\r\n\"a\"").into_bytes(),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}").into_bytes(),
        format!("{head}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len()).into_bytes(),
        packed,
    ]
    .concat();
    let large = format!("{head}Transfer-Encoding: chunked\r\n\r\n{large}").into_bytes();
    let last = format!("{head}Connection: close\r\nContent-Length: 3\r\n\r\n\"d\"").into_bytes();
    for (step, middle) in [(1, &[][..]), (7, &[]), (1000, &large), (usize::MAX, &large)] {
        let all = [&first, middle, &last].concat();
        let (text, records) = while_serving(&mut bench, move || {
            let pieces: Vec<&[u8]> = all.chunks(step.min(all.len())).collect();
            exchange(at, &pieces)
        });
        assert!(answers(&text).iter().all(|answer| answer.0 == 200), "{text}");
        let bodies: Vec<usize> = records.iter().map(|r| r.body.len()).collect();
        let parts = [1 << 16, 80_000 - (1 << 16)];
        let want = [&[1, 1, 6], &parts[..if middle.is_empty() { 0 } else { 2 }], &[1]].concat();
        assert_eq!(bodies, want);
    }
    bench.stop();
}

#[test]
fn heads_that_trick_and_bodies_that_are_too_much_are_refused_and_the_connection_with_them() {
    let mut bench = Bench::new(1 << 16);
    let at = start(&mut bench, small());
    let head = "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\n";
    let next = "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n\"!\"";
    let big = "z".repeat(200_000);
    for (request, status) in [
        (format!("{head}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}"), 400),
        (format!("{head}Content-Length: 3\r\nContent-Length: 0\r\n\r\n\"a\"{next}"), 400),
        (format!("{head}Content-Length: 200000\r\n\r\n{big}"), 413),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n30d40\r\n{big}\r\n0\r\n\r\n"), 413),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{next}"), 400),
        (format!("{head}\r\n{next}"), 411),
        (format!("{head}X: {}\r\n\r\n{next}", "h".repeat(50_000)), 431),
        (format!("{head}{}\r\n{next}", "A: b\r\n".repeat(100)), 431),
        (format!("{head}Origin: http://evil.example\r\nContent-Length: 3\r\n\r\n\"a\"{next}"), 403),
        (format!("POST /v1/logs HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 3\r\n\r\n\"a\"{next}"), 403),
        (format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{next}"), 400),
        ("\u{16}\u{3}\u{1}\u{2}".repeat(20), 400),
    ] {
        let shown: String = request.chars().take(120).collect();
        let (text, records) = while_serving(&mut bench, move || exchange(at, &[request.as_bytes()]));
        assert_eq!(one(&text).0, status, "{shown}: {text}");
        assert!(text.contains("Connection: close\r\n") && records.is_empty(), "{shown}: {records:?}");
    }
    bench.stop();
}

#[test]
fn a_sender_that_asks_first_is_told_to_go_on_or_refused_before_it_sends() {
    let mut bench = Bench::new(1 << 16);
    let at = start(&mut bench, small());
    let ask = |length: usize| {
        format!("POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    let (text, records) = while_serving(&mut bench, move || {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(ask(3).as_bytes()).unwrap();
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"\"x\"").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert_eq!((one(&text).0, records.len()), (200, 1));
    let (text, _) = while_serving(&mut bench, move || exchange(at, &[ask(1_000_000).as_bytes()]));
    assert_eq!(one(&text).0, 413);
    bench.stop();
}

#[test]
fn where_a_token_is_needed_records_need_it() {
    let mut bench = Bench::new(1 << 16);
    let access = Access { hosts: Vec::new(), token: Some(b"s3cret".to_vec()) };
    let at = start(&mut bench, Options { access, ..small() });
    let (text, records) = while_serving(&mut bench, move || exchange(at, &[&post("", "\"x\"")]));
    assert_eq!((one(&text).0, records.len()), (401, 0));
    assert!(text.contains("WWW-Authenticate: Bearer\r\n"));
    let request = post("Authorization: Bearer s3cret\r\n", "\"x\"");
    let (text, records) = while_serving(&mut bench, move || exchange(at, &[&request]));
    assert_eq!((one(&text).0, records.len()), (200, 1));
    bench.stop();
}

#[test]
fn the_stop_answers_what_was_taken_in_and_refuses_what_is_not_whole() {
    let mut bench = Bench::new(1 << 16);
    let at = start(&mut bench, small());
    let mut idle = TcpStream::connect(at).unwrap();
    let mut half = TcpStream::connect(at).unwrap();
    half.write_all(b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n\"").unwrap();
    let mut whole = TcpStream::connect(at).unwrap();
    whole.write_all(&post("", "\"x\"")).unwrap();
    let Some(Event::Parcel(parcel)) = bench.queue.next(Some(Instant::now() + PATIENCE)) else { panic!("a parcel") };
    drop(bench.ring.take());
    // The source's end of the queue goes although somebody still waits: the last batches become durable by that.
    while !bench.queue.has_ended() {
        assert!(bench.queue.next(Some(Instant::now() + PATIENCE)).is_some(), "the source does not end");
    }
    bench.take(Event::Parcel(parcel), &mut Vec::new());
    bench.stop();
    let rest = |stream: &mut TcpStream| {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    assert_eq!(one(&rest(&mut whole)).0, 200);
    assert_eq!(one(&rest(&mut half)).0, 503);
    assert_eq!(rest(&mut idle), "");
    assert!(TcpStream::connect(at).is_err());
}

#[test]
fn curl_and_python_send() {
    let mut bench = Bench::new(1 << 16);
    let at = start(&mut bench, Options { max_request_bytes: 4 << 20, ..Options::default() });
    if has("curl") {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lines");
        let lines: String = (0..20_000).map(|i| format!("{{\"body\":\"line {i}\",\"n\":{i}}}\n")).collect();
        std::fs::write(&file, lines).unwrap();
        let (output, records) = while_serving(&mut bench, move || {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--data-binary", &format!("@{}", file.display()), &format!("http://{at}/v1/logs")]);
            curl.output().unwrap()
        });
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("\"last_seq\":20000"), "{text}");
        assert!(records.len() == 20_000 && records[19_999].field("n") == Some("19999"));
        let (output, records) = while_serving(&mut bench, move || {
            let mut curl = Command::new("curl");
            curl.args([
                "-sS",
                "-H",
                "Transfer-Encoding: chunked",
                "-d",
                "\"chunks\"",
                &format!("http://localhost:{}/v1/logs", at.port()),
            ]);
            curl.output().unwrap()
        });
        assert!(output.status.success() && records[0].text() == "chunks", "{output:?}");
    }
    if has("python3") {
        let script = "import http.client, json, sys\n\
                      c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))\n\
                      for i in range(50):\n\
                      \x20   c.request('POST', '/v1/logs', json.dumps([{'message': f'm{i}', 'level': 'error'}, 's']))\n\
                      \x20   r = c.getresponse(); d = json.loads(r.read())\n\
                      \x20   assert r.status == 200 and d['last_seq'] == d['first_seq'] + 1, (r.status, d)\n";
        let (output, records) = while_serving(&mut bench, move || {
            let mut python = Command::new("python3");
            python.args(["-c", script, &at.port().to_string()]).stdin(Stdio::null()).output().unwrap()
        });
        assert!(output.status.success(), "{output:?}");
        assert!(records.len() == 100 && records[98].text() == "m49" && records[98].severity == 17);
    }
    bench.stop();
}

#[test]
fn hostile_bytes_never_stop_the_service() {
    let mut bench = Bench::new(1 << 10);
    let at = start(&mut bench, small());
    let seeds = [
        post("Content-Type: application/json\r\n", "{\"body\":\"x\",\"a\":[1,{\"b\":2}]}"),
        b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\n\"abc\"\r\n0\r\n\r\n"
            .to_vec(),
    ];
    let mut x = 0xace_u64;
    println!("seed {x:#x}");
    let mut random = move |below: usize| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(x >> 33).unwrap() % below
    };
    let (answered, _) = while_serving(&mut bench, move || {
        let mut answered = 0;
        for i in 0..2000 {
            let mut request = seeds[i % 2].clone();
            for _ in 0..1 + random(5) {
                let place = random(request.len());
                match random(4) {
                    0 => request[place] = random(256).to_le_bytes()[0],
                    1 => request.truncate(place.max(1)),
                    2 => request.insert(place, b"\r\n :;0aF{\"\0\xff"[random(12)]),
                    _ => drop(request.splice(place..place, std::iter::repeat_n(b'9', random(40)))),
                }
            }
            let mut stream = TcpStream::connect(at).unwrap();
            let cut = random(request.len());
            let _ = stream.write_all(&request[..cut]);
            let _ = stream.write_all(&request[cut..]);
            if random(4) > 0 {
                stream.shutdown(Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer);
                answered += usize::from(answer.starts_with(b"HTTP/1.1 "));
            }
        }
        answered
    });
    assert!(answered > 500, "{answered}");
    let (text, _) = while_serving(&mut bench, move || exchange(at, &[&post("", "\"x\"")]));
    assert_eq!(one(&text).0, 200);
    bench.stop();
}
