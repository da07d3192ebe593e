//! Records and their fields as JSON.
//!
//! Invariants: nothing is lost: what is not text is base64, keys keep their order, and a key that stands more than once
//! gets an array of its values, as in the journal's JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lastgasp_client::{List, Map, Record, Value};
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use crate::times;

/// One record as an object.
pub(crate) struct RecordJson<'a>(pub(crate) &'a Record<'a>);

impl Serialize for RecordJson<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let row = self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("seq", &row.seq)?;
        map.serialize_entry("stream", row.stream)?;
        map.serialize_entry("boot", &row.boot)?;
        map.serialize_entry("received", &row.received_us.and_then(times::rfc3339))?;
        map.serialize_entry("time", &row.event_time_us.and_then(times::rfc3339))?;
        map.serialize_entry("severity", &Some(row.severity).filter(|s| *s != 0))?;
        match std::str::from_utf8(row.body) {
            Ok(text) => map.serialize_entry("body", text)?,
            Err(_) => map.serialize_entry("body_base64", &STANDARD.encode(row.body))?,
        }
        if row.continued {
            map.serialize_entry("continued", &true)?;
        }
        if let Some(trace) = row.trace {
            map.serialize_entry("trace_id", &hex(&trace.trace_id))?;
            map.serialize_entry("span_id", &hex(&trace.span_id))?;
        }
        map.serialize_entry("fields", &Pairs(&row.fields()))?;
        let mut fields = row.fields();
        fields.by_ref().for_each(drop);
        if fields.is_malformed() {
            map.serialize_entry("fields_base64", &STANDARD.encode(row.field_bytes))?;
        }
        map.end()
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys and values as an object.
struct Pairs<'i, I>(&'i I);

impl<'a, I: Iterator<Item = (&'a str, Value<'a>)> + Clone> Serialize for Pairs<'_, I> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (index, (key, value)) in self.0.clone().enumerate() {
            if self.0.clone().take(index).any(|(earlier, _)| earlier == key) {
                continue;
            }
            let same = self.0.clone().skip(index).filter(|(k, _)| *k == key).map(|(_, value)| value);
            if same.clone().nth(1).is_some() {
                map.serialize_entry(key, &Values(&same))?;
            } else {
                map.serialize_entry(key, &OneValue(value))?;
            }
        }
        map.end()
    }
}

/// Values as an array.
struct Values<'i, I>(&'i I);

impl<'a, I: Iterator<Item = Value<'a>> + Clone> Serialize for Values<'_, I> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seq = to.serialize_seq(None)?;
        for value in self.0.clone() {
            seq.serialize_element(&OneValue(value))?;
        }
        seq.end()
    }
}

/// One value.
pub(crate) struct OneValue<'a>(pub(crate) Value<'a>);

impl Serialize for OneValue<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => to.serialize_unit(),
            Value::Bool(value) => to.serialize_bool(value),
            Value::I64(value) => to.serialize_i64(value),
            Value::U64(value) => to.serialize_u64(value),
            Value::F64(value) if value.is_finite() => to.serialize_f64(value),
            // JSON has no such numbers.
            Value::F64(value) => to.collect_str(&value),
            Value::Str(value) => to.serialize_str(value),
            Value::Bytes(value) => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(value))?;
                map.end()
            }
            Value::List(list) => Values::<List<'_>>(&list).serialize(to),
            Value::Map(map) => Pairs::<Map<'_>>(&map).serialize(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgasp_client::Fields;
    use lastgasp_core::format::fields::FieldsWriter;

    #[test]
    fn fields_keep_their_order_their_duplicates_and_their_bytes() {
        let mut out = [0; 256];
        let mut w = FieldsWriter::new(&mut out);
        w.field("z", Value::U64(u64::MAX)).unwrap();
        w.field("a", Value::Str("x")).unwrap();
        w.field("n", Value::F64(f64::NAN)).unwrap();
        w.field("a", Value::Null).unwrap();
        w.field("b", Value::Bytes(&[0xFF])).unwrap();
        w.map("m", |m| m.list("l", |l| l.value(Value::I64(-1)))).unwrap();
        let json = serde_json::to_string(&Pairs(&Fields::new(w.as_bytes()))).unwrap();
        let want = concat!(
            r#"{"z":18446744073709551615,"a":["x",null],"n":"NaN","#,
            r#""b":{"base64":"/w=="},"m":{"l":[-1]}}"#
        );
        assert_eq!(json, want);
    }

    #[test]
    fn malformed_fields_are_given_as_they_are() {
        let record = Record {
            seq: 1,
            stream: "s",
            severity: 0,
            boot: None,
            received_offset_us: 0,
            received_us: None,
            synchronised: false,
            event_time_us: Some(0),
            trace: None,
            continued: false,
            body: b"\xFF",
            field_bytes: &[1, b'k', 0, 9],
        };
        let json = serde_json::to_string(&RecordJson(&record)).unwrap();
        let want = concat!(
            r#"{"seq":1,"stream":"s","boot":null,"received":null,"time":"1970-01-01T00:00:00.000000Z","#,
            r#""severity":null,"#,
            r#""body_base64":"/w==","fields":{"k":null},"fields_base64":"AWsACQ=="}"#
        );
        assert_eq!(json, want);
    }
}
