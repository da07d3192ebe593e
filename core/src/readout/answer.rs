//! What a node answers (READOUT, section 5).
//!
//! Invariant: each message says to which request it belongs and where in the answer it stands, so that a client sees
//! what the line has lost.

pub use super::code::{BootEnd, ErrorCode};
use super::code::{gap_cause, gap_cause_code};
use super::line::{MessageWriter, write_message};
use super::{DecodeError, RECORD_OVERHEAD_BYTES, SMALL_MESSAGE_BYTES_MAX, Status};
use crate::format::events::{Close, Origin};
use crate::format::header::ClockAnchor;
use crate::format::row::{ItemReader, TraceContext};
use crate::gaps::Gap;

const HELLO: u8 = 0x81;
const STATUS: u8 = 0x82;
const STREAM: u8 = 0x83;
const GAP: u8 = 0x84;
const BOOT: u8 = 0x85;
const DURABLE: u8 = 0x86;
const RECORD: u8 = 0x87;
const EVENT: u8 = 0x88;
const PROGRESS: u8 = 0x89;
const FACT: u8 = 0x8A;
const ERROR: u8 = 0x8E;
const END: u8 = 0x8F;

const EVENT_BOOT: u8 = 1;
const EVENT_CLOSE: u8 = 2;

const RECORD_CONTINUED: u8 = 1;
const RECORD_WALL: u8 = 2;
const RECORD_SYNCHRONISED: u8 = 4;
const RECORD_EVENT_TIME: u8 = 8;
const RECORD_TRACE: u8 = 16;

const END_MORE: u8 = 1;
const END_WAITED: u8 = 2;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Version of the protocol the node goes on with.
    pub version: u8,
    /// The store's id.
    pub store_id: u64,
    /// Epoch of the running boot; where nothing runs, of the next one.
    pub boot: u32,
    /// A writer runs: what is read may grow.
    pub running: bool,
    /// The longest message on the line.
    pub message_bytes_max: u32,
    /// Name and version of the program.
    pub software: &'a str,
}

/// A boot that wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Its number.
    pub epoch: u32,
    /// Number of its first record, if it took one in.
    pub first_seq: u64,
    /// Number of its last record that was adopted; one less than the first if there is none.
    pub last_seq: u64,
    /// Its clock, as corrected since.
    pub clock: ClockAnchor,
    /// How it ended.
    pub end: BootEnd,
    /// Bytes at the end of its log that did not verify and were not durable.
    pub torn_bytes: u32,
}

/// A record, as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its sequence number.
    pub seq: u64,
    /// Stream number; the name came before in a [`Answer::Stream`].
    pub stream: u16,
    /// Severity, 1 to 24; 0 is unknown.
    pub severity: u8,
    /// It goes on in the next record of its stream.
    pub continued: bool,
    /// Epoch of the boot that took it in; 0 if that is not known.
    pub boot: u32,
    /// Clock epoch it was received in.
    pub clock_epoch: u32,
    /// When it was received: microseconds since its clock epoch began.
    pub received_offset_us: u64,
    /// Wall clock when its clock epoch began, if that is known: microseconds since 1970.
    pub clock_wall_us: Option<i64>,
    /// That clock was synchronised.
    pub synchronised: bool,
    /// When it happened, as the sender said: microseconds since 1970.
    pub event_time_us: Option<i64>,
    /// Trace and span it belongs to.
    pub trace: Option<TraceContext>,
    /// The text or bytes of the record.
    pub body: &'a [u8],
    /// Encoded fields, see [`crate::format::fields`].
    pub fields: &'a [u8],
}

impl Record<'_> {
    /// When it was received by the wall clock, if that is known: microseconds since 1970.
    #[must_use]
    pub fn received_wall_us(&self) -> Option<i64> {
        self.clock_wall_us?.checked_add(i64::try_from(self.received_offset_us).ok()?)
    }
}

