//! The writer: one thread that owns the node and does what it says.
//!
//! Invariants: every record of a parcel is put in before the next parcel, in order; a parcel that the node pushes back
//! is kept and tried again after the sync; the node is asked what to do after every round, so a flood of records delays
//! no commit; syncs run in another thread, and appends go on meanwhile. Every record that comes is taken in, refused to
//! somebody who waits for it, or counted as dropped, and what was dropped becomes a gap.
//!
//! One exception: while syncs are quick and nothing waits in the queue, the writer syncs itself. There is nothing it
//! could append meanwhile, and a client that waits for its answer is spared two changes of threads.

mod batch;
mod lost;
mod syncer;

use std::collections::VecDeque;
use std::fmt;

use lastgasp_core::error::ReadOnlyReason;
use lastgasp_core::hal::{Arena, Storage};
use lastgasp_core::node::{Input, Next, Node, Output, Taken};

use crate::clock::Clock;
use crate::drops::Dropped;
use crate::parcel::{Answer, Parcel, Reply};
use crate::policy::{Policy, Ruler};
use crate::queue::{Event, Queue};
use crate::say;
use crate::view::View;

pub use self::syncer::Syncer;

/// At most so many batches are put in before the node is asked what to do.
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

/// What is left when a writer has ended: enough for another one to go on.
pub struct Rest<E, L> {
    /// The queue, with what came meanwhile.
    pub queue: Queue<E>,
    /// Who hears what is durable.
    pub listener: L,
    ruler: Ruler,
    parcels: VecDeque<Parcel>,
    put_in: usize,
    lost: VecDeque<Dropped>,
}

/// The node, and what the writer needs to serve it.
pub struct Writer<'m, S: Storage, A: Arena, L> {
    node: Node<'m, S, A>,
    queue: Queue<S::Error>,
    syncer: Syncer,
    listener: L,
    clock: Clock,
    ruler: Ruler,
    /// Parcels that came, oldest first, and how many batches of the first are with the node.
    parcels: VecDeque<Parcel>,
    put_in: usize,
    /// The store's numbers for the streams of the first parcel.
    numbers: Vec<u16>,
    /// Who waits until a number is durable, by rising numbers.
    waiting: VecDeque<(Taken, Reply)>,
    /// Drops that the node is to be told of, and when the last were.
    lost: VecDeque<Dropped>,
    told_us: Option<u64>,
    /// The node is full until the sync has ended.
    full: bool,
    /// A sync has ended, and the node has not heard of it yet.
    synced: Option<Result<(), S::Error>>,
    /// The medium has failed for this reason; this is a store in memory.
    in_memory: Option<ReadOnlyReason>,
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
    /// A writer that goes on where one has failed for `reason`, on a store in memory. Numbers begin anew, and nobody is
    /// told that anything is durable: who waits for it is refused.
    pub fn in_memory(
        node: Node<'m, S, A>,
        rest: Rest<S::Error, L>,
        syncer: Syncer,
        clock: Clock,
        reason: ReadOnlyReason,
    ) -> Self {
        let Rest { queue, listener, ruler, parcels, put_in, lost } = rest;
        let in_memory = Some(reason);
        let mut writer =
            Self { ruler, parcels, put_in, lost, in_memory, ..Self::new(node, queue, syncer, listener, clock) };
        writer.node.set_keep(writer.ruler.policy().keep);
        writer
    }

    /// A writer that takes what comes by `queue`.
    pub fn new(node: Node<'m, S, A>, queue: Queue<S::Error>, syncer: Syncer, listener: L, clock: Clock) -> Self {
        Self {
            node,
            queue,
            syncer,
            listener,
            clock,
            ruler: Ruler::default(),
            parcels: VecDeque::new(),
            put_in: 0,
            numbers: Vec::new(),
            waiting: VecDeque::new(),
            lost: VecDeque::new(),
            told_us: None,
            full: false,
            synced: None,
            in_memory: None,
            stopping: false,
            until_us: None,
            ended: None,
        }
    }

    /// Treats records by these rules.
    #[must_use]
    pub fn ruled_by(mut self, policy: Policy) -> Self {
        self.rule_by(policy);
        self
    }

    fn rule_by(&mut self, policy: Policy) {
        self.node.set_keep(policy.keep);
        self.queue.set_stall(policy.stall);
        self.ruler.set(policy);
    }

    /// Runs until all sources have ended and everything is durable, or the store fails.
    pub fn run(mut self) -> (Ended, Node<'m, S, A>, Rest<S::Error, L>) {
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
            if !more && !self.stopping && self.parcels.is_empty() && self.queue.has_ended() && self.nothing_lost() {
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
            let due_us = [self.until_us, self.lost_due_us()].into_iter().flatten().min();
            let deadline = due_us.and_then(|t| self.clock.instant(t));
            if let Some(event) = self.queue.next(deadline) {
                self.on(event);
            }
        };
        if let Ended::Failed(_) = ended {
            self.note_unsaved();
        }
        drop(self.syncer);
        let Self { node, queue, listener, ruler, parcels, put_in, lost, .. } = self;
        (ended, node, Rest { queue, listener, ruler, parcels, put_in, lost })
    }

    fn on(&mut self, event: Event<S::Error>) {
        match event {
            Event::Parcel(parcel) => self.parcels.push_back(parcel),
            Event::SourceEnded => {}
            Event::Synced(result) => self.synced = Some(result),
            Event::Look(look) => look.take(&self.view()),
            Event::Policy(policy) => self.rule_by(*policy),
        }
    }

    fn view(&self) -> View<'_, 'm> {
        let store = self.node.store();
        View {
            catalog: store.catalog(),
            stats: store.stats(),
            durable_upto: store.durable_upto(),
            next_seq: store.next_seq(),
            volatile_bound: store.volatile_bound(),
            ram_limit: store.ram_limit(),
            memtable_bytes: store.memtable_bytes(),
            read_only: store.read_only(),
            sync_us: self.node.sync_us(),
            now_us: self.clock.now_us(),
            dropped: self.queue.drops().total(),
            streams: self.ruler.counts(),
        }
    }

    fn step(&mut self, input: Input<'_, S::Error>) {
        let output = self.node.step(self.clock.now_us(), input);
        self.follow(&output);
    }

    fn follow(&mut self, output: &Output) {
        if self.in_memory.is_none() {
            self.listener.durable(output.durable_upto);
        }
        while self.waiting.front().is_some_and(|(taken, _)| taken.last_seq <= output.durable_upto) {
            let Some((Taken { first_seq, last_seq }, reply)) = self.waiting.pop_front() else { break };
            reply.answer(Answer::Durable { first_seq, last_seq });
        }
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
        self.parcels.len() <= 1 && !self.parcels.front().is_some_and(|parcel| parcel.has_batch(self.put_in))
    }

    /// Puts a round of batches in; `true` if there are more that the node may take.
    fn put_in(&mut self) -> bool {
        self.put_in_lost();
        for _ in 0..ROUND {
            if self.full || self.ended.is_some() {
                return false;
            }
            let Some(mut parcel) = self.parcels.pop_front() else { return false };
            if !parcel.has_batch(self.put_in) {
                self.put_in = 0;
                self.queue.recycle(parcel);
                continue;
            }
            self.put_in_batch(&mut parcel);
            self.parcels.push_front(parcel);
        }
        true
    }
}
