//! What a client asks (READOUT, section 4).
//!
//! Invariant: a request stands for itself; its number is the client's choice and comes back with every answer.

use super::DecodeError;
use super::line::{MessageWriter, write_message};
use crate::format::row::{ItemReader, STREAM_NAME_BYTES_MAX};

const HELLO: u8 = 0x01;
const STATUS: u8 = 0x02;
const STREAMS: u8 = 0x03;
const GAPS: u8 = 0x04;
const BOOTS: u8 = 0x05;
const CHECKPOINT: u8 = 0x06;
const READ: u8 = 0x07;

const FLAG_REVERSE: u8 = 1;

/// A window of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read<'a> {
    /// First sequence number.
    pub from: u64,
    /// Last sequence number; what is not durable yet is left out.
    pub to: u64,
    /// Newest first.
    pub reverse: bool,
    /// After so many records the answer ends; 0 is no limit.
    pub records_max: u32,
    /// After so many bytes on the line the answer ends; 0 is no limit.
    pub bytes_max: u32,
    /// Only records of the stream with this name.
    pub stream: Option<&'a str>,
    /// Only this severity and worse; 0 is any.
    pub severity_min: u8,
    /// Not before this time: microseconds since 1970, event time where given, else time of receipt.
    pub since_us: Option<i64>,
    /// Before this time.
    pub until_us: Option<i64>,
    /// So many milliseconds the node waits for something of the window to become durable, if nothing is.
    pub wait_ms: u32,
}

impl Default for Read<'_> {
    fn default() -> Self {
        Self {
            from: 1,
            to: u64::MAX,
            reverse: false,
            records_max: 0,
            bytes_max: 0,
            stream: None,
            severity_min: 0,
            since_us: None,
            until_us: None,
            wait_ms: 0,
        }
    }
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Who are you?
    Hello {
        /// The highest version of the protocol the client speaks.
        version: u8,
    },
    /// How are you?
    Status,
    /// Names of all streams.
    Streams,
    /// All gaps that are known.
    Gaps,
    /// All boots the log still tells of.
    Boots,
    /// Make everything taken in durable now.
    Checkpoint,
    /// Entries.
    Read(Read<'a>),
}

impl<'a> Request<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => HELLO,
            Self::Status => STATUS,
            Self::Streams => STREAMS,
            Self::Gaps => GAPS,
            Self::Boots => BOOTS,
            Self::Checkpoint => CHECKPOINT,
            Self::Read(_) => READ,
        }
    }

    /// Writes the request, framed; returns its length. [`super::REQUEST_BYTES_MAX`] bytes are enough for every one.
    ///
    /// `None` if it does not fit, or if a stream name is longer than any can be.
    #[must_use]
    pub fn write(&self, number: u32, out: &mut [u8]) -> Option<usize> {
        write_message(out, |w| {
            w.bytes(&[self.kind()])?;
            w.value(&number)?;
            match self {
                Self::Hello { version } => w.bytes(&[*version]),
                Self::Read(read) => read.write(w),
                Self::Status | Self::Streams | Self::Gaps | Self::Boots | Self::Checkpoint => Some(()),
            }
        })
    }

    /// Reads a message without its frame: the request and its number.
    ///
    /// # Errors
    /// It is none, or none of this version.
    pub fn decode(message: &'a [u8]) -> Result<(u32, Self), DecodeError> {
        let mut reader = ItemReader::new(message);
        let kind: Option<u8> = reader.value();
        let number: Option<u32> = reader.value();
        let (Some(kind), Some(request)) = (kind, number) else {
            return Err(DecodeError::Malformed { request: number.unwrap_or(0) });
        };
        let read = match kind {
            HELLO => reader.value().map(|version| Self::Hello { version }),
            STATUS => Some(Self::Status),
            STREAMS => Some(Self::Streams),
            GAPS => Some(Self::Gaps),
            BOOTS => Some(Self::Boots),
            CHECKPOINT => Some(Self::Checkpoint),
            READ => Read::decode(&mut reader).map(Self::Read),
            _ => return Err(DecodeError::UnknownKind { kind, request, position: 0 }),
        };
        read.map(|read| (request, read)).ok_or(DecodeError::Malformed { request })
    }
}

impl<'a> Read<'a> {
    fn write(&self, w: &mut MessageWriter<'_>) -> Option<()> {
        w.value(&self.from)?;
        w.value(&self.to)?;
        w.bytes(&[if self.reverse { FLAG_REVERSE } else { 0 }])?;
        w.value(&self.records_max)?;
        w.value(&self.bytes_max)?;
        match self.stream {
            Some(name) if name.len() > STREAM_NAME_BYTES_MAX => return None,
            Some(name) => {
                w.bytes(&[1])?;
                w.slice(name.as_bytes())?;
            }
            None => w.bytes(&[0])?,
        }
        w.bytes(&[self.severity_min])?;
        w.value(&self.since_us)?;
        w.value(&self.until_us)?;
        w.value(&self.wait_ms)
    }

    fn decode(reader: &mut ItemReader<'a>) -> Option<Self> {
        let from = reader.value()?;
        let to = reader.value()?;
        let flags: u8 = reader.value()?;
        Some(Self {
            from,
            to,
            reverse: flags & FLAG_REVERSE != 0,
            records_max: reader.value()?,
            bytes_max: reader.value()?,
            stream: reader.value::<Option<&str>>()?,
            severity_min: reader.value()?,
            since_us: reader.value()?,
            until_us: reader.value()?,
            wait_ms: reader.value()?,
        })
    }
}
