//! The bytes of a medium, in pages that clones share until one of them writes.
//!
//! Invariants:
//! - pages hang on nodes of up to 128 pages; cloning costs one reference count a node, so that a clone of a real
//!   geometry is as cheap as one of a toy; a write copies only the shared pages and nodes it touches;
//! - a fresh image holds one page of bytes in memory, however large it is;
//! - the length never changes after construction except by [`Image::truncate`]; bytes beyond it do not exist.

use std::ops::Range;
use std::sync::Arc;

/// Bytes in one shared page.
const PAGE: usize = 4096;

/// Pages on one node.
const FAN: usize = 128;

type Page = Arc<[u8; PAGE]>;

/// The bytes of a medium.
#[derive(Clone)]
pub struct Image {
    nodes: Vec<Arc<Vec<Page>>>,
    len: usize,
}

impl Image {
    /// `len` bytes of `byte`.
    #[must_use]
    pub fn filled(len: usize, byte: u8) -> Self {
        let pages = len.div_ceil(PAGE);
        let page = Arc::new([byte; PAGE]);
        let full = Arc::new(vec![Arc::clone(&page); FAN]);
        let mut nodes = vec![full; pages / FAN];
        if !pages.is_multiple_of(FAN) {
            nodes.push(Arc::new(vec![page; pages % FAN]));
        }
        Self { nodes, len }
    }

    /// A copy of `bytes`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut image = Self::filled(bytes.len(), 0);
        image.write(0, bytes);
        image
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// `true` if it holds no byte at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts off everything from `len` on, as a copy of a store that was cut short.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        let pages = self.len.div_ceil(PAGE);
        self.nodes.truncate(pages.div_ceil(FAN));
        if let Some(last) = self.nodes.last_mut().filter(|_| !pages.is_multiple_of(FAN)) {
            Arc::make_mut(last).truncate(pages % FAN);
        }
    }

    /// Copies the bytes at `at` into `into`.
    ///
    /// # Panics
    /// If the range does not lie inside the image.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        self.check(at, into.len());
        let mut done = 0;
        while done < into.len() {
            let (page, offset) = ((at + done) / PAGE, (at + done) % PAGE);
            let part = (PAGE - offset).min(into.len() - done);
            into[done..done + part].copy_from_slice(&self.page(page)[offset..offset + part]);
            done += part;
        }
    }

    /// The byte at `at`.
    ///
    /// # Panics
    /// If `at` lies outside the image.
    #[must_use]
    pub fn byte(&self, at: usize) -> u8 {
        self.check(at, 1);
        self.page(at / PAGE)[at % PAGE]
    }

    /// Puts `bytes` at `at`.
    ///
    /// # Panics
    /// If the range does not lie inside the image.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let mut rest = bytes;
        self.edit(at..at + bytes.len(), |_, part| {
            let (head, tail) = rest.split_at(part.len());
            part.copy_from_slice(head);
            rest = tail;
        });
    }

    /// Sets every byte of `range` to `byte`.
    ///
    /// # Panics
    /// If the range does not lie inside the image.
    pub fn fill(&mut self, range: Range<usize>, byte: u8) {
        self.edit(range, |_, part| part.fill(byte));
    }

    /// Turns over bit `bit` (0 is the lowest) of the byte at `at`: the smallest rot there is.
    ///
    /// # Panics
    /// If `at` lies outside the image or `bit` is above 7.
    pub fn flip_bit(&mut self, at: usize, bit: u32) {
        assert!(bit < 8, "a byte has no bit {bit}");
        self.edit(at..at + 1, |_, part| part[0] ^= 1 << bit);
    }

    /// Hands the bytes of `range` to `change` in pieces, each with its address.
    ///
    /// # Panics
    /// If the range does not lie inside the image.
    pub fn edit(&mut self, range: Range<usize>, mut change: impl FnMut(usize, &mut [u8])) {
        self.check(range.start, range.len());
        let mut at = range.start;
        while at < range.end {
            let offset = at % PAGE;
            let part = (PAGE - offset).min(range.end - at);
            change(at, &mut self.page_mut(at / PAGE)[offset..offset + part]);
            at += part;
        }
    }

    /// All bytes in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    /// Addresses of the blocks of `block` bytes in which the two images differ, in order.
    ///
    /// # Panics
    /// If the lengths differ or `block` is 0.
    #[must_use]
    pub fn differing_blocks(&self, other: &Self, block: usize) -> Vec<usize> {
        assert_eq!(self.len, other.len, "images of different length");
        let mut found: Vec<usize> = Vec::new();
        for (node, (ours, theirs)) in self.nodes.iter().zip(&other.nodes).enumerate() {
            if Arc::ptr_eq(ours, theirs) {
                continue;
            }
            for (page, (a, b)) in ours.iter().zip(theirs.iter()).enumerate() {
                if Arc::ptr_eq(a, b) || a == b {
                    continue;
                }
                let first = (node * FAN + page) * PAGE;
                for offset in (0..PAGE.min(self.len - first)).filter(|&offset| a[offset] != b[offset]) {
                    let start = (first + offset) / block * block;
                    if found.last() != Some(&start) {
                        found.push(start);
                    }
                }
            }
        }
        found
    }

    fn page(&self, number: usize) -> &[u8; PAGE] {
        &self.nodes[number / FAN][number % FAN]
    }

    fn page_mut(&mut self, number: usize) -> &mut [u8; PAGE] {
        Arc::make_mut(&mut Arc::make_mut(&mut self.nodes[number / FAN])[number % FAN])
    }

    fn check(&self, at: usize, len: usize) {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(inside, "{len} bytes at {at} do not lie in an image of {} bytes", self.len);
    }
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.differing_blocks(other, PAGE).is_empty()
    }
}

