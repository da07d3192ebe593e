//! Syslog over the network: datagrams ([`udp`]) and connections ([`tcp`]), each on a thread of its own.
//!
//! What becomes of a message: its text is the body; its application or tag is the stream, or `syslog`; severity and
//! time are those of its header; the rest of the header are fields: `facility`, `hostname`, `procid`, `msgid`,
//! `structured_data` (a map of maps), and `source_ip`, the address it came from.
//!
//! Invariants: what was received is kept, understood or not; memory is bounded whatever is sent and by however many;
//! a sender that cannot wait loses messages only when the kernel's buffer or the store is full, and those are counted.

pub mod frames;
pub mod message;
mod records;
pub mod tcp;
pub mod udp;

/// The stream of messages that name no application.
pub const STREAM: &str = "syslog";
