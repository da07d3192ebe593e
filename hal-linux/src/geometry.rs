//! The shape of a store on a file or block device.
//!
//! Invariants: a chosen geometry has at least [`SEGMENTS_ON_FILE_MIN`] and at most 16 384 segments, a segment is a
//! power of two, and the whole never exceeds the size asked for; what is left over at the end stays unused.

use core::time::Duration;

use lastgasp_core::format::header::{SEGMENTS_MAX, SegmentHeader};
use lastgasp_core::hal::Geometry;

/// Smallest number of segments in a store on a file or block device.
pub const SEGMENTS_ON_FILE_MIN: u32 = 32;
/// The usual segment: the usual allocation unit of an SD card, so that a tear inside one unit hits one segment.
pub const SEGMENT_BYTES_USUAL: u32 = 4 * MIB;
/// Smallest segment on a file: four units of 4096 bytes (header, frames, trailer).
pub const SEGMENT_BYTES_ON_FILE_MIN: u32 = 16 * 1024;
/// Largest segment on a file.
pub const SEGMENT_BYTES_ON_FILE_MAX: u32 = 256 * MIB;
/// Torn unit that is used when nothing else is asked for: the block of ext4 and the page of the page cache, so that
/// writeback never touches a block which holds acknowledged data.
pub const TORN_UNIT_DEFAULT: u32 = 4096;

const MIB: u32 = 1024 * 1024;
/// Longest write the format can name.
const WRITE_UNIT_MAX: u32 = 4096;

/// The longest one call is meant to take on a healthy medium. The SD Physical Layer Specification (4.6.2.2) lets a
/// card be busy for 250 ms after a write, 500 ms for SDXC; the other half is for the flush behind it and the
/// journal commit of the file system under it.
const WORST_BUSY: Duration = Duration::from_secs(1);

/// Why no store of this shape is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// Too small for the least number of the smallest segments.
    #[error("{size_bytes} bytes are too few for a store; the least is {min_bytes} bytes ({} KiB)", min_bytes / 1024)]
    TooSmall {
        /// Size asked for.
        size_bytes: u64,
        /// Least possible size.
        min_bytes: u64,
    },
    /// Too large for the greatest number of the largest segments.
    #[error("{size_bytes} bytes are too many for a store; the most is {max_bytes} bytes ({} GiB)", max_bytes >> 30)]
    TooLarge {
        /// Size asked for.
        size_bytes: u64,
        /// Greatest possible size.
        max_bytes: u64,
    },
    /// The torn unit is none the format knows.
    #[error(
        "a torn unit of {torn_unit_bytes} bytes is not possible; take a power of two from 512 to 65536 (usual: 4096)"
    )]
    TornUnit {
        /// Torn unit asked for.
        torn_unit_bytes: u32,
    },
}

/// Chooses the geometry for a store of at most `size_bytes`, with the usual torn unit of 4096 bytes.
///
/// 4 MiB segments from 128 MiB up, halving with the size below, doubling above 64 GiB.
///
/// # Errors
/// [`GeometryError::TooSmall`] and [`GeometryError::TooLarge`], each with the limit.
pub fn choose_geometry(size_bytes: u64) -> Result<Geometry, GeometryError> {
    choose_geometry_with(size_bytes, TORN_UNIT_DEFAULT)
}

/// As [`choose_geometry`], with another torn unit: 512 for tests, 16 384 and more for media that tear so widely.
///
/// # Errors
/// Those of [`choose_geometry`], and [`GeometryError::TornUnit`].
pub fn choose_geometry_with(size_bytes: u64, torn_unit_bytes: u32) -> Result<Geometry, GeometryError> {
    if !torn_unit_bytes.is_power_of_two() || !(512..=65_536).contains(&torn_unit_bytes) {
        return Err(GeometryError::TornUnit { torn_unit_bytes });
    }
    let segment_min = u64::from(SEGMENT_BYTES_ON_FILE_MIN.max(torn_unit_bytes.saturating_mul(4)));
    let min_bytes = segment_min.saturating_mul(u64::from(SEGMENTS_ON_FILE_MIN));
    let max_bytes = u64::from(SEGMENT_BYTES_ON_FILE_MAX).saturating_mul(u64::from(SEGMENTS_MAX));
    if size_bytes < min_bytes {
        return Err(GeometryError::TooSmall { size_bytes, min_bytes });
    }
    let too_large = GeometryError::TooLarge { size_bytes, max_bytes };
    if size_bytes > max_bytes {
        return Err(too_large);
    }
    // The largest power of two that gives 32 segments, up to the usual one; then the least that gives few enough.
    let for_32 = 1_u64 << (size_bytes / u64::from(SEGMENTS_ON_FILE_MIN)).ilog2();
    let for_16384 = size_bytes.div_ceil(u64::from(SEGMENTS_MAX)).next_power_of_two();
    let segment = for_32.min(u64::from(SEGMENT_BYTES_USUAL)).max(for_16384).max(segment_min);
    let segments = u32::try_from(size_bytes / segment).map_err(|_| too_large)?;
    let segment_bytes = u32::try_from(segment).map_err(|_| too_large)?;
    Ok(on_linux(segments, segment_bytes, torn_unit_bytes.min(WRITE_UNIT_MAX), torn_unit_bytes))
}

