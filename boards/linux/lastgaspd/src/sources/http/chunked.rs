//! Takes the chunks off a body.
//!
//! Invariants: the same body comes out however the bytes were cut; what a sender calls a chunk's size is held to the
//! letter; extensions and trailers are read over, and bounded.

use httparse::Status;

/// Bytes of the line that holds a size, with extensions.
const SIZE_LINE_MAX: usize = 256;
/// Bytes of a line of a trailer.
const TRAILER_LINE_MAX: usize = 4 << 10;
/// Bytes of all of it.
const TRAILERS_MAX: usize = 16 << 10;

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadChunk {
    /// These are no chunks.
    Malformed,
    /// The body is larger than it may be.
    TooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Size,
    Data(usize),
    DataEnd,
    Trailer(usize),
    Nothing,
}

/// The state between two pieces of a body.
#[derive(Debug)]
pub(super) struct Chunks(Next);

impl Chunks {
    pub(super) fn new() -> Self {
        Self(Next::Size)
    }

    /// The body is whole.
    pub(super) fn is_done(&self) -> bool {
        self.0 == Next::Nothing
    }

    /// Moves what is there of the body, of at most `max` bytes, from `bytes` to `body`; how many bytes were used. After
    /// [`BadChunk::TooLarge`], it can be tried again with a larger `max`.
    pub(super) fn take(&mut self, bytes: &[u8], body: &mut Vec<u8>, max: usize) -> Result<usize, BadChunk> {
        let mut at = 0usize;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let used = match self.0 {
                Next::Nothing => return Ok(at),
                _ if rest.is_empty() => return Ok(at),
                // What came before the chunk that is too large was used.
                Next::Size => match self.size(rest, body.len(), max) {
                    Err(BadChunk::TooLarge) if at > 0 => return Ok(at),
                    sized => sized?,
                },
                Next::Data(left) => {
                    let part = rest.get(..left).unwrap_or(rest);
                    body.extend_from_slice(part);
                    let left = left.saturating_sub(part.len());
                    self.0 = if left == 0 { Next::DataEnd } else { Next::Data(left) };
                    part.len()
                }
                Next::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        self.0 = Next::Size;
                        2
                    }
                    [b'\r'] => 0,
                    _ => return Err(BadChunk::Malformed),
                },
                Next::Trailer(seen) => self.trailer(rest, seen)?,
            };
            if used == 0 {
                return Ok(at);
            }
            at = at.saturating_add(used);
        }
    }

    fn size(&mut self, bytes: &[u8], so_far: usize, max: usize) -> Result<usize, BadChunk> {
        // A size of no digits would pass for nought.
        if !bytes.first().is_some_and(u8::is_ascii_hexdigit) {
            return Err(BadChunk::Malformed);
        }
        match httparse::parse_chunk_size(bytes) {
            Ok(Status::Complete((used, _))) if used > SIZE_LINE_MAX => Err(BadChunk::Malformed),
            Ok(Status::Complete((used, 0))) => {
                self.0 = Next::Trailer(0);
                Ok(used)
            }
            Ok(Status::Complete((used, size))) => {
                let size = usize::try_from(size).map_err(|_| BadChunk::TooLarge)?;
                if so_far.saturating_add(size) > max {
                    return Err(BadChunk::TooLarge);
                }
                self.0 = Next::Data(size);
                Ok(used)
            }
            Ok(Status::Partial) if bytes.len() < SIZE_LINE_MAX => Ok(0),
            Ok(Status::Partial) | Err(_) => Err(BadChunk::Malformed),
        }
    }

    /// Lines up to an empty one.
    fn trailer(&mut self, bytes: &[u8], seen: usize) -> Result<usize, BadChunk> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            return if bytes.len() < TRAILER_LINE_MAX { Ok(0) } else { Err(BadChunk::Malformed) };
        };
        let used = end.saturating_add(1);
        let seen = seen.saturating_add(used);
        if seen > TRAILERS_MAX {
            return Err(BadChunk::Malformed);
        }
        self.0 = if bytes.get(..end) == Some(b"\r") { Next::Nothing } else { Next::Trailer(seen) };
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body that comes of these pieces, and what is left behind it.
    fn taken(pieces: &[&[u8]], max: usize) -> Result<(Vec<u8>, Vec<u8>, bool), BadChunk> {
        let (mut chunks, mut held, mut body) = (Chunks::new(), Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                let used = chunks.take(&held, &mut body, max)?;
                held.drain(..used);
                if used == 0 || chunks.is_done() {
                    break;
                }
            }
            assert!(chunks.is_done() || held.len() <= TRAILER_LINE_MAX);
        }
        Ok((body, held, chunks.is_done()))
    }

    #[test]
    fn every_way_to_cut_the_bytes_gives_the_same_body() {
        let bytes = b"4;a=b\r\nRust\r\nA \r\n0123456789\r\n0\r\nX: y\r\n\r\nGET";
        let whole = taken(&[bytes], 99).unwrap();
        assert_eq!(whole, (b"Rust0123456789".to_vec(), b"GET".to_vec(), true));
        for split in 0..=bytes.len() {
            for second in split..=bytes.len() {
                let pieces = [&bytes[..split], &bytes[split..second], &bytes[second..]];
                assert_eq!(taken(&pieces, 99).unwrap(), whole, "cut at {split} and {second}");
            }
        }
    }

    #[test]
    fn what_is_no_chunk_and_what_is_too_much_is_refused() {
        let malformed: [&[u8]; 8] = [
            b"\r\n\r\n",
            b"x\r\n",
            b"-1\r\n",
            b"4\r\nRustX\r\n",
            b"4\nRust\n",
            b"fffffffffffffffff\r\n",
            b"4\r\nRust\n\n",
            b";a\r\n",
        ];
        for bytes in malformed {
            assert_eq!(taken(&[bytes], 99).err(), Some(BadChunk::Malformed), "{}", bytes.escape_ascii());
        }
        assert_eq!(taken(&[b"ffffffffffffffff\r\n"], 99).err(), Some(BadChunk::TooLarge));
        assert_eq!(taken(&[b"3\r\nabc\r\n2\r\n"], 4).err(), Some(BadChunk::TooLarge));
        let long = [b"4;".to_vec(), vec![b'a'; 10_000]].concat();
        assert_eq!(taken(&[&long], 99).err(), Some(BadChunk::Malformed));
        let trailers = [b"0\r\n".to_vec(), b"a: b\r\n".repeat(10_000)].concat();
        assert_eq!(taken(&[&trailers], 99).err(), Some(BadChunk::Malformed));
    }
}
