//! Waiting until somebody writes to a store.
//!
//! Invariants: no change of a file is missed, whatever happens between two waits; where the system tells nothing (a
//! device, another machine's file), it is looked at again when a short time is over.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;

/// How long nobody looks where the system does not tell of changes.
const BLIND: Duration = Duration::from_millis(500);

/// Watches a file for writes.
#[derive(Debug)]
pub(crate) struct Watch(Option<OwnedFd>);

impl Watch {
    /// Begins to watch; from now on nothing is missed.
    pub(crate) fn new(path: &Path) -> Self {
        let watch = || {
            let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            add_watch(&fd, path, WatchFlags::MODIFY)?;
            Ok::<_, Errno>(fd)
        };
        // A device is written to by its own driver too: there, events tell of other processes' writes alone.
        let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
        Self(is_file.then(watch).and_then(Result::ok))
    }

    /// Waits for a write since the last wait; `false` if there was none in that time.
    pub(crate) fn wait(&mut self, patience: Duration) -> io::Result<bool> {
        let limit = if self.0.is_some() { patience } else { patience.min(BLIND) };
        let limit = Timespec::try_from(limit).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let Some(fd) = &self.0 else {
            poll(&mut [], Some(&limit)).or_else(interrupted)?;
            return Ok(true);
        };
        let ready = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)).or_else(interrupted)?;
        if ready > 0 {
            // One look sees all that was written until now.
            let mut events = [0; 4096];
            while rustix::io::read(fd, &mut events).is_ok_and(|n| n > 0) {}
        }
        Ok(ready > 0)
    }
}

fn interrupted(errno: Errno) -> Result<usize, Errno> {
    if errno == Errno::INTR { Ok(0) } else { Err(errno) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_write_ends_the_wait_also_if_it_came_before() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut watch = Watch::new(file.path());
        assert!(!watch.wait(Duration::ZERO).unwrap());
        file.write_all(b"x").unwrap();
        assert!(watch.wait(Duration::from_secs(60)).unwrap());
        assert!(!watch.wait(Duration::ZERO).unwrap());
    }

    #[test]
    fn what_cannot_be_watched_is_looked_at_again() {
        let mut watch = Watch::new(Path::new("/nonexistent"));
        assert!(watch.wait(Duration::ZERO).unwrap());
    }
}
