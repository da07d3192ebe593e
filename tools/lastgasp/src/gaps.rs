//! `lastgasp gaps`: what was lost, when, and why.
//!
//! Invariant: an exit code of 0 means that nothing is known to be lost but what retention dropped in its turn.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use jiff::tz::TimeZone;
use lastgasp_client::{GapCause, KnownGap};
use serde_json::Value;

use crate::check::{Output, bar};
use crate::entries::{gap_json, gap_words};
use crate::look::clean;
use crate::place::PlaceArgs;
use crate::status::print_json;
use crate::times;

/// Lists what was lost: how many records, which numbers, when, and why.
///
/// What is listed is known already: what power cuts took, what was not taken in, what retention dropped. Damage that
/// nobody has met yet is found with --scan, which reads every record.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp gaps || echo something was lost
  lastgasp gaps --scan --store card.img -o json | jq '.[].cause'

Exit codes: 0 nothing was lost, but for what was dropped as the oldest; 1 something was; 2 it could not be done.")]
pub(crate) struct Args {
    /// Read every record, to find damage that nobody has met yet.
    #[arg(long)]
    scan: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// Show times in UTC, not in local time.
    #[arg(long)]
    utc: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `true` if nothing was lost.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let mut client = args.place.open()?;
    let mut bar_of_scan = None;
    let gaps = client.gaps(args.scan, &mut |seq, end| {
        bar_of_scan.get_or_insert_with(|| bar(end, "reading", end.saturating_mul(64))).set_position(seq);
    })?;
    if let Some(bar) = bar_of_scan {
        bar.finish_and_clear();
    }
    match args.output {
        Output::Json => print_json(&Value::Array(gaps.iter().map(to_json).collect()))?,
        Output::Text => {
            let zone = if args.utc { TimeZone::UTC } else { TimeZone::system() };
            print(&gaps, &zone, &mut anstream::stdout().lock())?;
        }
    }
    Ok(gaps.iter().all(|gap| gap.cause == GapCause::Retention))
}

fn to_json(gap: &KnownGap) -> Value {
    let mut value = gap_json(&gap.as_gap());
    value["count"] = gap.as_gap().count().into();
    value["after"] = gap.after_us.and_then(times::rfc3339).into();
    value["before"] = gap.before_us.and_then(times::rfc3339).into();
    value
}

fn print(gaps: &[KnownGap], zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    if gaps.is_empty() {
        return writeln!(out, "nothing is known to be lost");
    }
    let time = |us: Option<i64>| us.and_then(|us| times::listed(us, zone));
    for gap in gaps {
        let style = match gap.cause {
            GapCause::Retention => Style::new(),
            GapCause::Rot | GapCause::MediumFailed | GapCause::LedgerLost => {
                Style::new().bold().fg_color(Some(AnsiColor::Red.into()))
            }
            _ => Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())),
        };
        let words = clean(&gap_words(&gap.as_gap()));
        let words = words.strip_prefix("gap: ").unwrap_or(&words);
        let when = match (time(gap.after_us), time(gap.before_us)) {
            (Some(after), Some(before)) => format!("; between {after} and {before}"),
            (Some(after), None) => format!("; after {after}"),
            (None, Some(before)) => format!("; before {before}"),
            (None, None) => String::new(),
        };
        writeln!(out, "{style}{words}{style:#}{when}")?;
    }
    Ok(())
}
