//! Taking acknowledgements back that damage made unprovable.
//!
//! Invariant: only what was known when the damage was done is taken back; what is written later stays owed.

use super::{Closed, Model, Standing};

/// Which acknowledgements a damage may have undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undo {
    /// Those of this number and above,
    pub from: u64,
    /// if they are of this batch or an earlier one.
    pub batches: u32,
}

impl Model {
    /// A rewrite was cut: which of the records below `log_floor` it left out is not known. Streams that take next to
    /// nothing are never left out.
    pub fn may_be_evicted(&mut self, log_floor: u64) {
        let mut bytes = [0u64; 256];
        self.records.iter().for_each(|r| bytes[usize::from(r.stream)] += u64::from(r.len));
        let all: u64 = bytes.iter().sum();
        for record in self.records.iter_mut().filter(|r| r.seq < log_floor) {
            if record.standing == Standing::Durable && bytes[usize::from(record.stream)] * 8 >= all {
                record.standing = Standing::Evicting;
            }
        }
    }

    /// What is owed if these acknowledgements count for nothing.
    #[must_use]
    pub fn undone(&self, undo: Undo) -> Self {
        let mut model = self.clone();
        for record in model.records.iter_mut().filter(|r| r.seq >= undo.from && r.batch <= undo.batches) {
            if record.standing == Standing::Durable {
                record.standing = Standing::Pending;
            }
        }
        let durable = model.records.iter().filter(|r| r.standing == Standing::Durable).map(|r| r.seq).max();
        model.durable = durable.unwrap_or(0).max(undo.from - 1).min(self.durable);
        model.exposed = model.exposed.min(model.durable);
        model.forgets_boots = true;
        if model.closed == Closed::Yes {
            model.closed = Closed::Maybe;
        }
        model
    }
}
