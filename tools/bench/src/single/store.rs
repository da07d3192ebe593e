//! The store of core, as a library user drives it.

use std::time::Instant;

use anyhow::{Result, anyhow};

use super::Engine;
use crate::corpus::{Corpus, Record};
use crate::store::{BenchStore, row};

/// Append, commit.
pub(super) struct StoreEngine<'m> {
    store: BenchStore<'m>,
    streams: Vec<u16>,
    start: Instant,
}

impl<'m> StoreEngine<'m> {
    pub(super) fn new(mut store: BenchStore<'m>, corpus: &Corpus) -> Self {
        let streams = corpus.streams.iter().map(|name| store.stream(name)).collect();
        Self { store, streams, start: Instant::now() }
    }
}

impl Engine for StoreEngine<'_> {
    fn append_durable(&mut self, record: &Record) -> Result<()> {
        let received_us = u64::try_from(self.start.elapsed().as_micros())?;
        let row = row(self.streams[record.stream], received_us, record);
        self.store.append(&[row], &[]).map_err(|error| anyhow!("appending: {error}"))?;
        self.store.commit().map_err(|error| anyhow!("committing: {error}"))?;
        Ok(())
    }
}
