//! lastgasp: reads, checks and makes lastgasp stores.
//!
//! Invariants: a store that is read is never written to; an error says what is wrong, where, and what to do, on
//! standard error; a reader of our output that goes away ends us quietly.
#![forbid(unsafe_code)]

mod boots;
mod check;
mod checkpoint;
mod entries;
mod export;
mod format;
mod gaps;
mod generate;
mod journal;
mod journald;
mod json;
mod lines;
mod look;
mod pager;
mod place;
mod powercut;
mod select;
mod severity;
mod size;
mod status;
mod status_node;
mod tail;
mod times;

use std::io;
use std::process::ExitCode;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};
use clap::{CommandFactory, Parser, Subcommand};

/// Exit code: done; for `check`: the store is sound; for `gaps`: nothing was lost; for `powercut`: all was kept.
const DONE: u8 = 0;
/// Exit code of `check`: damage was found; of `gaps`: something was lost; of `powercut`: a promise was broken.
const DAMAGED: u8 = 1;
/// Exit code: it could not be done.
const FAILED: u8 = 2;

/// Reads, checks and makes lastgasp stores: logs that survive a power cut.
#[derive(Debug, Parser)]
#[command(version, about, after_help = HELP, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
Examples:
  lastgasp tail -f                                       what the running node takes in
  lastgasp tail -b -1 -p warning                         warnings and worse of the boot before
  lastgasp tail --store card.img --all -o cat > app.log  every record of a card, byte for byte
  lastgasp status
  lastgasp check --store /dev/mmcblk0p3 && echo sound

Without --store, --socket or --root, the running node is asked by its socket; if none runs, the
store at its usual place is read. A node that is silent for 2 seconds is passed by in the same way.

Exit codes:
  0  done; check: the store is sound; gaps: nothing was lost; powercut: every promise was kept
  1  check: damage was found; gaps: something was lost, and not only dropped as the oldest; powercut: one was broken
  2  it could not be done: the arguments, the path or the medium are not right";

#[derive(Debug, Subcommand)]
enum Command {
    Tail(tail::Args),
    Boots(boots::Args),
    Gaps(gaps::Args),
    Status(status::Args),
    Export(export::Args),
    Checkpoint(checkpoint::Args),
    Check(check::Args),
    Format(format::Args),
    Journald(journald::Args),
    Powercut(powercut::Args),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Tail(args) => tail::run(&args).map(|()| DONE),
        Command::Boots(args) => boots::run(&args).map(|()| DONE),
        Command::Gaps(args) => gaps::run(&args).map(|whole| if whole { DONE } else { DAMAGED }),
        Command::Status(args) => status::run(&args).map(|()| DONE),
        Command::Export(args) => export::run(&args).map(|()| DONE),
        Command::Checkpoint(args) => checkpoint::run(&args).map(|()| DONE),
        Command::Check(args) => check::run(&args).map(|sound| if sound { DONE } else { DAMAGED }),
        Command::Journald(args) => journald::run(&args).map(|()| DONE),
        Command::Powercut(args) => powercut::run(&args).map(|kept| if kept { DONE } else { DAMAGED }),
        Command::Completions(args) => generate::completions(&args, Cli::command()).map(|()| DONE),
        Command::Man(args) => generate::man(&args, Cli::command()).map(|()| DONE),
        Command::Format(args) => format::run(&args).map(|()| DONE),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::from(DONE),
        Err(error) => {
            let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
            eprintln!("{red}error:{red:#} {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |cause: &(dyn std::error::Error + 'static)| {
        let own = match cause.downcast_ref() {
            Some(lastgasp_client::Error::Caller(error)) => Some(error),
            _ => cause.downcast_ref::<io::Error>(),
        };
        own.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(is_pipe)
}
