//! The memtable: records in sequence order in an arena that the caller hands over, with a chain per stream.
//!
//! Invariants: entries lie one after another and are never moved or changed but for the link of their stream's chain;
//! the numbers of its records, taken in or lost, are contiguous; a batch is there whole or not at all
//! ([`Memtable::rollback`]); a frozen memtable is the same bytes, read-only.

use crate::format::bytes::{put, u32_at};
use crate::format::row::{Item, ItemReader, ItemWriter, Lost, Row};
use crate::hal::Arena;

/// Bytes in front of each entry: length and flags, next of the same stream, low half of the sequence number, check of
/// the three and the item.
const ENTRY_BYTES: usize = 16;
/// Where in an entry the link to the next one of its stream stands.
const LINK_AT: usize = 4;
/// Where in an entry the low half of its sequence number stands.
const SEQ_AT: usize = 8;
const FLAG_ROW: u32 = 1 << 31;
const FLAG_BATCH_END: u32 = 1 << 30;
const FLAG_LOST: u32 = 1 << 29;
const LENGTH: u32 = FLAG_LOST - 1;

/// First and last entry of a stream's chain: offsets + 1, 0 if empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chain {
    head: u32,
    tail: u32,
}

/// Where a memtable ends; to go back there if a batch does not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    used: usize,
    next_seq: u64,
    end_of_batch: usize,
}

/// Counts of a memtable that go along with its arena, active or frozen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Sequence number of the first record.
    pub first_seq: u64,
    /// One more than the number of the last record.
    pub next_seq: u64,
    /// Bytes used of the arena.
    pub used: usize,
}

impl Extent {
    /// Number of records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.next_seq.saturating_sub(self.first_seq)
    }

    /// `true` if there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }
}

/// A memtable that takes records.
#[derive(Debug)]
pub struct Memtable<'m, A> {
    arena: A,
    chains: &'m mut [Chain],
    extent: Extent,
    end_of_batch: usize,
}

/// A memtable that is being written to the medium.
#[derive(Debug)]
pub struct Frozen<'m, F> {
    arena: F,
    chains: &'m mut [Chain],
    extent: Extent,
}

impl Mark {
    /// Bytes that were used.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }
}

impl<'m, A: Arena> Memtable<'m, A> {
    /// An empty memtable. `chains` may be shorter than the streams there are, or empty: records of streams beyond it
    /// are in no chain, and no row group can be made of this memtable.
    pub fn new(arena: A, chains: &'m mut [Chain], first_seq: u64) -> Self {
        chains.fill(Chain::default());
        let extent = Extent { first_seq, next_seq: first_seq, used: 0 };
        Self { arena, chains, extent, end_of_batch: 0 }
    }

