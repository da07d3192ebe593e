//! Tests of the fields' bytes: against postcard's own derive, against arbitrary bytes, at the limits.

use super::*;
use proptest::prelude::*;
use std::string::String;
use std::vec;
use std::vec::Vec;

/// The same value as postcard's derive writes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
enum Tree<'a> {
    Null,
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    List(&'a [Tree<'a>]),
    Map(&'a [(&'a str, Tree<'a>)]),
}

/// A value that owns what it holds.
#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Null,
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(String),
    Bytes(Vec<u8>),
    List(Vec<Owned>),
    Map(Vec<(String, Owned)>),
}

fn owned(value: Value<'_>) -> Owned {
    match value {
        Value::Null => Owned::Null,
        Value::Bool(v) => Owned::Bool(v),
        Value::I64(v) => Owned::I64(v),
        Value::U64(v) => Owned::U64(v),
        Value::F64(v) => Owned::F64(v),
        Value::Str(v) => Owned::Str(v.into()),
        Value::Bytes(v) => Owned::Bytes(v.into()),
        Value::List(list) => Owned::List(list.map(owned).collect()),
        Value::Map(map) => Owned::Map(map.map(|(k, v)| (k.into(), owned(v))).collect()),
    }
}

fn add(map: &mut MapWriter<'_, '_>, key: &str, value: &Owned) -> Result<(), FieldsError> {
    match value {
        Owned::Null => map.field(key, Value::Null),
        Owned::Bool(v) => map.field(key, Value::Bool(*v)),
        Owned::I64(v) => map.field(key, Value::I64(*v)),
        Owned::U64(v) => map.field(key, Value::U64(*v)),
        Owned::F64(v) => map.field(key, Value::F64(*v)),
        Owned::Str(v) => map.field(key, Value::Str(v)),
        Owned::Bytes(v) => map.field(key, Value::Bytes(v)),
        Owned::List(all) => map.list(key, |w| all.iter().try_for_each(|v| push(w, v))),
        Owned::Map(all) => map.map(key, |w| all.iter().try_for_each(|(k, v)| add(w, k, v))),
    }
}

fn push(list: &mut ListWriter<'_, '_>, value: &Owned) -> Result<(), FieldsError> {
    match value {
        Owned::Null => list.value(Value::Null),
        Owned::Bool(v) => list.value(Value::Bool(*v)),
        Owned::I64(v) => list.value(Value::I64(*v)),
        Owned::U64(v) => list.value(Value::U64(*v)),
        Owned::F64(v) => list.value(Value::F64(*v)),
        Owned::Str(v) => list.value(Value::Str(v)),
        Owned::Bytes(v) => list.value(Value::Bytes(v)),
        Owned::List(all) => list.list(|w| all.iter().try_for_each(|v| push(w, v))),
        Owned::Map(all) => list.map(|w| all.iter().try_for_each(|(k, v)| add(w, k, v))),
    }
}

fn values() -> impl Strategy<Value = Owned> {
    let leaf = prop_oneof![
        Just(Owned::Null),
        any::<bool>().prop_map(Owned::Bool),
        any::<i64>().prop_map(Owned::I64),
        any::<u64>().prop_map(Owned::U64),
        (-1e300..1e300).prop_map(Owned::F64),
        any::<String>().prop_map(Owned::Str),
        any::<Vec<u8>>().prop_map(Owned::Bytes),
    ];
    leaf.prop_recursive(4, 400, 200, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..200).prop_map(Owned::List),
            prop::collection::vec((any::<String>(), inner), 0..8).prop_map(Owned::Map),
        ]
    })
}

