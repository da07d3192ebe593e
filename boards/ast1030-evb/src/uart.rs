//! UART5, the AST1030's console: a 16550 with registers four bytes apart, 115200 8N1.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::register::Register;

const BASE: usize = 0x7e78_4000;
/// Transmit holding register; low divisor byte while the divisor latch is open.
const DATA: usize = BASE;
/// Interrupt enable; high divisor byte while the divisor latch is open.
const INTERRUPT_ENABLE: usize = BASE + 0x04;
const FIFO_CONTROL: usize = BASE + 0x08;
const LINE_CONTROL: usize = BASE + 0x0c;
const LINE_STATUS: usize = BASE + 0x14;

/// `LINE_CONTROL`: eight data bits, no parity, one stop bit.
const EIGHT_BITS: u32 = 0b11;
/// `LINE_CONTROL`: the divisor latch is open.
const DIVISOR_LATCH: u32 = 1 << 7;
/// `FIFO_CONTROL`: FIFOs on and emptied.
const FIFO_RESET: u32 = 0b111;
/// `LINE_STATUS`: the transmit holding register is empty.
const TRANSMIT_EMPTY: u32 = 1 << 5;
/// The UART clock is 24 MHz / 13, which is 16 x 115200.
const DIVISOR_115200: u32 = 1;
/// How often to look for room before a byte is dropped: longer than a full FIFO takes at 115200.
const SEND_ATTEMPTS: u32 = 1_000_000;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The console. A byte that the UART does not take in time is dropped, never waited for without end.
pub struct Uart5 {
    data: Register<u32>,
    status: Register<u32>,
}

impl Uart5 {
    /// Takes the UART and sets it up; `None` if it was taken before.
    pub fn take() -> Option<Self> {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: UART5's registers on this chip; `TAKEN` makes this their only user. No DMA is set up.
        let [mut interrupts, mut fifo, mut line, mut data] = unsafe {
            [
                Register::<u32>::at(INTERRUPT_ENABLE),
                Register::at(FIFO_CONTROL),
                Register::at(LINE_CONTROL),
                Register::at(DATA),
            ]
        };
        line.write(EIGHT_BITS | DIVISOR_LATCH);
        data.write(DIVISOR_115200);
        interrupts.write(0);
        line.write(EIGHT_BITS);
        interrupts.write(0);
        fifo.write(FIFO_RESET);
        // SAFETY: as above.
        Some(unsafe { Self::registers() })
    }

    /// The UART regardless of who has it, for last words.
    ///
    /// # Safety
    /// Nothing else runs any more that could use the UART.
    pub(crate) unsafe fn steal() -> Self {
        // SAFETY: UART5's registers on this chip; the caller is their only user.
        unsafe { Self::registers() }
    }

    /// # Safety
    /// The caller is the only user of UART5.
    unsafe fn registers() -> Self {
        // SAFETY: UART5's data register on this chip.
        let data = unsafe { Register::at(DATA) };
        // SAFETY: UART5's line status register on this chip.
        let status = unsafe { Register::at(LINE_STATUS) };
        Self { data, status }
    }

    fn send(&mut self, byte: u8) {
        for _ in 0..SEND_ATTEMPTS {
            if self.status.read() & TRANSMIT_EMPTY != 0 {
                self.data.write(u32::from(byte));
                return;
            }
        }
    }
}

impl fmt::Write for Uart5 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.send(byte));
        Ok(())
    }
}
