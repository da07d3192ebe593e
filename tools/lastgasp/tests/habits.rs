//! The habits of journalctl: what one types there is understood here.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Guard, SMALLEST, TestStore, WALL_US, command, failure, lastgasp, row, stdout};
use lastgasp_core::format::row::Row;
use lastgasp_core::store::OpenOptions;
use serde_json::{Value, json};

const HOUR_US: i64 = 3_600_000_000;

/// Four streams, one record an hour, of every severity that syslog has.
fn of_a_machine() -> TestStore {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let streams = ["kernel", "ssh.service", "app-a", "app-b"].map(|name| node.stream(name));
        let severities = [21, 19, 18, 17, 13, 10, 9, 5];
        for (hour, severity) in (0..).zip(severities) {
            let body = format!("Severity {severity}");
            let event_time_us = Some(WALL_US + i64::from(hour) * HOUR_US);
            let stream = streams[usize::try_from(hour).unwrap() % 4];
            node.append(&[Row { severity, event_time_us, ..row(stream, body.as_bytes()) }], &[]).unwrap();
        }
        node.commit().unwrap();
        node.close().unwrap();
    });
    store
}

fn shown(store: &TestStore, arguments: &[&str]) -> String {
    let text = store.text("tail", &[&["--all", "-o", "cat"], arguments].concat());
    text.lines().map(|line| line.trim_start_matches("Severity ")).collect::<Vec<_>>().join(" ")
}

