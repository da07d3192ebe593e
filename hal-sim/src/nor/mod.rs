//! NOR flash.
//!
//! Fault model. Programming only clears bits, erasing sets a whole block to ones, both are durable when they return.
//! A program call is done in units of a few bytes (a word, or the 256-byte page of a serial flash), an erase call in
//! blocks; each unit or block is one operation, and only the one in flight when power fails is in doubt:
//! - a program leaves any subset of the bits it would clear, bytes from either end, or cells between 0 and 1;
//! - an erase leaves the old bytes, ones, zeros (a block is programmed before it is erased), a part erased from either
//!   end, any bits set, anything, or cells between old and erased.
//!
//! A cell between 0 and 1 is *metastable*: it reads differently from one mount to the next, or from one
//! read to the next if so configured, until it is programmed or its block is erased.
//!
//! Blocks wear out: their erases or programs fail for good.
//!
//! Invariants:
//! - bytes outside the unit or block in flight are the same after every outcome;
//! - the caller's side is asserted: calls are aligned and inside, a 0 is never programmed to 1, and a word is
//!   programmed once between two erases, unless the configuration allows more.

mod cells;
mod cut;
mod flight;

use crate::image::Image;
use crate::power::{Counters, Fault, Meter, OpKind, Step};
use cells::Cells;
use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use flight::Flight;
use lastgasp_core::hal::StorageErrorKind;
use std::sync::Arc;

/// Shape and habits of a simulated flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NorConfig {
    /// Number of erase blocks.
    pub blocks: u32,
    /// How many bytes one program operation covers at most; calls are cut at multiples of it. Multiple of the word.
    pub program_unit: u32,
    /// Whether a word may be programmed again between two erases (still only clearing bits).
    pub reprogram: bool,
    /// Whether metastable cells are drawn anew at each read instead of at each mount.
    pub flicker: bool,
    /// Seed of what metastable cells read and what worn-out blocks do.
    pub seed: u64,
}

impl NorConfig {
    /// `blocks` erase blocks, programmed in units of `program_unit` bytes, each word once.
    #[must_use]
    pub fn new(blocks: u32, program_unit: u32) -> Self {
        Self { blocks, program_unit, reprogram: false, flicker: false, seed: 0 }
    }
}

/// What a worn-out block cannot do any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wear {
    /// Erase: some cells stay as they were.
    Erase,
    /// Program: some cells stay ones.
    Program,
}

#[derive(Debug, Clone, Copy)]
struct WornBlock {
    block: u32,
    after: u32,
    wear: Wear,
}

/// A NOR flash with words of `WRITE` bytes and erase blocks of `ERASE` bytes.
#[derive(Debug, Clone)]
pub struct SimNor<const WRITE: usize = 4, const ERASE: usize = 4096> {
    config: NorConfig,
    cells: Cells,
    /// One bit a word: programmed since the last erase of its block.
    programmed: Arc<Vec<u64>>,
    erases: Vec<u32>,
    worn: Vec<WornBlock>,
    flight: Option<Flight>,
    meter: Meter,
    counters: Counters,
    cuts: Option<Vec<Self>>,
}

impl<const WRITE: usize, const ERASE: usize> SimNor<WRITE, ERASE> {
    /// An erased flash.
    ///
    /// # Panics
    /// If the units do not divide each other or the flash does not fit 32-bit addresses.
    #[must_use]
    pub fn new(config: NorConfig) -> Self {
        Self::with_image(config, Image::filled(total::<ERASE>(&config), 0xff))
    }

