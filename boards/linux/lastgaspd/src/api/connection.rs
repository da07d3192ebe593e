//! One client.
//!
//! Invariants: what it sends is bounded by a request, what waits for it by one message and a bit; a client that does
//! not read is not written to, and nobody else waits for it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lastgasp_core::catalog::Catalog;
use lastgasp_core::readout::{
    ErrorCode, LineDecoder, Live, REQUEST_BYTES_MAX, Request, Server, Step, message_bytes_max,
};
use lastgasp_core::scan::ScanMemory;
use lastgasp_hal_linux::{FileStorage, ScanBuffers};

/// So much is put together before it is sent.
const OUT_BYTES: usize = 64 << 10;
/// Room for the messages that are no records.
const OUT_ROOM: usize = 1 << 10;
/// More garbage than this is no client of ours.
const BAD_FRAMES_MAX: u64 = 16;
/// So much may come without one request in it.
const UNASKED_BYTES_MAX: usize = 64 << 10;
/// The longest wait, whatever is asked for.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What holds an answer up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Nothing.
    Nothing,
    /// A copy of the catalog with this number or a later one.
    Copy(u64),
    /// More has to become durable, until then.
    Durable(Instant),
    /// A checkpoint with this number or a later one.
    Checkpoint(u64),
}

/// What the last steps asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// To be called again when what was put together is sent.
    Nothing,
    /// A newer copy.
    Copy,
    /// To be woken when more is durable.
    Wait,
    /// A checkpoint.
    Checkpoint,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    decoder: LineDecoder,
    input: [u8; REQUEST_BYTES_MAX],
    unasked_bytes: usize,
    server: Server,
    out: Vec<u8>,
    sent: usize,
    filled: usize,
    pub(super) buffers: Option<ScanBuffers>,
    /// When it got them.
    pub(super) lent: Instant,
    pub(super) holds: Holds,
    /// When the wait of this request is over.
    wait_until: Option<Instant>,
    /// When it last sent or took something.
    pub(super) active: Instant,
    /// When this request came.
    pub(super) asked: Instant,
    ended: bool,
    broken: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            decoder: LineDecoder::new(),
            input: [0; REQUEST_BYTES_MAX],
            unasked_bytes: 0,
            server: Server::new(),
            out: Vec::new(),
            sent: 0,
            filled: 0,
            buffers: None,
            lent: now,
            holds: Holds::Nothing,
            wait_until: None,
            active: now,
            asked: now,
            ended: false,
            broken: false,
        })
    }

    /// Nothing is asked or left to send.
    pub(super) fn is_idle(&self) -> bool {
        self.server.is_idle() && !self.has_unsent()
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.filled
    }

    /// It has memory for an answer.
    pub(super) fn is_served(&self) -> bool {
        !self.out.is_empty()
    }

    /// Nothing holds its answer up but memory.
    pub(super) fn is_ready(&self) -> bool {
        self.holds == Holds::Nothing && !self.has_unsent() && !self.server.is_idle()
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.holds, Holds::Durable(_))
    }

    /// It reads the log: it needs a scan's memory.
    pub(super) fn reads(&self) -> bool {
        self.server.reads()
    }

    /// It wants to be read from.
    pub(super) fn listens(&self) -> bool {
        !self.ended && !self.broken
    }

    /// It is over.
    pub(super) fn is_over(&self) -> bool {
        self.broken || (self.ended && (self.is_idle() || self.is_waiting()))
    }

    /// Reads what has come; `true` if a request was in it, and whether that asks for the status.
    pub(super) fn take_in(&mut self, now: Instant) -> Option<bool> {
        let mut bytes = [0; 4096];
        let mut asked = None;
        let got = match self.stream.read(&mut bytes) {
            Ok(0) => {
                self.ended = true;
                return None;
            }
            Ok(got) => got,
            Err(error) => {
                self.broken |= !is_passing(&error);
                return None;
            }
        };
        let mut rest = bytes.get(..got).unwrap_or_default();
        self.unasked_bytes = self.unasked_bytes.saturating_add(got);
        while let Some(message) = self.decoder.next(&mut rest, &mut self.input) {
            asked = Some(matches!(Request::decode(message), Ok((_, Request::Status))));
            self.server.ask(message);
            (self.unasked_bytes, self.active, self.asked) = (0, now, now);
            (self.holds, self.wait_until) = (Holds::Nothing, None);
        }
        self.broken |= self.decoder.bad_frames() > BAD_FRAMES_MAX || self.unasked_bytes > UNASKED_BYTES_MAX;
        asked
    }

    /// Sends what it can.
    pub(super) fn flush(&mut self, now: Instant) {
        while let Some(unsent) = self.out.get(self.sent..self.filled).filter(|unsent| !unsent.is_empty()) {
            match self.stream.write(unsent) {
                Ok(0) => self.broken = true,
                Ok(sent) => {
                    self.sent = self.sent.saturating_add(sent);
                    self.active = now;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.broken = true,
            }
            if self.broken {
                return;
            }
        }
        (self.sent, self.filled) = (0, 0);
        if self.server.is_idle() || matches!(self.holds, Holds::Durable(_) | Holds::Checkpoint(_)) {
            self.out = Vec::new();
        }
    }

    /// Gives the scan's memory up.
    pub(super) fn release(&mut self) -> Option<ScanBuffers> {
        self.server.release();
        self.buffers.take()
    }

    /// A wait is over.
    pub(super) fn wait_over(&mut self) {
        self.server.wait_over();
        self.holds = Holds::Nothing;
    }

    /// A checkpoint has been made, or cannot be.
    pub(super) fn checkpointed(&mut self, upto: Option<u64>) {
        let words = "the store takes no more writes, or the node is stopping";
        self.server.checkpointed(upto.ok_or((ErrorCode::ReadOnly, words)));
        self.holds = Holds::Nothing;
    }

    /// Gives up answering what is asked.
    pub(super) fn fail(&mut self, code: ErrorCode, words: &'static str) {
        self.server.fail(code, words);
        self.holds = Holds::Nothing;
    }

    /// Puts messages together, a bit at a time.
    pub(super) fn fill(&mut self, s: &mut FileStorage, catalog: &Catalog<'_>, live: &Live<'_>, now: Instant) -> Asks {
        let longest = message_bytes_max(usize::try_from(live.status.record_bytes_max).unwrap_or(0));
        let mut room = OUT_ROOM;
        while self.filled < OUT_BYTES {
            let need = self.filled.saturating_add(room);
            if self.out.len() < need {
                self.out.resize(need.max(OUT_BYTES.saturating_add(OUT_ROOM)), 0);
            }
            let mut none = ScanMemory { frame: &mut [], raw: &mut [], slots: &mut [] };
            let mut some = self.buffers.as_mut().map(ScanBuffers::parts);
            let memory = some.as_mut().unwrap_or(&mut none);
            let out = self.out.get_mut(self.filled..).unwrap_or_default();
            match self.server.next(s, catalog, live, memory, out) {
                Step::Message(len) => (self.filled, room) = (self.filled.saturating_add(len), OUT_ROOM),
                Step::Room(bytes) if bytes <= longest => room = bytes,
                Step::Room(_) => {
                    let words = "a record is larger than this store takes: read on behind it";
                    self.server.fail(ErrorCode::TooLarge, words);
                }
                Step::Refresh => return Asks::Copy,
                Step::Wait { ms } => {
                    let wait = Duration::from_millis(u64::from(ms)).min(WAIT_MAX);
                    let until = *self.wait_until.get_or_insert_with(|| now.checked_add(wait).unwrap_or(now));
                    self.holds = Holds::Durable(until);
                    return Asks::Wait;
                }
                Step::Checkpoint => return Asks::Checkpoint,
                Step::Idle => return Asks::Nothing,
            }
        }
        Asks::Nothing
    }
}

/// An error that says nothing of the connection.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
