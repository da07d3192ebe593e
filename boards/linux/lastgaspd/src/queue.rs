//! The bounded queue between sources and the writer.
//!
//! Invariants: there is a fixed number of parcels, made once and recycled, so memory is bounded and a source that is
//! faster than the medium waits for one: that wait is the one back-pressure rule of all sources. A source that can
//! wait for ever uses [`Intake::parcel`]; one whose senders cannot uses [`Intake::parcel_or_stall`] and counts what it
//! drops. Parcels of one source arrive in its order. The writer hears when the last source has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use lastgasp_core::gaps::GapCause;

use crate::config::Limits;
use crate::drops::Drops;
use crate::parcel::Parcel;
use crate::policy::Policy;
use crate::view::Look;

/// What the writer is told.
pub enum Event<E> {
    /// Records have come.
    Parcel(Parcel),
    /// A sync has ended.
    Synced(Result<(), E>),
    /// A source has ended.
    SourceEnded,
    /// Somebody wants to look at the node.
    Look(Look),
    /// The rules have changed.
    Policy(Box<Policy>),
}

/// The writer has gone; there is nobody to take records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// Why there is no parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoParcel {
    /// The writer has not taken anything for so long that senders are not to wait any more: drop, and count it by
    /// [`Intake::dropped`].
    Stalled,
    /// The writer has gone.
    Closed,
}

impl From<Closed> for NoParcel {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// A source's end of the queue. Dropping it says that the source has ended.
#[derive(Debug)]
pub struct Intake<E> {
    free: Receiver<Parcel>,
    events: Sender<Event<E>>,
    shared: Arc<Shared>,
}

/// What all ends of a queue share.
#[derive(Debug, Default)]
struct Shared {
    sources: AtomicUsize,
    /// So long senders that cannot wait for ever are held up.
    stall_us: AtomicU64,
    /// A source has waited in vain, and no parcel was free since.
    stalled: AtomicBool,
    drops: Drops,
}

impl<E> Intake<E> {
    /// An empty parcel; waits until the writer has one to spare.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn parcel(&self) -> Result<Parcel, Closed> {
        self.free.recv().map_err(|_| Closed)
    }

    /// An empty parcel; waits for at most the time of [`Queue::set_stall`], and not at all while a source has waited so
    /// long in vain and no parcel was free since: senders are held up once, not once for every record.
    ///
    /// # Errors
    /// [`NoParcel`].
    pub fn parcel_or_stall(&self) -> Result<Parcel, NoParcel> {
        let stall = Duration::from_micros(self.shared.stall_us.load(Ordering::SeqCst));
        let wait = if self.shared.stalled.load(Ordering::SeqCst) { Duration::ZERO } else { stall };
        match self.free.recv_timeout(wait) {
            Ok(parcel) => {
                self.shared.stalled.store(false, Ordering::SeqCst);
                Ok(parcel)
            }
            Err(RecvTimeoutError::Timeout) => {
                self.shared.stalled.store(true, Ordering::SeqCst);
                Err(NoParcel::Stalled)
            }
            Err(RecvTimeoutError::Disconnected) => Err(NoParcel::Closed),
        }
    }

    /// Hands a parcel to the writer.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn send(&self, parcel: Parcel) -> Result<(), Closed> {
        self.events.send(Event::Parcel(parcel)).map_err(|_| Closed)
    }

    /// Counts records that this source had to drop; they become a gap.
    pub fn dropped(&self, stream: &str, cause: GapCause, records: u64, now_us: u64) {
        self.shared.drops.count(stream, cause, records, now_us);
    }
}

impl<E> Clone for Intake<E> {
    /// Another source's end.
    fn clone(&self) -> Self {
        self.shared.sources.fetch_add(1, Ordering::SeqCst);
        Self { free: self.free.clone(), events: self.events.clone(), shared: Arc::clone(&self.shared) }
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
    shared: Arc<Shared>,
}

impl<E> Queue<E> {
    /// A queue of so many parcels, for all sources together; a stall holds senders up as long as [`Limits`] has it.
    #[must_use]
    pub fn new(parcels: usize) -> Self {
        let free = bounded(parcels);
        for _ in 0..parcels {
            let _ = free.0.send(Parcel::default());
        }
        // Not bounded by itself: there are only so many parcels, one sync, the ends of the sources, and a few that
        // look.
        let queue = Self { free, events: unbounded(), shared: Arc::default() };
        queue.set_stall(Limits::default().stall);
        queue
    }

    /// So long a medium that does not answer holds up senders that cannot wait for ever; from now on.
    pub fn set_stall(&self, stall: Duration) {
        self.shared.stall_us.store(u64::try_from(stall.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// A new source's end.
    pub fn intake(&self) -> Intake<E> {
        self.shared.sources.fetch_add(1, Ordering::SeqCst);
        Intake { free: self.free.1.clone(), events: self.events.0.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Where the result of a sync is put in.
    #[must_use]
    pub fn events(&self) -> Sender<Event<E>> {
        self.events.0.clone()
    }

    /// What the sources had to drop.
    #[must_use]
    pub fn drops(&self) -> &Drops {
        &self.shared.drops
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
            self.shared.sources.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// All sources have ended, and all they sent was taken from here.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.sources.load(Ordering::SeqCst) == 0
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
                assert!(parcel.bytes.is_empty() && parcel.is_empty(), "recycled clean");
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
    fn a_stall_holds_senders_up_once_and_is_over_when_a_parcel_is_free() {
        let queue: Queue<()> = Queue::new(1);
        let intake = queue.intake();
        queue.set_stall(Duration::from_millis(1));
        let parcel = intake.parcel_or_stall().unwrap();
        assert_eq!(intake.parcel_or_stall().err(), Some(NoParcel::Stalled));
        // Would wait for an hour if the stall were not known.
        queue.set_stall(Duration::from_secs(3600));
        assert_eq!(intake.parcel_or_stall().err(), Some(NoParcel::Stalled));
        queue.recycle(parcel);
        assert!(intake.parcel_or_stall().is_ok());
        intake.dropped("s", GapCause::Overload, 3, 7);
        assert_eq!(queue.drops().total(), 3);
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
