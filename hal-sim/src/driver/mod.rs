//! The cut driver: runs workloads on the engine, cuts the power at every operation, and lets the model judge.
//!
//! - [`medium`]: what the driver needs of a medium besides being cut; disk and NOR flash;
//! - [`workload`]: deterministic lists of steps, by hand and by seed; [`faulty`]: with a failure put into them;
//! - [`machine`]: executes boots on a store and keeps the model; [`observe`]: what a mount shows;
//! - [`explore`]: every cut, every outcome, and every cut of what follows;
//! - [`frames`] and [`rot`]: every flipped bit of cleanly closed stores;
//! - [`collateral`]: what a cut did to synced neighbours, and what that may cost;
//! - [`trace`]: the short id of a case, which replays it; [`story`]: the case in words.
//!
//! Invariant: everything is a function of profile, workload and plan, so an id replays on any machine.

mod by_hand;
mod by_hand_tables;
mod by_seed;
pub mod collateral;
pub mod explore;
pub mod faulty;
pub mod frames;
mod hands;
pub mod machine;
pub mod medium;
pub mod observe;
pub mod rot;
mod ruin;
pub mod story;
pub mod tell;
pub mod trace;
pub mod workload;
