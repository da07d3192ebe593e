//! A medium as a source: a store's file, a block device, the image of a card or chip.
//!
//! Invariants: every call mounts anew, so it shows what is durable at that moment; nothing can be written; a store that
//! a node has open is read beside it.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lastgasp_core::catalog::Catalog;
use lastgasp_core::gaps::{Gap as CoreGap, GapCause};
use lastgasp_core::hal::{Geometry, ReadStorage};
use lastgasp_core::reader::Reader;
use lastgasp_core::recovery::RecoveryReport;
use lastgasp_core::scan::{Entry as CoreEntry, Event, Filter, Record as CoreRecord, Scan, ScanOptions};
use lastgasp_hal_linux::{FileStorage, MediumKind, ScanBuffers, StoreMemory};

use crate::boots::Boots;
use crate::client::{Each, Flow, Lookup};
use crate::entry::{Entry, Gap, Record};
use crate::error::Error;
use crate::gaps::KnownGap;
use crate::image;
use crate::query::Query;
use crate::wait::Watch;

/// Room for the names of more streams than any node takes by default.
const STREAMS: u16 = 4096;

/// Who writes to a store right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Nobody.
    None,
    /// A process; its number, if the system tells.
    Some(Option<u32>),
}

impl Writer {
    /// Where the file system has no locks, no node can have the store open either: it needs one.
    fn of(storage: &FileStorage) -> Self {
        if storage.is_locked_by_writer().unwrap_or(false) { Self::Some(storage.writer_pid()) } else { Self::None }
    }

    /// The writer, in words; none if there is none.
    #[must_use]
    pub fn words(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Some(Some(pid)) => Some(format!("process {pid}")),
            Self::Some(None) => Some("another process".to_owned()),
        }
    }
}

/// What a medium and the store on it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStatus {
    /// File, device; a chip's image is told by its geometry.
    pub kind: MediumKind,
    /// Shape of the store.
    pub geometry: Geometry,
    /// Who writes to it.
    pub writer: Writer,
    /// How much of the store lies beyond the end of the medium.
    pub missing_bytes: u64,
}

/// Reads a medium.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    storage: FileStorage,
    memory: StoreMemory,
    main: ScanBuffers,
    /// For looking elsewhere while an entry of the main scan is held.
    side: ScanBuffers,
    watch: Watch,
}

impl FileSource {
    /// Opens the store at `path` for reading.
    ///
    /// # Errors
    /// What is there instead, and what to do.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let storage = image::open(path)?;
        let geometry = storage.geometry();
        Ok(Self {
            path: path.to_path_buf(),
            storage,
            memory: StoreMemory::with_streams(&geometry, STREAMS),
            main: ScanBuffers::new(&geometry),
            side: ScanBuffers::new(&geometry),
            watch: Watch::new(path),
        })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the medium is; asks the system again who writes to it.
    #[must_use]
    pub fn status(&self) -> FileStatus {
        FileStatus {
            kind: self.storage.kind(),
            geometry: self.storage.geometry(),
            writer: Writer::of(&self.storage),
            missing_bytes: self.storage.open_report().missing_bytes,
        }
    }

