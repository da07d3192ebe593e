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
