//! The whole node under simulation: `Node::step` on virtual time, a supply that fails, a clock that jumps, many days of
//! life in seconds.
//!
//! - [`traffic`]: what comes in; [`life`]: boot after boot until the days are over; `hours`: the hours of one boot;
//! - [`sums`]: what was counted and measured on the way.
//!
//! Invariants: a life is a function of its plan; every mount is compared with the model, and every record with its tag;
//! the model is told of an acknowledgement only after the step that gave it has returned.

mod hours;
pub mod life;
pub mod sums;
pub mod traffic;

#[cfg(test)]
mod tests;
