//! The writer: one thread that owns the node and does what it says.
//!
//! Invariants: every record of a parcel is put in before the next parcel, in order; a parcel that the node pushes back
//! is kept and tried again after the sync; the node is asked what to do after every round, so a flood of records delays
//! no commit; syncs run in another thread, and appends go on meanwhile. Every record that comes is taken in, refused to
//! somebody who waits for it, or counted as dropped, and what was dropped becomes a gap.
//!
//! One exception: while syncs are quick and nothing waits in the queue, the writer syncs itself. There is nothing it
//! could append meanwhile, and a client that waits for its answer is spared two changes of threads.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use lastgasp_core::error::ReadOnlyReason;
use lastgasp_core::format::fields::{FieldsWriter, Value};
use lastgasp_core::format::row::{Lost, Row};
use lastgasp_core::gaps::GapCause;
use lastgasp_core::hal::{Arena, Storage};
use lastgasp_core::node::{Batch, Class, Input, Next, Node, Output, Refused, Taken};
use lastgasp_core::streams::{OTHER, OTHER_NAME};

use crate::clock::Clock;
use crate::drops::Dropped;
use crate::parcel::{Answer, BatchView, Parcel, Reply, Slot};
use crate::policy::{Policy, Ruler};
use crate::queue::{Event, Queue};
use crate::say;
use crate::view::View;

