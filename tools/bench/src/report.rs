//! What a run found, as data: the shape of the JSON.
//!
//! Invariants: latencies are of all rounds together, in microseconds; a ratio is the median over rounds of (records per
//! second of the engine / those of the limit in the same round); `null` stands for what was not measured.

use std::time::Duration;

use serde::Serialize;

use crate::conditions::Conditions;
use crate::counters::PerCommit;
use crate::stats::{median, percentile, sorted};

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) conditions: Conditions,
    pub(crate) workloads: Vec<WorkloadReport>,
}

/// One workload.
#[derive(Debug, Serialize)]
pub(crate) struct WorkloadReport {
    pub(crate) name: &'static str,
    /// What was done, for people.
    pub(crate) what: String,
    /// The engine that ratios are taken to.
    pub(crate) limit: &'static str,
    pub(crate) rounds: u32,
    /// Records per round and engine.
    pub(crate) records: u32,
    pub(crate) engines: Vec<EngineReport>,
    /// What device bytes and flushes were counted on.
    pub(crate) counted_on: Option<String>,
    /// Why they were not.
    pub(crate) not_counted: Option<String>,
}

/// One engine.
#[derive(Debug, Serialize)]
pub(crate) struct EngineReport {
    pub(crate) engine: &'static str,
    pub(crate) what: &'static str,
    /// Median over rounds.
    pub(crate) records_per_s: f64,
    pub(crate) ratio: f64,
    /// Lower and upper quartile of the rounds' ratios.
    pub(crate) ratio_quartiles: [f64; 2],
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Records that became durable together, over all rounds, where several can.
    pub(crate) records_per_commit: Option<f64>,
    pub(crate) device: Option<PerCommit>,
}

/// What one engine did in one round.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) elapsed: Duration,
    /// One of each record.
    pub(crate) latencies: Vec<Duration>,
    /// Commits that they shared, where several can.
    pub(crate) commits: Option<u64>,
}

impl Round {
    fn records_per_s(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

impl EngineReport {
    /// Sums up an engine's rounds beside those of the limit.
    pub(crate) fn new(engine: &'static str, what: &'static str, rounds: &[Round], limit: &[Round]) -> Self {
        let ratios = rounds.iter().zip(limit).map(|(own, limit)| own.records_per_s() / limit.records_per_s());
        let ratios = sorted(ratios.collect());
        let latencies = rounds.iter().flat_map(|round| &round.latencies).map(|took| took.as_secs_f64() * 1e6);
        let latencies = sorted(latencies.collect());
        let commits: Option<u64> = rounds.iter().map(|round| round.commits).sum();
        Self {
            engine,
            what,
            records_per_s: median(rounds.iter().map(Round::records_per_s).collect()),
            ratio_quartiles: [percentile(&ratios, 0.25), percentile(&ratios, 0.75)],
            ratio: median(ratios),
            p50_us: percentile(&latencies, 0.50),
            p99_us: percentile(&latencies, 0.99),
            records_per_commit: commits.map(|commits| latencies.len() as f64 / commits.max(1) as f64),
            device: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_rounds_that_ran_side_by_side() {
        let round = |ms| Round {
            elapsed: Duration::from_millis(ms),
            latencies: vec![Duration::from_micros(ms); 10],
            commits: Some(5),
        };
        // The machine was ten times slower in the last round: for both.
        let (limit, own) = ([round(10), round(10), round(100)], [round(20), round(20), round(200)]);
        let report = EngineReport::new("own", "", &own, &limit);
        assert!((report.ratio - 0.5).abs() < 1e-9, "{report:?}");
        assert_eq!(report.records_per_commit, Some(2.0));
        assert!((report.p50_us - 20.0).abs() < 1e-9, "{report:?}");
    }
}
