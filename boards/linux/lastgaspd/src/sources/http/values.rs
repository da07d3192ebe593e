//! JSON values as fields: nested ones keep their shape to the depth that fields have, deeper ones are kept as text.
//!
//! Invariants: integers from the least `i64` to the greatest `u64` are exact, those beyond are kept as their digits;
//! the order and doubles of keys are kept; nothing of a refused field is left. Nothing is built in memory: values are
//! slices of the request until they are encoded.

use std::borrow::Cow;
use std::fmt;

use lastgasp_core::format::fields::{DEPTH_MAX, FieldsError, FieldsWriter, ListWriter, MapWriter, Value};
use serde::de::{Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::de::Deserializer;
use serde_json::value::RawValue;

/// Why a value is not kept.
#[derive(Debug)]
pub(super) enum BadValue {
    /// It is no JSON, in these words.
    Json(String),
    /// It does not fit.
    Fields(FieldsError),
}

impl From<FieldsError> for BadValue {
    fn from(error: FieldsError) -> Self {
        Self::Fields(error)
    }
}

impl From<serde_json::Error> for BadValue {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(reason(&error))
    }
}

/// What is wrong, without the place, which the library counts from where it began.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// The text of a JSON string.
pub(super) fn text(raw: &RawValue) -> Result<Cow<'_, str>, BadValue> {
    // Without escapes, it stands there as it is.
    let inside = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
    if !inside.contains('\\') {
        return Ok(Cow::Borrowed(inside));
    }
    Ok(Cow::Owned(serde_json::from_str(raw.get())?))
}

/// What kind of value it is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    Text,
    List,
    Map,
}

impl Kind {
    pub(super) fn of(raw: &RawValue) -> Self {
        match raw.get().as_bytes().first() {
            Some(b'"') => Self::Text,
            Some(b'{') => Self::Map,
            Some(b'[') => Self::List,
            Some(b't' | b'f') => Self::Bool,
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list",
            Self::Map => "an object",
        })
    }
}

/// A number, exactly.
fn number(raw: &str) -> Value<'_> {
    if let Ok(number) = raw.parse::<u64>() {
        return Value::U64(number);
    }
    if let Ok(number) = raw.parse::<i64>() {
        // Minus nought is no integer.
        return if number == 0 { Value::F64(-0.0) } else { Value::I64(number) };
    }
    let is_integer = !raw.contains(['.', 'e', 'E']);
    match raw.parse::<f64>() {
        Ok(number) if number.is_finite() && !is_integer => Value::F64(number),
        _ => Value::Str(raw),
    }
}

/// Adds a field of any value.
pub(super) fn field(writer: &mut FieldsWriter<'_>, key: &str, raw: &RawValue) -> Result<(), BadValue> {
    put(InFields(writer, key), raw, 1)
}

/// A place where a value can be written.
trait Place<'b>: Sized {
    fn value(self, value: Value<'_>) -> Result<(), FieldsError>;
    fn list(self, fill: impl FnOnce(&mut ListWriter<'_, 'b>) -> Result<(), FieldsError>) -> Result<(), FieldsError>;
    fn map(self, fill: impl FnOnce(&mut MapWriter<'_, 'b>) -> Result<(), FieldsError>) -> Result<(), FieldsError>;
}

struct InFields<'x, 'b>(&'x mut FieldsWriter<'b>, &'x str);
struct InList<'x, 'w, 'b>(&'x mut ListWriter<'w, 'b>);
struct InMap<'x, 'w, 'b>(&'x mut MapWriter<'w, 'b>, &'x str);

impl<'b> Place<'b> for InFields<'_, 'b> {
    fn value(self, value: Value<'_>) -> Result<(), FieldsError> {
        self.0.field(self.1, value)
    }
    fn list(self, fill: impl FnOnce(&mut ListWriter<'_, 'b>) -> Result<(), FieldsError>) -> Result<(), FieldsError> {
        self.0.list(self.1, fill)
    }
    fn map(self, fill: impl FnOnce(&mut MapWriter<'_, 'b>) -> Result<(), FieldsError>) -> Result<(), FieldsError> {
        self.0.map(self.1, fill)
    }
}

impl<'b> Place<'b> for InList<'_, '_, 'b> {
    fn value(self, value: Value<'_>) -> Result<(), FieldsError> {
        self.0.value(value)
    }
    fn list(self, fill: impl FnOnce(&mut ListWriter<'_, 'b>) -> Result<(), FieldsError>) -> Result<(), FieldsError> {
        self.0.list(fill)
    }
    fn map(self, fill: impl FnOnce(&mut MapWriter<'_, 'b>) -> Result<(), FieldsError>) -> Result<(), FieldsError> {
        self.0.map(fill)
    }
}

impl<'b> Place<'b> for InMap<'_, '_, 'b> {
    fn value(self, value: Value<'_>) -> Result<(), FieldsError> {
        self.0.field(self.1, value)
    }
    fn list(self, fill: impl FnOnce(&mut ListWriter<'_, 'b>) -> Result<(), FieldsError>) -> Result<(), FieldsError> {
        self.0.list(self.1, fill)
    }
    fn map(self, fill: impl FnOnce(&mut MapWriter<'_, 'b>) -> Result<(), FieldsError>) -> Result<(), FieldsError> {
        self.0.map(self.1, fill)
    }
}

