//! What a running node tells of itself.
//!
//! Invariant: what an older node does not tell is 0 or not there; what a newer one tells besides is kept as it is.

use lastgasp_core::format::fields::Fields;
use lastgasp_core::readout::Status;

/// Named values that a node tells of itself, of whatever kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFact {
    /// Of what kind: `source`, `stream`, `class`.
    pub topic: String,
    /// Of which one.
    pub name: String,
    /// The values, as the fields of a record are encoded.
    pub field_bytes: Vec<u8>,
}

impl NodeFact {
    /// The values.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.field_bytes)
    }
}

/// What a running node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Name and version of the program.
    pub software: String,
    /// The random number that tells its store from every other.
    pub store_id: u64,
    /// Its numbers.
    pub numbers: Status,
    /// Everything else.
    pub facts: Vec<NodeFact>,
}

impl NodeStatus {
    /// Bytes written to the device for each byte of records that was logged since the node started; none if it does not
    /// tell.
    #[must_use]
    pub fn wear(&self) -> Option<f64> {
        let (device, logged) = (self.numbers.device_bytes, self.numbers.record_bytes);
        // Precise to far more digits than are shown.
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        (logged > 0 && device > 0).then(|| device as f64 / logged as f64)
    }

    /// The share of segments in use, in 0..=1.
    #[must_use]
    pub fn fill(&self) -> Option<f64> {
        let n = &self.numbers;
        let all = n.log_segments.saturating_add(n.announced_segments).saturating_add(n.free_segments);
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        (all > 0).then(|| n.log_segments as f64 / all as f64)
    }
}
