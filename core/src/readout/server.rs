//! The node's half: turns a request into a sequence of messages, one per call.
//!
//! Invariants: it blocks on nothing but storage, and looks at a bounded number of records per call; it keeps nothing
//! between two requests; a message that did not fit comes again; nothing is called rotten that a newer copy of the
//! catalog could explain.
//!
//! ```text
//!             ask(request)                 next(..) -> Message ...
//!   Idle ─────────────────▶ answering ───────────────────────────▶ Idle
//!                              │  next(..) -> Wait        ▲ next(..) with a newer catalog, or wait_over()
//!                              │  next(..) -> Checkpoint  │ checkpointed(..)
//!                              └──────────────────────────┘
//! ```

use super::answer::{Answer, Boot, BootEnd, End, ErrorCode, Fact, Hello, Place};
use super::boots::{self, Boots};
use super::reading::{Found, Reading, Stop};
use super::request::Request;
use super::status::Status;
use super::{DecodeError, SMALL_MESSAGE_BYTES_MAX, VERSION, framed_bytes, message_bytes_max};
use crate::catalog::Catalog;
use crate::format::edit::SegmentUse;
use crate::format::header::ClockAnchor;
use crate::hal::ReadStorage;
use crate::scan::ScanMemory;

/// Streams with numbers below this are named once in an answer; others before each of their records.
const STREAMS_NOTED: usize = 512;

/// What only the host knows of its node.
#[derive(Debug, Clone, Copy)]
pub struct Live<'a> {
    /// Name and version of the program.
    pub software: &'a str,
    /// A writer runs.
    pub running: bool,
    /// How the boot before the mount ended.
    pub previous_end: BootEnd,
    /// Clock of the running boot.
    pub clock: ClockAnchor,
    /// Its numbers; those that the catalog knows are filled in.
    pub status: Status,
    /// What else there is to tell.
    pub facts: &'a [Fact<'a>],
}

/// What the host is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Send so many bytes of `out`.
    Message(usize),
    /// Call again with an `out` of at least so many bytes.
    Room(usize),
    /// If the catalog is a copy, take a newer one; then call again.
    Refresh,
    /// Call again with a newer catalog when more is durable, or [`Server::wait_over`] after so many milliseconds.
    Wait {
        /// From when it was said first; said again, it begins no new wait.
        ms: u32,
    },
    /// Make everything durable that is taken in, then call [`Server::checkpointed`].
    Checkpoint,
    /// There is nothing to answer.
    Idle,
}

// There is one per client, and no heap to put the large variant on.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum State {
    Idle,
    Hello(u8),
    Status { told: bool, fact: usize },
    Streams(u16),
    Gaps(usize),
    Boots(Boots),
    Checkpoint,
    Durable(u64),
    Reading(Reading),
    Ending(End),
    Failing(ErrorCode, &'static str),
}

