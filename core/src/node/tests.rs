//! Every transition of the node, on virtual time over a trivial medium in memory.

use super::*;
use crate::catalog::Memory;
use crate::format::events::PreviousEnd;
use crate::format::header::ClockAnchor;
use crate::gaps::Gap;
use crate::hal::{Geometry, ReadStorage, SliceArena, StorageErrorKind};
use crate::memtable::Chain;
use crate::pool::SegmentEntry;
use crate::reader::Reader;
use crate::store::{FormatOptions, OpenOptions, format};
use crate::streams::StreamSlot;
use std::time::Duration;
use std::vec::Vec;

const SEGMENTS: u32 = 16;
const SEGMENT_BYTES: u32 = 8192;
const ARENA_BYTES: usize = 2048;

/// A medium in memory. Writes are there at once; syncs are counted, and can be made to fail.
#[derive(Debug)]
struct Disk {
    bytes: Vec<u8>,
    syncs: u32,
    failing_syncs: u32,
    read_only: bool,
}

impl Disk {
    fn new() -> Self {
        let bytes = std::vec![0; (SEGMENTS * SEGMENT_BYTES) as usize];
        Self { bytes, syncs: 0, failing_syncs: 0, read_only: false }
    }
}

impl ReadStorage for Disk {
    type Error = StorageErrorKind;
    fn geometry(&self) -> Geometry {
        Geometry {
            segments: SEGMENTS,
            segment_bytes: SEGMENT_BYTES,
            write_unit: 512,
            read_unit: 1,
            torn_unit: 512,
            erased: None,
            erase_block_bytes: 1,
            worst_busy: Duration::from_secs(1),
            ordered: false,
        }
    }
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), StorageErrorKind> {
        let at = usize::try_from(at).unwrap();
        into.copy_from_slice(self.bytes.get(at..at + into.len()).ok_or(StorageErrorKind::OutOfBounds)?);
        Ok(())
    }
}

impl Storage for Disk {
    fn erase(&mut self, _segment: u32) -> Result<(), StorageErrorKind> {
        Ok(())
    }
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), StorageErrorKind> {
        if self.read_only {
            return Err(StorageErrorKind::ReadOnly);
        }
        let at = usize::try_from(at).unwrap();
        self.bytes.get_mut(at..at + bytes.len()).ok_or(StorageErrorKind::OutOfBounds)?.copy_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> Result<(), StorageErrorKind> {
        self.syncs += 1;
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            return Err(StorageErrorKind::SyncFailed);
        }
        Ok(())
    }
}

/// What a store is handed.
struct Room {
    entries: Vec<SegmentEntry>,
    order: Vec<u32>,
    gaps: Vec<Gap>,
    clocks: Vec<ClockAnchor>,
    streams: Vec<StreamSlot>,
    names: Vec<u8>,
    state: Vec<u8>,
    frame: Vec<u8>,
    chains: [Vec<Chain>; 2],
    arenas: [Vec<u8>; 2],
}

impl Room {
    fn new() -> Self {
        Self {
            entries: std::vec![SegmentEntry::default(); SEGMENTS as usize],
            order: std::vec![0; SEGMENTS as usize],
            gaps: std::vec![Gap::default(); 16],
            clocks: std::vec![ClockAnchor::default(); 8],
            streams: std::vec![StreamSlot::default(); 4],
            names: std::vec![0; 64],
            state: std::vec![0; 256],
            frame: std::vec![0; SEGMENT_BYTES as usize],
            chains: [std::vec![Chain::default(); 4], std::vec![Chain::default(); 4]],
            arenas: [std::vec![0; ARENA_BYTES], std::vec![0; ARENA_BYTES]],
        }
    }

    fn parts(&mut self) -> (Memory<'_>, [SliceArena<'_>; 2]) {
        let [a, b] = &mut self.chains;
        let memory = Memory {
            entries: &mut self.entries,
            order: &mut self.order,
            gaps: &mut self.gaps,
            clocks: &mut self.clocks,
            streams: &mut self.streams,
            names: &mut self.names,
            state: &mut self.state,
            frame: &mut self.frame,
            chains: [a, b],
            group: None,
        };
        let [first, second] = &mut self.arenas;
        (memory, [SliceArena(first), SliceArena(second)])
    }
}

type TestNode<'m> = Node<'m, Disk, SliceArena<'m>>;

