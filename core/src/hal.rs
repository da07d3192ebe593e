//! The hardware the engine runs on, as traits: storage, arenas, power senses, codecs.
//!
//! Invariants every implementation keeps and the engine relies on:
//! - addresses are absolute byte offsets from the start of the store; segment `s` begins at `s * segment_bytes`;
//! - within one life of a segment (from `erase` to the next `erase`) writes go forward only and never overlap;
//! - every call returns within a bounded time (at most one erase); none calls back into the engine;
//! - a write is durable when a later `sync` returned `Ok`, and on an [`Geometry::ordered`] medium when it returned.

use core::fmt::Debug;
use core::time::Duration;

/// What kind of failure a medium reports; the engine decides by this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// Address or length is not a multiple of the unit the medium asks for. A defect of the caller.
    NotAligned,
    /// Address or length lies beyond the medium (for reads: also a file that was cut short).
    OutOfBounds,
    /// The medium refuses writes (write-protect, remounted read-only, end of life).
    ReadOnly,
    /// A block failed to erase or program for good.
    Worn,
    /// A sync failed: nothing written since the last good sync may be believed, and reading back proves nothing.
    SyncFailed,
    /// Any other input or output error.
    Io,
}

/// An error of a medium.
pub trait StorageError: Debug {
    /// The kind of failure, by which the engine decides what to do.
    fn kind(&self) -> StorageErrorKind;
}

impl StorageError for StorageErrorKind {
    fn kind(&self) -> StorageErrorKind {
        *self
    }
}

/// Shape and physics of a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Geometry {
    /// Number of segments in the pool.
    pub segments: u32,
    /// Size of one segment in bytes; a multiple of `erase_block_bytes` and of `torn_unit`.
    pub segment_bytes: u32,
    /// Writes start at multiples of this many bytes and are multiples of it long.
    pub write_unit: u32,
    /// Reads start at multiples of this many bytes and are multiples of it long.
    pub read_unit: u32,
    /// The unit a cut can destroy: a write never damages bytes outside the torn units it touches.
    /// 512 or more selects wide frames, less selects compact frames.
    pub torn_unit: u32,
    /// What erased bytes read as; `None` where `erase` leaves the contents undefined.
    pub erased: Option<u8>,
    /// Size of the block the medium erases physically, in bytes; 1 where it has none.
    pub erase_block_bytes: u32,
    /// The longest one call may take on a healthy medium.
    pub worst_busy: Duration,
    /// `true` if a write is durable when it returned, in the order of the calls (NOR flash).
    pub ordered: bool,
}

impl Geometry {
    /// Size of the whole store in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        u64::from(self.segments).saturating_mul(u64::from(self.segment_bytes))
    }

    /// Address of the first byte of `segment`.
    #[must_use]
    pub fn segment_start(&self, segment: u32) -> u64 {
        u64::from(segment).saturating_mul(u64::from(self.segment_bytes))
    }

    /// `true` if this medium takes wide frames.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.torn_unit >= 512
    }
}

/// A medium that can be read.
pub trait ReadStorage {
    /// The medium's error.
    type Error: StorageError;

    /// Shape and physics of the medium; does not change while it is open.
    fn geometry(&self) -> Geometry;

    /// Fills `into` from address `at`.
    ///
    /// After an unclean stop the bytes come from the medium itself, not from a cache that a failed sync left behind.
    ///
    /// # Power loss
    /// A cut during a read changes nothing on the medium.
    ///
    /// # Errors
    /// `NotAligned`, `OutOfBounds` or `Io`; then the contents of `into` are undefined.
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Self::Error>;
}

/// A medium that can be written.
pub trait Storage: ReadStorage {
    /// Prepares `segment` for a new life: afterwards it can be written from its start.
    ///
    /// Where [`Geometry::erased`] is `Some`, every byte of it reads so afterwards; where it is `None`, the
    /// contents are undefined and the call may do nothing.
    ///
    /// # Power loss
    /// Before: the old contents. During, or after but before the next good `sync` on an unordered medium: each byte
    /// of the segment is old, erased or anything; on NOR flash, cells may also read differently from one read to the
    /// next. Other segments are untouched.
    ///
    /// # Errors
    /// `Worn` if the block cannot be erased any more; `ReadOnly`, `Io`.
    fn erase(&mut self, segment: u32) -> Result<(), Self::Error>;

