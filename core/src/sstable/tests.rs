//! Row groups, end to end: memtable, payload, rows again; and payloads that nobody wrote.

mod hostile;

use super::*;
use crate::format::frame::{Frame, FrameFlags, FrameKind};
use crate::format::row::{Item, Row, TraceContext};
use crate::hal::{FrozenSlice, SliceArena};
use crate::memtable::{Chain, Frozen, Memtable};
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    stream: u16,
    severity: u8,
    continued: bool,
    received_us: u64,
    event_time_us: Option<i64>,
    trace: Option<TraceContext>,
    body: Vec<u8>,
    fields: Vec<u8>,
}

impl Owned {
    fn plain(stream: u16, received_us: u64, body: &[u8]) -> Self {
        let (body, fields) = (body.to_vec(), Vec::new());
        let (severity, continued, event_time_us, trace) = (9, false, None, None);
        Self { stream, severity, continued, received_us, event_time_us, trace, body, fields }
    }

    fn row(&self) -> Row<'_> {
        Row {
            stream: self.stream,
            severity: self.severity,
            continued: self.continued,
            received_us: self.received_us,
            event_time_us: self.event_time_us,
            trace: self.trace,
            body: &self.body,
            fields: &self.fields,
        }
    }
}

/// Calls `then` with a frozen memtable of `rows`, numbered from `first` on.
fn with_frozen<T>(rows: &[Owned], first: u64, then: impl FnOnce(&Frozen<'_, FrozenSlice<'_>>) -> T) -> T {
    let room: usize = rows.iter().map(|r| r.body.len() + r.fields.len() + 100).sum();
    let chain_count = rows.iter().map(|r| usize::from(r.stream) + 1).max().unwrap_or(0);
    let (mut arena, mut chains) = (std::vec![0; room], std::vec![Chain::default(); chain_count]);
    let mut table = Memtable::new(SliceArena(&mut arena), &mut chains, first);
    for row in rows {
        table.push(&row.row()).unwrap();
        table.end_batch();
    }
    then(&table.freeze())
}

/// Sizes of what a payload is made with.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    block: usize,
    raw: usize,
    table: usize,
}

const SIZES: Sizes = Sizes { block: 1 << 16, raw: 1 << 16, table: 1024 };

fn preamble_items() -> [Item<'static>; 2] {
    [Item::Stream { id: 1, name: "kernel" }, Item::State { key: b"file:1", value: b"\x00\x01" }]
}

/// The payload of a row group frame of the whole memtable; `None` if it does not fit `room` bytes.
fn payload_in(frozen: &Frozen<'_, FrozenSlice<'_>>, sizes: Sizes, room: usize) -> Option<Vec<u8>> {
    let mut out = std::vec![0; room];
    let mut w = ItemWriter::new(&mut out);
    Prefix { clock_epoch: 3, batch: None }.write(&mut w)?;
    for item in preamble_items() {
        w.item(&item)?;
    }
    let at = w.len();
    let (mut raw, mut table) = (std::vec![0; sizes.raw], std::vec![0; sizes.table]);
    let mut mem = GroupMemory { raw: &mut raw, table: &mut table, slots: &mut [] };
    let extent = frozen.extent();
    let range = extent.first_seq..=extent.next_seq - 1;
    let bytes = encode(frozen, range, &mut out[at..], &mut mem, sizes.block)?;
    out.truncate(at + bytes);
    Some(out)
}

fn payload_of(rows: &[Owned], first: u64, sizes: Sizes) -> Vec<u8> {
    let room = rows.iter().map(|r| r.body.len() + r.fields.len() + 300).sum::<usize>() + 1000;
    with_frozen(rows, first, |frozen| payload_in(frozen, sizes, room).unwrap())
}

fn frame_of(first_seq: u64, count: usize) -> Frame {
    Frame {
        kind: FrameKind::RowGroup,
        flags: FrameFlags::WHOLE,
        part: 0,
        payload_bytes: 0,
        first_seq,
        count: u32::try_from(count).unwrap(),
        epoch: 1,
        durable_upto: 0,
        volatile_bound: 0,
    }
}

