//! The loop that serves all clients.
//!
//! Invariants: it blocks in `poll` and in reads of the store, nowhere else; every client gets its turn before any gets
//! another; when all wait, it waits.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use lastgasp_core::readout::ErrorCode;
use lastgasp_hal_linux::{FileStorage, LinuxStorageError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bell::Bell;
use super::buffers::Buffers;
use super::connection::{Asks, Connection, Holds};
use super::copy::Copies;
use super::facts::OwnedFact;
use super::place::Bound;
use super::{Options, retry};
use crate::say;
use crate::view::Handle;

/// Connections that are kept open. One more takes the place of that which has been idle the longest.
const CONNECTIONS_MAX: usize = 64;
/// Clients that are answered at once; others wait for their turn.
const SERVED_MAX: usize = 8;
/// A scan keeps its memory for so long, also if others want it: to begin again costs reading a row group again.
const LENT_AT_LEAST: Duration = Duration::from_millis(100);
/// Who asks nothing for so long is let go.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// Who takes nothing of an answer for so long is let go; sooner if others wait for their turn.
const STALL_MAX: Duration = Duration::from_secs(60);
const STALL_MAX_IF_WANTED: Duration = Duration::from_secs(5);
/// So long the writer may take for a copy of what it knows; then the last one will do.
const COPY_PATIENCE: Duration = Duration::from_secs(1);
/// At most so often those who follow the log are woken.
const WAKE_EVERY: Duration = Duration::from_millis(10);
/// After a failure to accept, the next try.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Refusals are said this often at most.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Serve {
    bound: Bound,
    medium: FileStorage,
    facts: Box<dyn Fn() -> Vec<OwnedFact> + Send>,
    copies: Copies,
    buffers: Buffers,
    bell: Bell,
    stop: Arc<AtomicBool>,
    checkpoints: Checkpoints,
    connections: VecDeque<Connection>,
    told: Vec<OwnedFact>,
    /// When the writer was told last to ring as soon as more is durable.
    woken: Option<Instant>,
    accept_from: Option<Instant>,
    said: Option<Instant>,
    unsaid: u32,
}

/// Checkpoints wait for the medium: in a thread of their own.
struct Checkpoints {
    ask: Sender<u64>,
    done: Receiver<(u64, Option<u64>)>,
    asked: u64,
}

impl Checkpoints {
    fn start(node: Handle<LinuxStorageError>, bell: Bell) -> io::Result<Self> {
        let (ask, asked) = unbounded::<u64>();
        let (tell, done) = bounded(CONNECTIONS_MAX);
        thread::Builder::new().name("api-checkpoint".into()).spawn(move || {
            while let Ok(first) = asked.recv() {
                // One for all that have asked.
                let last = asked.try_iter().last().unwrap_or(first);
                if tell.send((last, node.checkpoint().ok())).is_err() {
                    break;
                }
                bell.ring();
            }
        })?;
        Ok(Self { ask, done, asked: 0 })
    }

    fn ask(&mut self) -> u64 {
        self.asked = self.asked.saturating_add(1);
        let _ = self.ask.send(self.asked);
        self.asked
    }
}

impl Serve {
    pub(super) fn new(
        bound: Bound,
        medium: FileStorage,
        options: Options,
        node: Handle<LinuxStorageError>,
        bell: Bell,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let checkpoints =
            Checkpoints::start(node.clone(), bell.clone()).context("starting a thread for checkpoints")?;
        Ok(Self {
            bound,
            medium,
            facts: options.facts,
            buffers: Buffers::new(options.mounted.geometry),
            copies: Copies::new(node, bell.clone(), options.mounted),
            bell,
            stop,
            checkpoints,
            connections: VecDeque::new(),
            told: Vec::new(),
            woken: None,
            accept_from: None,
            said: None,
            unsaid: 0,
        })
    }

    pub(super) fn run(mut self) {
        while !self.stop.load(Ordering::SeqCst) {
            let now = Instant::now();
            self.hear(now);
            for _ in 0..self.connections.len() {
                // In turn: who has had theirs goes to the end.
                let Some(mut connection) = self.connections.pop_front() else { break };
                self.turn(&mut connection, now);
                if self.is_to_go(&connection, now) {
                    self.take_back(&mut connection);
                } else {
                    self.connections.push_back(connection);
                }
            }
            if let Err(error) = self.poll(now) {
                return say(format_args!("readers are served no more: {error}"));
            }
        }
    }

