//! The command line on a running node: by the socket what the store's file shows too, and the file where the node is
//! silent.

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use common::node::TestNode;
use common::{Guard, program};
use lastgaspd::parcel::Slot;
use tempfile::TempDir;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("lastgasp"));
    command.args(arguments).env("TZ", "UTC").env("HOME", "/nonexistent");
    command.env_remove("XDG_STATE_HOME").env_remove("XDG_RUNTIME_DIR");
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

#[track_caller]
fn text(arguments: &[&str]) -> String {
    let out = run(arguments);
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A node, one of whose sources has a name that would drive a terminal.
fn start_in(dir: TempDir) -> TestNode {
    TestNode::start_in(dir, 8 << 20, "evil\x1b[2J")
}

fn path(node: &TestNode, name: &str) -> String {
    node.dir().join(name).to_str().unwrap().to_owned()
}

/// Sends records of three streams, some of them in parts, and waits until they are durable.
fn send(node: &TestNode, from: u64, records: u64) {
    node.send(|parcel| {
        for n in from..from + records {
            let stream = parcel.stream(["kernel", "app", "sshd"][usize::try_from(n % 3).unwrap()]);
            let body = parcel.copy(format!("record {n}").as_bytes());
            let severity = [9, 13, 17][usize::try_from(n / 3 % 3).unwrap()];
            parcel.push(Slot { severity, continued: n % 10 == 4, ..Slot::plain(stream, body) });
        }
    });
}

/// Two boots, the second one running: 200 and 300 records.
fn node() -> TestNode {
    let node = start_in(tempfile::tempdir().unwrap());
    send(&node, 1, 200);
    let node = start_in(node.stop());
    send(&node, 201, 300);
    node
}

#[test]
fn by_the_socket_one_reads_what_the_file_shows() {
    let node = node();
    let (socket, store) = (path(&node, "s.sock"), path(&node, "store.lg"));
    for arguments in [
        &["tail"][..],
        &["tail", "--all", "-o", "cat"],
        &["tail", "--all", "-o", "json"],
        &["tail", "--all", "-o", "export"],
        &["tail", "--all"],
        &["tail", "-n", "7", "-u", "app"],
        &["tail", "-u", "a*", "-u", "kernel", "-p", "warning", "-o", "short-iso", "--all"],
        &["tail", "-r", "-n", "25", "-o", "json"],
        &["tail", "-r", "--all", "-g", "7$"],
        &["tail", "-b", "-1", "-o", "cat"],
        &["tail", "-b", "-p", "info..info", "-o", "cat"],
        &["tail", "--since", "-1h", "-g", "record 4[0-9]{2}"],
        &["tail", "--until", "-1h", "--all"],
        &["export", "-u", "sshd"],
        &["export", "-o", "journal-export", "-g", "record 14"],
        &["boots", "-o", "json"],
        &["gaps", "-o", "json"],
        &["gaps", "--scan"],
    ] {
        let by_socket = text(&[arguments, &["--socket", &socket]].concat());
        assert_eq!(by_socket, text(&[arguments, &["--store", &store]].concat()), "{arguments:?}");
        assert!(!by_socket.is_empty() || arguments.contains(&"--until"), "{arguments:?}");
    }
    let boots: serde_json::Value = serde_json::from_str(&text(&["boots", "-o", "json", "--socket", &socket])).unwrap();
    let ends = [&boots[0]["ended"], &boots[1]["ended"]];
    assert_eq!(ends, ["clean", "running"]);
    assert_eq!(text(&["tail", "-b", "-1", "-o", "cat", "--socket", &socket]).lines().count(), 180);
}

#[test]
fn a_node_tells_of_itself_and_makes_things_durable() {
    let node = node();
    let socket = path(&node, "s.sock");
    let status: serde_json::Value =
        serde_json::from_str(&text(&["status", "-o", "json", "--socket", &socket])).unwrap();
    assert_eq!((&status["numbers"]["durable_upto"], &status["numbers"]["boot"]), (&500.into(), &2.into()));
    assert_eq!((&status["numbers"]["records"], &status["read_only"]), (&300.into(), &serde_json::Value::Null));
    assert!(status["wear_ratio"].as_f64().is_none_or(|ratio| ratio > 0.0), "{status}");
    assert_eq!(status["facts"]["source"]["evil\u{1b}[2J"]["works"], true);
    let shown = text(&["status", "--socket", &socket]);
    assert!(shown.contains("boot 2, running for ") && shown.contains("records    numbered 1 to 500"), "{shown}");
    assert!(shown.contains("evil\\u{1b}[2J: works yes\n"), "{shown}");
    assert!(shown.contains("app: records 100, "), "{shown}");
    assert_eq!(text(&["checkpoint", "--socket", &socket]), "everything up to record 500 is durable\n");
    assert_eq!(text(&["checkpoint", "-o", "json", "--socket", &socket]), "{\"durable_upto\":500}\n");
}

#[test]
fn following_a_node_shows_each_record_once_when_it_is_durable() {
    let node = node();
    let socket = path(&node, "s.sock");
    let mut child =
        command(&["tail", "-f", "-n", "1", "-o", "json", "--socket", &socket]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut numbers =
        lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap()["seq"].as_u64());
    let _guard = Guard(child);
    assert_eq!(numbers.next(), Some(500));
    for n in 501..520 {
        send(&node, n, 1);
        assert_eq!(numbers.next(), Some(n));
    }
    send(&node, 520, 100);
    assert_eq!(numbers.by_ref().take(100).collect::<Vec<_>>(), (520..620).collect::<Vec<_>>());
}

#[test]
fn following_goes_on_when_the_node_starts_again() {
    let node = node();
    let socket = path(&node, "s.sock");
    let mut child = command(&["tail", "-f", "-n", "1", "-o", "cat", "--socket", &socket])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut words = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let _guard = Guard(child);
    assert_eq!(lines.next().unwrap(), "record 500");
    let dir = node.stop();
    let said = words.next().unwrap();
    assert!(said.contains("waiting for the node to come back"), "{said}");
    let node = start_in(dir);
    for n in 501..504 {
        send(&node, n, 1);
        assert_eq!(lines.next().unwrap(), format!("record {n}"));
    }
}

#[test]
fn a_node_that_is_silent_or_dead_is_passed_by_and_its_store_read() {
    let dir = node().stop();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (socket, store) = (path("silent.sock"), path("store.lg"));
    let silent = UnixListener::bind(&socket).unwrap();
    let arguments = ["tail", "-n", "1", "-o", "cat", "--socket", &socket, "--store", &store];
    let out = run(&arguments);
    let words = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.stdout, b"record 500\n");
    assert!(words.contains("does not answer") && words.contains("reading its store instead: "), "{words}");
    let out = run(&["tail", "--socket", &socket]);
    assert_eq!(out.status.code(), Some(2), "without a store to read instead it is an error");
    drop(silent);
    let out = run(&arguments);
    let words = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.stdout, b"record 500\n");
    assert!(words.contains("Connection refused"), "{words}");
    let out = run(&["checkpoint", "--socket", &socket, "--store", &store]);
    assert_eq!(out.status.code(), Some(2), "what is on the medium already needs no node, and a node cannot be asked");
}
