//! Which file it is, and how far it was read: device and inode, and what its bytes were.
//!
//! Invariant: a [`Trail`] that resumes on a file was left on that file and in the life it has now: inodes are used
//! again, and a file can be emptied and written anew, but then its first bytes or those before the offset differ.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use lastgasp_core::format::crc::Crc32c;

/// So many of the first bytes are compared, as far as they were read.
const HEAD_BYTES: u64 = 1024;
/// So many bytes before the offset are compared.
const TAIL_BYTES: u64 = 64;

/// Device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

impl From<&Metadata> for Id {
    fn from(metadata: &Metadata) -> Self {
        Self { dev: metadata.dev(), ino: metadata.ino() }
    }
}

/// What of a trail is kept in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Bytes that were read.
    pub offset: u64,
    /// Checksum of the first KiB of them.
    pub head: u32,
    /// Checksum of the last 64 of them.
    pub tail: u32,
}

/// How far a file was read.
#[derive(Debug, Clone)]
pub struct Trail {
    offset: u64,
    head: Crc32c,
    tail: Vec<u8>,
}

impl Default for Trail {
    /// At the front of a file.
    fn default() -> Self {
        Self { offset: 0, head: Crc32c::plain(), tail: Vec::new() }
    }
}

impl Trail {
    /// At an offset of a file, as its bytes are now.
    ///
    /// # Errors
    /// Those of reading; there are fewer bytes.
    pub fn at(file: &File, offset: u64) -> io::Result<Self> {
        let mut head = Crc32c::plain();
        head.update(&bytes_at(file, 0, offset.min(HEAD_BYTES))?);
        let start = offset.saturating_sub(TAIL_BYTES);
        Ok(Self { offset, head, tail: bytes_at(file, start, offset.saturating_sub(start))? })
    }

    /// Where a mark was left, if this file is the one, and in the same life; else `None`.
    ///
    /// # Errors
    /// Those of reading.
    pub fn resume(file: &File, mark: &Mark) -> io::Result<Option<Self>> {
        match Self::at(file, mark.offset) {
            Ok(trail) => Ok((trail.mark() == *mark).then_some(trail)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the bytes that were read are still there.
    ///
    /// # Errors
    /// Those of reading.
    pub fn holds(&self, file: &File) -> io::Result<bool> {
        Ok(Self::resume(file, &self.mark())?.is_some())
    }

    /// Bytes read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// These bytes were read.
    pub fn advance(&mut self, bytes: &[u8]) {
        let left = usize::try_from(HEAD_BYTES.saturating_sub(self.offset)).unwrap_or(0);
        self.head.update(bytes.get(..left).unwrap_or(bytes));
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        let tail_bytes = usize::try_from(TAIL_BYTES).unwrap_or(0);
        let last = bytes.get(bytes.len().saturating_sub(tail_bytes)..).unwrap_or_default();
        let over = self.tail.len().saturating_add(last.len()).saturating_sub(tail_bytes);
        self.tail.drain(..over.min(self.tail.len()));
        self.tail.extend_from_slice(last);
    }

    /// What to keep of it.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let mut tail = Crc32c::plain();
        tail.update(&self.tail);
        Mark { offset: self.offset, head: self.head.clone().finish(), tail: tail.finish() }
    }
}

fn bytes_at(file: &File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// A short file has the same bytes as the front of another one: it may be a copy that is being made.
///
/// # Errors
/// Those of reading.
pub fn is_front_of(short: &File, long: &File) -> io::Result<bool> {
    let len = short.metadata()?.len();
    match Trail::at(short, len) {
        Ok(trail) => trail.holds(long),
        // It was emptied just now.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_trail_resumes_where_the_bytes_are_the_same_however_it_was_walked() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..5000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        file.write_all(&bytes).unwrap();
        for step in [1, 7, 64, 100, 1023, 1025, 5000] {
            let mut trail = Trail::default();
            for chunk in bytes.chunks(step) {
                trail.advance(chunk);
                let there = Trail::at(&file, trail.offset()).unwrap();
                assert_eq!(there.mark(), trail.mark(), "{} bytes in steps of {step}", trail.offset());
            }
            assert!(trail.holds(&file).unwrap());
        }
        let mark = Trail::at(&file, 3000).unwrap().mark();
        assert!(Trail::resume(&file, &Mark { offset: 3001, ..mark }).unwrap().is_none());
        assert!(Trail::resume(&file, &Mark { offset: 9000, ..mark }).unwrap().is_none(), "it is shorter");
        file.write_all_at(b"!", 2990).unwrap();
        assert!(Trail::resume(&file, &mark).unwrap().is_none(), "other bytes before the offset");
        let mark = Trail::at(&file, 3000).unwrap().mark();
        file.write_all_at(b"!", 5).unwrap();
        assert!(Trail::resume(&file, &mark).unwrap().is_none(), "other bytes in front");
        assert!(Trail::resume(&file, &Trail::default().mark()).unwrap().is_some(), "nothing was read yet");
    }
}