    /// What it holds.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The bytes, for reading.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.arena.as_slice()
    }

    /// Bytes of the arena.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.arena.as_slice().len()
    }

    /// Where it ends now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { used: self.extent.used, next_seq: self.extent.next_seq, end_of_batch: self.end_of_batch }
    }

    /// Begins anew, empty.
    pub fn restart(&mut self, first_seq: u64) {
        self.chains.fill(Chain::default());
        self.extent = Extent { first_seq, next_seq: first_seq, used: 0 };
        self.end_of_batch = 0;
    }

    /// Takes back everything after `mark`.
    pub fn rollback(&mut self, mark: Mark) {
        self.extent.used = mark.used;
        self.extent.next_seq = mark.next_seq;
        self.end_of_batch = mark.end_of_batch;
        self.rebuild_chains();
    }

    /// The next record gets this number. Those of one memtable lie less than 2^32 apart.
    pub(crate) fn skip_to(&mut self, seq: u64) {
        self.extent.next_seq = self.extent.next_seq.max(seq);
    }

    /// Appends a record; `None` if it does not fit, and then nothing changed.
    pub fn push(&mut self, row: &Row<'_>) -> Option<u64> {
        let seq = self.extent.next_seq;
        let at = self.push_item(&Item::Row(*row), FLAG_ROW)?;
        self.link(row.stream, at);
        self.extent.next_seq = seq.saturating_add(1);
        Some(seq)
    }

    /// Appends a state entry; `None` if it does not fit, and then nothing changed.
    pub fn push_state(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        self.push_item(&Item::State { key, value }, 0).map(|_| ())
    }

    /// Appends what was not taken in; `None` if it does not fit, and then nothing changed.
    pub fn push_lost(&mut self, lost: &Lost) -> Option<u64> {
        let seq = self.extent.next_seq;
        self.push_item(&Item::Lost(*lost), FLAG_LOST)?;
        self.extent.next_seq = seq.saturating_add(u64::from(lost.records));
        Some(seq)
    }

    /// Marks the last entry as the end of its batch.
    pub fn end_batch(&mut self) {
        let bytes = self.arena.bytes();
        if let Some(word) = u32_at(bytes, self.end_of_batch).filter(|_| self.extent.used > self.end_of_batch) {
            put(bytes, self.end_of_batch, &(word | FLAG_BATCH_END).to_le_bytes());
        }
    }

    fn push_item(&mut self, item: &Item<'_>, flags: u32) -> Option<usize> {
        let at = self.extent.used;
        let bytes = self.arena.bytes();
        let mut writer = ItemWriter::new(bytes.get_mut(at.checked_add(ENTRY_BYTES)?..)?);
        writer.item(item)?;
        let len = u32::try_from(writer.len()).ok().filter(|len| *len <= LENGTH)?;
        put(bytes, at, &(len | flags).to_le_bytes())?;
        put(bytes, at.checked_add(LINK_AT)?, &0u32.to_le_bytes())?;
        let [a, b, c, d, ..] = self.extent.next_seq.to_le_bytes();
        put(bytes, at.checked_add(SEQ_AT)?, &[a, b, c, d])?;
        self.extent.used = at.checked_add(ENTRY_BYTES)?.checked_add(usize::try_from(len).ok()?)?;
        self.end_of_batch = at;
        Some(at)
    }

    fn link(&mut self, stream: u16, at: usize) {
        let Some(chain) = self.chains.get_mut(usize::from(stream)) else { return };
        let Some(link) = u32::try_from(at).ok().and_then(|at| at.checked_add(1)) else { return };
        if chain.head == 0 {
            chain.head = link;
        } else if let Some(tail) = usize::try_from(chain.tail).ok().and_then(|t| t.checked_add(LINK_AT - 1)) {
            // `tail` is an offset + 1.
            put(self.arena.bytes(), tail, &link.to_le_bytes());
        }
        chain.tail = link;
    }

    fn rebuild_chains(&mut self) {
        self.chains.fill(Chain::default());
        let (mut at, used) = (0, self.extent.used);
        while at < used {
            let bytes = self.arena.bytes();
            put(bytes, at.saturating_add(LINK_AT), &0u32.to_le_bytes());
            let mut walk = Entries { bytes, at, used, seq: 0 };
            let Some(entry) = walk.next() else { break };
            let (next, stream) = (walk.at, entry.stream());
            if let Some(stream) = stream {
                self.link(stream, at);
            }
            at = next;
        }
    }

    /// Makes it read-only.
    pub fn freeze(self) -> Frozen<'m, A::Frozen> {
        Frozen { arena: self.arena.freeze(), chains: self.chains, extent: self.extent }
    }
}

impl<'m, F: AsRef<[u8]>> Frozen<'m, F> {
    /// What it holds.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The bytes, for reading.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.arena.as_ref()
    }

    /// The entries, in order.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries::new(self.bytes(), self.extent)
    }

    /// The records of one stream with their sequence numbers, in order.
    #[must_use]
    pub fn chain(&self, stream: u16) -> ChainRows<'_> {
        self.chain_at(self.chains.get(usize::from(stream)).map_or(0, |c| c.head))
    }

    /// Goes on where another walk along a chain of this memtable stood, see [`ChainRows::position`].
    pub(crate) fn chain_at(&self, position: u32) -> ChainRows<'_> {
        ChainRows { bytes: self.bytes(), link: position, first_seq: self.extent.first_seq }
    }

    /// The first stream at or above `from` that has a chain.
    pub(crate) fn next_stream(&self, from: u16) -> Option<u16> {
        let (at, _) = self.chains.iter().enumerate().skip(usize::from(from)).find(|(_, c)| c.head != 0)?;
        u16::try_from(at).ok()
    }

    /// Streams that have a chain.
    pub fn streams(&self) -> impl Iterator<Item = u16> + '_ {
        self.chains.iter().enumerate().filter(|(_, c)| c.head != 0).filter_map(|(i, _)| u16::try_from(i).ok())
    }

    /// Takes the memory back as an empty memtable.
    ///
    /// # Errors
    /// Gives the frozen memtable back while somebody else still reads it.
    pub fn thaw<A: Arena<Frozen = F>>(self, first_seq: u64) -> Result<Memtable<'m, A>, Self> {
        match A::thaw(self.arena) {
            Ok(arena) => Ok(Memtable::new(arena, self.chains, first_seq)),
            Err(arena) => Err(Self { arena, chains: self.chains, extent: self.extent }),
        }
    }
}

