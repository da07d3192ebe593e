//! Memory of scans, lent to those who read.
//!
//! Invariants: so many at most, however many read; none is kept while nobody reads.

use lastgasp_core::hal::Geometry;
use lastgasp_hal_linux::ScanBuffers;

/// Scans at once. Each takes up to about 10 MiB.
pub(super) const SCANS_MAX: usize = 3;

/// The lender.
#[derive(Debug)]
pub(super) struct Buffers {
    geometry: Geometry,
    spare: Vec<ScanBuffers>,
    lent: usize,
}

impl Buffers {
    pub(super) fn new(geometry: Geometry) -> Self {
        Self { geometry, spare: Vec::new(), lent: 0 }
    }

    /// Memory for a scan, if there is any left.
    pub(super) fn lend(&mut self) -> Option<ScanBuffers> {
        if self.lent >= SCANS_MAX {
            return None;
        }
        self.lent = self.lent.saturating_add(1);
        Some(self.spare.pop().unwrap_or_else(|| ScanBuffers::new(&self.geometry)))
    }

    /// There is some left.
    pub(super) fn has_some(&self) -> bool {
        self.lent < SCANS_MAX
    }

    /// Takes it back.
    pub(super) fn take_back(&mut self, buffers: ScanBuffers) {
        self.lent = self.lent.saturating_sub(1);
        self.spare.push(buffers);
        if self.lent == 0 {
            self.spare.clear();
        }
    }
}