/// The records of a decoded group by number; `None` for those left out.
fn records_of(raw: &[u8], slots: &[u32]) -> Vec<Option<Owned>> {
    let record = |slot: &u32| {
        let at = Some(*slot).filter(|slot| *slot != ABSENT)? as usize;
        let Some(Item::Row(row)) = ItemReader::new(&raw[at..]).next() else { panic!("no row at {at}") };
        Some(Owned {
            stream: row.stream,
            severity: row.severity,
            continued: row.continued,
            received_us: row.received_us,
            event_time_us: row.event_time_us,
            trace: row.trace,
            body: row.body.to_vec(),
            fields: row.fields.to_vec(),
        })
    };
    slots.iter().map(record).collect()
}

fn assert_decodes(payload: &[u8], rows: &[Owned], first: u64) {
    let frame = frame_of(first, rows.len());
    let need = group_raw_bytes(payload, false).unwrap();
    let (mut raw, mut slots) = (std::vec![0xAA; need], std::vec![7; rows.len()]);
    let used = decode(payload, &frame, &mut raw, &mut slots).unwrap();
    let decoded = records_of(&raw[..used], &slots);
    assert!(decoded.iter().flatten().eq(rows), "records come back as they were, in order");
    assert!(preamble(payload, false).unwrap().eq(preamble_items()));
    assert_eq!(decode(payload, &frame, &mut raw[..need - 1], &mut slots), None, "a byte less is too little");
    assert_eq!(decode(payload, &frame, &mut raw, &mut slots[1..]), None);
    assert_eq!(decode(payload, &frame_of(first + 1, rows.len()), &mut raw, &mut slots), None);
    assert_directory_is_true(payload, rows, first);
}

fn assert_directory_is_true(payload: &[u8], rows: &[Owned], first: u64) {
    let mut blocks = blocks(payload, false).unwrap();
    let (mut before, mut sum) = (None, 0);
    for info in blocks.by_ref() {
        let seqs = info.first_seq..=info.last_seq;
        let of_block: Vec<&Owned> = (first..)
            .zip(rows)
            .filter(|(seq, row)| seqs.contains(seq) && row.stream == info.stream)
            .map(|(_, row)| row)
            .collect();
        assert_eq!(of_block.len(), info.count as usize, "nothing of the stream is between");
        assert!(before.is_none_or(|before| before < (info.stream, info.first_seq)), "by stream and number");
        before = Some((info.stream, info.last_seq));
        sum += info.count;
        let received = of_block.iter().map(|r| r.received_us);
        assert_eq!((received.clone().min(), received.max()), (Some(info.min_received_us), Some(info.max_received_us)));
        let events: Vec<i64> = of_block.iter().filter_map(|r| r.event_time_us).collect();
        assert_eq!(events.len(), info.timed as usize);
        assert_eq!(events.iter().copied().min().zip(events.iter().copied().max()), info.event_time_us);
        for (band, n) in info.severities.iter().enumerate() {
            let in_band = of_block.iter().filter(|r| severity_band(r.severity) == band).count();
            assert_eq!(in_band, *n as usize, "band {band}");
        }
    }
    assert!(blocks.is_whole());
    assert_eq!(sum as usize, rows.len());
}

fn log_rows(count: usize, streams: u16) -> Vec<Owned> {
    let row = |i: usize| {
        let stream = 1 + u16::try_from(i * 7 % 13).unwrap() % streams;
        let body = std::format!("session {} of user u{} closed after {} ms", i / 9, i % 5, i * 37 % 1000);
        Owned::plain(stream, 1_000_000 + i as u64 * 997, body.as_bytes())
    };
    (0..count).map(row).collect()
}

fn noise(len: usize, mut state: u64) -> Vec<u8> {
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| byte()).collect()
}

#[test]
fn many_records_come_back_in_order() {
    let rows = log_rows(50_000, 6);
    let payload = payload_of(&rows, 1_000_001, Sizes { block: 1 << 18, raw: 1 << 18, table: 4096 });
    let raw: usize = rows.iter().map(|r| r.body.len() + 11).sum();
    assert!(payload.len() * 5 < raw, "{} of {raw} bytes", payload.len());
    assert_decodes(&payload, &rows, 1_000_001);
}

