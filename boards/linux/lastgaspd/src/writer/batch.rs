//! One batch on its way into the node: its limits, its class, its rows, and what becomes of it.
//!
//! Invariants: a batch is put in whole, refused to who waits for it, or counted as dropped; one that the node has no
//! room for stays where it is.

use std::fmt;

use lastgasp_core::format::fields::{FieldsWriter, Value};
use lastgasp_core::format::row::Row;
use lastgasp_core::gaps::GapCause;
use lastgasp_core::hal::{Arena, Storage};
use lastgasp_core::node::{Batch, Class, Input, Refused};
use lastgasp_core::streams::{OTHER, OTHER_NAME};

use super::{Listener, Writer};
use crate::parcel::{Answer, BatchView, Parcel, Slot};
use crate::say;

/// The field that keeps the name of a stream for which the store has no number left.
const STREAM_FIELD: &str = "stream";

impl<S, A, L> Writer<'_, S, A, L>
where
    S: Storage<Error: fmt::Display>,
    A: Arena,
    L: Listener,
{
    /// Puts the next batch of a parcel in, if the node has room for it.
    pub(super) fn put_in_batch(&mut self, parcel: &mut Parcel) {
        let now_us = self.clock.now_us();
        self.number_streams(parcel);
        let Some(batch) = parcel.batch(self.put_in) else { return };
        if let Some(reason) = self.in_memory.filter(|_| batch.is_awaited) {
            self.turn_away(parcel, Answer::Refused(Refused::Failed(reason)), GapCause::MediumFailed, now_us);
            return;
        }
        if !self.is_within_limits(parcel, &batch, now_us) {
            self.turn_away(parcel, Answer::OverLimit, GapCause::Overload, now_us);
            return;
        }
        let class = parcel.class.unwrap_or_else(|| self.class_of(parcel, &batch));
        let labelled = self.labelled(parcel, &batch);
        let row = |slot: &Slot| Row {
            stream: self.numbers.get(usize::from(slot.stream)).copied().unwrap_or(OTHER),
            severity: slot.severity,
            continued: slot.continued,
            received_us: parcel.received_us,
            event_time_us: slot.event_time_us,
            trace: slot.trace,
            body: parcel.get(&slot.body),
            fields: parcel.get(&slot.fields),
        };
        let mut rows: Vec<Row<'_>> = batch.slots.iter().map(row).collect();
        for (at, fields) in &labelled {
            if let Some(row) = rows.get_mut(*at) {
                row.fields = fields;
            }
        }
        let states: Vec<(&[u8], &[u8])> = batch.states.iter().map(|(k, v)| (parcel.get(k), parcel.get(v))).collect();
        let output = self.node.step(now_us, Input::Batch(Batch { rows: &rows, states: &states, class }));
        match output.batch {
            Some(Err(Refused::Full)) => self.full = true,
            Some(Err(Refused::Stopping | Refused::Failed(_))) | None => {}
            Some(Err(refused)) => {
                if !batch.is_awaited {
                    say(format_args!("{} record(s) of {} are not kept: {refused}", rows.len(), names(parcel, &batch)));
                }
                self.turn_away(parcel, Answer::Refused(refused), GapCause::Oversize, now_us);
            }
            Some(Ok(taken)) => {
                for row in &rows {
                    self.ruler.taken(row.stream, row.body.len().saturating_add(row.fields.len()), now_us);
                }
                if let Some(reply) = parcel.take_reply(self.put_in) {
                    self.waiting.push_back((taken, reply));
                }
                self.put_in = self.put_in.saturating_add(1);
            }
        }
        self.follow(&output);
    }

    /// The store's numbers for the streams of a parcel that was just begun.
    fn number_streams(&mut self, parcel: &Parcel) {
        if self.put_in == 0 {
            self.numbers.clear();
        }
        while let Some(name) = parcel.streams().get(self.numbers.len()) {
            self.numbers.push(self.node.stream(name));
        }
    }

    fn number(&self, slot: &Slot) -> u16 {
        self.numbers.get(usize::from(slot.stream)).copied().unwrap_or(OTHER)
    }

    /// Whether all records of a batch are within the limits of their streams; if so they count against them.
    fn is_within_limits(&mut self, parcel: &Parcel, batch: &BatchView<'_>, now_us: u64) -> bool {
        // Neighbours of one stream are asked for together. A batch that mixes streams may spend what one of them has
        // although another is over its limit: limits are not that exact.
        batch.slots.chunk_by(|a, b| a.stream == b.stream).all(|run| {
            let Some(first) = run.first() else { return true };
            let (id, name) = (self.number(first), parcel.stream_name(first.stream));
            self.ruler.admit(id, name, run.len() as u64, now_us)
        })
    }

    /// The class of a batch: that of its most urgent record.
    fn class_of(&mut self, parcel: &Parcel, batch: &BatchView<'_>) -> Class {
        let class = |slot: &Slot| {
            let id = self.number(slot);
            self.ruler.class(id, parcel.stream_name(slot.stream), slot.severity)
        };
        batch.slots.iter().map(class).min().unwrap_or(Class::Interval)
    }

    /// Records whose stream has no number of its own keep its name as a field: their fields, by place in the batch.
    fn labelled(&self, parcel: &Parcel, batch: &BatchView<'_>) -> Vec<(usize, Vec<u8>)> {
        let mut labelled = Vec::new();
        for (at, slot) in batch.slots.iter().enumerate() {
            let name = parcel.stream_name(slot.stream);
            if self.number(slot) != OTHER || name == OTHER_NAME {
                continue;
            }
            let mut fields = parcel.get(&slot.fields).to_vec();
            let start = fields.len();
            fields.resize(start.saturating_add(STREAM_FIELD.len()).saturating_add(name.len()).saturating_add(16), 0);
            let mut writer = FieldsWriter::new(fields.get_mut(start..).unwrap_or_default());
            let len = writer.field(STREAM_FIELD, Value::Str(name)).map_or(0, |()| writer.len());
            fields.truncate(start.saturating_add(len));
            labelled.push((at, fields));
        }
        labelled
    }

    /// A batch is not taken in: whoever waits for it is told, else its records are counted as dropped.
    fn turn_away(&mut self, parcel: &mut Parcel, answer: Answer, cause: GapCause, now_us: u64) {
        match parcel.take_reply(self.put_in) {
            Some(reply) => reply.answer(answer),
            None => {
                let slots = parcel.batch(self.put_in).map_or(&[][..], |batch| batch.slots);
                for run in slots.chunk_by(|a, b| a.stream == b.stream) {
                    let Some(first) = run.first() else { continue };
                    self.ruler.turned_away(self.number(first), run.len() as u64);
                    let name = parcel.stream_name(first.stream);
                    self.queue.drops().count(name, cause, run.len() as u64, now_us);
                }
            }
        }
        self.put_in = self.put_in.saturating_add(1);
    }
}

/// The streams of a batch, for people.
fn names(parcel: &Parcel, batch: &BatchView<'_>) -> String {
    let mut names: Vec<&str> = batch.slots.iter().map(|slot| parcel.stream_name(slot.stream)).collect();
    names.dedup();
    names.truncate(3);
    names.join(", ")
}
