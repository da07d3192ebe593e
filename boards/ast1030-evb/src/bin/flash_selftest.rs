//! Proves the path from the toolchain to the flash cells: erases, programs and reads back, then ends QEMU.
//!
//! It destroys what the flash chip holds in its last two sectors, and nothing else. The last line on the console is
//! `selftest passed` or `selftest failed: ` with the reason; QEMU's exit status says the same.
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
use lastgasp_drivers::w25q::{Error, PAGE_BYTES, SECTOR_BYTES, W25q};

type Chip = W25q<Fmc, CycleDelay>;

/// Why the test failed.
#[derive(Debug)]
enum Failure {
    /// The driver reported an error.
    Flash(Error<FmcError>),
    /// The chip is smaller than the two sectors that the test needs.
    TooSmall(usize),
    /// A byte is not what it should be.
    Byte { at: usize, is: u8, expected: u8 },
    /// Programming cells that are already programmed was not noticed.
    OverwriteUnnoticed,
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
            Self::TooSmall(bytes) => write!(f, "the chip has only {bytes} bytes"),
            Self::Byte { at, is, expected } => write!(f, "byte at {at:#x} is {is:02x}, not {expected:02x}"),
            Self::OverwriteUnnoticed => write!(f, "programming ones over zeros returned no error"),
        }
    }
}

/// The byte that the test programs at `at`: no two pages look alike.
fn pattern(at: usize) -> u8 {
    let [low, high, ..] = at.to_le_bytes();
    low.wrapping_mul(31) ^ high
}

/// Compares the flash from `from` on, `len` bytes, with `expected`.
fn compare(chip: &mut Chip, from: u32, len: usize, expected: impl Fn(usize) -> u8) -> Result<(), Failure> {
    let mut back = [0; PAGE_BYTES];
    for (start, offset) in (from..).step_by(PAGE_BYTES).zip((0..len).step_by(PAGE_BYTES)) {
        let part = &mut back[..PAGE_BYTES.min(len - offset)];
        chip.read(start, part)?;
        for (i, &is) in part.iter().enumerate() {
            let expected = expected(offset + i);
            if is != expected {
                return Err(Failure::Byte { at: start as usize + i, is, expected });
            }
        }
    }
    Ok(())
}

fn selftest(uart: &mut Uart5, fmc: Fmc) -> Result<(), Failure> {
    let mut chip = W25q::new(fmc, CycleDelay)?;
    let id = chip.jedec_id();
    let _ = writeln!(
        uart,
        "flash {:02x} {:02x} {:02x}, {} bytes",
        id.manufacturer,
        id.memory_type,
        id.capacity,
        chip.capacity()
    );
    let end = u32::try_from(chip.capacity()).map_err(|_| Failure::TooSmall(chip.capacity()))?;
    let area = 2 * SECTOR_BYTES;
    let from = end.checked_sub(0x2000).ok_or(Failure::TooSmall(chip.capacity()))?;

    chip.erase(from, end)?;
    compare(&mut chip, from, area, |_| 0xff)?;
    let _ = writeln!(uart, "erased");

    // Across pages and the sector boundary, beginning and ending inside a page.
    let mut data = [0; 3 * PAGE_BYTES];
    data.iter_mut().enumerate().for_each(|(i, byte)| *byte = pattern(i));
    let at = from + 0x1000 - 0x104;
    chip.write(at, &data)?;
    compare(&mut chip, at, data.len(), pattern)?;
    compare(&mut chip, from, 0x1000 - 0x104, |_| 0xff)?;
    let _ = writeln!(uart, "programmed");

    chip.write(from, &[0; 4])?;
    match chip.write(from, &[0xff; 4]) {
        Err(Error::Mismatch { .. }) => {}
        Err(other) => return Err(other.into()),
        Ok(()) => return Err(Failure::OverwriteUnnoticed),
    }

    chip.erase(end - 0x1000, end)?;
    compare(&mut chip, end - 0x1000, SECTOR_BYTES, |_| 0xff)?;
    compare(&mut chip, at, 0x104, pattern)?;
    let _ = writeln!(uart, "erased again");
    Ok(())
}

#[entry]
fn main() -> ! {
    let (Some(mut uart), Some(fmc)) = (Uart5::take(), Fmc::take()) else { exit(false) };
    let _ = writeln!(uart, "lastgasp flash selftest");
    let result = selftest(&mut uart, fmc);
    let _ = writeln!(uart, "footprint {}", Footprint::measure());
    match &result {
        Ok(()) => writeln!(uart, "selftest passed"),
        Err(failure) => writeln!(uart, "selftest failed: {failure}"),
    }
    .unwrap_or_default();
    exit(result.is_ok())
}
