//! Engines that one thread uses: append a record, make it durable, return.

mod node;
mod raw;
mod store;

use std::path::Path;

use anyhow::Result;
use lastgasp_hal_linux::{FileStorage, StoreMemory};

use crate::corpus::{Corpus, Record};
pub(crate) use raw::{PreWritten, RawFile};

/// An engine that is open on a store of its own.
pub(crate) trait Engine {
    /// Takes a record in; it survives a power cut when this returns.
    fn append_durable(&mut self, record: &Record) -> Result<()>;
}

/// Which engines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The limit.
    Raw,
    /// The store.
    Lastgasp,
    /// The node on top of it.
    LastgaspNode,
}

impl Kind {
    /// All, the limit first.
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Lastgasp, Self::LastgaspNode];
    /// What ratios are taken to.
    pub(crate) const LIMIT: Self = Self::Raw;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Lastgasp => "lastgasp",
            Self::LastgaspNode => "lastgasp-node",
        }
    }

    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Raw => "pwrite of the line at ascending offsets into a file that was filled with zeros, fdatasync",
            Self::Lastgasp => "core's Store on a file: append, commit",
            Self::LastgaspNode => "core's Node on that: batch, tick, sync in the same thread",
        }
    }

    /// Makes what the engine keeps its records in.
    pub(crate) fn prepare(self, dir: &Path, size_bytes: u64) -> Result<Prepared> {
        let path = dir.join(self.name());
        Ok(match self {
            Self::Raw => Prepared::Raw(PreWritten::make(&path, size_bytes)?),
            Self::Lastgasp | Self::LastgaspNode => {
                let (storage, memory) = crate::store::make(&path, size_bytes)?;
                let through_node = self == Self::LastgaspNode;
                Prepared::Store { storage: Some(Box::new(storage)), memory: Box::new(memory), through_node }
            }
        })
    }
}

/// An engine's files and memory, to be opened once.
pub(crate) enum Prepared {
    Raw(PreWritten),
    Store { storage: Option<Box<FileStorage>>, memory: Box<StoreMemory>, through_node: bool },
}

impl Prepared {
    /// Opens the engine.
    pub(crate) fn open<'p>(&'p mut self, corpus: &Corpus) -> Result<Box<dyn Engine + 'p>> {
        Ok(match self {
            Self::Raw(file) => Box::new(RawFile::new(file)),
            Self::Store { storage, memory, through_node } => {
                let storage = storage.take().ok_or_else(|| anyhow::anyhow!("a store is opened once"))?;
                let store = crate::store::open(*storage, memory)?;
                if *through_node {
                    Box::new(node::NodeEngine::new(store, corpus))
                } else {
                    Box::new(store::StoreEngine::new(store, corpus))
                }
            }
        })
    }
}