/// Answers one client.
#[derive(Debug)]
pub struct Server {
    state: State,
    place: Place,
    named: [u32; STREAMS_NOTED / 32],
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Idle, place: Place { request: 0, position: 0 }, named: [0; STREAMS_NOTED / 32] }
    }

    /// There is nothing to answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// The answer reads the log: `next` needs memory for it.
    #[must_use]
    pub fn reads(&self) -> bool {
        matches!(self.state, State::Reading(_) | State::Boots(_))
    }

    /// Takes a request, as the line's decoder gives it; the answer under way is over.
    pub fn ask(&mut self, message: &[u8]) {
        self.named.fill(0);
        let (request, state) = match Request::decode(message) {
            Ok((number, request)) => (number, state_for(&request)),
            Err(DecodeError::UnknownKind { request, .. }) => {
                let words = "this node does not know this kind of request: it may be older than the client";
                (request, State::Failing(ErrorCode::UnknownRequest, words))
            }
            Err(DecodeError::Malformed { request }) => {
                (request, State::Failing(ErrorCode::Malformed, "the request cannot be read"))
            }
        };
        self.place = Place { request, position: 0 };
        self.state = state;
    }

    /// Ends the answer under way with an error; what was being answered is forgotten.
    pub fn fail(&mut self, code: ErrorCode, words: &'static str) {
        if !self.is_idle() {
            self.state = State::Failing(code, words);
        }
    }

    /// The wait that was asked for is over and nothing has come.
    pub fn wait_over(&mut self) {
        if let State::Reading(reading) = &mut self.state {
            reading.wait_over();
        }
    }

    /// The checkpoint that was asked for is done: everything up to this number is durable.
    ///
    /// # Errors
    /// None; an error that is handed in is told to the client.
    pub fn checkpointed(&mut self, result: Result<u64, (ErrorCode, &'static str)>) {
        if matches!(self.state, State::Checkpoint) {
            self.state = match result {
                Ok(upto) => State::Durable(upto),
                Err((code, words)) => State::Failing(code, words),
            };
        }
    }

    /// Gives the scan's memory up between two calls: it may be used for something else before the next.
    pub fn release(&mut self) {
        if let State::Reading(reading) = &mut self.state {
            reading.release();
        }
    }

    /// The next step of the answer. `mem` is that of the call before, untouched, but after [`Self::release`].
    pub fn next<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        live: &Live<'_>,
        mem: &mut ScanMemory<'_>,
        out: &mut [u8],
    ) -> Step {
        match &mut self.state {
            State::Idle => Step::Idle,
            State::Checkpoint => Step::Checkpoint,
            State::Hello(version) => {
                let hello = Hello {
                    version: (*version).clamp(1, VERSION),
                    store_id: catalog.store_id(),
                    boot: catalog.head.epoch,
                    running: live.running,
                    message_bytes_max: longest(live),
                    software: clip(live.software, 255),
                };
                self.last_but_end(&Answer::Hello(hello), catalog, out)
            }
            State::Durable(upto) => {
                let answer = Answer::Durable { upto: *upto };
                self.last_but_end(&answer, catalog, out)
            }
            State::Status { told: false, .. } => {
                let answer = Answer::Status(status(catalog, live));
                self.emit(&answer, out, |state| *state = State::Status { told: true, fact: 0 })
            }
            State::Status { fact, .. } => {
                let at = *fact;
                match live.facts.get(at) {
                    Some(fact) => {
                        let answer = Answer::Fact(*fact);
                        let fact = at.saturating_add(1);
                        self.emit(&answer, out, |state| *state = State::Status { told: true, fact })
                    }
                    None => self.end(catalog, out),
                }
            }
            State::Streams(id) => {
                let id = *id;
                let Some((id, name)) = catalog.streams().iter().find(|(i, _)| *i >= id) else {
                    return self.end(catalog, out);
                };
                let next = id.saturating_add(1);
                self.emit(&Answer::Stream { id, name }, out, |state| *state = State::Streams(next))
            }
            State::Gaps(at) => {
                let at = *at;
                let Some(gap) = catalog.gaps().get(at).copied() else { return self.end(catalog, out) };
                if let Some(step) = gap.stream.and_then(|id| self.name(id, catalog, out)) {
                    return step;
                }
                self.emit(&Answer::Gap(gap), out, |state| *state = State::Gaps(at.saturating_add(1)))
            }
            State::Boots(_) => self.boots(s, catalog, live, mem, out),
            State::Reading(_) => self.read(s, catalog, mem, out),
            State::Ending(end) => {
                let answer = Answer::End(*end);
                self.emit(&answer, out, |state| *state = State::Idle)
            }
            State::Failing(code, words) => {
                let answer = Answer::Error { code: *code, words };
                self.emit(&answer, out, |state| *state = State::Idle)
            }
        }
    }

    /// Writes a message; when it fits, the state goes on.
    fn emit(&mut self, answer: &Answer<'_>, out: &mut [u8], then: impl FnOnce(&mut State)) -> Step {
        match answer.write(self.place, out) {
            Some(len) => {
                self.place.position = self.place.position.saturating_add(1);
                then(&mut self.state);
                Step::Message(len)
            }
            None => Step::Room(framed_bytes(answer.bytes_max())),
        }
    }

    fn last_but_end(&mut self, answer: &Answer<'_>, catalog: &Catalog<'_>, out: &mut [u8]) -> Step {
        let end = end_at(catalog);
        self.emit(answer, out, |state| *state = State::Ending(end))
    }

    fn end(&mut self, catalog: &Catalog<'_>, out: &mut [u8]) -> Step {
        self.emit(&Answer::End(end_at(catalog)), out, |state| *state = State::Idle)
    }

    /// The message with a stream's name, if it has not been sent in this answer.
    fn name(&mut self, id: u16, catalog: &Catalog<'_>, out: &mut [u8]) -> Option<Step> {
        let word = usize::from(id / 32);
        let bit = 1u32.checked_shl(u32::from(id % 32))?;
        if self.named.get(word).is_some_and(|noted| noted & bit != 0) {
            return None;
        }
        let name = catalog.streams().name(id)?;
        let step = self.emit(&Answer::Stream { id, name }, out, |_| ());
        if matches!(step, Step::Message(_))
            && let Some(noted) = self.named.get_mut(word)
        {
            *noted |= bit;
        }
        Some(step)
    }

    fn boots<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        live: &Live<'_>,
        mem: &mut ScanMemory<'_>,
        out: &mut [u8],
    ) -> Step {
        let next_seq = live.status.next_seq.max(catalog.durable_upto().saturating_add(1));
        let running = live.running.then_some(Boot {
            epoch: catalog.head.epoch,
            first_seq: next_seq,
            last_seq: next_seq.saturating_sub(1),
            clock: live.clock,
            end: BootEnd::Running,
            torn_bytes: 0,
        });
        if out.len() < framed_bytes(SMALL_MESSAGE_BYTES_MAX) {
            return Step::Room(framed_bytes(SMALL_MESSAGE_BYTES_MAX)); // what is found is given out once
        }
        let State::Boots(boots) = &mut self.state else { return Step::Idle };
        match boots.next(s, catalog, mem.frame, running, live.previous_end) {
            boots::Next::Boot(boot) => self.emit(&Answer::Boot(boot), out, |_| ()),
            boots::Next::NotYet => self.emit(&Answer::Progress { next: 0 }, out, |_| ()),
            boots::Next::End => self.end(catalog, out),
        }
    }

    fn read<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
        out: &mut [u8],
    ) -> Step {
        let State::Reading(reading) = &mut self.state else { return Step::Idle };
        let (answer, stream) = match reading.next(s, catalog, mem) {
            Found::Record(record) => (Answer::Record(record), Some(record.stream)),
            Found::Gap(gap) => (Answer::Gap(gap), gap.stream),
            Found::Event(event) => (Answer::Event(event), None),
            Found::Progress(next) => (Answer::Progress { next }, None),
            Found::Stop(Stop::Refresh) => return Step::Refresh,
            Found::Stop(Stop::Wait(ms)) => return Step::Wait { ms },
            Found::Stop(Stop::End(end)) => {
                self.state = State::Ending(end);
                return self.emit(&Answer::End(end), out, |state| *state = State::Idle);
            }
        };
        if let Some(step) = stream.and_then(|id| self.name(id, catalog, out)) {
            if let (Step::Message(len), State::Reading(reading)) = (step, &mut self.state) {
                reading.sent_beside(len);
            }
            return step;
        }
        let step = self.emit(&answer, out, |_| ());
        if let (Step::Message(len), State::Reading(reading)) = (step, &mut self.state) {
            reading.sent(len);
        }
        step
    }
}

