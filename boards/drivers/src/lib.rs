//! Drivers of chips that sit on boards with lastgasp, over embedded-hal 1.0.
//!
//! Invariants of every driver here:
//! - no call waits without a bound: where a chip stays silent, an error says so;
//! - `Ok` means that the chip did it, not that it was told to;
//! - no allocation, no unsafe code, no panic outside tests.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(test)]
extern crate std;

pub mod w25q;
