//! What a node tells of itself beside its numbers, as `status` gives it.
//!
//! Invariant: a fact is small; of what does not fit, the front is told.

use lastgasp_core::format::fields::{FieldsWriter, Value};
use lastgasp_core::readout::{Fact, RECORD_OVERHEAD_BYTES, SMALL_MESSAGE_BYTES_MAX};

use crate::sources::status::SourceReport;

/// Most bytes of the values of a fact.
const FIELDS_BYTES_MAX: usize = SMALL_MESSAGE_BYTES_MAX - RECORD_OVERHEAD_BYTES - 2 * NAME_BYTES_MAX;
/// Most bytes of a topic or name.
const NAME_BYTES_MAX: usize = 128;

/// A value of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FactValue {
    /// Text.
    Text(String),
    /// A number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl From<u64> for FactValue {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for FactValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&str> for FactValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Named values of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedFact {
    topic: &'static str,
    name: String,
    fields: Vec<u8>,
    is_whole: bool,
}

impl OwnedFact {
    /// Values of the thing `name` of kind `topic`, in order.
    #[must_use]
    pub fn new(topic: &'static str, name: &str, values: &[(&str, FactValue)]) -> Self {
        let mut fields = vec![0; FIELDS_BYTES_MAX];
        let mut writer = FieldsWriter::new(&mut fields);
        let mut is_whole = name.len() <= NAME_BYTES_MAX;
        for (key, value) in values {
            let written = match value {
                FactValue::Text(text) => {
                    let room = FIELDS_BYTES_MAX.saturating_sub(writer.len()).saturating_sub(key.len() + 16);
                    writer.field(key, Value::Str(front(text, room)))
                }
                FactValue::Number(number) => writer.field(key, Value::U64(*number)),
                FactValue::Flag(flag) => writer.field(key, Value::Bool(*flag)),
                FactValue::Bytes(bytes) => writer.field(key, Value::Bytes(bytes)),
            };
            is_whole &= written.is_ok();
        }
        let len = writer.len();
        fields.truncate(len);
        Self { topic, name: front(name, NAME_BYTES_MAX).to_owned(), fields, is_whole }
    }

    /// `None` if something did not fit.
    pub(super) fn whole(self) -> Option<Self> {
        self.is_whole.then_some(self)
    }

    /// As it is sent.
    pub(super) fn fact(&self) -> Fact<'_> {
        Fact { topic: self.topic, name: &self.name, fields: &self.fields }
    }
}

impl From<&SourceReport> for OwnedFact {
    fn from(report: &SourceReport) -> Self {
        let values = [
            ("works", report.works.into()),
            ("records", report.records.into()),
            ("errors", report.errors.into()),
            ("words", FactValue::Text(report.words.clone())),
        ];
        Self::new("source", &report.name, &values)
    }
}

/// The front of a text, of at most so many bytes.
fn front(text: &str, bytes: usize) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= bytes).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgasp_core::format::fields::Fields;

    #[test]
    fn a_fact_of_any_length_fits_a_message_and_its_values_come_back() {
        for len in [0, 10, 1000] {
            let long = "ä".repeat(len);
            let fact = OwnedFact::new("source", &long, &[("n", 7.into()), ("words", long.as_str().into())]);
            assert!(fact.name.len() + fact.fields.len() + RECORD_OVERHEAD_BYTES <= SMALL_MESSAGE_BYTES_MAX);
            let fields = Fields::new(&fact.fields);
            assert_eq!(fields.get("n"), Some(Value::U64(7)));
            let Some(Value::Str(words)) = fields.get("words") else { panic!("no words") };
            assert!(long.starts_with(words) && (len == 0 || !words.is_empty()));
        }
    }
}
