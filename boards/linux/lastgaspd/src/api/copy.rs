//! What the readers' thread knows of the node: copies that the writer's thread makes on request.
//!
//! Invariants: asking never waits; the last copy stays in use until the next has come, so a writer that hangs holds no
//! reader up; at most one copy is being made at a time.

use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use lastgasp_core::catalog::Catalog;
use lastgasp_core::hal::Geometry;
use lastgasp_core::readout::status::read_only_code;
use lastgasp_core::readout::{Fact, Live, Status};
use lastgasp_core::snapshot::Snapshot;
use lastgasp_hal_linux::{LinuxStorageError, SnapshotMemory};

use super::Mounted;
use super::bell::Bell;
use super::facts::{FactValue, OwnedFact};
use crate::say;
use crate::view::{Handle, View};

/// Name and version of the program.
const SOFTWARE: &str = concat!("lastgaspd ", env!("CARGO_PKG_VERSION"));

/// A copy.
struct Taken {
    memory: SnapshotMemory,
    snapshot: Option<Snapshot>,
    status: Status,
    /// Facts of streams, if they were asked for.
    facts: Vec<OwnedFact>,
}

/// The copies.
pub(super) struct Copies {
    node: Handle<LinuxStorageError>,
    bell: Bell,
    mounted: Mounted,
    geometry: Geometry,
    to: Sender<Taken>,
    taken: Receiver<Taken>,
    current: Option<(Taken, Snapshot)>,
    spare: Option<SnapshotMemory>,
    /// Number of the last copy that was asked for, and of the last that came.
    asked: u64,
    got: u64,
    /// One more is wanted when that which is being made has come.
    again: bool,
    want_facts: bool,
    gone: bool,
}

impl Copies {
    pub(super) fn new(node: Handle<LinuxStorageError>, bell: Bell, mounted: Mounted) -> Self {
        let geometry = mounted.geometry;
        let (to, taken) = bounded(1);
        let spare = Some(SnapshotMemory::new(&geometry, mounted.streams_max));
        let (asked, got, again, want_facts, gone) = (0, 0, false, false, false);
        Self { node, bell, mounted, geometry, to, taken, current: None, spare, asked, got, again, want_facts, gone }
    }

    /// Asks for a copy that is made after now; returns its number.
    pub(super) fn ask(&mut self) -> u64 {
        if self.asked == self.got {
            self.send();
            return self.asked;
        }
        // The one that is being made may be older than now.
        self.again = true;
        self.asked.saturating_add(1)
    }

    /// The next copy has what is told of streams, too.
    pub(super) fn want_facts(&mut self) {
        self.want_facts = true;
    }

    fn send(&mut self) {
        self.asked = self.asked.saturating_add(1);
        self.again = false;
        let spare = self.spare.take();
        let memory = spare.unwrap_or_else(|| SnapshotMemory::new(&self.geometry, self.mounted.streams_max));
        let (to, bell) = (self.to.clone(), self.bell.clone());
        let want_facts = std::mem::take(&mut self.want_facts);
        let store_id = self.mounted.store_id;
        let mut back = Back { to, bell, taken: Some(Taken::empty(memory)) };
        let sent = self.node.look_later(move |view| {
            // A node whose medium has failed goes on with another store, in memory: that is not the one that is read.
            if let Some(taken) = back.taken.as_mut().filter(|_| view.catalog.store_id() == store_id) {
                taken.fill(view, want_facts);
            }
        });
        if sent.is_err() {
            self.gone = true;
        }
    }

    /// Takes what has come; `true` if more is durable than before.
    pub(super) fn collect(&mut self) -> bool {
        let before = self.current.as_ref().map(|(_, snapshot)| snapshot.durable_upto());
        while let Ok(taken) = self.taken.try_recv() {
            self.got = self.asked;
            match taken.snapshot {
                Some(snapshot) => {
                    if let Some((old, _)) = self.current.replace((taken, snapshot)) {
                        self.spare = Some(old.memory);
                    }
                }
                // The writer went before it looked, or the copy did not fit.
                None => (self.spare, self.gone) = (Some(taken.memory), true),
            }
        }
        if self.again && self.asked == self.got {
            self.send();
        }
        self.current.as_ref().map(|(_, snapshot)| snapshot.durable_upto()) > before
    }

