//! The command line on real files: what goes in comes out, what is damaged is told, what cannot be done is explained.

mod common;

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use common::{SMALLEST, TestStore, WALL_US, command, failure, file, lastgasp, row};
use lastgasp_core::format::fields::{FieldsWriter, Value};
use lastgasp_core::format::row::{Row, TraceContext};
use lastgasp_core::hal::SliceArena;
use lastgasp_core::nor::NorStorage;
use lastgasp_core::store::{self, OpenOptions, Store};
use lastgasp_hal_sim::nor::{NorConfig, SimNor};
use lastgasp_hal_sim::rig::{Rig, RigSize};
use serde_json::json;

/// Segments of a store of 4 MiB.
const SEGMENT: usize = 128 << 10;
const BODIES: [&[u8]; 6] = [b"plain", b"", b"gr\xC3\xBCn", b"\xFF\xFE not text", b"nul \0 inside", b"  spaces\t"];

fn joined(bodies: &[&[u8]]) -> Vec<u8> {
    bodies.iter().flat_map(|body| [body, &b"\n"[..]].concat()).collect()
}

#[test]
fn cat_prints_bodies_byte_for_byte() {
    let store = TestStore::new(SMALLEST);
    store.boot_with("app", &BODIES);
    assert_eq!(store.bytes("tail", &["--all", "-o", "cat"]), joined(&BODIES));
    store.boot_with("app", &[b"second boot"]);
    let all = [joined(&BODIES), b"second boot\n".to_vec()].concat();
    assert_eq!(store.bytes("tail", &["--all", "-o", "cat"]), all);
    assert_eq!(store.bytes("tail", &["-n", "3", "-o", "cat"]), joined(&[BODIES[4], BODIES[5], b"second boot"]));
    assert_eq!(store.bytes("tail", &["-n", "0", "-o", "cat"]), b"");
    assert_eq!(store.bytes("tail", &["-n", "99", "-o", "cat"]), all);
    let newest_first = joined(&[b"second boot", BODIES[5], BODIES[4]]);
    assert_eq!(store.bytes("tail", &["-r", "-n", "3", "-o", "cat"]), newest_first);
}

#[test]
fn without_a_number_the_last_ten_are_printed() {
    let store = TestStore::new(SMALLEST);
    let bodies: Vec<String> = (1..=25).map(|n| format!("line {n}")).collect();
    store.boot_with("app", &bodies.iter().map(String::as_bytes).collect::<Vec<_>>());
    let text = store.text("tail", &["-o", "cat"]);
    assert_eq!(text.lines().collect::<Vec<_>>(), bodies[15..]);
    assert_eq!(store.text("tail", &["--since", "-1000000h", "-o", "cat"]).lines().count(), 25);
}

/// Parts of lines of two streams, mixed: `a1 b1 a2 x b2 a3`, where a1..a3 and b1..b2 are a line each.
fn with_parts() -> TestStore {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let (a, b, x) = (node.stream("a"), node.stream("b"), node.stream("x"));
        for (stream, body, continued) in [
            (x, "before", false),
            (a, "a1", true),
            (b, "b1", true),
            (a, "a2", true),
            (x, "between", false),
            (b, "b2", false),
            (a, "a3", false),
            (x, "after", false),
        ] {
            node.append(&[Row { continued, ..row(stream, body.as_bytes()) }], &[]).unwrap();
            node.commit().unwrap();
        }
        node.close().unwrap();
    });
    store
}

#[test]
fn parts_are_joined_per_stream_and_each_is_printed_once() {
    let store = with_parts();
    assert_eq!(store.text("tail", &["--all", "-o", "cat"]), "before\na1a2a3\nb1b2\nbetween\nafter\n");
    assert_eq!(store.text("tail", &["-u", "a", "-o", "cat"]), "a1a2a3\n");
    let short = store.text("tail", &["--all"]);
    assert!(short.contains(" a info: a1a2a3\n") && short.contains(" b info: b1b2\n"), "{short}");
    let parts: Vec<_> = store.json(&["-u", "a", "--all"]).into_iter().filter(|v| v.get("seq").is_some()).collect();
    assert_eq!(parts.iter().map(|v| v.get("continued").is_some()).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn the_last_lines_are_whole_lines() {
    let store = with_parts();
    assert_eq!(store.text("tail", &["-n", "1", "-o", "cat"]), "after\n");
    assert_eq!(store.text("tail", &["-n", "2", "-o", "cat"]), "a1a2a3\nafter\n");
    assert_eq!(store.text("tail", &["-n", "3", "-o", "cat"]), "a1a2a3\nb1b2\nafter\n");
    assert_eq!(store.text("tail", &["-r", "-n", "1", "-u", "a", "-o", "cat"]), "a1a2a3\n");
    assert_eq!(store.json(&["-n", "2"]).iter().filter(|v| v.get("seq").is_some()).count(), 2, "parts are records");
}

#[test]
fn a_line_that_breaks_off_ends_at_the_boot_and_at_a_gap() {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let a = node.stream("a");
        node.append(&[Row { continued: true, ..row(a, b"never ended") }], &[]).unwrap();
        node.commit().unwrap(); // and no clean stop
    });
    store.boot_with("a", &[b"whole"]);
    assert_eq!(store.text("tail", &["--all", "-o", "cat"]), "never ended\nwhole\n");
}

