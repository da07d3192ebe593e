//! The cells of a NOR flash, some of them metastable.
//!
//! Fault model: a metastable cell holds a charge between 0 and 1. In the mount after the cut it may read steadily as
//! one value (so that recovery takes it for settled); from the next mount on, or at every read where it flickers,
//! chance decides. Clearing the cell or erasing its block settles it.
//!
//! Invariants:
//! - a metastable bit is a 1 in the settled image, so that programming and erasing need no special case;
//! - what a metastable bit reads depends on (seed, mount, address), where it flickers on the read too, and on nothing
//!   else; the entries are in order of address, one a byte, none without a metastable bit.

use crate::image::Image;
use crate::rng::Rng;
use std::ops::Range;

/// The metastable bits of one byte.
#[derive(Debug, Clone, Copy)]
struct Unstable {
    at: u32,
    mask: u8,
    /// What they read in the mount `until`; later, chance decides.
    first: u8,
    until: u64,
}

/// The cells.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    settled: Image,
    unstable: Vec<Unstable>,
    seed: u64,
    flicker: bool,
    mount: u64,
    reads: u64,
}

impl Cells {
    pub(super) fn new(settled: Image, seed: u64, flicker: bool) -> Self {
        Self { settled, unstable: Vec::new(), seed, flicker, mount: 0, reads: 0 }
    }

    pub(super) fn settled(&self) -> &Image {
        &self.settled
    }

    pub(super) fn metastable_bytes(&self) -> usize {
        self.unstable.len()
    }

    pub(super) fn rot(&mut self, change: impl FnOnce(&mut Image)) {
        let len = self.settled.len();
        change(&mut self.settled);
        assert_eq!(self.settled.len(), len, "a flash cannot be truncated");
        let settled = &self.settled;
        self.unstable.retain_mut(|cell| {
            cell.mask &= settled.byte(cell.at as usize);
            cell.mask != 0
        });
    }

    /// The reader starts anew.
    pub(super) fn remount(&mut self) {
        self.mount += 1;
    }

    /// A read takes place.
    pub(super) fn tick(&mut self) {
        self.reads += 1;
    }

    /// What a read sees.
    pub(super) fn read(&self, at: u32, into: &mut [u8]) {
        self.settled.read(at as usize, into);
        for cell in &self.unstable[self.entries(at, into.len())] {
            let byte = &mut into[(cell.at - at) as usize];
            *byte = *byte & !cell.mask | self.drawn(cell) & cell.mask;
        }
    }

    /// What a caller can know before it programs: where cells flicker, a metastable bit may have read as erased.
    pub(super) fn read_known(&self, at: u32, into: &mut [u8]) {
        if self.flicker {
            self.settled.read(at as usize, into);
        } else {
            self.read(at, into);
        }
    }

    fn drawn(&self, cell: &Unstable) -> u8 {
        if self.flicker {
            Rng::derived(self.seed ^ self.reads << 32, u64::from(cell.at)).byte()
        } else if self.mount <= cell.until {
            cell.first
        } else {
            Rng::derived(self.seed ^ self.mount << 32, u64::from(cell.at)).byte()
        }
    }

    fn entries(&self, at: u32, len: usize) -> Range<usize> {
        let from = self.unstable.partition_point(|cell| cell.at < at);
        let until = self.unstable.partition_point(|cell| (cell.at as usize) < at as usize + len);
        from..until
    }

    /// Clears the bits that are 0 in `bytes`; they are settled.
    pub(super) fn clear(&mut self, at: u32, bytes: &[u8]) {
        let mut rest = bytes;
        self.settled.edit(at as usize..at as usize + bytes.len(), |_, part| {
            let (head, tail) = rest.split_at(part.len());
            part.iter_mut().zip(head).for_each(|(cell, byte)| *cell &= byte);
            rest = tail;
        });
        let entries = self.entries(at, bytes.len());
        if !entries.is_empty() {
            self.unstable[entries].iter_mut().for_each(|cell| cell.mask &= bytes[(cell.at - at) as usize]);
            self.unstable.retain(|cell| cell.mask != 0);
        }
    }

    /// Puts any bytes there; all of them are settled.
    pub(super) fn set(&mut self, at: u32, bytes: &[u8]) {
        self.settled.write(at as usize, bytes);
        let entries = self.entries(at, bytes.len());
        self.unstable.drain(entries);
    }

    /// Makes the bits of `mask` at `at` metastable; in the present mount they read as `first`.
    pub(super) fn unsettle(&mut self, at: u32, mask: u8, first: u8) {
        if mask == 0 {
            return;
        }
        let raised = self.settled.byte(at as usize) | mask;
        self.settled.fill(at as usize..at as usize + 1, raised);
        let entry = Unstable { at, mask, first, until: self.mount };
        let place = self.unstable.partition_point(|cell| cell.at < at);
        match self.unstable.get_mut(place) {
            Some(cell) if cell.at == at => *cell = Unstable { mask: cell.mask | mask, ..entry },
            _ => self.unstable.insert(place, entry),
        }
    }
}
