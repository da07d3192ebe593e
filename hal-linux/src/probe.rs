//! What lies on a medium: a store of ours, nothing, or something that belongs to somebody else.
//!
//! Invariants: nothing is written and nothing assumed of the bytes; a header counts only at the place it names itself
//! (`segment * segment_bytes`), so the copy of a store inside another file system is not taken for one; among several
//! that do, one whose store is as long as the medium wins, else the first. Reading is bounded: 16 384 places
//! and the first 64 MiB, or until the first byte that settles it.

use std::fs::File;
use std::os::fd::AsFd;

use lastgasp_core::format::header::{HeaderError, MAGIC, SEGMENT_BYTES_MIN, SEGMENTS_MAX, SegmentHeader, SegmentKind};
use rustix::io::Errno;

use crate::geometry::choose_geometry;
use crate::medium::MediumKind;
use crate::syscalls::{Syscalls, read_up_to};

/// A header has far less; a later minor version may append.
const HEADER_WINDOW: usize = 4096;
const CHUNK: usize = 256 * 1024;
/// How far a store with segments of odd sizes (the dump of a chip) is searched for.
const DENSE_BYTES: u64 = 64 * 1024 * 1024;
/// On a device, only the places where other formats leave their mark are looked at.
const EDGE_BYTES: u64 = 1024 * 1024;

/// The verdict.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A store; this is one of its headers.
    Ours(Box<SegmentHeader>),
    /// A store of a later major version.
    Newer { major: u8 },
    /// The mark is there, but no header verifies.
    OnlyDamaged { at: u64 },
    /// All zero.
    Blank,
    /// A format that was cut before the first header was durable: nothing else than pieces of the first headers.
    HalfFormatted,
    /// Not ours.
    Foreign { first_byte_at: u64 },
}

/// A medium to look at.
#[derive(Debug)]
pub(crate) struct Probe<'a> {
    pub(crate) sys: &'a dyn Syscalls,
    pub(crate) file: &'a File,
    pub(crate) kind: MediumKind,
    pub(crate) size_bytes: u64,
}

/// What the search for headers met so far.
#[derive(Debug, Default)]
struct Sightings {
    ours: Option<Box<SegmentHeader>>,
    newer: Option<u8>,
    damaged_at: Option<u64>,
}

