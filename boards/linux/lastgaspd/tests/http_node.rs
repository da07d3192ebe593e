//! HTTP in front of a real node: what it says is durable is there, `/healthz`, TLS, and thousands who say nothing.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use lastgasp_core::node::Node;
use lastgasp_hal_linux::LinuxStorageError;
use lastgaspd::acks::Acks;
use lastgaspd::clock::Clock;
use lastgaspd::opening::{self, Memory, Place};
use lastgaspd::queue::Queue;
use lastgaspd::sources::http::{self, Access, Options, tls};
use lastgaspd::sources::status::Sources;
use lastgaspd::sources::{Context, listen};
use lastgaspd::stop::{Ring, Stop};
use lastgaspd::view::Handle;
use lastgaspd::writer::{Ended, Syncer, Writer};
use support::{PATIENCE, has, memory_kib};

/// These tests look at the memory of their process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node that serves HTTP.
struct Running {
    at: SocketAddr,
    ring: Ring,
    node: JoinHandle<u64>,
}

impl Running {
    fn start(store: &Path, options: Options) -> Self {
        let listeners = listen::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let at = listeners[0].local_addr().unwrap();
        let (stop, ring) = Stop::by_hand().unwrap();
        let path = store.to_path_buf();
        let node = thread::spawn(move || {
            let clock = Clock::start();
            let place = Place { path, size_bytes: Some(16 << 20), allow_volatile: true, streams: 256 };
            let storage = opening::open_or_make(&place).unwrap();
            let mut memory = Memory::default();
            let mut store = opening::mount(storage, &place, &mut memory, &clock).unwrap();
            let syncs = store.parts().0.sync_handle().unwrap();
            let queue: Queue<LinuxStorageError> = Queue::new(4);
            let syncer = Syncer::start(queue.events(), move || syncs.sync()).unwrap();
            let sources = Sources::default();
            let ctx = Context {
                intake: queue.intake(),
                stop,
                clock,
                record_bytes_max: store.record_bytes_max(),
                cursors: Arc::default(),
                status: sources.join("http"),
            };
            let handle = Handle::new(queue.events());
            let source = thread::spawn(move || http::run(listeners, options, ctx, handle, sources).unwrap());
            let (ended, node, _) =
                Writer::new(Node::new(store, 0), queue, syncer, Acks::<std::fs::File>::nobody(), clock).run();
            assert!(matches!(ended, Ended::Stopped { clean: true }));
            source.join().unwrap();
            node.store().durable_upto()
        });
        Self { at, ring, node }
    }

    /// Stops it; the last durable number.
    fn stop(self) -> u64 {
        self.ring.ring();
        self.node.join().unwrap()
    }
}

fn exchange(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn what_was_answered_is_in_the_store_and_health_tells_of_it() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let node = Running::start(&dir.path().join("store"), Options::default());
    let answer = exchange(node.at, &post("\"one\"\n\"two\"\n"));
    assert!(answer.ends_with("\r\n\r\n{\"first_seq\":1,\"last_seq\":2}\n"), "{answer}");
    // More than the node takes at once.
    let answer = exchange(node.at, &post(&format!("\"{}\"", "x".repeat(4 << 20))));
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("at once"), "{answer}");
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = exchange(node.at, health);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let seen: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((seen["alive"].as_bool(), seen["durable_upto"].as_u64()), (Some(true), Some(2)), "{body}");
    assert!(seen["sources"][0]["words"].as_str().unwrap().starts_with("listening on http://127.0.0.1:"), "{body}");
    let answer = exchange(node.at, &health.replace("GET", "HEAD"));
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(node.stop(), 2);
    let options = Options { access: Access { hosts: Vec::new(), token: Some(b"t".to_vec()) }, ..Options::default() };
    let node = Running::start(&dir.path().join("store"), options);
    let answer = exchange(node.at, health);
    assert!(answer.ends_with("\r\n\r\n{\"alive\":true}\n"), "strangers see no more: {answer}");
    node.stop();
}

