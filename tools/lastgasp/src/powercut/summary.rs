//! What a run came to, for a person and for a program.
//!
//! Invariant: both say the same; a broken promise stands last, with the command that replays it.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use lastgasp_hal_sim::campaign::Profile;
use lastgasp_hal_sim::powercut::Verdict;
use serde_json::{Value, json};

use super::Run;

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A time in milliseconds as a person reads it.
pub(super) fn time(ms: f64) -> String {
    match ms {
        _ if ms >= 10_000.0 => format!("{:.0} s", ms / 1000.0),
        _ if ms >= 1000.0 => format!("{:.1} s", ms / 1000.0),
        _ if ms >= 10.0 => format!("{ms:.0} ms"),
        _ => format!("{ms:.1} ms"),
    }
}

/// Why records were lost, in words; the most harmless first.
pub(super) const CAUSES: &[(&str, &str)] = &[
    ("retention", "dropped as the oldest, to make room"),
    ("overload", "never reached the node, which was told so"),
    ("ram-tier", "in memory only when the power failed, and not acknowledged"),
    ("collateral", "acknowledged, and destroyed by the card beside a write in flight"),
    ("broken", "acknowledged, and lost"),
];

/// What the worst flush took of its hold-up; empty if there was none.
pub(super) fn flush(verdict: &Verdict) -> String {
    let Some(flush) = verdict.sums.worst_flush() else { return "-".to_owned() };
    let hold_up = time(millis(flush.hold_up_us));
    match flush.took_us {
        Some(us) => format!("{} of {hold_up}", time(millis(us))),
        None => format!("more than {hold_up}"),
    }
}

