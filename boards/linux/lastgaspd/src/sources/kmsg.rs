//! Messages of the kernel from `/dev/kmsg`, where there is no journal that has them.
//!
//! `priority,number,microseconds since boot,flags;text`, then lines ` KEY=value`; one message a read.
//!
//! Invariants: every message is kept once: its number within the boot rides in the batch of the message; what the
//! kernel overwrote before it was read is counted by these numbers and becomes a gap. The body is the text with the
//! kernel's escapes (`\x0a`) undone, as journald does it; fields have journald's names.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use lastgasp_core::format::fields::{FieldsError, FieldsWriter, Value};
use lastgasp_core::gaps::GapCause;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, read};
use rustix::time::{ClockId, clock_gettime};

use super::{Context, severity};
use crate::parcel::{Parcel, Slot};
use crate::queue::Closed;

/// Where the kernel gives out its messages.
const DEVICE: &str = "/dev/kmsg";
/// Key of the state entry: id of the boot, a space, number of the last message.
const STATE_KEY: &[u8] = b"kmsg";
/// The stream of all messages.
const STREAM: &str = "kernel";
/// The kernel gives out no larger message.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// A batch is ended here.
const BATCH_BYTES: usize = 24 << 10;
/// A parcel is handed over here.
const PARCEL_BYTES: usize = 128 << 10;

/// A message.
#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    priority: u16,
    number: u64,
    since_boot_us: u64,
    text: Vec<u8>,
    /// Lines ` KEY=value`.
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head_bytes = memchr::memchr(b';', bytes)?;
        let head = std::str::from_utf8(bytes.get(..head_bytes)?).ok()?;
        let mut head = head.split(',');
        let (priority, number, since_boot_us) = (head.next()?, head.next()?, head.next()?);
        let text = bytes.get(head_bytes.saturating_add(1)..)?;
        let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
        Some(Self {
            priority: priority.parse().ok()?,
            number: number.parse().ok()?,
            since_boot_us: since_boot_us.parse().ok()?,
            text: unescaped(text.get(..end)?),
            rest: text.get(end..)?,
        })
    }

    fn write_fields(&self, out: &mut FieldsWriter<'_>) -> Result<(), FieldsError> {
        out.field("_TRANSPORT", Value::Str("kernel"))?;
        if self.priority >> 3 != 0 {
            out.field("SYSLOG_FACILITY", Value::U64((self.priority >> 3).into()))?;
        }
        out.field("_SOURCE_MONOTONIC_TIMESTAMP", Value::U64(self.since_boot_us))?;
        for line in self.rest.split(|b| *b == b'\n') {
            let Some(equals) = memchr::memchr(b'=', line) else { continue };
            let (key, value) = (line.get(1..equals).unwrap_or_default(), line.get(equals.saturating_add(1)..));
            let value = unescaped(value.unwrap_or_default());
            let key = format!("_KERNEL_{}", String::from_utf8_lossy(key));
            out.field(&key, std::str::from_utf8(&value).map_or(Value::Bytes(&value), Value::Str))?;
        }
        Ok(())
    }
}

/// `\x0a` is a newline, `\x5c` a backslash.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        let code = rest.get(at..).and_then(|code| code.strip_prefix(b"\\x")).and_then(|code| code.get(..2));
        let code = code.and_then(|code| std::str::from_utf8(code).ok()).and_then(|c| u8::from_str_radix(c, 16).ok());
        out.push(code.unwrap_or(b'\\'));
        rest = rest.get(at.saturating_add(if code.is_some() { 4 } else { 1 })..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

fn open() -> std::io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(Path::new(DEVICE))
}

/// Why the kernel's messages cannot be read here; `None` if they can.
#[must_use]
pub fn unavailable() -> Option<String> {
    open().err().map(|error| format!("{DEVICE}: {error}"))
}

/// Reads messages until a stop. If they cannot be read it says so and ends.
pub fn run<E>(ctx: &Context<E>) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let (device, boot) = match open() {
        Ok(device) => (device, boot.trim().replace('-', "")),
        Err(error) => {
            ctx.status.fails(format!("{DEVICE}: {error}; the kernel's messages are not read"));
            return;
        }
    };
    let state = ctx.cursors.get(STATE_KEY).and_then(|value| std::str::from_utf8(value).ok());
    let (_, last) = state.and_then(|state| state.split_once(' ')).filter(|(of, _)| *of == boot).unzip();
    let last = last.and_then(|number| number.parse().ok());
    ctx.status.works("following the kernel's messages");
    // The queue has been closed, or a stop was asked for: in both cases all that was read is handed over.
    let _ = Reader { ctx, device, boot, last, parcel: None, batch_bytes: 0 }.run();
}

struct Reader<'a, E> {
    ctx: &'a Context<E>,
    device: File,
    boot: String,
    /// Number of the last message.
    last: Option<u64>,
    parcel: Option<Parcel>,
    batch_bytes: usize,
}