    /// Writes `bytes` at address `at`, inside one segment and forward of everything written there in this life.
    ///
    /// # Power loss
    /// Before: the old contents. During, or after but before the next good `sync` on an unordered medium: each torn
    /// unit touched is old, new, a mix of both torn at any byte, or garbage, independently of other writes and of
    /// their order. On an ordered medium a completed call is durable, and one that was cut leaves any mix of old and
    /// new bits. Torn units not touched keep their contents.
    ///
    /// # Errors
    /// `NotAligned`, `OutOfBounds`, `ReadOnly`, `Worn`, `Io`; then the range is as after a cut during the call.
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Makes everything written before durable.
    ///
    /// # Power loss
    /// During: as before the call, for every write since the last good sync on its own. After `Ok`: all of it is
    /// durable. After an error: none of it may be believed, whatever a read returns, and no later `sync` mends that.
    ///
    /// # Errors
    /// `SyncFailed`, `ReadOnly`, `Io`.
    fn sync(&mut self) -> Result<(), Self::Error>;
}

impl<S: ReadStorage + ?Sized> ReadStorage for &mut S {
    type Error = S::Error;
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        (**self).read(at, into)
    }
}

impl<S: Storage + ?Sized> Storage for &mut S {
    fn erase(&mut self, segment: u32) -> Result<(), Self::Error> {
        (**self).erase(segment)
    }
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        (**self).write(at, bytes)
    }
    fn sync(&mut self) -> Result<(), Self::Error> {
        (**self).sync()
    }
}

/// Memory for a memtable that can be frozen, read by another owner, and taken back.
///
/// On Linux a frozen arena is shared memory that an encoder thread reads; on a microcontroller it is the slice itself.
pub trait Arena: Sized {
    /// The arena while it may only be read.
    type Frozen: AsRef<[u8]>;

    /// The bytes, for writing.
    fn bytes(&mut self) -> &mut [u8];

    /// The bytes, for reading.
    fn as_slice(&self) -> &[u8];

    /// Gives up the right to write.
    fn freeze(self) -> Self::Frozen;

    /// Takes back the right to write.
    ///
    /// # Errors
    /// Gives the frozen arena back while somebody else still reads it.
    fn thaw(frozen: Self::Frozen) -> Result<Self, Self::Frozen>;
}

/// An arena over a borrowed slice: the microcontroller's, and the simulator's.
#[derive(Debug)]
pub struct SliceArena<'m>(pub &'m mut [u8]);

/// A frozen [`SliceArena`].
#[derive(Debug)]
pub struct FrozenSlice<'m>(&'m mut [u8]);

impl AsRef<[u8]> for FrozenSlice<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl<'m> Arena for SliceArena<'m> {
    type Frozen = FrozenSlice<'m>;
    fn bytes(&mut self) -> &mut [u8] {
        self.0
    }
    fn as_slice(&self) -> &[u8] {
        self.0
    }
    fn freeze(self) -> FrozenSlice<'m> {
        FrozenSlice(self.0)
    }
    fn thaw(frozen: FrozenSlice<'m>) -> Result<Self, FrozenSlice<'m>> {
        Ok(SliceArena(frozen.0))
    }
}

/// What the supply looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PowerState {
    /// Fed from the mains.
    Mains,
    /// Mains lost, a battery carries on for about `remaining`, if the gauge knows.
    OnBattery {
        /// Estimated time left.
        remaining: Option<Duration>,
    },
    /// The supply is about to end; `hold_up` is what it still gives.
    Failing {
        /// Time until the supply is gone.
        hold_up: Duration,
    },
    /// The sense does not answer or contradicts itself.
    Unknown,
}

/// Something that knows the state of the supply: a pin, a gauge, a signal, a network UPS.
pub trait PowerSense {
    /// Reads the level now. An edge only wakes; the level decides. Never blocks longer than one bus transfer.
    fn power_state(&mut self) -> PowerState;
}

/// A block compressor other than the built-in LZ4.
pub trait Codec {
    /// The number that stands for this codec in segment headers and row groups (0 is stored, 1 is LZ4).
    fn id(&self) -> u8;

    /// Compresses `raw` into `out`; `None` if the result does not fit `out`.
    fn compress(&mut self, raw: &[u8], out: &mut [u8]) -> Option<usize>;

    /// Decompresses `packed` into `out`, which is exactly as long as the raw block; `false` if it is damaged.
    fn decompress(&mut self, packed: &[u8], out: &mut [u8]) -> bool;
}
