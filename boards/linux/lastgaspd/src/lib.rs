//! lastgaspd: the node as a library, and the binary beside it.
//!
//! - **The way of a record.** A thread of [`sources`] reads it into a [`parcel`] of the [`queue`]. The [`writer`] puts
//!   it by the rules of the [`policy`] into the node ([`lastgasp_core::node`]), which says when to sync; another thread
//!   syncs. Then the sender is answered, the [`acks`] are printed and readers are woken. What has to be dropped is
//!   counted by [`drops`] and becomes a gap.
//! - **The way of a reader.** It asks the [`api`], which takes a [`view`] of the running node on the writer's thread
//!   and reads the medium itself; [`facts`] are what the node tells of its configuration and sources.
//! - **The life of a node.** The [`cli`] and the [`config`] say what is wanted; [`opening`] finds or makes the store;
//!   [`plan`] says which sources that means, and the [`supervisor`] starts them, and starts them anew after a reload;
//!   [`stop`] is what signals ask for; all times come from one [`clock`]; the [`greeting`] is for who watches. [`run`]
//!   joins all of it.
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
