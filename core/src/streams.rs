//! Stream names and state entries: small tables over memory that the caller hands over.
//!
//! Invariants: a stream keeps its number for the life of the store, numbers are dense from 1, number 0 is `other` and
//! takes the records of streams beyond the table; of a state entry the last writer wins, and an empty value removes it.

use crate::error::MemoryError;
use crate::snapshot::copy;

/// Number of the stream that takes what the table has no room for.
pub const OTHER: u16 = 0;
/// Its name.
pub const OTHER_NAME: &str = "other";

/// One named stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamSlot {
    start: u32,
    len: u8,
    known: bool,
    /// The running log segment defines it, from the record with this number on; 0 if not.
    defined_at: u64,
    /// The manifest knows it.
    published: bool,
    /// What it takes in tables, and of the log segment that was looked at last.
    units: [u32; 2],
}

/// Which of a stream's two counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    /// In tables.
    Tables = 0,
    /// In the oldest segment of the log.
    Log = 1,
}

/// Names of streams by number.
#[derive(Debug)]
pub struct StreamTable<'m> {
    slots: &'m mut [StreamSlot],
    names: &'m mut [u8],
    used: u32,
    next_id: u16,
}

impl<'m> StreamTable<'m> {
    /// An empty table. Slot `i` is stream `i`; slot 0 stays unused.
    pub fn new(slots: &'m mut [StreamSlot], names: &'m mut [u8]) -> Self {
        slots.fill(StreamSlot::default());
        Self { slots, names, used: 0, next_id: 1 }
    }

    /// Copies the table; returns what [`Self::of_copy`] needs.
    pub(crate) fn copy_to(&self, slots: &mut [StreamSlot], names: &mut [u8]) -> Result<(u32, u16), MemoryError> {
        let in_use = usize::from(self.next_id).min(self.slots.len());
        copy("streams", self.slots.get(..in_use).unwrap_or_default(), slots)?;
        let used = usize::try_from(self.used).unwrap_or(usize::MAX);
        copy("names", self.names.get(..used).unwrap_or_default(), names)?;
        Ok((self.used, self.next_id))
    }

    pub(crate) fn of_copy(slots: &'m mut [StreamSlot], names: &'m mut [u8], (used, next_id): (u32, u16)) -> Self {
        Self { slots, names, used, next_id }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.fill(StreamSlot::default());
        self.used = 0;
        self.next_id = 1;
    }

