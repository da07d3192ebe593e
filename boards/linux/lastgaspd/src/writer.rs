//! The writer: one thread that owns the node and does what it says.
//!
//! Invariants: every record of a parcel is put in before the next parcel, in order; a parcel that the node pushes back
//! is kept and tried again after the sync; the node is asked what to do after every round, so a flood of records delays
//! no commit; syncs run in another thread, and appends go on meanwhile.
//!
//! One exception: while syncs are quick and nothing waits in the queue, the writer syncs itself. There is nothing it
//! could append meanwhile, and a client that waits for its answer is spared two changes of threads.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use lastgasp_core::error::ReadOnlyReason;
use lastgasp_core::format::row::Row;
use lastgasp_core::hal::{Arena, Storage};
use lastgasp_core::node::{Batch, Input, Next, Node, Output, Refused};

use crate::clock::Clock;
use crate::queue::{Event, Parcel, Queue};
use crate::say;

/// At most so many records are put in before the node is asked what to do.
const ROUND: usize = 1024;
/// Up to here a sync is quick: other threads are not much faster to wake.
const QUICK_SYNC_US: u64 = 500;

/// Hears what is durable: to print it, or to answer whoever waits.
pub trait Listener {
    /// Everything up to this number is durable. Comes after every step, with the same number again if nothing has
    /// changed, and must not wait for anybody.
    fn durable(&mut self, upto: u64);
}

/// How the writer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything is durable.
    Stopped {
        /// So is the note of the stop.
        clean: bool,
    },
    /// The store takes no more writes.
    Failed(ReadOnlyReason),
}

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

    fn begin(&self) {
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

/// The node, and what the writer needs to serve it.
pub struct Writer<'m, S: Storage, A: Arena, L> {
    node: Node<'m, S, A>,
    queue: Queue<S::Error>,
    syncer: Syncer,
    listener: L,
    clock: Clock,
    /// Parcels that came, oldest first, and how many records of the first are with the node.
    parcels: VecDeque<Parcel>,
    put_in: usize,
    /// The node is full until the sync has ended.
    full: bool,
    /// A sync has ended, and the node has not heard of it yet.
    synced: Option<Result<(), S::Error>>,
    stopping: bool,
    until_us: Option<u64>,
    ended: Option<Ended>,
}

impl<'m, S, A, L> Writer<'m, S, A, L>
where
    S: Storage<Error: fmt::Display>,
    A: Arena,
    L: Listener,
{
    /// A writer that takes what comes by `queue`.
    pub fn new(node: Node<'m, S, A>, queue: Queue<S::Error>, syncer: Syncer, listener: L, clock: Clock) -> Self {
        Self {
            node,
            queue,
            syncer,
            listener,
            clock,
            parcels: VecDeque::new(),
            put_in: 0,
            full: false,
            synced: None,
            stopping: false,
            until_us: None,
            ended: None,
        }
    }

    /// Runs until all sources have ended and everything is durable, or the store fails.
    pub fn run(mut self) -> (Ended, Node<'m, S, A>, L) {
        let ended = loop {
            while let Some(event) = self.queue.try_next() {
                self.on(event);
            }
            let mut more = self.put_in();
            if let Some(result) = self.synced.take() {
                if let Err(error) = &result {
                    say(format_args!("{error}; nothing of this commit counts, writing it again elsewhere"));
                }
                // After the records that came while it synced: they join the next commit.
                self.step(Input::Synced(result));
                more |= std::mem::take(&mut self.full);
            }
            if !more && !self.stopping && self.parcels.is_empty() && self.queue.has_ended() {
                self.stopping = true;
                self.step(Input::Stop);
            } else {
                self.step(Input::Tick);
            }
            if let Some(ended) = self.ended {
                break ended;
            }
            if more || self.synced.is_some() {
                continue;
            }
            let deadline = self.until_us.and_then(|t| self.clock.instant(t));
            if let Some(event) = self.queue.next(deadline) {
                self.on(event);
            }
        };
        // The queue first: the other threads may wait for it.
        drop(self.queue);
        drop(self.syncer);
        (ended, self.node, self.listener)
    }

    fn on(&mut self, event: Event<S::Error>) {
        match event {
            Event::Parcel(parcel) => self.parcels.push_back(parcel),
            Event::SourceEnded => {}
            Event::Synced(result) => self.synced = Some(result),
        }
    }

    fn step(&mut self, input: Input<'_, S::Error>) {
        let output = self.node.step(self.clock.now_us(), input);
        self.follow(&output);
    }

    fn follow(&mut self, output: &Output) {
        self.listener.durable(output.durable_upto);
        match output.next {
            Next::Sync { .. } => {
                self.until_us = None;
                self.sync();
            }
            Next::Wait { until_us } => self.until_us = until_us,
            Next::Stopped { clean } => self.ended = Some(Ended::Stopped { clean }),
            Next::Failed(reason) => self.ended = Some(Ended::Failed(reason)),
        }
    }

    fn sync(&mut self) {
        let quick = (1..=QUICK_SYNC_US).contains(&self.node.sync_us());
        if quick && self.queue.is_empty() && self.all_put_in() {
            self.synced = Some(self.node.medium().sync());
        } else {
            self.syncer.begin();
        }
    }

    /// Nothing is left in the parcels that came.
    fn all_put_in(&self) -> bool {
        let rest = |parcel: &Parcel| parcel.slots.len() > self.put_in;
        self.parcels.len() <= 1 && !self.parcels.front().is_some_and(rest)
    }

    /// Puts a round of records in; `true` if there are more that the node may take.
    fn put_in(&mut self) -> bool {
        for _ in 0..ROUND {
            if self.full || self.ended.is_some() {
                return false;
            }
            let Some(parcel) = self.parcels.front() else { return false };
            let Some(slot) = parcel.slots.get(self.put_in).copied() else {
                self.put_in = 0;
                if let Some(done) = self.parcels.pop_front() {
                    self.queue.recycle(done);
                }
                continue;
            };
            let row = Row {
                stream: self.node.stream(&parcel.stream),
                severity: slot.severity,
                continued: slot.continued,
                received_us: parcel.received_us,
                event_time_us: None,
                trace: None,
                body: parcel.bytes.get(slot.start..slot.end).unwrap_or_default(),
                fields: &[],
            };
            let batch = Batch { rows: &[row], states: &[], class: parcel.class };
            let output = self.node.step(self.clock.now_us(), Input::Batch(batch));
            match output.batch {
                Some(Err(Refused::Full)) => self.full = true,
                Some(Err(Refused::TooLarge { bytes, max })) => {
                    say(format_args!("a record of {bytes} bytes is not kept: the store takes at most {max}"));
                    self.put_in = self.put_in.saturating_add(1);
                }
                Some(Err(refused @ Refused::NoRoomFor(_))) => {
                    say(format_args!("a record is not kept: {refused:?}"));
                    self.put_in = self.put_in.saturating_add(1);
                }
                Some(Err(Refused::Stopping | Refused::Failed(_))) | None => {}
                Some(Ok(_)) => self.put_in = self.put_in.saturating_add(1),
            }
            self.follow(&output);
        }
        true
    }
}
