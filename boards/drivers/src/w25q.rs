//! Winbond W25Q serial NOR flash, 64 KiB to 16 MiB, on one SPI line each way.
//!
//! Invariants:
//! - [`write`](NorFlash::write) and [`erase`](NorFlash::erase) return `Ok` only when the chip is idle again and its
//!   cells were read back as asked: a program that the chip dropped (protected block, brown-out) is an error;
//! - a program command never crosses a 256-byte page, where the chip would wrap round to the page's start;
//! - before every program and erase the write enable latch was seen set, so a missing chip is not mistaken for a done
//!   command;
//! - waiting is bounded by twice the longest time in the datasheet;
//! - after an error nothing may be believed of the words or the sector that the call named; the others are untouched.
//!
//! Commands, status bits and times are those of the W25Q128JV datasheet, revision F, sections 7.1 (status registers),
//! 8.1 (instruction set) and 9.6 (AC characteristics), which holds the longest times of the 3 V family.

use core::fmt;

use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{Operation, SpiDevice};
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use lastgasp_core::hal::{StorageError, StorageErrorKind};

/// Size of the page that one program command stays within.
pub const PAGE_BYTES: usize = 256;
/// Size of the smallest block the chip erases.
pub const SECTOR_BYTES: usize = 4096;
/// Longest page program, tPP.
pub const PROGRAM_MAX_US: u32 = 3_000;
/// Longest sector erase, tSE: what a store's `worst_busy` has to allow for.
pub const SECTOR_ERASE_MAX_US: u32 = 400_000;

/// The bits of an address that say where in its page it lies.
const PAGE_MASK: u32 = 0xff;
/// Pause between two looks at the status while a page is programmed (0.4 ms typically).
const PROGRAM_POLL_US: u32 = 50;
/// Pause between two looks at the status while a sector is erased (45 ms typically).
const ERASE_POLL_US: u32 = 500;
/// From the release of power-down to the first command: tRES1 is 3 us, and up to 30 us in older members.
const WAKE_US: u32 = 30;
/// How much is read back at a time to check a program or an erase.
const CHECK_BYTES: usize = 64;

const MANUFACTURER_WINBOND: u8 = 0xef;

const WRITE_ENABLE: u8 = 0x06;
const READ_STATUS_1: u8 = 0x05;
const READ_STATUS_2: u8 = 0x35;
const READ_DATA: u8 = 0x03;
const PAGE_PROGRAM: u8 = 0x02;
const SECTOR_ERASE: u8 = 0x20;
const READ_JEDEC_ID: u8 = 0x9f;
const RELEASE_POWER_DOWN: u8 = 0xab;

/// Status 1: a program or an erase is under way.
const BUSY: u8 = 1 << 0;
/// Status 1: write enable latch.
const WEL: u8 = 1 << 1;
/// Status 1: block protect bits BP0 to BP2.
const BLOCK_PROTECT: u8 = 0b111 << 2;
/// Status 2: complement protect: what the block protect bits do not name is protected.
const COMPLEMENT_PROTECT: u8 = 1 << 6;

/// The three bytes with which a chip names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct JedecId {
    /// Who made it: 0xef is Winbond.
    pub manufacturer: u8,
    /// Family and supply voltage.
    pub memory_type: u8,
    /// Binary logarithm of the size in bytes.
    pub capacity: u8,
}

impl JedecId {
    /// Size in bytes, if this is a chip that three address bytes reach all of.
    fn bytes(self) -> Option<u32> {
        match self.capacity {
            0x10..=0x18 => Some(1 << self.capacity),
            _ => None,
        }
    }
}

/// What the chip was doing when it did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Step {
    /// Finishing what it was at before this start.
    Start,
    /// Programming a page.
    Program,
    /// Erasing a sector.
    Erase,
}

/// An error of the flash chip or of the bus it sits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error<E> {
    /// The bus failed.
    Spi(E),
    /// The chip that answers is not a Winbond of 64 KiB to 16 MiB; 00 00 00 and ff ff ff mean that none answers.
    UnknownChip(JedecId),
    /// Blocks are write-protected: the status registers' protect bits have to be cleared before a store can live here.
    Protected {
        /// Status register 1.
        status1: u8,
        /// Status register 2.
        status2: u8,
    },
    /// The chip did not set its write enable latch: no chip, or the supply is too low for it to accept writes.
    WriteDisabled,
    /// The chip was still busy after twice the longest time its datasheet allows.
    Timeout(Step),
    /// What was read back differs from what was programmed or erased.
    Mismatch {
        /// Address of the first byte that differs.
        at: u32,
    },
    /// Offset or length is not a multiple of the write or erase size.
    NotAligned,
    /// The range lies beyond the chip.
    OutOfBounds,
}

