//! What leaves for other programs: JSON lines, the journal's export format, files.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{SMALLEST, TestStore, WALL_US, failure, row};
use lastgasp_core::format::fields::{FieldsWriter, Value};
use lastgasp_core::format::row::Row;

/// Where Debian and others put it.
const REMOTE: [&str; 2] = ["/lib/systemd/systemd-journal-remote", "/usr/lib/systemd/systemd-journal-remote"];

/// One record as a journal gives it, with binary and repeated fields; one of a program with fields of its own.
fn mixed() -> TestStore {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let (ssh, app) = (node.stream("ssh.service"), node.stream("app"));
        let mut out = [0; 1024];
        let mut fields = FieldsWriter::new(&mut out);
        for (name, value) in [
            ("__REALTIME_TIMESTAMP", Value::Str("1700000000000007")),
            ("__MONOTONIC_TIMESTAMP", Value::Str("12345")),
            ("_BOOT_ID", Value::Str("00112233445566778899aabbccddeeff")),
            ("PRIORITY", Value::Str("3")),
            ("_SYSTEMD_UNIT", Value::Str("ssh.service")),
            ("_TRANSPORT", Value::Str("journal")),
            ("TAG", Value::Str("one")),
            ("TAG", Value::Str("two\nlines")),
            ("BLOB", Value::Bytes(&[0, 1, 0xFF, b'\n'])),
        ] {
            fields.field(name, value).unwrap();
        }
        let from_journal = Row { severity: 17, fields: fields.into_bytes(), ..row(ssh, b"login\nfailed \xFF") };
        let mut out = [0; 256];
        let mut fields = FieldsWriter::new(&mut out);
        fields.field("user.name", Value::Str("gr\u{fc}n")).unwrap();
        fields.field("tries", Value::I64(-3)).unwrap();
        fields.map("deep", |m| m.field("k", Value::Bool(true))).unwrap();
        let own = Row { event_time_us: Some(WALL_US + 9), fields: fields.into_bytes(), ..row(app, b"plain") };
        node.append(&[from_journal, own], &[]).unwrap();
        node.commit().unwrap();
        node.close().unwrap();
    });
    store
}

#[test]
fn lines_are_those_of_tail() {
    let store = mixed();
    assert_eq!(store.bytes("export", &[]), store.bytes("tail", &["--all", "-o", "json"]));
    let some = ["-u", "app", "-p", "info..info"];
    assert_eq!(store.bytes("export", &some), store.bytes("tail", &[&["--all", "-o", "json"][..], &some].concat()));
}

#[test]
fn an_entry_of_a_journal_comes_out_as_it_went_in() {
    let store = mixed();
    let bytes = store.bytes("export", &["-o", "journal-export", "-u", "ssh"]);
    let mut want = b"__CURSOR=s=00000000000000000000000000000007;i=1;b=00112233445566778899aabbccddeeff;m=3039;\
        t=60a24181e4007;x=6\n\
        __REALTIME_TIMESTAMP=1700000000000007\n__MONOTONIC_TIMESTAMP=12345\n\
        _BOOT_ID=00112233445566778899aabbccddeeff\n"
        .to_vec();
    want.extend_from_slice(b"MESSAGE\n\x0e\0\0\0\0\0\0\0login\nfailed \xFF\n");
    want.extend_from_slice(b"PRIORITY=3\n_SYSTEMD_UNIT=ssh.service\n_TRANSPORT=journal\nTAG=one\n");
    want.extend_from_slice(b"TAG\n\x09\0\0\0\0\0\0\0two\nlines\nBLOB\n\x04\0\0\0\0\0\0\0\0\x01\xFF\n\n");
    want.extend_from_slice(b"LASTGASP_STREAM=ssh.service\nLASTGASP_SEQ=1\n\n");
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&want));
    assert_eq!(bytes, want);
    assert_eq!(store.bytes("tail", &["-o", "export", "-u", "ssh"]), want);
}

#[test]
fn a_record_of_a_program_gets_what_a_journal_needs() {
    let store = mixed();
    let text = store.text("export", &["-o", "journal-export", "-u", "app"]);
    let want = "__CURSOR=s=00000000000000000000000000000007;i=2;b=00000000000000074000000000000001;m=5;\
                t=60a24181e4005;x=5\n\
                __REALTIME_TIMESTAMP=1700000000000005\n__MONOTONIC_TIMESTAMP=5\n\
                _BOOT_ID=00000000000000074000000000000001\nMESSAGE=plain\nPRIORITY=6\nSYSLOG_IDENTIFIER=app\n\
                _SOURCE_REALTIME_TIMESTAMP=1700000000000009\nUSER_NAME=gr\u{fc}n\nTRIES=-3\nDEEP={\"k\":true}\n\
                LASTGASP_STREAM=app\nLASTGASP_SEQ=2\n\n";
    assert_eq!(text, want);
}

