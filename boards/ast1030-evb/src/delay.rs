//! Delays counted in processor cycles.

use cortex_m::asm;
use embedded_hal::delay::DelayNs;

/// Fastest clock of the AST1030's processor; on a slower clock a delay is longer, which every caller allows.
const CYCLES_PER_US: u32 = 200;

/// Busy waiting, at least as long as asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct CycleDelay;

impl DelayNs for CycleDelay {
    fn delay_ns(&mut self, ns: u32) {
        self.delay_us(ns.div_ceil(1_000));
    }

    fn delay_us(&mut self, us: u32) {
        // In parts of 1 ms, so that the product cannot overflow.
        for _ in 0..us / 1_000 {
            asm::delay(1_000 * CYCLES_PER_US);
        }
        asm::delay(us % 1_000 * CYCLES_PER_US);
    }
}
