//! `lastgasp check`: looks for damage, and says what it cost.
//!
//! Invariants: nothing is written; what a power cut leaves is no damage; a store in use is not checked, for what
//! changes under the eye looks damaged.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lastgasp_client::{BootEnd, FileSource};
use lastgasp_core::check::{Finding, Place, check};
use lastgasp_core::format::events::PreviousEnd;
use serde_json::{Value, json};

use crate::place::MediumArgs;
use crate::size;

/// From this size on, a check takes long enough for a progress bar.
const BAR_FROM_BYTES: u64 = 64 << 20;

/// Looks for damage in a store, and says what it cost.
///
/// Every live header, frame, index and trailer is verified, both copies of the manifest, and every record is read.
/// What a power cut leaves is no damage: a torn tail, an unfinished copy of the manifest, gaps by retention or of the
/// RAM tier. Nothing is ever written.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp check --store card.img
  lastgasp check --store ./store -o json | jq .records_lost

Exit codes: 0 sound, 1 damage was found and described, 2 it could not run (also: a node is writing to the store).")]
pub(crate) struct Args {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    medium: MediumArgs,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// One JSON object with stable names.
    Json,
}

/// A progress bar on the terminal, if there is one and what is done is large enough.
pub(crate) fn bar(length: u64, what: &'static str, bytes: u64) -> ProgressBar {
    let hidden = bytes < BAR_FROM_BYTES || !io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(length), target).with_message(what);
    // The template is a constant that parses; the default one is as good.
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {percent:>3} %  {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Everything that was found.
struct Report {
    findings: Vec<Finding>,
    missing_bytes: u64,
    present_bytes: u64,
    segment_bytes: u64,
    segments: usize,
    records: (u64, u64),
    previous_end: PreviousEnd,
}

/// `true` if the store is sound.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let path = args.medium.find()?;
    let mut source = FileSource::open(&path)?;
    let status = source.status();
    if let Some(writer) = status.writer.words() {
        bail!("{}: {writer} is writing to this store; stop it, then check, or check a copy", path.display());
    }
    let (geometry, missing_bytes) = (status.geometry, status.missing_bytes);
    let report = source.with_reader(|reader, buffers| {
        let previous_end = reader.report().previous_end;
        let bar = bar(0, "checking", geometry.total_bytes());
        let mut findings = Vec::new();
        let (storage, catalog) = reader.parts();
        let mut progress = |done: u32, total: u32| {
            bar.set_length(u64::from(total));
            bar.set_position(u64::from(done));
        };
        check(storage, catalog, &mut buffers.parts(), &mut progress, &mut |finding| findings.push(finding));
        bar.finish_and_clear();
        Report {
            findings,
            missing_bytes,
            present_bytes: geometry.total_bytes().saturating_sub(missing_bytes),
            segment_bytes: u64::from(geometry.segment_bytes),
            segments: catalog.pool().order().len(),
            records: (catalog.floor(), catalog.durable_upto()),
            previous_end,
        }
    })?;
    match args.output {
        Output::Json => {
            let mut out = io::stdout().lock();
            serde_json::to_writer(&mut out, &report.to_json()).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Output::Text => report.print(&mut anstream::stdout().lock())?,
    }
    Ok(report.is_sound())
}

impl Report {
    fn is_sound(&self) -> bool {
        self.missing_bytes == 0 && !self.findings.iter().any(Finding::is_damage)
    }

    fn records_lost(&self) -> u64 {
        let lost = self.findings.iter().filter_map(|finding| match finding {
            Finding::Lost { gap, .. } => Some(gap.last_seq.saturating_sub(gap.first_seq).saturating_add(1)),
            _ => None,
        });
        lost.sum()
    }

    fn to_json(&self) -> Value {
        let mut findings: Vec<Value> = self.findings.iter().map(finding_json).collect();
        if self.missing_bytes > 0 {
            findings.push(json!({
                "kind": "truncated",
                "damage": true,
                "segment": self.present_bytes / self.segment_bytes,
                "offset": self.present_bytes % self.segment_bytes,
                "bytes": self.missing_bytes,
            }));
        }
        json!({
            "sound": self.is_sound(),
            "records_lost": self.records_lost(),
            "previous_end": BootEnd::from(self.previous_end).name(),
            "segments_checked": self.segments,
            "findings": findings,
        })
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let bold = |colour: AnsiColor| Style::new().bold().fg_color(Some(colour.into()));
        let (red, green) = (bold(AnsiColor::Red), bold(AnsiColor::Green));
        for finding in &self.findings {
            let style = if finding.is_damage() { red } else { Style::new() };
            writeln!(out, "{style}{}{style:#}", in_words(finding))?;
        }
        if self.missing_bytes > 0 {
            let (segment, offset) = (self.present_bytes / self.segment_bytes, self.present_bytes % self.segment_bytes);
            let missing = size::human(self.missing_bytes);
            writeln!(
                out,
                "{red}segment {segment}, offset {offset}: the store ends here, {missing} are missing{red:#}"
            )?;
        }
        if self.previous_end == PreviousEnd::Cut {
            writeln!(out, "the last boot ended without a clean stop: no damage")?;
        }
        let (first, last) = self.records;
        let range = if last < first { "no records".to_owned() } else { format!("records {first} to {last}") };
        let segments = self.segments;
        if self.is_sound() {
            writeln!(out, "{green}sound{green:#}: {range} in {segments} segments")
        } else {
            let lost = self.records_lost();
            writeln!(out, "{red}damaged{red:#}: {range} in {segments} segments, {lost} of the records are lost")
        }
    }
}

fn at(place: &Place) -> String {
    let Place { segment, offset, bytes, unreadable } = *place;
    let range = if bytes == 0 { String::new() } else { format!(" ({bytes} bytes)") };
    let unreadable = if unreadable { ", which the medium does not give" } else { "" };
    format!("segment {segment}, offset {offset}{range}{unreadable}")
}

fn numbers(first: u64, last: u64) -> String {
    if first == last { format!("record {first}") } else { format!("records {first} to {last}") }
}

fn in_words(finding: &Finding) -> String {
    match finding {
        Finding::Damaged { place, part, first_seq, last_seq } if first_seq <= last_seq => {
            format!("{}: damaged {}, {}", at(place), part.name(), numbers(*first_seq, *last_seq))
        }
        Finding::Damaged { place, part, .. } => {
            format!("{}: damaged {}, no records lost by it", at(place), part.name())
        }
        Finding::Lost { segment, gap } => {
            let most = if gap.exact { "" } else { "at most " };
            format!("{most}{} of segment {segment}: lost", numbers(gap.first_seq, gap.last_seq))
        }
        Finding::Torn { place } => format!("{}: a torn end, nothing of it was durable: no damage", at(place)),
        Finding::EditUnfinished { place } => {
            format!("{}: an unfinished copy of the manifest; the other one is whole: no damage", at(place))
        }
    }
}

fn place_json(kind: &str, damage: bool, place: &Place) -> Value {
    let mut value = json!({
        "kind": kind,
        "damage": damage,
        "segment": place.segment,
        "offset": place.offset,
        "bytes": place.bytes,
    });
    if place.unreadable {
        value["unreadable"] = Value::Bool(true);
    }
    value
}

fn finding_json(finding: &Finding) -> Value {
    match finding {
        Finding::Damaged { place, part, first_seq, last_seq } => {
            let mut value = place_json("damaged", true, place);
            value["expected"] = part.name().into();
            if first_seq <= last_seq {
                value["first_seq"] = (*first_seq).into();
                value["last_seq"] = (*last_seq).into();
            }
            value
        }
        Finding::Lost { segment, gap } => json!({
            "kind": "lost",
            "damage": true,
            "segment": segment,
            "first_seq": gap.first_seq,
            "last_seq": gap.last_seq,
            "exact": gap.exact,
            "cause": gap.cause.name(),
        }),
        Finding::Torn { place } => place_json("torn", false, place),
        Finding::EditUnfinished { place } => place_json("edit-unfinished", false, place),
    }
}
