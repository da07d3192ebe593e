//! Which frames lie where: an independent listing of an image, for judging damage and for reading dumps.
//!
//! Invariant: what is listed verifies; segments are listed under the generation of their own header only, so frames of
//! earlier lives never show.

use super::workload::Shape;
use lastgasp_core::format::events::{Close, Origin};
use lastgasp_core::format::frame::{Claim, Expected, Frame, FrameKind, Layout};
use lastgasp_core::format::header::{SegmentHeader, SegmentKind};
use lastgasp_core::format::row::{Item, Prefix};
use lastgasp_core::hal::Geometry;
use lastgasp_core::sstable::decode_sparse;
use std::fmt;
use std::ops::Range;

/// A frame that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameAt {
    /// Its bytes in the image.
    pub bytes: Range<usize>,
    /// The segment it lies in.
    pub segment: u32,
    /// Its header, complete on compact media too.
    pub frame: Frame,
    /// First and last number of the batch it is a part of.
    pub batch: Option<(u64, u64)>,
    /// The numbers of a group in a table, which need not be contiguous.
    pub sparse: Option<Vec<u64>>,
}

impl FrameAt {
    /// The numbers of its records, unless it is of a table.
    #[must_use]
    pub fn numbers(&self) -> Range<u64> {
        match self.frame.kind {
            _ if self.sparse.is_some() => 0..0,
            FrameKind::Rows | FrameKind::RowGroup => {
                self.frame.first_seq..self.frame.first_seq + u64::from(self.frame.count)
            }
            _ => 0..0,
        }
    }
}

impl fmt::Display for FrameAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, segment, frame, batch, .. } = self;
        write!(f, "{:#x}+{} segment {segment} {:?}", bytes.start, bytes.len(), frame.kind)?;
        write!(f, " seq {}+{} epoch {} durable {}", frame.first_seq, frame.count, frame.epoch, frame.durable_upto)?;
        match batch {
            Some((first, last)) => write!(f, " part {} of {first}..={last}", frame.part),
            None => Ok(()),
        }
    }
}

/// A segment with a valid header, and what verifies in it.
#[derive(Debug, Clone)]
pub struct SegmentAt {
    /// The header.
    pub header: SegmentHeader,
    /// Its frames, in order.
    pub frames: Vec<FrameAt>,
}

impl fmt::Display for SegmentAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = &self.header;
        write!(f, "segment {} {:?} generation {} epoch {}", h.segment, h.kind, h.generation, h.epoch)?;
        write!(f, " first {} void from {} edit {} durable {}", h.first_seq, h.void_from, h.edit_no, h.durable_upto)?;
        self.frames.iter().try_for_each(|frame| write!(f, "\n  {frame}"))
    }
}

/// The geometry of a shape, as far as it decides where frames lie.
fn layout_of(geometry: &Geometry) -> Layout {
    Layout::of(geometry)
}

/// Lists everything in an image.
#[must_use]
pub fn list(image: &[u8], shape: &Shape, geometry: &Geometry) -> Vec<SegmentAt> {
    let layout = layout_of(geometry);
    let segment_bytes = shape.segment_bytes as usize;
    let segments = image.chunks(segment_bytes).enumerate();
    segments.filter_map(|(nth, bytes)| list_segment(bytes, nth * segment_bytes, &layout)).collect()
}

fn list_segment(bytes: &[u8], base: usize, layout: &Layout) -> Option<SegmentAt> {
    let header = SegmentHeader::decode(bytes).ok()?;
    let mut frames = Vec::new();
    let mut want = Expected { seq: header.first_seq, epoch: header.epoch, volatile_bound: header.volatile_bound };
    if header.kind == SegmentKind::Manifest {
        want = Expected::default();
    }
    let end = (layout.data_end() as usize).min(bytes.len());
    let mut at = header.data_start() as usize;
    while at < end {
        let Some((frame, batch, len, sparse)) = frame_at(&bytes[at..end], at, layout, &header, &mut want) else {
            at += layout.frame_unit as usize;
            continue;
        };
        frames.push(FrameAt { bytes: base + at..base + at + len, segment: header.segment, frame, batch, sparse });
        at += len;
    }
    Some(SegmentAt { header, frames })
}

type Listed = (Frame, Option<(u64, u64)>, usize, Option<Vec<u64>>);

fn frame_at(bytes: &[u8], at: usize, layout: &Layout, header: &SegmentHeader, want: &mut Expected) -> Option<Listed> {
    let offset = u32::try_from(at).ok()?;
    let life = header.life();
    let claim = layout.claim(bytes.get(..layout.claim_bytes() as usize)?, &life, offset);
    let Claim::Frame { frame_bytes, .. } = claim else { return None };
    let (mut frame, payload) = layout.verify(bytes.get(..frame_bytes as usize)?, &life, offset, *want)?;
    let mut batch = None;
    let sparse = if header.kind == SegmentKind::Table { sparse_numbers(payload, &frame) } else { None };
    match frame.kind {
        FrameKind::Rows => {
            let (prefix, items) = Prefix::read(payload, frame.flags.is_part())?;
            batch = prefix.batch;
            if !layout.wide {
                frame.count = u32::try_from(items.filter(|i| matches!(i, Item::Row(_))).count()).ok()?;
            }
            want.seq = frame.first_seq + u64::from(frame.count);
        }
        FrameKind::Origin => {
            let (origin, _) = Origin::read(payload)?;
            if !layout.wide {
                (frame.first_seq, frame.epoch, frame.durable_upto) =
                    (origin.first_seq, origin.epoch, origin.durable_upto);
            }
            want.seq = want.seq.max(origin.first_seq);
        }
        FrameKind::Close if !layout.wide => {
            frame.first_seq = Close::read(payload)?.next_seq;
            frame.epoch = want.epoch;
        }
        _ => {}
    }
    want.epoch = want.epoch.max(frame.epoch);
    Some((frame, batch, frame_bytes as usize, sparse))
}

fn sparse_numbers(payload: &[u8], frame: &Frame) -> Option<Vec<u64>> {
    let (mut raw, mut places) = (vec![0; 1 << 16], vec![[0; 2]; 1 << 12]);
    let decoded = decode_sparse(payload, frame, &mut raw, &mut places, |_| true)?;
    places.truncate(decoded.records);
    Some(places.iter().map(|place| decoded.first_seq + u64::from(place[0])).collect())
}

/// 16 bytes a line, with their address and as text.
#[must_use]
pub fn hexdump(image: &[u8], range: Range<usize>) -> String {
    let start = range.start / 16 * 16;
    let end = range.end.min(image.len());
    let mut out = String::new();
    for (nth, line) in image.get(start..end).unwrap_or_default().chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        let text = line.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '.' });
        out += &format!("{:06x}  {:<47}  {}\n", start + nth * 16, hex.join(" "), text.collect::<String>());
    }
    out
}
