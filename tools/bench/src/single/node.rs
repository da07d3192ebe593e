//! The node of core with one thread: the caller syncs.

use std::time::Instant;

use anyhow::{Result, bail};
use lastgasp_core::hal::Storage;
use lastgasp_core::node::{Batch, Class, Input, Next, Node};
use lastgasp_hal_linux::{FileStorage, HeapArena};

use super::Engine;
use crate::corpus::{Corpus, Record};
use crate::store::{BenchStore, row};

/// Batch, tick, sync.
pub(super) struct NodeEngine<'m> {
    node: Node<'m, FileStorage, HeapArena>,
    streams: Vec<u16>,
    start: Instant,
}

impl<'m> NodeEngine<'m> {
    pub(super) fn new(store: BenchStore<'m>, corpus: &Corpus) -> Self {
        let mut node = Node::new(store, 0);
        let streams = corpus.streams.iter().map(|name| node.stream(name)).collect();
        Self { node, streams, start: Instant::now() }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Engine for NodeEngine<'_> {
    fn append_durable(&mut self, record: &Record) -> Result<()> {
        let now_us = self.now_us();
        let rows = [row(self.streams[record.stream], now_us, record)];
        let output = self.node.step(now_us, Input::Batch(Batch { rows: &rows, states: &[], class: Class::Each }));
        let Some(Ok(taken)) = output.batch else { bail!("the node refused a record: {:?}", output.batch) };
        let output = self.node.step(now_us, Input::Tick);
        let Next::Sync { .. } = output.next else { bail!("the node did not ask for a sync: {:?}", output.next) };
        let synced = self.node.medium().sync();
        let output = self.node.step(self.now_us(), Input::Synced(synced));
        if output.durable_upto < taken.last_seq {
            bail!("a record is not durable after its commit: {:?}", output.next);
        }
        Ok(())
    }
}
