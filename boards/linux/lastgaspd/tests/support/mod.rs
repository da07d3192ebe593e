//! What tests of sources need: a queue that is emptied, and what came out of it.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lastgasp_core::format::fields::{Fields, Value};
use lastgaspd::clock::Clock;
use lastgaspd::parcel::{Answer, Parcel, Slot};
use lastgaspd::queue::{Event, Queue};
use lastgaspd::sources::Context;
use lastgaspd::sources::status::SourceStatus;
use lastgaspd::stop::{Ring, Stop};

/// A test that has not seen what it waits for by then has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A record that came out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) stream: String,
    pub(crate) severity: u8,
    pub(crate) continued: bool,
    pub(crate) event_time_us: Option<i64>,
    pub(crate) body: Vec<u8>,
    pub(crate) fields: Vec<(String, String)>,
}

impl Record {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn field(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// A queue under test.
pub(crate) struct Bench {
    pub(crate) queue: Queue<()>,
    pub(crate) status: Arc<SourceStatus>,
    pub(crate) ring: Option<Ring>,
    stop: Stop,
    record_bytes_max: usize,
    source: Option<JoinHandle<()>>,
    /// Numbers that batches get.
    next_seq: u64,
    /// What a batch that is waited for is answered; `None` is durable.
    pub(crate) answer: Option<Answer>,
}

impl Bench {
    pub(crate) fn new(record_bytes_max: usize) -> Self {
        let (stop, ring) = Stop::by_hand().unwrap();
        let queue = Queue::new(4);
        queue.set_stall(PATIENCE);
        Self {
            queue,
            status: Arc::new(SourceStatus::new("test")),
            ring: Some(ring),
            stop,
            record_bytes_max,
            source: None,
            next_seq: 1,
            answer: None,
        }
    }

    pub(crate) fn stall(self, stall: Duration) -> Self {
        self.queue.set_stall(stall);
        self
    }

    pub(crate) fn context(&self) -> Context<()> {
        Context {
            intake: self.queue.intake(),
            stop: self.stop.clone(),
            clock: Clock::start(),
            record_bytes_max: self.record_bytes_max,
            cursors: Arc::new(BTreeMap::new()),
            status: Arc::clone(&self.status),
        }
    }

    /// Runs a source on a thread.
    pub(crate) fn start(&mut self, source: impl FnOnce(Context<()>) + Send + 'static) {
        let ctx = self.context();
        self.source = Some(thread::spawn(move || source(ctx)));
    }

    /// Records that come until there are `enough`.
    pub(crate) fn records(&mut self, enough: usize) -> Vec<Record> {
        self.records_until(|records| records.len() >= enough)
    }

    pub(crate) fn records_until(&mut self, enough: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while !enough(&records) {
            match self.queue.next(Some(deadline)) {
                Some(event) => self.take(event, &mut records),
                None => panic!("only {} record(s) came: {records:?}", records.len()),
            }
        }
        records
    }

    /// Asks for the stop; the records that still come.
    pub(crate) fn stop(&mut self) -> Vec<Record> {
        drop(self.ring.take());
        let mut records = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !self.queue.has_ended() {
            match self.queue.next(Some(deadline)) {
                Some(event) => self.take(event, &mut records),
                None => panic!("the source does not end"),
            }
        }
        if let Some(source) = self.source.take() {
            source.join().unwrap();
        }
        records
    }

    pub(crate) fn take(&mut self, event: Event<()>, records: &mut Vec<Record>) {
        let Event::Parcel(mut parcel) = event else { return };
        for at in (0..).take_while(|at| parcel.has_batch(*at)).collect::<Vec<_>>() {
            let batch = parcel.batch(at).unwrap();
            let count = batch.slots.len() as u64;
            let new: Vec<Record> = batch.slots.iter().map(|slot| record(&parcel, slot)).collect();
            match (parcel.take_reply(at), self.answer) {
                (Some(reply), Some(answer)) => reply.answer(answer),
                (reply, _) => {
                    let first_seq = self.next_seq;
                    self.next_seq += count;
                    records.extend(new);
                    if let Some(reply) = reply {
                        reply.answer(Answer::Durable { first_seq, last_seq: self.next_seq - 1 });
                    }
                }
            }
        }
        self.queue.recycle(parcel);
    }
}

fn record(parcel: &Parcel, slot: &Slot) -> Record {
    let mut fields = Fields::new(parcel.get(&slot.fields));
    let record = Record {
        stream: parcel.stream_name(slot.stream).to_owned(),
        severity: slot.severity,
        continued: slot.continued,
        event_time_us: slot.event_time_us,
        body: parcel.get(&slot.body).to_vec(),
        fields: fields.by_ref().map(|(key, value)| (key.to_owned(), shown(value))).collect(),
    };
    assert!(!fields.is_malformed());
    record
}

/// A value as text: of a map `{a=b c={..}}`, of a list `[a b]`.
pub(crate) fn shown(value: Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::I64(n) => n.to_string(),
        Value::U64(n) => n.to_string(),
        Value::F64(n) => format!("{n:?}"),
        Value::Str(s) => s.to_owned(),
        Value::Bytes(b) => format!("{b:?}"),
        Value::List(list) => format!("[{}]", list.map(shown).collect::<Vec<_>>().join(" ")),
        Value::Map(map) => {
            format!("{{{}}}", map.map(|(k, v)| format!("{k}={}", shown(v))).collect::<Vec<_>>().join(" "))
        }
    }
}

/// A process that is ended with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a program can be run; if not, the test says why it proves nothing.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .or_else(|_| Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status());
    if found.is_err() {
        println!("skipped: there is no {program} here");
    }
    found.is_ok()
}

/// Memory of this process that is in use, in KiB.
pub(crate) fn memory_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