/// A node on a fresh store that has committed its first record already, at a time before 0 so to speak: the origin of
/// the boot is on the medium, and no wait is running.
fn with_node(volatile_bound: u32, spare: bool, run: impl FnOnce(&mut TestNode<'_>)) -> Disk {
    let mut room = Room::new();
    let mut disk = Disk::new();
    format(&mut disk, room.parts().0, &FormatOptions { store_id: 7 }).unwrap();
    let (memory, [active, second]) = room.parts();
    let options = OpenOptions { volatile_bound, ..OpenOptions::default() };
    let store = Store::open(disk, memory, active, spare.then_some(second), &options, &mut |_, _| ()).unwrap();
    let mut node = Node::new(store, volatile_bound);
    put(&mut node, 0, Class::Each);
    assert_eq!(node.step(0, Input::Tick).next, Next::Sync { upto: 1 });
    let out = synced(&mut node, 0);
    assert_eq!((out.durable_upto, out.next), (1, IDLE));
    run(&mut node);
    node.into_store().into_storage()
}

const IDLE: Next = Next::Wait { until_us: None };

fn wait(until_us: u64) -> Next {
    Next::Wait { until_us: Some(until_us) }
}

fn try_put(node: &mut TestNode<'_>, now_us: u64, class: Class, body: &[u8]) -> Output {
    let row = Row {
        stream: 1,
        severity: 9,
        continued: false,
        received_us: now_us,
        event_time_us: None,
        trace: None,
        body,
        fields: &[],
    };
    node.stream("app");
    node.step(now_us, Input::Batch(Batch { rows: &[row], states: &[], class }))
}

fn put(node: &mut TestNode<'_>, now_us: u64, class: Class) -> Next {
    let out = try_put(node, now_us, class, b"a line");
    out.batch.unwrap().unwrap();
    out.next
}

fn tick(node: &mut TestNode<'_>, now_us: u64) -> Next {
    node.step(now_us, Input::Tick).next
}

fn synced(node: &mut TestNode<'_>, now_us: u64) -> Output {
    let result = node.medium().sync();
    node.step(now_us, Input::Synced(result))
}

/// Commits one wave of `clients` batches that come together; its sync takes `sync_us`. Returns when it ended.
fn wave(node: &mut TestNode<'_>, now_us: u64, clients: u64, sync_us: u64) -> u64 {
    for _ in 0..clients {
        put(node, now_us, Class::Group);
    }
    assert!(matches!(tick(node, now_us), Next::Sync { .. }), "a whole wave waits for nobody");
    synced(node, now_us + sync_us);
    now_us + sync_us
}

#[test]
fn each_commits_at_once_and_acks_after_the_sync() {
    with_node(0, true, |node| {
        assert_eq!(put(node, 10, Class::Each), wait(10));
        let out = node.step(10, Input::Tick);
        assert_eq!((out.next, out.durable_upto), (Next::Sync { upto: 2 }, 1), "written is not durable");
        assert_eq!(tick(node, 20), IDLE, "a sync is asked for once");
        assert_eq!(synced(node, 90).durable_upto, 2);
        assert_eq!(tick(node, 1_000_000), IDLE);
    });
}

#[test]
fn interval_and_ram_wait_for_their_time() {
    for (class, limit) in [(Class::Interval, INTERVAL_US), (Class::Ram, RAM_US)] {
        with_node(0, true, |node| {
            assert_eq!(put(node, 100, class), wait(100 + limit));
            assert_eq!(put(node, 500, class), wait(100 + limit), "the oldest decides");
            assert_eq!(tick(node, 99 + limit), wait(100 + limit));
            assert_eq!(tick(node, 100 + limit), Next::Sync { upto: 3 });
            assert_eq!(synced(node, 200 + limit).next, IDLE);
        });
    }
}

#[test]
fn a_commit_takes_everything_along() {
    with_node(0, true, |node| {
        put(node, 0, Class::Ram);
        put(node, 1, Class::Interval);
        put(node, 2, Class::Each);
        assert_eq!(tick(node, 2), Next::Sync { upto: 4 });
        let out = synced(node, 80);
        assert_eq!((out.durable_upto, out.next), (4, IDLE), "no deadline of theirs is left");
    });
}

#[test]
fn a_single_client_is_never_waited_for() {
    with_node(0, true, |node| {
        let mut now = 1000;
        for i in 0..200 {
            // At once after its ack, or much later: its commit begins when it comes.
            now += if i % 3 == 0 { 0 } else { 7 * i };
            assert_eq!(put(node, now, Class::Group), wait(now));
            assert!(matches!(tick(node, now), Next::Sync { .. }));
            now += 4000;
            assert_eq!(synced(node, now).next, IDLE);
        }
    });
}

#[test]
fn clients_just_woken_join_the_next_commit() {
    with_node(0, true, |node| {
        let end = wave(node, 1000, 3, 800);
        // The first two of three are back: the third is worth a wait, a quarter of a sync.
        put(node, end + 10, Class::Group);
        assert_eq!(put(node, end + 20, Class::Group), wait(end + WAIT_MIN_US.max(node.sync_us() / 4)));
        assert!(matches!(tick(node, end + 20), Next::Wait { .. }));
        put(node, end + 30, Class::Group);
        assert_eq!(tick(node, end + 30), Next::Sync { upto: 7 }, "all are there: no more waiting");
    });
}

#[test]
fn two_waves_become_one() {
    with_node(0, true, |node| {
        put(node, 1000, Class::Group);
        assert_eq!(tick(node, 1000), Next::Sync { upto: 2 });
        for _ in 0..3 {
            put(node, 1010, Class::Group);
        }
        assert_eq!(tick(node, 1010), IDLE, "one commit at a time");
        // The first ends: its one client has not come back yet, and is waited for.
        let out = synced(node, 1800);
        assert!(matches!(out.next, Next::Wait { until_us: Some(t) } if t > 1800), "{out:?}");
        put(node, 1830, Class::Group);
        assert_eq!(tick(node, 1830), Next::Sync { upto: 6 }, "four clients, one sync");
    });
}

#[test]
fn the_wait_is_bounded_and_follows_the_medium() {
    with_node(0, true, |node| {
        let end = wave(node, 0, 3, 100);
        put(node, end, Class::Group);
        assert_eq!(tick(node, end), wait(end + WAIT_MIN_US), "a fast disk");
        assert!(matches!(tick(node, end + WAIT_MIN_US), Next::Sync { .. }), "then it goes without the others");
    });
    with_node(0, true, |node| {
        let mut end = 0;
        for _ in 0..40 {
            end = wave(node, end, 2, 400_000);
        }
        put(node, end, Class::Group);
        assert_eq!(tick(node, end), wait(end + WAIT_MAX_US), "a card in its worst moment");
    });
}

#[test]
fn who_comes_after_the_wait_waits_for_nobody() {
    with_node(0, true, |node| {
        let end = wave(node, 0, 5, 100);
        let late = end + WAIT_MAX_US + 1;
        assert_eq!(put(node, late, Class::Group), wait(late));
        assert!(matches!(tick(node, late), Next::Sync { .. }));
    });
}

#[test]
fn waits_that_bring_nothing_become_rare_and_one_that_does_brings_them_back() {
    with_node(0, true, |node| {
        // One record a commit, and another client's record during each sync: the first one never comes back.
        let mut now = 0;
        let mut waits = 0;
        put(node, now, Class::Group);
        assert!(matches!(tick(node, now), Next::Sync { .. }));
        for _ in 0..200 {
            put(node, now + 10, Class::Group);
            now += 100;
            match synced(node, now).next {
                Next::Sync { .. } => {}
                Next::Wait { until_us: Some(t) } => {
                    waits += 1;
                    now = t;
                    assert!(matches!(tick(node, now), Next::Sync { .. }));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!((3..=9).contains(&waits), "{waits} waits in 200 commits");
        // From now on everybody comes back after each ack: once a wait is tried again, they share all syncs.
        synced(node, now + 100);
        let (acks, syncs) = closed_loop(node, now + 5000, 2, 20, 80, 400_000);
        assert!(acks * 10 > syncs * 18, "{acks} records in {syncs} syncs");
    });
}

/// Clients that each write, wait for the ack, and write again after `back_us`. Returns how many acks and syncs there
/// were in `for_us`.
fn closed_loop(
    node: &mut TestNode<'_>,
    from_us: u64,
    clients: u64,
    back_us: u64,
    sync_us: u64,
    for_us: u64,
) -> (u64, u64) {
    // Per client: when it writes next, or the number it waits for.
    let mut writes: Vec<(u64, Option<u64>)> = (0..clients).map(|i| (from_us + i * 13, None)).collect();
    let (mut now, mut syncing, mut next) = (from_us, None, IDLE);
    let (mut acks, mut syncs) = (0, 0);
    while now < from_us + for_us {
        let write = writes.iter().filter(|w| w.1.is_none()).map(|w| w.0).min();
        let deadline = if let Next::Wait { until_us } = next { until_us } else { None };
        now = [write, deadline, syncing].into_iter().flatten().min().unwrap().max(now);
        if syncing == Some(now) {
            syncing = None;
            let out = synced(node, now);
            next = out.next;
            for (at, waits_for) in writes.iter_mut().filter(|w| w.1.is_some_and(|n| n <= out.durable_upto)) {
                (*at, *waits_for) = (now + back_us, None);
                acks += 1;
            }
        }
        for (_, waits_for) in writes.iter_mut().filter(|w| w.1.is_none() && w.0 <= now) {
            put(node, now, Class::Group);
            *waits_for = Some(node.store().next_seq() - 1);
        }
        if !matches!(next, Next::Sync { .. }) {
            next = tick(node, now);
        }
        if matches!(next, Next::Sync { .. }) && syncing.is_none() {
            syncing = Some(now + sync_us);
            syncs += 1;
            next = IDLE;
        }
    }
    if syncing.is_some() {
        synced(node, now + sync_us);
    }
    (acks, syncs)
}

#[test]
fn clients_in_a_closed_loop_share_syncs() {
    for (clients, back_us, sync_us) in [(8, 20, 80), (8, 45, 80), (3, 100, 4000), (16, 200, 4000), (2, 30, 60)] {
        with_node(0, true, |node| {
            let (acks, syncs) = closed_loop(node, 1000, clients, back_us, sync_us, 300_000);
            let shared = acks * 100 / (syncs * clients);
            assert!(shared >= 90, "{clients} clients, {sync_us} us: {acks} acks in {syncs} syncs");
        });
    }
    with_node(0, true, |node| {
        // Alone: nothing but its own time and that of the sync.
        let (acks, syncs) = closed_loop(node, 1000, 1, 20, 80, 100_000);
        assert_eq!(acks, 1000, "in {syncs} syncs");
    });
}

#[test]
fn each_ends_a_wait() {
    with_node(0, true, |node| {
        let end = wave(node, 0, 4, 100);
        put(node, end + 1, Class::Group);
        assert!(matches!(tick(node, end + 1), Next::Wait { .. }));
        put(node, end + 2, Class::Each);
        assert!(matches!(tick(node, end + 2), Next::Sync { .. }));
    });
}

#[test]
fn full_memory_begins_a_commit_and_then_pushes_back() {
    with_node(0, true, |node| {
        let body = [b'x'; 700];
        let (mut begun, mut refused_at) = (0, 0);
        for i in 0..10u64 {
            let out = try_put(node, i, Class::Ram, &body);
            begun += u32::from(matches!(out.next, Next::Sync { .. }));
            if out.batch == Some(Err(Refused::Full)) {
                refused_at = i;
                assert_eq!(out.next, IDLE, "only the sync helps");
                break;
            }
        }
        assert_eq!((begun, refused_at), (1, 4), "two batches in each memtable");
        let out = synced(node, 20);
        assert_eq!(out.durable_upto, 3, "the full memtable, and not what came after");
        let out = try_put(node, 21, Class::Ram, &body);
        assert_eq!(out.next, Next::Sync { upto: 5 }, "the other one was full as well");
        assert_eq!(out.batch, Some(Ok(Taken { first_seq: 6, last_seq: 6 })));
    });
}

#[test]
fn without_a_second_memtable_appends_wait_for_the_sync() {
    with_node(0, false, |node| {
        put(node, 0, Class::Each);
        assert!(matches!(tick(node, 0), Next::Sync { .. }));
        assert_eq!(try_put(node, 1, Class::Each, b"later").batch, Some(Err(Refused::Full)));
        synced(node, 100);
        put(node, 101, Class::Each);
    });
}

#[test]
fn what_is_too_large_is_refused_and_leaves_nothing() {
    with_node(0, true, |node| {
        let out = try_put(node, 0, Class::Each, &[0; ARENA_BYTES]);
        assert!(matches!(out.batch, Some(Err(Refused::TooLarge { .. }))), "{out:?}");
        assert_eq!(tick(node, 0), IDLE);
        let row_less = Batch { rows: &[], states: &[(&[1; 300], b"v")], class: Class::Each };
        let out = node.step(1, Input::Batch(row_less));
        assert!(matches!(out.batch, Some(Err(Refused::NoRoomFor(_)))), "{out:?}");
        assert_eq!(node.store().next_seq(), 2);
    });
}

#[test]
fn state_entries_alone_are_a_batch_too() {
    with_node(0, true, |node| {
        let cursor = Batch { rows: &[], states: &[(b"cursor", b"42")], class: Class::Each };
        let out = node.step(0, Input::Batch(cursor));
        assert_eq!(out.batch, Some(Ok(Taken { first_seq: 2, last_seq: 1 })));
        assert_eq!(tick(node, 0), Next::Sync { upto: 1 });
        synced(node, 10);
        assert_eq!(node.store().catalog().state().get(b"cursor"), Some(&b"42"[..]));
    });
}

#[test]
fn the_volatile_bound_is_extended_before_it_is_used_up() {
    with_node(8, true, |node| {
        assert_eq!(node.accepted_upto(), 1);
        for i in 2..=5 {
            assert_eq!(put(node, i, Class::Interval), wait(2 + INTERVAL_US));
            assert_eq!(node.accepted_upto(), i, "kept or reported as lost");
        }
        assert_eq!(put(node, 6, Class::Interval), wait(6), "half of it is used");
        assert_eq!(tick(node, 6), Next::Sync { upto: 6 });
        synced(node, 100);
        assert_eq!(put(node, 200, Class::Interval), wait(200 + INTERVAL_US));
    });
}

#[test]
fn a_failed_sync_is_written_elsewhere_before_anyone_is_told() {
    with_node(0, true, |node| {
        put(node, 0, Class::Each);
        assert!(matches!(tick(node, 0), Next::Sync { .. }));
        node.medium().failing_syncs = 1;
        assert_eq!(synced(node, 100).durable_upto, 2);
        assert_eq!(node.store().stats().segments_abandoned, 1);
        put(node, 200, Class::Each);
        assert!(matches!(tick(node, 200), Next::Sync { .. }), "and it goes on");
    });
}

#[test]
fn a_medium_that_refuses_ends_the_node_and_keeps_what_was_durable() {
    let mut disk = with_node(0, true, |node| {
        put(node, 0, Class::Each);
        node.medium().read_only = true;
        let out = node.step(0, Input::Tick);
        let reason = ReadOnlyReason::Medium(StorageErrorKind::ReadOnly);
        assert_eq!((out.next, out.durable_upto), (Next::Failed(reason), 1));
        assert_eq!(try_put(node, 1, Class::Each, b"x").batch, Some(Err(Refused::Failed(reason))));
        assert_eq!(node.step(2, Input::Stop).next, Next::Failed(reason));
    });
    disk.read_only = false;
    let mut room = Room::new();
    let reader = Reader::open(disk, room.parts().0, &mut |_, _| ()).unwrap();
    assert_eq!(reader.report().adopted_upto, 1);
}

#[test]
fn syncs_that_keep_failing_end_the_node() {
    with_node(0, true, |node| {
        put(node, 0, Class::Each);
        assert!(matches!(tick(node, 0), Next::Sync { .. }));
        node.medium().failing_syncs = u32::MAX;
        let out = synced(node, 100);
        assert!(matches!(out.next, Next::Failed(_)), "{out:?}");
        assert_eq!(out.durable_upto, 1);
    });
}

#[test]
fn a_stop_makes_everything_durable_and_closes_the_log() {
    let disk = with_node(0, true, |node| {
        put(node, 0, Class::Each);
        assert!(matches!(tick(node, 0), Next::Sync { .. }));
        put(node, 1, Class::Ram);
        assert_eq!(node.step(2, Input::Stop).next, IDLE, "the sync under way first");
        assert_eq!(try_put(node, 3, Class::Each, b"x").batch, Some(Err(Refused::Stopping)));
        assert_eq!(synced(node, 100).next, Next::Sync { upto: 3 }, "then what is left");
        let out = synced(node, 200);
        assert_eq!((out.next, out.durable_upto), (Next::Stopped { clean: true }, 3));
        assert_eq!(tick(node, 300), Next::Stopped { clean: true });
    });
    let mut room = Room::new();
    let reader = Reader::open(disk, room.parts().0, &mut |_, _| ()).unwrap();
    assert_eq!(reader.report().previous_end, PreviousEnd::Clean);
    assert_eq!(reader.report().adopted_upto, 3);
}

#[test]
fn a_stop_without_anything_written_writes_nothing() {
    let mut room = Room::new();
    let mut disk = Disk::new();
    format(&mut disk, room.parts().0, &FormatOptions { store_id: 7 }).unwrap();
    let (before, syncs) = (disk.bytes.clone(), disk.syncs);
    let (memory, [active, _]) = room.parts();
    let store = Store::open(disk, memory, active, None, &OpenOptions::default(), &mut |_, _| ()).unwrap();
    let mut node = Node::new(store, 0);
    assert_eq!(node.step(0, Input::Stop).next, Next::Stopped { clean: true });
    let disk = node.into_store().into_storage();
    assert_eq!((disk.bytes == before, disk.syncs), (true, syncs));
}

#[test]
fn a_close_frame_that_fails_is_an_unclean_stop_that_loses_nothing() {
    with_node(0, true, |node| {
        node.medium().read_only = true;
        let out = node.step(0, Input::Stop);
        assert_eq!((out.next, out.durable_upto), (Next::Stopped { clean: false }, 1));
    });
}