/// Something that happened to the node, at its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A boot that wrote began here.
    Boot {
        /// The boot; its end is not known here, so it is that of the boot before.
        epoch: u32,
        /// The number its first record got.
        first_seq: u64,
        /// Its clock, as corrected since.
        clock: ClockAnchor,
        /// How the boot before ended.
        previous_end: BootEnd,
        /// Bytes at the end of the log that did not verify and were not durable.
        torn_bytes: u32,
    },
    /// A clean stop.
    Close {
        /// The next sequence number.
        next_seq: u64,
    },
    /// Something that this version does not know.
    Unknown(u8),
}

impl From<Origin> for Event {
    fn from(origin: Origin) -> Self {
        Self::Boot {
            epoch: origin.epoch,
            first_seq: origin.first_seq,
            clock: origin.anchor,
            previous_end: origin.previous_end.into(),
            torn_bytes: origin.torn_bytes,
        }
    }
}

impl From<Close> for Event {
    fn from(close: Close) -> Self {
        Self::Close { next_seq: close.next_seq }
    }
}

/// Named values the node tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact<'a> {
    /// Of what kind: `source`, `stream`, `class`.
    pub topic: &'a str,
    /// Of which one.
    pub name: &'a str,
    /// The values, encoded as the fields of a record, see [`crate::format::fields`].
    pub fields: &'a [u8],
}

/// The end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Where the next window begins; newest first: where it ends, 0 when all is said.
    pub next: u64,
    /// A limit ended the answer, and there is more now.
    pub more: bool,
    /// The wait was over and nothing had come.
    pub waited: bool,
    /// Everything up to here was durable.
    pub durable_upto: u64,
}

