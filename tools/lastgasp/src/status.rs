//! `lastgasp status`: what a store is, holds and lost.
//!
//! Invariants: only what mounting reads is read; the names in the JSON are stable.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use lastgasp_client::{BootEnd, Client, FileSource, Writer};
use lastgasp_core::catalog::Catalog;
use lastgasp_core::format::edit::SegmentUse;
use lastgasp_core::format::events::PreviousEnd;
use lastgasp_core::format::header::{VERSION_MAJOR, VERSION_MINOR};
use lastgasp_core::gaps::GapCause;
use lastgasp_core::hal::Geometry;
use lastgasp_core::recovery::RecoveryReport;
use lastgasp_hal_linux::MediumKind;
use serde_json::{Value, json};

use crate::check::Output;
use crate::entries::end_words;
use crate::look::{clean, clean_json};
use crate::place::PlaceArgs;
use crate::{size, status_node, times};

/// Shows how the running node is, or what a store is, holds and lost.
///
/// Of a running node: what a power cut would take, how much it writes to the device for what it logs, how full its
/// store is, its streams and sources. Of a store (--store, --root): what mounting it tells.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp status
  lastgasp status --store ./store
  lastgasp status --store card.img -o json | jq .records

Exit codes: 0 done, 2 it could not be done.")]
pub(crate) struct Args {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    place: PlaceArgs,
}

struct Status {
    path: String,
    kind: &'static str,
    writer: Writer,
    missing_bytes: u64,
    store_id: u64,
    geometry: Geometry,
    floor: u64,
    count: u64,
    report: RecoveryReport,
    edit_no: u64,
    segments: Segments,
    gaps: Vec<GapSum>,
    streams: Vec<(u16, String)>,
    clocks: Vec<lastgasp_core::format::header::ClockAnchor>,
}

#[derive(Default)]
struct Segments {
    log: u32,
    announced: u32,
    free: u32,
    manifest: u32,
    retired: u32,
    tables: u32,
}

/// Gaps of one cause.
struct GapSum {
    cause: GapCause,
    gaps: u64,
    records: u64,
    exact: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut client = args.place.open()?;
    match &mut client {
        Client::File(source) => {
            let status = of_file(source)?;
            match args.output {
                Output::Json => print_json(&status.to_json()),
                Output::Text => Ok(status.print(&mut anstream::stdout().lock())?),
            }
        }
        Client::Node(source) => {
            let (status, socket) = (source.status()?, source.path().display().to_string());
            match args.output {
                Output::Json => print_json(&status_node::to_json(&status, &socket)),
                Output::Text => Ok(status_node::print(&status, &socket, &mut anstream::stdout().lock())?),
            }
        }
    }
}

/// One line of JSON on standard output.
pub(crate) fn print_json(value: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    let text = value.to_string();
    let text = if out.is_terminal() { clean_json(&text) } else { text };
    Ok(writeln!(out, "{text}")?)
}

fn of_file(source: &mut FileSource) -> Result<Status> {
    let medium = source.status();
    let path = source.path().display().to_string();
    Ok(source.mounted(|catalog, report| Status {
        path,
        kind: match medium.kind {
            _ if !medium.geometry.is_wide() => "chip-image",
            MediumKind::File => "file",
            MediumKind::BlockDevice => "block-device",
        },
        writer: medium.writer,
        missing_bytes: medium.missing_bytes,
        store_id: catalog.store_id(),
        geometry: medium.geometry,
        floor: catalog.floor(),
        count: count(catalog),
        report: *report,
        edit_no: catalog.edit_no(),
        segments: segments(catalog),
        gaps: gaps(catalog),
        streams: catalog.streams().iter().map(|(id, name)| (id, name.to_owned())).collect(),
        clocks: catalog.clocks().as_slice().to_vec(),
    })?)
}