#[test]
fn many_senders_at_once_are_answered_in_order_of_their_requests() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let node = Running::start(&dir.path().join("store"), Options::default());
    let at = node.at;
    let senders: Vec<_> = (0..16)
        .map(|sender| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(at).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut last = 0;
                for i in 0..50 {
                    let body = format!("\"{sender} {i}\"\n");
                    stream.write_all(post(&body).replace("Connection: close\r\n", "").as_bytes()).unwrap();
                    let mut answer = Vec::new();
                    while !answer.ends_with(b"}\n") {
                        let mut byte = [0; 512];
                        let got = stream.read(&mut byte).unwrap();
                        assert!(got > 0);
                        answer.extend_from_slice(&byte[..got]);
                    }
                    let text = String::from_utf8(answer).unwrap();
                    let number = text.rsplit_once("\"last_seq\":").unwrap().1.trim_end().trim_end_matches('}');
                    let number: u64 = number.parse().unwrap();
                    assert!(number > last);
                    last = number;
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert_eq!(node.stop(), 16 * 50);
}

#[test]
fn idle_and_slow_connections_by_the_thousand_cost_little_and_hold_nobody_up() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let node = Running::start(&dir.path().join("store"), Options::default());
    assert!(exchange(node.at, &post("\"first\"")).starts_with("HTTP/1.1 200 "));
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    // Both ends are in this process; the source takes half of what there is.
    let wanted = 10_000.min(usize::try_from(files.saturating_sub(256) / 2).unwrap_or(usize::MAX)).saturating_sub(200);
    if wanted < 9_800 {
        println!("scaled down to {wanted} connections: the limit of open files is {files}");
    }
    let before = memory_kib();
    let mut slow = Vec::new();
    for i in 0..wanted {
        let mut stream = match TcpStream::connect(node.at) {
            Ok(stream) => stream,
            Err(e) if e.kind() == ErrorKind::AddrNotAvailable => {
                println!("scaled down to {i} connections: no more local ports");
                break;
            }
            Err(e) => panic!("connection {i}: {e}"),
        };
        match i % 3 {
            0 => {}
            1 => stream.write_all(b"POST /v1/logs HTTP/1.1\r\nHost: loc").unwrap(),
            _ => stream
                .write_all(b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n\"slow")
                .unwrap(),
        }
        slow.push(stream);
    }
    let answer = exchange(node.at, &post("\"live\""));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let grown = memory_kib().saturating_sub(before);
    println!("{} connections, memory grew by {grown} KiB", slow.len());
    assert!(grown < 32 << 10, "{grown} KiB");
    assert_eq!(node.stop(), 2);
}

#[test]
fn large_requests_of_many_wait_for_memory_in_turn() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let options = Options { max_request_bytes: 1 << 20, ..Options::default() };
    let node = Running::start(&dir.path().join("store"), options);
    let at = node.at;
    let before = memory_kib();
    // 200 MB in all.
    let body: String = (0..1000).map(|i| format!("{{\"body\":\"{i} {}\"}}\n", "y".repeat(180))).collect();
    let senders: Vec<_> = (0..200)
        .map(|_| {
            let request = post(&body);
            thread::spawn(move || while !exchange(at, &request).starts_with("HTTP/1.1 200 ") {})
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    // The requests themselves are here too: 40 MB of them.
    let grown = memory_kib().saturating_sub(before);
    println!("memory grew by {grown} KiB");
    assert!(grown < 128 << 10, "{grown} KiB");
    assert_eq!(node.stop(), 200 * 1000);
}

#[test]
fn records_come_by_tls() {
    let _alone = alone();
    if !has("curl") || !has("openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    openssl.arg("-keyout").arg(path("key")).arg("-out").arg(path("cert"));
    assert!(openssl.output().unwrap().status.success());
    let error = format!("{:#}", tls(&path("cert"), &path("none")).unwrap_err());
    assert!(error.contains("reading a private key from") && error.contains("none"), "{error}");
    assert!(format!("{:#}", tls(&path("key"), &path("key")).unwrap_err()).contains("no certificate"));
    let config = tls(&path("cert"), &path("key")).unwrap();
    let node = Running::start(&path("store"), Options { tls: Some(config), ..Options::default() });
    std::fs::write(path("lines"), (0..5000).map(|i| format!("\"line {i}\"\n")).collect::<String>()).unwrap();
    let url = format!("https://localhost:{}/v1/logs", node.at.port());
    let curl = |options: &[&str]| {
        let mut curl = Command::new("curl");
        curl.arg("-sS").arg("--cacert").arg(path("cert")).args(options);
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    };
    let data = format!("@{}", path("lines").display());
    assert_eq!(curl(&["--data-binary", &data, &url]), "{\"first_seq\":1,\"last_seq\":5000}\n");
    let twice =
        curl(&["-d", "\"a\"", &url, "--next", "--cacert", &path("cert").display().to_string(), "-d", "\"b\"", &url]);
    assert!(twice.contains("\"last_seq\":5001") && twice.contains("\"last_seq\":5002"), "{twice}");
    // Who does not speak TLS hears nothing of HTTP.
    let mut plain = TcpStream::connect(node.at).unwrap();
    plain.write_all(post("\"x\"").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    assert_eq!(node.stop(), 5002);
}
