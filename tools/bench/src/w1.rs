//! W1: one thread, one record per durable commit.
//!
//! Invariants: all engines write the same records in a round; all stores are open from the first round to the last, so
//! that changes of segment and dropping of old ones fall into the rounds as they do in a node's life.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::cli::Cli;
use crate::corpus::Corpus;
use crate::counters::{Counters, PerCommit};
use crate::interrupt::Interrupt;
use crate::journaled::Journaled;
use crate::report::{EngineReport, Round, WorkloadReport};
use crate::single::{Engine, Kind};

/// Commits before the first round: first segments are opened, caches are warm.
const WARM_UP: u32 = 50;
/// Commits that device bytes and flushes are counted over.
const COUNTED: u32 = 4000;

/// Runs it in `dir`, which is empty.
pub(crate) fn run(cli: &Cli, corpus: &Corpus, dir: &Path, interrupt: &Interrupt) -> Result<WorkloadReport> {
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|k| *k == Kind::LIMIT || cli.wants(k.name())).collect();
    let rounds = measure(cli, corpus, dir, &kinds, interrupt)?;
    let (limit, _) = rounds.split_first().context("the limit always runs")?;
    let mut engines = Vec::new();
    for (kind, rounds) in kinds.iter().zip(&rounds) {
        engines.push(EngineReport::new(kind.name(), kind.what(), rounds, limit));
    }
    let mut report = WorkloadReport {
        name: "w1",
        what: "one thread, one record per durable commit".into(),
        limit: Kind::LIMIT.name(),
        rounds: cli.rounds,
        records: cli.records,
        engines,
        counted_on: None,
        not_counted: None,
    };
    let disk = match cli.no_counters {
        true => Err(anyhow::anyhow!("--no-counters")),
        false => Journaled::make(cli.size_bytes()),
    };
    match disk {
        Ok(disk) => {
            for (kind, engine) in kinds.iter().zip(&mut report.engines) {
                engine.device = Some(count(cli, corpus, *kind, &disk, interrupt)?);
            }
            report.counted_on = Some(disk.described.clone());
        }
        Err(why) => {
            // A Ctrl-C reaches the programs that make the disk, too.
            interrupt.check()?;
            report.not_counted = Some(format!("{why:#}"));
        }
    }
    Ok(report)
}

/// The rounds of each engine.
fn measure(cli: &Cli, corpus: &Corpus, dir: &Path, kinds: &[Kind], interrupt: &Interrupt) -> Result<Vec<Vec<Round>>> {
    let place = dir.join("w1");
    fs::create_dir(&place)?;
    let mut prepared = Vec::new();
    for kind in kinds {
        interrupt.check()?;
        prepared.push(kind.prepare(&place, cli.size_bytes())?);
    }
    let mut engines = Vec::new();
    for prepared in &mut prepared {
        let mut engine = prepared.open(corpus)?;
        turn(engine.as_mut(), corpus, 0, WARM_UP, interrupt)?;
        engines.push(engine);
    }
    let mut rounds: Vec<Vec<Round>> = kinds.iter().map(|_| Vec::new()).collect();
    for round in 0..cli.rounds as usize {
        for turn_no in 0..kinds.len() {
            let who = (turn_no + round) % kinds.len();
            let first = round * cli.records as usize;
            rounds[who].push(turn(engines[who].as_mut(), corpus, first, cli.records, interrupt)?);
        }
    }
    drop(engines);
    drop(prepared);
    fs::remove_dir_all(&place)?;
    Ok(rounds)
}

/// One engine's turn: so many records, each durable before the next.
fn turn(engine: &mut dyn Engine, corpus: &Corpus, first: usize, records: u32, interrupt: &Interrupt) -> Result<Round> {
    let mut latencies = Vec::with_capacity(records as usize);
    let start = Instant::now();
    for record in corpus.records(first, records) {
        let before = Instant::now();
        engine.append_durable(record)?;
        latencies.push(before.elapsed());
        interrupt.check()?;
    }
    Ok(Round { elapsed: start.elapsed(), latencies, commits: None })
}

/// What a commit of this engine costs the device.
fn count(cli: &Cli, corpus: &Corpus, kind: Kind, disk: &Journaled, interrupt: &Interrupt) -> Result<PerCommit> {
    let place = disk.path().join(kind.name());
    fs::create_dir(&place)?;
    let mut prepared = kind.prepare(&place, cli.size_bytes())?;
    let mut engine = prepared.open(corpus)?;
    turn(engine.as_mut(), corpus, 0, WARM_UP, interrupt)?;
    let before = Counters::of_settled(disk.root())?;
    turn(engine.as_mut(), corpus, 0, COUNTED, interrupt)?;
    let counted = Counters::of_settled(disk.root())?.since(before, COUNTED);
    drop(engine);
    drop(prepared);
    fs::remove_dir_all(&place)?;
    Ok(counted)
}