#[test]
fn json_carries_everything() {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let stream = node.stream("app");
        let mut out = [0; 256];
        let mut fields = FieldsWriter::new(&mut out);
        fields.field("user", Value::Str("grün")).unwrap();
        fields.field("tag", Value::U64(1)).unwrap();
        fields.field("tag", Value::Bytes(&[0xFF])).unwrap();
        fields.map("deep", |m| m.list("list", |l| l.value(Value::Bool(true)))).unwrap();
        let full = Row {
            severity: 17,
            event_time_us: Some(WALL_US - 1),
            trace: Some(TraceContext { trace_id: [0xAB; 16], span_id: [1; 8] }),
            fields: fields.into_bytes(),
            ..row(stream, b"a \"quoted\"\nbody\0")
        };
        node.append(&[full, Row { severity: 0, ..row(stream, b"\xFF") }], &[]).unwrap();
        node.close().unwrap();
    });
    let lines = store.json(&["--all"]);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!((&lines[0]["event"], &lines[0]["epoch"]), (&json!("boot"), &json!(1)));
    assert_eq!(lines[0]["previous_end"], "new");
    let full = json!({
        "seq": 1,
        "stream": "app",
        "boot": 1,
        "received": "2023-11-14T22:13:20.000005Z",
        "time": "2023-11-14T22:13:19.999999Z",
        "severity": 17,
        "body": "a \"quoted\"\nbody\0",
        "trace_id": "ab".repeat(16),
        "span_id": "01".repeat(8),
        "fields": { "user": "grün", "tag": [1, { "base64": "/w==" }], "deep": { "list": [true] } },
    });
    assert_eq!(lines[1], full);
    assert_eq!((&lines[2]["body_base64"], &lines[2]["severity"]), (&json!("/w=="), &json!(null)));
    assert_eq!((&lines[2]["time"], &lines[2]["fields"]), (&json!(null), &json!({})));
    assert_eq!(lines[3]["event"], "close");
}

