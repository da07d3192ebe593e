//! The journalctl that reads the journal for us.
//!
//! Invariants: it is ended and reaped when dropped; when this process dies it ends by itself, for its output is closed;
//! reading never delays a stop; what it says on stderr is read before the entries that came after it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};

use crate::stop::Stop;

/// So much of what it says is kept.
const SAID_BYTES_MAX: usize = 4 << 10;
/// Read at once at most.
pub(super) const READ_BYTES: usize = 64 << 10;

/// What waiting for output gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The end of its output.
    End,
    /// A stop was asked for.
    Stopped,
}

/// A running journalctl.
#[derive(Debug)]
pub(super) struct Journalctl {
    child: Child,
    out: ChildStdout,
    err: Option<ChildStderr>,
    said: Vec<u8>,
}

impl Journalctl {
    /// Starts it on a directory, or on the journal of the machine.
    pub(super) fn start(program: &Path, directory: Option<&Path>, arguments: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["--no-pager", "--output=export"]);
        if let Some(directory) = directory {
            command.arg("--directory").arg(directory);
        }
        // Its words are looked at for what is missing: in one language.
        command.args(arguments).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let out = out.ok_or_else(|| io::Error::other("it has no output"))?;
        Ok(Self { child, out, err, said: Vec::new() })
    }

    /// Waits for output, for ever or not at all.
    pub(super) fn next(&mut self, into: &mut [u8], may_wait: bool, stop: &Stop) -> Got {
        let stopped = stop.fd();
        loop {
            // Without stderr, the output twice: there is nothing else to wait for.
            let err = self.err.as_ref().map_or(self.out.as_fd(), AsFd::as_fd);
            let fds = [stopped, err, self.out.as_fd()];
            let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match poll(&mut fds, (!may_wait).then_some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(0) => return Got::Nothing,
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return Got::End,
            }
            let [stop, err, out] = fds.map(|fd| !fd.revents().is_empty());
            if stop {
                return Got::Stopped;
            }
            if err && self.err.is_some() {
                self.listen();
                continue;
            }
            if out {
                match read(&self.out, &mut *into) {
                    Ok(0) => return Got::End,
                    Ok(bytes) => return Got::Bytes(bytes),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(_) => return Got::End,
                }
            }
        }
    }

    fn listen(&mut self) {
        let mut words = [0; 1024];
        let got = self.err.as_ref().map_or(Ok(0), |err| read(err, &mut words));
        match got {
            Ok(0) => self.err = None,
            Ok(bytes) => {
                let room = SAID_BYTES_MAX.saturating_sub(self.said.len());
                let words = words.get(..bytes.min(room)).unwrap_or_default();
                self.said.extend_from_slice(words);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.err = None,
        }
    }

    /// All of its output, up to a size; none if a stop was asked for.
    pub(super) fn collect(mut self, bytes_max: usize, stop: &Stop) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 4096];
        while all.len() < bytes_max {
            match self.next(&mut buffer, true, stop) {
                Got::Bytes(bytes) => all.extend_from_slice(buffer.get(..bytes).unwrap_or_default()),
                Got::End => break,
                Got::Nothing => {}
                Got::Stopped => return None,
            }
        }
        Some(all)
    }

    /// What it said on stderr.
    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said).trim().to_owned()
    }

    /// Waits for its end, which its end of output announced.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        // What it said last.
        while self.err.is_some() {
            self.listen();
        }
        self.child.wait()
    }
}

impl Drop for Journalctl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits; `true` if a stop was asked for.
pub(super) fn pause(stop: &Stop, time: Duration) -> bool {
    let time =
        Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) };
    let stopped = stop.fd();
    let _ = poll(&mut [PollFd::new(&stopped, PollFlags::IN)], Some(&time));
    stop.is_asked()
}
