//! Taking batches in: nothing is written here.
//!
//! Invariants: a batch is taken in whole or leaves no trace; what was taken in always fits the next commit, and its
//! state entries their table.

use super::{STATES_MAX, Store};
use crate::error::StoreError;
use crate::format::row::{Lost, Prefix, Row, STATE_KEY_BYTES_MAX, row_bytes_max};
use crate::hal::{Arena, Storage};
use crate::memtable::entry_bytes;

impl<S: Storage, A: Arena> Store<'_, S, A> {
    /// The largest record (its body and fields) this store takes.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        // Row head, prefix and a stream name stand in the same frame.
        let overhead = 64 + Prefix::BYTES_MAX + 264;
        // A group of a single record takes more than a row, and has to fit into a table.
        let overhead = if self.memory.group.is_some() { overhead + 192 } else { overhead };
        let frame = self.catalog.data_room().min(u32::try_from(self.memory.frame.len()).unwrap_or(u32::MAX));
        let frame = usize::try_from(self.catalog.layout.payload_max(frame)).unwrap_or(0);
        let segment = usize::try_from(self.catalog.geometry.segment_bytes).unwrap_or(0);
        let arena = self.arena_bytes;
        let part = if self.catalog.layout.wide { segment / 4 * 3 } else { segment.min(arena) / 2 };
        part.min(frame.saturating_sub(overhead)).min(arena.saturating_sub(entry_bytes(64)))
    }

    /// The number of the stream with this name, for [`Row::stream`]; `other` if there is no room for a new one.
    pub fn stream(&mut self, name: &str) -> u16 {
        let name = match name.char_indices().take_while(|(i, c)| i + c.len_utf8() <= 255).last() {
            Some((i, c)) => name.get(..i + c.len_utf8()).unwrap_or(name),
            None => name,
        };
        self.catalog.streams.intern(name).unwrap_or(crate::streams::OTHER)
    }

    /// Takes in a batch: its records get the next numbers, and it is durable whole or not at all, with its states.
    /// Returns the first and last number; for a batch of states alone, the last is one less than the first.
    ///
    /// # Power loss
    /// Nothing is written; the batch is in memory until a commit.
    ///
    /// # Errors
    /// [`StoreError::MemtableFull`]: commit and try again. Nothing is taken in on an error.
    pub fn append(&mut self, rows: &[Row<'_>], states: &[(&[u8], &[u8])]) -> Result<(u64, u64), StoreError<S::Error>> {
        if let Some(reason) = self.read_only {
            return Err(StoreError::ReadOnly(reason));
        }
        if self.active.is_none() {
            return Err(StoreError::CommitPending);
        }
        let max = self.record_bytes_max();
        let state_bytes = self.check_states(states)?;
        let mut record_bytes = 0usize;
        for row in rows {
            let bytes = row.body.len().saturating_add(row.fields.len());
            if bytes > max {
                return Err(StoreError::TooLarge { bytes, max });
            }
            record_bytes = record_bytes.saturating_add(bytes);
        }
        let (batch_max, commit_max) = (self.batch_bytes_max(), self.commit_bytes_max());
        let active = self.active.as_mut().ok_or(StoreError::CommitPending)?;
        let mark = active.mark();
        let first = active.extent().next_seq;
        let fits = rows.iter().all(|row| active.push(row).is_some())
            && states.iter().all(|(key, value)| active.push_state(key, value).is_some());
        let bytes = active.extent().used;
        if !fits || bytes.saturating_sub(mark.used()) > batch_max || bytes > commit_max {
            active.rollback(mark);
            let bytes: usize = rows.iter().map(|row| entry_bytes(row_bytes_max(row))).sum();
            let too_large = active.extent().is_empty() || bytes > batch_max;
            return Err(if too_large {
                StoreError::TooLarge { bytes, max: batch_max }
            } else {
                StoreError::MemtableFull
            });
        }
        active.end_batch();
        self.state_bytes.active = self.state_bytes.active.saturating_add(state_bytes);
        self.stats.records = self.stats.records.saturating_add(rows.len() as u64);
        self.stats.record_bytes = self.stats.record_bytes.saturating_add(record_bytes as u64);
        Ok((first, active.extent().next_seq.saturating_sub(1)))
    }

    /// Takes in that records were lost before they got here: they take the next numbers, and are a gap. Returns the
    /// first and last number.
    ///
    /// # Power loss
    /// As [`Self::append`]: the gap is durable with the next commit.
    ///
    /// # Errors
    /// [`StoreError::MemtableFull`]: commit and try again. Nothing is taken in on an error.
    pub fn append_lost(&mut self, lost: &Lost) -> Result<(u64, u64), StoreError<S::Error>> {
        if let Some(reason) = self.read_only {
            return Err(StoreError::ReadOnly(reason));
        }
        let active = self.active.as_mut().ok_or(StoreError::CommitPending)?;
        let first = active.extent().next_seq;
        if lost.records > 0 {
            active.push_lost(lost).ok_or(StoreError::MemtableFull)?;
            active.end_batch();
        }
        Ok((first, active.extent().next_seq.saturating_sub(1)))
    }

    /// Checks that the state entries of a batch will find room when it is durable; returns what they add to the table.
    fn check_states(&self, states: &[(&[u8], &[u8])]) -> Result<usize, StoreError<S::Error>> {
        if states.len() > STATES_MAX {
            return Err(StoreError::TableFull("more than 64 state entries in a batch"));
        }
        let max = self.catalog.state_room().min(self.memory.frame.len() / 4);
        let mut added = 0usize;
        for (key, value) in states {
            if key.len() > STATE_KEY_BYTES_MAX || value.len().saturating_add(key.len()) > max {
                return Err(StoreError::TableFull("state entry of this size"));
            }
            added = added.saturating_add(self.catalog.state.growth(key, value));
        }
        let room = self.catalog.state.room();
        let pending = self.state_bytes.active.saturating_add(self.state_bytes.frozen);
        match added.saturating_add(pending) <= room {
            true => Ok(added),
            false if added <= room => Err(StoreError::MemtableFull), // there may be room after a commit
            false => Err(StoreError::TableFull("state entry")),
        }
    }

    /// The largest batch: what one commit takes, and no more parts than a chain can count.
    fn batch_bytes_max(&self) -> usize {
        let buffer = u32::try_from(self.memory.frame.len()).unwrap_or(u32::MAX);
        let frame = usize::try_from(self.catalog.layout.payload_max(self.catalog.data_room().min(buffer))).unwrap_or(0);
        let parts = if self.catalog.layout.wide { usize::from(u16::MAX) / 4 } else { usize::from(u8::MAX) / 4 };
        self.commit_bytes_max().min(frame.saturating_mul(parts))
    }

    /// The most a commit takes: N/8 segments, so that it can be written elsewhere three times over; and one memtable.
    fn commit_bytes_max(&self) -> usize {
        let segments = usize::try_from(self.catalog.geometry.segments / 8).unwrap_or(1);
        let room = usize::try_from(self.catalog.data_room()).unwrap_or(0);
        segments.saturating_mul(room / 4 * 3).min(self.arena_bytes)
    }
}
