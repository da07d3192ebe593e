//! Records on their way from a source to the writer, in batches.
//!
//! Invariants: all bytes of a parcel lie in one buffer that is recycled; a record belongs to the batch that is ended
//! after it; a batch is durable whole or not at all, with its state entries; whoever waits for a batch is answered
//! exactly once, also when the writer has gone.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::Sender;
use lastgasp_core::format::fields::{FieldsError, FieldsWriter};
use lastgasp_core::format::row::TraceContext;
use lastgasp_core::node::{Class, Refused};

/// A recycled parcel keeps this much memory; more is given back to the system.
const KEPT_BYTES: usize = 64 << 10;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It survives a power cut. Of a batch without records, the last number is one less than the first.
    Durable {
        /// Number of its first record.
        first_seq: u64,
        /// Number of its last record.
        last_seq: u64,
    },
    /// It was not taken in, and nothing of it was.
    Refused(Refused),
    /// A limit on its stream kept it out; nothing of it was taken in.
    OverLimit,
    /// The writer has gone. What was taken in may be durable or not.
    Closed,
}

/// Where the answer to a batch goes.
#[derive(Debug)]
pub struct Reply {
    to: Sender<(u64, Answer)>,
    token: u64,
    answered: bool,
}

impl Reply {
    /// An answer that comes by `to`, with `token` to tell it from others. The channel needs room for it: the writer
    /// waits for nobody, and an answer that finds no room is lost.
    #[must_use]
    pub fn new(to: Sender<(u64, Answer)>, token: u64) -> Self {
        Self { to, token, answered: false }
    }

    /// Answers.
    pub fn answer(mut self, answer: Answer) {
        self.answered = true;
        let _ = self.to.try_send((self.token, answer));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            let _ = self.to.try_send((self.token, Answer::Closed));
        }
    }
}

/// A record: where it lies in its parcel, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its stream, see [`Parcel::stream`].
    pub stream: u16,
    /// Severity, 1 to 24; 0 if the source does not know.
    pub severity: u8,
    /// It goes on in the next record.
    pub continued: bool,
    /// When it happened, as its sender says: microseconds since 1970.
    pub event_time_us: Option<i64>,
    /// Trace and span it belongs to.
    pub trace: Option<TraceContext>,
    /// Its body in [`Parcel::bytes`].
    pub body: Range<usize>,
    /// Its encoded fields in [`Parcel::bytes`]; empty if there are none.
    pub fields: Range<usize>,
}

impl Slot {
    /// A record of which nothing but its stream and body is known.
    #[must_use]
    pub fn plain(stream: u16, body: Range<usize>) -> Self {
        Self { stream, severity: 0, continued: false, event_time_us: None, trace: None, body, fields: 0..0 }
    }
}

/// The end of a batch.
#[derive(Debug)]
struct BatchEnd {
    slots: usize,
    states: usize,
    reply: Option<Reply>,
}

/// A batch of a parcel.
#[derive(Debug)]
pub struct BatchView<'p> {
    /// Its records.
    pub slots: &'p [Slot],
    /// Its state entries: where key and value lie in [`Parcel::bytes`].
    pub states: &'p [(Range<usize>, Range<usize>)],
    /// Somebody waits for it.
    pub is_awaited: bool,
}

/// Batches of records on their way to the writer.
#[derive(Debug, Default)]
pub struct Parcel {
    /// What triggers the commit of its batches; if not set, the policy decides by stream and severity.
    pub class: Option<Class>,
    /// When it was read, by the clock of the run.
    pub received_us: u64,
    /// Bodies, fields and state entries, and what lies between.
    pub bytes: Vec<u8>,
    streams: Vec<Arc<str>>,
    slots: Vec<Slot>,
    states: Vec<(Range<usize>, Range<usize>)>,
    batches: Vec<BatchEnd>,
}

