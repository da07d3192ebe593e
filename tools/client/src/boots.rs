//! The boots of a node, and how each ended.
//!
//! Invariant: a boot is known by its origin; how it ended is told by its close, or by the origin of the next.

use lastgasp_core::format::events::Origin;
use lastgasp_core::readout::{Boot as TheirBoot, BootEnd};
use lastgasp_core::scan::Event;

use crate::client::{Flow, Lookup};
use crate::entry::Entry;
use crate::error::Error;
use crate::query::Query;

/// One boot that wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Its number.
    pub epoch: u32,
    /// Number of its first record.
    pub first_seq: u64,
    /// Number of its last record; less than the first if it stored none.
    pub last_seq: u64,
    /// Its first clock epoch; those up to that of the next boot are its own too.
    pub clock_epoch: u32,
    /// When it began by the wall clock, corrected where that was possible: microseconds since 1970.
    pub begin_us: i64,
    /// When its last record was received, or it ended.
    pub end_us: Option<i64>,
    /// Its clock was synchronised, at the start or later.
    pub synchronised: bool,
    /// How it ended.
    pub ended: BootEnd,
    /// Bytes of its log that were torn by its end.
    pub torn_bytes: u32,
}

/// All boots that a log still tells of, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boots(Vec<Boot>);

impl Boots {
    /// The boots, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Boot] {
        &self.0
    }

    /// The boot that a record was received in.
    #[must_use]
    pub fn of(&self, seq: u64) -> Option<&Boot> {
        let after = self.0.partition_point(|boot| boot.first_seq <= seq);
        after.checked_sub(1).and_then(|at| self.0.get(at))
    }

    /// The boot with this number: an epoch, or as in `journalctl -b`: 0 is the newest, -1 the one before.
    #[must_use]
    pub fn find(&self, id: i64) -> Option<&Boot> {
        match u32::try_from(id) {
            Ok(0) => self.0.last(),
            Ok(epoch) => self.0.iter().find(|boot| boot.epoch == epoch),
            Err(_) => {
                let back = usize::try_from(id.checked_neg()?).ok()?;
                self.0.len().checked_sub(back.checked_add(1)?).and_then(|at| self.0.get(at))
            }
        }
    }

    /// The numbers from a boot's first to the last before the next boot, gaps included.
    #[must_use]
    pub fn range(&self, boot: &Boot) -> (u64, u64) {
        let next = self.0.iter().find(|next| next.epoch > boot.epoch);
        (boot.first_seq.max(1), next.map_or(u64::MAX, |next| next.first_seq.saturating_sub(1)))
    }

    /// As a node tells them.
    pub(crate) fn of_node(told: &[TheirBoot]) -> Self {
        let boots = told.iter().map(|boot| Boot {
            epoch: boot.epoch,
            first_seq: boot.first_seq,
            last_seq: boot.last_seq,
            clock_epoch: boot.clock.clock_epoch,
            begin_us: boot.clock.wall_us,
            end_us: None,
            synchronised: boot.clock.synchronised,
            ended: boot.end,
            torn_bytes: boot.torn_bytes,
        });
        Self(boots.collect())
    }

    /// Looks up when the last record of each was received.
    pub(crate) fn look_ends_up(&mut self, look: &mut dyn Lookup) -> Result<(), Error> {
        for boot in self.0.iter_mut().filter(|boot| boot.first_seq <= boot.last_seq) {
            let query = Query { from: boot.first_seq, to: boot.last_seq, reverse: true, ..Query::default() };
            look.look(&query, &mut |entry| match entry {
                Entry::Record(record) => {
                    boot.end_us = record.received_us;
                    Ok(Flow::Stop)
                }
                Entry::Gap(_) | Entry::Event(_) => Ok(Flow::On),
            })?;
        }
        Ok(())
    }

    /// Takes the next event of a forward read.
    pub(crate) fn push(&mut self, event: &Event) {
        match event {
            Event::Boot(origin) => self.begin(origin),
            Event::Close(close) => {
                if let Some(boot) = self.0.last_mut() {
                    boot.ended = BootEnd::Clean;
                    boot.last_seq = close.next_seq.saturating_sub(1);
                }
            }
        }
    }

    fn begin(&mut self, origin: &Origin) {
        if let Some(before) = self.0.last_mut() {
            if before.epoch >= origin.epoch {
                return;
            }
            // Numbers from here to the next boot were handed out at most: a gap tells of them.
            before.last_seq = origin.durable_upto.min(origin.first_seq.saturating_sub(1));
            before.torn_bytes = origin.torn_bytes;
            before.ended = origin.previous_end.into();
        }
        self.0.push(Boot {
            epoch: origin.epoch,
            first_seq: origin.first_seq,
            last_seq: u64::MAX,
            clock_epoch: origin.anchor.clock_epoch,
            begin_us: origin.anchor.wall_us,
            end_us: None,
            synchronised: origin.anchor.synchronised,
            ended: BootEnd::Cut,
            torn_bytes: 0,
        });
    }

    /// The last boot of the log ended so, at this number.
    pub(crate) fn finish(&mut self, last_seq: u64, running: bool) {
        if let Some(last) = self.0.last_mut() {
            last.last_seq = last_seq;
            if running {
                last.ended = BootEnd::Running;
            }
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Boot> {
        self.0.iter_mut()
    }
}
