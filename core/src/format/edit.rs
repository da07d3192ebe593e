//! Payloads of manifest frames: edits and the parts of a body (SPEC, section 7).
//!
//! Invariants: applying a body and then its edits in order gives the state of the last edit; applying an edit twice
//! gives what applying it once gives; operations never straddle frames.

use super::header::ClockAnchor;
use super::row::{ItemReader, ItemWriter};
use crate::gaps::Gap;
use serde::{Deserialize, Serialize};

/// What a segment is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SegmentUse {
    /// Nothing; it may be announced.
    #[default]
    Free,
    /// Announced for the log, in the order of the generations; it may hold frames already.
    Announced,
    /// Log that is no longer written to, with known bounds.
    Sealed,
    /// A manifest slot.
    Manifest,
    /// Failed to erase or program; never used again.
    Retired,
    /// Row groups of a retention class.
    Table {
        /// The class.
        class: u8,
        /// More may be appended, if the boot that wrote this stops cleanly.
        open: bool,
    },
}

/// What the manifest knows of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SegmentState {
    /// What it is used for.
    pub used_for: SegmentUse,
    /// The origin of a boot stands in it, and with it perhaps the copy of a frame: it is not dropped before its turn.
    pub holds_boot: bool,
    /// How many numbers a batch that begins here goes on in the next segments. Of a table: the offset behind the last
    /// frame that counts.
    pub chain_tail: u32,
    /// How often it was erased.
    pub erase_count: u32,
    /// Generation of its present life.
    pub generation: u64,
    /// No frame in it is of an earlier boot epoch.
    pub epoch: u32,
    /// First sequence number adopted from it; of a table, that it covers.
    pub first_seq: u64,
    /// Last sequence number adopted from it, or that it covers; `first_seq - 1` if none.
    pub last_seq: u64,
}

/// What every edit carries besides its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EditHead {
    /// Number of the edit; one more than the one before.
    pub edit_no: u64,
    /// Highest sequence number that may have been handed out.
    pub seq_ceiling: u64,
    /// Frames of this or a lower generation at or above `void_from` are void, and such segments are not written again.
    pub void_gen: u64,
    /// See `void_gen`.
    pub void_from: u64,
    /// The next generation to announce.
    pub next_generation: u64,
    /// Boot epoch of the writer.
    pub epoch: u32,
    /// Highest number known durable when it was written.
    pub durable_upto: u64,
}

/// One operation of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Op<'a> {
    /// Padding: no more operations.
    End,
    /// Sets what is known of a segment.
    Segment {
        /// The segment's number.
        segment: u32,
        /// Its state.
        state: SegmentState,
    },
    /// Raises the floor of a retention class, or of the log.
    Floor {
        /// The class; 4 is the log.
        class: u8,
        /// Records below this number are gone.
        seq: u64,
    },
    /// Adds a gap to the ledger.
    Gap(Gap),
    /// Names a stream.
    Stream {
        /// Stream number.
        id: u16,
        /// Its name.
        name: &'a str,
    },
    /// Sets a state entry.
    State {
        /// Whose state.
        key: &'a [u8],
        /// The state; empty removes the entry.
        value: &'a [u8],
    },
    /// Sets the anchor of a clock epoch.
    Clock(ClockAnchor),
    /// Ends a body: CRC-32C over the payloads of all its frames up to here.
    BodySum(u32),
}

impl EditHead {
    /// Writes the head.
    pub fn write(&self, out: &mut ItemWriter<'_>) -> Option<()> {
        out.value(self)
    }

    /// Reads the head; the operations follow.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<(Self, Ops<'_>)> {
        let mut reader = ItemReader::new(payload);
        let head = reader.value()?;
        Some((head, Ops { reader, malformed: false }))
    }
}

/// Bytes of a payload up to the end of its operations, without padding; `None` if they are malformed.
#[must_use]
pub(crate) fn content_bytes(payload: &[u8]) -> Option<usize> {
    let (_, mut ops) = EditHead::read(payload)?;
    let mut end = payload.len().checked_sub(ops.rest().len())?;
    while ops.next().is_some() {
        end = payload.len().checked_sub(ops.rest().len())?;
    }
    (!ops.malformed).then_some(end)
}

/// Reads the operations of one frame.
#[derive(Debug)]
pub struct Ops<'b> {
    reader: ItemReader<'b>,
    malformed: bool,
}

impl<'b> Ops<'b> {
    /// Bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'b [u8] {
        self.reader.rest()
    }
}

impl<'b> Iterator for Ops<'b> {
    type Item = Op<'b>;

    fn next(&mut self) -> Option<Op<'b>> {
        if self.malformed || self.reader.rest().is_empty() {
            return None;
        }
        let op = self.reader.value();
        self.malformed = op.is_none();
        op.filter(|op| !matches!(op, Op::End))
    }
}
