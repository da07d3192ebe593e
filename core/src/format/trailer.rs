//! The trailer: 32 bytes at the fixed end of a sealed segment (SPEC, section 4).
//!
//! Invariant: it is written after every frame of the segment was synced, and proves nothing about its own segment but
//! the `durable_upto` it carries, like any frame.

use super::bytes::{put, u32_at, u64_at};
use super::crc::Life;

/// Bytes of a trailer, before padding.
pub const TRAILER_BYTES: u32 = 32;
/// "LGTR", little-endian.
const MARK: u32 = 0x5254_474C;

/// A decoded trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Offset of the end of the last frame.
    pub data_end: u32,
    /// Offset of the index frame; 0 if there is none.
    pub index_at: u32,
    /// Last sequence number in the segment.
    pub last_seq: u64,
    /// Highest number known durable when it was written.
    pub durable_upto: u64,
}

impl Trailer {
    /// Encodes into the front of `out`, which is filled with zeros; `offset` is the trailer's place in its segment.
    pub fn encode(&self, out: &mut [u8], life: &Life, offset: u32) -> Option<()> {
        out.fill(0);
        put(out, 0x00, &MARK.to_le_bytes())?;
        put(out, 0x04, &self.data_end.to_le_bytes())?;
        put(out, 0x08, &self.last_seq.to_le_bytes())?;
        put(out, 0x10, &self.durable_upto.to_le_bytes())?;
        put(out, 0x18, &self.index_at.to_le_bytes())?;
        let mut crc = life.seeded(offset);
        crc.update(out.get(..0x1C)?);
        put(out, 0x1C, &crc.finish().to_le_bytes())
    }

    /// Decodes and verifies; `None` if these bytes are not the trailer of this life.
    #[must_use]
    pub fn decode(bytes: &[u8], life: &Life, offset: u32) -> Option<Self> {
        let mut crc = life.seeded(offset);
        crc.update(bytes.get(..0x1C)?);
        if u32_at(bytes, 0)? != MARK || u32_at(bytes, 0x1C)? != crc.finish() {
            return None;
        }
        Some(Self {
            data_end: u32_at(bytes, 0x04)?,
            last_seq: u64_at(bytes, 0x08)?,
            durable_upto: u64_at(bytes, 0x10)?,
            index_at: u32_at(bytes, 0x18)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_round_trips_at_its_place_only() {
        let life = Life { store_id: 1, segment: 1, generation: 1 };
        let trailer = Trailer { data_end: 100, index_at: 64, last_seq: 9, durable_upto: 9 };
        let mut out = [0xFF; 32];
        trailer.encode(&mut out, &life, 4064).unwrap();
        assert_eq!(Trailer::decode(&out, &life, 4064), Some(trailer));
        assert_eq!(Trailer::decode(&out, &life, 4065), None);
        for bit in 0..256 {
            let mut hit = out;
            hit[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::decode(&hit, &life, 4064), None);
        }
    }
}
