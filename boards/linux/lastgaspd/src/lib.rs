//! lastgaspd: the node as a library, and the binary beside it.
//!
//! What a line goes through: a thread of [`sources`] reads it into a [`parcel`] of the [`queue`]; the [`writer`] puts
//! it by the rules of the [`policy`] into the node ([`lastgasp_core::node`]), which says when to sync; another thread
//! syncs; the [`acks`] tell who waits. What has to be dropped is counted by [`drops`] and becomes a gap. Who wants to
//! read asks the [`api`]. The rest is around it: [`cli`], [`opening`] of the store, [`stop`] by signals, [`clock`], a
//! [`view`] of the running node, and [`run`], which joins them.
//!
//! Invariants of the whole crate: memory is bounded, whatever is sent; one thread owns the store; a stop that is asked
//! for loses nothing that was read; every message says what is wrong and what to do.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod acks;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod drops;
pub mod facts;
pub mod greeting;
pub mod opening;
pub mod parcel;
pub mod plan;
pub mod policy;
pub mod queue;
pub mod run;
pub mod sources;
pub mod stop;
pub mod supervisor;
pub mod view;
pub mod writer;

/// Says a line on stderr. That nobody may listen there is no reason to stop keeping logs.
pub fn say(line: impl std::fmt::Display) {
    use std::io::Write;
    // One write, so that lines of several threads do not mix.
    let _ = std::io::stderr().write_all(format!("lastgaspd: {line}\n").as_bytes());
}