impl<E: fmt::Debug> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spi(e) => write!(f, "the SPI bus of the flash chip failed: {e:?}"),
            Self::UnknownChip(id) => write!(
                f,
                "no supported flash chip: JEDEC id {:02x} {:02x} {:02x}, not ef .. 10 to 18; check wiring and type",
                id.manufacturer, id.memory_type, id.capacity
            ),
            Self::Protected { status1, status2 } => write!(
                f,
                "the flash chip is write-protected (status {status1:02x} {status2:02x}); clear its BP and CMP bits"
            ),
            Self::WriteDisabled => {
                write!(f, "the flash chip refuses to enable writes; check its supply and its chip select")
            }
            Self::Timeout(step) => {
                let doing = match step {
                    Step::Start => "from before this start",
                    Step::Program => "programming a page",
                    Step::Erase => "erasing a sector",
                };
                write!(f, "the flash chip is still busy {doing}, twice as long as it may; check its supply")
            }
            Self::Mismatch { at } => {
                write!(f, "flash cells at {at:#x} do not read back as written; the sector is worn or protected")
            }
            Self::NotAligned => write!(f, "offset or length is not a multiple of the flash chip's write or erase size"),
            Self::OutOfBounds => write!(f, "the range lies beyond the end of the flash chip"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for Error<E> {}

impl<E: fmt::Debug> NorFlashError for Error<E> {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::NotAligned => NorFlashErrorKind::NotAligned,
            Self::OutOfBounds => NorFlashErrorKind::OutOfBounds,
            _ => NorFlashErrorKind::Other,
        }
    }
}

impl<E: fmt::Debug> StorageError for Error<E> {
    fn kind(&self) -> StorageErrorKind {
        match self {
            Self::NotAligned => StorageErrorKind::NotAligned,
            Self::OutOfBounds => StorageErrorKind::OutOfBounds,
            Self::Protected { .. } => StorageErrorKind::ReadOnly,
            Self::Mismatch { .. } => StorageErrorKind::Worn,
            Self::Spi(_) | Self::UnknownChip(_) | Self::WriteDisabled | Self::Timeout(_) => StorageErrorKind::Io,
        }
    }
}

impl<E> From<NorFlashErrorKind> for Error<E> {
    fn from(kind: NorFlashErrorKind) -> Self {
        match kind {
            NorFlashErrorKind::NotAligned => Self::NotAligned,
            // The helpers of embedded-storage that this comes from know these two kinds only.
            _ => Self::OutOfBounds,
        }
    }
}

/// A W25Q chip on an SPI device of its own.
///
/// The bus may run at up to 50 MHz, the limit of the plain read command, in mode 0 or 3.
#[derive(Debug)]
pub struct W25q<SPI, D> {
    spi: SPI,
    delay: D,
    id: JedecId,
    bytes: u32,
}

impl<SPI: SpiDevice, D: DelayNs> W25q<SPI, D> {
    /// Wakes the chip, waits until it has finished what a reset may have interrupted, and asks what it is.
    ///
    /// # Errors
    /// `UnknownChip`, `Protected`, `Timeout`, `Spi`.
    pub fn new(spi: SPI, delay: D) -> Result<Self, Error<SPI::Error>> {
        let unknown = JedecId { manufacturer: 0, memory_type: 0, capacity: 0 };
        let mut chip = Self { spi, delay, id: unknown, bytes: 0 };
        chip.spi.write(&[RELEASE_POWER_DOWN]).map_err(Error::Spi)?;
        chip.delay.delay_us(WAKE_US);
        // A chip that is not there reads as ff and seems busy for ever: its id says more than a timeout.
        let waited = chip.wait_idle(Step::Start);
        let mut id = [0; 3];
        chip.command_read(&[READ_JEDEC_ID], &mut id)?;
        let [manufacturer, memory_type, capacity] = id;
        chip.id = JedecId { manufacturer, memory_type, capacity };
        if waited.is_err() && id != [0xff; 3] {
            // While busy the chip ignores the question, so its answer means nothing.
            waited?;
        }
        match chip.id.bytes() {
            Some(bytes) if manufacturer == MANUFACTURER_WINBOND => chip.bytes = bytes,
            _ => return Err(Error::UnknownChip(chip.id)),
        }
        let status1 = chip.status(READ_STATUS_1)?;
        let status2 = chip.status(READ_STATUS_2)?;
        if status1 & BLOCK_PROTECT != 0 || status2 & COMPLEMENT_PROTECT != 0 {
            return Err(Error::Protected { status1, status2 });
        }
        Ok(chip)
    }

    /// How the chip names itself.
    #[must_use]
    pub fn jedec_id(&self) -> JedecId {
        self.id
    }

    /// Gives back the bus and the delay.
    pub fn release(self) -> (SPI, D) {
        (self.spi, self.delay)
    }

