//! The end of the firmware: a result for QEMU, and last words after a panic or a fault.

use core::fmt::Write;
use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};
use cortex_m_semihosting::debug::{self, EXIT_FAILURE, EXIT_SUCCESS};

use crate::uart::Uart5;

/// Ends QEMU with status 0 or 1, which needs its semihosting; a board without a debugger locks up here and stays so.
pub fn exit(success: bool) -> ! {
    loop {
        debug::exit(if success { EXIT_SUCCESS } else { EXIT_FAILURE });
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    // SAFETY: interrupts are off and this function does not return, so nobody else uses the UART any more.
    let mut uart = unsafe { Uart5::steal() };
    // The UART never reports an error.
    let _ = writeln!(uart, "{info}");
    exit(false)
}

// SAFETY: it touches nothing but the UART, and does not return.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    // SAFETY: a hard fault outranks everything else, and this function does not return.
    let mut uart = unsafe { Uart5::steal() };
    let _ = writeln!(uart, "hard fault at {:#010x}, called from {:#010x}", frame.pc(), frame.lr());
    exit(false)
}
