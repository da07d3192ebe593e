//! Signals: the orderly stop by SIGTERM and SIGINT, and SIGHUP for a new configuration.
//!
//! Invariants: the first SIGTERM or SIGINT asks every source to end, and nothing else; a second one ends the process at
//! once with 128 and its number, also if every thread hangs; a source that waits for input wakes up.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::{flag, low_level};

/// Tells that a stop was asked for.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    /// Readable from the first signal on; nobody reads it.
    wake: Arc<UnixStream>,
}

impl Stop {
    /// Takes over SIGTERM and SIGINT for the whole process.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn on_signals() -> io::Result<Self> {
        let (wake, ring) = UnixStream::pair()?;
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset, sets it and rings; the second finds it set.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
            low_level::pipe::register(signal, ring.try_clone()?)?;
        }
        // A limit on the size of files is an error of a write like others, and no reason to die.
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self { asked, wake: Arc::new(wake) })
    }

    /// One that is rung by hand: of a source that is to end before the others.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn by_hand() -> io::Result<(Self, Ring)> {
        let (wake, ring) = UnixStream::pair()?;
        let stop = Self { asked: Arc::default(), wake: Arc::new(wake) };
        let asked = Arc::clone(&stop.asked);
        Ok((stop, Ring { asked, ring }))
    }

    /// A stop was asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Becomes readable when a stop is asked for, and stays so.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// SIGHUP: load the configuration again.
#[derive(Debug)]
pub struct Reload {
    wake: UnixStream,
}

impl Reload {
    /// Takes over SIGHUP for the whole process.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn on_signal() -> io::Result<Self> {
        let (wake, ring) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        low_level::pipe::register(SIGHUP, ring)?;
        Ok(Self { wake })
    }

    /// Waits for a reload (`true`) or a stop (`false`). Reloads asked for in the meantime are one.
    ///
    /// # Errors
    /// Waiting failed.
    pub fn wait(&self, stop: &Stop) -> io::Result<bool> {
        let stopped = stop.fd();
        loop {
            let mut fds = [PollFd::new(&stopped, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let [stop, reload] = fds;
            if !stop.revents().is_empty() {
                return Ok(false);
            }
            if !reload.revents().is_empty() {
                let mut asked = [0; 64];
                while matches!((&self.wake).read(&mut asked), Ok(1..)) {}
                return Ok(true);
            }
        }
    }
}

/// Rings a [`Stop`]: when told to, or when it is dropped.
#[derive(Debug)]
pub struct Ring {
    asked: Arc<AtomicBool>,
    ring: UnixStream,
}

impl Ring {
    /// Asks for the stop.
    pub fn ring(&self) {
        self.asked.store(true, Ordering::SeqCst);
        let _ = (&self.ring).write_all(b"!");
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.asked.store(true, Ordering::SeqCst); // and closing `ring` makes the other end readable
    }
}
