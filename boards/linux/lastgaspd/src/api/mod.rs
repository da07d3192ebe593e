//! The socket at which the log is read while the node runs (`core/READOUT.md`).
//!
//! One thread serves all clients: it polls, reads the store's file through a handle and buffers of its own, and knows
//! the store by copies of the writer's catalog. A second thread waits for checkpoints.
//!
//! Invariants: the writer waits for no reader; memory is bounded, however many connect and whatever they send: so many
//! connections, so many scans at once, and none while nobody reads; nobody reads who may not; when nothing happens,
//! nothing runs.

mod bell;
mod buffers;
mod connection;
mod copy;
mod facts;
mod peer;
mod place;
mod serve;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use lastgasp_core::format::events::PreviousEnd;
use lastgasp_core::format::header::ClockAnchor;
use lastgasp_core::hal::{Arena, ReadStorage};
use lastgasp_core::store::Store;
use lastgasp_hal_linux::{FileStorage, LinuxStorageError, Meter};

pub use bell::Bell;
pub use facts::{FactValue, OwnedFact};
pub use place::default_path;

use crate::view::Handle;

/// What is served, and where.
pub struct Options {
    /// Path of the socket, see [`default_path`].
    pub socket: PathBuf,
    /// Group whose members may read, if there is such a group.
    pub group: String,
    /// What the mount of the store said.
    pub mounted: Mounted,
    /// What else `status` tells: sources, classes, limits. Called for each such request.
    pub facts: Box<dyn Fn() -> Vec<OwnedFact> + Send>,
}

/// What does not change while a store is mounted.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// The store's medium.
    pub path: PathBuf,
    /// Counts what is written to it.
    pub meter: Meter,
    /// The store's id.
    pub store_id: u64,
    /// Its shape.
    pub geometry: lastgasp_core::hal::Geometry,
    /// Named streams there is room for.
    pub streams_max: u16,
    /// How the boot before ended.
    pub previous_end: PreviousEnd,
    /// Clock of this boot.
    pub clock: ClockAnchor,
    /// The largest record.
    pub record_bytes_max: usize,
}

impl Mounted {
    /// Of a store that was just mounted.
    pub fn of<A: Arena>(store: &mut Store<'_, FileStorage, A>) -> Self {
        let path = store.parts().0.path().to_path_buf();
        Self {
            path,
            meter: store.parts().0.meter(),
            store_id: store.catalog().store_id(),
            geometry: store.parts().0.geometry(),
            streams_max: u16::try_from(store.catalog().streams().capacity()).unwrap_or(u16::MAX),
            previous_end: store.report().previous_end,
            clock: store.clock(),
            record_bytes_max: store.record_bytes_max(),
        }
    }
}

/// The running service. It ends, and its socket goes, when this is dropped.
#[derive(Debug)]
pub struct Api {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
    bell: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    /// Makes the socket and serves it. The writer is to ring the bell: see [`Bell`].
    ///
    /// # Errors
    /// The socket cannot be made, or another node serves it: what is wrong and what to do.
    pub fn start(options: Options, node: Handle<LinuxStorageError>, bell: &Bell) -> Result<Self> {
        let socket = options.socket.clone();
        let bound = place::bind(&socket, &options.group)?;
        let medium = FileStorage::open_read_only(&options.mounted.path)
            .with_context(|| format!("opening {} for readers", options.mounted.path.display()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let serve = serve::Serve::new(bound, medium, options, node, bell.clone(), Arc::clone(&stop))?;
        let thread = thread::Builder::new().name("api".into()).spawn(move || serve.run());
        let thread = Some(thread.context("starting a thread for readers")?);
        Ok(Self { socket, stop, bell: bell.clone(), thread })
    }

    /// Path of the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tries again what a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
