//! The command line.
//!
//! Invariants: without arguments every workload runs with every engine; an engine that no chosen workload has is an
//! error before anything is touched.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};

use crate::{shared, single};

const EXAMPLES: &str = "\
Examples:
  lastgasp-bench                            all workloads, beside the current directory's files
  lastgasp-bench w1 --data ~/logs           single durable records, lines of ~/logs/*.log
  sudo lastgasp-bench --realtime w1         the same on a busy machine, with device bytes and flushes counted
  lastgasp-bench --engines lastgasp w2-threads -o json
                                            eight clients that share syncs, for programs
  lastgasp-bench --dir /mnt/card --rounds 5 --records 200
                                            a slow medium: fewer commits a round

Workloads:
  w1          one thread, one record per durable commit; as root also counts what reaches the block device
  w2-threads  several threads, each appends a record, waits until it is durable, and goes on with the next

The ratio is to the limit: the same records written plainly into a file that was filled before, and synced.";

/// Measures lastgasp beside the physical limit of the medium, in one interleaved run.
#[derive(Debug, Clone, Parser)]
#[command(name = "lastgasp-bench", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to measure [default: everything]
    #[arg(value_enum, value_name = "WORKLOAD")]
    pub(crate) workloads: Vec<Workload>,

    /// Only these engines, and the limit they are compared to: raw, lastgasp, lastgasp-node (w1); naive, lastgasp,
    /// lastgasp-drain (w2-threads)
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) engines: Vec<String>,

    /// Take records from the lines of the *.log files here [default: generated lines]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Measure in this directory's file system; everything made there is removed at the end
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,

    /// How often each engine takes its turn
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// Records per turn
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) records: u32,

    /// Client threads of w2-threads
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) clients: u32,

    /// Size of each engine's store, in MiB; they wrap around when it is full
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) size_mib: u32,

    /// Seed of the generated lines
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,

    /// Do not make an ext4 on a loop device to count device bytes and flushes on
    #[arg(long)]
    pub(crate) no_counters: bool,

    /// Run under SCHED_FIFO, as root: other programs then cost next to nothing
    #[arg(long)]
    pub(crate) realtime: bool,

    /// A table for people, or JSON for programs
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Output,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// One record per durable commit, one thread.
    W1,
    /// Several threads, each waits for its record.
    W2Threads,
}

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Workload {
    fn engines(self) -> Vec<&'static str> {
        match self {
            Self::W1 => single::Kind::ALL.iter().map(|kind| kind.name()).collect(),
            Self::W2Threads => shared::Kind::ALL.iter().map(|kind| kind.name()).collect(),
        }
    }
}

impl Cli {
    /// The chosen workloads, each once, in their usual order.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        let is_chosen = |workload: &&Workload| self.workloads.is_empty() || self.workloads.contains(workload);
        Workload::value_variants().iter().filter(is_chosen).copied().collect()
    }

    /// `true` if this engine is to run: it was asked for, or nothing was.
    pub(crate) fn wants(&self, engine: &str) -> bool {
        self.engines.is_empty() || self.engines.iter().any(|name| name == engine)
    }

    /// Size of each engine's store.
    pub(crate) fn size_bytes(&self) -> u64 {
        u64::from(self.size_mib) << 20
    }

    /// Refuses engines that nothing here has.
    pub(crate) fn check(&self) -> Result<()> {
        let known: Vec<&str> = self.workloads().into_iter().flat_map(Workload::engines).collect();
        if let Some(unknown) = self.engines.iter().find(|name| !known.contains(&name.as_str())) {
            bail!("there is no engine `{unknown}` in what was chosen; there are {}", known.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_parses_in_any_order() {
        let cli = Cli::try_parse_from("b --engines raw,lastgasp --data d w1 -o json".split(' ')).unwrap();
        cli.check().unwrap();
        assert_eq!((cli.workloads(), cli.output), (vec![Workload::W1], Output::Json));
        assert!(cli.wants("raw") && cli.wants("lastgasp") && !cli.wants("lastgasp-node"));
        let cli = Cli::try_parse_from(["b"]).unwrap();
        assert_eq!(cli.workloads(), [Workload::W1, Workload::W2Threads]);
    }

    #[test]
    fn an_unknown_engine_is_named_with_those_there_are() {
        let cli = Cli::try_parse_from("b --engines naive w1".split(' ')).unwrap();
        let error = cli.check().unwrap_err().to_string();
        assert!(error.contains("`naive`") && error.contains("raw, lastgasp"), "{error}");
    }
}