#[test]
fn records_are_filtered_by_stream_severity_and_time() {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let (a, b) = (node.stream("a"), node.stream("b"));
        for (stream, severity, hour) in [(a, 9, 0), (b, 13, 1), (a, 17, 2), (b, 21, 3)] {
            let text = format!("{severity} at {hour}");
            let event_time_us = Some(WALL_US + hour * 3_600_000_000);
            node.append(&[Row { severity, event_time_us, ..row(stream, text.as_bytes()) }], &[]).unwrap();
        }
        node.close().unwrap();
    });
    let cat = |arguments: &[&str]| store.text("tail", &[arguments, &["-o", "cat"]].concat());
    assert_eq!(cat(&["-u", "a"]), "9 at 0\n17 at 2\n");
    assert_eq!(cat(&["-p", "err"]), "17 at 2\n21 at 3\n");
    assert_eq!(cat(&["-p", "13", "-u", "b", "-n", "1"]), "21 at 3\n");
    assert_eq!(cat(&["--since", "2023-11-14T23:13:20Z", "--until", "2023-11-15 01:13:20"]), "13 at 1\n17 at 2\n");
    let (code, text) = failure(&store.run("tail", &["-u", "c"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("no stream `c`") && text.contains("a, b"), "{text}");
}

#[test]
fn damage_is_told_with_its_place_and_costs_only_what_it_hit() {
    let store = TestStore::new(SMALLEST);
    let bodies: Vec<String> = (1..=9).map(|n| format!("record number {n}")).collect();
    store.boot_with("app", &bodies.iter().map(String::as_bytes).collect::<Vec<_>>());
    assert!(store.text("check", &[]).starts_with("sound: records 1 to 9"));
    let at = store.find(b"record number 4");
    store.flip(at);
    let before = fs::read(&store.path).unwrap();

    let out = store.run("check", &["-o", "json"]);
    assert_eq!(out.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&report["sound"], &report["records_lost"]), (&json!(false), &json!(1)));
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 2, "{report}");
    let unit = 4096;
    assert_eq!(
        findings[0],
        json!({
            "kind": "damaged",
            "damage": true,
            "segment": at / 16384,
            "offset": at % 16384 / unit * unit,
            "bytes": unit,
            "expected": "records",
            "first_seq": 4,
            "last_seq": 4,
        })
    );
    assert_eq!((&findings[1]["kind"], &findings[1]["first_seq"]), (&json!("lost"), &json!(4)));

    let out = store.run("check", &[]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text.contains("damaged records, record 4") && text.contains("1 of the records are lost"), "{text}");

    let cat = store.text("tail", &["--all", "-o", "cat"]);
    let rest: Vec<&String> = bodies.iter().filter(|body| !body.ends_with('4')).collect();
    assert_eq!(cat.lines().collect::<Vec<_>>(), rest);
    let gaps: Vec<_> = store.json(&["--all"]).into_iter().filter(|v| v.get("gap").is_some()).collect();
    assert_eq!(gaps, [json!({ "gap": { "first_seq": 4, "last_seq": 4, "exact": true, "cause": "rot" } })]);
    let short = store.text("tail", &["--all"]);
    let place = short.lines().position(|line| line.starts_with("-- gap: 1 record (4), rot")).unwrap();
    assert!(short.lines().nth(place - 1).unwrap().ends_with("number 3"), "{short}");
    assert!(short.lines().nth(place + 1).unwrap().ends_with("number 5"), "{short}");
    assert_eq!(fs::read(&store.path).unwrap(), before, "nothing was written");
}

#[test]
fn a_damaged_header_and_a_damaged_manifest_cost_no_record() {
    let store = TestStore::new(SMALLEST);
    store.boot_with("app", &BODIES);
    let sound = fs::read(&store.path).unwrap();
    let log_segment = store.find(b"plain") / 16384;
    for (at, segment, expected) in [
        (log_segment * 16384 + 0x48, log_segment, "header"),
        (0x48, 0, "header"),
        (16 * 16384 + 0x48, 16, "header"),
        (4096 + 50, 0, "edit"),
        (16 * 16384 + 4096 + 50, 16, "edit"),
    ] {
        fs::write(&store.path, &sound).unwrap();
        store.flip(at);
        let out = store.run("check", &["-o", "json"]);
        let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((out.status.code(), &report["records_lost"]), (Some(1), &json!(0)), "{at}: {report}");
        let finding = &report["findings"][0];
        assert_eq!((&finding["segment"], &finding["expected"]), (&json!(segment), &json!(expected)), "{at}: {report}");
        assert_eq!(store.bytes("tail", &["--all", "-o", "cat"]), joined(&BODIES), "byte {at}");
    }
}

#[test]
fn a_stop_without_a_close_is_no_damage() {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let app = node.stream("app");
        node.append(&[row(app, b"kept")], &[]).unwrap();
        node.commit().unwrap();
    });
    let text = store.text("check", &[]);
    assert!(text.contains("without a clean stop: no damage") && text.contains("sound: records 1 to 1"), "{text}");
    let status: serde_json::Value = serde_json::from_str(&store.text("status", &["-o", "json"])).unwrap();
    assert_eq!(status["last_boot"], json!({ "epoch": 1, "ended": "cut" }));
}

#[test]
fn a_truncated_store_gives_what_is_left_and_says_what_is_missing() {
    let store = TestStore::new(4 << 20);
    store.boot_with("app", &BODIES);
    let bytes = fs::read(&store.path).unwrap();
    // The second cut takes the second copy of the manifest, the third the records.
    let start = store.find(b"plain") / SEGMENT * SEGMENT;
    for (len, whole) in [(bytes.len() - 1, true), (start + SEGMENT, true), (start + 8192, false)] {
        fs::write(&store.path, &bytes[..len]).unwrap();
        let out = store.run("check", &["-o", "json"]);
        let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((out.status.code(), &report["sound"]), (Some(1), &json!(false)), "{len}: {report}");
        let truncated = report["findings"].as_array().unwrap().iter().find(|f| f["kind"] == "truncated").unwrap();
        assert_eq!(truncated["bytes"], bytes.len() - len);
        if whole {
            assert_eq!(store.bytes("tail", &["--all", "-o", "cat"]), joined(&BODIES), "{len} bytes");
        }
    }
    for len in [0, 1, 100, 4096, 20_000] {
        fs::write(&store.path, &bytes[..len]).unwrap();
        for command in ["tail", "status", "check"] {
            let code = store.run(command, &[]).status.code();
            assert!(code.is_some_and(|code| code <= 2), "{command} of {len} bytes: {code:?}");
        }
    }
}

