//! `lastgasp journald`: has journald keep its journal in RAM, once a node keeps it for good; and undoes that.
//!
//! Invariants: journald is read, not replaced; nothing is changed before a running node has everything that is in the
//! journal; the one file that is written is ours, and the only one that is removed; doing it twice changes nothing.

mod config;
mod import;
mod setup;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anstream::println;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use lastgasp_client::{FileSource, Writer};
use serde_json::json;

use crate::check::Output;
use crate::place::MediumArgs;
use crate::size;
use crate::status::print_json;
use config::{Config, Storage};
use setup::{DROPIN, DROPIN_DIRECTORY, dropin, has_dropin, must_be_familiar, must_have_journald, systemd_runs};

/// Lets journald keep its journal in RAM, because lastgasp keeps it.
///
/// journald goes on as before: programs log to it, journalctl reads it, lastgasp reads it too. But what it writes no
/// longer wears the card. `takeover` does that by one drop-in file, after a running node has taken in all that is in
/// the journal; `release` removes that file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp journald status
  lastgasp journald takeover --dry-run
  sudo lastgasp journald takeover
  sudo lastgasp journald release

Exit codes: 0 done (also if it was so before), 2 refused or failed.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Has journald keep its journal in RAM, once the running node has all of it.
    Takeover(Change),
    /// Undoes takeover: journald keeps its journal as it did before.
    Release(Change),
    /// Shows where journald keeps its journal, why, and how far the node has it.
    Status(StatusArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 done (also if it was so before), 2 refused or failed; then nothing was changed.")]
struct Change {
    #[command(flatten)]
    system: SystemArgs,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 done, 2 it could not be done.")]
struct StatusArgs {
    #[command(flatten)]
    system: SystemArgs,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct SystemArgs {
    /// The store of the running node.
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    store: Option<PathBuf>,
    /// Where the root of the system is.
    #[arg(long, value_name = "DIR", default_value = "/", value_hint = clap::ValueHint::DirPath)]
    root: PathBuf,
}

impl SystemArgs {
    fn source(&self) -> Result<FileSource> {
        let root = Some(self.root.clone()).filter(|root| self.store.is_none() && root != Path::new("/"));
        let path = MediumArgs { store: self.store.clone(), root }.find()?;
        Ok(FileSource::open(&path)?)
    }

    /// The system that runs here is the one that is meant.
    fn is_this_one(&self) -> bool {
        self.root == Path::new("/") && systemd_runs(&self.root)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Action::Takeover(change) => takeover(change),
        Action::Release(change) => release(change),
        Action::Status(args) => status(args),
    }
}

fn takeover(args: &Change) -> Result<()> {
    let root = &args.system.root;
    let config = Config::read(root)?;
    let is_ours = has_dropin(root)?;
    must_be_familiar(root, &config)?;
    let path = dropin(root);
    if config.storage() == Storage::Volatile {
        let by = config.assignments.last().map(|last| last.path.display().to_string()).unwrap_or_default();
        println!("journald keeps its journal in RAM already, by {by}: nothing to do");
        return Ok(());
    }
    if is_ours {
        bail!("{}: is there, but does not set Storage=volatile; release first, then take over again", path.display());
    }
    let newest = import::newest(root)?;
    import::wait_for(&mut args.system.source()?, newest.as_ref())?;
    explain(root);
    if args.dry_run {
        println!("would write {}:", path.display());
        for line in DROPIN.lines() {
            println!("    {line}");
        }
    } else {
        write(root).with_context(|| format!("{}: cannot be written; are you root?", path.display()))?;
        println!("wrote {}", path.display());
    }
    take_effect(&args.system, args.dry_run, &[&["systemctl", "restart", "systemd-journald.service"]])
}

/// What is kept, and what may be lost.
fn explain(root: &Path) {
    println!("kept: everything the journal holds now is in lastgasp's store, and what comes goes there too");
    println!(
        "in RAM: the newest entries, as many as RuntimeMaxUse= of journald allows; journalctl shows them as before"
    );
    println!("lost at a power cut: what came in the last moments, as for all of lastgasp (see lastgasp status)");
    let old = root.join("var/log/journal");
    match bytes_below(&old) {
        0 => {}
        bytes => println!(
            "left as it is: {}, {}; journald no longer adds to it. Once lastgasp tail shows you all you need, remove \
             it to have the space",
            old.display(),
            size::human(bytes)
        ),
    }
}

fn release(args: &Change) -> Result<()> {
    let root = &args.system.root;
    must_have_journald(root)?;
    let path = dropin(root);
    if !has_dropin(root)? {
        println!("{}: is not there: nothing to undo", path.display());
        return Ok(());
    }
    if args.dry_run {
        println!("would remove {}", path.display());
    } else {
        fs::remove_file(&path).with_context(|| format!("{}: cannot be removed; are you root?", path.display()))?;
        // It is in nobody's way if others use it.
        let _ = fs::remove_dir(root.join(DROPIN_DIRECTORY));
        println!("removed {}", path.display());
        let storage = Config::read(root)?.storage();
        let on_medium = match storage {
            Storage::Persistent => true,
            Storage::Auto => root.join("var/log/journal").is_dir(),
            Storage::Volatile | Storage::None => false,
        };
        let place = if on_medium { "on the medium again, in /var/log/journal" } else { "as its configuration says" };
        println!("journald keeps its journal {place} (Storage={})", storage.name());
    }
    let flush: &[&str] = &["journalctl", "--flush"];
    take_effect(&args.system, args.dry_run, &[&["systemctl", "restart", "systemd-journald.service"], flush])
}

/// Has journald read its configuration again, where it is the one that runs.
fn take_effect(system: &SystemArgs, dry_run: bool, commands: &[&[&str]]) -> Result<()> {
    if !system.is_this_one() {
        println!("systemd does not run here: journald takes it when the system starts");
        return Ok(());
    }
    for command in commands {
        let words = command.join(" ");
        if dry_run {
            println!("would run {words}");
            continue;
        }
        let [program, arguments @ ..] = command else { continue };
        let status = Command::new(program).args(arguments).status();
        if !status.with_context(|| format!("{words} cannot be run"))?.success() {
            bail!("{words} failed; the file is as said, and journald takes it when the system starts");
        }
    }
    Ok(())
}

/// Puts our drop-in there as a whole, or not at all.
fn write(root: &Path) -> Result<()> {
    let directory = root.join(DROPIN_DIRECTORY);
    DirBuilder::new().recursive(true).mode(0o755).create(&directory)?;
    let part = directory.join(".60-lastgasp.part");
    let done = (|| {
        let mut file = File::create(&part)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(DROPIN.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, dropin(root))?;
        File::open(&directory)?.sync_all()
    })();
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    Ok(done?)
}

/// Bytes of the files in a directory and those below.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn status(args: &StatusArgs) -> Result<()> {
    let root = &args.system.root;
    must_have_journald(root)?;
    let config = Config::read(root)?;
    let set_by = config.assignments.last().map(|last| last.path.display().to_string());
    let (taken_over, foreign) = match has_dropin(root) {
        Ok(is_ours) => (is_ours, None),
        Err(error) => (false, Some(error.to_string())),
    };
    let refused = must_be_familiar(root, &config).err().map(|error| error.to_string());
    let newest = import::newest(root).ok().flatten();
    let source = args.system.source().ok();
    let (mut node_runs, mut imported) = (false, None);
    if let Some(mut source) = source {
        node_runs = source.status().writer != Writer::None;
        imported = import::imported(&mut source)?;
    }
    let is_up_to_date = match (&imported, &newest) {
        (_, None) => true,
        (Some(imported), Some(newest)) => imported.has_reached(newest),
        (None, Some(_)) => false,
    };
    if args.output == Output::Json {
        return print_json(&json!({
            "storage": config.storage().name(),
            "set_by": set_by,
            "taken_over": taken_over,
            "takeover_refused": refused.or(foreign),
            "node_runs": node_runs,
            "node_is_up_to_date": is_up_to_date,
            "journal_cursor": newest.map(|cursor| cursor.text),
            "node_cursor": imported.map(|cursor| cursor.text),
            "journal_bytes": bytes_below(&root.join("var/log/journal")),
        }));
    }
    let by = set_by.map_or_else(|| "nothing sets it".to_owned(), |path| format!("set by {path}"));
    println!("storage     {} ({by})", config.storage().name());
    println!("taken over  {}", if taken_over { "yes" } else { "no" });
    println!("on medium   {}", size::human(bytes_below(&root.join("var/log/journal"))));
    let node = match (node_runs, is_up_to_date, imported.is_some()) {
        (false, ..) => "does not run, or keeps its store elsewhere (--store)",
        (true, true, _) => "has all of the journal",
        (true, false, true) => "has a part of the journal, and is behind",
        (true, false, false) => "has nothing of the journal: its journald source is off",
    };
    println!("node        {node}");
    if let Some(refused) = refused.or(foreign) {
        println!("takeover    would be refused: {refused}");
    }
    Ok(())
}