impl Eq for Image {}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_does_not_see_later_writes() {
        let mut image = Image::filled(3 * PAGE + 5, 0xff);
        let before = image.clone();
        image.write(PAGE - 2, &[1, 2, 3, 4]);
        assert_eq!(before.byte(PAGE - 1), 0xff);
        assert_eq!(image.to_vec()[PAGE - 2..PAGE + 2], [1, 2, 3, 4]);
        assert_eq!(image.differing_blocks(&before, PAGE), [0, PAGE]);
        assert_ne!(image, before);
    }

    #[test]
    fn rot_helpers_touch_what_they_name() {
        let mut image = Image::from_bytes(&[0; 10]);
        image.flip_bit(3, 7);
        image.fill(5..7, 9);
        assert_eq!(image.to_vec(), [0, 0, 0, 0x80, 0, 9, 9, 0, 0, 0]);
        image.truncate(4);
        assert_eq!(image.to_vec(), [0, 0, 0, 0x80]);
    }

    #[test]
    fn images_of_many_nodes_read_write_compare_and_truncate() {
        let end = 2 * FAN * PAGE + 3 * PAGE;
        let mut image = Image::filled(end, 1);
        let before = image.clone();
        image.fill(FAN * PAGE - 1..FAN * PAGE + 1, 2);
        image.write(end - 1, &[3]);
        assert_eq!(image.differing_blocks(&before, PAGE), [(FAN - 1) * PAGE, FAN * PAGE, end - PAGE]);
        assert_eq!([image.byte(FAN * PAGE - 2), image.byte(FAN * PAGE), image.byte(end - 1)], [1, 2, 3]);
        image.truncate(FAN * PAGE);
        assert_eq!((image.len(), image.byte(FAN * PAGE - 1), before.len()), (FAN * PAGE, 2, end));
        image.truncate(0);
        assert!(image.is_empty() && image == Image::from_bytes(&[]));
    }

    #[test]
    #[should_panic(expected = "do not lie in an image")]
    fn a_write_beyond_the_end_is_refused() {
        Image::filled(10, 0).write(9, &[0, 0]);
    }
}
