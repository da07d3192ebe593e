//! A run of the node, from its start to its end: joins the parts.
//!
//! Invariants: an error before the first record is taken is a failure to start, one after it a failure while running;
//! what was acknowledged is kept in every case.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Error, anyhow, bail};
use lastgasp_core::error::ReadOnlyReason;
use lastgasp_core::node::Node;
use lastgasp_hal_linux::{FileStorage, LinuxStorageError};

use crate::acks::Acks;
use crate::api::{self, Api, Bell, Mounted, Options};
use crate::cli::Cli;
use crate::clock::Clock;
use crate::config::{Loaded, OnFailure, Switch, report};
use crate::facts::{self, SharedConfig};
use crate::greeting;
use crate::opening::{self, Memory, Place};
use crate::plan::{self, Means};
use crate::queue::Queue;
use crate::say;
use crate::sources::status::Sources;
use crate::stop::{Reload, Stop};
use crate::supervisor::{Supervisor, cursors_of_store};
use crate::view::Handle;
use crate::writer::{Ended, Rest, Syncer, Writer};

/// Parcels of the queue: enough that several sources fill one each while others are with the writer.
const PARCELS: usize = 8;
/// How many records may be lost in a cut without hold-up at most, for classes that are not awaited; such a loss is a
/// gap.
const VOLATILE_BOUND: u32 = 1 << 16;
/// So long a stop waits for whoever reads the acknowledgements.
const READER_PATIENCE: Duration = Duration::from_secs(5);

type Remains = Rest<LinuxStorageError, (Acks<io::Stdout>, Bell)>;

/// Why a run did not end well.
#[derive(Debug)]
pub enum Failure {
    /// It could not start.
    Start(Error),
    /// It failed while it ran.
    Running(Error),
}

/// Runs a node until its sources end or a signal stops it.
///
/// # Errors
/// [`Failure`].
pub fn run(cli: &Cli) -> Result<(), Failure> {
    let clock = Clock::start();
    cli.check().map_err(Failure::Start)?;
    let stop = Stop::on_signals().context("taking over SIGTERM and SIGINT").map_err(Failure::Start)?;
    let reload = Reload::on_signal().context("taking over SIGHUP").map_err(Failure::Start)?;
    let request = cli.request();
    let loaded = Loaded::load(&request).map_err(|problems| Failure::Start(anyhow!("{}", report(&problems))))?;
    let config = loaded.config;
    let means = Means::find(cli, &config);
    let path = config.store.path.clone().map_or_else(opening::default_path, Ok).map_err(Failure::Start)?;
    let (streams, policy, on_failure) = (config.limits.streams, config.policy(), config.store.on_failure);
    let max_record_bytes =
        config.store.max_record_bytes.map_or(usize::MAX, |b| usize::try_from(b).unwrap_or(usize::MAX));
    let place = Place { path, size_bytes: config.store.size_bytes, allow_volatile: cli.allow_volatile, streams };
    let storage = open(&place).map_err(Failure::Start)?;
    let (mut memory, mut spare_memory) = (Memory::default(), Memory::default());
    // A sender that is told what is durable knows itself what it lost; for others it becomes a gap.
    let volatile_bound = if means.all_awaited(&config) { 0 } else { VOLATILE_BOUND };
    let mut store = opening::mount(storage, &place, &mut memory, &clock).map_err(Failure::Start)?;
    // Only now: it holds the lock of the store, which mounting may have to take anew.
    let syncs = store.parts().0.sync_handle().context("opening the store for syncs").map_err(Failure::Start)?;
    say(opening::summary(&place.path, &store));
    let acks = if cli.print_acks {
        Acks::print_to(io::stdout(), store.durable_upto()).context("starting a thread").map_err(Failure::Start)?
    } else {
        Acks::nobody()
    };
    let queue: Queue<LinuxStorageError> = Queue::new(PARCELS);
    let syncer = Syncer::start(queue.events(), move || syncs.sync()).context("starting a thread");
    let syncer = syncer.map_err(Failure::Start)?;
    let handle = Handle::new(queue.events());
    let (sources, config) = (Sources::default(), Arc::new(Mutex::new(config)));
    let bell = Bell::new().context("a file descriptor for readers").map_err(Failure::Start)?;
    let mounted = Mounted::of(&mut store);
    let api = start_api(cli, &config, &sources, mounted, handle.clone(), &bell).map_err(Failure::Start)?;
    if means.is_greeting() {
        say(greeting::what_to_try(api.as_ref().map(Api::socket), &place.path));
    }
    let supervisor = Supervisor {
        plan: plan::sources(means, handle.clone(), sources.clone()),
        request,
        config,
        intake: queue.intake(),
        handle,
        events: queue.events(),
        clock,
        record_bytes_max: max_record_bytes.min(store.record_bytes_max()),
        cursors: cursors_of_store(&store),
        sources,
        lasts: false,
        started: 0,
    };
    supervisor.start(stop.clone(), reload).context("starting a thread").map_err(Failure::Start)?;
    let node = Node::new(store, volatile_bound);
    let (ended, node, rest) = Writer::new(node, queue, syncer, (acks, bell), clock).ruled_by(policy).run();
    let mut end = conclude(&place.path, ended, &node);
    let rest = match (&end, ended, on_failure) {
        (Err(Failure::Running(error)), Ended::Failed(reason), OnFailure::Memory) => {
            say(format_args!("{error:#}"));
            end = Ok(());
            go_on_in_memory(rest, &mut spare_memory, streams, clock, reason).map_err(Failure::Running)?
        }
        _ => rest,
    };
    // The queue first: other threads may wait for it.
    drop(rest.queue);
    drop(api);
    rest.listener.0.finish(stop.is_asked().then_some(READER_PATIENCE));
    end
}

