//! How far each file was read, as state entries of the store.
//!
//! A state entry `files.SECTION.N` holds some files: a version byte, then for each {device, inode, offset: varints;
//! checksums of head and tail, 4 bytes each, little-endian; length of the stream's name u8, the name, empty if it is
//! the section's}.
//!
//! Invariants: a file stays in its entry, so one batch needs the entry of its file only; an entry stays below
//! [`ENTRY_BYTES`]; there are at most [`FILES_MAX`] files: those that are not there any more are forgotten first.

use std::collections::{BTreeMap, BTreeSet};

use super::identity::{Id, Mark};

/// Files of a section at most.
pub const FILES_MAX: usize = 1000;
/// A state entry is filled up to here; but it holds one file at least.
const ENTRY_BYTES: usize = 512;
/// The largest encoding of a file, without the name of its stream.
const FILE_BYTES_MAX: usize = 30 + 8 + 1;
const VERSION: u8 = 1;
/// Entries of other files that are kept along with one.
const STALE_AT_ONCE: usize = 3;

/// A known file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// How far it was read.
    pub mark: Mark,
    /// Its stream.
    pub stream: String,
    /// It was met in this run.
    pub present: bool,
    entry: usize,
}

/// All known files of a section.
#[derive(Debug)]
pub struct Book {
    prefix: String,
    default_stream: String,
    files: BTreeMap<Id, Known>,
    /// The files of each state entry.
    entries: Vec<BTreeSet<Id>>,
    /// State entries from which a file was taken out since they were kept.
    stale: BTreeSet<usize>,
    is_new: bool,
}

impl Book {
    /// What the store knows of a section.
    pub fn open<'s>(
        section: &str,
        default_stream: &str,
        states: impl IntoIterator<Item = (&'s Vec<u8>, &'s Vec<u8>)>,
    ) -> Self {
        let prefix = format!("files.{section}.");
        let mut book = Self {
            prefix,
            default_stream: default_stream.to_owned(),
            files: BTreeMap::new(),
            entries: Vec::new(),
            stale: BTreeSet::new(),
            is_new: true,
        };
        for (key, value) in states {
            let number = key.strip_prefix(book.prefix.as_bytes()).and_then(|n| std::str::from_utf8(n).ok());
            let number = number.filter(|n| n.bytes().all(|b| b.is_ascii_digit())).and_then(|n| n.parse().ok());
            if let Some(number) = number.filter(|n| *n < 2 * FILES_MAX) {
                book.is_new = false;
                book.read(number, value);
            }
        }
        book
    }

    fn read(&mut self, entry: usize, value: &[u8]) {
        if value.first() != Some(&VERSION) {
            return;
        }
        let mut rest = value.get(1..).unwrap_or_default();
        while let Some((id, mark, stream)) = take_file(&mut rest) {
            let stream = if stream.is_empty() { self.default_stream.clone() } else { stream };
            if self.files.contains_key(&id) {
                continue;
            }
            if self.entries.len() <= entry {
                self.entries.resize_with(entry.saturating_add(1), BTreeSet::new);
            }
            if let Some(files) = self.entries.get_mut(entry) {
                files.insert(id);
                self.files.insert(id, Known { mark, stream, present: false, entry });
            }
        }
    }

    /// The store knows nothing of this section.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// What is known of a file.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&Known> {
        self.files.get(&id)
    }

    /// Known files that were not met in this run.
    pub fn absent(&self) -> impl Iterator<Item = (Id, &Known)> {
        self.files.iter().filter(|(_, known)| !known.present).map(|(id, known)| (*id, known))
    }

    /// Notes a file; `false` if there are too many.
    pub fn set(&mut self, id: Id, mark: Mark, stream: &str) -> bool {
        if let Some(known) = self.files.get_mut(&id).filter(|known| known.stream == stream) {
            (known.mark, known.present) = (mark, true);
            return true;
        }
        self.forget(id);
        if self.files.len() >= FILES_MAX {
            let Some(absent) = self.absent().map(|(id, _)| id).next() else { return false };
            self.forget(absent);
        }
        let need = FILE_BYTES_MAX.saturating_add(stream.len());
        let fits = |files: &BTreeSet<Id>| {
            let streams = files.iter().filter_map(|id| self.files.get(id)).map(|known| known.stream.len());
            let used: usize = streams.map(|len| len.saturating_add(FILE_BYTES_MAX)).sum();
            files.is_empty() || used.saturating_add(need) <= ENTRY_BYTES
        };
        let entry = self.entries.iter().position(fits).unwrap_or(self.entries.len());
        if entry == self.entries.len() {
            self.entries.push(BTreeSet::new());
        }
        if let Some(files) = self.entries.get_mut(entry) {
            files.insert(id);
        }
        self.files.insert(id, Known { mark, stream: stream.to_owned(), present: true, entry });
        true
    }

    /// A file is not followed any more; it is known still.
    pub fn leave(&mut self, id: Id) {
        if let Some(known) = self.files.get_mut(&id) {
            known.present = false;
        }
    }

    /// A file is gone for good.
    pub fn forget(&mut self, id: Id) {
        if let Some(known) = self.files.remove(&id)
            && let Some(files) = self.entries.get_mut(known.entry)
        {
            files.remove(&id);
            self.stale.insert(known.entry);
        }
    }

    /// The state entries, key and value, that are to be kept with what was read of a file: its own, and some from which
    /// files were taken out, lest they come back.
    pub fn states_with(&mut self, id: Id) -> Vec<(Vec<u8>, Vec<u8>)> {
        let own = self.files.get(&id).map_or(0, |known| known.entry);
        let mut entries = vec![own];
        entries.extend(self.stale.iter().copied().filter(|entry| *entry != own).take(STALE_AT_ONCE));
        self.stale.retain(|entry| !entries.contains(entry));
        entries.into_iter().map(|entry| self.state(entry)).collect()
    }

    /// Key and value of a state entry.
    fn state(&self, entry: usize) -> (Vec<u8>, Vec<u8>) {
        let mut value = vec![VERSION];
        for id in self.entries.get(entry).into_iter().flatten() {
            let Some(known) = self.files.get(id) else { continue };
            put_varint(&mut value, id.dev);
            put_varint(&mut value, id.ino);
            put_varint(&mut value, known.mark.offset);
            value.extend_from_slice(&known.mark.head.to_le_bytes());
            value.extend_from_slice(&known.mark.tail.to_le_bytes());
            let stream = if known.stream == self.default_stream { "" } else { known.stream.as_str() };
            let len = u8::try_from(stream.len()).unwrap_or(0);
            value.push(len);
            value.extend_from_slice(stream.as_bytes().get(..usize::from(len)).unwrap_or_default());
        }
        (format!("{}{entry}", self.prefix).into_bytes(), value)
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?.first().copied()?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}

