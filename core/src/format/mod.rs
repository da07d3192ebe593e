//! Every byte on the medium; the prose is in `core/SPEC.md`.

// Bytes that are decoded here may be anything: no arithmetic that can wrap or panic, no slice that can be out of range.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

pub(crate) mod bytes;
pub mod crc;
pub mod edit;
pub mod events;
pub mod fields;
pub mod frame;
pub mod header;
pub mod row;
pub mod trailer;