    /// A flash with these bytes on it; words that are not all ones count as programmed.
    ///
    /// # Panics
    /// As [`SimNor::new`], and if there are not as many bytes as the flash has.
    #[must_use]
    pub fn from_image(config: NorConfig, bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), total::<ERASE>(&config), "the image is not as long as the flash");
        let mut nor = Self::with_image(config, Image::from_bytes(bytes));
        for (word, content) in bytes.chunks(WRITE).enumerate() {
            if content.iter().any(|&byte| byte != 0xff) {
                nor.set_programmed(word..word + 1, true);
            }
        }
        nor
    }

    fn with_image(config: NorConfig, image: Image) -> Self {
        let unit = config.program_unit as usize;
        assert!(WRITE > 0 && ERASE.is_multiple_of(WRITE), "words of {WRITE} bytes do not divide a block of {ERASE}");
        let fits = unit > 0 && unit.is_multiple_of(WRITE) && ERASE.is_multiple_of(unit);
        assert!(fits, "program unit {unit} does not lie between word {WRITE} and block {ERASE}");
        assert!(!image.is_empty() && u32::try_from(image.len()).is_ok(), "the flash does not fit 32-bit addresses");
        let words = image.len() / WRITE;
        Self {
            config,
            cells: Cells::new(image, config.seed, config.flicker),
            programmed: Arc::new(vec![0; words.div_ceil(64)]),
            erases: vec![0; config.blocks as usize],
            worn: Vec::new(),
            flight: None,
            meter: Meter::default(),
            counters: Counters::default(),
            cuts: None,
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> NorConfig {
        self.config
    }

    /// The settled cells; metastable ones show as ones here, use [`SimNor::peek`] for what a read would see.
    #[must_use]
    pub fn image(&self) -> &Image {
        self.cells.settled()
    }

    /// All bytes as a read would see them now; counts as no read.
    #[must_use]
    pub fn peek(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.cells.settled().len()];
        self.cells.read(0, &mut bytes);
        bytes
    }

    /// How many bytes have metastable cells.
    #[must_use]
    pub fn metastable_bytes(&self) -> usize {
        self.cells.metastable_bytes()
    }

    /// Changes the settled cells behind the engine's back.
    pub fn rot(&mut self, change: impl FnOnce(&mut Image)) {
        self.cells.rot(change);
    }

    /// Flips bit `bit` of the byte at `at`.
    ///
    /// # Panics
    /// If there is no such bit.
    pub fn flip_bit(&mut self, at: u32, bit: u32) {
        self.rot(|image| image.flip_bit(at as usize, bit));
    }

    /// Restarts the reader without a cut: metastable cells are drawn anew.
    pub fn remount(&mut self) {
        self.cells.remount();
    }

    /// How often each block was erased, cut erases included.
    #[must_use]
    pub fn erase_counts(&self) -> &[u32] {
        &self.erases
    }

    /// Wears `block` out: once it was erased `after` times in its life, its erases or programs fail for good.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn wear_out(&mut self, block: u32, after: u32, wear: Wear) {
        assert!(block < self.config.blocks, "there is no block {block}");
        self.worn.push(WornBlock { block, after, wear });
    }

    fn is_worn(&self, block: u32, wear: Wear) -> bool {
        let count = self.erases[block as usize];
        self.worn.iter().any(|worn| worn.block == block && worn.wear == wear && count >= worn.after)
    }

    fn set_programmed(&mut self, words: std::ops::Range<usize>, on: bool) {
        let bits = Arc::make_mut(&mut self.programmed);
        for word in words {
            let bit = 1 << (word % 64);
            if on {
                bits[word / 64] |= bit;
            } else {
                bits[word / 64] &= !bit;
            }
        }
    }

    /// Asserts that the words at `at` may be programmed with `bytes`.
    fn check_program(&self, at: u32, bytes: &[u8]) {
        let mut old = vec![0; bytes.len()];
        self.cells.read_known(at, &mut old);
        for (index, (old, new)) in old.chunks(WRITE).zip(bytes.chunks(WRITE)).enumerate() {
            let address = at as usize + index * WRITE;
            let rises = old.iter().zip(new).any(|(old, new)| !old & new != 0);
            assert!(!rises, "word {address:#x} holds {old:02x?}: programming {new:02x?} would set bits");
            let word = address / WRITE;
            let again = self.programmed[word / 64] >> (word % 64) & 1 == 1 || old.iter().any(|&byte| byte != 0xff);
            assert!(self.config.reprogram || !again, "word {address:#x} is programmed twice between two erases");
        }
    }

    /// Programs one unit: one operation.
    fn program(&mut self, at: u32, bytes: &[u8]) -> Result<(), Fault> {
        self.keep_cut(|cut| _ = cut.program(at, bytes));
        let block = at / self.block_bytes();
        let flight = Flight::Program { at, bytes: bytes.into() };
        let number = self.meter.ops();
        if self.meter.step(OpKind::Write, u64::from(at), bytes.len() as u64)? == Step::Cut {
            self.flight = Some(flight);
            return Err(Fault::Off);
        }
        if self.is_worn(block, Wear::Program) {
            flight.fail(&mut self.cells, self.config.seed ^ number);
            return Err(Fault::Broken(StorageErrorKind::Worn));
        }
        flight.land(&mut self.cells);
        let word = at as usize / WRITE;
        self.set_programmed(word..word + bytes.len() / WRITE, true);
        self.counters.writes += 1;
        self.counters.written_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Erases one block: one operation.
    fn erase_block(&mut self, block: u32) -> Result<(), Fault> {
        self.keep_cut(|cut| _ = cut.erase_block(block));
        let at = block * self.block_bytes();
        let flight = Flight::Erase { at, len: self.block_bytes() };
        let number = self.meter.ops();
        if self.meter.step(OpKind::Erase, u64::from(at), ERASE as u64)? == Step::Cut {
            self.flight = Some(flight);
            return Err(Fault::Off);
        }
        let words = at as usize / WRITE..(at as usize + ERASE) / WRITE;
        self.set_programmed(words, false);
        if self.is_worn(block, Wear::Erase) {
            flight.fail(&mut self.cells, self.config.seed ^ number);
            return Err(Fault::Broken(StorageErrorKind::Worn));
        }
        flight.land(&mut self.cells);
        self.erases[block as usize] += 1;
        self.counters.erases += 1;
        Ok(())
    }

    fn block_bytes(&self) -> u32 {
        self.bytes() / self.config.blocks
    }

    fn bytes(&self) -> u32 {
        u32::try_from(self.cells.settled().len()).expect("checked when the flash was made")
    }
}