/// Records there are: all numbers from the floor on that no gap takes.
fn count(catalog: &Catalog<'_>) -> u64 {
    let (floor, last) = (catalog.floor(), catalog.durable_upto());
    let numbers = (last + 1).saturating_sub(floor);
    let missing = catalog.gaps().iter().map(|gap| {
        let (first, end) = (gap.first_seq.max(floor), gap.last_seq.min(last).saturating_add(1));
        end.saturating_sub(first)
    });
    numbers.saturating_sub(missing.sum())
}

fn segments(catalog: &Catalog<'_>) -> Segments {
    let mut sum =
        Segments { log: u32::try_from(catalog.pool().order().len()).unwrap_or(u32::MAX), ..Default::default() };
    for (segment, entry) in catalog.pool().iter() {
        let begun = catalog.pool().order().contains(&segment);
        match entry.state.used_for {
            SegmentUse::Free => sum.free += 1,
            SegmentUse::Announced if !begun => sum.announced += 1,
            SegmentUse::Announced | SegmentUse::Sealed => {}
            SegmentUse::Manifest => sum.manifest += 1,
            SegmentUse::Retired => sum.retired += 1,
            SegmentUse::Table { .. } => sum.tables += 1,
        }
    }
    sum
}

fn gaps(catalog: &Catalog<'_>) -> Vec<GapSum> {
    let mut sums: BTreeMap<&'static str, GapSum> = BTreeMap::new();
    let mut add = |cause: GapCause, records: u64, exact: bool| {
        let sum = sums.entry(cause.name()).or_insert(GapSum { cause, gaps: 0, records: 0, exact: true });
        sum.gaps += 1;
        sum.records = sum.records.saturating_add(records);
        sum.exact &= exact;
    };
    for gap in catalog.gaps() {
        add(gap.cause, gap.last_seq.saturating_add(1).saturating_sub(gap.first_seq), gap.exact);
    }
    if catalog.floor() > 1 {
        add(GapCause::Retention, catalog.floor() - 1, false);
    }
    sums.into_values().collect()
}

impl Status {
    /// First and last record; none if there are none.
    fn range(&self) -> Option<(u64, u64)> {
        (self.report.durable_upto >= self.floor).then_some((self.floor, self.report.durable_upto))
    }

    /// How the last boot ended. While a node writes, what a mount would find is its own running boot.
    fn last_end(&self) -> BootEnd {
        match (self.writer, self.report.previous_end) {
            (Writer::Some(_), PreviousEnd::Cut) => BootEnd::Running,
            (_, end) => end.into(),
        }
    }

    /// The share of segments in use, in 0..=1.
    fn fill(&self) -> f64 {
        let s = &self.segments;
        let all = s.log + s.announced + s.free;
        if all == 0 { 1.0 } else { f64::from(s.log) / f64::from(all) }
    }

