//! A node in this process: the daemon's own writer and socket on a real file.
//!
//! Invariant: it is stopped cleanly or not at all; a test that fails leaves nothing behind but its directory.

use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use crossbeam_channel::bounded;
use lastgasp_core::node::{Class, Node};
use lastgasp_hal_linux::LinuxStorageError;
use lastgaspd::api::{Api, Bell, Mounted, Options, OwnedFact};
use lastgaspd::clock::Clock;
use lastgaspd::opening::{self, Memory, Place};
use lastgaspd::parcel::{Answer, Parcel, Reply};
use lastgaspd::queue::{Intake, Queue};
use lastgaspd::view::Handle;
use lastgaspd::writer::{Ended, Listener, Syncer, Writer};
use tempfile::TempDir;

/// Nobody.
struct Deaf;

impl Listener for Deaf {
    fn durable(&mut self, _: u64) {}
}

/// A node in a directory of its own.
pub(crate) struct TestNode {
    dir: TempDir,
    intake: Option<Intake<LinuxStorageError>>,
    api: Option<Api>,
    writer: Option<JoinHandle<Ended>>,
}

impl TestNode {
    /// Starts one on the store of this directory, which is made if need be; it tells of one source of this name.
    pub(crate) fn start_in(dir: TempDir, size_bytes: u64, source: &'static str) -> Self {
        let path = dir.path().join("store.lg");
        let queue: Queue<LinuxStorageError> = Queue::new(4);
        let (intake, handle) = (queue.intake(), Handle::new(queue.events()));
        let bell = Bell::new().unwrap();
        let of_writer = bell.clone();
        let (to, mounted) = bounded(1);
        let writer = thread::spawn(move || {
            let clock = Clock::start();
            let place = Place { path, size_bytes: Some(size_bytes), allow_volatile: true, streams: 256 };
            let storage = opening::open_or_make(&place).unwrap();
            let mut memory = Memory::default();
            let mut store = opening::mount(storage, &place, &mut memory, &clock).unwrap();
            let syncs = store.parts().0.sync_handle().unwrap();
            to.send(Mounted::of(&mut store)).unwrap();
            let syncer = Syncer::start(queue.events(), move || syncs.sync()).unwrap();
            Writer::new(Node::new(store, 0), queue, syncer, (Deaf, of_writer), clock).run().0
        });
        let facts = Box::new(move || vec![OwnedFact::new("source", source, &[("works", true.into())])]);
        let mounted = mounted.recv().unwrap();
        let options = Options { socket: dir.path().join("s.sock"), group: String::new(), mounted, facts };
        let api = Api::start(options, handle, &bell).unwrap();
        Self { dir, intake: Some(intake), api: Some(api), writer: Some(writer) }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }

    /// Sends what `fill` puts into a parcel as one batch, and waits until it is durable.
    pub(crate) fn send(&self, fill: impl FnOnce(&mut Parcel)) {
        let intake = self.intake.as_ref().unwrap();
        let mut parcel = intake.parcel().unwrap();
        parcel.class = Some(Class::Each);
        fill(&mut parcel);
        let (to, answers) = bounded(1);
        parcel.end_batch(Some(Reply::new(to, 0)));
        intake.send(parcel).unwrap();
        let answer = answers.recv().unwrap().1;
        assert!(matches!(answer, Answer::Durable { .. }), "{answer:?}");
    }

    /// Ends it cleanly; gives the directory back.
    pub(crate) fn stop(mut self) -> TempDir {
        self.api = None;
        self.intake = None;
        let ended = self.writer.take().unwrap().join().unwrap();
        assert_eq!(ended, Ended::Stopped { clean: true });
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}
