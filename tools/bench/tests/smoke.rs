//! The program, run as a whole with tiny counts: what it prints has the shape that programs rely on.

use std::process::Command;

use serde_json::Value;

fn bench(args: &[&str]) -> (Value, std::path::PathBuf) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    let output = Command::new(env!("CARGO_BIN_EXE_lastgasp-bench"))
        .args(["--rounds", "3", "--records", "20", "--size-mib", "1", "--no-counters", "-o", "json", "--dir"])
        .arg(&dir)
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), dir)
}

/// Every engine has its numbers, and the limit is 1.
fn check_engines(workload: &Value, names: &[&str]) {
    let engines = workload["engines"].as_array().unwrap();
    let found: Vec<&str> = engines.iter().map(|engine| engine["engine"].as_str().unwrap()).collect();
    assert_eq!(found, names);
    for engine in engines {
        for field in ["records_per_s", "ratio", "p50_us", "p99_us"] {
            assert!(engine[field].as_f64().unwrap() > 0.0, "{field} of {engine}");
        }
        assert_eq!(engine["ratio_quartiles"].as_array().unwrap().len(), 2);
        assert!(engine["device"].is_null(), "nothing was counted");
    }
    assert_eq!(workload["limit"], names[0]);
    assert_eq!(engines[0]["ratio"], 1.0);
}

#[test]
fn w1_tells_its_conditions_and_leaves_nothing_behind() {
    let (report, dir) = bench(&["w1"]);
    for field in ["kernel", "cpu", "file_system", "data", "scheduler"] {
        assert!(!report["conditions"][field].as_str().unwrap().is_empty(), "{field}");
    }
    assert!(report["conditions"]["data"].as_str().unwrap().contains("seed 42"));
    let workload = &report["workloads"][0];
    assert_eq!((&workload["name"], &workload["rounds"], &workload["records"]), (&"w1".into(), &3.into(), &20.into()));
    assert_eq!(workload["not_counted"], "--no-counters");
    check_engines(workload, &["raw", "lastgasp", "lastgasp-node"]);
    std::fs::remove_dir(dir).expect("it is empty");
}

#[test]
fn w2_threads_runs_the_limit_beside_the_chosen_engine() {
    let (report, dir) = bench(&["--engines", "lastgasp", "--clients", "3", "w2-threads"]);
    let workload = &report["workloads"][0];
    check_engines(workload, &["naive", "lastgasp"]);
    for engine in workload["engines"].as_array().unwrap() {
        let together = engine["records_per_commit"].as_f64().unwrap();
        assert!((1.0..=3.0).contains(&together), "{engine}");
    }
    std::fs::remove_dir(dir).expect("it is empty");
}

#[test]
fn an_unknown_engine_is_an_error_that_names_those_there_are() {
    let output = Command::new(env!("CARGO_BIN_EXE_lastgasp-bench")).args(["--engines", "sled", "w1"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("sled") && message.contains("lastgasp-node"), "{message}");
}
