//! lastgasp-client: one reader for everything that holds a log of ours.
//!
//! A [`Client`] reads a running node by its socket, or the medium itself: a store's file, a block device, the image of
//! a card or chip, the store of a card that is mounted. [`Target`] finds out which it is.
//!
//! Invariants: nothing that is read is ever written; whatever is read, the same entries come in the same order; memory
//! is bounded by one frame and one row group, however much is read.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod boots;
mod client;
mod config;
mod entry;
mod error;
mod file;
mod gaps;
mod image;
mod line;
mod node;
mod partition;
mod query;
mod root;
mod session;
mod socket;
mod target;
mod wait;

pub use boots::{Boot, Boots};
pub use client::{Client, Each, Flow, Lookup};
pub use entry::{Entry, Gap, Record};
pub use error::Error;
pub use file::{FileSource, FileStatus, Writer};
pub use gaps::KnownGap;
pub use lastgasp_core::format::fields::{Fields, List, Map, Value};
pub use lastgasp_core::format::row::TraceContext;
pub use lastgasp_core::gaps::GapCause;
pub use lastgasp_core::readout::BootEnd;
pub use lastgasp_core::readout::answer::Event;
pub use node::{NodeFact, NodeStatus};
pub use partition::{FileSystem, Partition, file_system, partitions};
pub use query::Query;
pub use socket::{Dial, NodeSource, SocketDial};
pub use target::{Place, SOCKET_DEFAULT, STORE_DEFAULT, Target};
