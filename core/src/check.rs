//! Looking at every live byte of a mounted store for damage. Nothing is written.
//!
//! Invariants: what a full scan calls rot is found, and what a power cut can leave is not called damage: a bad range is
//! damage only where something proves that it once was synced. Such proofs are records or events behind it in its
//! segment, numbers that are missing, a trailer, and for what is written lazily (index, trailer, the second copy of an
//! edit) a frame or header of the same boot that could only be written after the next sync. Everything else is
//! reported as torn, for information.

mod log;
mod slots;
mod tables;

use crate::catalog::Catalog;
use crate::format::header::CLASSES_MAX;
use crate::gaps::{Gap, GapCause};
use crate::hal::ReadStorage;
use crate::scan::{Entry, Scan, ScanMemory, ScanOptions};

/// What should have stood at a damaged place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Part {
    /// The header of a segment.
    Header,
    /// One or more frames of records.
    Records,
    /// A frame without records: the origin of a boot or the close of one.
    Event,
    /// The index of a sealed segment.
    Index,
    /// The trailer of a sealed segment.
    Trailer,
    /// An edit of the manifest, or a part of its body.
    Edit,
}

impl Part {
    /// The part as it is shown and exported.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Records => "records",
            Self::Event => "event",
            Self::Index => "index",
            Self::Trailer => "trailer",
            Self::Edit => "edit",
        }
    }
}

/// A range of bytes in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: u32,
    /// Offset in it.
    pub offset: u32,
    /// Bytes up to the next thing that is whole; 0 where none follows and nothing tells how long it was.
    pub bytes: u32,
    /// The medium does not give the bytes at all.
    pub unreadable: bool,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Something that was synced is damaged.
    Damaged {
        /// Where.
        place: Place,
        /// What should stand there.
        part: Part,
        /// First sequence number that stood there.
        first_seq: u64,
        /// Last sequence number that stood there; less than the first if there were none.
        last_seq: u64,
    },
    /// Records a reader does not get any more. A damaged part of a batch costs the whole batch.
    Lost {
        /// The segment that holds them, or held them.
        segment: u32,
        /// The gap a scan shows in their place; its cause is rot.
        gap: Gap,
    },
    /// Bytes that an unclean stop left behind the last record: no damage, nothing of it was durable.
    Torn {
        /// Where.
        place: Place,
    },
    /// A copy of the manifest lacks the last edit: no damage, a cut between its two copies leaves this. The other copy
    /// holds everything, and the next writer completes this one.
    EditUnfinished {
        /// Where the edit is missing.
        place: Place,
    },
}

impl Finding {
    /// `true` if something that was durable is damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Lost { .. })
    }
}

/// The segment that holds a number, or held it.
fn segment_of(catalog: &Catalog<'_>, seq: u64) -> u32 {
    if seq < catalog.log_floor() {
        let tables = (0u8..).take(CLASSES_MAX).filter_map(|class| catalog.table_at_or_after(class, seq));
        return tables.min_by_key(|(_, state)| state.first_seq).map_or(0, |(segment, _)| segment);
    }
    catalog.pool.order().get(catalog.pool.locate(seq)).copied().unwrap_or(0)
}

/// Looks at the headers, frames, indexes and trailers of every segment that holds log, at the tables, at both copies of
/// the manifest, and then at every record. `found` is told what it meets, `progress` how far it is.
pub fn check<R: ReadStorage>(
    storage: &mut R,
    catalog: &Catalog<'_>,
    mem: &mut ScanMemory<'_>,
    progress: &mut dyn FnMut(u32, u32),
    found: &mut dyn FnMut(Finding),
) {
    let segments = u32::try_from(catalog.pool.order().len()).unwrap_or(u32::MAX);
    let total = segments.saturating_mul(2);
    let slots = slots::Slots::read(storage, catalog, mem.frame);
    let proof = log::check(storage, catalog, mem.frame, slots.newest(), &mut |done| progress(done, total), found);
    slots.judge(catalog, proof, found);
    tables::check(storage, catalog, mem.frame, found);
    let mut scan = Scan::new(catalog, ScanOptions::default());
    let mut done = 0;
    while let Some(entry) = scan.next(storage, catalog, mem) {
        if let Entry::Gap(gap) = entry
            && gap.cause == GapCause::Rot
        {
            let segment = segment_of(catalog, gap.first_seq);
            found(Finding::Lost { segment, gap });
        }
        let at = u32::try_from(catalog.pool.locate(scan.position())).unwrap_or(u32::MAX);
        if at > done {
            done = at;
            progress(segments.saturating_add(at), total);
        }
    }
    progress(total, total);
}
