//! A look at the running node, taken on the writer's thread.
//!
//! Invariant: a look copies what it needs and returns at once; the writer waits for nobody.

use std::fmt;

use crossbeam_channel::{Sender, bounded};
use lastgasp_core::catalog::Catalog;
use lastgasp_core::error::ReadOnlyReason;
use lastgasp_core::node::Class;
use lastgasp_core::store::Stats;

use crate::parcel::{Answer, Parcel, Reply};
use crate::policy::StreamCount;
use crate::queue::{Closed, Event};

/// What can be seen.
#[derive(Debug)]
pub struct View<'a, 'm> {
    /// Segments, gaps, streams, clocks, states.
    pub catalog: &'a Catalog<'m>,
    /// What the store did in this run.
    pub stats: Stats,
    /// Everything up to this number is durable.
    pub durable_upto: u64,
    /// The number the next record gets.
    pub next_seq: u64,
    /// How many records may be acknowledged before they are durable, once the next commit is.
    pub volatile_bound: u32,
    /// Up to this number they may be by now.
    pub ram_limit: u64,
    /// Bytes of memtable in use, and there are.
    pub memtable_bytes: (usize, usize),
    /// Why the store takes no more writes, if so.
    pub read_only: Option<ReadOnlyReason>,
    /// What a sync takes lately, in microseconds.
    pub sync_us: u64,
    /// Now, by the clock of the run.
    pub now_us: u64,
    /// Records dropped in this run.
    pub dropped: u64,
    /// What each stream brought in this run, by stream number.
    pub streams: &'a [StreamCount],
}

/// A look that is waiting for the writer.
pub struct Look(Box<dyn FnOnce(&View<'_, '_>) + Send>);

impl Look {
    /// Takes the look.
    pub fn take(self, view: &View<'_, '_>) {
        (self.0)(view);
    }
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look")
    }
}

/// Asks the writer, from any thread. Unlike a source's end of the queue it does not keep the node running.
#[derive(Debug)]
pub struct Handle<E> {
    events: Sender<Event<E>>,
}

impl<E> Clone for Handle<E> {
    fn clone(&self) -> Self {
        Self { events: self.events.clone() }
    }
}

impl<E> Handle<E> {
    /// A handle that puts its questions into `events`.
    #[must_use]
    pub fn new(events: Sender<Event<E>>) -> Self {
        Self { events }
    }

    /// What `see` makes of a look at the node; waits for it.
    ///
    /// # Errors
    /// The writer has gone.
    pub fn look<T: Send + 'static>(&self, see: impl FnOnce(&View<'_, '_>) -> T + Send + 'static) -> Result<T, Closed> {
        let (to, seen) = bounded(1);
        let look = Look(Box::new(move |view| {
            let _ = to.try_send(see(view));
        }));
        self.events.send(Event::Look(look)).map_err(|_| Closed)?;
        seen.recv().map_err(|_| Closed)
    }

    /// Has `see` look at the node as soon as the writer gets to it, and does not wait. If the writer goes before that,
    /// it is dropped.
    ///
    /// # Errors
    /// The writer has gone.
    pub fn look_later(&self, see: impl FnOnce(&View<'_, '_>) + Send + 'static) -> Result<(), Closed> {
        self.events.send(Event::Look(Look(Box::new(see)))).map_err(|_| Closed)
    }

    /// Makes everything durable that sources had sent before; returns its last number.
    ///
    /// # Errors
    /// The writer has gone, or its store takes no more writes.
    pub fn checkpoint(&self) -> Result<u64, Closed> {
        let (to, answers) = bounded(1);
        // An empty batch behind all that came before it.
        let mut parcel = Parcel::default();
        parcel.class = Some(Class::Each);
        parcel.end_batch(Some(Reply::new(to, 0)));
        self.events.send(Event::Parcel(parcel)).map_err(|_| Closed)?;
        match answers.recv() {
            Ok((_, Answer::Durable { last_seq, .. })) => Ok(last_seq),
            _ => Err(Closed),
        }
    }
}