/// The geometry of a store that exists, from any of its headers.
pub(crate) fn from_header(header: &SegmentHeader) -> Geometry {
    let geometry = on_linux(header.segments, header.segment_bytes, header.write_unit, header.torn_unit);
    if is_chip_image(&geometry) {
        // The dump of a NOR chip: the recovery must judge it by the rules of the chip it was read from.
        return Geometry { erased: Some(0xFF), ordered: true, ..geometry };
    }
    geometry
}

/// `true` for the image of a NOR chip: its compact frames are safe on that chip only, so it is read, never written.
pub(crate) fn is_chip_image(geometry: &Geometry) -> bool {
    !geometry.is_wide()
}

fn on_linux(segments: u32, segment_bytes: u32, write_unit: u32, torn_unit: u32) -> Geometry {
    Geometry {
        segments,
        segment_bytes,
        write_unit,
        read_unit: 1,
        torn_unit,
        erased: None,
        erase_block_bytes: 1,
        worst_busy: WORST_BUSY,
        ordered: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const M: u64 = 1 << 20;
    const G: u64 = 1 << 30;

    #[test]
    fn the_size_chooses_segments_as_the_table_says() {
        let table: [(u64, u32, u64); 12] = [
            (512 * KIB, 32, 16 * KIB),
            (M, 32, 32 * KIB),
            (3 * M, 48, 64 * KIB),
            (64 * M - 1, 63, M),
            (64 * M, 32, 2 * M),
            (100 * M, 50, 2 * M),
            (128 * M, 32, 4 * M),
            (G, 256, 4 * M),
            (64 * G, 16_384, 4 * M),
            (64 * G + 1, 8192, 8 * M),
            (1024 * G, 16_384, 64 * M),
            (4096 * G, 16_384, 256 * M),
        ];
        for (size, segments, segment_bytes) in table {
            let g = choose_geometry(size).unwrap();
            assert_eq!((g.segments, u64::from(g.segment_bytes)), (segments, segment_bytes), "size {size}");
            assert!(g.total_bytes() <= size && size - g.total_bytes() < segment_bytes, "size {size}");
            assert_eq!((g.write_unit, g.torn_unit, g.read_unit), (4096, 4096, 1));
        }
    }

    #[test]
    fn sizes_beyond_the_limits_are_refused_with_the_limit() {
        let small = choose_geometry(512 * KIB - 1).unwrap_err();
        assert!(small.to_string().contains("524288 bytes (512 KiB)"), "{small}");
        let large = choose_geometry(4096 * G + 1).unwrap_err();
        assert!(large.to_string().contains("(4096 GiB)"), "{large}");
        let wide = choose_geometry_with(M, 65_536).unwrap_err();
        assert_eq!(wide, GeometryError::TooSmall { size_bytes: M, min_bytes: 8 * M });
    }

    #[test]
    fn the_torn_unit_may_be_512_to_65536() {
        assert_eq!(choose_geometry_with(M, 512).unwrap().write_unit, 512);
        let wide = choose_geometry_with(64 * M, 16_384).unwrap();
        assert_eq!((wide.write_unit, wide.torn_unit), (4096, 16_384));
        for bad in [0, 256, 513, 131_072] {
            assert_eq!(choose_geometry_with(64 * M, bad), Err(GeometryError::TornUnit { torn_unit_bytes: bad }));
        }
    }
}