    fn command_read(&mut self, command: &[u8], into: &mut [u8]) -> Result<(), Error<SPI::Error>> {
        self.spi.transaction(&mut [Operation::Write(command), Operation::Read(into)]).map_err(Error::Spi)
    }

    fn status(&mut self, register: u8) -> Result<u8, Error<SPI::Error>> {
        let mut status = [0];
        self.command_read(&[register], &mut status)?;
        let [status] = status;
        Ok(status)
    }

    /// Waits until the chip is idle, at most twice as long as `step` may take.
    fn wait_idle(&mut self, step: Step) -> Result<(), Error<SPI::Error>> {
        let (longest, pause) = match step {
            Step::Program => (PROGRAM_MAX_US, PROGRAM_POLL_US),
            Step::Start | Step::Erase => (SECTOR_ERASE_MAX_US, ERASE_POLL_US),
        };
        for _ in 0..=2 * longest / pause {
            if self.status(READ_STATUS_1)? & BUSY == 0 {
                return Ok(());
            }
            self.delay.delay_us(pause);
        }
        Err(Error::Timeout(step))
    }

    /// Sets the write enable latch and sees it set; the chip clears it after each program and erase.
    fn enable_write(&mut self) -> Result<(), Error<SPI::Error>> {
        self.spi.write(&[WRITE_ENABLE]).map_err(Error::Spi)?;
        // Busy here means a line that reads ones, or a chip that somebody else commands.
        match self.status(READ_STATUS_1)? & (WEL | BUSY) {
            WEL => Ok(()),
            _ => Err(Error::WriteDisabled),
        }
    }

    fn read_at(&mut self, at: u32, into: &mut [u8]) -> Result<(), Error<SPI::Error>> {
        self.command_read(&addressed(READ_DATA, at), into)
    }

    /// Programs `bytes`, which lie within one page, and checks them.
    fn program(&mut self, at: u32, bytes: &[u8]) -> Result<(), Error<SPI::Error>> {
        self.enable_write()?;
        let command = addressed(PAGE_PROGRAM, at);
        self.spi.transaction(&mut [Operation::Write(&command), Operation::Write(bytes)]).map_err(Error::Spi)?;
        self.wait_idle(Step::Program)?;
        let mut back = [0; CHECK_BYTES];
        for (at, wanted) in (at..).step_by(CHECK_BYTES).zip(bytes.chunks(CHECK_BYTES)) {
            let (back, _) = back.split_at_mut(wanted.len());
            self.read_at(at, back)?;
            check_same(at, back.iter().zip(wanted).map(|(is, wanted)| is == wanted))?;
        }
        Ok(())
    }

    /// Erases the sector at `at` and checks that it is blank.
    fn erase_sector(&mut self, at: u32) -> Result<(), Error<SPI::Error>> {
        self.enable_write()?;
        self.spi.write(&addressed(SECTOR_ERASE, at)).map_err(Error::Spi)?;
        self.wait_idle(Step::Erase)?;
        let mut back = [0; CHECK_BYTES];
        for at in (at..).step_by(CHECK_BYTES).take(SECTOR_BYTES / CHECK_BYTES) {
            self.read_at(at, &mut back)?;
            check_same(at, back.iter().map(|&is| is == 0xff))?;
        }
        Ok(())
    }
}

/// A command followed by its three address bytes.
fn addressed(command: u8, at: u32) -> [u8; 4] {
    let [_, high, middle, low] = at.to_be_bytes();
    [command, high, middle, low]
}

/// `Mismatch` at the first byte, counted from `at`, that is not the same.
fn check_same<E>(at: u32, same: impl Iterator<Item = bool>) -> Result<(), Error<E>> {
    for (address, same) in (at..).zip(same) {
        if !same {
            return Err(Error::Mismatch { at: address });
        }
    }
    Ok(())
}

impl<SPI: SpiDevice, D> ErrorType for W25q<SPI, D> {
    type Error = Error<SPI::Error>;
}

impl<SPI: SpiDevice, D: DelayNs> ReadNorFlash for W25q<SPI, D> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        check_read(self, offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.read_at(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.bytes as usize
    }
}

impl<SPI: SpiDevice, D: DelayNs> NorFlash for W25q<SPI, D> {
    /// The chip programs single bytes; words keep what is written aligned and bound the parts of a torn program.
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = SECTOR_BYTES;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        check_erase(self, from, to)?;
        for sector in (from..to).step_by(SECTOR_BYTES) {
            self.erase_sector(sector)?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        check_write(self, offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        let next_page = (offset | PAGE_MASK) + 1;
        let (first, rest) = bytes.split_at(bytes.len().min((next_page - offset) as usize));
        self.program(offset, first)?;
        for (at, page) in (next_page..).step_by(PAGE_BYTES).zip(rest.chunks(PAGE_BYTES)) {
            self.program(at, page)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "w25q_tests.rs"]
mod tests;
