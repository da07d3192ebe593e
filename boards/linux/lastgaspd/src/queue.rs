//! The bounded queue between sources and the writer.
//!
//! Invariants: there is a fixed number of parcels, made once and recycled, so memory is bounded and a source that is
//! faster than the medium waits in [`Intake::parcel`]: that wait is the one back-pressure rule of all sources. Parcels
//! of one source arrive in its order. The writer hears when the last source has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use lastgasp_core::node::Class;

/// A recycled parcel keeps this much memory; more is given back to the system.
const KEPT_BYTES: usize = 256 << 10;

/// Where a record lies in its parcel, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// First byte of its body in [`Parcel::bytes`].
    pub start: usize,
    /// One after its last byte.
    pub end: usize,
    /// It goes on in the next record.
    pub continued: bool,
    /// Severity, 1 to 24; 0 if the source does not know.
    pub severity: u8,
}

/// Records on their way to the writer: each is a batch of its own.
#[derive(Debug)]
pub struct Parcel {
    /// Name of their stream.
    pub stream: Arc<str>,
    /// What triggers their commit.
    pub class: Class,
    /// When they were read, by the clock of the run.
    pub received_us: u64,
    /// Their bodies, and what lies between.
    pub bytes: Vec<u8>,
    /// Where each is.
    pub slots: Vec<Slot>,
}

impl Parcel {
    fn new() -> Self {
        Self { stream: Arc::from(""), class: Class::Group, received_us: 0, bytes: Vec::new(), slots: Vec::new() }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.slots.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.slots.shrink_to(KEPT_BYTES / size_of::<Slot>());
    }
}

/// What the writer is told.
#[derive(Debug)]
pub enum Event<E> {
    /// Records have come.
    Parcel(Parcel),
    /// A sync has ended.
    Synced(Result<(), E>),
    /// A source has ended.
    SourceEnded,
}

/// The writer has gone; there is nobody to take records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// A source's end of the queue. Dropping it says that the source has ended.
#[derive(Debug)]
pub struct Intake<E> {
    free: Receiver<Parcel>,
    events: Sender<Event<E>>,
}

impl<E> Intake<E> {
    /// An empty parcel; waits until the writer has one to spare.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn parcel(&self) -> Result<Parcel, Closed> {
        self.free.recv().map_err(|_| Closed)
    }

    /// Hands a parcel to the writer.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn send(&self, parcel: Parcel) -> Result<(), Closed> {
        self.events.send(Event::Parcel(parcel)).map_err(|_| Closed)
    }
}

impl<E> Drop for Intake<E> {
    fn drop(&mut self) {
        let _ = self.events.send(Event::SourceEnded);
    }
}

/// The writer's end of the queue.
#[derive(Debug)]
pub struct Queue<E> {
    free: (Sender<Parcel>, Receiver<Parcel>),
    events: (Sender<Event<E>>, Receiver<Event<E>>),
    sources: AtomicUsize,
}

impl<E> Queue<E> {
    /// A queue of so many parcels, for all sources together.
    #[must_use]
    pub fn new(parcels: usize) -> Self {
        let free = bounded(parcels);
        for _ in 0..parcels {
            let _ = free.0.send(Parcel::new());
        }
        // Not bounded by itself: there are only so many parcels, one sync, and the ends of the sources.
        Self { free, events: unbounded(), sources: AtomicUsize::new(0) }
    }

    /// A new source's end.
    pub fn intake(&self) -> Intake<E> {
        self.sources.fetch_add(1, Ordering::SeqCst);
        Intake { free: self.free.1.clone(), events: self.events.0.clone() }
    }

    /// Where the result of a sync is put in.
    #[must_use]
    pub fn events(&self) -> Sender<Event<E>> {
        self.events.0.clone()
    }

    /// The next event that is there already.
    #[must_use]
    pub fn try_next(&self) -> Option<Event<E>> {
        self.events.1.try_recv().ok().inspect(|e| self.note(e))
    }

    /// The next event; `None` if there is none until `deadline`.
    #[must_use]
    pub fn next(&self, deadline: Option<Instant>) -> Option<Event<E>> {
        let event = match deadline {
            Some(deadline) => self.events.1.recv_deadline(deadline),
            None => self.events.1.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        event.ok().inspect(|e| self.note(e))
    }

    /// There is no event now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.1.is_empty()
    }

    fn note(&self, event: &Event<E>) {
        if matches!(event, Event::SourceEnded) {
            self.sources.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// All sources have ended, and all they sent was taken from here.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.sources.load(Ordering::SeqCst) == 0
    }

    /// Takes a parcel back when its records are with the node.
    pub fn recycle(&self, mut parcel: Parcel) {
        parcel.clear();
        let _ = self.free.0.try_send(parcel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_fast_source_waits_for_the_writer_and_its_end_comes_last() {
        let queue: Queue<()> = Queue::new(2);
        let intake = queue.intake();
        let source = thread::spawn(move || {
            for i in 0..100u8 {
                let mut parcel = intake.parcel().unwrap();
                assert!(parcel.bytes.is_empty() && parcel.slots.is_empty(), "recycled clean");
                parcel.bytes.push(i);
                intake.send(parcel).unwrap();
            }
        });
        let mut got = Vec::new();
        let mut buffers = std::collections::BTreeSet::new();
        while !queue.has_ended() {
            if let Some(Event::Parcel(parcel)) = queue.next(None) {
                got.extend_from_slice(&parcel.bytes);
                buffers.insert(parcel.bytes.as_ptr() as usize);
                queue.recycle(parcel);
            }
        }
        source.join().unwrap();
        assert_eq!(got, (0..100).collect::<Vec<u8>>());
        assert!(buffers.len() <= 2, "memory is recycled");
    }

    #[test]
    fn sources_hear_that_the_writer_has_gone() {
        let queue: Queue<()> = Queue::new(1);
        let intake = queue.intake();
        let parcel = intake.parcel().unwrap();
        drop(queue);
        assert_eq!(intake.send(parcel), Err(Closed));
        assert_eq!(intake.parcel().err(), Some(Closed));
    }
}
