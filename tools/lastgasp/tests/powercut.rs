//! `lastgasp powercut` as a user runs it: small campaigns, their JSON, exit codes, replays, the report.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn powercut(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lastgasp")).arg("powercut").args(args).output().expect("lastgasp runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn json(args: &[&str]) -> (Value, Option<i32>) {
    let out = powercut(args);
    let value = serde_json::from_slice(&out.stdout);
    (value.unwrap_or_else(|e| panic!("{e}: {}{}", text(&out.stdout), text(&out.stderr))), out.status.code())
}

#[test]
fn honest_media_keep_every_promise_and_the_json_says_all_there_is() {
    for profile in ["nor", "disk", "sdcard"] {
        let (value, code) = json(&["--random", "--seeds", "2", "--days", "3", "--profile", profile, "-o", "json"]);
        assert_eq!(code, Some(0), "{value}");
        assert_eq!(value["broken_promises"], 0, "{value}");
        let one = &value["profiles"][0];
        assert_eq!(one["profile"], profile);
        for field in ["seed", "cuts", "operations", "acknowledged", "acknowledged_lost", "refused_opens", "invented"] {
            assert!(one[field].is_u64(), "{field} in {one}");
        }
        assert!(one["cuts"].as_u64() > Some(30) && one["acknowledged"].as_u64() > Some(500), "{one}");
        assert_eq!([&one["acknowledged_lost"], &one["refused_opens"], &one["invented"]], [0, 0, 0], "{one}");
        assert!(one["lost_by_cause"].is_object() && one["bytes_per_byte"].as_f64() > Some(1.0), "{one}");
        for field in ["p50", "p99", "max"] {
            assert!(one["recovery_ms"][field].as_f64() > Some(0.0), "{field} in {one}");
        }
        assert!(one["worst_flush"]["hold_up_ms"].as_f64() > Some(0.0), "{one}");
    }
}

#[test]
fn a_storage_that_skips_syncs_is_caught_with_exit_code_1_and_an_id_that_replays_it() {
    let args = ["--random", "--seeds", "2", "--days", "2", "--profile", "sdcard-liar"];
    let (excused, code) = json(&[&args[..], &["-o", "json"]].concat());
    assert_eq!((code, &excused["broken_promises"]), (Some(0), &Value::from(0)), "it is known to lie");
    assert!(excused["profiles"][0]["acknowledged_lost"].as_u64() > Some(0), "{excused}");

    let out = powercut(&[&args[..], &["--no-excuse"]].concat());
    let shown = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{shown}");
    assert!(shown.contains("BROKEN"), "{shown}");
    let id = shown.split("--replay ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an id is shown");
    let replayed = powercut(&["--replay", id, "--no-excuse", "-v"]);
    let story = text(&replayed.stdout);
    assert_eq!(replayed.status.code(), Some(1), "{story}");
    for word in ["the power is off", "operations:", "the card lied"] {
        assert!(story.contains(word), "{word:?} is not in {story}");
    }
}

#[test]
fn cutting_every_operation_of_the_workloads_keeps_every_promise() {
    let (value, code) = json(&["--profile", "disk", "--seeds", "0", "-o", "json"]);
    assert_eq!(code, Some(0), "{value}");
    let one = &value["profiles"][0];
    assert!(one["single_cuts"].as_u64() > Some(5000) && one["double_cuts"].as_u64() > Some(1000), "{one}");
}

#[test]
fn a_story_of_a_single_cut_shows_the_operations_and_with_v_the_torn_bytes() {
    let brief = text(&powercut(&["--replay", "disk:w3:c40:r1"]).stdout);
    assert!(brief.contains("cut at operation") && brief.contains("every promise holds"), "{brief}");
    assert!(!brief.contains("torn:"), "{brief}");
    let long = text(&powercut(&["--replay", "disk:w3:c40:r1", "-v"]).stdout);
    assert!(long.contains("torn:") && long.contains("000"), "{long}");
}

#[test]
fn an_own_log_an_own_supply_and_an_own_workload_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let log = write("syslog", "Nov 20 10:00:00 pi kernel: usb 1-1: reset\nNov 20 10:00:01 pi sshd: accepted\n");
    let power = write("supply", "hold-up 1s\nsense late 50ms\nevery 30m..2h cut\n");
    let workload = write("node", "stream a every 5s..60s batch 1..5 class group\n");
    let files = ["--log", &log, "--power", &power, "--workload", &workload];
    let (value, code) =
        json(&[&files[..], &["--seeds", "1", "--days", "1", "--profile", "disk", "-o", "json"]].concat());
    assert_eq!(code, Some(0), "{value}");
    assert!(value["profiles"][0]["acknowledged"].as_u64() > Some(1000), "{value}");

    let broken = write("broken", "hold-up 1s\nevery hour cut\n");
    let out = powercut(&["--power", &broken]);
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert!(error.contains("line 2") && error.contains("hour"), "{error}");
}

#[test]
fn what_cannot_be_done_is_said() {
    for args in [
        &["--replay", "disk:w999:c1:a"][..],
        &["--replay", "tape:w1"],
        &["--double"],
        &["--minutes", "1", "--seeds", "2"],
        &["--log", "/nonexistent/log"],
        &["--report", "/nonexistent/dir/x.html"],
        &["--profile", "floppy"],
        &["--days", "0"],
    ] {
        let out = powercut(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", text(&out.stdout));
        assert!(!out.stderr.is_empty(), "{args:?}");
    }
}

fn report(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("cuts.html");
    let out = powercut(&["--random", "--seeds", "2", "--days", "3", "--report", path.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
    path
}

#[test]
fn the_report_is_one_page_that_needs_no_network_and_every_plot_has_data() {
    let dir = tempfile::tempdir().unwrap();
    let page = fs::read_to_string(report(dir.path())).unwrap();
    for outside in ["http://", "https://", "src=", "<link", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "the page asks for {outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("name=\"viewport\""));
    let plots = page.matches("<svg").count();
    assert!(plots >= 16, "{plots} plots");
    for plot in page.split("<svg").skip(1).map(|rest| rest.split("</svg>").next().unwrap_or_default()) {
        assert!(plot.contains("<rect") || plot.contains("<circle"), "an empty plot: {plot}");
    }
    assert!(page.contains("How a lying card loses"), "no story is told");
}

#[test]
fn the_report_fits_a_phone_in_chromium() {
    let Some(chromium) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success()))
    else {
        eprintln!("skipped: there is no Chromium here to look at the page with");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let page = report(dir.path());
    // The browser itself says whether anything is wider than the window.
    let measure =
        "<script>document.title='overflow='+(document.documentElement.scrollWidth-window.innerWidth)</script>";
    let text = fs::read_to_string(&page).unwrap().replace("</body>", &format!("{measure}</body>"));
    // Headless windows have a least width: a frame of 390 pixels measures what a phone shows.
    let framed = dir.path().join("framed.html");
    let probe = text.replace("document.title=", "parent.document.title=").replace("window.innerWidth", "390");
    let quoted = probe.replace('&', "&amp;").replace('"', "&quot;");
    fs::write(&framed, format!("<iframe width=390 height=4000 srcdoc=\"{quoted}\"></iframe>")).unwrap();
    let out = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .arg(format!("file://{}", framed.display()))
        .output()
        .expect("chromium runs");
    let dom = String::from_utf8_lossy(&out.stdout);
    let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap_or_default();
    let overflow: i32 = title
        .strip_prefix("overflow=")
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("the browser did not measure: {}", String::from_utf8_lossy(&out.stderr)));
    assert!(overflow <= 0, "the page is {overflow} pixels wider than a phone");
}
