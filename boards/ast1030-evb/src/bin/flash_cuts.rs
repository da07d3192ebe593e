//! Power cuts against the bare flash driver: what [`NorFlash::write`] returned for must be there at the next start.
//!
//! The engine builds on that promise, so it is tested by itself. The chip is a ring of numbered records, 1 and up, each
//! followed by its complement; sectors are erased one after another as the ring comes round. At a start every record is
//! found and compared. The console speaks the lines that `.ci/ast1030-smoke` reads: `recovered N`, then `ack N` after
//! each write, until the power is cut; `smoke failed: ` with the reason if something is not as it must be.
#![no_std]
#![no_main]

use core::fmt::{self, Write};

use cortex_m_rt::entry;
use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lastgasp_ast1030_evb::delay::CycleDelay;
use lastgasp_ast1030_evb::exit::exit;
use lastgasp_ast1030_evb::fmc::{Fmc, FmcError};
use lastgasp_ast1030_evb::footprint::Footprint;
use lastgasp_ast1030_evb::uart::Uart5;
use lastgasp_drivers::w25q::{Error, SECTOR_BYTES, W25q};

type Chip = W25q<Fmc, CycleDelay>;

/// A number and its complement.
const RECORD_BYTES: u32 = 8;
/// Records in a sector.
const PER_SECTOR: u32 = 512;
/// Most records in one write: 1 to 8, so that writes also cross pages.
const BATCH_MAX: u32 = 8;
/// How many acknowledgements lie between two lines with the footprint.
const FOOTPRINT_EVERY: u32 = 1024;

const _: () = assert!(RECORD_BYTES as usize * PER_SECTOR as usize == SECTOR_BYTES);

/// Why the firmware stops.
#[derive(Debug)]
enum Failure {
    /// The driver reported an error.
    Flash(Error<FmcError>),
    /// Eight bytes that are neither a record nor erased.
    Damaged { at: u32, bytes: [u8; RECORD_BYTES as usize] },
    /// A record is not the one that has to be there; `None` is erased flash.
    Wrong { at: u32, found: Option<u32>, expected: u32 },
}

impl From<Error<FmcError>> for Failure {
    fn from(error: Error<FmcError>) -> Self {
        Self::Flash(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(error) => write!(f, "{error}"),
            Self::Damaged { at, bytes } => write!(f, "no record at {at:#x}: {bytes:02x?}"),
            Self::Wrong { at, found, expected } => write!(f, "found {found:?} at {at:#x}, not record {expected}"),
        }
    }
}

fn record(number: u32) -> [u8; RECORD_BYTES as usize] {
    let [a, b, c, d] = number.to_le_bytes();
    [a, b, c, d, !a, !b, !c, !d]
}

/// The ring of records.
struct Ring {
    chip: Chip,
    sectors: u32,
}

impl Ring {
    fn new(chip: Chip) -> Result<Self, Failure> {
        // The driver takes chips of 16 MiB at most.
        let sectors = u32::try_from(chip.capacity() / SECTOR_BYTES).map_err(|_| Failure::Flash(Error::OutOfBounds))?;
        Ok(Self { chip, sectors })
    }

    /// Where record `number` lies, as long as it is among the last of the ring.
    fn place(&self, number: u32) -> u32 {
        (number - 1) % (self.sectors * PER_SECTOR) * RECORD_BYTES
    }

    /// The number at `at`, `None` if the place is erased.
    fn number_at(&mut self, at: u32) -> Result<Option<u32>, Failure> {
        let mut bytes = [0; RECORD_BYTES as usize];
        self.chip.read(at, &mut bytes)?;
        if bytes == [0xff; RECORD_BYTES as usize] {
            return Ok(None);
        }
        let [a, b, c, d, ..] = bytes;
        let number = u32::from_le_bytes([a, b, c, d]);
        if bytes == record(number) { Ok(Some(number)) } else { Err(Failure::Damaged { at, bytes }) }
    }

    /// Finds the last record and compares all others with what they must be; 0 if there is none.
    fn recover(&mut self) -> Result<u32, Failure> {
        let mut newest = 0;
        for sector in 0..self.sectors {
            if let Some(first) = self.number_at(sector * PER_SECTOR * RECORD_BYTES)? {
                newest = newest.max(first);
            }
        }
        if newest == 0 {
            return Ok(0);
        }
        let mut last = newest;
        while last - newest + 1 < PER_SECTOR {
            match self.number_at(self.place(last + 1))? {
                Some(_) => last += 1,
                None => break,
            }
        }
        // The sector after the newest may already be erased for what comes next.
        let kept = (self.sectors - 2) * PER_SECTOR;
        for number in newest.saturating_sub(kept).max(1)..=last {
            let at = self.place(number);
            let found = self.number_at(at)?;
            if found != Some(number) {
                return Err(Failure::Wrong { at, found, expected: number });
            }
        }
        Ok(last)
    }

    /// Writes `count` records after `last` by one call, as far as they fit into the sector, and returns the last one.
    fn append(&mut self, last: u32, count: u32) -> Result<u32, Failure> {
        let at = self.place(last + 1);
        let in_sector = last % PER_SECTOR;
        if in_sector == 0 {
            self.chip.erase(at, at + PER_SECTOR * RECORD_BYTES)?;
        }
        let count = count.min(PER_SECTOR - in_sector).min(BATCH_MAX);
        let mut batch = [[0; RECORD_BYTES as usize]; BATCH_MAX as usize];
        let batch = &mut batch[..count as usize];
        batch.iter_mut().zip(last + 1..).for_each(|(slot, number)| *slot = record(number));
        self.chip.write(at, batch.as_flattened())?;
        Ok(last + count)
    }
}

fn run(uart: &mut Uart5, fmc: Fmc) -> Result<(), Failure> {
    let mut ring = Ring::new(W25q::new(fmc, CycleDelay)?)?;
    let mut last = ring.recover()?;
    let _ = writeln!(uart, "recovered {last}");
    for round in 0_u32.. {
        last = ring.append(last, 1 + round % BATCH_MAX)?;
        let _ = writeln!(uart, "ack {last}");
        if round % FOOTPRINT_EVERY == 0 {
            let _ = writeln!(uart, "footprint {}", Footprint::measure());
        }
    }
    Ok(())
}

#[entry]
fn main() -> ! {
    let (Some(mut uart), Some(fmc)) = (Uart5::take(), Fmc::take()) else { exit(false) };
    let result = run(&mut uart, fmc);
    if let Err(failure) = &result {
        let _ = writeln!(uart, "smoke failed: {failure}");
    }
    exit(result.is_ok())
}