#[test]
fn an_entry_in_parts_is_one_entry() {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let (a, b) = (node.stream("a"), node.stream("b"));
        let mut out = [0; 64];
        let mut fields = FieldsWriter::new(&mut out);
        fields.field("TAG", Value::Str("x")).unwrap();
        let first = Row { continued: true, fields: fields.into_bytes(), ..row(a, b"one\n") };
        for part in
            [first, row(b, b"other"), Row { continued: true, ..row(a, b"two ") }, row(a, b"three"), row(a, b"next")]
        {
            node.append(&[part], &[]).unwrap();
            node.commit().unwrap();
        }
        node.close().unwrap();
    });
    let bytes = store.bytes("export", &["-o", "journal-export"]);
    let text = String::from_utf8(bytes).unwrap();
    let entries: Vec<&str> = text.split("\n\n").collect();
    assert_eq!(entries.len(), 4, "three entries and what is behind the last: {text:?}");
    let whole = "MESSAGE\n\x0d\0\0\0\0\0\0\0one\ntwo three\nPRIORITY=6\nSYSLOG_IDENTIFIER=a\nTAG=x\nLASTGASP_STREAM=a";
    assert!(entries[0].contains(whole), "{text:?}");
    assert!(entries[1].contains("MESSAGE=other\n") && entries[2].contains("MESSAGE=next\n"), "{text:?}");
    assert_eq!(store.text("export", &["-o", "journal-export", "-g", "three"]).matches("__CURSOR=").count(), 1);
    assert!(store.text("export", &["-o", "journal-export", "-g", "three"]).contains("one\ntwo three\n"));
}

#[test]
fn systemd_reads_it_back() {
    let Some(remote) = REMOTE.iter().find(|path| Path::new(path).exists()) else {
        println!("skipped: there is no systemd-journal-remote here");
        return;
    };
    let store = mixed();
    let export = store.dir.path().join("all.export");
    let journal = store.dir.path().join("all.journal");
    store.text("export", &["-o", "journal-export", "-w", export.to_str().unwrap()]);
    let made = Command::new(remote).arg("-o").arg(&journal).arg(&export).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let journalctl = Command::new("journalctl").arg("--file").arg(&journal).args(["-o", "json", "--all"]).output();
    let text = String::from_utf8(journalctl.unwrap().stdout).unwrap();
    let entries: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 2, "{text}");
    let first = &entries[0];
    assert_eq!(first["TAG"], serde_json::json!(["one", "two\nlines"]));
    assert_eq!(first["BLOB"], serde_json::json!([0, 1, 255, 10]));
    let message = b"login\nfailed \xFF".iter().map(|b| u64::from(*b)).collect::<Vec<_>>();
    assert_eq!(first["MESSAGE"], serde_json::json!(message));
    assert_eq!((&first["PRIORITY"], &first["__MONOTONIC_TIMESTAMP"]), (&"3".into(), &"12345".into()));
    assert_eq!((&entries[1]["MESSAGE"], &entries[1]["USER_NAME"]), (&"plain".into(), &"gr\u{fc}n".into()));
}

#[test]
fn a_file_is_whole_or_not_there() {
    let store = mixed();
    let target = store.dir.path().join("out.jsonl");
    let path = target.to_str().unwrap();
    let out = store.run("export", &["-w", path]);
    assert_eq!(failure(&out), (Some(0), format!("note: {path}: 2 records\n")));
    assert_eq!(fs::read(&target).unwrap(), store.bytes("export", &[]));
    let (code, text) = failure(&store.run("export", &["-w", path]));
    assert_eq!(code, Some(2));
    assert!(text.contains("is there already") && text.contains("--force"), "{text}");
    store.text("export", &["-w", path, "--force", "-u", "app"]);
    assert!(fs::read_to_string(&target).unwrap().contains("plain"));
    let (code, text) = failure(&store.run("export", &["-w", "/nonexistent/x"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("/nonexistent/x.part: cannot be made"), "{text}");
    let left: Vec<_> = fs::read_dir(store.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let store = mixed();
    let out = common::command(&["export", "--store"])
        .arg(&store.path)
        .stdout(Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap()))
        .output()
        .unwrap();
    let (code, text) = failure(&out);
    assert_eq!(code, Some(2));
    assert!(text.contains("No space left"), "{text}");
}
