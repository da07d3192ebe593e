//! The readout protocol: how a client reads a node over a socket or a serial line (`core/READOUT.md`).
//!
//! [`line`] puts messages into frames and finds them again; [`request`] and [`answer`] are the messages; [`Server`]
//! turns a request into answers, one at a time, over whatever storage there is.
//!
//! Invariants: bytes from the line may be anything: nothing here panics, and memory is the caller's; the node keeps
//! nothing between two requests; what was sent of the log was durable.

// Bytes that are decoded here may be anything: no arithmetic that can wrap or panic, no slice that can be out of range.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

pub mod answer;
mod boots;
mod code;
pub mod line;
mod reading;
pub mod request;
mod server;
pub mod status;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Boot, BootEnd, End, ErrorCode, Fact, Hello, Record};
pub use line::{LineDecoder, MessageWriter};
pub use request::{Read, Request};
pub use server::{Live, Server, Step};
pub use status::Status;

/// The version of the protocol that this code speaks.
pub const VERSION: u8 = 1;
/// The longest request on the line.
pub const REQUEST_BYTES_MAX: usize = 384;
/// What a record's message takes beside its body and fields, before framing.
pub const RECORD_OVERHEAD_BYTES: usize = 112;
/// The longest message, before framing, that holds no record.
pub const SMALL_MESSAGE_BYTES_MAX: usize = 640;

/// The longest message on the line of a node whose records have at most so many bytes of body and fields.
#[must_use]
pub const fn message_bytes_max(record_bytes_max: usize) -> usize {
    let large = record_bytes_max.saturating_add(RECORD_OVERHEAD_BYTES);
    framed_bytes(if large > SMALL_MESSAGE_BYTES_MAX { large } else { SMALL_MESSAGE_BYTES_MAX })
}

/// Bytes on the line of so many bytes before framing, their checksum included.
const fn framed_bytes(bytes: usize) -> usize {
    // COBS adds a byte, and one more for each 254; a zero ends the frame.
    bytes.saturating_add(bytes / 254).saturating_add(2)
}

/// Why a message could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DecodeError {
    /// A kind of message that this version does not know. Its number and, if it is an answer, its position are read.
    UnknownKind {
        /// The kind.
        kind: u8,
        /// Number of the request.
        request: u32,
        /// Position in the answer.
        position: u32,
    },
    /// The message ends early or makes no sense.
    Malformed {
        /// Number of the request, as far as it could be read.
        request: u32,
    },
}
