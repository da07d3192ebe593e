//! Wakes the thread that serves readers, without polling.
//!
//! Invariant: the writer pays for a system call only while a reader waits for more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::writer::Listener;

/// A bell that rings in the readers' thread. It is a [`Listener`]: the writer's step rings it when more is durable.
#[derive(Debug, Clone)]
pub struct Bell {
    shared: Arc<Shared>,
    upto: u64,
}

#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    /// Somebody waits for more to become durable.
    is_awaited: AtomicBool,
}

impl Bell {
    /// A new bell.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { shared: Arc::new(Shared { fd, is_awaited: AtomicBool::new(false) }), upto: 0 })
    }

    /// Rings.
    pub fn ring(&self) {
        // It can only fail when it has rung 2^64 times and nobody has come.
        let _ = rustix::io::write(&self.shared.fd, &1u64.to_ne_bytes());
    }

    /// Readable when it has rung.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }

    /// Quiet again.
    pub(super) fn hush(&self) {
        let mut rung = [0; 8];
        let _ = rustix::io::read(&self.shared.fd, &mut rung);
    }

    /// From now on the bell rings when more is durable, until it has.
    pub(super) fn await_more(&self) {
        self.shared.is_awaited.store(true, Ordering::SeqCst);
    }

    /// It has not rung since.
    pub(super) fn is_awaited(&self) -> bool {
        self.shared.is_awaited.load(Ordering::SeqCst)
    }
}

impl Listener for Bell {
    fn durable(&mut self, upto: u64) {
        if upto > self.upto {
            self.upto = upto;
            if self.shared.is_awaited.swap(false, Ordering::SeqCst) {
                self.ring();
            }
        }
    }
}

/// Two that listen.
impl<A: Listener, B: Listener> Listener for (A, B) {
    fn durable(&mut self, upto: u64) {
        self.0.durable(upto);
        self.1.durable(upto);
    }
}