impl Probe<'_> {
    /// Looks until the verdict is sure.
    ///
    /// # Errors
    /// Errors of reading, except at places where a header could be: damage there only hides that header.
    pub(crate) fn content(&self) -> Result<Content, Errno> {
        let mut seen = Sightings::default();
        let done = self.look_at(0, &mut seen) || self.search_coarse(&mut seen)? || self.search_dense(&mut seen)?;
        match seen {
            Sightings { ours: Some(header), .. } => return Ok(Content::Ours(header)),
            Sightings { newer: Some(major), .. } => return Ok(Content::Newer { major }),
            _ => debug_assert!(!done),
        }
        let Some(first_byte_at) = self.first_byte(0)? else { return Ok(Content::Blank) };
        if self.is_half_formatted()? {
            return Ok(Content::HalfFormatted);
        }
        Ok(match seen.damaged_at {
            Some(at) => Content::OnlyDamaged { at },
            None => Content::Foreign { first_byte_at },
        })
    }

    /// Looks for a header at one place; `true` if the search is over.
    fn look_at(&self, at: u64, seen: &mut Sightings) -> bool {
        let mut window = [0_u8; HEADER_WINDOW];
        // A place that cannot be read is a damaged one: the next may serve.
        match read_up_to(self.sys, self.file.as_fd(), &mut window, at) {
            Ok(n) => self.judge(window.get(..n).unwrap_or_default(), at, seen),
            Err(_) => false,
        }
    }

    fn judge(&self, bytes: &[u8], at: u64, seen: &mut Sightings) -> bool {
        match SegmentHeader::decode(bytes) {
            Ok(header) => {
                let start = u64::from(header.segment).saturating_mul(u64::from(header.segment_bytes));
                let total = u64::from(header.segments).saturating_mul(u64::from(header.segment_bytes));
                if start != at {
                    return false;
                }
                // Segment 0 is where a store begins; elsewhere an older store's header may have stayed behind.
                let sure = at == 0 || self.fits(total, header.segment_bytes);
                if sure || seen.ours.is_none() {
                    seen.ours = Some(Box::new(header));
                }
                sure
            }
            Err(HeaderError::NewerVersion { major }) => {
                seen.newer.get_or_insert(major);
                at == 0
            }
            Err(HeaderError::Damaged) => {
                seen.damaged_at.get_or_insert(at);
                false
            }
            Err(HeaderError::NotOurs) => false,
        }
    }

    /// `true` if a store of `total` bytes fills the medium, but for a rest too short for one more segment.
    fn fits(&self, total: u64, segment_bytes: u32) -> bool {
        self.size_bytes.checked_sub(total).is_some_and(|rest| rest < u64::from(segment_bytes))
    }

    /// Every place where a segment of a power of two in size can start. A store has at most 16 384 segments and was
    /// at least as long as what is left of it, so its segment is a multiple of this step.
    fn search_coarse(&self, seen: &mut Sightings) -> Result<bool, Errno> {
        let step = self
            .size_bytes
            .div_ceil(u64::from(SEGMENTS_MAX))
            .checked_next_power_of_two()
            .unwrap_or(u64::MAX)
            .max(u64::from(SEGMENT_BYTES_MIN));
        let mut at = step;
        while let Some(data) = self.next_data(at)? {
            at = data - data % step; // the data may begin inside this step, at its start included
            if at < data {
                at = at.saturating_add(step);
                continue;
            }
            if self.look_at(at, seen) {
                return Ok(true);
            }
            at = at.saturating_add(step);
        }
        Ok(false)
    }

    /// Every multiple of the smallest segment near the start, for segments of any size.
    fn search_dense(&self, seen: &mut Sightings) -> Result<bool, Errno> {
        if seen.ours.is_some() || seen.newer.is_some() {
            return Ok(false);
        }
        let unit = u64::from(SEGMENT_BYTES_MIN);
        let mut chunk = vec![0_u8; CHUNK];
        let mut at = 0_u64;
        while let Some(data) = self.next_data(at)?.filter(|&data| data < DENSE_BYTES) {
            at = data - data % unit;
            let got = read_up_to(self.sys, self.file.as_fd(), &mut chunk, at).unwrap_or(0);
            for offset in (0..got).step_by(SEGMENT_BYTES_MIN as usize) {
                let here = chunk.get(offset..got).unwrap_or_default();
                let place = at.saturating_add(offset as u64);
                if here.starts_with(&MAGIC) && self.look_at(place, seen) {
                    return Ok(true);
                }
            }
            at = at.saturating_add(CHUNK as u64);
        }
        Ok(false)
    }

    /// The first byte that is not zero, at or after `from`.
    fn first_byte(&self, from: u64) -> Result<Option<u64>, Errno> {
        let mut chunk = vec![0_u8; CHUNK];
        let mut at = from;
        while let Some(data) = self.next_data(self.skip_unwatched(at))? {
            at = data;
            let within = usize::try_from(self.watched_end(at).saturating_sub(at)).unwrap_or(CHUNK).min(CHUNK);
            let into = chunk.get_mut(..within).unwrap_or_default();
            let got = read_up_to(self.sys, self.file.as_fd(), into, at)?;
            if got == 0 {
                return Ok(None); // the file became shorter while we read it
            }
            if let Some(i) = into.iter().take(got).position(|&byte| byte != 0) {
                return Ok(Some(at.saturating_add(i as u64)));
            }
            at = at.saturating_add(got as u64);
        }
        Ok(None)
    }

    /// `true` if all there is are pieces of the headers that a format writes first: into segment 0 and the middle one.
    fn is_half_formatted(&self) -> Result<bool, Errno> {
        let Ok(geometry) = choose_geometry(self.size_bytes) else { return Ok(false) };
        let window = HEADER_WINDOW as u64;
        let slots = [0, geometry.segment_start(geometry.segments / 2)];
        let mut marked = false;
        for slot in slots {
            let mut mark = [0_u8; MAGIC.len()];
            read_up_to(self.sys, self.file.as_fd(), &mut mark, slot)?;
            marked |= mark == MAGIC;
        }
        let mut from = 0;
        while let Some(at) = self.first_byte(from)? {
            let Some(slot) = slots.iter().find(|&&slot| (slot..slot.saturating_add(window)).contains(&at)) else {
                return Ok(false);
            };
            from = slot.saturating_add(window);
        }
        Ok(marked)
    }

    /// `true` if all there is lies in the two manifest slots of the store that `header` speaks of, and one of them has
    /// a header alone: the making of that store was cut short before anything was kept.
    pub(crate) fn is_half_made(&self, header: &SegmentHeader) -> Result<bool, Errno> {
        let segment_bytes = u64::from(header.segment_bytes);
        let slots = [0, u64::from(header.segments / 2).saturating_mul(segment_bytes)];
        let mut has_body = [false; 2];
        let mut from = 0;
        while let Some(at) = self.first_byte(from)? {
            let inside = |slot: u64| at >= slot && at < slot.saturating_add(segment_bytes);
            let Some((slot, has_body)) = slots.into_iter().zip(&mut has_body).find(|(slot, _)| inside(*slot)) else {
                return Ok(false);
            };
            let body = slot.saturating_add(u64::from(header.data_start()));
            *has_body |= at >= body;
            from = if at < body { body } else { slot.saturating_add(segment_bytes) };
        }
        Ok(header.kind == SegmentKind::Manifest && has_body != [true; 2])
    }

    /// The next place at or after `at` that can hold something; holes are skipped where the file system tells.
    fn next_data(&self, at: u64) -> Result<Option<u64>, Errno> {
        if at >= self.size_bytes {
            return Ok(None);
        }
        if self.kind == MediumKind::BlockDevice {
            return Ok(Some(at));
        }
        match self.sys.seek_data(self.file.as_fd(), at) {
            Ok(data) => Ok(Some(data).filter(|&data| data < self.size_bytes)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
            Err(errno) => Err(errno),
        }
    }

    /// On a device only its edges are judged: what it held before may lie anywhere between them.
    fn skip_unwatched(&self, at: u64) -> u64 {
        match self.kind {
            MediumKind::BlockDevice if at >= EDGE_BYTES => at.max(self.size_bytes.saturating_sub(EDGE_BYTES)),
            _ => at,
        }
    }

    fn watched_end(&self, at: u64) -> u64 {
        match self.kind {
            MediumKind::BlockDevice if at < EDGE_BYTES => EDGE_BYTES.min(self.size_bytes),
            _ => self.size_bytes,
        }
    }
}