#[test]
fn what_is_no_store_is_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = file(dir.path(), "foreign", b"something else");
    let blank = file(dir.path(), "blank", &[0; 1 << 20]);
    let missing = dir.path().join("missing");
    for (path, words) in [
        (foreign.as_path(), "something else than a lastgasp store"),
        (&blank, "is blank; format it first"),
        (&missing, "not found"),
        (dir.path(), "is a directory"),
        ("/dev/null".as_ref(), "neither a regular file nor a block device"),
    ] {
        for command in ["tail", "status", "check"] {
            let (code, text) = failure(&lastgasp(&[command, "--store", path.to_str().unwrap()]));
            assert_eq!(code, Some(2), "{command} {}: {text}", path.display());
            assert!(text.contains(words) && text.contains(path.to_str().unwrap()), "{command}: {text}");
        }
    }
    assert_eq!(fs::read(&foreign).unwrap(), b"something else");
}

#[test]
fn a_store_in_use_is_shown_but_not_checked() {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let app = node.stream("app");
        node.append(&[row(app, b"kept")], &[]).unwrap();
        node.commit().unwrap();
        let (code, text) = failure(&store.run("check", &[]));
        assert_eq!(code, Some(2));
        assert!(text.contains("is writing to this store"), "{text}");
        assert_eq!(store.text("tail", &["-o", "cat"]), "kept\n");
        let status: serde_json::Value = serde_json::from_str(&store.text("status", &["-o", "json"])).unwrap();
        assert_eq!(
            (&status["in_use"], &status["last_boot"]),
            (&json!(true), &json!({ "epoch": 1, "ended": "running" }))
        );
    });
    store.text("check", &[]);
}

#[test]
fn a_read_only_file_is_read() {
    let store = TestStore::new(SMALLEST);
    store.boot_with("app", &BODIES);
    fs::set_permissions(&store.path, Permissions::from_mode(0o444)).unwrap();
    assert_eq!(store.bytes("tail", &["--all", "-o", "cat"]), joined(&BODIES));
    store.text("status", &[]);
    store.text("check", &[]);
}

#[test]
fn large_commits_come_out_as_they_went_in() {
    let store = TestStore::new(16 << 20);
    let bodies: Vec<String> = (0..20_000).map(|n| format!("sensor {} reads {}", n % 7, n * n % 977)).collect();
    store.boot(|node| {
        let streams = ["a", "b", "c"].map(|name| node.stream(name));
        for batch in bodies.chunks(500).zip(0..) {
            let rows: Vec<Row<'_>> = batch.0.iter().map(|body| row(streams[batch.1 % 3], body.as_bytes())).collect();
            node.append(&rows, &[]).unwrap();
        }
        node.commit().unwrap();
        node.close().unwrap();
    });
    let all: String = bodies.iter().map(|body| format!("{body}\n")).collect();
    assert_eq!(store.text("tail", &["--all", "-o", "cat"]), all);
    let newest_first: String = bodies.iter().rev().map(|body| format!("{body}\n")).collect();
    assert_eq!(store.text("tail", &["--all", "-r", "-o", "cat"]), newest_first);
    let of_b: Vec<&String> = bodies.chunks(500).skip(1).step_by(3).flatten().collect();
    assert_eq!(store.text("tail", &["-u", "b", "--all", "-o", "cat"]).lines().collect::<Vec<_>>(), of_b);
    assert_eq!(store.text("tail", &["-n", "1", "-o", "cat"]), format!("{}\n", bodies[19_999]));
    assert!(store.text("check", &[]).contains("sound: records 1 to 20000"));
}