#[test]
fn one_record_is_a_group() {
    for body in [&b""[..], b"x", b"\0", b"a\0\xFF\0"] {
        let mut row = Owned::plain(0, u64::MAX, body);
        assert_decodes(&payload_of(std::slice::from_ref(&row), 1, SIZES), std::slice::from_ref(&row), 1);
        row.event_time_us = Some(i64::MIN);
        row.fields = noise(300, 1);
        row.severity = 255;
        assert_decodes(&payload_of(std::slice::from_ref(&row), 1, SIZES), std::slice::from_ref(&row), 1);
    }
}

#[test]
fn sub_blocks_are_bounded_and_do_not_mix_streams() {
    let mut rows = log_rows(3000, 3);
    rows[1500].body = noise(5000, 3);
    let payload = payload_of(&rows, 1, Sizes { block: 2048, ..SIZES });
    assert_decodes(&payload, &rows, 1);
    let infos: Vec<BlockInfo> = blocks(&payload, false).unwrap().collect();
    let large: Vec<_> = infos.iter().filter(|i| i.raw_bytes > 2048).map(|i| i.count).collect();
    assert_eq!(large, [1], "only what one record alone exceeds");
    let full = infos.iter().filter(|i| i.raw_bytes > 1900).count();
    assert!(full + 8 > infos.len(), "{full} of {} are full", infos.len());
}

#[test]
fn a_record_larger_than_the_memory_for_packing_is_stored() {
    let mut rows = log_rows(50, 2);
    rows[20].body = std::vec![b'a'; 4000];
    let payload = payload_of(&rows, 1, Sizes { block: 1 << 16, raw: 600, table: 256 });
    assert_decodes(&payload, &rows, 1);
    let large = blocks(&payload, false).unwrap().find(|i| i.raw_bytes > 600).unwrap();
    assert_eq!((large.packing, large.count), (Packing::Stored, 1));
    // With none at all, every record is a sub-block, and nothing is packed.
    let payload = payload_of(&rows, 1, Sizes { block: 1 << 16, raw: 0, table: 0 });
    assert_decodes(&payload, &rows, 1);
    assert!(blocks(&payload, false).unwrap().all(|i| i.packing == Packing::Stored));
}

#[test]
fn what_does_not_shrink_is_stored_and_hardly_grows() {
    let rows: Vec<Owned> = (0..200).map(|i| Owned::plain(1, i, &noise(700, i))).collect();
    let payload = payload_of(&rows, 1, SIZES);
    assert_decodes(&payload, &rows, 1);
    let infos: Vec<BlockInfo> = blocks(&payload, false).unwrap().collect();
    assert!(infos.iter().all(|i| i.packing == Packing::Stored));
    assert!(payload.len() < 200 * (700 + 5) + 200, "{} bytes", payload.len());
}

#[test]
fn too_little_room_is_refused() {
    let rows = log_rows(300, 3);
    let whole = payload_of(&rows, 1, Sizes { block: 4096, ..SIZES });
    with_frozen(&rows, 1, |frozen| {
        let mut fits_from = None;
        for room in 0..whole.len() + 400 {
            let payload = payload_in(frozen, Sizes { block: 4096, ..SIZES }, room);
            if let Some(payload) = &payload {
                assert_eq!(*payload, whole, "room {room}");
                fits_from = fits_from.or(Some(room));
            }
            assert_eq!(payload.is_some(), fits_from.is_some(), "room {room}");
        }
        assert!(fits_from.unwrap() <= whole.len() + ENTRY_BYTES_MAX + HEAD_BYTES_MAX);
    });
}

