//! Fields of a record: an ordered list of keys and values; duplicates and nesting are allowed (SPEC, section 5).
//!
//! The bytes are those of postcard (<https://postcard.jamesmunns.com>), so every number but a float is a varint (7 bits
//! a byte, low bits first, the top bit set on all but the last byte), signed ones zigzag-coded. The list has no length
//! of its own: it ends where its bytes end.
//!
//! | what | bytes |
//! |---|---|
//! | fields | (key, value) one after another |
//! | key | length as a varint, that many bytes of UTF-8 |
//! | null | `00` |
//! | bool | `01`, then `00` or `01` |
//! | i64 | `02`, then the number zigzag-coded as a varint |
//! | u64 | `03`, then the number as a varint |
//! | f64 | `04`, then 8 bytes of IEEE 754, little-endian |
//! | string | `05`, length as a varint, that many bytes of UTF-8 |
//! | bytes | `06`, length as a varint, that many bytes |
//! | list | `07`, number of values as a varint, the values |
//! | map | `08`, number of pairs as a varint, (key, value) as often |
//!
//! Invariants: at most [`DEPTH_MAX`] lists and maps stand inside one another, for the writer and for the reader; a
//! writer that refuses something is left as it was; what a reader gives out was looked at to its last byte, so lists
//! and maps it gives out are never malformed.

use super::bytes::put;
use super::row::ItemReader;
use core::fmt;
use serde::Serialize;

/// How many lists and maps may stand inside one another.
pub const DEPTH_MAX: u8 = 8;

const TAG_NULL: u8 = 0;
const TAG_BOOL: u8 = 1;
const TAG_I64: u8 = 2;
const TAG_U64: u8 = 3;
const TAG_F64: u8 = 4;
const TAG_STR: u8 = 5;
const TAG_BYTES: u8 = 6;
const TAG_LIST: u8 = 7;
const TAG_MAP: u8 = 8;

/// A value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A signed number.
    I64(i64),
    /// An unsigned number.
    U64(u64),
    /// A floating-point number.
    F64(f64),
    /// Text.
    Str(&'a str),
    /// Bytes that are not text.
    Bytes(&'a [u8]),
    /// Values in order.
    List(List<'a>),
    /// Keys and values in order.
    Map(Map<'a>),
}

/// Why fields were not written. Nothing of the refused field is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FieldsError {
    /// The caller's memory is full.
    NoRoom,
    /// More than [`DEPTH_MAX`] lists and maps inside one another.
    TooDeep,
}

impl fmt::Display for FieldsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("no room for this field"),
            Self::TooDeep => write!(f, "more than {DEPTH_MAX} lists and maps inside one another"),
        }
    }
}

impl core::error::Error for FieldsError {}

/// Reads the fields of a record; ends at the end of the bytes or at the first pair that is malformed.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    reader: ItemReader<'a>,
    malformed: bool,
}

impl<'a> Fields<'a> {
    /// Reads `bytes`, which may be anything.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { reader: ItemReader::new(bytes), malformed: false }
    }

    /// `true` if reading ended at something malformed.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// The first value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.clone().find(|(k, _)| *k == key).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<(&'a str, Value<'a>)> {
        if self.malformed || self.reader.rest().is_empty() {
            return None;
        }
        let pair = take_pair(&mut self.reader, 0);
        self.malformed = pair.is_none();
        pair
    }
}

/// The values of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List<'a>(Nested<'a>);

/// The keys and values of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map<'a>(Nested<'a>);

/// The inside of a list or map that was looked at as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Nested<'a> {
    bytes: &'a [u8],
    /// How many values or pairs.
    left: u64,
    /// In how many lists and maps these values stand.
    depth: u8,
}

impl List<'_> {
    /// How many values are still to come.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.left
    }

    /// `true` if none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.left == 0
    }
}

impl Map<'_> {
    /// How many pairs are still to come.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.left
    }

    /// `true` if none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.left == 0
    }
}

impl<'a> Iterator for List<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.0.next(take_value)
    }
}

impl<'a> Iterator for Map<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<(&'a str, Value<'a>)> {
        self.0.next(take_pair)
    }
}