/// A message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Who answers.
    Hello(Hello<'a>),
    /// The node's numbers.
    Status(Status),
    /// Name of a stream.
    Stream {
        /// Its number.
        id: u16,
        /// Its name.
        name: &'a str,
    },
    /// Records that are gone.
    Gap(Gap),
    /// A boot of the list.
    Boot(Boot),
    /// Everything up to here is durable.
    Durable {
        /// The number.
        upto: u64,
    },
    /// A record.
    Record(Record<'a>),
    /// An event.
    Event(Event),
    /// Nothing that matches lies before this number (above it, newest first); more is being looked at.
    Progress {
        /// The number.
        next: u64,
    },
    /// Something the node tells of itself.
    Fact(Fact<'a>),
    /// Why there is no answer, or no more of it.
    Error {
        /// The code.
        code: ErrorCode,
        /// What is wrong and what to do.
        words: &'a str,
    },
    /// The end of the answer.
    End(End),
}

/// To which request a message belongs, and where in the answer it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the request.
    pub request: u32,
    /// Position in the answer, from 0.
    pub position: u32,
}

impl<'a> Answer<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Status(_) => STATUS,
            Self::Stream { .. } => STREAM,
            Self::Gap(_) => GAP,
            Self::Boot(_) => BOOT,
            Self::Durable { .. } => DURABLE,
            Self::Record(_) => RECORD,
            Self::Event(_) => EVENT,
            Self::Progress { .. } => PROGRESS,
            Self::Fact(_) => FACT,
            Self::Error { .. } => ERROR,
            Self::End(_) => END,
        }
    }

    /// The answer ends with this message.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Error { .. } | Self::End(_))
    }

    /// Bytes of the message before framing, with its checksum, at most.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        match self {
            Self::Record(record) => {
                let bytes = record.body.len().saturating_add(record.fields.len());
                bytes.saturating_add(RECORD_OVERHEAD_BYTES)
            }
            Self::Fact(fact) => {
                let bytes = fact.topic.len().saturating_add(fact.name.len());
                bytes.saturating_add(fact.fields.len()).saturating_add(RECORD_OVERHEAD_BYTES)
            }
            Self::Error { words, .. } => words.len().saturating_add(RECORD_OVERHEAD_BYTES),
            _ => SMALL_MESSAGE_BYTES_MAX,
        }
    }

    /// Writes the message, framed; returns its length. `None` if it does not fit.
    #[must_use]
    pub fn write(&self, place: Place, out: &mut [u8]) -> Option<usize> {
        write_message(out, |w| {
            w.bytes(&[self.kind()])?;
            w.value(&place.request)?;
            w.value(&place.position)?;
            self.write_fields(w)
        })
    }

    fn write_fields(&self, w: &mut MessageWriter<'_>) -> Option<()> {
        match self {
            Self::Hello(hello) => {
                w.bytes(&[hello.version])?;
                w.value(&(hello.store_id, hello.boot))?;
                w.value(&(hello.running, hello.message_bytes_max))?;
                w.slice(hello.software.as_bytes())
            }
            Self::Status(status) => status.write(w),
            Self::Stream { id, name } => {
                w.value(id)?;
                w.slice(name.as_bytes())
            }
            Self::Gap(gap) => {
                w.value(&gap.first_seq)?;
                w.value(&gap.last_seq)?;
                w.value(&(gap.exact, gap_cause_code(gap.cause), gap.stream))
            }
            Self::Boot(boot) => {
                w.value(&boot.epoch)?;
                w.value(&boot.first_seq)?;
                w.value(&boot.last_seq)?;
                w.value(&boot.clock)?;
                w.value(&(boot.end.code(), boot.torn_bytes))
            }
            Self::Durable { upto } => w.value(upto),
            Self::Record(record) => record.write(w),
            Self::Event(Event::Boot { epoch, first_seq, clock, previous_end, torn_bytes }) => {
                w.value(&(EVENT_BOOT, *epoch, *first_seq))?;
                w.value(clock)?;
                w.value(&(previous_end.code(), *torn_bytes))
            }
            Self::Event(Event::Close { next_seq }) => w.value(&(EVENT_CLOSE, *next_seq)),
            Self::Event(Event::Unknown(what)) => w.bytes(&[*what]),
            Self::Progress { next } => w.value(next),
            Self::Fact(fact) => {
                w.slice(fact.topic.as_bytes())?;
                w.slice(fact.name.as_bytes())?;
                w.slice(fact.fields)
            }
            Self::Error { code, words } => {
                w.bytes(&[code.code()])?;
                w.slice(words.as_bytes())
            }
            Self::End(end) => {
                let more = if end.more { END_MORE } else { 0 };
                let waited = if end.waited { END_WAITED } else { 0 };
                w.value(&(end.next, more | waited))?;
                w.value(&end.durable_upto)
            }
        }
    }

    /// Reads a message without its frame: the answer, and its place.
    ///
    /// # Errors
    /// It is none, or none of this version.
    pub fn decode(message: &'a [u8]) -> Result<(Place, Self), DecodeError> {
        let mut reader = ItemReader::new(message);
        let head: Option<(u8, u32, u32)> = reader.value();
        let (kind, request, position) = head.ok_or(DecodeError::Malformed { request: 0 })?;
        let r = &mut reader;
        let read = match kind {
            HELLO => Hello::read(r).map(Self::Hello),
            STATUS => Status::read(r).map(Self::Status),
            STREAM => r.value().map(|(id, name)| Self::Stream { id, name }),
            GAP => read_gap(r).map(Self::Gap),
            BOOT => Boot::read(r).map(Self::Boot),
            DURABLE => r.value().map(|upto| Self::Durable { upto }),
            RECORD => Record::read(r).map(Self::Record),
            EVENT => Event::read(r).map(Self::Event),
            PROGRESS => r.value().map(|next| Self::Progress { next }),
            FACT => r.value().map(|(topic, name, fields)| Self::Fact(Fact { topic, name, fields })),
            ERROR => r.value().map(|(code, words)| Self::Error { code: ErrorCode::from_code(code), words }),
            END => r.value().map(|(next, flags, durable_upto): (u64, u8, u64)| {
                let (more, waited) = (flags & END_MORE != 0, flags & END_WAITED != 0);
                Self::End(End { next, more, waited, durable_upto })
            }),
            _ => return Err(DecodeError::UnknownKind { kind, request, position }),
        };
        read.map(|answer| (Place { request, position }, answer)).ok_or(DecodeError::Malformed { request })
    }
}

