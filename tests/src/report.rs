//! The result of a campaign as a table or as JSON.
//!
//! Invariant: both say the same; violations come last in the table, each with the command that replays it.

use crate::campaign::{Kind, Profile, Row};
use lastgasp_core::recovery::Cases;
use std::fmt::Write;
use std::time::Duration;

/// All rows of a campaign together.
#[derive(Debug, Clone, Default)]
pub struct Total {
    /// First cuts.
    pub cuts: u64,
    /// Second cuts.
    pub second_cuts: u64,
    /// Mounts.
    pub mounts: u64,
    /// Operations of the media.
    pub operations: u64,
    /// Records acknowledged as durable.
    pub acknowledged: u64,
    /// Of those, lost.
    pub lost: u64,
    /// Mounts that were refused, or panicked.
    pub refused: u64,
    /// Records shown that were never appended, altered, doubled or dead.
    pub invented: u64,
    /// Rot reported on stores that were not damaged, or on records that were not hit.
    pub false_rot: u64,
    /// Everything that broke.
    pub broken: u64,
    /// Bits flipped.
    pub flips: u64,
    /// Cases of recovery's decision table that were never met.
    pub missing_cases: String,
}

impl Total {
    /// Adds up the rows.
    #[must_use]
    pub fn of(rows: &[Row]) -> Self {
        let mut total = Self::default();
        let mut cases = 0;
        for row in rows {
            total.cuts += row.cuts;
            total.second_cuts += row.second_cuts;
            total.mounts += row.tally.mounts;
            total.operations += row.tally.operations;
            total.acknowledged += row.tally.acknowledged;
            total.flips += row.flips.0;
            cases |= row.tally.cases;
            for (clause, count) in &row.broken {
                total.broken += count;
                match clause.get(..2) {
                    Some("P1") => total.lost += count,
                    Some("P3") => total.invented += count,
                    Some("P4") => total.refused += count,
                    _ if *clause == "P5 false rot" => total.false_rot += count,
                    _ => {}
                }
            }
        }
        let visited: String = Cases(cases).letters().collect();
        let all = Cases::ALL.iter().map(|letter| char::from(*letter));
        total.missing_cases = all.filter(|letter| !visited.contains(*letter)).collect();
        total
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Cuts => "cuts",
        Kind::Failures => "failures",
        Kind::Rot => "rot",
    }
}

/// The result for a terminal.
#[must_use]
pub fn table(rows: &[Row], time: Duration) -> String {
    let mut out = String::new();
    let line = "medium kind     workload     cuts   second   mounts  flips  costly   time  broken  what it crosses\n";
    out += line;
    let mut seeded: Vec<&Row> = Vec::new();
    for row in rows {
        if row.workload.starts_with('s') && row.broken.is_empty() {
            seeded.push(row);
            continue;
        }
        flush_seeded(&mut out, &mut seeded, Some(row.profile));
        row_line(&mut out, row.profile, row.kind, &row.workload, &[row], row.about);
    }
    flush_seeded(&mut out, &mut seeded, None);
    let total = Total::of(rows);
    writeln!(
        out,
        "\n{} cuts, {} second cuts, {} bits flipped, {} mounts, {} operations, {} records acknowledged in {:.1} s",
        total.cuts,
        total.second_cuts,
        total.flips,
        total.mounts,
        total.operations,
        total.acknowledged,
        time.as_secs_f64(),
    )
    .ok();
    writeln!(
        out,
        "acknowledged lost {}, refused opens {}, invented {}, false rot {}, all violations {}",
        total.lost, total.refused, total.invented, total.false_rot, total.broken,
    )
    .ok();
    let missing = total.missing_cases;
    if missing.is_empty() {
        out += "every case of recovery's decision table was visited\n";
    } else {
        writeln!(out, "cases of recovery's decision table never visited: {missing}").ok();
    }
    for (id, violation) in rows.iter().flat_map(|row| &row.violations) {
        writeln!(out, "  {violation}\n    cargo run --release -p lastgasp-tests --bin campaign -- --replay {id}").ok();
    }
    out
}

/// Workloads by seed without violations share a line.
fn flush_seeded(out: &mut String, seeded: &mut Vec<&Row>, next: Option<Profile>) {
    let Some(first) = seeded.first() else { return };
    if next.is_some_and(|profile| profile == first.profile) {
        return;
    }
    let name = format!("{} seeds", seeded.len());
    row_line(out, first.profile, first.kind, &name, seeded, "by chance");
    seeded.clear();
}

fn row_line(out: &mut String, profile: Profile, kind: Kind, name: &str, rows: &[&Row], about: &str) {
    let sum = |of: fn(&Row) -> u64| rows.iter().map(|row| of(row)).sum::<u64>();
    writeln!(
        out,
        "{:6} {:8} {:9} {:>7} {:>8} {:>8} {:>6} {:>7} {:>5.1}s {:>7}  {about}",
        profile.name(),
        kind_name(kind),
        name,
        sum(|r| r.cuts),
        sum(|r| r.second_cuts),
        sum(|r| r.tally.mounts),
        sum(|r| r.flips.0),
        sum(|r| r.flips.1),
        rows.iter().map(|r| r.time.as_secs_f64()).sum::<f64>(),
        sum(|r| r.broken.values().sum()),
    )
    .ok();
}

/// The result for programs.
#[must_use]
pub fn json(rows: &[Row], time: Duration) -> String {
    let total = Total::of(rows);
    let mut out = String::from("{\n  \"rows\": [\n");
    for (i, row) in rows.iter().enumerate() {
        let broken: Vec<String> = row.broken.iter().map(|(clause, n)| format!("{}: {n}", quoted(clause))).collect();
        let ids: Vec<String> = row.violations.iter().map(|(id, _)| quoted(id)).collect();
        writeln!(
            out,
            "    {{\"medium\": {}, \"kind\": {}, \"workload\": {}, \"cuts\": {}, \"second_cuts\": {}, \"mounts\": {}, \
             \"flips\": {}, \"cases\": {}, \"seconds\": {:.3}, \"broken\": {{{}}}, \"ids\": [{}]}}{}",
            quoted(row.profile.name()),
            quoted(kind_name(row.kind)),
            quoted(&row.workload),
            row.cuts,
            row.second_cuts,
            row.tally.mounts,
            row.flips.0,
            quoted(&Cases(row.tally.cases).letters().collect::<String>()),
            row.time.as_secs_f64(),
            broken.join(", "),
            ids.join(", "),
            if i + 1 < rows.len() { "," } else { "" },
        )
        .ok();
    }
    writeln!(
        out,
        "  ],\n  \"cuts\": {}, \"second_cuts\": {}, \"mounts\": {}, \"operations\": {}, \"flips\": {},\n  \
         \"acknowledged\": {}, \"acknowledged_lost\": {}, \"refused_opens\": {}, \"invented\": {}, \
         \"false_rot\": {},\n  \
         \"violations\": {}, \"cases_missing\": {}, \"seconds\": {:.3}\n}}",
        total.cuts,
        total.second_cuts,
        total.mounts,
        total.operations,
        total.flips,
        total.acknowledged,
        total.lost,
        total.refused,
        total.invented,
        total.false_rot,
        total.broken,
        quoted(&total.missing_cases),
        time.as_secs_f64(),
    )
    .ok();
    out
}

/// A JSON string; the texts here hold no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