#[test]
fn streams_are_chosen_by_name_by_pattern_and_more_than_one() {
    let store = of_a_machine();
    for (arguments, want) in [
        (&["-u", "kernel"][..], "21 13"),
        (&["-u", "ssh"], "19 10"),
        (&["-u", "app-*"], "18 17 9 5"),
        (&["-u", "app-?", "-u", "kernel"], "21 18 17 13 9 5"),
        (&["--unit", "app-a", "-u", "ssh.service"], "19 18 10 9"),
        (&["-u", "[k]*"], "21 13"),
    ] {
        assert_eq!(shown(&store, arguments), want, "{arguments:?}");
    }
    for (arguments, words) in [
        (&["-u", "sshd"][..], "no stream `sshd`; there are: kernel, ssh.service, app-a, app-b"),
        (&["-u", "db*"], "no stream matches `db*`; there are: kernel"),
        (&["-u", "a[", "-u", "kernel"], "-u a["),
    ] {
        let (code, text) = failure(&store.run("tail", arguments));
        assert_eq!(code, Some(2));
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
}

#[test]
fn severities_are_names_numbers_and_ranges() {
    let store = of_a_machine();
    for (severity, want) in [
        ("warning", "21 19 18 17 13"),
        ("4", "21 19 18 17 13"),
        ("err..warning", "17 13"),
        ("4..3", "17 13"),
        ("debug..info", "9 5"),
        ("emerg", "21"),
        ("18", "21 19 18"),
        ("error..fatal", "21 19 18 17"),
    ] {
        assert_eq!(shown(&store, &["-p", severity]), want, "{severity}");
    }
    let (code, text) = failure(&store.run("tail", &["-p", "loud"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("is no severity") && text.contains("err..warning"), "{text}");
}

#[test]
fn times_may_be_absolute_or_in_words() {
    let store = of_a_machine();
    for (arguments, want) in [
        (&["--since", "2023-11-15 04:13:20"][..], "9 5"),
        (&["-S", "@1700000000", "-U", "2023-11-14 23:13:20"], "21"),
        (&["--until", "2023-11-15"], "21 19"),
        (&["--since", "today"], ""),
        (&["--until", "5 min ago"], "21 19 18 17 13 10 9 5"),
    ] {
        assert_eq!(shown(&store, arguments), want, "{arguments:?}");
    }
    let (code, text) = failure(&store.run("tail", &["--since", "now", "--until", "yesterday"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("--since is not before --until"), "{text}");
}

#[test]
fn a_pattern_without_capitals_matches_them_too() {
    let store = of_a_machine();
    assert_eq!(shown(&store, &["-g", "severity 1.$"]), "19 18 17 13 10");
    assert_eq!(shown(&store, &["-g", "SEVERITY"]), "");
    assert_eq!(shown(&store, &["-g", "SEVERITY", "--case-sensitive=false", "-u", "kernel"]), "21 13");
    assert_eq!(store.text("tail", &["-n", "2", "-g", "1", "-o", "cat"]), "Severity 13\nSeverity 10\n");
    assert_eq!(store.text("tail", &["-n", "2", "-r", "-g", "1", "-o", "cat"]), "Severity 10\nSeverity 13\n");
    let found: Vec<Value> = store.json(&["-g", "ty 9$", "--all"]);
    assert_eq!(found.iter().filter(|v| v.get("seq").is_some()).count(), 1);
    let (code, text) = failure(&store.run("tail", &["-g", "(unclosed"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("no regular expression"), "{text}");
}

#[test]
fn a_line_in_parts_is_found_by_any_of_them() {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let (a, b) = (node.stream("a"), node.stream("b"));
        for (stream, body, continued) in [
            (a, "one ", true),
            (b, "other", false),
            (a, "needle ", true),
            (a, "end", false),
            (a, "no ", true),
            (a, "match", false),
            (b, "needle too", false),
        ] {
            node.append(&[Row { continued, ..row(stream, body.as_bytes()) }], &[]).unwrap();
            node.commit().unwrap();
        }
        node.close().unwrap();
    });
    let found = "one needle end\nneedle too\n";
    assert_eq!(store.text("tail", &["--all", "-g", "needle", "-o", "cat"]), found);
    assert_eq!(store.text("tail", &["--all", "-g", "end$|^needle too", "-o", "cat"]), found);
    assert_eq!(store.text("tail", &["--all", "-r", "-g", "match", "-o", "cat"]), "no match\n");
    assert_eq!(store.text("tail", &["--all", "-g", "no", "-o", "cat"]), "no match\n");
}

/// Three boots: one that stopped, one that was cut with records in RAM, one that stopped; 2, 1 and 3 records.
fn of_three_boots() -> TestStore {
    let store = TestStore::new(SMALLEST);
    store.boot_with("app", &[b"1 a", b"1 b"]);
    let second = OpenOptions { wall_us: WALL_US + HOUR_US, synchronised: false, volatile_bound: 5 };
    store.boot_as(&second, |node| {
        let app = node.stream("app");
        node.append(&[row(app, b"2 a")], &[]).unwrap();
        node.commit().unwrap(); // and then the power is cut
    });
    let third = OpenOptions { wall_us: WALL_US + 2 * HOUR_US, synchronised: true, volatile_bound: 0 };
    store.boot_as(&third, |node| {
        let app = node.stream("app");
        for body in [b"3 a", b"3 b", b"3 c"] {
            node.append(&[row(app, body)], &[]).unwrap();
        }
        node.commit().unwrap();
        node.close().unwrap();
    });
    store
}

#[test]
fn boots_are_listed_with_how_they_ended() {
    let store = of_three_boots();
    let boots: Vec<Value> = serde_json::from_str(&store.text("boots", &["-o", "json"])).unwrap();
    let picked: Vec<Value> = boots
        .iter()
        .map(|boot| json!([boot["index"], boot["epoch"], boot["ended"], boot["synchronised"], boot["first_seq"]]))
        .collect();
    let first_of_third = boots[2]["first_seq"].as_u64().unwrap();
    let want = [
        json!([-2, 1, "clean", true, 1]),
        json!([-1, 2, "cut", false, 3]),
        json!([0, 3, "clean", true, first_of_third]),
    ];
    assert_eq!(picked, want);
    assert_eq!((&boots[0]["last_seq"], &boots[1]["last_seq"]), (&json!(2), &json!(3)));
    assert_eq!(boots[0]["begin"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(boots[1]["end"], "2023-11-14T23:13:20.000005Z");
    let text = store.text("boots", &["--utc"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[2],
        "  -1     2  Tue 2023-11-14 23:13:20 UTC Tue 2023-11-14 23:13:20 UTC cut       3 to 3; the clock was not \
         synchronised"
    );
    store.boot(|node| {
        let app = node.stream("app");
        node.append(&[row(app, b"4 a")], &[]).unwrap();
        node.commit().unwrap();
        let boots: Vec<Value> = serde_json::from_str(&store.text("boots", &["-o", "json"])).unwrap();
        assert_eq!((&boots[3]["epoch"], &boots[3]["ended"]), (&json!(4), &json!("running")));
    });
}

#[test]
fn records_of_one_boot_are_chosen_as_in_journalctl() {
    let store = of_three_boots();
    let of = |arguments: &[&str]| store.text("tail", &[arguments, &["-o", "cat"]].concat());
    for arguments in [&["-b"][..], &["-b", "0"], &["-b0"], &["-b", "3"], &["--boot=3"]] {
        assert_eq!(of(arguments), "3 a\n3 b\n3 c\n", "{arguments:?}");
    }
    assert_eq!(
        (of(&["-b", "-1"]), of(&["-b-2"]), of(&["-b", "1"])),
        ("2 a\n".into(), "1 a\n1 b\n".into(), of(&["-b-2"]))
    );
    assert_eq!(of(&["-b", "-r", "-n", "1"]), "3 c\n");
    let (code, text) = failure(&store.run("tail", &["-b", "-3"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("no boot -3; there are 1 to 3, or 0 to -2"), "{text}");
}

#[test]
fn gaps_are_listed_with_their_time_and_an_exit_code() {
    let store = of_three_boots();
    let out = store.run("gaps", &["-o", "json"]);
    assert_eq!(out.status.code(), Some(1));
    let gaps: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    let want = json!([{
        "first_seq": 4,
        "last_seq": 8,
        "exact": false,
        "cause": "ram-tier",
        "count": 5,
        "after": "2023-11-14T23:13:20.000005Z",
        "before": "2023-11-15T00:13:20.000005Z",
    }]);
    assert_eq!(json!(gaps), want);
    let out = store.run("gaps", &["--utc"]);
    assert_eq!(
        String::from_utf8(out.stdout).unwrap(),
        "at most 5 records (4 to 8), ram-tier: they were only in RAM when power failed; between Tue 2023-11-14 \
         23:13:20 UTC and Wed 2023-11-15 00:13:20 UTC\n"
    );
}

#[test]
fn what_nobody_has_met_yet_is_found_by_reading_everything() {
    let store = TestStore::new(SMALLEST);
    store.boot_with("app", &[b"first", b"second", b"third"]);
    assert_eq!(store.text("gaps", &[]), "nothing is known to be lost\n");
    assert_eq!(store.text("gaps", &["--scan", "-o", "json"]), "[]\n");
    store.flip(store.find(b"second"));
    assert_eq!(store.text("gaps", &[]), "nothing is known to be lost\n");
    let out = store.run("gaps", &["--scan"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text.starts_with("1 record (2), rot: the medium damaged them; between "), "{text}");
}

#[test]
fn what_was_dropped_in_its_turn_is_a_gap_but_no_loss() {
    let store = TestStore::new(SMALLEST);
    let body = [b'x'; 100];
    store.boot_with("app", &vec![&body[..]; 300]);
    let out = store.run("gaps", &[]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0), "{text}");
    assert!(text.contains("retention: dropped as the oldest; before "), "{text}");
}

#[test]
fn formats_look_as_they_should() {
    let store = of_a_machine();
    let iso = store.text("tail", &["-n", "2", "-o", "short-iso"]);
    let want = "2023-11-15T04:13:20+0000 app-a info: Severity 9\n2023-11-15T05:13:20+0000 app-b debug: Severity 5\n\
                -- clean stop --\n";
    assert_eq!(iso, want);
    let at = |zone: &str, arguments: &[&str]| {
        let all = [&["tail", "--store", store.path.to_str().unwrap(), "-n", "1", "-p", "emerg"], arguments].concat();
        String::from_utf8(command(&all).env("TZ", zone).output().unwrap().stdout).unwrap()
    };
    let has_names = std::path::Path::new("/usr/share/zoneinfo/Europe/Berlin").exists();
    for zone in ["CET-1", "Europe/Berlin"].iter().take(if has_names { 2 } else { 1 }) {
        assert!(at(zone, &["-o", "short-iso"]).contains("2023-11-14T23:13:20+0100"), "{zone}");
    }
    assert!(at("CET-1", &["-o", "short-iso", "--utc"]).contains("2023-11-14T22:13:20+0000"));
    assert!(at("CET-1", &[]).contains("Nov 14 23:13:20 kernel fatal: Severity 21\n"));
}

#[test]
fn following_shows_what_is_written_from_then_on() {
    let store = TestStore::new(SMALLEST);
    store.boot_with("app", &[b"1 a", b"1 b"]);
    let mut child = command(&["tail", "-f", "-n", "1", "-o", "cat", "--store"])
        .arg(&store.path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let guard = Guard(child);
    assert_eq!(lines.next().unwrap(), "1 b");
    store.boot(|node| {
        let app = node.stream("app");
        for n in 0..5 {
            node.append(&[row(app, format!("2 {n}").as_bytes())], &[]).unwrap();
            node.commit().unwrap();
            assert_eq!(lines.next().unwrap(), format!("2 {n}"), "each is shown once, when it is durable");
        }
        node.close().unwrap();
    });
    store.boot_with("app", &[b"3 a"]);
    assert_eq!(lines.next().unwrap(), "3 a", "also over a restart");
    drop(guard);
    assert_eq!(lines.next(), None);
}

#[test]
fn following_waits_for_streams_that_are_not_there_yet() {
    let store = TestStore::new(SMALLEST);
    store.boot_with("app", &[b"1 a"]);
    let mut child = command(&["tail", "-f", "-u", "late", "-u", "l?ter", "--utc", "--store"])
        .arg(&store.path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let _guard = Guard(child);
    let mut until = |end: &str| lines.find(|line| line.ends_with(end)).unwrap();
    assert!(until("--").starts_with("-- boot 1"), "boots are shown whatever is asked for");
    store.boot(|node| {
        let streams = ["app", "late", "later"].map(|name| node.stream(name));
        for stream in streams {
            node.append(&[row(stream, b"x")], &[]).unwrap();
        }
        node.commit().unwrap();
        assert_eq!(until(": x"), "Nov 14 22:13:20 late info: x");
        assert_eq!(until(": x"), "Nov 14 22:13:20 later info: x");
    });
}

#[test]
fn without_a_name_the_store_of_this_user_is_read() {
    let of_machine = ["/run/lastgasp/lastgasp.sock", "/var/lib/lastgasp/store.lg", "/etc/lastgasp/lastgaspd.toml"];
    if of_machine.iter().any(|path| std::path::Path::new(path).exists()) {
        println!("skipped: this machine has a node of its own");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let store = TestStore::new(SMALLEST);
    store.boot_with("app", &[b"mine"]);
    let place = home.path().join(".local/state/lastgasp");
    fs::create_dir_all(&place).unwrap();
    fs::copy(&store.path, place.join("store.lg")).unwrap();
    let out = command(&["tail", "-o", "cat"]).env("HOME", home.path()).output().unwrap();
    assert_eq!(out.stdout, b"mine\n");
    // A configuration wins over the usual place.
    fs::rename(place.join("store.lg"), home.path().join("elsewhere")).unwrap();
    let config = home.path().join(".config/lastgasp");
    fs::create_dir_all(&config).unwrap();
    let named = format!("[store]\npath = \"{}\"\n", home.path().join("elsewhere").display());
    fs::write(config.join("lastgaspd.toml"), named).unwrap();
    let out = command(&["tail", "-o", "cat"]).env("HOME", home.path()).output().unwrap();
    assert_eq!(out.stdout, b"mine\n");
    let (code, text) = failure(&lastgasp(&["tail"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("no node runs here") && text.contains("/var/lib/lastgasp/store.lg"), "{text}");
}

#[test]
fn a_checkpoint_takes_a_node() {
    let store = TestStore::new(SMALLEST);
    store.boot_with("app", &[b"x"]);
    let (code, text) = failure(&store.run("checkpoint", &[]));
    assert_eq!(code, Some(2));
    assert!(text.contains("takes a running node") && text.contains("--socket"), "{text}");
}

/// Names of all commands, from the help.
fn commands() -> Vec<String> {
    let help = stdout(&["--help"]);
    let list = help.split_once("Commands:\n").unwrap().1;
    let list = list.split_once("\n\n").unwrap().0;
    // Words that are further in belong to what a command does.
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).filter(|name| name != "help").collect()
}

#[test]
fn help_has_examples_and_exit_codes() {
    let names = commands();
    assert!(["tail", "journald", "man"].iter().all(|name| names.iter().any(|n| n == name)), "{names:?}");
    for name in [vec![]].into_iter().chain(names.iter().map(|name| vec![name.as_str()])) {
        let text = stdout(&[name.as_slice(), &["--help"]].concat());
        assert!(text.contains("Examples:") && text.contains("Exit codes:"), "{name:?}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{name:?}: {text}");
    }
    assert_eq!(lastgasp(&["frobnicate"]).status.code(), Some(2));
}

#[test]
fn every_command_has_its_completions_and_its_page() {
    let names = commands();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&["completions", shell]);
        for name in &names {
            assert!(script.contains(name.as_str()), "{shell} does not know {name}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    stdout(&["man", dir.path().to_str().unwrap()]);
    for name in &names {
        let page = fs::read_to_string(dir.path().join(format!("lastgasp-{name}.1"))).unwrap();
        assert!(page.contains(".TH") && page.contains("Exit codes"), "{name}");
    }
    for below in ["takeover", "release", "status"] {
        assert!(dir.path().join(format!("lastgasp-journald-{below}.1")).exists());
    }
    assert!(stdout(&["man"]).contains(".TH lastgasp 1"));
}
