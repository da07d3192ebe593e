//! W2 with threads: several clients, each appends a record, waits until it is durable, and goes on with the next.
//!
//! Invariants: all engines get the same records in a round, client `i` those with number `i` modulo the clients; every
//! engine stays open from the first round to the last; clients begin together.

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::cli::Cli;
use crate::corpus::Corpus;
use crate::interrupt::Interrupt;
use crate::report::{EngineReport, Round, WorkloadReport};
use crate::shared::{Engine, Kind};

/// Records before the first round.
const WARM_UP: u32 = 200;

/// Runs it in `dir`, which is empty.
pub(crate) fn run(cli: &Cli, corpus: &Corpus, dir: &Path, interrupt: &Interrupt) -> Result<WorkloadReport> {
    let place = dir.join("w2-threads");
    fs::create_dir(&place)?;
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|k| *k == Kind::LIMIT || cli.wants(k.name())).collect();
    let mut engines = Vec::new();
    for kind in &kinds {
        let engine = kind.start(&place, cli.size_bytes(), corpus, cli.clients)?;
        turn(engine.as_ref(), corpus, 0, WARM_UP, cli.clients, interrupt)?;
        engines.push(engine);
    }
    let mut rounds: Vec<Vec<Round>> = kinds.iter().map(|_| Vec::new()).collect();
    for round in 0..cli.rounds as usize {
        for turn_no in 0..kinds.len() {
            let who = (turn_no + round) % kinds.len();
            let first = round * cli.records as usize;
            rounds[who].push(turn(engines[who].as_ref(), corpus, first, cli.records, cli.clients, interrupt)?);
        }
    }
    for engine in engines {
        engine.close()?;
    }
    fs::remove_dir_all(&place)?;
    let (limit, _) = rounds.split_first().context("the limit always runs")?;
    let reports = kinds.iter().zip(&rounds).map(|(kind, own)| EngineReport::new(kind.name(), kind.what(), own, limit));
    Ok(WorkloadReport {
        name: "w2-threads",
        what: format!("{} threads, each waits until its record is durable", cli.clients),
        limit: Kind::LIMIT.name(),
        rounds: cli.rounds,
        records: cli.records,
        engines: reports.collect(),
        counted_on: None,
        not_counted: Some("only by w1".into()),
    })
}

/// One engine's turn: `records` in all, spread over the clients.
fn turn(
    engine: &dyn Engine,
    corpus: &Corpus,
    first: usize,
    records: u32,
    clients: u32,
    interrupt: &Interrupt,
) -> Result<Round> {
    let begin = Barrier::new(clients as usize + 1);
    let client = |offset: u32| -> Result<Vec<Duration>> {
        let mut latencies = Vec::with_capacity((records / clients + 1) as usize);
        begin.wait();
        for n in (offset..records).step_by(clients as usize) {
            let record = corpus.record(first + n as usize);
            let before = Instant::now();
            engine.append_durable(record)?;
            latencies.push(before.elapsed());
            interrupt.check()?;
        }
        Ok(latencies)
    };
    let commits = engine.commits();
    thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..clients).map(|offset| scope.spawn(move || client(offset))).collect();
        begin.wait();
        let start = Instant::now();
        let mut latencies = Vec::with_capacity(records as usize);
        for client in clients {
            latencies.extend(client.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(Round { elapsed: start.elapsed(), latencies, commits: Some(engine.commits() - commits) })
    })
}