#[test]
fn a_range_is_encoded_step_by_step_and_alone() {
    let rows = log_rows(900, 4);
    with_frozen(&rows, 101, |frozen| {
        let (mut raw, mut table, mut out) = (std::vec![0; 4096], std::vec![0; 256], std::vec![0; 100_000]);
        let mut mem = GroupMemory { raw: &mut raw, table: &mut table, slots: &mut [] };
        for (first, last) in [(101, 400), (401, 401), (402, 1000)] {
            let mut encoder = GroupEncoder::new(first..=last, 4096);
            let mut infos = Vec::new();
            let bytes = loop {
                match encoder.next_block(frozen, &mut out[1..], &mut mem).unwrap() {
                    Step::Block(info) => infos.push(info),
                    Step::Done(bytes) => break bytes,
                }
            };
            let payload = &out[..=bytes];
            assert!(blocks(payload, false).unwrap().eq(infos));
            let place = |seq: u64| usize::try_from(seq - 101).unwrap();
            let of_range = &rows[place(first)..=place(last)];
            let frame = frame_of(first, of_range.len());
            let (mut raw, mut slots) = (std::vec![0; 200_000], std::vec![0; of_range.len()]);
            let used = decode(payload, &frame, &mut raw, &mut slots).unwrap();
            assert!(records_of(&raw[..used], &slots).iter().flatten().eq(of_range));
        }
        assert_eq!(encode(frozen, 900..=1001, &mut out, &mut mem, 4096), None, "beyond the end");
        assert_eq!(encode(frozen, 100..=200, &mut out, &mut mem, 4096), None, "before the start");
        #[expect(clippy::reversed_empty_ranges, reason = "what is tested")]
        let empty = 300..=200;
        assert_eq!(encode(frozen, empty, &mut out, &mut mem, 4096), None);
    });
}

#[test]
fn records_without_a_chain_make_no_group() {
    let (mut arena, mut chains) = ([0; 1024], [Chain::default(); 2]);
    let mut table = Memtable::new(SliceArena(&mut arena), &mut chains, 1);
    table.push(&Owned::plain(1, 0, b"in").row()).unwrap();
    table.push(&Owned::plain(2, 0, b"out").row()).unwrap();
    let frozen = table.freeze();
    assert!(payload_in(&frozen, SIZES, 1000).is_none());
}

#[test]
fn only_sub_blocks_that_are_wanted_are_decoded() {
    let mut rows = log_rows(2000, 5);
    rows.iter_mut().skip(1000).filter(|r| r.stream == 2).for_each(|r| r.severity = 17);
    let payload = payload_of(&rows, 1, Sizes { block: 4096, ..SIZES });
    let clock = Some(ClockAnchor { clock_epoch: 3, wall_us: 1_700_000_000_000_000, synchronised: true });
    let since_us = Some(1_700_000_000_000_000 + 1_000_000 + 1200 * 997);
    for (filter, most) in [
        (Filter { stream: Some(3), ..Filter::default() }, 500),
        (Filter { severity_min: Some(13), ..Filter::default() }, 400),
        (Filter { since_us, ..Filter::default() }, 1300),
        (Filter { until_us: since_us, ..Filter::default() }, 1700),
        (Filter { stream: Some(9), ..Filter::default() }, 0),
        (Filter::default(), 2000),
    ] {
        let (mut raw, mut slots) = (std::vec![0; 400_000], std::vec![0; rows.len()]);
        let used =
            decode_where(&payload, &frame_of(1, 2000), &mut raw, &mut slots, |i| i.may_match(&filter, clock)).unwrap();
        let decoded = records_of(&raw[..used], &slots);
        assert!(decoded.iter().flatten().count() <= most, "{filter:?}");
        for (record, row) in decoded.iter().zip(&rows) {
            let wall = clock.map(|c| c.wall_us + row.received_us as i64);
            let matches = filter.stream.is_none_or(|s| s == row.stream)
                && filter.severity_min.is_none_or(|s| row.severity >= s)
                && filter.since_us.is_none_or(|t| wall >= Some(t))
                && filter.until_us.is_none_or(|t| wall < Some(t));
            assert!(record.is_some() || !matches, "{filter:?} leaves out {row:?}");
            assert!(record.is_none() || record.as_ref() == Some(row));
        }
    }
}