    /// What other threads have to say.
    fn hear(&mut self, now: Instant) {
        if self.copies.collect() {
            let waiting = self.connections.iter_mut().filter(|c| c.is_waiting());
            waiting.for_each(|c| c.holds = Holds::Nothing);
        }
        while let Ok((number, upto)) = self.checkpoints.done.try_recv() {
            let is_done = |c: &&mut Connection| matches!(c.holds, Holds::Checkpoint(n) if n <= number);
            self.connections.iter_mut().filter(is_done).for_each(|c| c.checkpointed(upto));
        }
        if self.wakes_at(now).is_some_and(|at| now >= at) {
            self.woken = Some(now);
            self.bell.await_more();
            // After that: what became durable before the bell was set is in this copy.
            self.copies.ask();
        }
    }

    /// When the writer is to be told that somebody waits; `None` if nobody does, or it knows.
    fn wakes_at(&self, now: Instant) -> Option<Instant> {
        if self.bell.is_awaited() || !self.connections.iter().any(Connection::is_waiting) {
            return None;
        }
        Some(self.woken.and_then(|woken| woken.checked_add(WAKE_EVERY)).unwrap_or(now))
    }

    /// One turn of a client.
    fn turn(&mut self, c: &mut Connection, now: Instant) {
        c.flush(now);
        if c.has_unsent() {
            self.share(c, now);
            return;
        }
        match c.holds {
            Holds::Nothing => {}
            Holds::Checkpoint(_) => return,
            Holds::Durable(until) if now >= until => c.wait_over(),
            Holds::Durable(_) => return,
            Holds::Copy(number) => {
                let is_late = now.saturating_duration_since(c.asked) >= COPY_PATIENCE;
                if !self.copies.has(number) && !is_late {
                    return;
                }
                c.holds = Holds::Nothing;
            }
        }
        if c.is_idle() {
            self.take_back(c);
            return;
        }
        if !self.has_place_for(c) {
            return;
        }
        if c.reads() && c.buffers.is_none() {
            (c.buffers, c.lent) = (self.buffers.lend(), now);
            if c.buffers.is_none() {
                return;
            }
        }
        let told: Vec<_> = self.told.iter().map(OwnedFact::fact).collect();
        let medium = &mut self.medium;
        let asks = self.copies.with(&told, |catalog, live| c.fill(medium, catalog, live, now));
        match asks {
            // The writer has not yet said anything, and is late.
            None => c.fail(ErrorCode::Busy, "the node does not answer yet: ask again later"),
            Some(Asks::Nothing) => {}
            Some(Asks::Copy) => {
                c.holds = Holds::Copy(self.copies.ask());
                c.asked = now;
            }
            Some(Asks::Checkpoint) => c.holds = Holds::Checkpoint(self.checkpoints.ask()),
            Some(Asks::Wait) => self.take_back(c),
        }
        c.flush(now);
        if c.is_idle() {
            self.take_back(c);
        } else {
            self.share(c, now);
        }
    }

    /// There is a place for its answer; short ones need none.
    fn has_place_for(&self, c: &Connection) -> bool {
        !c.reads() || c.is_served() || self.connections.iter().filter(|other| other.is_served()).count() < SERVED_MAX
    }

    /// Somebody waits for memory to read with, or for a place.
    fn is_wanted(&self) -> bool {
        self.connections.iter().any(|c| c.is_ready() && (!c.is_served() || (c.reads() && c.buffers.is_none())))
    }

    /// Somebody can have a turn at once.
    fn is_hot(&self) -> bool {
        let has_memory = |c: &Connection| !c.reads() || c.buffers.is_some() || self.buffers.has_some();
        self.connections.iter().any(|c| c.is_ready() && has_memory(c) && self.has_place_for(c))
    }

    /// Gives the memory of a scan to others, if they want it and this client has had it for a while.
    fn share(&mut self, c: &mut Connection, now: Instant) {
        if now.saturating_duration_since(c.lent) >= LENT_AT_LEAST && self.is_wanted() {
            self.take_back(c);
        }
    }

    fn take_back(&mut self, c: &mut Connection) {
        if let Some(buffers) = c.release() {
            self.buffers.take_back(buffers);
        }
    }

    fn is_to_go(&self, c: &Connection, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(c.active);
        let stall_max = if self.is_wanted() { STALL_MAX_IF_WANTED } else { STALL_MAX };
        c.is_over() || (c.is_idle() && quiet >= IDLE_MAX) || (c.has_unsent() && quiet >= stall_max)
    }

