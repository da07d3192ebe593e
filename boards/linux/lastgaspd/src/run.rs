//! A run of the node, from its start to its end: joins the parts.
//!
//! Invariants: an error before the first record is taken is a failure to start, one after it a failure while running;
//! what was acknowledged is kept in every case.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, anyhow};
use lastgasp_core::node::Node;
use lastgasp_hal_linux::LinuxStorageError;

use crate::acks::Acks;
use crate::cli::Cli;
use crate::clock::Clock;
use crate::opening::{self, Memory, Place};
use crate::queue::Queue;
use crate::say;
use crate::sources::stdin::{self, Lines};
use crate::stop::Stop;
use crate::writer::{Ended, Syncer, Writer};

/// Parcels of the queue.
const PARCELS: usize = 4;
/// How many records may be lost in a cut without hold-up, for classes that are not awaited; such a loss is a gap.
const VOLATILE_BOUND: u32 = 1 << 16;
/// So long a stop waits for whoever reads the acknowledgements.
const READER_PATIENCE: Duration = Duration::from_secs(5);

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
    let path = cli.store.clone().map_or_else(opening::default_path, Ok).map_err(Failure::Start)?;
    let place = Place { path, size_bytes: cli.size, allow_volatile: cli.allow_volatile };
    let storage = opening::open_or_make(&place).map_err(Failure::Start)?;
    if let Some(errno) = storage.open_report().flush_os_error {
        let error = io::Error::from_raw_os_error(errno);
        say(format_args!("{}: what the last run left unwritten is lost ({error})", place.path.display()));
    }
    let mut memory = Memory::default();
    let class = cli.stdin_class();
    // A sender that is told what is durable knows itself what it lost; for others it becomes a gap.
    let volatile_bound = if class.is_awaited() { 0 } else { VOLATILE_BOUND };
    let mut store = opening::mount(storage, &place, &mut memory, &clock, volatile_bound).map_err(Failure::Start)?;
    // Only now: it holds the lock of the store, which mounting may have to take anew.
    let syncs = store.parts().0.sync_handle().context("opening the store for syncs").map_err(Failure::Start)?;
    say(opening::summary(&place.path, &store));

    if !cli.stdin && io::stdin().is_terminal() {
        say(what_next(&place.path));
        return Ok(());
    }
    let stream = Arc::from(cli.stream.as_deref().unwrap_or("stdin"));
    let lines = Lines { stream, class: Some(class), record_bytes_max: store.record_bytes_max() };
    let acks = if cli.print_acks {
        Acks::print_to(io::stdout(), store.durable_upto()).context("starting a thread").map_err(Failure::Start)?
    } else {
        Acks::nobody()
    };
    let queue: Queue<LinuxStorageError> = Queue::new(PARCELS);
    let syncer = Syncer::start(queue.events(), move || syncs.sync()).context("starting a thread");
    let syncer = syncer.map_err(Failure::Start)?;
    let intake = queue.intake();
    let until = stop.clone();
    let source = thread::Builder::new().name("stdin".into()).spawn(move || {
        if let stdin::Ended::Failed(error) = stdin::run(io::stdin(), &lines, &intake, &until, &clock) {
            say(format_args!("reading standard input failed ({error}); what was read is kept"));
        }
    });
    source.context("starting a thread").map_err(Failure::Start)?;
    let (ended, node, acks) = Writer::new(Node::new(store, volatile_bound), queue, syncer, acks, clock).run();
    acks.finish(stop.is_asked().then_some(READER_PATIENCE));
    conclude(cli, &place.path, ended, &node)
}

fn conclude<S, A>(cli: &Cli, path: &Path, ended: Ended, node: &Node<'_, S, A>) -> Result<(), Failure>
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
            if taken == 0 && !cli.no_defaults && !cli.stdin {
                say(what_next(path));
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

/// What to type next.
fn what_next(store: &Path) -> String {
    let me = std::env::current_exe().unwrap_or_else(|_| "lastgaspd".into());
    let here = std::env::current_dir().unwrap_or_default();
    let short = |path: &Path| match path.strip_prefix(&here) {
        Ok(below) => format!("./{}", below.display()),
        Err(_) => path.display().to_string(),
    };
    let tool = me.with_file_name("lastgasp");
    let tool = match (fs::exists(&tool), std::env::var_os("CARGO")) {
        (Ok(true), _) => short(&tool),
        (_, Some(_)) => "cargo run --release -p lastgasp --".to_owned(),
        _ => "lastgasp".to_owned(),
    };
    let (me, store) = (short(&me), store.display());
    format!(
        "this node keeps log lines through power cuts, and nothing was piped into it. Try:\n  \
         dmesg | {me}\n  \
         {tool} tail --store {store} -n 20\n  \
         {tool} status --store {store}\n\
         More: {me} --help"
    )
}
