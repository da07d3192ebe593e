//! Messages on the line: COBS frames with a CRC-32C, ended by a zero (READOUT, section 2).
//!
//! Invariants: a message comes out of the decoder exactly as it was written, or not at all; whatever bytes come before
//! it, a frame that begins behind a zero is found; the split of the bytes into chunks does not matter.

use crate::format::crc::Crc32c;
use cobs::CobsEncoder;
use serde::Serialize;

/// Bytes of the checksum.
const CRC_BYTES: usize = 4;

/// Writes one message into a slice, framed.
#[derive(Debug)]
pub struct MessageWriter<'o> {
    cobs: CobsEncoder<'o>,
    crc: Crc32c,
    room: usize,
}

impl<'o> MessageWriter<'o> {
    /// Begins a message; `None` if not even an empty one fits.
    #[must_use]
    pub fn new(out: &'o mut [u8]) -> Option<Self> {
        // The last byte is the zero that ends the frame; COBS needs one in front.
        let room = out.len().checked_sub(1).filter(|n| *n > CRC_BYTES)?;
        let (out, _) = out.split_at_mut(room);
        Some(Self { cobs: CobsEncoder::new(out), crc: Crc32c::plain(), room })
    }

    /// Adds bytes; `None` if they do not fit.
    pub fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        if bytes.is_empty() {
            return Some(());
        }
        // More can never fit, and is not worth a try.
        if bytes.len() > self.room {
            return None;
        }
        self.crc.update(bytes);
        self.cobs.push(bytes).ok()
    }

    /// Adds a number or another small value as postcard writes it; `None` if it does not fit.
    pub fn value<T: Serialize>(&mut self, value: &T) -> Option<()> {
        let mut bytes = [0; 24];
        let bytes = postcard::to_slice(value, &mut bytes).ok()?;
        self.bytes(bytes)
    }

    /// Adds bytes with their length in front.
    pub fn slice(&mut self, bytes: &[u8]) -> Option<()> {
        self.value(&bytes.len())?;
        self.bytes(bytes)
    }

    /// Ends the message and returns its length on the line; `None` if it does not fit.
    #[must_use]
    pub fn finish(mut self) -> Option<usize> {
        let sum = core::mem::replace(&mut self.crc, Crc32c::plain()).finish();
        self.cobs.push(&sum.to_le_bytes()).ok()?;
        // The encoder may have one byte too few for its last code and not say so: its length tells.
        let len = self.cobs.finalize();
        (len <= self.room).then_some(len)
    }
}

/// Writes one framed message: what `write` puts into the writer. Returns its length; `None` if it does not fit.
pub fn write_message(out: &mut [u8], write: impl FnOnce(&mut MessageWriter<'_>) -> Option<()>) -> Option<usize> {
    let mut writer = MessageWriter::new(out)?;
    write(&mut writer)?;
    let len = writer.finish()?;
    *out.get_mut(len)? = 0;
    len.checked_add(1)
}

/// Finds messages in the bytes of a line.
///
/// The buffer is handed in with every call and must keep its first [`Self::held`] bytes in between; it may grow.
#[derive(Debug, Clone, Copy, Default)]
pub struct LineDecoder {
    len: usize,
    /// The frame is longer than the buffer: everything up to the next zero is dropped.
    dropping: bool,
    bad_frames: u64,
}

impl LineDecoder {
    /// A decoder at the start of a line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Frames that were dropped: garbage, damaged or too long.
    #[must_use]
    pub fn bad_frames(&self) -> u64 {
        self.bad_frames
    }

    /// How many bytes of a frame that has not ended stand in the buffer.
    #[must_use]
    pub fn held(&self) -> usize {
        self.len
    }

    /// Takes bytes from the front of `input` until a message is whole; `None` when all are taken and there is none.
    pub fn next<'b>(&mut self, input: &mut &[u8], buf: &'b mut [u8]) -> Option<&'b [u8]> {
        loop {
            let zero = input.iter().position(|b| *b == 0);
            let (piece, rest) = input.split_at_checked(zero.unwrap_or(input.len()))?;
            self.take(piece, buf);
            if zero.is_none() {
                *input = &[];
                return None;
            }
            *input = rest.split_first().map_or(&[], |(_, after)| after);
            if let Some(len) = self.end_frame(buf) {
                return buf.get(..len);
            }
        }
    }

    fn take(&mut self, piece: &[u8], buf: &mut [u8]) {
        if self.dropping {
            return;
        }
        let end = self.len.saturating_add(piece.len());
        match buf.get_mut(self.len..end) {
            Some(place) => {
                place.copy_from_slice(piece);
                self.len = end;
            }
            None => (self.len, self.dropping) = (0, true),
        }
    }

    /// A zero has come: the length of the message that the frame held, if it was one.
    fn end_frame(&mut self, buf: &mut [u8]) -> Option<usize> {
        let (len, dropped) = (core::mem::take(&mut self.len), core::mem::take(&mut self.dropping));
        if len == 0 && !dropped {
            return None;
        }
        let message = if dropped { None } else { verified(buf.get_mut(..len)?) };
        if message.is_none() {
            self.bad_frames = self.bad_frames.saturating_add(1);
        }
        message
    }
}

/// Takes a frame apart in place: the length of its message.
fn verified(frame: &mut [u8]) -> Option<usize> {
    let len = cobs::decode_in_place(frame).ok()?;
    let message = len.checked_sub(CRC_BYTES)?;
    let (bytes, sum) = frame.get(..len)?.split_at_checked(message)?;
    let mut crc = Crc32c::plain();
    crc.update(bytes);
    (crc.finish().to_le_bytes() == sum).then_some(message)
}
