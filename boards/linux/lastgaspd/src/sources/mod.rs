//! Sources: where records come from. Each has a thread of its own and hands parcels to the queue.
//!
//! Invariants: a source never holds more than a parcel; it waits for the queue rather than drop; when a stop is asked
//! for it hands over what it has read and ends.

pub mod stdin;