fn take_file(rest: &mut &[u8]) -> Option<(Id, Mark, String)> {
    let id = Id { dev: take_varint(rest)?, ino: take_varint(rest)? };
    let offset = take_varint(rest)?;
    let head = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
    let tail = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
    let len = take(rest, 1)?.first().copied()?;
    let stream = String::from_utf8(take(rest, usize::from(len))?.to_vec()).ok()?;
    Some((id, Mark { offset, head, tail }, stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> Id {
        Id { dev: n % 3, ino: n << 20 }
    }

    fn mark(n: u64) -> Mark {
        Mark { offset: n * n * 1_000_003, head: 7, tail: u32::MAX }
    }

    #[test]
    fn every_file_comes_back_from_small_state_entries() {
        let mut book = Book::open("web", "web", []);
        assert!(book.is_new());
        let mut states = BTreeMap::new();
        for n in 0..FILES_MAX as u64 {
            let stream =
                if n % 2 == 0 { "web".to_owned() } else { "x".repeat(usize::try_from(n % 256).unwrap().max(1)) };
            assert!(book.set(id(n), mark(n), &stream));
            let (key, value) = book.states_with(id(n)).remove(0);
            assert!(value.len() <= ENTRY_BYTES + 1 && key.len() < 20, "{}", value.len());
            states.insert(key, value);
        }
        assert!(!book.set(id(5000), mark(1), "web"), "too many");
        let other = (b"files.web.x.1".to_vec(), vec![1, 2, 3]);
        let again = Book::open("web", "web", states.iter().chain([(&other.0, &other.1)]));
        assert!(!again.is_new());
        for n in 0..FILES_MAX as u64 {
            let (was, is) = (book.get(id(n)).unwrap(), again.get(id(n)).unwrap());
            assert_eq!((was.mark, &was.stream, was.entry, false), (is.mark, &is.stream, is.entry, is.present));
        }
        let total: usize = states.values().map(Vec::len).sum();
        println!("{} entries, {total} bytes", states.len());
    }

    #[test]
    fn files_that_are_not_there_make_room_and_damaged_entries_do_no_harm() {
        let mut book = Book::open("a", "a", []);
        for n in 0..FILES_MAX as u64 {
            book.set(id(n), mark(n), "a");
        }
        book.leave(id(7));
        assert!(book.set(id(5000), mark(1), "a") && book.get(id(7)).is_none());
        book.forget(id(9));
        assert!(book.set(id(5001), mark(1), "a"));
        let states = book.states_with(id(5001));
        let again = Book::open("a", "a", states.iter().map(|(key, value)| (key, value)));
        assert!(again.get(id(7)).is_none() && again.get(id(9)).is_none(), "they do not come back");
        let (key, value) = states[0].clone();
        for cut in 0..value.len() {
            let part = value[..cut].to_vec();
            let _ = Book::open("a", "a", [(&key, &part)]);
        }
        for at in 0..value.len() {
            let mut bad = value.clone();
            bad[at] ^= 0xff;
            let _ = Book::open("a", "a", [(&key, &bad)]);
        }
    }
}
