//! The boots that the log still tells of, oldest first.
//!
//! Invariants: a boot is known by its origin frame, and how it ended by the next one; only segments that hold an origin
//! are read, and frames of records in them are passed by; each call looks at a bounded number of frames.

use super::answer::{Boot, BootEnd};
use crate::catalog::Catalog;
use crate::format::events::Origin;
use crate::format::frame::{Expected, FrameKind};
use crate::hal::ReadStorage;
use crate::recovery::open_segment;
use crate::walk::{Found, Walker};

/// Frames that one call looks at.
const FRAMES_MAX: u32 = 4096;

/// What a call has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A boot, with its end.
    Boot(Boot),
    /// The bound is reached: call again.
    NotYet,
    /// There are no more.
    End,
}

/// A cursor over the boots.
#[derive(Debug, Default)]
pub(super) struct Boots {
    /// Position in the order of the log.
    index: usize,
    place: Option<(u32, u64, Walker)>,
    /// The last boot that was found; its end is not known yet.
    last: Option<Boot>,
    ended: bool,
}

impl Boots {
    /// The next boot. `running` is the boot that runs, if one does; `previous_end` how the one before the last mount
    /// ended.
    pub(super) fn next<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        buf: &mut [u8],
        running: Option<Boot>,
        previous_end: BootEnd,
    ) -> Next {
        for _ in 0..FRAMES_MAX {
            if self.ended {
                return self.last.take().map_or(Next::End, Next::Boot);
            }
            let Some(found) = self.look(s, catalog, buf) else { continue };
            let boot = match found {
                Some(origin) => boot_of(&origin, catalog),
                None => {
                    // The end of the log: what runs may not have written its origin yet.
                    self.ended = true;
                    let Some(last) = &mut self.last else {
                        self.last = running;
                        continue;
                    };
                    last.last_seq = catalog.durable_upto();
                    match running {
                        Some(boot) if boot.epoch == last.epoch => last.end = BootEnd::Running,
                        Some(boot) => {
                            last.end = previous_end;
                            return self.last.replace(boot).map_or(Next::NotYet, Next::Boot);
                        }
                        None => last.end = previous_end,
                    }
                    continue;
                }
            };
            let Some(origin) = found else { continue };
            match &mut self.last {
                // An origin whose sync failed stands twice.
                Some(last) if boot.epoch <= last.epoch => {}
                Some(last) => {
                    last.end = origin.previous_end.into();
                    last.last_seq = origin.durable_upto;
                    last.torn_bytes = origin.torn_bytes;
                    if let Some(known) = self.last.replace(boot) {
                        return Next::Boot(known);
                    }
                }
                None => self.last = Some(boot),
            }
        }
        Next::NotYet
    }

    /// One frame further: an origin, `Some(None)` at the end of the log, or nothing of interest.
    #[allow(clippy::option_option)]
    fn look<S: ReadStorage>(&mut self, s: &mut S, catalog: &Catalog<'_>, buf: &mut [u8]) -> Option<Option<Origin>> {
        let Some((segment, generation, mut walker)) = self.place.take() else {
            let Some(segment) = catalog.pool.order().get(self.index).copied() else { return Some(None) };
            let state = catalog.pool.get(segment).state;
            if state.holds_boot {
                let carry = Expected { seq: state.first_seq, ..Expected::default() };
                let (_, walker) = open_segment(s, catalog, segment, carry, buf);
                self.place = Some((segment, state.generation, walker));
            } else {
                self.index = self.index.saturating_add(1);
            }
            return None;
        };
        // A segment that was dropped meanwhile: its boots go with it.
        let is_same = catalog.pool.get(segment).state.generation == generation;
        if is_same && walker.pass_records(s, buf) {
            self.place = Some((segment, generation, walker));
            return None;
        }
        match walker.next(s, buf).filter(|_| is_same) {
            None => self.index = self.index.saturating_add(1),
            Some(found) => {
                self.place = Some((segment, generation, walker));
                if let Found::Frame { frame, payload, .. } = found
                    && frame.kind == FrameKind::Origin
                {
                    return Origin::read(payload).map(|(origin, _)| Some(origin));
                }
            }
        }
        None
    }
}

/// A boot that began so, with its end not known.
fn boot_of(origin: &Origin, catalog: &Catalog<'_>) -> Boot {
    Boot {
        epoch: origin.epoch,
        first_seq: origin.first_seq,
        last_seq: origin.first_seq.saturating_sub(1),
        clock: catalog.clocks().get(origin.anchor.clock_epoch).unwrap_or(origin.anchor),
        end: BootEnd::Unknown,
        torn_bytes: 0,
    }
}
