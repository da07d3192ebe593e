//! lastgasp: reads, checks and makes lastgasp stores.
//!
//! Invariants: a store that is read is never written to; an error says what is wrong, where, and what to do, on
//! standard error; a reader of our output that goes away ends us quietly.
#![forbid(unsafe_code)]

mod check;
mod entries;
mod format;
mod json;
mod lines;
mod severity;
mod size;
mod status;
mod store;
mod tail;
mod times;

use std::io;
use std::process::ExitCode;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};
use clap::{Parser, Subcommand};

/// Exit code: done; for `check`: the store is sound.
const DONE: u8 = 0;
/// Exit code of `check`: damage was found.
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
  lastgasp tail --store /var/lib/lastgasp/store.lg      the last 10 records
  lastgasp tail --store card.img --all -o cat > app.log  every record, byte for byte
  lastgasp check --store /dev/mmcblk0p3 && echo sound
  lastgasp format ./store --size 64M

Exit codes:
  0  done; check: the store is sound
  1  check: damage was found
  2  it could not be done: the arguments, the path or the medium are not right";

#[derive(Debug, Subcommand)]
enum Command {
    Tail(tail::Args),
    Status(status::Args),
    Check(check::Args),
    Format(format::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Tail(args) => tail::run(&args).map(|()| DONE),
        Command::Status(args) => status::run(&args).map(|()| DONE),
        Command::Check(args) => check::run(&args).map(|sound| if sound { DONE } else { DAMAGED }),
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
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(is_pipe)
}
