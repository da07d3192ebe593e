//! The numbers of a node (READOUT, section 6).
//!
//! Invariant: new numbers are appended; those that an older node does not send are 0.

use super::line::MessageWriter;
use crate::error::ReadOnlyReason;
use crate::format::row::ItemReader;

/// Defines the numbers once: as fields, and in the order in which they are sent.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How a node is. Counts are since it started.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Status {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Status {
            pub(super) fn write(&self, w: &mut MessageWriter<'_>) -> Option<()> {
                $(w.value(&self.$name)?;)*
                Some(())
            }

            /// Reads what there is; more than this version knows is left alone.
            pub(super) fn read(reader: &mut ItemReader<'_>) -> Option<Self> {
                let mut status = Self::default();
                $(
                    if reader.rest().is_empty() {
                        return Some(status);
                    }
                    status.$name = reader.value()?;
                )*
                Some(status)
            }

            /// The numbers by name, in the order in which they are sent.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

numbers! {
    /// The number the next record gets.
    next_seq,
    /// Everything up to here is durable.
    durable_upto,
    /// Records below this number are gone.
    floor,
    /// Up to here records are kept or, if power fails, reported as lost.
    accepted_upto,
    /// How many records may be handed out before they are durable.
    volatile_bound,
    /// Epoch of the running boot; where nothing runs, of the next one.
    boot,
    /// 1 if a writer runs.
    running,
    /// Why the store takes no more writes: see [`read_only_code`]; 0 if it does.
    read_only,
    /// Wall clock of the node: microseconds since 1970.
    wall_us,
    /// Microseconds since the node started.
    uptime_us,
    /// Bytes of a segment.
    segment_bytes,
    /// Segments of the store.
    segments,
    /// Segments that hold log.
    log_segments,
    /// Segments announced for the log.
    announced_segments,
    /// Free segments.
    free_segments,
    /// Segments of the manifest.
    manifest_segments,
    /// Segments that failed for good.
    retired_segments,
    /// Segments abandoned after a failure.
    abandoned_segments,
    /// Gaps that are known.
    gaps,
    /// Named streams.
    streams,
    /// Records taken in.
    records,
    /// Bytes of their bodies and fields.
    record_bytes,
    /// Bytes of frames of records, without padding.
    payload_bytes,
    /// Frames of records written.
    frames,
    /// Commits made durable.
    commits,
    /// Segments opened.
    segments_opened,
    /// Segments dropped to make room.
    segments_dropped,
    /// Manifest edits published.
    edits,
    /// Bytes written to the device.
    device_bytes,
    /// Syncs of the device.
    syncs,
    /// What a sync takes lately, in microseconds.
    sync_us,
    /// Bytes of the memtable in use.
    memtable_used_bytes,
    /// Bytes of the memtable.
    memtable_bytes,
    /// Body and fields of the largest record.
    record_bytes_max,
}

/// The number that stands for a reason in [`Status::read_only`].
#[must_use]
pub fn read_only_code(reason: Option<ReadOnlyReason>) -> u64 {
    match reason {
        None => 0,
        Some(ReadOnlyReason::CommitFailed) => 1,
        Some(ReadOnlyReason::ManifestFailed) => 2,
        Some(ReadOnlyReason::Medium(_)) => 3,
        Some(ReadOnlyReason::WornOut) => 4,
        Some(ReadOnlyReason::Closed) => 5,
    }
}

/// The words for [`Status::read_only`]; `None` if the store takes writes.
#[must_use]
pub fn read_only_words(code: u64) -> Option<&'static str> {
    Some(match code {
        0 => return None,
        1 => "a commit failed, and so did three attempts to write it elsewhere",
        2 => "a manifest edit could not be made durable",
        3 => "the medium refuses writes",
        4 => "too few usable segments are left",
        5 => "it was closed",
        _ => "for a reason this version does not know",
    })
}