impl<'a> Nested<'a> {
    fn next<T>(&mut self, take: impl Fn(&mut ItemReader<'a>, u8) -> Option<T>) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = ItemReader::new(self.bytes);
        let taken = take(&mut reader, self.depth);
        self.bytes = reader.rest();
        taken
    }
}

fn take_pair<'a>(reader: &mut ItemReader<'a>, depth: u8) -> Option<(&'a str, Value<'a>)> {
    let key = reader.value()?;
    Some((key, take_value(reader, depth)?))
}

/// Takes a value that stands in `depth` lists and maps. It calls itself at most [`DEPTH_MAX`] deep.
fn take_value<'a>(reader: &mut ItemReader<'a>, depth: u8) -> Option<Value<'a>> {
    Some(match reader.value::<u8>()? {
        TAG_NULL => Value::Null,
        TAG_BOOL => Value::Bool(reader.value()?),
        TAG_I64 => Value::I64(reader.value()?),
        TAG_U64 => Value::U64(reader.value()?),
        TAG_F64 => Value::F64(reader.value()?),
        TAG_STR => Value::Str(reader.value()?),
        TAG_BYTES => Value::Bytes(reader.value()?),
        TAG_LIST => Value::List(List(take_nested(reader, depth, |r, depth| take_value(r, depth).map(|_| ()))?)),
        TAG_MAP => Value::Map(Map(take_nested(reader, depth, |r, depth| take_pair(r, depth).map(|_| ()))?)),
        _ => return None,
    })
}

fn take_nested<'a>(
    reader: &mut ItemReader<'a>,
    depth: u8,
    skip: impl Fn(&mut ItemReader<'a>, u8) -> Option<()>,
) -> Option<Nested<'a>> {
    let depth = depth.checked_add(1).filter(|depth| *depth <= DEPTH_MAX)?;
    let left: u64 = reader.value()?;
    let all = reader.rest();
    // Every value takes a byte, so a false count ends at the end of the bytes.
    for _ in 0..left {
        skip(reader, depth)?;
    }
    let bytes = all.get(..all.len().checked_sub(reader.rest().len())?)?;
    Some(Nested { bytes, left, depth })
}

/// Writes the fields of a record into the caller's memory.
#[derive(Debug)]
pub struct FieldsWriter<'b> {
    out: Out<'b>,
}

impl<'b> FieldsWriter<'b> {
    /// Starts at the front of `out`.
    pub fn new(out: &'b mut [u8]) -> Self {
        Self { out: Out { bytes: out, at: 0 } }
    }

    /// Bytes written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.at
    }

    /// `true` if nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.at == 0
    }

    /// What was written, for [`super::row::Row::fields`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.out.bytes.get(..self.out.at).unwrap_or_default()
    }

    /// What was written, for as long as the caller's memory lives.
    #[must_use]
    pub fn into_bytes(self) -> &'b [u8] {
        let Out { bytes, at } = self.out;
        bytes.get(..at).unwrap_or_default()
    }

    /// Adds a field.
    ///
    /// # Errors
    /// [`FieldsError`]; nothing of the field is left.
    pub fn field(&mut self, key: &str, value: Value<'_>) -> Result<(), FieldsError> {
        self.top().field(key, value)
    }

    /// Adds a field whose value is the list that `fill` writes.
    ///
    /// # Errors
    /// [`FieldsError`], or what `fill` returns; nothing of the field is left.
    pub fn list(
        &mut self,
        key: &str,
        fill: impl FnOnce(&mut ListWriter<'_, 'b>) -> Result<(), FieldsError>,
    ) -> Result<(), FieldsError> {
        self.top().list(key, fill)
    }

    /// Adds a field whose value is the map that `fill` writes.
    ///
    /// # Errors
    /// [`FieldsError`], or what `fill` returns; nothing of the field is left.
    pub fn map(
        &mut self,
        key: &str,
        fill: impl FnOnce(&mut MapWriter<'_, 'b>) -> Result<(), FieldsError>,
    ) -> Result<(), FieldsError> {
        self.top().map(key, fill)
    }

    /// The fields are a map without a tag and a count.
    fn top(&mut self) -> MapWriter<'_, 'b> {
        MapWriter { out: &mut self.out, depth: 0, count: 0 }
    }
}