fn state_for(request: &Request<'_>) -> State {
    match request {
        Request::Hello { version } => State::Hello(*version),
        Request::Status => State::Status { told: false, fact: 0 },
        Request::Streams => State::Streams(0),
        Request::Gaps => State::Gaps(0),
        Request::Boots => State::Boots(Boots::default()),
        Request::Checkpoint => State::Checkpoint,
        Request::Read(read) => match Reading::new(read) {
            Some(reading) => State::Reading(reading),
            None => State::Failing(ErrorCode::Malformed, "the name of the stream is longer than any can be"),
        },
    }
}

fn end_at(catalog: &Catalog<'_>) -> End {
    let durable_upto = catalog.durable_upto();
    End { next: 0, more: false, waited: false, durable_upto }
}

/// The longest message of a node.
fn longest(live: &Live<'_>) -> u32 {
    let record = usize::try_from(live.status.record_bytes_max).unwrap_or(usize::MAX);
    u32::try_from(message_bytes_max(record)).unwrap_or(u32::MAX)
}

/// The front of a text, of at most so many bytes.
fn clip(text: &str, bytes: usize) -> &str {
    let end = text.char_indices().map(|(i, c)| i.saturating_add(c.len_utf8())).take_while(|end| *end <= bytes).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// The numbers of the host, with what the catalog knows better.
fn status(catalog: &Catalog<'_>, live: &Live<'_>) -> Status {
    let count = |used_for: SegmentUse| {
        let matching = |(_, e): &(u32, &crate::pool::SegmentEntry)| e.state.used_for == used_for;
        catalog.pool().iter().filter(matching).count()
    };
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let geometry = catalog.geometry();
    Status {
        durable_upto: catalog.durable_upto(),
        floor: catalog.floor(),
        boot: u64::from(catalog.head.epoch),
        running: u64::from(live.running),
        segment_bytes: u64::from(geometry.segment_bytes),
        segments: u64::from(geometry.segments),
        log_segments: number(catalog.pool().order().len()),
        announced_segments: number(catalog.pool().announced()),
        free_segments: number(count(SegmentUse::Free)),
        manifest_segments: number(count(SegmentUse::Manifest)),
        retired_segments: number(count(SegmentUse::Retired)),
        gaps: number(catalog.gaps().len()),
        streams: number(catalog.streams().iter().count()),
        ..live.status
    }
}