impl<'a> Hello<'a> {
    fn read(reader: &mut ItemReader<'a>) -> Option<Self> {
        let (version, store_id, boot, running, message_bytes_max, software) = reader.value()?;
        Some(Self { version, store_id, boot, running, message_bytes_max, software })
    }
}

impl Boot {
    fn read(reader: &mut ItemReader<'_>) -> Option<Self> {
        let (epoch, first_seq, last_seq, clock, end, torn_bytes) = reader.value()?;
        Some(Self { epoch, first_seq, last_seq, clock, end: BootEnd::from_code(end), torn_bytes })
    }
}

impl Event {
    fn read(reader: &mut ItemReader<'_>) -> Option<Self> {
        match reader.value()? {
            EVENT_BOOT => {
                let (epoch, first_seq, clock, end, torn_bytes) = reader.value()?;
                let previous_end = BootEnd::from_code(end);
                Some(Self::Boot { epoch, first_seq, clock, previous_end, torn_bytes })
            }
            EVENT_CLOSE => reader.value().map(|next_seq| Self::Close { next_seq }),
            what => Some(Self::Unknown(what)),
        }
    }
}

impl<'a> Record<'a> {
    fn write(&self, w: &mut MessageWriter<'_>) -> Option<()> {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = flag(self.continued, RECORD_CONTINUED)
            | flag(self.clock_wall_us.is_some(), RECORD_WALL)
            | flag(self.synchronised, RECORD_SYNCHRONISED)
            | flag(self.event_time_us.is_some(), RECORD_EVENT_TIME)
            | flag(self.trace.is_some(), RECORD_TRACE);
        w.value(&(self.seq, self.stream, self.severity, flags))?;
        w.value(&(self.boot, self.clock_epoch))?;
        w.value(&self.received_offset_us)?;
        if let Some(wall) = self.clock_wall_us {
            w.value(&wall)?;
        }
        if let Some(time) = self.event_time_us {
            w.value(&time)?;
        }
        if let Some(trace) = self.trace {
            w.bytes(&trace.trace_id)?;
            w.bytes(&trace.span_id)?;
        }
        w.slice(self.body)?;
        w.slice(self.fields)
    }

    fn read(r: &mut ItemReader<'a>) -> Option<Self> {
        let (seq, stream, severity, flags): (u64, u16, u8, u8) = r.value()?;
        let (boot, clock_epoch, received_offset_us) = r.value()?;
        let clock_wall_us = if flags & RECORD_WALL == 0 { None } else { Some(r.value()?) };
        let event_time_us = if flags & RECORD_EVENT_TIME == 0 { None } else { Some(r.value()?) };
        let trace = if flags & RECORD_TRACE == 0 {
            None
        } else {
            let (trace_id, span_id) = r.value()?;
            Some(TraceContext { trace_id, span_id })
        };
        let (body, fields) = r.value()?;
        Some(Self {
            seq,
            stream,
            severity,
            continued: flags & RECORD_CONTINUED != 0,
            boot,
            clock_epoch,
            received_offset_us,
            clock_wall_us,
            synchronised: flags & RECORD_SYNCHRONISED != 0,
            event_time_us,
            trace,
            body,
            fields,
        })
    }
}

fn read_gap(reader: &mut ItemReader<'_>) -> Option<Gap> {
    let (first_seq, last_seq, exact, cause, stream) = reader.value()?;
    Some(Gap { first_seq, last_seq, exact, cause: gap_cause(cause)?, stream })
}