    /// How many streams there can be.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len().saturating_sub(1)
    }

    /// Name of a stream.
    #[must_use]
    pub fn name(&self, id: u16) -> Option<&str> {
        if id == OTHER {
            return Some(OTHER_NAME);
        }
        let slot = self.slots.get(usize::from(id)).filter(|s| s.known)?;
        let start = usize::try_from(slot.start).ok()?;
        core::str::from_utf8(self.names.get(start..)?.get(..usize::from(slot.len))?).ok()
    }

    /// Number of a stream, if it is known.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<u16> {
        if name == OTHER_NAME {
            return Some(OTHER);
        }
        (1..self.next_id).find(|id| self.name(*id) == Some(name))
    }

    /// Number of a stream, taking the next free one for a new name; `None` if the table or its names are full.
    pub fn intern(&mut self, name: &str) -> Option<u16> {
        if let Some(id) = self.find(name) {
            return Some(id);
        }
        let id = self.next_id;
        self.define(id, name)?;
        Some(id)
    }

    /// Sets the name of a stream as the medium gives it; a name already known stays. `None` if there is no room.
    pub fn define(&mut self, id: u16, name: &str) -> Option<()> {
        if id == OTHER || self.slots.get(usize::from(id))?.known {
            return Some(());
        }
        let len = u8::try_from(name.len()).ok()?;
        let start = self.used;
        let end = start.checked_add(u32::from(len))?;
        let place = self.names.get_mut(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?;
        place.copy_from_slice(name.as_bytes());
        self.used = end;
        let slot = self.slots.get_mut(usize::from(id))?;
        *slot = StreamSlot { start, len, known: true, defined_at: 0, published: false, units: slot.units };
        self.next_id = self.next_id.max(id.saturating_add(1));
        Some(())
    }

    /// Bytes that definitions of all streams take at most.
    #[must_use]
    pub fn names_bytes(&self) -> usize {
        usize::try_from(self.used).unwrap_or(usize::MAX).saturating_add(usize::from(self.next_id).saturating_mul(8))
    }

    /// All streams, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &str)> + '_ {
        (1..self.next_id).filter_map(|id| Some((id, self.name(id)?)))
    }

    /// A new log segment begins: it defines no stream yet.
    pub fn begin_segment(&mut self) {
        self.undefine_from(0);
    }

    /// `true` if the running segment does not define this stream yet.
    #[must_use]
    pub fn needs_definition(&self, id: u16) -> bool {
        self.slots.get(usize::from(id)).is_some_and(|s| s.known && s.defined_at == 0)
    }

    /// The running segment defines this stream from record `seq` on.
    pub fn set_defined(&mut self, id: u16, seq: u64) {
        if let Some(slot) = self.slots.get_mut(usize::from(id)) {
            slot.defined_at = seq.max(1);
        }
    }

    /// The definitions that came with records at or above `seq` were not written after all.
    pub fn undefine_from(&mut self, seq: u64) {
        self.slots.iter_mut().filter(|s| s.defined_at >= seq).for_each(|s| s.defined_at = 0);
    }

    /// The first stream at or above `from` that the manifest does not know.
    #[must_use]
    pub fn unpublished(&self, from: u16) -> Option<u16> {
        (from.max(1)..self.next_id).find(|id| self.slots.get(usize::from(*id)).is_some_and(|s| s.known && !s.published))
    }

    /// The manifest knows these streams.
    pub fn set_published(&mut self, below: u16) {
        self.slots.iter_mut().take(usize::from(below)).for_each(|s| s.published = s.known);
    }

    /// What a stream takes, in units of the caller's.
    pub(crate) fn usage(&self, id: u16, of: Usage) -> u32 {
        self.slots.get(usize::from(id)).and_then(|s| s.units.get(of as usize)).copied().unwrap_or(0)
    }

    /// Adds to what a stream takes, or takes away from it.
    pub(crate) fn use_more(&mut self, id: u16, of: Usage, units: u32, gone: bool) {
        if let Some(count) = self.slots.get_mut(usize::from(id)).and_then(|s| s.units.get_mut(of as usize)) {
            *count = if gone { count.saturating_sub(units) } else { count.saturating_add(units) };
        }
    }

    /// Forgets one of the counts of all streams.
    pub(crate) fn forget_usage(&mut self, of: Usage) {
        self.slots.iter_mut().filter_map(|s| s.units.get_mut(of as usize)).for_each(|units| *units = 0);
    }

    /// What all streams take.
    pub(crate) fn usage_of_all(&self, of: Usage) -> u64 {
        self.slots.iter().filter_map(|s| s.units.get(of as usize)).map(|units| u64::from(*units)).sum()
    }

    /// Numbers of all streams there can be.
    pub(crate) fn ids(&self) -> core::ops::Range<u16> {
        0..u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    /// One more than the highest number in use.
    #[must_use]
    pub fn next_id(&self) -> u16 {
        self.next_id
    }
}

/// State entries that are durable with the batch that set them: cursors of sources.
#[derive(Debug)]
pub struct StateTable<'m> {
    /// Entries one after another: key length u8, value length u16, key, value.
    bytes: &'m mut [u8],
    used: usize,
}

impl<'m> StateTable<'m> {
    /// An empty table over the caller's memory.
    pub fn new(bytes: &'m mut [u8]) -> Self {
        Self { bytes, used: 0 }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        let mut rest = self.bytes.get(..self.used).unwrap_or_default();
        core::iter::from_fn(move || {
            let (key, value, after) = split_entry(rest)?;
            rest = after;
            Some((key, value))
        })
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Bytes that are free.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bytes.len().saturating_sub(self.used)
    }

