//! Engines that many threads use at once: each appends a record and waits until it is durable.

mod durable;
mod naive;
mod node;

use std::path::Path;

use anyhow::Result;
use lastgasp_core::node::Class;

use crate::corpus::{Corpus, Record};

/// An engine that is open on a store of its own, with its threads running.
pub(crate) trait Engine: Sync {
    /// Takes a record in; it survives a power cut when this returns.
    fn append_durable(&self, record: &Record) -> Result<()>;

    /// How often records became durable so far.
    fn commits(&self) -> u64;

    /// Ends its threads.
    fn close(self: Box<Self>) -> Result<()>;
}

/// Which engines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The limit.
    Naive,
    /// The node of the daemon.
    Lastgasp,
    /// The same without the wait for clients to join.
    LastgaspDrain,
}

impl Kind {
    /// All, the limit first.
    pub(crate) const ALL: [Self; 3] = [Self::Naive, Self::Lastgasp, Self::LastgaspDrain];
    /// What ratios are taken to.
    pub(crate) const LIMIT: Self = Self::Naive;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Lastgasp => "lastgasp",
            Self::LastgaspDrain => "lastgasp-drain",
        }
    }

    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Naive => {
                "a committer thread on the raw file of w1 that takes what is there, writes, fdatasyncs, wakes"
            }
            Self::Lastgasp => "queue, writer, sync and ack threads of lastgaspd, class `group`: the adaptive wait",
            Self::LastgaspDrain => "the same, class `each`: commits at once whatever is there",
        }
    }

    /// Makes a store for `clients` threads and starts the engine on it.
    pub(crate) fn start(self, dir: &Path, size_bytes: u64, corpus: &Corpus, clients: u32) -> Result<Box<dyn Engine>> {
        let path = dir.join(self.name());
        Ok(match self {
            Self::Naive => Box::new(naive::NaiveCommitter::start(&path, size_bytes)?),
            Self::Lastgasp => Box::new(node::DaemonNode::start(&path, size_bytes, corpus, clients, Class::Group)?),
            Self::LastgaspDrain => Box::new(node::DaemonNode::start(&path, size_bytes, corpus, clients, Class::Each)?),
        })
    }
}