    fn to_json(&self) -> Value {
        let s = &self.segments;
        let r = &self.report;
        let (in_use, writer_pid) = match self.writer {
            Writer::None => (false, None),
            Writer::Some(pid) => (true, pid),
        };
        json!({
            "path": self.path,
            "kind": self.kind,
            "store_id": format!("{:016x}", self.store_id),
            "format": format!("{VERSION_MAJOR}.{VERSION_MINOR}"),
            "geometry": {
                "segments": self.geometry.segments,
                "segment_bytes": self.geometry.segment_bytes,
                "total_bytes": self.geometry.total_bytes(),
                "torn_unit": self.geometry.torn_unit,
                "write_unit": self.geometry.write_unit,
            },
            "missing_bytes": self.missing_bytes,
            "in_use": in_use,
            "writer_pid": writer_pid,
            "records": {
                "first": self.range().map(|range| range.0),
                "last": self.range().map(|range| range.1),
                "count": self.count,
            },
            "durable_upto": r.durable_upto,
            "next_seq": r.next_seq,
            "last_boot": { "epoch": r.epoch.saturating_sub(1), "ended": self.last_end().name() },
            "edit_no": self.edit_no,
            "segments": {
                "log": s.log,
                "announced": s.announced,
                "free": s.free,
                "manifest": s.manifest,
                "retired": s.retired,
                "tables": s.tables,
            },
            "fill": self.fill(),
            "gaps": self.gaps.iter().map(|sum| json!({
                "cause": sum.cause.name(),
                "gaps": sum.gaps,
                "records": sum.records,
                "exact": sum.exact,
            })).collect::<Vec<_>>(),
            "streams": self.streams.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect::<Vec<_>>(),
            "clock_epochs": self.clocks.iter().map(|anchor| json!({
                "clock_epoch": anchor.clock_epoch,
                "start": times::rfc3339(anchor.wall_us),
                "synchronised": anchor.synchronised,
            })).collect::<Vec<_>>(),
            "recovery": {
                "previous_end": BootEnd::from(r.previous_end).name(),
                "adopted_upto": r.adopted_upto,
                "segments_read": r.segments_read,
                "frames": r.frames,
                "torn_bytes": r.torn_bytes,
                "resumes": r.resumes,
                "cases": r.cases.letters().collect::<String>(),
            },
        })
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let (s, r, g) = (&self.segments, &self.report, &self.geometry);
        writeln!(out, "store      {} ({})", self.path, self.kind)?;
        writeln!(out, "id         {:016x}, format {VERSION_MAJOR}.{VERSION_MINOR}", self.store_id)?;
        writeln!(
            out,
            "size       {}: {} segments of {}, torn unit {} bytes",
            size::human(g.total_bytes()),
            g.segments,
            size::human(u64::from(g.segment_bytes)),
            g.torn_unit
        )?;
        if self.missing_bytes > 0 {
            writeln!(out, "truncated  the last {} of the store are missing", size::human(self.missing_bytes))?;
        }
        if let Some(writer) = self.writer.words() {
            writeln!(out, "in use     {writer} is writing to it")?;
        }
        match self.range() {
            Some((first, last)) => writeln!(out, "records    {}, numbered {first} to {last}", self.count)?,
            None => writeln!(out, "records    none")?,
        }
        writeln!(out, "next       {}", r.next_seq)?;
        writeln!(
            out,
            "fill       {:.1} %: {} log, {} tables, {} announced, {} free, {} manifest, {} retired",
            self.fill() * 100.0,
            s.log,
            s.tables,
            s.announced,
            s.free,
            s.manifest,
            s.retired
        )?;
        match self.last_end() {
            BootEnd::New => writeln!(out, "last boot  none: the store is new")?,
            BootEnd::Running => writeln!(out, "last boot  {}, it is running", r.epoch.saturating_sub(1))?,
            end => writeln!(out, "last boot  {}, ended {}", r.epoch.saturating_sub(1), end_words(end))?,
        }
        writeln!(
            out,
            "recovery   reads {} segments and {} frames, {} bytes are torn; the log {}",
            r.segments_read,
            r.frames,
            r.torn_bytes,
            if r.resumes { "goes on where it ended" } else { "goes on in the next segment" }
        )?;
        for sum in &self.gaps {
            let most = if sum.exact { "" } else { "at most " };
            let (gaps, records) = (sum.gaps, sum.records);
            writeln!(out, "gaps       {gaps} by {}: {most}{records} records", sum.cause.name())?;
        }
        let names: Vec<String> = self.streams.iter().map(|(_, name)| clean(name)).collect();
        writeln!(out, "streams    {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") })?;
        if let Some(newest) = self.clocks.last() {
            let start = times::rfc3339(newest.wall_us).unwrap_or_else(|| "unknown".to_owned());
            let sync = if newest.synchronised { "synchronised" } else { "not synchronised" };
            writeln!(out, "clock      {} epochs, the newest from {start}, {sync}", self.clocks.len())?;
        }
        Ok(())
    }
}