impl<E> Reader<'_, E> {
    fn run(&mut self) -> Result<(), Closed> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        while !self.ctx.stop.is_asked() {
            match read(&self.device, &mut buffer) {
                Ok(bytes) if bytes > 0 => self.take(buffer.get(..bytes).unwrap_or_default())?,
                // The next message tells by its number how many were overwritten.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.hand_over()?;
                    let stopped = self.ctx.stop.fd();
                    let mut fds = [PollFd::new(&stopped, PollFlags::IN), PollFd::new(&self.device, PollFlags::IN)];
                    let _ = poll(&mut fds, None);
                }
                Ok(_) => break,
                Err(error) => {
                    self.ctx.status.fails(format!("{DEVICE}: {error}; the kernel's messages are not read any more"));
                    break;
                }
            }
        }
        self.hand_over()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let message = Message::parse(bytes);
        if self.batch_bytes.saturating_add(bytes.len()) > BATCH_BYTES {
            self.end_batch(); // with the number of the message before
        }
        if let Some(message) = &message {
            if self.last.is_some_and(|last| message.number <= last) {
                return Ok(());
            }
            if let Some(last) = self.last {
                let missing = message.number.saturating_sub(last).saturating_sub(1);
                self.ctx.intake.dropped(STREAM, GapCause::Overload, missing, self.ctx.clock.now_us());
            }
            self.last = Some(message.number);
        }
        let mut parcel = match self.parcel.take() {
            Some(parcel) => parcel,
            None => self.ctx.intake.parcel()?,
        };
        let stream = parcel.stream(STREAM);
        let max = self.ctx.record_bytes_max;
        let slot = match &message {
            Some(message) => {
                let body = parcel.copy(message.text.get(..max).unwrap_or(&message.text));
                let room = max.saturating_sub(body.len()).min(bytes.len().saturating_mul(2).saturating_add(256));
                let fields = parcel.fields(room, |out| message.write_fields(out)).unwrap_or(0..0);
                let severity = severity::of_syslog(message.priority);
                let event_time_us = event_time_us(message.since_boot_us);
                Slot { severity, event_time_us, fields, ..Slot::plain(stream, body) }
            }
            None => {
                self.ctx.status.erred();
                let body = parcel.copy(bytes.get(..max).unwrap_or(bytes));
                Slot::plain(stream, body)
            }
        };
        parcel.push(slot);
        self.ctx.status.read(1);
        self.batch_bytes = self.batch_bytes.saturating_add(bytes.len());
        let is_large = parcel.bytes.len() >= PARCEL_BYTES;
        self.parcel = Some(parcel);
        if is_large { self.hand_over() } else { Ok(()) }
    }

    fn end_batch(&mut self) {
        self.batch_bytes = 0;
        let Some(parcel) = &mut self.parcel else { return };
        if let Some(last) = self.last {
            parcel.state(STATE_KEY, format!("{} {last}", self.boot).as_bytes());
        }
        parcel.end_batch(None);
    }

    fn hand_over(&mut self) -> Result<(), Closed> {
        self.end_batch();
        let Some(mut parcel) = self.parcel.take() else { return Ok(()) };
        parcel.received_us = self.ctx.clock.now_us();
        self.ctx.intake.send(parcel)
    }
}

/// The wall clock at a time since boot: microseconds since 1970.
fn event_time_us(since_boot_us: u64) -> Option<i64> {
    let wall_us = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()?;
    let up = clock_gettime(ClockId::Monotonic);
    let up_us = up.tv_sec.checked_mul(1_000_000)?.checked_add(up.tv_nsec / 1000)?;
    wall_us.checked_sub(up_us)?.checked_add(i64::try_from(since_boot_us).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Event, Queue};
    use crate::stop::Stop;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn messages_are_taken_apart() {
        let bytes = b"11,7,5000,-;usb 1-1: two\\x0alines \\x5cx \\q\n SUBSYSTEM=usb\n DEVICE=c189:1\n";
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.priority, message.number, message.since_boot_us), (11, 7, 5000));
        assert_eq!(message.text, b"usb 1-1: two\nlines \\x \\q");
        let mut room = [0; 200];
        let mut writer = FieldsWriter::new(&mut room);
        message.write_fields(&mut writer).unwrap();
        let fields = lastgasp_core::format::fields::Fields::new(writer.as_bytes());
        assert_eq!(fields.get("_KERNEL_SUBSYSTEM"), Some(Value::Str("usb")));
        assert_eq!(fields.get("SYSLOG_FACILITY"), Some(Value::U64(1)));
        for bad in [&b""[..], b"x", b"1,2;x", b"a,1,2,-;x"] {
            assert_eq!(Message::parse(bad), None);
        }
    }

    /// The machine's own messages, in two runs, the first of them cut.
    #[test]
    fn the_kernels_messages_are_kept_once_over_a_cut() {
        if let Some(why) = unavailable() {
            println!("skipped: {why}");
            return;
        }
        let all = {
            let (device, mut numbers, mut buffer) = (open().unwrap(), Vec::new(), vec![0; MESSAGE_BYTES_MAX]);
            while let Ok(bytes) = read(&device, &mut buffer) {
                numbers.push(Message::parse(&buffer[..bytes]).unwrap().text);
            }
            numbers
        };
        if all.len() < 20 {
            println!("skipped: the kernel has only {} messages", all.len());
            return;
        }
        let mut states: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut bodies: Vec<Vec<u8>> = Vec::new();
        for batches in [1, usize::MAX] {
            let queue: Queue<()> = Queue::new(2);
            let (stop, ring) = Stop::by_hand().unwrap();
            let cursors = Arc::new(states.clone());
            let ctx = Context { record_bytes_max: 4000, cursors, ..Context::by_hand(queue.intake(), stop) };
            let source = thread::spawn(move || run(&ctx));
            while bodies.len() < all.len() {
                let patience = std::time::Instant::now() + Duration::from_secs(20);
                let Some(Event::Parcel(parcel)) = queue.next(Some(patience)) else { panic!("no parcel") };
                for batch in (0..batches).map_while(|at| parcel.batch(at)) {
                    bodies.extend(batch.slots.iter().map(|slot| parcel.get(&slot.body).to_vec()));
                    for (key, value) in batch.states {
                        states.insert(parcel.get(key).to_vec(), parcel.get(value).to_vec());
                    }
                }
                queue.recycle(parcel);
                if batches == 1 {
                    break;
                }
            }
            ring.ring();
            drop(queue);
            source.join().unwrap();
        }
        assert_eq!(bodies[..all.len()], all);
    }
}
