//! lastgasp-bench: measures lastgasp beside the physical limit of the medium, on the same records, in the same run.
//!
//! Invariants: engines take turns, round by round, in an order that rotates, and are compared by the median of the
//! ratios of single rounds, so that what else the machine does falls on all of them; the limit that ratios are taken to
//! always runs along; what was not measured is said, with the reason; nothing is left behind.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod cli;
mod conditions;
mod corpus;
mod counters;
mod interrupt;
mod journaled;
mod realtime;
mod report;
mod shared;
mod single;
mod stats;
mod store;
mod table;
mod w1;
mod w2_threads;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use cli::{Cli, Output, Workload};
use conditions::Conditions;
use corpus::Corpus;
use interrupt::Interrupt;
use report::Report;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lastgasp-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    cli.check()?;
    if cli.realtime {
        realtime::ensure()?;
    }
    let interrupt = Interrupt::on_signals().context("taking over SIGINT and SIGTERM")?;
    let corpus = match &cli.data {
        Some(dir) => Corpus::from_dir(dir)?,
        None => Corpus::generated(cli.seed),
    };
    let scratch = tempfile::Builder::new()
        .prefix("lastgasp-bench-")
        .tempdir_in(&cli.dir)
        .with_context(|| format!("{}: no directory can be made there; name another with --dir", cli.dir.display()))?;
    let conditions = Conditions::gather(cli, &corpus)?;
    let mut workloads = Vec::new();
    for workload in cli.workloads() {
        workloads.push(match workload {
            Workload::W1 => w1::run(cli, &corpus, scratch.path(), &interrupt)?,
            Workload::W2Threads => w2_threads::run(cli, &corpus, scratch.path(), &interrupt)?,
        });
    }
    let report = Report { conditions, workloads };
    match cli.output {
        Output::Table => print!("{}", table::render(&report)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}
