//! The node as lastgaspd runs it: its queue, its writer, its sync thread, and its acknowledgements, which wake the
//! clients here instead of being printed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use lastgasp_core::node::{Class, Node};
use lastgasp_hal_linux::LinuxStorageError;
use lastgaspd::acks::Acks;
use lastgaspd::clock::Clock;
use lastgaspd::parcel::Slot;
use lastgaspd::queue::{Closed, Intake, Queue};
use lastgaspd::writer::{Ended, Syncer, Writer};

use super::Engine;
use super::durable::Durable;
use crate::corpus::{Corpus, Record};

/// Parcels for each client: one is on its way while another is with the node.
const PARCELS_EACH: usize = 2;
/// INFO.
const SEVERITY: u8 = 9;

/// A node with its threads, fed by any number of clients.
pub(super) struct DaemonNode {
    intake: Intake<LinuxStorageError>,
    /// Number of the last record handed over: records get theirs in the order of the queue.
    last: Mutex<u64>,
    streams: Vec<Arc<str>>,
    class: Class,
    clock: Clock,
    durable: Arc<Durable>,
    thread: JoinHandle<Result<()>>,
}

impl DaemonNode {
    pub(super) fn start(path: &Path, size_bytes: u64, corpus: &Corpus, clients: u32, class: Class) -> Result<Self> {
        let (storage, mut memory) = crate::store::make(path, size_bytes)?;
        let handle = storage.sync_handle().context("opening the store for syncs")?;
        let clock = Clock::start();
        let queue: Queue<LinuxStorageError> = Queue::new(clients as usize * PARCELS_EACH);
        let intake = queue.intake();
        let syncer = Syncer::start(queue.events(), move || handle.sync()).context("starting a thread")?;
        let durable = Arc::new(Durable::default());
        let acks = Acks::print_to(Wake::new(Arc::clone(&durable))?, 0).context("starting a thread")?;
        let of_thread = Arc::clone(&durable);
        let thread = thread::Builder::new().name("writer".into()).spawn(move || {
            let ended = crate::store::open(storage, &mut memory)
                .map(|store| Writer::new(Node::new(store, 0), queue, syncer, acks, clock).run().0);
            of_thread.end(format!("{ended:?}"));
            match ended? {
                Ended::Stopped { .. } => Ok(()),
                Ended::Failed(reason) => bail!("the store failed: {reason}"),
            }
        });
        let streams = corpus.streams.iter().map(|name| Arc::from(name.as_str())).collect();
        let thread = thread.context("starting a thread")?;
        Ok(Self { intake, last: Mutex::new(0), streams, class, clock, durable, thread })
    }
}

impl Engine for DaemonNode {
    fn append_durable(&self, record: &Record) -> Result<()> {
        let gone = |Closed| anyhow!("the writer has gone");
        let mut parcel = self.intake.parcel().map_err(gone)?;
        let stream = parcel.stream(&self.streams[record.stream]);
        parcel.class = Some(self.class);
        parcel.received_us = self.clock.now_us();
        let body = parcel.copy(&record.body);
        parcel.push(Slot { severity: SEVERITY, ..Slot::plain(stream, body) });
        parcel.end_batch(None);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        let own = *last;
        self.intake.send(parcel).map_err(gone)?;
        drop(last);
        self.durable.wait(own)
    }

    fn commits(&self) -> u64 {
        self.durable.rises()
    }

    fn close(self: Box<Self>) -> Result<()> {
        drop(self.intake);
        self.thread.join().map_err(|_| anyhow!("the writer panicked"))?
    }
}

/// Takes the acknowledgements as they would be printed, and wakes who waits.
struct Wake {
    durable: Arc<Durable>,
    line: Vec<u8>,
    /// What the writer polls before it prints: always ready.
    ready: File,
}

impl Wake {
    fn new(durable: Arc<Durable>) -> Result<Self> {
        let ready = File::options().write(true).open("/dev/null").context("opening /dev/null")?;
        Ok(Self { durable, line: Vec::new(), ready })
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl Write for Wake {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let number = str::from_utf8(&self.line).ok().and_then(|line| line.strip_prefix("ack ")?.parse().ok());
            self.durable.rise(number.ok_or(io::ErrorKind::InvalidData)?);
            self.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_wake_also_when_they_come_in_pieces() {
        let durable = Arc::new(Durable::default());
        let mut wake = Wake::new(Arc::clone(&durable)).unwrap();
        wake.write_all(b"ack 7\nac").unwrap();
        wake.write_all(b"k 12\n").unwrap();
        durable.wait(12).unwrap();
        assert!(wake.write_all(b"nonsense\n").is_err());
    }
}