/// Walks the records of one stream in order. Ends early where an entry is malformed.
#[derive(Debug, Clone)]
pub struct ChainRows<'b> {
    bytes: &'b [u8],
    /// Offset + 1 of the next entry, 0 at the end.
    link: u32,
    first_seq: u64,
}

impl ChainRows<'_> {
    /// Where it stands.
    pub(crate) fn position(&self) -> u32 {
        self.link
    }

    /// The sequence number of the next record.
    pub(crate) fn next_seq(&self) -> Option<u64> {
        let at = usize::try_from(self.link.checked_sub(1)?).ok()?;
        let low = u32_at(self.bytes, at.checked_add(SEQ_AT)?)?;
        // A memtable holds less than 2^32 records, so the low half tells how far it is from the first.
        let [a, b, c, d, ..] = self.first_seq.to_le_bytes();
        self.first_seq.checked_add(u64::from(low.wrapping_sub(u32::from_le_bytes([a, b, c, d]))))
    }

    /// Passes by the records below `seq`.
    pub(crate) fn skip_below(&mut self, seq: u64) {
        while self.next_seq().is_some_and(|next| next < seq) {
            self.link = self.next_link().unwrap_or(0);
        }
    }

    fn next_link(&self) -> Option<u32> {
        let at = usize::try_from(self.link.checked_sub(1)?).ok()?;
        // Links lead onwards only, whatever the bytes are.
        u32_at(self.bytes, at.checked_add(LINK_AT)?).filter(|next| *next == 0 || *next > self.link)
    }
}

impl<'b> Iterator for ChainRows<'b> {
    type Item = (u64, Row<'b>);

    fn next(&mut self) -> Option<(u64, Row<'b>)> {
        let seq = self.next_seq()?;
        let at = usize::try_from(self.link.checked_sub(1)?).ok()?;
        let (entry, _) = entry_at(self.bytes, at)?;
        self.link = self.next_link()?;
        match entry.item()? {
            Item::Row(row) => Some((seq, row)),
            _ => None,
        }
    }
}

/// One entry of a memtable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'b> {
    /// Sequence number of the record; for a state entry, of the next record.
    pub seq: u64,
    /// The item as it is written to frames.
    pub item_bytes: &'b [u8],
    /// A record.
    pub is_row: bool,
    /// Records that were not taken in; neither is a state entry.
    pub is_lost: bool,
    /// The batch ends here.
    pub ends_batch: bool,
}

impl<'b> Entry<'b> {
    /// The item, decoded.
    #[must_use]
    pub fn item(&self) -> Option<Item<'b>> {
        ItemReader::new(self.item_bytes).next()
    }

    /// How many numbers it takes.
    #[must_use]
    pub fn numbers(&self) -> u32 {
        match (self.is_row, self.is_lost) {
            (true, _) => 1,
            (_, true) => self.item().map_or(0, |item| item.numbers()),
            (false, false) => 0,
        }
    }

    /// The stream of a record.
    #[must_use]
    pub fn stream(&self) -> Option<u16> {
        match self.item()? {
            Item::Row(row) => Some(row.stream),
            _ => None,
        }
    }
}

fn entry_at(bytes: &[u8], at: usize) -> Option<(Entry<'_>, usize)> {
    let word = u32_at(bytes, at)?;
    let start = at.checked_add(ENTRY_BYTES)?;
    let end = start.checked_add(usize::try_from(word & LENGTH).ok()?)?;
    let entry = Entry {
        seq: 0,
        item_bytes: bytes.get(start..end)?,
        is_row: word & FLAG_ROW != 0,
        is_lost: word & FLAG_LOST != 0,
        ends_batch: word & FLAG_BATCH_END != 0,
    };
    Some((entry, end))
}

/// Walks the entries of a memtable in order.
#[derive(Debug, Clone)]
pub struct Entries<'b> {
    bytes: &'b [u8],
    at: usize,
    used: usize,
    seq: u64,
}

impl<'b> Entries<'b> {
    /// Walks `bytes`, which hold what `extent` says.
    #[must_use]
    pub fn new(bytes: &'b [u8], extent: Extent) -> Self {
        Self { bytes, at: 0, used: extent.used, seq: extent.first_seq }
    }
}

impl Entries<'_> {
    /// Bytes of the entries still to come, with their heads.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.used.saturating_sub(self.at)
    }
}

impl<'b> Iterator for Entries<'b> {
    type Item = Entry<'b>;