    /// Mounts the store and hands out what the mount knows.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mounted<T>(&mut self, look: impl FnOnce(&Catalog<'_>, &RecoveryReport) -> T) -> Result<T, Error> {
        let reader = mount(&self.path, &mut self.storage, &mut self.memory)?;
        Ok(look(reader.catalog(), reader.report()))
    }

    /// Mounts the store and hands out everything that a check of the engine needs.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn with_reader<T>(
        &mut self,
        look: impl FnOnce(&mut Reader<'_, &mut FileStorage>, &mut ScanBuffers) -> T,
    ) -> Result<T, Error> {
        let mut reader = mount(&self.path, &mut self.storage, &mut self.memory)?;
        Ok(look(&mut reader, &mut self.main))
    }

    pub(crate) fn streams(&mut self) -> Result<Vec<String>, Error> {
        self.mounted(|catalog, _| catalog.streams().iter().map(|(_, name)| name.to_owned()).collect())
    }

    pub(crate) fn read(&mut self, query: &Query, each: Each<'_>) -> Result<u64, Error> {
        let mut reader = mount(&self.path, &mut self.storage, &mut self.memory)?;
        let (medium, catalog) = reader.parts();
        let Some(mut scan) = begin(catalog, query) else { return Ok(catalog.durable_upto().saturating_add(1)) };
        let mut mem = self.main.parts();
        while let Some(entry) = scan.next(medium, catalog, &mut mem) {
            let mut look = Side { medium: &mut *medium, catalog, buffers: &mut self.side };
            let flow = give(catalog, query, &entry, &mut |entry| each(entry, &mut look))?;
            if flow.is_break() {
                break;
            }
        }
        Ok(scan.position())
    }

    /// Waits until somebody has written to the medium; `false` if nobody has in that time.
    ///
    /// # Errors
    /// The system does not let us wait.
    pub fn wait(&mut self, patience: Duration) -> Result<bool, Error> {
        self.watch.wait(patience).map_err(|source| Error::io(&self.path, "waiting for it to change", source))
    }

    /// What the ledger knows, and what retention dropped.
    pub(crate) fn gaps(&mut self) -> Result<Vec<KnownGap>, Error> {
        self.mounted(|catalog, _| {
            let floor = catalog.floor();
            let dropped = CoreGap::new(1, floor.saturating_sub(1), false, GapCause::Retention);
            let dropped = Some(dropped).filter(|gap| gap.first_seq <= gap.last_seq);
            let all = dropped.iter().chain(catalog.gaps());
            all.map(|gap| {
                let name = gap.stream.map(|id| stream_name(catalog, id));
                KnownGap::of(&shown_gap(gap, name.as_ref().map(StreamName::as_str)))
            })
            .collect()
        })
    }

    /// Mounts once, for many looks.
    pub(crate) fn lookups(&mut self, run: &mut dyn FnMut(&mut dyn Lookup) -> Result<(), Error>) -> Result<(), Error> {
        let mut reader = mount(&self.path, &mut self.storage, &mut self.memory)?;
        let (medium, catalog) = reader.parts();
        run(&mut Side { medium, catalog, buffers: &mut self.side })
    }

    /// Reads every part of the log that a boot began in.
    pub(crate) fn boots(&mut self) -> Result<Boots, Error> {
        let running = self.status().writer != Writer::None;
        let mut reader = mount(&self.path, &mut self.storage, &mut self.memory)?;
        let (medium, catalog) = reader.parts();
        let mut boots = Boots::default();
        for (from, to) in boot_ranges(catalog) {
            let options = scan_options(catalog, &Query::without_records(from, to)).unwrap_or_default();
            let mut scan = Scan::new(catalog, options);
            let mut mem = self.main.parts();
            while let Some(entry) = scan.next(medium, catalog, &mut mem) {
                if let CoreEntry::Event(event) = entry {
                    boots.push(&event);
                }
            }
        }
        boots.finish(catalog.durable_upto(), running);
        for boot in boots.iter_mut() {
            if let Some(anchor) = catalog.clocks().get(boot.clock_epoch) {
                (boot.begin_us, boot.synchronised) = (anchor.wall_us, anchor.synchronised);
            }
            let options = ScanOptions { from: boot.first_seq, to: boot.last_seq, reverse: true, ..Default::default() };
            if boot.last_seq < boot.first_seq {
                continue;
            }
            let mut scan = Scan::new(catalog, options);
            let mut mem = self.main.parts();
            while let Some(entry) = scan.next(medium, catalog, &mut mem) {
                if let CoreEntry::Record(record) = entry {
                    boot.end_us = record.received_wall_us();
                    break;
                }
            }
        }
        Ok(boots)
    }
}

/// The medium while it is mounted.
type Medium<'s> = &'s mut FileStorage;

fn mount<'m>(
    path: &Path,
    storage: &'m mut FileStorage,
    memory: &'m mut StoreMemory,
) -> Result<Reader<'m, Medium<'m>>, Error> {
    Reader::open(storage, memory.parts(), &mut |_, _| ())
        .map_err(|error| Error::Mount { path: path.to_path_buf(), error })
}

/// Ranges of numbers in which boots may begin: those of the segments that an origin stands in, and the newest ones.
fn boot_ranges(catalog: &Catalog<'_>) -> Vec<(u64, u64)> {
    let pool = catalog.pool();
    let order = pool.order();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (index, segment) in order.iter().enumerate() {
        let state = pool.get(*segment).state;
        let is_new = index.saturating_add(2) >= order.len();
        if !state.holds_boot && !is_new {
            continue;
        }
        let next = order.get(index.saturating_add(1)).map_or(u64::MAX, |next| pool.get(*next).state.first_seq);
        match ranges.last_mut() {
            Some(last) if last.1 >= state.first_seq.saturating_sub(1) => last.1 = last.1.max(next),
            _ => ranges.push((state.first_seq.max(1), next)),
        }
    }
    ranges
}

