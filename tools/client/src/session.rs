//! One line to a node: asks and hears, over whatever can be read and written.
//!
//! Invariants: what belongs to a former request is passed over; a message that the line has lost is noticed; memory is
//! bounded by the longest message the node says it has.

use std::io::{self, Read, Write};

use lastgasp_core::readout::answer::Place;
use lastgasp_core::readout::{Answer, DecodeError, LineDecoder, REQUEST_BYTES_MAX, Request};

/// What is read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The longest message of any node: a record of a segment, and to spare.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A line to a node.
#[derive(Debug)]
pub(crate) struct Session<T> {
    line: T,
    decoder: LineDecoder,
    message: Vec<u8>,
    chunk: Vec<u8>,
    at: usize,
    len: usize,
    request: u32,
    position: u32,
}

impl<T: Read + Write> Session<T> {
    pub(crate) fn new(line: T) -> Self {
        Self {
            line,
            decoder: LineDecoder::new(),
            message: vec![0; 4 << 10],
            chunk: vec![0; CHUNK_BYTES],
            at: 0,
            len: 0,
            request: 0,
            position: 0,
        }
    }

    pub(crate) fn line(&self) -> &T {
        &self.line
    }

    /// Asks. What was asked before is over.
    pub(crate) fn ask(&mut self, request: &Request<'_>) -> io::Result<()> {
        self.request = self.request.wrapping_add(1);
        self.position = 0;
        let mut out = [0; REQUEST_BYTES_MAX];
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "no stream has a name as long as this");
        let len = request.write(self.request, &mut out).ok_or_else(too_long)?;
        self.line.write_all(out.get(..len).unwrap_or_default())?;
        self.line.flush()
    }

    /// The next message of the answer.
    ///
    /// # Errors
    /// Of the line; `InvalidData` if it has lost a message: ask again from where the answer was.
    pub(crate) fn next(&mut self) -> io::Result<Answer<'_>> {
        loop {
            let len = self.next_message()?;
            let message = self.message.get(..len).unwrap_or_default();
            let (place, known) = match Answer::decode(message) {
                Ok((place, _)) => (place, true),
                Err(DecodeError::UnknownKind { request, position, .. }) => (Place { request, position }, false),
                Err(DecodeError::Malformed { .. }) => return Err(damaged("a message makes no sense")),
            };
            if place.request != self.request {
                continue;
            }
            if place.position != self.position {
                return Err(damaged("the line has lost a message"));
            }
            self.position = self.position.wrapping_add(1);
            if known {
                // Decoded again: the loop may not hand out what it may throw away.
                let message = self.message.get(..len).unwrap_or_default();
                return Answer::decode(message).map(|(_, answer)| answer).map_err(|_| damaged("unreadable"));
            }
        }
    }

    /// The length of the next message in the buffer.
    fn next_message(&mut self) -> io::Result<usize> {
        loop {
            if self.at >= self.len {
                self.at = 0;
                self.len = 0;
                self.len = match self.line.read(&mut self.chunk) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(len) => len,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
            }
            let chunk = self.chunk.get(self.at..self.len).unwrap_or_default();
            let need = self.decoder.held().saturating_add(chunk.len()).min(MESSAGE_BYTES_MAX);
            if self.message.len() < need {
                self.message.resize(need.next_power_of_two(), 0);
            }
            let mut rest = chunk;
            let bad = self.decoder.bad_frames();
            let found = self.decoder.next(&mut rest, &mut self.message).map(<[u8]>::len);
            self.at = self.len.saturating_sub(rest.len());
            if self.decoder.bad_frames() > bad {
                return Err(damaged("the line has damaged a message"));
            }
            if let Some(len) = found {
                return Ok(len);
            }
        }
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
