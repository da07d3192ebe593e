//! The AST1030's firmware memory controller (FMC), chip select 0, in user mode: an SPI device for the NOR chip.
//!
//! In user mode each byte written to the flash window is shifted out and each byte read from it is shifted in, while
//! the control register holds chip select. The controller has no full-duplex transfer; asking for one is an error.
//! Registers and bits are those of Linux' spi-aspeed-smc driver and of QEMU's aspeed_smc model.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{self, ErrorType, Operation, SpiDevice};

use crate::delay::CycleDelay;
use crate::register::Register;

/// Configuration register: types and write permission of the chip selects.
const CONF: usize = 0x7e62_0000;
/// Control register of chip select 0.
const CE0_CONTROL: usize = 0x7e62_0010;
/// The window onto the chip at chip select 0.
const CE0_WINDOW: usize = 0x8000_0000;

/// `CONF`: writes to chip select 0 are let through.
const CONF_CE0_WRITE: u32 = 1 << 16;
/// `CE0_CONTROL`: the access mode.
const MODE: u32 = 0b11;
/// `CE0_CONTROL`: bytes through the window go to the bus as they are.
const MODE_USER: u32 = 0b11;
/// `CE0_CONTROL`: chip select is released (high) in user mode.
const CE_RELEASED: u32 = 1 << 2;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// An error of the flash bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FmcError {
    /// The controller cannot send and receive at the same time.
    FullDuplex,
}

impl fmt::Display for FmcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FullDuplex => f.write_str("the flash controller cannot send and receive at the same time"),
        }
    }
}

impl core::error::Error for FmcError {}

impl spi::Error for FmcError {
    fn kind(&self) -> spi::ErrorKind {
        spi::ErrorKind::Other
    }
}

/// The chip at chip select 0 of the FMC.
pub struct Fmc {
    control: Register<u32>,
    window: Register<u8>,
    selected: u32,
}

impl Fmc {
    /// Takes the controller and puts chip select 0 into user mode; `None` if it was taken before.
    pub fn take() -> Option<Self> {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: the FMC's configuration register on this chip; `TAKEN` makes this its only user.
        let mut conf = unsafe { Register::<u32>::at(CONF) };
        // SAFETY: the control register of chip select 0, as above.
        let control = unsafe { Register::<u32>::at(CE0_CONTROL) };
        // SAFETY: the window of chip select 0, which takes bytes; in user mode it is a bus, not memory.
        let window = unsafe { Register::<u8>::at(CE0_WINDOW) };
        conf.write(conf.read() | CONF_CE0_WRITE);
        let selected = (control.read() & !(MODE | CE_RELEASED)) | MODE_USER;
        let mut fmc = Self { control, window, selected };
        fmc.release();
        Some(fmc)
    }

    fn select(&mut self) {
        self.control.write(self.selected);
    }

    fn release(&mut self) {
        self.control.write(self.selected | CE_RELEASED);
    }
}

impl ErrorType for Fmc {
    type Error = FmcError;
}

impl SpiDevice for Fmc {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), FmcError> {
        if operations.iter().any(|o| matches!(o, Operation::Transfer(..) | Operation::TransferInPlace(_))) {
            return Err(FmcError::FullDuplex);
        }
        self.select();
        for operation in operations {
            match operation {
                Operation::Write(bytes) => bytes.iter().for_each(|&byte| self.window.write(byte)),
                Operation::Read(into) => into.iter_mut().for_each(|byte| *byte = self.window.read()),
                Operation::DelayNs(ns) => CycleDelay.delay_ns(*ns),
                // Refused above, before chip select fell.
                Operation::Transfer(..) | Operation::TransferInPlace(_) => {}
            }
        }
        self.release();
        Ok(())
    }
}