/// Writes a value that would be the `depth`th list or map inside one another.
fn put<'b>(place: impl Place<'b>, raw: &RawValue, depth: u8) -> Result<(), BadValue> {
    let mut bad = None;
    let done = match Kind::of(raw) {
        Kind::Null => place.value(Value::Null),
        Kind::Bool => place.value(Value::Bool(raw.get() == "true")),
        Kind::Number => place.value(number(raw.get())),
        Kind::Text => place.value(Value::Str(&text(raw)?)),
        Kind::List | Kind::Map if depth > DEPTH_MAX => place.value(Value::Str(raw.get())),
        Kind::List => place.list(|list| {
            let read = Deserializer::from_str(raw.get()).deserialize_seq(Items { list, depth, bad: &mut bad });
            read.map_err(|error| refuse(&mut bad, &error))
        }),
        Kind::Map => place.map(|map| {
            let read = Deserializer::from_str(raw.get()).deserialize_map(Pairs { map, depth, bad: &mut bad });
            read.map_err(|error| refuse(&mut bad, &error))
        }),
    };
    match bad {
        Some(bad) => Err(bad),
        None => Ok(done?),
    }
}

/// Takes note of why a list or map is refused, unless that is known better.
fn refuse(bad: &mut Option<BadValue>, error: &serde_json::Error) -> FieldsError {
    bad.get_or_insert_with(|| BadValue::Json(reason(error)));
    FieldsError::NoRoom
}

struct Items<'x, 'w, 'b> {
    list: &'x mut ListWriter<'w, 'b>,
    depth: u8,
    bad: &'x mut Option<BadValue>,
}

impl<'de> Visitor<'de> for Items<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(raw) = items.next_element::<&RawValue>()? {
            if let Err(bad) = put(InList(self.list), raw, self.depth.saturating_add(1)) {
                *self.bad = Some(bad);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

struct Pairs<'x, 'w, 'b> {
    map: &'x mut MapWriter<'w, 'b>,
    depth: u8,
    bad: &'x mut Option<BadValue>,
}

impl<'de> Visitor<'de> for Pairs<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<(), A::Error> {
        while let Some((key, raw)) = pairs.next_entry::<Cow<'_, str>, &RawValue>()? {
            if let Err(bad) = put(InMap(self.map, &key), raw, self.depth.saturating_add(1)) {
                *self.bad = Some(bad);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgasp_core::format::fields::Fields;

    fn kept(json: &str) -> Result<String, BadValue> {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        let mut space = [0; 4096];
        let mut writer = FieldsWriter::new(&mut space);
        field(&mut writer, "k", raw)?;
        let mut fields = Fields::new(writer.into_bytes());
        let shown = format!("{:?}", fields.next().unwrap().1);
        assert!(fields.next().is_none() && !fields.is_malformed());
        Ok(shown)
    }

    #[test]
    fn numbers_are_exact_or_their_digits() {
        let numbers = [
            ("0", "U64(0)"),
            ("18446744073709551615", "U64(18446744073709551615)"),
            ("18446744073709551616", "Str(\"18446744073709551616\")"),
            ("-9223372036854775808", "I64(-9223372036854775808)"),
            ("-9223372036854775809", "Str(\"-9223372036854775809\")"),
            ("-0", "F64(-0.0)"),
            ("1.5", "F64(1.5)"),
            ("1e3", "F64(1000.0)"),
            ("1e999", "Str(\"1e999\")"),
        ];
        for (json, want) in numbers {
            assert_eq!(kept(json).unwrap(), want, "{json}");
        }
        let plain =
            [("null", "Null"), ("true", "Bool(true)"), ("false", "Bool(false)"), (r#""a\n\u00e9""#, r#"Str("a\né")"#)];
        for (json, want) in plain {
            assert_eq!(kept(json).unwrap(), want, "{json}");
        }
    }

    #[test]
    fn nested_values_keep_their_shape_and_deeper_ones_their_text() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let mut space = [0; 4096];
        let raw = nested(10);
        let raw: &RawValue = serde_json::from_str(&raw).unwrap();
        let mut writer = FieldsWriter::new(&mut space);
        field(&mut writer, "k", raw).unwrap();
        let mut value = Fields::new(writer.into_bytes()).get("k").unwrap();
        for _ in 0..DEPTH_MAX {
            let Value::List(mut list) = value else { panic!("{value:?}") };
            value = list.next().unwrap();
        }
        assert_eq!(value, Value::Str("[[1]]"));
        let deep = nested(100_000);
        let raw: &RawValue = serde_json::from_str(&deep).unwrap();
        let mut space = vec![0; 1 << 20];
        field(&mut FieldsWriter::new(&mut space), "k", raw).unwrap();
    }

    #[test]
    fn what_does_not_fit_and_what_is_no_text_is_refused() {
        assert!(matches!(kept(&format!("[{}1]", "1,".repeat(5000))), Err(BadValue::Fields(FieldsError::NoRoom))));
        for bad in [r#""\ud800""#, r#"{"a":["\ud800"]}"#, r#"{"\ud800":1}"#] {
            assert!(matches!(kept(bad), Err(BadValue::Json(_))), "{bad}");
        }
    }
}
