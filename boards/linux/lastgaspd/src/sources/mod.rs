//! Where records come from. Each source is a thread that reads into parcels of the [queue](crate::queue).
//!
//! Invariants: a source ends when its [`Stop`] is rung, and has handed over what it read by then; it waits for nothing
//! but its input, its stop and the queue; what it drops it counts; what it needs to go on after a restart (its cursor)
//! rides as a state entry in the batch of the records it stands for, so neither can be there without the other.

pub mod files;
pub mod http;
pub mod journald;
pub mod kmsg;
pub mod listen;
pub mod severity;
pub mod status;
pub mod stdin;
pub mod syslog;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Clock;
use crate::queue::Intake;
use crate::stop::Stop;
use status::SourceStatus;

/// The state entries that were durable when the store was opened, by key: where each source left off.
pub type Cursors = Arc<BTreeMap<Vec<u8>, Vec<u8>>>;

/// What a source is given.
#[derive(Debug)]
pub struct Context<E> {
    /// Its end of the queue. Dropping it says that the source has ended.
    pub intake: Intake<E>,
    /// Rung when it has to end.
    pub stop: Stop,
    /// Time of the run.
    pub clock: Clock,
    /// The largest record the store takes, body and fields together; a longer body is kept in parts.
    pub record_bytes_max: usize,
    /// Where sources left off.
    pub cursors: Cursors,
    /// What `lastgasp status` shows of it.
    pub status: Arc<SourceStatus>,
}

#[cfg(test)]
impl<E> Context<E> {
    /// For a test: a source that never ran before.
    pub(crate) fn by_hand(intake: Intake<E>, stop: Stop) -> Self {
        Self {
            intake,
            stop,
            clock: Clock::start(),
            record_bytes_max: 64 << 10,
            cursors: Cursors::default(),
            status: Arc::new(SourceStatus::new("test")),
        }
    }
}
