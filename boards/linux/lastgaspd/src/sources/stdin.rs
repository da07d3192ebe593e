//! Lines of standard input, each one record.
//!
//! Invariants: the bodies of the records, each followed by a newline (but the parts of a long line, which are joined),
//! are the input, byte for byte, whatever is in it; a last line without a newline counts, but if a stop cuts it off it
//! is a part that says so; an empty line is a record;
//! memory is bounded by the largest record, however long a line is; waiting for input never delays a stop.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use lastgasp_core::node::Class;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};

use crate::parcel::{Parcel, Slot};
use crate::queue::{Closed, Intake};
use crate::sources::Context;
use crate::stop::Stop;

/// Read at once at most.
const READ_BYTES: usize = 64 << 10;

/// What the lines become.
#[derive(Debug, Clone)]
pub struct Lines {
    /// Name of their stream.
    pub stream: Arc<str>,
    /// What triggers their commit; if not set, the policy of the node.
    pub class: Option<Class>,
    /// A longer line is kept in parts of this size, all but the last marked as continued.
    pub record_bytes_max: usize,
}

/// Why reading has ended.
#[derive(Debug)]
pub enum Ended {
    /// There is no more.
    EndOfInput,
    /// A stop was asked for.
    Stopped,
    /// The writer has gone.
    Closed,
    /// Reading failed.
    Failed(io::Error),
}

/// Reads lines until the end, a stop or an error. Everything read before is handed over, a line without its end too.
pub fn run<F: AsFd, E>(input: F, lines: &Lines, context: &Context<E>) -> Ended {
    let Context { intake, stop, clock, status, .. } = context;
    status.works("reading");
    let mut buffer = vec![0; READ_BYTES].into_boxed_slice();
    let mut cutter = match Cutter::new(lines, intake) {
        Ok(cutter) => cutter,
        Err(Closed) => return Ended::Closed,
    };
    let ended = loop {
        match wait(&input, stop) {
            Ok(true) => {}
            Ok(false) => break Ended::Stopped,
            Err(errno) => break Ended::Failed(errno.into()),
        }
        let got = match read(&input, &mut *buffer) {
            Ok(0) => break Ended::EndOfInput,
            Ok(got) => got,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => break Ended::Failed(errno.into()),
        };
        let chunk = buffer.get(..got).unwrap_or_default();
        match cutter.take(chunk, clock.now_us()) {
            Ok(records) => status.read(records),
            Err(Closed) => return Ended::Closed,
        }
    };
    // Only the end of the input makes a line of what has no newline; on a stop, its writer may not be done with it.
    match cutter.finish(clock.now_us(), !matches!(ended, Ended::EndOfInput)) {
        Ok(records) => {
            status.read(records);
            ended
        }
        Err(Closed) => Ended::Closed,
    }
}

