//! The records of a request: JSON objects or strings, one after another (NDJSON), or a JSON array of them.
//!
//! | key | means | aliases, in this order |
//! |---|---|---|
//! | `body` | the text of the record; what is no string is kept as its JSON | `message`, `msg` |
//! | `time` | when it happened: RFC 3339, or seconds, ms, us or ns since 1970 | `timestamp`, `ts`, `@timestamp` |
//! | `severity` | a name, or a number of OpenTelemetry | `level`: a name, or a number of syslog or bunyan |
//! | `stream` | which stream it belongs to; else `http` | `source`, `service` |
//! | `fields` | an object: its keys are fields | `metadata` |
//! | `trace_id`, `span_id` | 32 and 16 hexadecimal digits | |
//!
//! Other keys are fields. Invariants: a request is one batch, taken in whole or not at all; of a key and its aliases
//! only the first is taken, the others are fields; an alias that holds something else is a field; a key itself that
//! does is an error, and every error names its line; memory is that of the parcel and a few bytes for each key of one
//! record.

use std::borrow::Cow;
use std::fmt;

use lastgasp_core::format::fields::{FieldsError, FieldsWriter, Value};
use lastgasp_core::format::row::{STREAM_NAME_BYTES_MAX, TraceContext};
use serde::de::{Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::de::Deserializer;
use serde_json::value::RawValue;

use super::meaning::{By, id, severity, time_us};
use super::values::{BadValue, Kind, field, reason, text};
use crate::parcel::{Parcel, Slot};
use crate::sources::severity::detect;

/// The stream of records that name none.
pub const STREAM: &str = "http";
/// Keys of one record.
const KEYS_MAX: usize = 1024;
/// Streams of one request.
const STREAMS_MAX: usize = 256;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// It does not say what it should.
    Wrong {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A record is larger than the store takes.
    TooLarge {
        /// From 1.
        line: usize,
        /// What is too large, and how large it may be.
        reason: String,
    },
}

/// Puts the records of a request into a parcel, as a batch that is not ended yet; how many.
pub(super) fn ingest(body: &[u8], parcel: &mut Parcel, record_bytes_max: usize) -> Result<usize, BadRequest> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let whole = str::from_utf8(body).map_err(|error| {
        let before = body.get(..error.valid_up_to()).unwrap_or_default();
        BadRequest::Wrong { line: line(before), reason: "this is not UTF-8".to_owned() }
    })?;
    let mut records = Records { whole, parcel, record_bytes_max: record_bytes_max.max(2), bad: None };
    let is_array = whole.trim_ascii_start().starts_with('[');
    let mut reader = Deserializer::from_str(whole);
    let read = if is_array {
        reader.deserialize_seq(&mut records).and_then(|()| reader.end())
    } else {
        reader.into_iter::<&RawValue>().try_for_each(|raw| records.take(raw?))
    };
    match (read, records.bad.take()) {
        (Ok(()), None) => Ok(parcel.records()),
        (_, Some(bad)) => Err(bad),
        (Err(error), None) => {
            let reason = match error.classify() {
                serde_json::error::Category::Eof => "the JSON ends too early".to_owned(),
                _ => reason(&error),
            };
            Err(BadRequest::Wrong { line: error.line().max(1), reason: format!("this is no JSON: {reason}") })
        }
    }
}

/// The line that comes after these bytes.
fn line(before: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', before).count().saturating_add(1)
}

/// Takes records one after another.
struct Records<'r, 't> {
    whole: &'t str,
    parcel: &'r mut Parcel,
    record_bytes_max: usize,
    bad: Option<BadRequest>,
}

