//! How much of the chip the firmware takes: code, static memory, and the deepest the stack has been.

use core::fmt;
use core::ptr;

use cortex_m_rt::STACK_PAINT_VALUE;

// SAFETY: cortex-m-rt's linker script defines these marks. Their addresses mean something; nothing is read at them
// but the stack, below.
unsafe extern "C" {
    static __vector_table: u32;
    static __sidata: u32;
    static __sdata: u32;
    static __edata: u32;
    static __sbss: u32;
    static __ebss: u32;
    static _stack_start: u32;
    static _stack_end: u32;
}

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// What lies in flash: vectors, code, constants, and the first values of variables.
    pub code: usize,
    /// Variables: .data and .bss.
    pub static_ram: usize,
    /// The deepest the stack has been since the start.
    pub stack: usize,
}

impl Footprint {
    /// Measures the running firmware.
    #[must_use]
    pub fn measure() -> Self {
        let data = (&raw const __edata).addr() - (&raw const __sdata).addr();
        let bss = (&raw const __ebss).addr() - (&raw const __sbss).addr();
        let constants_end = (&raw const __sidata).addr();
        let code = constants_end - (&raw const __vector_table).addr() + data;
        Self { code, static_ram: data + bss, stack: deepest_stack() }
    }
}

/// The stack grows down from `_stack_start` over words that the start-up code painted; what is left of the paint was
/// never reached.
fn deepest_stack() -> usize {
    let top = &raw const _stack_start;
    let mut word = &raw const _stack_end;
    // SAFETY: every word from `_stack_end` to `_stack_start` is RAM that holds the stack or paint and belongs to no
    // Rust object that this could alias with a write; both marks are aligned for words.
    while word < top && unsafe { ptr::read_volatile(word) } == STACK_PAINT_VALUE {
        word = word.wrapping_add(1);
    }
    top.addr() - word.addr()
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {} static {} stack {}", self.code, self.static_ram, self.stack)
    }
}
