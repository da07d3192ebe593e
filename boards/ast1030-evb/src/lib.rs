//! What the firmware of the ast1030-evb board stands on: the flash bus, the UART, delays, its own sizes.
//!
//! Invariants:
//! - unsafe code is only where a register or a linker symbol is touched, each with its reason;
//! - each peripheral has one owner: [`fmc::Fmc::take`] and [`uart::Uart5::take`] give it out once;
//! - a panic or fault prints where it happened and ends QEMU with a failure; on a board it stops.
#![no_std]
#![deny(missing_docs)]

pub mod delay;
pub mod exit;
pub mod fmc;
pub mod footprint;
mod register;
pub mod uart;