/// Waits until there is something to read (`true`) or a stop was asked for.
fn wait(input: &impl AsFd, stop: &Stop) -> Result<bool, Errno> {
    let stopped = stop.fd();
    loop {
        let mut fds = [PollFd::new(&stopped, PollFlags::IN), PollFd::new(input, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let [stop, input] = fds;
        if !stop.revents().is_empty() {
            return Ok(false);
        }
        // Errors and the far end's closing show in the read.
        if !input.revents().is_empty() {
            return Ok(true);
        }
    }
}

/// Cuts a stream of bytes into records.
struct Cutter<'a, E> {
    lines: &'a Lines,
    intake: &'a Intake<E>,
    parcel: Parcel,
    /// Where the line that has no end yet starts in the parcel.
    line: usize,
}

impl<'a, E> Cutter<'a, E> {
    fn new(lines: &'a Lines, intake: &'a Intake<E>) -> Result<Self, Closed> {
        Ok(Self { lines, intake, parcel: Self::fresh(lines, intake)?, line: 0 })
    }

    fn fresh(lines: &Lines, intake: &Intake<E>) -> Result<Parcel, Closed> {
        let mut parcel = intake.parcel()?;
        parcel.stream(&lines.stream);
        parcel.class = lines.class;
        Ok(parcel)
    }

    /// Takes bytes in, and hands over the records that are complete; how many these are.
    fn take(&mut self, chunk: &[u8], now_us: u64) -> Result<u64, Closed> {
        let before = self.parcel.bytes.len();
        self.parcel.bytes.extend_from_slice(chunk);
        for newline in memchr::memchr_iter(b'\n', chunk) {
            let end = before.saturating_add(newline);
            self.cut_parts(end);
            self.push(end, false);
            self.line = end.saturating_add(1);
        }
        // A line of exactly the largest size may end right here: it is cut when there is more of it.
        self.cut_parts(self.parcel.bytes.len());
        self.hand_over(now_us)
    }

    /// Cuts parts off the line until what is left up to `end` is one record.
    fn cut_parts(&mut self, end: usize) {
        let max = self.lines.record_bytes_max.max(1);
        while end.saturating_sub(self.line) > max {
            let cut = self.line.saturating_add(max);
            self.push(cut, true);
            self.line = cut;
        }
    }

    fn push(&mut self, end: usize, continued: bool) {
        self.parcel.push(Slot { continued, ..Slot::plain(0, self.line..end) });
        self.parcel.end_batch(None);
    }

    fn hand_over(&mut self, now_us: u64) -> Result<u64, Closed> {
        if self.parcel.is_empty() {
            return Ok(0);
        }
        let records = self.parcel.records() as u64;
        let mut next = Self::fresh(self.lines, self.intake)?;
        let rest = self.parcel.bytes.get(self.line..).unwrap_or_default();
        next.bytes.extend_from_slice(rest);
        self.line = 0;
        self.parcel.received_us = now_us;
        self.intake.send(std::mem::replace(&mut self.parcel, next)).map(|()| records)
    }

    /// The end of the input: a line without a newline is a line too.
    fn finish(mut self, now_us: u64, continued: bool) -> Result<u64, Closed> {
        let end = self.parcel.bytes.len();
        if end > self.line {
            self.push(end, continued);
            self.parcel.received_us = now_us;
            return self.intake.send(self.parcel).map(|()| 1);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Event, Queue};
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn lines(record_bytes_max: usize) -> Lines {
        Lines { stream: Arc::from("s"), class: Some(Class::Group), record_bytes_max }
    }

    /// All records that come of these chunks, and the capacity of the largest parcel.
    fn cut(chunks: &[&[u8]], max: usize) -> Vec<(Vec<u8>, bool)> {
        let queue: Queue<()> = Queue::new(2);
        let intake = queue.intake();
        let chunks: Vec<Vec<u8>> = chunks.iter().map(|c| c.to_vec()).collect();
        let source = thread::spawn(move || {
            let lines = lines(max);
            let mut cutter = Cutter::new(&lines, &intake).unwrap();
            for chunk in &chunks {
                cutter.take(chunk, 0).unwrap();
            }
            cutter.finish(0, false).unwrap();
        });
        let mut records = Vec::new();
        while !queue.has_ended() {
            if let Some(Event::Parcel(parcel)) = queue.next(None) {
                let body = |s: &Slot| (parcel.get(&s.body).to_vec(), s.continued);
                let batches = (0..).map_while(|at| parcel.batch(at));
                records.extend(batches.flat_map(|batch| batch.slots).map(body));
                queue.recycle(parcel);
            }
        }
        source.join().unwrap();
        records
    }

    /// What `cat` makes of records.
    fn joined(records: &[(Vec<u8>, bool)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (body, continued) in records {
            out.extend_from_slice(body);
            if !continued {
                out.push(b'\n');
            }
        }
        out
    }

    #[test]
    fn lines_are_records_whatever_is_in_them() {
        let got = cut(&[b"one\n\n\xff\0\r\nlast"], 100);
        let want: [(&[u8], bool); 4] = [(b"one", false), (b"", false), (b"\xff\0\r", false), (b"last", false)];
        assert!(got.iter().map(|(b, c)| (b.as_slice(), *c)).eq(want), "{got:?}");
        assert!(cut(&[], 100).is_empty());
        assert_eq!(cut(&[b"\n"], 100), [(vec![], false)]);
    }

    #[test]
    fn every_way_to_cut_the_input_into_chunks_gives_the_same_records() {
        let input = b"ab\n\ncdefghijkl\nm\n\nnopqrstu";
        for max in [1, 3, 8, 100] {
            let whole = cut(&[input], max);
            assert_eq!(joined(&whole), [&input[..], b"\n"].concat());
            for split in 0..=input.len() {
                for second in split..=input.len() {
                    let parts = [&input[..split], &input[split..second], &input[second..]];
                    assert_eq!(cut(&parts, max), whole, "cut at {split} and {second}, at most {max}");
                }
            }
        }
    }

    #[test]
    fn only_lines_over_the_largest_size_are_kept_in_parts() {
        let body = |n: usize| vec![b'x'; n];
        assert_eq!(cut(&[b"xxxx\n"], 4), [(body(4), false)]);
        assert_eq!(cut(&[b"xxxx", b"\n"], 4), [(body(4), false)]);
        assert_eq!(cut(&[b"xxxxx\n"], 4), [(body(4), true), (body(1), false)]);
        assert_eq!(cut(&[b"xxxxxxxx", b"", b"x"], 4), [(body(4), true), (body(4), true), (body(1), false)]);
        assert_eq!(cut(&[b"xxxxxxxx"], 4), [(body(4), true), (body(4), false)]);
    }

    #[test]
    fn a_stop_hands_over_what_was_read_though_the_input_stays_open() {
        let queue: Queue<()> = Queue::new(2);
        let intake = queue.intake();
        let (mut sender, input) = UnixStream::pair().unwrap();
        let (stop, ring) = Stop::by_hand().unwrap();
        let context = Context::by_hand(intake, stop);
        let source = thread::spawn(move || run(input, &lines(100), &context));
        sender.write_all(b"whole\nhalf").unwrap();
        let Some(Event::Parcel(parcel)) = queue.next(None) else { panic!("a parcel") };
        assert_eq!(parcel.records(), 1);
        queue.recycle(parcel);
        ring.ring();
        let Some(Event::Parcel(parcel)) = queue.next(None) else { panic!("another parcel") };
        assert_eq!(parcel.bytes, b"half");
        assert!(matches!(queue.next(None), Some(Event::SourceEnded)));
        assert!(matches!(source.join().unwrap(), Ended::Stopped));
        drop(sender);
    }
}