    /// Waits for clients, other threads, and time.
    fn poll(&mut self, now: Instant) -> io::Result<()> {
        let deadline = if self.is_hot() { Some(now) } else { self.next_deadline(now) };
        let timeout = deadline.map(|at| timespec(at.saturating_duration_since(now)));
        let accepts = self.accept_from.is_none_or(|from| now >= from);
        let mut fds = vec![PollFd::from_borrowed_fd(self.bell.fd(), PollFlags::IN)];
        let listens = if accepts { PollFlags::IN } else { PollFlags::empty() };
        fds.push(PollFd::new(&self.bound.listener, listens));
        let mut of = Vec::with_capacity(self.connections.len());
        for (index, c) in self.connections.iter().enumerate() {
            let mut wants = PollFlags::empty();
            wants.set(PollFlags::IN, c.listens());
            wants.set(PollFlags::OUT, c.has_unsent());
            // Who hung up is reported whatever is asked for, again and again.
            if !wants.is_empty() {
                fds.push(PollFd::new(&c.stream, wants));
                of.push(index);
            }
        }
        retry(|| poll(&mut fds, timeout.as_ref()))?;
        let mut has = fds.iter().map(|fd| !fd.revents().is_empty());
        let (rung, knocked) = (has.next() == Some(true), has.next() == Some(true));
        let spoke: Vec<usize> = has.zip(of).filter(|(has, _)| *has).map(|(_, index)| index).collect();
        if rung {
            self.bell.hush();
        }
        let now = Instant::now();
        for index in spoke {
            self.take_in(index, now);
        }
        if knocked && accepts {
            self.accept(now);
        }
        Ok(())
    }

    fn take_in(&mut self, index: usize, now: Instant) {
        let Some(c) = self.connections.get_mut(index).filter(|c| c.listens()) else { return };
        let Some(asks_status) = c.take_in(now) else { return };
        let buffers = c.release();
        if asks_status {
            self.told = (self.facts)();
            self.copies.want_facts();
        }
        c.holds = Holds::Copy(self.copies.ask());
        if let Some(buffers) = buffers {
            self.buffers.take_back(buffers);
        }
    }

    fn accept(&mut self, now: Instant) {
        self.accept_from = None;
        loop {
            match self.bound.listener.accept() {
                Ok((stream, _)) => {
                    if let Err(refusal) = self.bound.allowed.check(&stream) {
                        self.say_refused(&refusal.0, now);
                    } else if self.makes_room()
                        && let Ok(connection) = Connection::new(stream, now)
                    {
                        self.connections.push_back(connection);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Too many files are open, most likely: one less, and a pause.
                    self.accept_from = now.checked_add(ACCEPT_AGAIN);
                    self.drop_idle();
                    return self.say_refused(&error.to_string(), now);
                }
            }
        }
    }

    /// There is room for one more connection, if need be in place of an idle one.
    fn makes_room(&mut self) -> bool {
        self.connections.len() < CONNECTIONS_MAX || self.drop_idle()
    }

    /// Lets the connection go that has been idle the longest.
    fn drop_idle(&mut self) -> bool {
        let idle = self.connections.iter().enumerate().filter(|(_, c)| c.is_idle());
        let Some((index, _)) = idle.min_by_key(|(_, c)| c.active) else { return false };
        self.connections.remove(index).is_some()
    }

    fn say_refused(&mut self, why: &str, now: Instant) {
        self.unsaid = self.unsaid.saturating_add(1);
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < SAY_EVERY) {
            return;
        }
        self.said = Some(now);
        let times = match std::mem::take(&mut self.unsaid) {
            1 => String::new(),
            n => format!(" ({n} times)"),
        };
        say(format_args!("a reader is refused{times}: {why}"));
    }

    /// When something is to be done although nothing has come.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let after = |from: Instant, wait: Duration| from.checked_add(wait);
        let is_wanted = self.is_wanted();
        let stall_max = if is_wanted { STALL_MAX_IF_WANTED } else { STALL_MAX };
        let of = |c: &Connection| match c.holds {
            _ if is_wanted && c.buffers.is_some() => after(c.lent, LENT_AT_LEAST),
            Holds::Durable(until) => Some(until),
            Holds::Copy(_) => after(c.asked, COPY_PATIENCE),
            _ if c.has_unsent() => after(c.active, stall_max),
            _ if c.is_idle() => after(c.active, IDLE_MAX),
            _ => None,
        };
        let accept = self.accept_from.filter(|from| *from > now);
        self.connections.iter().filter_map(of).chain(self.wakes_at(now)).chain(accept).min()
    }
}

/// Rounded up: a poll that ends too early would be called again at once.
fn timespec(wait: Duration) -> Timespec {
    let wait = wait.saturating_add(Duration::from_micros(u64::from(!wait.is_zero()) * 100));
    Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(wait.subsec_nanos()) }
}