#[test]
fn the_dump_of_a_flash_chip_is_read_like_a_file() {
    let flash: SimNor = SimNor::new(NorConfig::new(16, 4));
    let mut chip = NorStorage::new(flash, 16, 4096, Duration::from_millis(400));
    let mut rig = Rig::new(&RigSize::new(16, 4096));
    store::format(&mut chip, rig.parts().0, &store::FormatOptions { store_id: 5 }).unwrap();
    let (memory, [a, b]) = rig.parts();
    let (a, b) = (SliceArena(a), Some(SliceArena(b)));
    let mut node = Store::open(chip, memory, a, b, &OpenOptions::default(), &mut |_, _| ()).unwrap();
    let stream = node.stream("chip");
    for body in BODIES {
        node.append(&[row(stream, body)], &[]).unwrap();
        node.commit().unwrap();
    }
    node.close().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dump = file(dir.path(), "dump", &node.into_storage().into_inner().image().to_vec());
    let dump = dump.to_str().unwrap();
    assert_eq!(lastgasp(&["tail", "--store", dump, "--all", "-o", "cat"]).stdout, joined(&BODIES));
    assert!(lastgasp(&["check", "--store", dump]).status.success());
    let status = lastgasp(&["status", "--store", dump, "-o", "json"]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!((&status["kind"], &status["records"]["count"]), (&json!("chip-image"), &json!(6)));
}

#[test]
fn a_full_store_says_what_it_dropped() {
    let store = TestStore::new(SMALLEST);
    let bodies: Vec<String> = (1..=300).map(|n| format!("{n} {}", "x".repeat(100))).collect();
    store.boot_with("app", &bodies.iter().map(String::as_bytes).collect::<Vec<_>>());
    let status: serde_json::Value = serde_json::from_str(&store.text("status", &["-o", "json"])).unwrap();
    let first = status["records"]["first"].as_u64().unwrap();
    assert!(first > 1, "{status}");
    assert_eq!(status["gaps"], json!([{ "cause": "retention", "gaps": 1, "records": first - 1, "exact": false }]));
    let lines = store.json(&["--all"]);
    assert_eq!(lines[0]["gap"]["cause"], "retention");
    assert_eq!(lines[0]["gap"]["last_seq"], first - 1);
    assert_eq!(lines.iter().filter(|v| v.get("seq").is_some()).count() as u64, status["records"]["count"]);
    assert!(store.text("check", &[]).contains("sound"));
    assert!(store.text("tail", &["--all"]).contains("-- gap: at most"));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let store = TestStore::new(4 << 20);
    let body = vec![b'x'; 60_000];
    store.boot(|node| {
        let app = node.stream("app");
        for _ in 0..20 {
            node.append(&[row(app, &body)], &[]).unwrap();
            node.commit().unwrap();
        }
        node.close().unwrap();
    });
    for output in ["cat", "json", "short", "short-iso", "export"] {
        let mut child = command(&["tail", "--all", "-o", output, "--store"])
            .arg(&store.path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let out = child.wait_with_output().unwrap();
        assert_eq!(failure(&out), (Some(0), String::new()), "{output}");
    }
}

#[test]
fn format_makes_a_store_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let path = path.to_str().unwrap();
    let out = lastgasp(&["format", path, "--size", "1M", "--allow-volatile", "--torn-unit", "512"]);
    assert!(out.status.success(), "{}", failure(&out).1);
    assert!(String::from_utf8_lossy(&out.stdout).contains("an empty store of 1 MiB (32 segments of 32 KiB), id "));
    assert!(lastgasp(&["check", "--store", path]).status.success());
    let status = lastgasp(&["status", "-o", "json", "--store", path]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["geometry"]["torn_unit"], &status["records"]["count"]), (&json!(512), &json!(0)));
    assert_ne!(status["store_id"], "0000000000000000");
    assert_eq!(lastgasp(&["tail", "--store", path]).stdout, b"");
    let (code, text) = failure(&lastgasp(&["format", path, "--size", "1M", "--allow-volatile", "--force"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("is a lastgasp store already"), "{text}");
}

#[test]
fn format_refuses_what_it_must_not_take() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = file(dir.path(), "foreign", b"something else");
    let new = dir.path().join("new");
    let (foreign_path, new_path) = (foreign.to_str().unwrap(), new.to_str().unwrap());
    for (arguments, words) in [
        (&[foreign_path, "--size", "1M", "--force"][..], "something else than a lastgasp store"),
        (&[new_path], "say how large with --size"),
        (&[new_path, "--size", "4K"], "the least is 524288 bytes"),
        (&[new_path, "--size", "64Q"], "`Q` is no unit"),
        (&[new_path, "--size", "1M", "--torn-unit", "1000"], "power of two from 512 to 65536"),
        (&[dir.path().to_str().unwrap(), "--size", "1M"], "is a directory"),
    ] {
        let (code, text) = failure(&lastgasp(&[&["format", "--allow-volatile"], arguments].concat()));
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
    assert_eq!(fs::read(&foreign).unwrap(), b"something else");
    assert!(!new.exists());
}
