//! The table for people.

use std::fmt::Write;

use crate::report::{EngineReport, Report, WorkloadReport};

/// The whole report as text.
pub(crate) fn render(report: &Report) -> String {
    let mut out = String::new();
    let c = &report.conditions;
    let _ = writeln!(out, "lastgasp-bench {}, {}, {} x {}, load {}", c.version, c.kernel, c.cores, c.cpu, c.load);
    let _ = writeln!(out, "on {}; scheduler: {}", c.file_system, c.scheduler);
    let mean = c.mean_record_bytes;
    let _ = writeln!(out, "records: {}, {mean:.0} bytes in the mean; stores of {} MiB", c.data, c.store_mib);
    if c.load >= c.cores as f64 && c.scheduler != "SCHED_FIFO" {
        let _ = writeln!(
            out,
            "the machine is busy: a commit may wait for time slices more than for the medium; --realtime"
        );
    }
    if c.debug_build {
        let _ = writeln!(out, "NOT OPTIMISED: these numbers mean nothing; run with --release");
    }
    for workload in &report.workloads {
        let _ = writeln!(out);
        workload_table(&mut out, workload);
    }
    out
}

fn workload_table(out: &mut String, w: &WorkloadReport) {
    let _ = writeln!(out, "{}: {}; {} rounds of {} records", w.name, w.what, w.rounds, w.records);
    let mut rows = vec![[
        "engine".to_owned(),
        "records/s".into(),
        format!("of {}", w.limit),
        "(quartiles)".into(),
        "p50 us".into(),
        "p99 us".into(),
        "records/commit".into(),
        "device KiB/commit".into(),
        "flushes/commit".into(),
    ]];
    rows.extend(w.engines.iter().map(cells));
    let name_width = rows.iter().map(|row| row[0].len()).max().unwrap_or(0);
    for row in &rows {
        let _ = write!(out, "  {:<name_width$}", row[0]);
        for (i, cell) in row.iter().enumerate().skip(1) {
            // A column in which nothing was measured is left out.
            if rows[1..].iter().any(|row| !row[i].is_empty()) {
                let width = rows.iter().map(|row| row[i].len()).max().unwrap_or(0);
                let _ = write!(out, "  {cell:>width$}");
            }
        }
        let _ = writeln!(out);
    }
    for engine in &w.engines {
        let _ = writeln!(out, "  {:<name_width$}  {}", engine.engine, engine.what);
    }
    if let Some(disk) = &w.counted_on {
        let commits = w.engines.iter().find_map(|engine| engine.device).map_or(0, |device| device.commits);
        let _ =
            writeln!(out, "  device bytes and flushes: counters of the block device over {commits} commits; {disk}");
    }
    if let Some(why) = &w.not_counted {
        let _ = writeln!(out, "  device bytes and flushes: not counted: {why}");
    }
}

fn cells(e: &EngineReport) -> [String; 9] {
    let [low, high] = e.ratio_quartiles;
    [
        e.engine.to_owned(),
        format!("{:.0}", e.records_per_s),
        format!("{:.3}", e.ratio),
        format!("({low:.2} to {high:.2})"),
        format!("{:.1}", e.p50_us),
        format!("{:.1}", e.p99_us),
        e.records_per_commit.map_or_else(String::new, |records| format!("{records:.2}")),
        e.device.map_or_else(String::new, |device| format!("{:.2}", device.bytes / 1024.0)),
        e.device.map_or_else(String::new, |device| format!("{:.3}", device.flushes)),
    ]
}