/// Microseconds as milliseconds.
pub(super) fn millis(us: u64) -> f64 {
    #[expect(clippy::cast_precision_loss)]
    let us = us as f64;
    us / 1000.0
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

/// One line of the table.
pub(super) fn cells(verdict: &Verdict) -> [String; 8] {
    let lost = verdict.acknowledged_lost() + verdict.sums.acknowledged_hit;
    [
        verdict.profile.name().to_owned(),
        grouped(verdict.cuts()),
        grouped(verdict.operations()),
        grouped(verdict.acknowledged()),
        grouped(lost),
        verdict.sums.recovery_ms(100).map_or_else(|| "-".to_owned(), time),
        flush(verdict),
        ratio(verdict.sums.bytes_per_byte()),
    ]
}

/// What stands above the columns of [`cells`].
pub(super) const HEADINGS: [&str; 8] =
    ["medium", "cuts", "operations", "acknowledged", "lost", "worst recovery", "worst last gasp", "bytes per byte"];

/// What there is to say about a medium, in a sentence, and whether it is good.
pub(super) fn verdict_of(run: &Run, verdict: &Verdict) -> (bool, String) {
    let broken = verdict.all_broken();
    let hit = verdict.sums.acknowledged_hit;
    match (run.counts(verdict.profile), broken) {
        (true, 0) if hit == 0 && verdict.profile == Profile::SdCard => {
            (true, "nothing acknowledged was lost, and no damage of the card hit a record".to_owned())
        }
        (true, 0) if hit == 0 => (true, "nothing acknowledged was lost".to_owned()),
        (true, 0) => {
            let text =
                format!("the card destroyed {} records beside a write in flight; each is reported", grouped(hit));
            (true, text)
        }
        (true, _) => (false, format!("{} promises were broken", grouped(broken))),
        (false, 0) => (true, "the card lied about sync, and nobody noticed".to_owned()),
        (false, _) => {
            let text = format!("the card lied about sync, and lost what was acknowledged, as it must ({broken} times)");
            (true, text)
        }
    }
}

/// The whole run for a terminal.
pub(super) fn print(run: &Run, out: &mut impl Write) -> io::Result<()> {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let green = Style::new().bold().fg_color(Some(AnsiColor::Green.into()));
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let days: u64 = run.verdicts.iter().map(|v| v.sums.lived_us).sum::<u64>() / 86_400_000_000;
    let seconds = run.took.as_secs_f64();
    let threads = if run.jobs == 1 { "1 thread".to_owned() } else { format!("{} threads", run.jobs) };
    writeln!(
        out,
        "{bold}Pulled the plug {} times{bold:#} in {seconds:.1} s on {threads}, {} days of node life among it.\n",
        grouped(run.cuts()),
        grouped(days),
    )?;
    let mut table: Vec<[String; 8]> = vec![HEADINGS.map(str::to_owned)];
    table.extend(run.verdicts.iter().map(cells));
    let widths: Vec<usize> =
        (0..8).map(|col| table.iter().map(|row| row[col].chars().count()).max().unwrap_or(0)).collect();
    for (nth, row) in table.iter().enumerate() {
        let mut line = String::new();
        for (col, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line += &if col == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        let style = if nth == 0 { dim } else { Style::new() };
        writeln!(out, "{style}{line}{style:#}")?;
    }
    writeln!(out)?;
    for verdict in &run.verdicts {
        let (good, text) = verdict_of(run, verdict);
        let (mark, style) = match (good, verdict.profile.is_honest()) {
            (true, true) => ("kept", green),
            (true, false) => ("lied", dim),
            (false, _) => ("BROKEN", red),
        };
        writeln!(out, "{style}{mark:<6}{style:#}  {:<11}  {text}", verdict.profile.name())?;
    }
    print_losses(run, out)?;
    print_flushes(run, out)?;
    for verdict in run.verdicts.iter().filter(|v| run.counts(v.profile)) {
        for (id, violation) in &verdict.violations {
            writeln!(out, "\n{red}{violation}{red:#}\n  {}", run.replay_command(id))?;
        }
    }
    let example = run.verdicts.iter().filter(|v| !run.counts(v.profile)).find_map(|v| v.violations.first());
    if let Some((id, _)) = example {
        writeln!(out, "\n{dim}How a lying card loses a record: {}{dim:#}", run.replay_command(id))?;
    }
    Ok(())
}

fn print_losses(run: &Run, out: &mut impl Write) -> io::Result<()> {
    let honest = || run.verdicts.iter().filter(|v| run.counts(v.profile));
    let of = |cause: &str| honest().filter_map(|v| v.sums.lost.get(cause)).sum::<u64>();
    let lost: Vec<_> = CAUSES.iter().map(|(cause, words)| (cause, words, of(cause))).filter(|l| l.2 > 0).collect();
    if lost.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nRecords that the nodes no longer have, by cause:")?;
    lost.iter().try_for_each(|(cause, words, count)| writeln!(out, "{:>10}  {cause:<10}  {words}", grouped(*count)))
}

fn print_flushes(run: &Run, out: &mut impl Write) -> io::Result<()> {
    let missed: u64 = run.verdicts.iter().map(|v| v.sums.flushes_missed).sum();
    let seen: usize = run.verdicts.iter().map(|v| v.sums.flushes.len()).sum();
    if missed > 0 {
        let (missed, seen) = (grouped(missed), grouped(seen as u64));
        writeln!(out, "\nOf {seen} last gasps, {missed} were longer than what was left of the reserve.")?;
    }
    Ok(())
}

fn profile_json(run: &Run, verdict: &Verdict) -> Value {
    let sums = &verdict.sums;
    let flush = sums.worst_flush().map(|flush| {
        json!({
            "hold_up_ms": millis(flush.hold_up_us),
            "flush_ms": flush.took_us.map(millis),
            "records": flush.records,
        })
    });
    json!({
        "profile": verdict.profile.name(),
        "honours_sync": verdict.profile.is_honest(),
        "seed": verdict.seed,
        "cuts": verdict.cuts(),
        "single_cuts": verdict.explored.0,
        "double_cuts": verdict.explored.1,
        "lives": verdict.lives,
        "days": sums.lived_us / 86_400_000_000,
        "mounts": verdict.mounts(),
        "operations": verdict.operations(),
        "acknowledged": verdict.acknowledged(),
        "acknowledged_lost": verdict.acknowledged_lost(),
        "acknowledged_hit": sums.acknowledged_hit,
        "refused_opens": verdict.of_clause("P4"),
        "invented": verdict.of_clause("P3"),
        "broken": verdict.broken,
        "counted": run.counts(verdict.profile),
        "lost_by_cause": sums.lost,
        "cuts_that_hit_neighbours": verdict.explored_damaged + sums.damaged,
        "recovery_ms": {
            "p50": sums.recovery_ms(50),
            "p99": sums.recovery_ms(99),
            "max": sums.recovery_ms(100),
        },
        "worst_flush": flush,
        "flushes_missed": sums.flushes_missed,
        "longest_sync_ms": millis(sums.longest_sync_us),
        "bytes_per_byte": sums.bytes_per_byte(),
        "flash_bytes_per_byte": sums.flash_per_byte(),
        "cuts_per_second": verdict.cuts_per_second(),
        "ids": verdict.violations.iter().map(|(id, violation)| {
            json!({ "id": id, "violation": violation.to_string() })
        }).collect::<Vec<_>>(),
    })
}

/// The whole run for a program.
pub(super) fn json(run: &Run) -> Value {
    json!({
        "profiles": run.verdicts.iter().map(|verdict| profile_json(run, verdict)).collect::<Vec<_>>(),
        "cuts": run.cuts(),
        "broken_promises": run.broken(),
        "seconds": run.took.as_secs_f64(),
        "jobs": run.jobs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_times_are_short() {
        let shown = [0, 7, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "7", "999", "1 000", "1 234 567"]);
        assert_eq!([0.25, 12.3, 999.9, 1500.0, 61_000.0].map(time), ["0.2 ms", "12 ms", "1000 ms", "1.5 s", "61 s"]);
    }
}
