//! Little-endian reads and writes that never panic.

/// Reads a `u8` at `at`.
pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

macro_rules! reader {
    ($name:ident, $ty:ty, $n:literal) => {
        /// Reads the little-endian number at `at`.
        pub(crate) fn $name(bytes: &[u8], at: usize) -> Option<$ty> {
            let field: [u8; $n] = bytes.get(at..)?.get(..$n)?.try_into().ok()?;
            Some(<$ty>::from_le_bytes(field))
        }
    };
}

reader!(u16_at, u16, 2);
reader!(u32_at, u32, 4);
reader!(u64_at, u64, 8);
reader!(i64_at, i64, 8);

/// Copies `field` to `at`; `None` if it does not fit.
pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) -> Option<()> {
    bytes.get_mut(at..)?.get_mut(..field.len())?.copy_from_slice(field);
    Some(())
}

/// `n` rounded up to a multiple of `unit` (`unit` > 0).
pub(crate) fn round_up(n: u32, unit: u32) -> u32 {
    n.checked_next_multiple_of(unit).unwrap_or(u32::MAX)
}
