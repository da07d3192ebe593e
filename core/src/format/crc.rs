//! CRC-32C, seeded with the place and the life of what it protects.
//!
//! Invariant: a frame or trailer verifies only in the store, segment, generation and offset it was written for, so
//! bytes of an earlier life, misplaced writes and frame images inside record bodies never do. The segment header is
//! the exception: its CRC is plain, so that any tool can find it.

#[cfg(not(feature = "fast-crc"))]
type Tables = crc::Table<1>;
#[cfg(feature = "fast-crc")]
type Tables = crc::Table<16>;

/// CRC-32C (Castagnoli, reflected, as in iSCSI, RFC 3720 appendix B.4).
static CRC32C: crc::Crc<u32, Tables> = crc::Crc::<u32, Tables>::new(&crc::CRC_32_ISCSI);

/// A running CRC-32C.
#[derive(Clone)]
pub struct Crc32c(crc::Digest<'static, u32, Tables>);

impl core::fmt::Debug for Crc32c {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Crc32c")
    }
}

impl Crc32c {
    /// A plain CRC, as in the segment header.
    #[must_use]
    pub fn plain() -> Self {
        Self(CRC32C.digest())
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of everything added.
    #[must_use]
    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// One life of one segment of one store: what frame checksums are seeded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The store's id.
    pub store_id: u64,
    /// The segment's number.
    pub segment: u32,
    /// The generation this segment was announced under.
    pub generation: u64,
}

impl Life {
    /// The same for frames of a table: no frame of the log ever verifies as one of a table, nor the other way round,
    /// even if an edit was lost and its generations were given out once more.
    #[must_use]
    pub fn of_table(self) -> Self {
        Self { generation: !self.generation, ..self }
    }

    /// A CRC that has taken in {store id u64, segment u32, generation u64, offset in the segment u32}, little-endian.
    #[must_use]
    pub fn seeded(&self, offset: u32) -> Crc32c {
        let mut crc = Crc32c::plain();
        crc.update(&self.store_id.to_le_bytes());
        crc.update(&self.segment.to_le_bytes());
        crc.update(&self.generation.to_le_bytes());
        crc.update(&offset.to_le_bytes());
        crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        let mut crc = Crc32c::plain();
        crc.update(b"123456789");
        assert_eq!(crc.finish(), 0xE306_9283);
    }

    #[test]
    fn each_part_of_the_seed_changes_the_checksum() {
        let life = Life { store_id: 1, segment: 2, generation: 3 };
        let base = life.seeded(4).finish();
        let others = [
            Life { store_id: 2, ..life }.seeded(4),
            Life { segment: 3, ..life }.seeded(4),
            Life { generation: 4, ..life }.seeded(4),
            life.seeded(5),
        ];
        for other in others {
            assert_ne!(other.finish(), base);
        }
    }
}
