//! `lastgasp boots`: the boots that the log tells of, and how each ended.
//!
//! Invariant: only what the log says: a boot that stored nothing is not listed.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use jiff::tz::TimeZone;
use lastgasp_client::{Boot, BootEnd, Boots};
use serde_json::{Value, json};

use crate::check::Output;
use crate::place::PlaceArgs;
use crate::status::print_json;
use crate::times;

/// Lists boots: when each began, and how it ended.
///
/// The first column is what tail -b takes, the second the boot's own number, which it takes too. A boot ends clean, as
/// a last gasp (everything was saved as the power failed), cut (a power cut, a crash or a kill), by the watchdog, or it
/// is running.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp boots
  lastgasp boots --root /mnt -o json | jq '.[] | select(.ended == \"cut\")'

Exit codes: 0 done, 2 it could not be done.")]
pub(crate) struct Args {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// Show times in UTC, not in local time.
    #[arg(long)]
    utc: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let boots = args.place.open()?.boots()?;
    match args.output {
        Output::Json => print_json(&to_json(&boots)),
        Output::Text => {
            let zone = if args.utc { TimeZone::UTC } else { TimeZone::system() };
            Ok(print(&boots, &zone, &mut anstream::stdout().lock())?)
        }
    }
}

fn to_json(boots: &Boots) -> Value {
    let back = |index: usize| index.saturating_add(1).cast_signed() - boots.as_slice().len().cast_signed();
    let boots = boots.as_slice().iter().enumerate().map(|(index, boot)| {
        json!({
            "index": back(index),
            "epoch": boot.epoch,
            "first_seq": boot.first_seq,
            "last_seq": Some(boot.last_seq).filter(|last| *last >= boot.first_seq),
            "begin": times::rfc3339(boot.begin_us),
            "end": boot.end_us.and_then(times::rfc3339),
            "synchronised": boot.synchronised,
            "ended": boot.ended.name(),
            "torn_bytes": boot.torn_bytes,
        })
    });
    Value::Array(boots.collect())
}

fn print(boots: &Boots, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    let boots = boots.as_slice();
    if boots.is_empty() {
        return writeln!(out, "no boot has stored anything yet");
    }
    writeln!(out, "{:>4} {:>5}  {:<27} {:<27} {:<9} records", "IDX", "BOOT", "BEGIN", "LAST RECORD", "ENDED")?;
    let time = |us: Option<i64>| us.and_then(|us| times::listed(us, zone)).unwrap_or_else(|| "-".to_owned());
    for (back, boot) in (0..boots.len()).rev().zip(boots) {
        let colour = match boot.ended {
            BootEnd::Clean => Style::new(),
            BootEnd::Running | BootEnd::LastGasp => Style::new().fg_color(Some(AnsiColor::Green.into())),
            _ => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        };
        let back = if back == 0 { "0".to_owned() } else { format!("-{back}") };
        writeln!(
            out,
            "{back:>4} {:>5}  {:<27} {:<27} {colour}{:<9}{colour:#} {}",
            boot.epoch,
            time(Some(boot.begin_us)),
            time(boot.end_us),
            boot.ended.name(),
            remarks(boot)
        )?;
    }
    Ok(())
}

fn remarks(boot: &Boot) -> String {
    let mut remarks = if boot.last_seq < boot.first_seq {
        "none".to_owned()
    } else {
        format!("{} to {}", boot.first_seq, boot.last_seq)
    };
    if !boot.synchronised {
        remarks += "; the clock was not synchronised";
    }
    if boot.torn_bytes > 0 {
        remarks += &format!("; {} bytes were torn", boot.torn_bytes);
    }
    remarks
}