/// Opens or makes the store, and says what its medium has to say.
fn open(place: &Place) -> Result<FileStorage, Error> {
    let storage = opening::open_or_make(place)?;
    if let Some(errno) = storage.open_report().flush_os_error {
        let error = io::Error::from_raw_os_error(errno);
        say(format_args!("{}: what the last run left unwritten is lost ({error})", place.path.display()));
    }
    Ok(storage)
}

/// The socket for readers. Where it is built in and cannot be had, the node runs without.
fn start_api(
    cli: &Cli,
    config: &SharedConfig,
    sources: &Sources,
    mounted: Mounted,
    handle: Handle<LinuxStorageError>,
    bell: &Bell,
) -> Result<Option<Api>, Error> {
    let api = config.lock().unwrap_or_else(PoisonError::into_inner).api.clone();
    let is_wanted = match api.enabled {
        Switch::Auto => !cli.no_defaults || api.socket.is_some(),
        Switch::On => true,
        Switch::Off => false,
    };
    if !is_wanted {
        return Ok(None);
    }
    let socket = api.socket.clone().unwrap_or_else(|| api::default_path(&mounted.path));
    let (config, sources) = (Arc::clone(config), sources.clone());
    let facts = Box::new(move || facts::facts(&config, &sources));
    match Api::start(Options { socket, group: api.group, mounted, facts }, handle, bell) {
        Ok(started) => Ok(Some(started)),
        Err(error) if api.enabled == Switch::Auto && api.socket.is_none() => {
            say(format_args!("{error:#}; the node runs without a socket for readers"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The medium has failed: takes in what comes until the end, in memory.
fn go_on_in_memory(
    rest: Remains,
    memory: &mut Memory,
    streams: u16,
    clock: Clock,
    reason: ReadOnlyReason,
) -> Result<Remains, Error> {
    let (storage, place) = opening::make_volatile(streams).context("nor can the node go on in memory")?;
    let mut store = opening::mount(storage, &place, memory, &clock)?;
    let syncs = store.parts().0.sync_handle().context("opening the store for syncs")?;
    let syncer = Syncer::start(rest.queue.events(), move || syncs.sync()).context("starting a thread")?;
    say(format_args!(
        "from here on records are kept in memory only ({}): they are gone when the node stops or power fails",
        place.path.display()
    ));
    let (ended, node, rest) = Writer::in_memory(Node::new(store, VOLATILE_BOUND), rest, syncer, clock, reason).run();
    let taken = node.store().stats().records;
    match ended {
        Ended::Stopped { .. } => say(format_args!("stopped: {taken} record(s) were kept in memory only")),
        Ended::Failed(reason) => bail!("{}: the store in memory failed too: {reason}", place.path.display()),
    }
    Ok(rest)
}

fn conclude<S, A>(path: &Path, ended: Ended, node: &Node<'_, S, A>) -> Result<(), Failure>
where
    S: lastgasp_core::hal::Storage,
    A: lastgasp_core::hal::Arena,
{
    let (taken, durable) = (node.store().stats().records, node.store().durable_upto());
    match ended {
        Ended::Stopped { clean } => {
            say(format_args!("stopped: {taken} record(s) taken in, everything up to number {durable} is durable"));
            if !clean {
                say("the stop itself could not be noted in the store: the next start will call it a cut");
            }
            Ok(())
        }
        Ended::Failed(reason) => Err(Failure::Running(anyhow!(
            "{}: the store takes no more writes: {reason}. Everything up to number {durable} is kept, nothing after \
             it. Look into the kernel log and at the medium (a card at its end of life turns read-only), copy the \
             store away if it is, then start again",
            path.display()
        ))),
    }
}