impl<'de> Visitor<'de> for &mut Records<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<(), A::Error> {
        while let Some(raw) = records.next_element::<&RawValue>()? {
            self.take(raw).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

impl Records<'_, '_> {
    fn take(&mut self, raw: &RawValue) -> Result<(), serde_json::Error> {
        let taken = match Kind::of(raw) {
            Kind::Text => text(raw).map_err(Why::from).and_then(|body| self.push(&body, Known::default(), &[])),
            Kind::Map => self.take_object(raw),
            other => Err(Why::Wrong(format!("a record is an object or a string, and this is {other}"))),
        };
        taken.map_err(|why| {
            let at = raw.get().as_ptr().addr().saturating_sub(self.whole.as_ptr().addr());
            let line = line(self.whole.as_bytes().get(..at).unwrap_or_default());
            self.bad = Some(match why {
                Why::Wrong(reason) => BadRequest::Wrong { line, reason },
                Why::TooLarge(reason) => BadRequest::TooLarge { line, reason },
            });
            serde_json::Error::custom("refused")
        })
    }

    fn take_object(&mut self, raw: &RawValue) -> Result<(), Why> {
        let mut pairs = Deserializer::from_str(raw.get()).deserialize_map(Pairs)?;
        let known = Known::pick(&mut pairs)?;
        let body = match known.body {
            Some(body) if Kind::of(body) == Kind::Text => text(body)?,
            Some(body) => Cow::Borrowed(body.get()),
            None => return Err(Why::Wrong("there is no body (or message, or msg)".to_owned())),
        };
        self.push(&body, known, &pairs)
    }

    fn push(&mut self, body: &str, known: Known<'_>, rest: &[Pair<'_>]) -> Result<(), Why> {
        let name = known.stream.as_deref().unwrap_or(STREAM);
        let stream = self.parcel.stream(name);
        if self.parcel.streams().len() > STREAMS_MAX {
            return Err(Why::Wrong(format!("the request names more than {STREAMS_MAX} streams")));
        }
        let fields = self.fields(&known, rest)?;
        let severity = known.severity.unwrap_or_else(|| detect(body.as_bytes()));
        let slot =
            Slot { severity, event_time_us: known.event_time_us, trace: known.trace, ..Slot::plain(stream, 0..0) };
        let mut rest = body.as_bytes();
        let mut room = self.record_bytes_max.saturating_sub(fields.len());
        let mut fields = Some(fields);
        loop {
            let (part, after) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            let body = self.parcel.copy(part);
            let fields = fields.take().unwrap_or(0..0);
            self.parcel.push(Slot { body, fields, continued: !after.is_empty(), ..slot.clone() });
            (rest, room) = (after, self.record_bytes_max);
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn fields(&mut self, known: &Known<'_>, rest: &[Pair<'_>]) -> Result<std::ops::Range<usize>, Why> {
        let raw_bytes = |pairs: &[Pair<'_>]| -> usize {
            pairs.iter().map(|pair| pair.key.len().saturating_add(pair.raw.get().len()).saturating_add(16)).sum()
        };
        let nested = raw_bytes(rest).saturating_add(known.fields.iter().map(|raw| raw.get().len() + 16).sum());
        let nested = nested.saturating_add(known.half_id.map_or(0, |(key, id)| key.len().saturating_add(id.len())));
        if nested == 0 {
            return Ok(0..0);
        }
        // A JSON value takes less than three times its text: `[1.5]` becomes eleven bytes.
        let max = self.record_bytes_max / 2;
        let room = nested.saturating_mul(3).min(max);
        let mut bad = None;
        let written = self.parcel.fields(room, |writer| {
            write_fields(writer, known, rest).map_err(|why| {
                let error = match &why {
                    BadValue::Fields(error) => *error,
                    BadValue::Json(_) => FieldsError::NoRoom,
                };
                bad = Some(why);
                error
            })
        });
        match (written, bad) {
            (Ok(fields), _) => Ok(fields),
            (Err(_), Some(BadValue::Json(reason))) => Err(Why::Wrong(reason)),
            (Err(_), _) => Err(Why::TooLarge(format!("the fields of this record are more than {max} bytes"))),
        }
    }
}

fn write_fields(writer: &mut FieldsWriter<'_>, known: &Known<'_>, rest: &[Pair<'_>]) -> Result<(), BadValue> {
    for raw in &known.fields {
        let pairs = Deserializer::from_str(raw.get()).deserialize_map(Pairs)?;
        for pair in &pairs {
            field(writer, &pair.key, pair.raw)?;
        }
    }
    for pair in rest {
        field(writer, &pair.key, pair.raw)?;
    }
    // Half of what belongs together is a field like others.
    match known.half_id {
        Some((key, id)) => Ok(writer.field(key, Value::Str(id))?),
        None => Ok(()),
    }
}

/// Why a record is refused.
enum Why {
    Wrong(String),
    TooLarge(String),
}

impl From<BadValue> for Why {
    fn from(bad: BadValue) -> Self {
        match bad {
            BadValue::Json(reason) => Self::Wrong(reason),
            BadValue::Fields(error) => Self::TooLarge(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for Why {
    fn from(error: serde_json::Error) -> Self {
        Self::Wrong(reason(&error))
    }
}

/// A key and its value.
struct Pair<'t> {
    key: Cow<'t, str>,
    raw: &'t RawValue,
}

/// Reads the keys and values of an object.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<Pair<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Vec<Pair<'de>>, A::Error> {
        let mut all = Vec::new();
        while let Some((key, raw)) = pairs.next_entry::<Cow<'de, str>, &'de RawValue>()? {
            if all.len() >= KEYS_MAX {
                return Err(A::Error::custom(format!("an object has more than {KEYS_MAX} keys")));
            }
            all.push(Pair { key, raw });
        }
        Ok(all)
    }
}

/// What the keys with a meaning say.
#[derive(Default)]
struct Known<'t> {
    body: Option<&'t RawValue>,
    event_time_us: Option<i64>,
    severity: Option<u8>,
    stream: Option<Cow<'t, str>>,
    fields: Vec<&'t RawValue>,
    trace: Option<TraceContext>,
    half_id: Option<(&'static str, &'t str)>,
}

impl<'t> Known<'t> {
    /// Takes the keys with a meaning out of the pairs; those that stay are fields.
    fn pick(pairs: &mut Vec<Pair<'t>>) -> Result<Self, Why> {
        let body = take(pairs, &["body", "message", "msg"], |_, raw| Ok(Some(raw)))?;
        let event_time_us = take(pairs, &["time", "timestamp", "ts", "@timestamp"], |key, raw| {
            let time = scalar(raw)?.and_then(|text| time_us(&text));
            let wrong = "is neither RFC 3339 nor a number of seconds, ms, us or ns since 1970";
            checked(key == "time", time, key, raw, wrong)
        })?;
        let severity = take(pairs, &["severity", "level"], |key, raw| {
            let by = if key == "severity" { By::Severity } else { By::Level };
            let number = scalar(raw)?.and_then(|text| severity(&text, by));
            checked(key == "severity", number, key, raw, "is no severity; use a name as info or error, or 1 to 24")
        })?;
        let stream = take(pairs, &["stream", "source", "service"], |key, raw| {
            let name = if Kind::of(raw) == Kind::Text { Some(text(raw)?) } else { None };
            let name = name.filter(|name| (1..=STREAM_NAME_BYTES_MAX).contains(&name.len()));
            checked(key == "stream", name, key, raw, "is no string of 1 to 255 bytes")
        })?;
        let mut fields = Vec::new();
        for key in ["fields", "metadata"] {
            let object = take(pairs, &[key], |key, raw| {
                let object = Some(raw).filter(|raw| Kind::of(raw) == Kind::Map);
                checked(key == "fields", object, key, raw, "is no object")
            })?;
            fields.extend(object);
        }
        let mut known = Self { body, event_time_us, severity, stream, fields, trace: None, half_id: None };
        known.pick_trace(pairs)?;
        Ok(known)
    }

    fn pick_trace(&mut self, pairs: &mut Vec<Pair<'t>>) -> Result<(), Why> {
        let mut of = |key: &'static str| {
            take(pairs, &[key], |_, raw| {
                let inside = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                let is_id = |text: &&str| match key {
                    "trace_id" => id::<16>(text).is_some(),
                    _ => id::<8>(text).is_some(),
                };
                Ok(inside.filter(is_id))
            })
        };
        let (trace, span) = (of("trace_id")?, of("span_id")?);
        match (trace.and_then(id), span.and_then(id)) {
            (Some(trace_id), Some(span_id)) => self.trace = Some(TraceContext { trace_id, span_id }),
            _ => self.half_id = trace.map(|id| ("trace_id", id)).or(span.map(|id| ("span_id", id))),
        }
        Ok(())
    }
}

/// Takes out the first of these keys whose value is understood.
fn take<'t, T>(
    pairs: &mut Vec<Pair<'t>>,
    keys: &[&str],
    understand: impl Fn(&str, &'t RawValue) -> Result<Option<T>, Why>,
) -> Result<Option<T>, Why> {
    for key in keys {
        let Some(at) = pairs.iter().position(|pair| pair.key == *key) else { continue };
        let Some(raw) = pairs.get(at).map(|pair| pair.raw) else { continue };
        if Kind::of(raw) == Kind::Null {
            pairs.remove(at); // says nothing
            continue;
        }
        if let Some(value) = understand(key, raw)? {
            pairs.remove(at);
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A key that says what it is has to be right; of an alias nobody promised anything.
fn checked<T>(is_key: bool, value: Option<T>, key: &str, raw: &RawValue, wrong: &str) -> Result<Option<T>, Why> {
    if value.is_some() || !is_key {
        return Ok(value);
    }
    let shown: String = raw.get().chars().take(60).collect();
    Err(Why::Wrong(format!("{key}: {shown} {wrong}")))
}

/// The text of a string or number.
fn scalar(raw: &RawValue) -> Result<Option<Cow<'_, str>>, Why> {
    Ok(match Kind::of(raw) {
        Kind::Text => Some(text(raw)?),
        Kind::Number => Some(Cow::Borrowed(raw.get())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgasp_core::format::fields::Fields;

    /// Stream, severity, time, body, fields of the records of a request.
    fn taken(request: &str) -> Result<Vec<String>, BadRequest> {
        let mut parcel = Parcel::default();
        let count = ingest(request.as_bytes(), &mut parcel, 1 << 16)?;
        parcel.end_batch(None);
        let slots = parcel.batch(0).map_or(&[][..], |batch| batch.slots);
        assert_eq!(slots.len(), count);
        let shown = |slot: &Slot| {
            let fields = Fields::new(parcel.get(&slot.fields)).map(|(key, value)| format!(" {key}={value:?}"));
            let body = str::from_utf8(parcel.get(&slot.body)).unwrap();
            let time = slot.event_time_us.map_or(String::new(), |t| format!("@{t}"));
            format!("{} {}{time} {body}{}", parcel.stream_name(slot.stream), slot.severity, fields.collect::<String>())
        };
        Ok(slots.iter().map(shown).collect())
    }

    fn wrong(request: &str) -> (usize, String) {
        match taken(request) {
            Err(BadRequest::Wrong { line, reason }) => (line, reason),
            other => panic!("{request}: {other:?}"),
        }
    }

    #[test]
    fn objects_strings_lines_and_arrays_are_records() {
        let want = ["http 0 a", "http 0 b c", "s 9 d"];
        let records = [r#"{"body":"a"}"#, r#""b\u0020c""#, r#"{"stream":"s","body":"d","severity":"info"}"#];
        for request in [
            records.join("\n"),
            format!("{}\r\n\n", records.join("\r\n")),
            format!("\u{feff}[{}]", records.join(",")),
            format!(" [\n{}\n]\n", records.join(",\n")),
            records.join(" ").replace(',', ",\n  "),
        ] {
            assert_eq!(taken(&request).unwrap(), want, "{request}");
        }
        for empty in ["", " \n", "[]"] {
            assert!(taken(empty).unwrap().is_empty());
        }
    }

    #[test]
    fn the_names_that_people_use_mean_what_they_mean() {
        let means = [
            (r#"{"message":"m","level":"warn","timestamp":1700000000,"service":"web"}"#, "web 13@1700000000000000 m"),
            (r#"{"msg":"m","level":50,"ts":1700000000.25,"source":"x"}"#, "x 17@1700000000250000 m"),
            (r#"{"@timestamp":"2023-11-14T22:13:20Z","message":"m"}"#, "http 0@1700000000000000 m"),
            (
                r#"{"body":"m","fields":{"a":1},"b":[true,null],"metadata":{"c":"d"}}"#,
                "http 0 m a=U64(1) c=Str(\"d\") b=List",
            ),
            (r#"{"body":{"a":1}}"#, r#"http 0 {"a":1}"#),
            (r#"{"body":7}"#, "http 0 7"),
            (r#"{"body":"ERROR: no"}"#, "http 17 ERROR: no"),
            (r#"{"body":"x","time":null,"stream":null,"severity":null}"#, "http 0 x"),
            // Of a key and its aliases one is taken; what an alias is not, it stays.
            (r#"{"msg":"2","body":"1"}"#, "http 0 1 msg=Str(\"2\")"),
            (r#"{"body":"1","level":"loud","ts":"now"}"#, "http 0 1 level=Str(\"loud\") ts=Str(\"now\")"),
            (r#"{"body":"1","source":{"a":1}}"#, "http 0 1 source=Map"),
            (r#"{"body":"1","metadata":3}"#, "http 0 1 metadata=U64(3)"),
            (r#"{"body":"1","a":1,"a":2}"#, "http 0 1 a=U64(1) a=U64(2)"),
            (
                r#"{"body":"1","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
                "http 0 1 trace_id=Str(\"4bf92f3577b34da6a3ce929d0e0e4736\")",
            ),
        ];
        for (request, want) in means {
            let got = taken(request).unwrap();
            assert!(got.len() == 1 && got[0].starts_with(want), "{request}: {got:?}");
        }
        let mut parcel = Parcel::default();
        let ids = r#"{"body":"","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7"}"#;
        ingest(ids.as_bytes(), &mut parcel, 1000).unwrap();
        parcel.end_batch(None);
        let slot = &parcel.batch(0).unwrap().slots[0];
        assert!(slot.fields.is_empty() && slot.trace.is_some_and(|t| t.trace_id[0] == 0x4b && t.span_id[7] == 0xb7));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let errors = [
            ("{\"body\":\"a\"}\n{\"body\":", 2, "the JSON ends too early"),
            ("{\"body\":\"a\"}\nhello\n", 2, "no JSON"),
            ("\"a\"\n\n7\n", 3, "an object or a string, and this is a number"),
            ("[\"a\",\n[]]", 2, "this is a list"),
            ("[\"a\"] x", 1, "no JSON"),
            ("\"a\"\n{\"text\":1}", 2, "there is no body"),
            ("{\"body\":1,\"time\":\"yesterday\"}", 1, "time: \"yesterday\" is neither"),
            ("{\"body\":1,\"severity\":\"loud\"}", 1, "severity: \"loud\" is no severity"),
            ("{\"body\":1,\"stream\":7}", 1, "stream: 7 is no string"),
            ("{\"body\":1,\"stream\":\"\"}", 1, "is no string of 1 to 255 bytes"),
            ("{\"body\":1,\"fields\":[]}", 1, "fields: [] is no object"),
            ("\"\\ud800\"", 1, "hex escape"),
            ("{\"body\":\"a\",\"b\":{\"c\":\"\\ud800\"}}", 1, "hex escape"),
        ];
        for (request, line, reason) in errors {
            let got = wrong(request);
            assert!(got.0 == line && got.1.contains(reason), "{request}: {got:?}");
        }
        let not_text = ingest(b"\"a\"\n\"\xff\"", &mut Parcel::default(), 1000);
        assert_eq!(not_text, Err(BadRequest::Wrong { line: 2, reason: "this is not UTF-8".to_owned() }));
        let many: String = (0..300).map(|i| format!("{{\"body\":\"\",\"stream\":\"s{i}\"}}\n")).collect();
        assert!(wrong(&many).1.contains("more than 256 streams"));
        let keys: Vec<String> = (0..2000).map(|i| format!("\"k{i}\":1")).collect();
        assert!(wrong(&format!("{{\"body\":1,{}}}", keys.join(","))).1.contains("more than 1024 keys"));
    }

    #[test]
    fn a_long_body_is_kept_in_parts_and_fields_have_to_fit() {
        let mut parcel = Parcel::default();
        let request = format!("{{\"body\":\"{}\",\"a\":\"{}\"}}\n\"next\"", "x".repeat(2500), "y".repeat(100));
        assert_eq!(ingest(request.as_bytes(), &mut parcel, 1000), Ok(4));
        parcel.end_batch(None);
        let slots = parcel.batch(0).unwrap().slots;
        let sizes: Vec<_> = slots.iter().map(|s| (s.body.len() + s.fields.len(), s.continued)).collect();
        assert_eq!(sizes.iter().map(|s| s.1).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(sizes.iter().all(|s| s.0 <= 1000) && slots[1].fields.is_empty());
        assert_eq!(slots.iter().map(|s| s.body.len()).sum::<usize>(), 2504);
        let request = format!("\"a\"\n{{\"body\":\"\",\"a\":\"{}\"}}", "y".repeat(600));
        let refused = ingest(request.as_bytes(), &mut Parcel::default(), 1000);
        assert!(matches!(refused, Err(BadRequest::TooLarge { line: 2, .. })), "{refused:?}");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let seeds = [
            r#"{"body":"a","time":"2023-11-14T22:13:20Z","severity":"info","fields":{"a":[1,2.5,{"b":0}]},"x":-1}"#,
            r#"[{"message":"\u00e9\n","level":30},"two",{"msg":[],"ts":1700000000000,"trace_id":"00"}]"#,
        ];
        let mut x = 0xbeef_u64;
        println!("seed {x:#x}");
        let mut random = |below: usize| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(x >> 33).unwrap() % below
        };
        for i in 0..20_000 {
            let mut request = seeds[i % 2].as_bytes().to_vec();
            for _ in 0..random(5) {
                let at = random(request.len());
                match random(3) {
                    0 => request[at] = random(256).to_le_bytes()[0],
                    1 => request.truncate(at.max(1)),
                    _ => request.insert(at, b"{}[]\",:\\0-e\n "[random(13)]),
                }
            }
            let mut parcel = Parcel::default();
            if let Ok(count) = ingest(&request, &mut parcel, 64) {
                parcel.end_batch(None);
                let slots = parcel.batch(0).map_or(&[][..], |batch| batch.slots);
                assert_eq!(slots.len(), count);
                assert!(slots.iter().all(|s| s.body.len() + s.fields.len() <= 64));
            }
            assert!(parcel.bytes.len() <= 4 * request.len() + 64);
        }
    }
}
