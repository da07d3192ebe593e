//! `lastgasp export`: everything, for other programs.
//!
//! Invariants: every record that is asked for comes out, none twice; a file appears under its name only when it is
//! whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lastgasp_client::{Entry, Flow};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::json;

use crate::check::bar;
use crate::entries::{event_json, gap_json};
use crate::journal::Journal;
use crate::json::RecordJson;
use crate::place::{PlaceArgs, note};
use crate::select::SelectArgs;

/// From so many records on there is a progress bar.
const BAR_FROM_RECORDS: u64 = 20_000;

/// Writes records for other programs to read.
///
/// jsonl is one JSON object a line, as of tail -o json, with gaps and boots in their place. journal-export is what
/// systemd-journal-remote reads: every field as the journal gave it, binary ones too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp export > all.jsonl
  lastgasp export --root /mnt -u sshd --since yesterday -w sshd.jsonl
  lastgasp export -o journal-export | /lib/systemd/systemd-journal-remote -o card.journal -
  journalctl --file card.journal

Exit codes: 0 done, 2 it could not be done.")]
pub(crate) struct Args {
    /// What is written.
    #[arg(short, long, value_name = "FORMAT", default_value = "jsonl")]
    output: Output,
    /// Write to this file, not to standard output; one that is there is left alone.
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    write: Option<PathBuf>,
    /// Replace the file if it is there.
    #[arg(long, requires = "write")]
    force: bool,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// One JSON object a line.
    Jsonl,
    /// The journal's export format.
    JournalExport,
}

/// A file that gets its name when it is whole, and is removed if it never is.
struct Whole<'p> {
    path: &'p Path,
    part: PathBuf,
    force: bool,
    done: bool,
}

impl<'p> Whole<'p> {
    fn create(path: &'p Path, force: bool) -> Result<(Self, File)> {
        if !force && path.symlink_metadata().is_ok() {
            bail!("{}: is there already; choose another name, or replace it with --force", path.display());
        }
        let mut name = path.file_name().context("-w: this is no name of a file")?.to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let file = File::create(&part).with_context(|| format!("{}: cannot be made", part.display()))?;
        Ok((Self { path, part, force, done: false }, file))
    }

    fn finish(mut self, file: &File) -> Result<()> {
        let keep = || {
            file.sync_all()?;
            if self.force { fs::rename(&self.part, self.path) } else { rename_new(&self.part, self.path) }
        };
        keep().with_context(|| format!("{}: cannot be completed", self.path.display()))?;
        self.done = true;
        Ok(())
    }
}

/// Gives a file a name that nothing else has.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that knows no such thing.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => fs::rename(from, to),
        done => Ok(done?),
    }
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.part);
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Some(path) = &args.write else {
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        export(args, &mut out)?;
        return Ok(out.flush()?);
    };
    let (whole, file) = Whole::create(path, args.force)?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    let records = export(args, &mut out)?;
    out.flush().with_context(|| format!("{}: writing failed", path.display()))?;
    whole.finish(out.get_ref())?;
    note(&format!("{}: {records} records", path.display()));
    Ok(())
}

fn export(args: &Args, out: &mut impl Write) -> Result<u64> {
    let mut client = args.place.open()?;
    let selection = args.select.select(&mut client, false)?;
    let end = client.next_seq()?;
    let mut journal = match args.output {
        Output::JournalExport => Some(Journal::new(client.identity()?, selection.wanted.clone())),
        Output::Jsonl => None,
    };
    let shows_bar = args.write.is_some() || !io::stdout().is_terminal();
    let (mut records, mut bar_of_export) = (0, None);
    let first = selection.query.from;
    client.read(&selection.query, &mut |entry, look| {
        let value = match &entry {
            Entry::Record(record) => {
                let bar = bar_of_export.get_or_insert_with(|| {
                    let length = end.min(selection.query.to).saturating_sub(record.seq);
                    let is_long = shows_bar && length >= BAR_FROM_RECORDS;
                    (record.seq, bar(length, "exporting", if is_long { u64::MAX } else { 0 }))
                });
                bar.1.set_position(record.seq.saturating_sub(bar.0.max(first)));
                if let Some(journal) = &mut journal {
                    records += u64::from(journal.entry(out, record, look)?);
                } else if selection.wanted.stream(record.stream) && selection.wanted.body(record.body) {
                    records += 1;
                    serde_json::to_writer(&mut *out, &RecordJson(record)).map_err(io::Error::from)?;
                    out.write_all(b"\n")?;
                }
                return Ok(Flow::On);
            }
            Entry::Gap(gap) => json!({ "gap": gap_json(gap) }),
            Entry::Event(event) => event_json(event),
        };
        if journal.is_none() {
            writeln!(out, "{value}")?;
        }
        Ok(Flow::On)
    })?;
    if let Some((_, bar)) = bar_of_export {
        bar.finish_and_clear();
    }
    Ok(records)
}