fn scan_options(catalog: &Catalog<'_>, query: &Query) -> Option<ScanOptions> {
    // One stream is a matter of the engine, which passes by what holds others; several are looked at one by one.
    let stream = match query.streams.as_slice() {
        [only] => Some(stream_id(catalog, only)?),
        _ => None,
    };
    let filter =
        Filter { stream, severity_min: query.severity_min, since_us: query.since_us, until_us: query.until_us };
    Some(ScanOptions { from: query.from, to: query.to, reverse: query.reverse, filter })
}

/// A scan; none where a stream is asked for that there is not.
fn begin(catalog: &Catalog<'_>, query: &Query) -> Option<Scan> {
    Some(Scan::new(catalog, scan_options(catalog, query)?))
}

fn stream_id(catalog: &Catalog<'_>, name: &str) -> Option<u16> {
    let nameless = || name.strip_prefix("stream-").and_then(|id| id.parse().ok());
    catalog.streams().find(name).or_else(nameless)
}

/// Hands an entry over as the client shows it.
fn give(
    catalog: &Catalog<'_>,
    query: &Query,
    entry: &CoreEntry<'_>,
    each: &mut dyn FnMut(Entry<'_>) -> io::Result<Flow>,
) -> Result<ControlFlow<()>, Error> {
    let flow = match entry {
        CoreEntry::Record(record) => {
            let name = stream_name(catalog, record.row.stream);
            let record = shown(record, name.as_str());
            if query.keeps(&record) { each(Entry::Record(record)) } else { Ok(Flow::On) }
        }
        CoreEntry::Gap(gap) => {
            let name = gap.stream.map(|id| stream_name(catalog, id));
            each(Entry::Gap(shown_gap(gap, name.as_ref().map(StreamName::as_str))))
        }
        CoreEntry::Event(Event::Boot(origin)) => each(Entry::Event((*origin).into())),
        CoreEntry::Event(Event::Close(close)) => each(Entry::Event((*close).into())),
    };
    match flow.map_err(Error::Caller)? {
        Flow::On => Ok(ControlFlow::Continue(())),
        Flow::Stop => Ok(ControlFlow::Break(())),
    }
}

/// A stream's name: the store's own, or made from its number.
enum StreamName<'c> {
    Known(&'c str),
    Made(String),
}

impl StreamName<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Known(name) => name,
            Self::Made(name) => name,
        }
    }
}

fn stream_name<'c>(catalog: &'c Catalog<'_>, id: u16) -> StreamName<'c> {
    catalog.streams().name(id).map_or_else(|| StreamName::Made(format!("stream-{id}")), StreamName::Known)
}

fn shown<'a>(record: &CoreRecord<'a>, stream: &'a str) -> Record<'a> {
    let row = &record.row;
    Record {
        seq: record.seq,
        stream,
        severity: row.severity,
        boot: (record.boot > 0).then_some(record.boot),
        received_offset_us: row.received_us,
        received_us: record.received_wall_us(),
        synchronised: record.clock.is_some_and(|anchor| anchor.synchronised),
        event_time_us: row.event_time_us,
        trace: row.trace,
        continued: row.continued,
        body: row.body,
        field_bytes: row.fields,
    }
}

pub(crate) fn shown_gap<'a>(gap: &CoreGap, stream: Option<&'a str>) -> Gap<'a> {
    let CoreGap { first_seq, last_seq, exact, cause, .. } = *gap;
    Gap { first_seq, last_seq, exact, cause, stream }
}

/// Looks elsewhere on the same medium.
struct Side<'a, 'c, 'm, 's> {
    medium: &'a mut Medium<'s>,
    catalog: &'c Catalog<'m>,
    buffers: &'a mut ScanBuffers,
}

impl Lookup for Side<'_, '_, '_, '_> {
    fn look(&mut self, query: &Query, each: &mut dyn FnMut(Entry<'_>) -> io::Result<Flow>) -> Result<(), Error> {
        let Some(mut scan) = begin(self.catalog, query) else { return Ok(()) };
        let mut mem = self.buffers.parts();
        while let Some(entry) = scan.next(self.medium, self.catalog, &mut mem) {
            if give(self.catalog, query, &entry, each)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
