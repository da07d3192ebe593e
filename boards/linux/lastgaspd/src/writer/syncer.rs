//! The thread that syncs.
//!
//! Invariant: one sync at a time, and a result in the queue for each.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::queue::Event;

/// Syncs in a thread of its own.
#[derive(Debug)]
pub struct Syncer {
    begin: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Calls `sync` whenever it is told to, and puts the result into the queue.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start<E: Send + 'static>(
        events: Sender<Event<E>>,
        sync: impl Fn() -> Result<(), E> + Send + 'static,
    ) -> io::Result<Self> {
        let (begin, told): (Sender<()>, Receiver<()>) = bounded(1);
        let thread = thread::Builder::new().name("sync".into()).spawn(move || {
            while told.recv().is_ok() {
                if events.send(Event::Synced(sync())).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { begin: Some(begin), thread: Some(thread) })
    }

    pub(super) fn begin(&self) {
        if let Some(begin) = &self.begin {
            let _ = begin.send(());
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.begin = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