#[test]
fn later_versions_may_append() {
    let rows = log_rows(100, 2);
    let mut payload = payload_of(&rows, 1, Sizes { block: 1 << 16, ..SIZES });
    payload.extend_from_slice(b"something behind the sub-blocks");
    assert_decodes(&payload, &rows, 1);
    // An entry that is longer than this version's: both lengths grow.
    let group = Group::read(&payload, false).unwrap();
    let directory_at = group.directory.as_ptr() as usize - payload.as_ptr() as usize;
    let first_len = usize::from(group.directory[0]);
    assert!(group.directory.len() + 2 < 128, "lengths are single bytes");
    payload[directory_at - 1] += 2;
    payload[directory_at] += 2;
    payload.splice(directory_at + 1 + first_len..directory_at + 1 + first_len, [9, 9]);
    assert_decodes(&payload, &rows, 1);
    // Another format is not guessed at.
    // In front of the directory: format, first number, records, sub-blocks, length; each is one byte here.
    let format_at = directory_at - 5;
    assert_eq!(payload[format_at], GROUP_FORMAT);
    payload[format_at] = 2;
    assert!(decode(&payload, &frame_of(1, 100), &mut [0; 20_000], &mut [0; 100]).is_none());
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => Just(Vec::new()),
        4 => "[a-z]{0,12} took [0-9]{1,4} ms".prop_map(String::into_bytes),
        2 => prop::collection::vec(1u8.., 0..60),
        1 => prop::collection::vec(any::<u8>(), 0..400),
    ]
}

fn traces() -> impl Strategy<Value = Option<TraceContext>> {
    let trace =
        (any::<[u8; 16]>(), any::<[u8; 8]>()).prop_map(|(trace_id, span_id)| TraceContext { trace_id, span_id });
    prop_oneof![4 => Just(None), 1 => trace.prop_map(Some)]
}

fn owned() -> impl Strategy<Value = Owned> {
    let fields = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..80)];
    let received = prop_oneof![6 => 1_000_000u64..9_000_000, 1 => any::<u64>()];
    let event = prop_oneof![2 => Just(None), 2 => (0i64..1 << 40).prop_map(Some), 1 => any::<i64>().prop_map(Some)];
    let severity = prop_oneof![5 => 0u8..25, 1 => any::<u8>()];
    let stream = prop_oneof![5 => 0u16..6, 1 => 0u16..400];
    (stream, severity, prop::bool::weighted(0.1), received, event, traces(), bodies(), fields).prop_map(
        |(stream, severity, continued, received_us, event_time_us, trace, body, fields)| Owned {
            stream,
            severity,
            continued,
            received_us,
            event_time_us,
            trace,
            body,
            fields,
        },
    )
}

proptest! {
    #[test]
    fn any_memtable_round_trips(
        rows in prop::collection::vec(owned(), 1..300),
        first in prop_oneof![Just(1), 1u64..1 << 40, Just(u64::from(u32::MAX) - 20)],
        block in prop_oneof![Just(0usize), 64usize..5000, Just(1 << 16)],
        raw in prop_oneof![0usize..1000, Just(1 << 16)],
    ) {
        let payload = payload_of(&rows, first, Sizes { block, raw, table: 256 });
        assert_decodes(&payload, &rows, first);
    }

    /// A sub-block that is passed by holds no record that the filter wants.
    #[test]
    fn no_filter_misses_a_record(
        row in owned(),
        stream in prop::option::of(0u16..6),
        severity_min in prop::option::of(0u8..30),
        since_us in prop::option::of(0i64..1 << 40),
        until_us in prop::option::of(0i64..1 << 40),
        wall_us in prop::option::of(0i64..1 << 40),
    ) {
        let filter = Filter { stream, severity_min, since_us, until_us };
        let clock = wall_us.map(|wall_us| ClockAnchor { clock_epoch: 3, wall_us, synchronised: true });
        let wall = || clock?.wall_us.checked_add(i64::try_from(row.received_us).ok()?);
        let time = row.event_time_us.or_else(wall);
        let wanted = stream.is_none_or(|s| s == row.stream)
            && severity_min.is_none_or(|s| row.severity >= s)
            && since_us.is_none_or(|t| time.is_some_and(|time| time >= t))
            && until_us.is_none_or(|t| time.is_some_and(|time| time < t));
        let payload = payload_of(std::slice::from_ref(&row), 1, SIZES);
        let info = blocks(&payload, false).unwrap().next().unwrap();
        prop_assert!(info.may_match(&filter, clock) || !wanted);
    }
}