/// Writes the values of a list.
#[derive(Debug)]
pub struct ListWriter<'w, 'b> {
    out: &'w mut Out<'b>,
    depth: u8,
    count: u64,
}

impl<'b> ListWriter<'_, 'b> {
    /// Adds a value.
    ///
    /// # Errors
    /// [`FieldsError`]; nothing of the value is left.
    pub fn value(&mut self, value: Value<'_>) -> Result<(), FieldsError> {
        let depth = self.depth;
        self.add(|out| out.value(value, depth))
    }

    /// Adds the list that `fill` writes.
    ///
    /// # Errors
    /// [`FieldsError`], or what `fill` returns; nothing of the value is left.
    pub fn list(
        &mut self,
        fill: impl FnOnce(&mut ListWriter<'_, 'b>) -> Result<(), FieldsError>,
    ) -> Result<(), FieldsError> {
        let depth = self.depth;
        self.add(|out| out.list(depth, fill))
    }

    /// Adds the map that `fill` writes.
    ///
    /// # Errors
    /// [`FieldsError`], or what `fill` returns; nothing of the value is left.
    pub fn map(
        &mut self,
        fill: impl FnOnce(&mut MapWriter<'_, 'b>) -> Result<(), FieldsError>,
    ) -> Result<(), FieldsError> {
        let depth = self.depth;
        self.add(|out| out.map(depth, fill))
    }

    fn add(&mut self, write: impl FnOnce(&mut Out<'b>) -> Result<(), FieldsError>) -> Result<(), FieldsError> {
        self.out.whole(write)?;
        self.count = self.count.saturating_add(1);
        Ok(())
    }
}

/// Writes the keys and values of a map.
#[derive(Debug)]
pub struct MapWriter<'w, 'b> {
    out: &'w mut Out<'b>,
    depth: u8,
    count: u64,
}

impl<'b> MapWriter<'_, 'b> {
    /// Adds a pair.
    ///
    /// # Errors
    /// [`FieldsError`]; nothing of the pair is left.
    pub fn field(&mut self, key: &str, value: Value<'_>) -> Result<(), FieldsError> {
        let depth = self.depth;
        self.add(key, |out| out.value(value, depth))
    }

    /// Adds a key with the list that `fill` writes.
    ///
    /// # Errors
    /// [`FieldsError`], or what `fill` returns; nothing of the pair is left.
    pub fn list(
        &mut self,
        key: &str,
        fill: impl FnOnce(&mut ListWriter<'_, 'b>) -> Result<(), FieldsError>,
    ) -> Result<(), FieldsError> {
        let depth = self.depth;
        self.add(key, |out| out.list(depth, fill))
    }

    /// Adds a key with the map that `fill` writes.
    ///
    /// # Errors
    /// [`FieldsError`], or what `fill` returns; nothing of the pair is left.
    pub fn map(
        &mut self,
        key: &str,
        fill: impl FnOnce(&mut MapWriter<'_, 'b>) -> Result<(), FieldsError>,
    ) -> Result<(), FieldsError> {
        let depth = self.depth;
        self.add(key, |out| out.map(depth, fill))
    }

    fn add(
        &mut self,
        key: &str,
        write: impl FnOnce(&mut Out<'b>) -> Result<(), FieldsError>,
    ) -> Result<(), FieldsError> {
        self.out.whole(|out| {
            out.postcard(key)?;
            write(out)
        })?;
        self.count = self.count.saturating_add(1);
        Ok(())
    }
}

/// The caller's memory, and how much of it is written.
#[derive(Debug)]
struct Out<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl<'b> Out<'b> {
    /// Does all of `write` or nothing.
    fn whole(&mut self, write: impl FnOnce(&mut Self) -> Result<(), FieldsError>) -> Result<(), FieldsError> {
        let start = self.at;
        let done = write(self);
        if done.is_err() {
            self.at = start;
        }
        done
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), FieldsError> {
        put(self.bytes, self.at, bytes).ok_or(FieldsError::NoRoom)?;
        self.at = self.at.saturating_add(bytes.len());
        Ok(())
    }