impl Parcel {
    /// The number of a stream in this parcel, for [`Slot::stream`].
    pub fn stream(&mut self, name: &str) -> u16 {
        // The one used last is the likeliest.
        let known = self.streams.iter().rposition(|s| **s == *name);
        let at = known.unwrap_or_else(|| {
            self.streams.push(Arc::from(name));
            self.streams.len().saturating_sub(1)
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// Names of the streams of this parcel.
    #[must_use]
    pub fn streams(&self) -> &[Arc<str>] {
        &self.streams
    }

    /// Name of a stream of this parcel.
    #[must_use]
    pub fn stream_name(&self, stream: u16) -> &str {
        self.streams.get(usize::from(stream)).map_or("", |name| name)
    }

    /// Copies bytes in; where they lie.
    pub fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// Encodes the fields of a record, of at most `room` bytes; where they lie, for [`Slot::fields`].
    ///
    /// # Errors
    /// What `write` returns; nothing of the fields is left then.
    pub fn fields(
        &mut self,
        room: usize,
        write: impl FnOnce(&mut FieldsWriter<'_>) -> Result<(), FieldsError>,
    ) -> Result<Range<usize>, FieldsError> {
        let start = self.bytes.len();
        self.bytes.resize(start.saturating_add(room), 0);
        let mut writer = FieldsWriter::new(self.bytes.get_mut(start..).unwrap_or_default());
        let written = write(&mut writer).map(|()| writer.len());
        self.bytes.truncate(start.saturating_add(*written.as_ref().unwrap_or(&0)));
        written.map(|len| start..start.saturating_add(len))
    }

    /// Adds a record to the batch that is not ended yet.
    pub fn push(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    /// Adds a state entry (a source's cursor) to the batch that is not ended yet: at most 64 in a batch, keys of at
    /// most 255 and values of at most 1024 bytes. It is durable exactly if the batch is.
    pub fn state(&mut self, key: &[u8], value: &[u8]) {
        let key = self.copy(key);
        let value = self.copy(value);
        self.states.push((key, value));
    }

    /// Ends the batch: what was added since the last end. One without records and states is none, unless somebody
    /// waits for it.
    pub fn end_batch(&mut self, reply: Option<Reply>) {
        let (slots, states) = self.batches.last().map_or((0, 0), |b| (b.slots, b.states));
        if reply.is_some() || self.slots.len() > slots || self.states.len() > states {
            self.batches.push(BatchEnd { slots: self.slots.len(), states: self.states.len(), reply });
        }
    }

    /// There is no batch in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Records in it.
    #[must_use]
    pub fn records(&self) -> usize {
        self.slots.len()
    }

    /// Batch number `at`, from 0.
    #[must_use]
    pub fn batch(&self, at: usize) -> Option<BatchView<'_>> {
        let end = self.batches.get(at)?;
        let before = at.checked_sub(1).and_then(|before| self.batches.get(before));
        let (slots, states) = before.map_or((0, 0), |b| (b.slots, b.states));
        Some(BatchView {
            slots: self.slots.get(slots..end.slots)?,
            states: self.states.get(states..end.states)?,
            is_awaited: end.reply.is_some(),
        })
    }

    /// There are batches from number `at` on.
    #[must_use]
    pub fn has_batch(&self, at: usize) -> bool {
        at < self.batches.len()
    }

    /// Who waits for batch number `at`.
    pub fn take_reply(&mut self, at: usize) -> Option<Reply> {
        self.batches.get_mut(at)?.reply.take()
    }

    /// Bytes of the parcel.
    #[must_use]
    pub fn get(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// Makes it as new, to be filled again.
    pub fn clear(&mut self) {
        self.class = None;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.streams.clear();
        self.slots.clear();
        self.slots.shrink_to(KEPT_BYTES / size_of::<Slot>());
        self.states.clear();
        self.batches.clear();
        self.batches.shrink_to(KEPT_BYTES / size_of::<BatchEnd>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use lastgasp_core::format::fields::{Fields, Value};

    #[test]
    fn batches_hold_what_was_added_since_the_last_end() {
        let mut parcel = Parcel::default();
        let (a, b) = (parcel.stream("a"), parcel.stream("b"));
        assert_eq!((parcel.stream("a"), parcel.stream_name(b)), (a, "b"));
        let body = parcel.copy(b"one");
        parcel.push(Slot::plain(a, body));
        parcel.end_batch(None);
        parcel.end_batch(None);
        parcel.state(b"key", b"value");
        parcel.end_batch(None);
        let batch = parcel.batch(0).unwrap();
        assert_eq!((batch.slots.len(), batch.states.len()), (1, 0));
        assert_eq!(parcel.get(&batch.slots[0].body), b"one");
        let batch = parcel.batch(1).unwrap();
        assert_eq!((batch.slots.len(), parcel.get(&batch.states[0].1)), (0, &b"value"[..]));
        assert!(!parcel.has_batch(2), "an empty batch is none");
    }

    #[test]
    fn fields_that_do_not_fit_leave_nothing_behind() {
        let mut parcel = Parcel::default();
        let before = parcel.copy(b"x");
        let full = parcel.fields(4, |w| w.field("key", Value::Str("a long value")));
        assert_eq!((full, parcel.bytes.len()), (Err(FieldsError::NoRoom), before.end));
        let fields = parcel.fields(100, |w| w.field("key", Value::U64(7))).unwrap();
        assert_eq!(Fields::new(parcel.get(&fields)).get("key"), Some(Value::U64(7)));
        assert_eq!(parcel.bytes.len(), fields.end);
    }

    #[test]
    fn whoever_waits_is_answered_once_also_by_nobody() {
        let (to, answers) = bounded(4);
        Reply::new(to.clone(), 1).answer(Answer::OverLimit);
        let mut parcel = Parcel::default();
        parcel.end_batch(Some(Reply::new(to.clone(), 2)));
        parcel.clear();
        drop(to);
        assert_eq!(answers.iter().collect::<Vec<_>>(), [(1, Answer::OverLimit), (2, Answer::Closed)]);
    }
}
