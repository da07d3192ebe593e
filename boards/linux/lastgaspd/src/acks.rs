//! Acknowledgements on standard output: `ack N` when everything up to record N is durable.
//!
//! Invariants: a number is printed after its sync and never before; numbers rise; each line is flushed at once; when
//! the reader is slow the newest number stands for those before it, and the writer does not wait for it; a reader that
//! has gone costs the acknowledgements and nothing else.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::say;
use crate::writer::Listener;

/// What the two threads share.
#[derive(Debug)]
struct Shared<W> {
    /// Everything up to here is durable.
    upto: AtomicU64,
    done: AtomicBool,
    output: Mutex<Output<W>>,
}

#[derive(Debug)]
struct Output<W> {
    out: W,
    /// The last number printed.
    printed: u64,
    broken: bool,
}

impl<W: Write + AsFd> Output<W> {
    /// Prints the newest number, if it is not there yet.
    fn print(&mut self, upto: u64) {
        if upto <= self.printed || self.broken {
            return;
        }
        self.printed = upto;
        let line = format!("ack {upto}\n");
        if let Err(error) = self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush()) {
            self.broken = true;
            say(format_args!("acknowledgements can no longer be printed ({error}); records are kept all the same"));
        }
    }

    /// A line can be written without waiting: a pipe that polls as writable has room for 4096 bytes.
    fn is_ready(&self) -> bool {
        let mut fds = [PollFd::new(&self.out, PollFlags::OUT)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let [fd] = fds;
        matches!(ready, Ok(1)) && fd.revents() == PollFlags::OUT
    }
}

/// The writer's end: says what is durable.
#[derive(Debug)]
pub struct Acks<W> {
    shared: Option<Arc<Shared<W>>>,
    printer: Option<Printer>,
    upto: u64,
}

/// The thread that waits for a slow reader.
#[derive(Debug)]
struct Printer {
    thread: Thread,
    /// Closed when it has ended.
    ended: Receiver<()>,
}

impl<W: Write + AsFd + Send + 'static> Acks<W> {
    /// Prints to `out`, beginning with the first number above `durable_upto`.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn print_to(out: W, durable_upto: u64) -> io::Result<Self> {
        let output = Mutex::new(Output { out, printed: durable_upto, broken: false });
        let shared = Shared { upto: AtomicU64::new(durable_upto), done: AtomicBool::new(false), output };
        let shared = Arc::new(shared);
        let of_printer = Arc::clone(&shared);
        let (until_end, ended) = bounded(0);
        let printer = thread::Builder::new().name("acks".into()).spawn(move || {
            let _until_end: Sender<()> = until_end;
            print(&of_printer);
        })?;
        let printer = Printer { thread: printer.thread().clone(), ended };
        Ok(Self { shared: Some(shared), printer: Some(printer), upto: durable_upto })
    }

    /// Prints nothing.
    #[must_use]
    pub fn nobody() -> Self {
        Self { shared: None, printer: None, upto: 0 }
    }

    fn wake(&self) {
        if let Some(printer) = &self.printer {
            printer.thread.unpark();
        }
    }

    /// Waits until the last number is printed, nobody reads any more, or `patience` is over.
    pub fn finish(self, patience: Option<Duration>) {
        if let Some(shared) = &self.shared {
            shared.done.store(true, Ordering::SeqCst);
        }
        self.wake();
        let Some(printer) = self.printer else { return };
        let ended = match patience {
            Some(patience) => printer.ended.recv_timeout(patience),
            None => printer.ended.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if ended == Err(RecvTimeoutError::Timeout) {
            say(format_args!("nobody read the last acknowledgement (ack {}); it is kept all the same", self.upto));
        }
    }
}

impl<W: Write + AsFd + Send + 'static> Listener for Acks<W> {
    fn durable(&mut self, upto: u64) {
        let Some(shared) = self.shared.as_ref().filter(|_| upto > self.upto) else { return };
        self.upto = upto;
        shared.upto.store(upto, Ordering::SeqCst);
        match shared.output.try_lock() {
            Ok(output) if output.broken => {}
            Ok(mut output) if output.is_ready() => output.print(upto),
            // The reader is slow: the printer waits for it.
            _ => self.wake(),
        }
    }
}

/// Prints what the writer could not print at once.
fn print<W: Write + AsFd>(shared: &Shared<W>) {
    loop {
        // In this order: what was durable before the end was announced is seen.
        let done = shared.done.load(Ordering::SeqCst);
        let upto = shared.upto.load(Ordering::SeqCst);
        let mut output = shared.output.lock().unwrap_or_else(PoisonError::into_inner);
        let is_behind = upto > output.printed && !output.broken;
        output.print(upto);
        drop(output);
        match (is_behind, done) {
            (true, _) => {}
            (false, true) => return,
            (false, false) => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    #[test]
    fn numbers_rise_and_the_last_one_comes() {
        let (out, reader) = UnixStream::pair().unwrap();
        let reading = thread::spawn(move || -> Vec<u64> {
            let number = |line: String| line.strip_prefix("ack ").unwrap().parse().unwrap();
            BufReader::new(reader).lines().map(|line| number(line.unwrap())).collect()
        });
        let mut acks = Acks::print_to(out, 5).unwrap();
        acks.durable(5);
        for n in 6..=5000 {
            acks.durable(n);
        }
        acks.durable(7);
        acks.finish(None);
        let numbers = reading.join().unwrap();
        assert!(numbers.is_sorted() && numbers[0] > 5, "{numbers:?}");
        assert_eq!(numbers.last(), Some(&5000));
    }

    #[test]
    fn a_reader_that_is_slow_gets_the_newest_and_holds_nobody_up() {
        let (out, reader) = UnixStream::pair().unwrap();
        let mut acks = Acks::print_to(out, 0).unwrap();
        for n in 1..=100_000 {
            acks.durable(n); // far more than the socket has room for
        }
        let reading = thread::spawn(move || BufReader::new(reader).lines().map_while(Result::ok).collect::<Vec<_>>());
        acks.finish(None);
        let lines = reading.join().unwrap();
        assert_eq!(lines.last().map(String::as_str), Some("ack 100000"));
        assert!(lines.len() < 90_000, "{} lines", lines.len());
    }

    #[test]
    fn patience_with_a_reader_that_never_reads_ends() {
        let (out, reader) = UnixStream::pair().unwrap();
        let mut acks = Acks::print_to(out, 0).unwrap();
        for n in 1..=100_000 {
            acks.durable(n);
        }
        acks.finish(Some(Duration::from_millis(1)));
        drop(reader);
    }

    #[test]
    fn a_reader_that_has_gone_stops_nothing() {
        let (out, reader) = UnixStream::pair().unwrap();
        drop(reader);
        let mut acks = Acks::print_to(out, 0).unwrap();
        acks.durable(1);
        acks.durable(2);
        acks.finish(None);
    }
}