proptest! {
    #[test]
    fn fields_round_trip(fields in prop::collection::vec((any::<String>(), values()), 0..6)) {
        let mut out = vec![0xAA; 1 << 20];
        let mut writer = FieldsWriter::new(&mut out);
        for (key, value) in &fields {
            add(&mut writer.top(), key, value).unwrap();
        }
        let bytes = writer.into_bytes();
        let mut reader = Fields::new(bytes);
        let read: Vec<(String, Owned)> = reader.by_ref().map(|(k, v)| (k.into(), owned(v))).collect();
        prop_assert_eq!(&read, &fields);
        prop_assert!(!reader.is_malformed());
        // What was read can be written again as it is.
        let mut again = vec![0x55; bytes.len()];
        let mut writer = FieldsWriter::new(&mut again);
        Fields::new(bytes).try_for_each(|(k, v)| writer.field(k, v)).unwrap();
        prop_assert_eq!(writer.as_bytes(), bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let mut reader = Fields::new(&bytes);
        let read: Vec<Owned> = reader.by_ref().map(|(_, v)| owned(v)).collect();
        prop_assert!(2 * read.len() <= bytes.len());
    }

    #[test]
    fn bytes_like_ours_never_panic(bytes in prop::collection::vec(0u8..10, 0..200)) {
        let read: Vec<Owned> = Fields::new(&bytes).map(|(_, v)| owned(v)).collect();
        prop_assert!(2 * read.len() <= bytes.len());
    }

    #[test]
    fn a_cut_is_malformed_or_ends_between_fields(value in values(), cut: prop::sample::Index) {
        let mut out = vec![0; 1 << 20];
        let mut writer = FieldsWriter::new(&mut out);
        add(&mut writer.top(), "key", &value).unwrap();
        let bytes = writer.into_bytes();
        let mut reader = Fields::new(&bytes[..cut.index(bytes.len())]);
        let read = reader.by_ref().count();
        prop_assert_eq!(read, 0);
    }
}

#[test]
fn the_bytes_are_those_of_postcard() {
    let list = [Tree::U64(300), Tree::Map(&[("k", Tree::Null), ("k", Tree::Bool(true))])];
    let all = [
        ("n", Tree::Null),
        ("i", Tree::I64(-3)),
        ("f", Tree::F64(1.5)),
        ("s", Tree::Str("grün")),
        ("b", Tree::Bytes(&[0, 255])),
        ("l", Tree::List(&list)),
        ("l", Tree::List(&[])),
    ];
    let mut want = [0u8; 128];
    let mut len = 0;
    for pair in &all {
        len += postcard::to_slice(pair, &mut want[len..]).unwrap().len();
    }
    let mut out = [0u8; 128];
    let mut w = FieldsWriter::new(&mut out);
    w.field("n", Value::Null).unwrap();
    w.field("i", Value::I64(-3)).unwrap();
    w.field("f", Value::F64(1.5)).unwrap();
    w.field("s", Value::Str("grün")).unwrap();
    w.field("b", Value::Bytes(&[0, 255])).unwrap();
    w.list("l", |l| {
        l.value(Value::U64(300))?;
        l.map(|m| {
            m.field("k", Value::Null)?;
            m.field("k", Value::Bool(true))
        })
    })
    .unwrap();
    w.list("l", |_| Ok(())).unwrap();
    assert_eq!(w.as_bytes(), &want[..len]);
    assert_eq!(Fields::new(w.as_bytes()).get("i"), Some(Value::I64(-3)));
    assert_eq!(Fields::new(w.as_bytes()).get("x"), None);
}

#[test]
fn a_float_is_eight_bytes_and_a_pair_as_short_as_it_can_be() {
    let mut out = [0u8; 32];
    let mut w = FieldsWriter::new(&mut out);
    w.field("a", Value::U64(7)).unwrap();
    w.field("", Value::F64(1.0)).unwrap();
    assert_eq!(w.as_bytes(), [1, b'a', 3, 7, 0, 4, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F]);
}

fn nest(w: &mut ListWriter<'_, '_>, levels: u8) -> Result<(), FieldsError> {
    if levels == 0 { w.value(Value::Null) } else { w.list(|w| nest(w, levels - 1)) }
}

#[test]
fn eight_levels_are_taken_and_nine_refused_by_both_sides() {
    let mut out = [0u8; 64];
    let mut w = FieldsWriter::new(&mut out);
    w.list("deep", |w| nest(w, DEPTH_MAX - 1)).unwrap();
    let len = w.len();
    assert_eq!(w.list("deeper", |w| nest(w, DEPTH_MAX)), Err(FieldsError::TooDeep));
    assert_eq!(w.len(), len, "nothing is left of it");
    let bytes: Vec<u8> = w.as_bytes().into();
    let deepest = Fields::new(&bytes).get("deep").unwrap();
    assert_eq!(w.list("copied", |w| w.value(deepest)), Err(FieldsError::TooDeep));
    w.field("copied", deepest).unwrap();
    assert_eq!(Fields::new(w.as_bytes()).count(), 2);

    let nine = [&[1, b'k'][..], &[TAG_LIST, 1].repeat(9), &[TAG_NULL]].concat();
    let mut reader = Fields::new(&nine);
    assert_eq!(reader.next(), None);
    assert!(reader.is_malformed());
}

#[test]
fn a_count_of_two_bytes_moves_its_list_up() {
    for n in [127, 128, 20_000] {
        let mut out = vec![0u8; 30_000];
        let mut w = FieldsWriter::new(&mut out);
        w.list("l", |w| (0..n).try_for_each(|_| w.value(Value::Bool(false)))).unwrap_or_else(|e| {
            assert_eq!((n, e), (20_000, FieldsError::NoRoom));
        });
        let Some(Value::List(list)) = Fields::new(w.as_bytes()).get("l") else { continue };
        assert_eq!((list.len(), list.count()), (n, usize::try_from(n).unwrap()));
    }
}

#[test]
fn memory_of_every_length_is_filled_or_refused_whole() {
    let mut long = [0u8; 600];
    let mut w = FieldsWriter::new(&mut long);
    w.list("list", |w| (0..200).try_for_each(|_| w.value(Value::U64(1)))).unwrap();
    let whole = w.len();
    for room in 0..whole {
        let mut out = vec![0u8; room];
        let mut w = FieldsWriter::new(&mut out);
        let done = w.list("list", |w| (0..200).try_for_each(|_| w.value(Value::U64(1))));
        assert_eq!((done, w.is_empty()), (Err(FieldsError::NoRoom), true), "room {room}");
    }
}

#[test]
fn false_counts_and_lengths_end_the_reading() {
    for bytes in [
        &[0, TAG_LIST, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, TAG_NULL][..],
        &[0, TAG_STR, 9, b'a'],
        &[0, TAG_STR, 1, 0xFF],
        &[0, TAG_BOOL, 2],
        &[0, 9],
        &[5, b'a'],
        &[0],
    ] {
        let mut reader = Fields::new(bytes);
        assert_eq!(reader.next(), None, "{bytes:?}");
        assert!(reader.is_malformed(), "{bytes:?}");
    }
}
