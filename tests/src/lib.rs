//! What crosses crates: campaigns of power cuts against the engine, and how they are run and reported.
//!
//! Invariant: what a campaign does depends on its options alone, not on the number of threads or the machine.

pub use lastgasp_hal_sim::campaign;

pub mod report;