    fn postcard<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), FieldsError> {
        let place = self.bytes.get_mut(self.at..).unwrap_or_default();
        let used = postcard::to_slice(value, place).map_err(|_| FieldsError::NoRoom)?.len();
        self.at = self.at.saturating_add(used);
        Ok(())
    }

    fn tagged<T: Serialize + ?Sized>(&mut self, tag: u8, value: &T) -> Result<(), FieldsError> {
        self.raw(&[tag])?;
        self.postcard(value)
    }

    /// Writes a value that stands in `depth` lists and maps.
    fn value(&mut self, value: Value<'_>, depth: u8) -> Result<(), FieldsError> {
        match value {
            Value::Null => self.raw(&[TAG_NULL]),
            Value::Bool(value) => self.tagged(TAG_BOOL, &value),
            Value::I64(value) => self.tagged(TAG_I64, &value),
            Value::U64(value) => self.tagged(TAG_U64, &value),
            Value::F64(value) => self.tagged(TAG_F64, &value),
            Value::Str(value) => self.tagged(TAG_STR, value),
            Value::Bytes(value) => self.tagged(TAG_BYTES, value),
            Value::List(list) => self.copy(TAG_LIST, list.0, depth),
            Value::Map(map) => self.copy(TAG_MAP, map.0, depth),
        }
    }

    /// Copies a list or map that was read elsewhere; it may stand deeper here than there.
    fn copy(&mut self, tag: u8, nested: Nested<'_>, depth: u8) -> Result<(), FieldsError> {
        let start = self.at;
        self.tagged(tag, &nested.left)?;
        self.raw(nested.bytes)?;
        let written = self.bytes.get(start..self.at).unwrap_or_default();
        // It was well-formed where it comes from: only the depth can be wrong.
        take_value(&mut ItemReader::new(written), depth).map(|_| ()).ok_or(FieldsError::TooDeep)
    }

    fn list(
        &mut self,
        depth: u8,
        fill: impl FnOnce(&mut ListWriter<'_, 'b>) -> Result<(), FieldsError>,
    ) -> Result<(), FieldsError> {
        self.nested(TAG_LIST, depth, |out, depth| {
            let mut writer = ListWriter { out, depth, count: 0 };
            fill(&mut writer)?;
            Ok(writer.count)
        })
    }

    fn map(
        &mut self,
        depth: u8,
        fill: impl FnOnce(&mut MapWriter<'_, 'b>) -> Result<(), FieldsError>,
    ) -> Result<(), FieldsError> {
        self.nested(TAG_MAP, depth, |out, depth| {
            let mut writer = MapWriter { out, depth, count: 0 };
            fill(&mut writer)?;
            Ok(writer.count)
        })
    }

    /// Writes the inside first, behind one byte for its count; a count that needs more moves the inside up.
    fn nested(
        &mut self,
        tag: u8,
        depth: u8,
        fill: impl FnOnce(&mut Self, u8) -> Result<u64, FieldsError>,
    ) -> Result<(), FieldsError> {
        let depth = depth.checked_add(1).filter(|depth| *depth <= DEPTH_MAX).ok_or(FieldsError::TooDeep)?;
        self.raw(&[tag, 0])?;
        let inside = self.at;
        let count = fill(self, depth)?;
        let mut varint = [0u8; 10];
        let varint = postcard::to_slice(&count, &mut varint).map_err(|_| FieldsError::NoRoom)?;
        let more = varint.len().saturating_sub(1);
        let end = self.at.checked_add(more).filter(|end| *end <= self.bytes.len()).ok_or(FieldsError::NoRoom)?;
        if more > 0 {
            self.bytes.copy_within(inside..self.at, inside.saturating_add(more));
        }
        put(self.bytes, inside.saturating_sub(1), varint).ok_or(FieldsError::NoRoom)?;
        self.at = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