fn total<const ERASE: usize>(config: &NorConfig) -> usize {
    (config.blocks as usize).checked_mul(ERASE).expect("a simulated flash fits the address space")
}

impl<const WRITE: usize, const ERASE: usize> ErrorType for SimNor<WRITE, ERASE> {
    type Error = Fault;
}

impl<const WRITE: usize, const ERASE: usize> ReadNorFlash for SimNor<WRITE, ERASE> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Fault> {
        self.meter.powered()?;
        if (offset as usize).checked_add(bytes.len()).is_none_or(|end| end > self.capacity()) {
            return Err(Fault::Broken(StorageErrorKind::OutOfBounds));
        }
        self.counters.reads += 1;
        self.counters.read_bytes += bytes.len() as u64;
        self.cells.tick();
        self.cells.read(offset, bytes);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.cells.settled().len()
    }
}

impl<const WRITE: usize, const ERASE: usize> NorFlash for SimNor<WRITE, ERASE> {
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = ERASE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Fault> {
        self.meter.powered()?;
        let block = self.block_bytes();
        let aligned = from.is_multiple_of(block) && to.is_multiple_of(block);
        assert!(aligned && from <= to && to <= self.bytes(), "erase {from:#x}..{to:#x} is not whole blocks of {block}");
        (from / block..to / block).try_for_each(|block| self.erase_block(block))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Fault> {
        self.meter.powered()?;
        let len = bytes.len();
        let aligned = (offset as usize).is_multiple_of(WRITE) && len.is_multiple_of(WRITE);
        assert!(aligned, "write {offset:#x}+{len} is not whole words of {WRITE}");
        let inside = (offset as usize).checked_add(len).is_some_and(|end| end <= self.capacity());
        assert!(inside, "write {offset:#x}+{len} lies beyond the flash");
        self.check_program(offset, bytes);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let room = self.config.program_unit - at % self.config.program_unit;
            let (unit, tail) = rest.split_at(rest.len().min(room as usize));
            self.program(at, unit)?;
            // At the end of the largest flash the next address does not exist, nor is it used.
            at = at.wrapping_add(room);
            rest = tail;
        }
        Ok(())
    }
}
