//! Starts the sources that the configuration asks for, and starts them anew when it changes.
//!
//! Invariants: the node runs as long as a source may bring something: until a stop is asked for, or, where all sources
//! can come to an end, until they have; a source that is started anew goes on where it left off, and what it had read
//! is durable before; a configuration that is wrong changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use lastgasp_core::hal::{Arena, Storage};
use lastgasp_core::store::Store;

use crate::clock::Clock;
use crate::config::{Config, Loaded, Request, changed, report};
use crate::facts::SharedConfig;
use crate::queue::{Event, Intake};
use crate::say;
use crate::sources::status::Sources;
use crate::sources::{Context, Cursors};
use crate::stop::{Reload, Ring, Stop};
use crate::view::{Handle, View};

/// A source that is wanted.
pub struct Wanted<E> {
    /// Its name, as `files.nginx`: the last parts of its section.
    pub name: String,
    /// It is started anew if this changes.
    pub settings: String,
    /// It may come to an end by itself, as standard input does.
    pub ends: bool,
    /// Its stream of records, until it ends.
    pub run: Box<dyn FnOnce(Context<E>) + Send>,
}

/// Which sources a configuration asks for; the second argument: standard input turned out to be empty.
pub type Plan<E> = Box<dyn Fn(&Config, bool) -> Vec<Wanted<E>> + Send>;

/// A source that runs.
struct Running {
    settings: String,
    ends: bool,
    /// Which run of it this is.
    number: u64,
    ring: Ring,
    thread: JoinHandle<()>,
}

/// What wakes the supervisor.
enum Note {
    Stop,
    Reload,
    /// This run of a source has ended, after so many records.
    Ended {
        name: String,
        number: u64,
        records: u64,
    },
}

/// The supervisor's parts.
pub struct Supervisor<E> {
    /// What the plan says of the configuration.
    pub plan: Plan<E>,
    /// How to load the configuration again.
    pub request: Request,
    /// The configuration.
    pub config: SharedConfig,
    /// A source's end of the queue, to make others of. While it is held, the node runs.
    pub intake: Intake<E>,
    /// To look at the node.
    pub handle: Handle<E>,
    /// To tell the writer of a new policy.
    pub events: Sender<Event<E>>,
    /// Time of the run.
    pub clock: Clock,
    /// The largest record.
    pub record_bytes_max: usize,
    /// Where sources left off when the store was opened.
    pub cursors: Cursors,
    /// What sources say of themselves.
    pub sources: Sources,
    /// A source was wanted that does not come to an end by itself: the node runs until it is stopped, also if that
    /// source cannot run.
    pub lasts: bool,
    /// Sources started so far.
    pub started: u64,
}

