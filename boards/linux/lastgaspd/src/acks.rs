//! Acknowledgements on standard output: `ack N` when everything up to record N is durable.
//!
//! Invariants: a number is printed after its sync and never before; numbers rise; each line is flushed at once; when the
//! reader is slow the newest number stands for those before it; a reader that has gone costs the acknowledgements and
//! nothing else.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::say;

#[derive(Debug, Default)]
struct Shared {
    upto: AtomicU64,
    done: AtomicBool,
}

/// The writer's end: says what is durable.
#[derive(Debug)]
pub struct Acks {
    shared: Arc<Shared>,
    printer: Option<JoinHandle<()>>,
    upto: u64,
}

impl Acks {
    /// Prints to `out` from a thread of its own, beginning with the first number above `durable_upto`.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn print_to(out: impl Write + Send + 'static, durable_upto: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared { upto: AtomicU64::new(durable_upto), done: AtomicBool::new(false) });
        let of_printer = Arc::clone(&shared);
        let printer = thread::Builder::new()
            .name("acks".into())
            .spawn(move || print(&of_printer, out, durable_upto))
            .map(Some)?;
        Ok(Self { shared, printer, upto: durable_upto })
    }

    /// Prints nothing.
    #[must_use]
    pub fn nobody() -> Self {
        Self { shared: Arc::default(), printer: None, upto: 0 }
    }

    /// Everything up to here is durable.
    pub fn durable(&mut self, upto: u64) {
        if upto > self.upto {
            self.upto = upto;
            self.shared.upto.store(upto, Ordering::SeqCst);
            if let Some(printer) = &self.printer {
                printer.thread().unpark();
            }
        }
    }

    /// Waits until the last number is printed, or nobody reads any more.
    pub fn finish(mut self) {
        self.shared.done.store(true, Ordering::SeqCst);
        if let Some(printer) = self.printer.take() {
            printer.thread().unpark();
            let _ = printer.join();
        }
    }
}

fn print(shared: &Shared, mut out: impl Write, mut printed: u64) {
    loop {
        // In this order: what was durable before the end was announced is seen.
        let done = shared.done.load(Ordering::SeqCst);
        let upto = shared.upto.load(Ordering::SeqCst);
        if upto > printed {
            printed = upto;
            let line = format!("ack {upto}\n");
            if let Err(error) = out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
                say(format_args!("acknowledgements can no longer be printed ({error}); records are kept all the same"));
                return;
            }
        } else if done {
            return;
        } else {
            thread::park();
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
        let mut acks = Acks::print_to(out, 5).unwrap();
        acks.durable(5);
        for n in 6..=5000 {
            acks.durable(n);
        }
        acks.durable(7);
        acks.finish();
        let numbers: Vec<u64> =
            BufReader::new(reader).lines().map(|l| l.unwrap().strip_prefix("ack ").unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted() && numbers[0] > 5, "{numbers:?}");
        assert_eq!(numbers.last(), Some(&5000));
    }

    #[test]
    fn a_reader_that_has_gone_stops_nothing() {
        let (out, reader) = UnixStream::pair().unwrap();
        drop(reader);
        let mut acks = Acks::print_to(out, 0).unwrap();
        acks.durable(1);
        acks.durable(2);
        acks.finish();
    }
}