    /// The copy with this number has come, or none will come any more.
    pub(super) fn has(&self, number: u64) -> bool {
        self.got >= number || self.gone
    }

    /// Calls with the last copy, if there is one.
    pub(super) fn with<T>(&mut self, more: &[Fact<'_>], each: impl FnOnce(&Catalog<'_>, &Live<'_>) -> T) -> Option<T> {
        let (taken, snapshot) = self.current.as_mut()?;
        let facts: Vec<Fact<'_>> = more.iter().copied().chain(taken.facts.iter().map(OwnedFact::fact)).collect();
        let wall_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
        let status = Status {
            record_bytes_max: u64::try_from(self.mounted.record_bytes_max).unwrap_or(u64::MAX),
            device_bytes: self.mounted.meter.written_bytes(),
            syncs: self.mounted.meter.syncs(),
            wall_us: u64::try_from(wall_us).unwrap_or(u64::MAX),
            ..taken.status
        };
        let catalog = snapshot.catalog(taken.memory.parts());
        let live = Live {
            software: SOFTWARE,
            running: !self.gone,
            previous_end: self.mounted.previous_end.into(),
            clock: self.mounted.clock,
            status,
            facts: &facts,
        };
        Some(each(&catalog, &live))
    }
}

/// Sends a copy back, also if the writer drops the look unseen.
struct Back {
    to: Sender<Taken>,
    bell: Bell,
    taken: Option<Taken>,
}

impl Drop for Back {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            let _ = self.to.try_send(taken);
            self.bell.ring();
        }
    }
}

impl Taken {
    fn empty(memory: SnapshotMemory) -> Self {
        Self { memory, snapshot: None, status: Status::default(), facts: Vec::new() }
    }

    /// Runs on the writer's thread.
    fn fill(&mut self, view: &View<'_, '_>, want_facts: bool) {
        match Snapshot::take(view.catalog, &mut self.memory.parts()) {
            Ok(snapshot) => self.snapshot = Some(snapshot),
            Err(error) => return say(format_args!("readers get no answer: {error}")),
        }
        let stats = view.stats;
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        self.status = Status {
            next_seq: view.next_seq,
            accepted_upto: view.durable_upto.max(view.next_seq.saturating_sub(1).min(view.ram_limit)),
            volatile_bound: u64::from(view.volatile_bound),
            read_only: read_only_code(view.read_only),
            uptime_us: view.now_us,
            abandoned_segments: stats.segments_abandoned,
            records: stats.records,
            record_bytes: stats.record_bytes,
            payload_bytes: stats.payload_bytes,
            frames: stats.frames,
            commits: stats.commits,
            segments_opened: stats.segments_opened,
            segments_dropped: stats.segments_dropped,
            edits: stats.edits,
            sync_us: view.sync_us,
            memtable_used_bytes: number(view.memtable_bytes.0),
            memtable_bytes: number(view.memtable_bytes.1),
            ..Status::default()
        };
        if want_facts {
            let dropped = OwnedFact::new("node", "records", &[("dropped", view.dropped.into())]);
            let named = (0u16..).zip(view.streams).filter(|(_, count)| count.records > 0 || count.dropped > 0);
            let streams = named.filter_map(|(id, count)| {
                let values = [
                    ("records", count.records.into()),
                    ("bytes", count.bytes.into()),
                    ("dropped", count.dropped.into()),
                    ("last_minute", count.per_minute(view.now_us).into()),
                ];
                Some(OwnedFact::new("stream", view.catalog.streams().name(id)?, &values))
            });
            let states = view.catalog.state().iter().filter_map(|(key, value)| {
                let key = std::str::from_utf8(key).ok()?;
                OwnedFact::new("state", key, &[("value", FactValue::Bytes(value.to_vec()))]).whole()
            });
            self.facts = std::iter::once(dropped).chain(streams).chain(states).collect();
        }
    }
}