    /// Bytes by which `set` would make the table grow at most.
    #[must_use]
    pub fn growth(&self, key: &[u8], value: &[u8]) -> usize {
        let freed = self.get(key).map_or(0, |v| entry_len(key, v));
        let need = if value.is_empty() { 0 } else { entry_len(key, value) };
        need.saturating_sub(freed)
    }

    /// `true` if `set` would find room.
    #[must_use]
    pub fn has_room(&self, key: &[u8], value: &[u8]) -> bool {
        let freed = self.get(key).map_or(0, |v| entry_len(key, v));
        let need = if value.is_empty() { 0 } else { entry_len(key, value) };
        u8::try_from(key.len()).is_ok()
            && u16::try_from(value.len()).is_ok()
            && self.used.saturating_sub(freed).saturating_add(need) <= self.bytes.len()
    }

    /// Sets `key`; an empty value removes it. `None` if there is no room, and then nothing changed.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if !self.has_room(key, value) {
            return None;
        }
        self.remove(key);
        if value.is_empty() {
            return Some(());
        }
        let place = self.bytes.get_mut(self.used..)?.get_mut(..entry_len(key, value))?;
        let (lengths, place) = place.split_at_mut_checked(3)?;
        let value_len = u16::try_from(value.len()).ok()?.to_le_bytes();
        lengths.copy_from_slice(&[u8::try_from(key.len()).ok()?, value_len[0], value_len[1]]);
        let (k, v) = place.split_at_mut_checked(key.len())?;
        k.copy_from_slice(key);
        v.copy_from_slice(value);
        self.used = self.used.saturating_add(entry_len(key, value));
        Some(())
    }

    fn remove(&mut self, key: &[u8]) {
        let mut at = 0;
        while let Some((k, v, _)) = self.bytes.get(at..self.used).and_then(split_entry) {
            let len = entry_len(k, v);
            if k == key {
                self.bytes.copy_within(at.saturating_add(len)..self.used, at);
                self.used = self.used.saturating_sub(len);
                return;
            }
            at = at.saturating_add(len);
        }
    }
}

fn entry_len(key: &[u8], value: &[u8]) -> usize {
    key.len().saturating_add(value.len()).saturating_add(3)
}

fn split_entry(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (lengths, rest) = bytes.split_at_checked(3)?;
    let &[key_len, a, b] = lengths else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(key_len))?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([a, b])))?;
    Some((key, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_keeps_its_number_and_a_full_table_says_so() {
        let (mut slots, mut names) = ([StreamSlot::default(); 3], [0u8; 16]);
        let mut table = StreamTable::new(&mut slots, &mut names);
        assert_eq!(table.intern("kernel"), Some(1));
        assert_eq!(table.intern("app"), Some(2));
        assert_eq!(table.intern("kernel"), Some(1));
        assert_eq!(table.intern("third"), None);
        assert_eq!(table.intern("other"), Some(OTHER));
        assert!(table.iter().eq([(1, "kernel"), (2, "app")]));
    }

    #[test]
    fn definitions_are_due_once_per_segment() {
        let (mut slots, mut names) = ([StreamSlot::default(); 3], [0u8; 16]);
        let mut table = StreamTable::new(&mut slots, &mut names);
        table.intern("a");
        assert!(table.needs_definition(1));
        table.set_defined(1, 7);
        assert!(!table.needs_definition(1));
        table.begin_segment();
        assert!(table.needs_definition(1));
        assert_eq!(table.unpublished(0), Some(1));
        table.set_published(2);
        assert_eq!(table.unpublished(0), None);
    }

    #[test]
    fn the_last_writer_of_a_state_entry_wins() {
        let mut bytes = [0u8; 24];
        let mut table = StateTable::new(&mut bytes);
        table.set(b"a", b"12345").unwrap();
        table.set(b"b", b"x").unwrap();
        table.set(b"a", b"6").unwrap();
        assert_eq!((table.get(b"a"), table.get(b"b")), (Some(&b"6"[..]), Some(&b"x"[..])));
        assert_eq!(table.set(b"c", &[0; 20]), None);
        table.set(b"a", b"").unwrap();
        assert_eq!(table.get(b"a"), None);
        assert_eq!(table.iter().count(), 1);
    }
}