/// At most so many batches are put in before the node is asked what to do.
const ROUND: usize = 1024;
/// Dropped records become a gap this long after the gap before: a flood does not write a frame for each.
const DROPS_EVERY_US: u64 = 10_000_000;
/// Dropped records that become one gap at most.
const LOST_AT_ONCE_MAX: u32 = 1 << 24;
/// The field that keeps the name of a stream for which the store has no number left.
const STREAM_FIELD: &str = "stream";
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

    /// Puts the next batch of a parcel in, if the node has room for it.
    fn put_in_batch(&mut self, parcel: &mut Parcel) {
        let now_us = self.clock.now_us();
        self.number_streams(parcel);
        let Some(batch) = parcel.batch(self.put_in) else { return };
        if let Some(reason) = self.in_memory.filter(|_| batch.is_awaited) {
            self.turn_away(parcel, Answer::Refused(Refused::Failed(reason)), GapCause::MediumFailed, now_us);
            return;
        }
        if !self.is_within_limits(parcel, &batch, now_us) {
            self.turn_away(parcel, Answer::OverLimit, GapCause::Overload, now_us);
            return;
        }
        let class = parcel.class.unwrap_or_else(|| self.class_of(parcel, &batch));
        let labelled = self.labelled(parcel, &batch);
        let row = |slot: &Slot| Row {
            stream: self.numbers.get(usize::from(slot.stream)).copied().unwrap_or(OTHER),
            severity: slot.severity,
            continued: slot.continued,
            received_us: parcel.received_us,
            event_time_us: slot.event_time_us,
            trace: slot.trace,
            body: parcel.get(&slot.body),
            fields: parcel.get(&slot.fields),
        };
        let mut rows: Vec<Row<'_>> = batch.slots.iter().map(row).collect();
        for (at, fields) in &labelled {
            if let Some(row) = rows.get_mut(*at) {
                row.fields = fields;
            }
        }
        let states: Vec<(&[u8], &[u8])> = batch.states.iter().map(|(k, v)| (parcel.get(k), parcel.get(v))).collect();
        let output = self.node.step(now_us, Input::Batch(Batch { rows: &rows, states: &states, class }));
        match output.batch {
            Some(Err(Refused::Full)) => self.full = true,
            Some(Err(Refused::Stopping | Refused::Failed(_))) | None => {}
            Some(Err(refused)) => {
                if !batch.is_awaited {
                    say(format_args!("{} record(s) of {} are not kept: {refused}", rows.len(), names(parcel, &batch)));
                }
                self.turn_away(parcel, Answer::Refused(refused), GapCause::Oversize, now_us);
            }
            Some(Ok(taken)) => {
                for row in &rows {
                    self.ruler.taken(row.stream, row.body.len().saturating_add(row.fields.len()), now_us);
                }
                if let Some(reply) = parcel.take_reply(self.put_in) {
                    self.waiting.push_back((taken, reply));
                }
                self.put_in = self.put_in.saturating_add(1);
            }
        }
        self.follow(&output);
    }

    /// The store's numbers for the streams of a parcel that was just begun.
    fn number_streams(&mut self, parcel: &Parcel) {
        if self.put_in == 0 {
            self.numbers.clear();
        }
        while let Some(name) = parcel.streams().get(self.numbers.len()) {
            self.numbers.push(self.node.stream(name));
        }
    }

    fn number(&self, slot: &Slot) -> u16 {
        self.numbers.get(usize::from(slot.stream)).copied().unwrap_or(OTHER)
    }

    /// Whether all records of a batch are within the limits of their streams; if so they count against them.
    fn is_within_limits(&mut self, parcel: &Parcel, batch: &BatchView<'_>, now_us: u64) -> bool {
        // Neighbours of one stream are asked for together. A batch that mixes streams may spend what one of them has
        // although another is over its limit: limits are not that exact.
        batch.slots.chunk_by(|a, b| a.stream == b.stream).all(|run| {
            let Some(first) = run.first() else { return true };
            let (id, name) = (self.number(first), parcel.stream_name(first.stream));
            self.ruler.admit(id, name, run.len() as u64, now_us)
        })
    }

    /// The class of a batch: that of its most urgent record.
    fn class_of(&mut self, parcel: &Parcel, batch: &BatchView<'_>) -> Class {
        let class = |slot: &Slot| {
            let id = self.number(slot);
            self.ruler.class(id, parcel.stream_name(slot.stream), slot.severity)
        };
        batch.slots.iter().map(class).min().unwrap_or(Class::Interval)
    }

    /// Records whose stream has no number of its own keep its name as a field: their fields, by place in the batch.
    fn labelled(&self, parcel: &Parcel, batch: &BatchView<'_>) -> Vec<(usize, Vec<u8>)> {
        let mut labelled = Vec::new();
        for (at, slot) in batch.slots.iter().enumerate() {
            let name = parcel.stream_name(slot.stream);
            if self.number(slot) != OTHER || name == OTHER_NAME {
                continue;
            }
            let mut fields = parcel.get(&slot.fields).to_vec();
            let start = fields.len();
            fields.resize(start.saturating_add(STREAM_FIELD.len()).saturating_add(name.len()).saturating_add(16), 0);
            let mut writer = FieldsWriter::new(fields.get_mut(start..).unwrap_or_default());
            let len = writer.field(STREAM_FIELD, Value::Str(name)).map_or(0, |()| writer.len());
            fields.truncate(start.saturating_add(len));
            labelled.push((at, fields));
        }
        labelled
    }

    /// A batch is not taken in: whoever waits for it is told, else its records are counted as dropped.
    fn turn_away(&mut self, parcel: &mut Parcel, answer: Answer, cause: GapCause, now_us: u64) {
        match parcel.take_reply(self.put_in) {
            Some(reply) => reply.answer(answer),
            None => {
                let slots = parcel.batch(self.put_in).map_or(&[][..], |batch| batch.slots);
                for run in slots.chunk_by(|a, b| a.stream == b.stream) {
                    let Some(first) = run.first() else { continue };
                    self.ruler.turned_away(self.number(first), run.len() as u64);
                    let name = parcel.stream_name(first.stream);
                    self.queue.drops().count(name, cause, run.len() as u64, now_us);
                }
            }
        }
        self.put_in = self.put_in.saturating_add(1);
    }

    /// What was taken in and can no longer become durable is lost to the medium, unless whoever waits for it is told.
    fn note_unsaved(&mut self) {
        let store = self.node.store();
        let unsaved = store.next_seq().saturating_sub(1).saturating_sub(store.durable_upto());
        let told =
            self.waiting.drain(..).map(|(taken, _)| taken.last_seq.saturating_add(1).saturating_sub(taken.first_seq));
        let told: u64 = told.sum();
        let now_us = self.clock.now_us();
        self.queue.drops().count(OTHER_NAME, GapCause::MediumFailed, unsaved.saturating_sub(told), now_us);
    }

    /// There is nothing dropped that the node has not heard of.
    fn nothing_lost(&self) -> bool {
        self.lost.is_empty() && self.queue.drops().is_empty()
    }

    /// When the node is to hear of what was dropped.
    fn lost_due_us(&self) -> Option<u64> {
        if self.nothing_lost() || self.full {
            return None;
        }
        Some(self.told_us.map_or(0, |t| t.saturating_add(DROPS_EVERY_US)))
    }

    /// Tells the node of what was dropped, if that is due: it becomes gaps.
    fn put_in_lost(&mut self) {
        let now_us = self.clock.now_us();
        let is_last = self.queue.has_ended();
        if self.full || self.lost_due_us().is_none_or(|due_us| now_us < due_us && !is_last) {
            return;
        }
        if self.lost.is_empty() {
            self.lost.extend(self.queue.drops().take());
        }
        while let Some(dropped) = self.lost.front().cloned() {
            let stream = Some(self.node.stream(&dropped.stream));
            let Dropped { cause, since_us, until_us, .. } = dropped;
            let records = u32::try_from(dropped.records).unwrap_or(u32::MAX).min(LOST_AT_ONCE_MAX);
            let output = self.node.step(now_us, Input::Lost(Lost { stream, cause, records, since_us, until_us }));
            self.full = output.batch == Some(Err(Refused::Full));
            if self.full {
                return;
            }
            say(format_args!("{records} record(s) of {} were dropped: {}", dropped.stream, cause.name()));
            match self.lost.front_mut().filter(|_| dropped.records > u64::from(records)) {
                Some(rest) => rest.records = dropped.records.saturating_sub(u64::from(records)),
                None => drop(self.lost.pop_front()),
            }
            self.told_us = Some(now_us);
            self.follow(&output);
        }
    }
}

/// The streams of a batch, for people.
fn names(parcel: &Parcel, batch: &BatchView<'_>) -> String {
    let mut names: Vec<&str> = batch.slots.iter().map(|slot| parcel.stream_name(slot.stream)).collect();
    names.dedup();
    names.truncate(3);
    names.join(", ")
}
