//! lastgasp-core: the persistence engine of lastgasp.
//!
//! A log store for media that lose power without warning: what it acknowledged as durable is there after the cut, and
//! what it had to lose, it names. `SPEC.md` beside this crate says what every byte means, `DESIGN.md` why.
//!
//! The way of a record: [`store::Store::append`] puts it into the [`memtable`]; a commit writes it as frames
//! ([`format::frame`]) into a segment of the [`pool`]; [`recovery`] finds it again after a cut; [`scan`] reads it.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(test)]
extern crate std;

pub mod catalog;
pub mod check;
pub mod error;
pub mod format;
pub mod gaps;
pub mod hal;
pub mod lz4;
mod manifest;
pub mod memtable;
pub mod node;
pub mod nor;
pub mod pool;
pub mod reader;
pub mod readout;
pub mod recovery;
pub mod retention;
pub mod scan;
pub mod snapshot;
pub mod sstable;
pub mod store;
pub mod streams;
pub mod tables;
mod wal;
mod walk;