    fn next(&mut self) -> Option<Entry<'b>> {
        if self.at >= self.used {
            return None;
        }
        let (entry, end) = entry_at(self.bytes, self.at)?;
        self.at = end;
        let seq = self.seq;
        self.seq = seq.saturating_add(u64::from(entry.numbers()));
        Some(Entry { seq, ..entry })
    }
}

/// Bytes of arena that an item of `item_bytes` takes.
#[must_use]
pub fn entry_bytes(item_bytes: usize) -> usize {
    item_bytes.saturating_add(ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hal::SliceArena;
    use std::vec::Vec;

    fn row(stream: u16, body: &[u8]) -> Row<'_> {
        Row {
            stream,
            severity: 9,
            continued: false,
            received_us: 1,
            event_time_us: None,
            trace: None,
            body,
            fields: &[],
        }
    }

    #[test]
    fn records_come_back_in_order_and_by_stream() {
        let (mut bytes, mut chains) = ([0u8; 512], [Chain::default(); 3]);
        let mut table = Memtable::new(SliceArena(&mut bytes), &mut chains, 5);
        for (i, stream) in (0u8..).zip([1u16, 2, 1, 1, 2]) {
            assert_eq!(table.push(&row(stream, &[i])), Some(5 + u64::from(i)));
            table.end_batch();
        }
        table.push_state(b"k", b"v").unwrap();
        table.end_batch();
        let frozen = table.freeze();
        let seqs: Vec<_> = frozen.entries().map(|e| (e.seq, e.is_row, e.ends_batch)).collect();
        assert_eq!(seqs.len(), 6);
        assert_eq!(seqs[5], (10, false, true));
        let bodies = |s| frozen.chain(s).map(|(_, r)| r.body[0]).collect::<Vec<_>>();
        assert_eq!((bodies(1), bodies(2), bodies(0)), (std::vec![0, 2, 3], std::vec![1, 4], std::vec![]));
        assert!(frozen.chain(1).map(|(seq, _)| seq).eq([5, 7, 8]));
        assert!(frozen.streams().eq([1, 2]));
        assert_eq!((frozen.next_stream(0), frozen.next_stream(2), frozen.next_stream(3)), (Some(1), Some(2), None));
        let mut rows = frozen.chain(1);
        rows.skip_below(6);
        assert_eq!(rows.next_seq(), Some(7));
        assert!(frozen.chain_at(rows.position()).map(|(seq, _)| seq).eq([7, 8]));
    }

    #[test]
    fn a_batch_that_does_not_fit_is_taken_back_whole() {
        let (mut bytes, mut chains) = ([0u8; 64], [Chain::default(); 2]);
        let mut table = Memtable::new(SliceArena(&mut bytes), &mut chains, 1);
        table.push(&row(1, b"kept")).unwrap();
        table.end_batch();
        let mark = table.mark();
        table.push(&row(1, b"1")).unwrap();
        assert_eq!(table.push(&row(1, &[7; 40])), None);
        table.rollback(mark);
        assert_eq!(table.push(&row(1, b"2")), Some(2));
        table.end_batch();
        let frozen = table.freeze();
        let bodies: Vec<_> = frozen.chain(1).map(|(_, r)| r.body).collect();
        assert_eq!(bodies, [&b"kept"[..], b"2"]);
        assert!(frozen.entries().all(|e| e.ends_batch));
    }

    #[test]
    fn numbers_are_whole_across_the_low_half() {
        let (mut bytes, mut chains) = ([0u8; 256], [Chain::default(); 2]);
        let first = u64::from(u32::MAX) * 3 + 1;
        let mut table = Memtable::new(SliceArena(&mut bytes), &mut chains, first);
        let pushed: Vec<u64> = (0..5).map(|i| table.push(&row(1, &[i])).unwrap()).collect();
        assert_eq!(pushed, [first, first + 1, first + 2, first + 3, first + 4]);
        assert!(table.freeze().chain(1).map(|(seq, _)| seq).eq(pushed));
    }

    #[test]
    fn thawing_gives_the_memory_back_empty() {
        let (mut bytes, mut chains) = ([0u8; 64], [Chain::default(); 2]);
        let mut table = Memtable::new(SliceArena(&mut bytes), &mut chains, 1);
        table.push(&row(1, b"x")).unwrap();
        let table: Memtable<'_, SliceArena<'_>> = table.freeze().thaw(2).unwrap();
        assert!(table.extent().is_empty());
        assert_eq!(table.extent().first_seq, 2);
    }
}
