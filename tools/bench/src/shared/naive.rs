//! The limit of shared syncs as one would write it first: a committer thread that takes whatever has come, writes it,
//! syncs, wakes everybody, and begins again at once.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

use super::Engine;
use super::durable::Durable;
use crate::corpus::Record;
use crate::single::PreWritten;

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    /// Number of the last record taken in.
    last: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    came: Condvar,
    durable: Durable,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The committer thread, and how to reach it.
#[derive(Debug)]
pub(super) struct NaiveCommitter {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl NaiveCommitter {
    pub(super) fn start(path: &Path, size_bytes: u64) -> Result<Self> {
        let mut file = PreWritten::make(path, size_bytes)?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("naive".into()).spawn(move || {
            let ended = commit_until_closed(&of_thread, &mut file);
            of_thread.durable.end(ended.map_or_else(|error| format!("{error:#}"), |()| "closed".into()));
        });
        Ok(Self { shared, thread: thread.context("starting a thread")? })
    }
}

fn commit_until_closed(shared: &Shared, file: &mut PreWritten) -> Result<()> {
    let mut lines = Vec::new();
    loop {
        let mut pending = shared.pending();
        while pending.lines.is_empty() {
            if pending.closed {
                return Ok(());
            }
            pending = shared.came.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        lines.clear();
        std::mem::swap(&mut lines, &mut pending.lines);
        let last = pending.last;
        drop(pending);
        file.write_durable(&lines)?;
        shared.durable.rise(last);
    }
}

impl Engine for NaiveCommitter {
    fn append_durable(&self, record: &Record) -> Result<()> {
        let mut pending = self.shared.pending();
        pending.lines.extend_from_slice(&record.body);
        pending.lines.push(b'\n');
        pending.last += 1;
        let own = pending.last;
        drop(pending);
        self.shared.came.notify_one();
        self.shared.durable.wait(own)
    }

    fn commits(&self) -> u64 {
        self.shared.durable.rises()
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.shared.pending().closed = true;
        self.shared.came.notify_one();
        self.thread.join().map_err(|_| anyhow!("the committer panicked"))
    }
}