impl<E: Send + 'static> Supervisor<E> {
    /// Starts the sources, and a thread that looks after them.
    ///
    /// # Errors
    /// The system has no more threads or file descriptors.
    pub fn start(self, stop: Stop, reload: Reload) -> std::io::Result<JoinHandle<()>> {
        let (to, notes) = unbounded();
        let of_signals = to.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            while matches!(reload.wait(&stop), Ok(true)) {
                let _ = of_signals.send(Note::Reload);
            }
            let _ = of_signals.send(Note::Stop);
        })?;
        thread::Builder::new().name("supervisor".into()).spawn(move || self.run(&to, &notes))
    }

    fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn run(mut self, to: &Sender<Note>, notes: &Receiver<Note>) {
        let mut running = BTreeMap::new();
        let wanted = (self.plan)(&self.config(), false);
        self.begin(&mut running, wanted, to);
        while self.lasts || !running.is_empty() {
            match notes.recv() {
                // One that was started anew meanwhile is not meant.
                Ok(Note::Ended { name, number, records }) if running.get(&name).is_some_and(|s| s.number == number) => {
                    self.ended(&mut running, &name, records, to);
                }
                Ok(Note::Ended { .. }) => {}
                Ok(Note::Reload) => self.reload(&mut running, to),
                Ok(Note::Stop) | Err(_) => break,
            }
        }
        for source in running.values() {
            source.ring.ring();
        }
        for source in running.into_values() {
            let _ = source.thread.join();
        }
        // Dropping `self.intake` lets the writer stop.
    }

    fn ended(&mut self, running: &mut BTreeMap<String, Running>, name: &str, records: u64, to: &Sender<Note>) {
        let Some(source) = running.remove(name) else { return };
        let _ = source.thread.join();
        if source.ends && records == 0 && running.is_empty() {
            // Nothing was piped in after all: the machine's own sources, if any are wanted.
            let wanted = (self.plan)(&self.config(), true).into_iter().filter(|wanted| !wanted.ends).collect();
            self.begin(running, wanted, to);
        }
    }

    fn begin(&mut self, running: &mut BTreeMap<String, Running>, wanted: Vec<Wanted<E>>, to: &Sender<Note>) {
        for wanted in wanted {
            self.lasts |= !wanted.ends;
            let name = wanted.name.clone();
            match self.start_source(wanted, to) {
                Ok(source) => drop(running.insert(name, source)),
                Err(error) => {
                    say(format_args!("{name}: no thread or file descriptor for it ({error}); it does not run"))
                }
            }
        }
    }

    fn start_source(&mut self, wanted: Wanted<E>, to: &Sender<Note>) -> std::io::Result<Running> {
        let (stop, ring) = Stop::by_hand()?;
        let status = self.sources.join(&wanted.name);
        let context = Context {
            intake: self.intake.clone(),
            stop,
            clock: self.clock,
            record_bytes_max: self.record_bytes_max,
            cursors: Arc::clone(&self.cursors),
            status: Arc::clone(&status),
        };
        self.started = self.started.saturating_add(1);
        let number = self.started;
        let (to, sources, name) = (to.clone(), self.sources.clone(), wanted.name.clone());
        let thread = thread::Builder::new().name(wanted.name.chars().take(15).collect()).spawn(move || {
            (wanted.run)(context);
            let report = status.report();
            if report.works {
                sources.leave(&status); // else it is shown why it does not run
            }
            let _ = to.send(Note::Ended { name, number, records: report.records });
        })?;
        Ok(Running { settings: wanted.settings, ends: wanted.ends, number, ring, thread })
    }

    fn reload(&mut self, running: &mut BTreeMap<String, Running>, to: &Sender<Note>) {
        let loaded = match Loaded::load(&self.request) {
            Ok(loaded) => loaded,
            Err(problems) => {
                say(format_args!("reload: nothing changed, because of this:\n{}", report(&problems)));
                return;
            }
        };
        let changes = changed(&self.config(), &loaded.config);
        for change in &changes {
            say(format_args!("reload: {change}"));
        }
        if changes.is_empty() {
            say("reload: nothing changed");
        }
        let _ = self.events.send(Event::Policy(Box::new(loaded.config.policy())));
        let wanted = (self.plan)(&loaded.config, false);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = loaded.config;
        let stays = |name: &String, source: &Running| {
            source.ends || wanted.iter().any(|wanted| wanted.name == *name && wanted.settings == source.settings)
        };
        let leaving: Vec<String> = running.iter().filter(|(n, s)| !stays(n, s)).map(|(n, _)| n.clone()).collect();
        for name in &leaving {
            if let Some(source) = running.remove(name) {
                source.ring.ring();
                let _ = source.thread.join();
            }
        }
        self.refresh_cursors();
        let new = wanted.into_iter().filter(|wanted| !wanted.ends && !running.contains_key(&wanted.name)).collect();
        self.begin(running, new, to);
    }

    /// What sources have read so far becomes durable, and with it where they left off.
    fn refresh_cursors(&mut self) {
        let cursors = self.handle.checkpoint().and_then(|_| self.handle.look(cursors_of));
        match cursors {
            Ok(cursors) => self.cursors = cursors,
            Err(_) => say("reload: the node is stopping"),
        }
    }
}

/// Where sources left off when a store was opened.
#[must_use]
pub fn cursors_of_store<S: Storage, A: Arena>(store: &Store<'_, S, A>) -> Cursors {
    let entries = store.catalog().state().iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
    Arc::new(entries.collect())
}

/// Where sources have left off by now.
fn cursors_of(view: &View<'_, '_>) -> Cursors {
    let entries = view.catalog.state().iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
    Arc::new(entries.collect())
}
