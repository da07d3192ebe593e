//! The status of a running node, for people and as JSON.
//!
//! Invariants: what the node tells is shown, also what this version does not know; a number's unit is in its name, and
//! is shown as people read it.

use std::io::{self, Write};
use std::time::Duration;

use lastgasp_client::{NodeStatus, Value};
use lastgasp_core::readout::status::read_only_words;
use serde_json::{Map, Value as Json, json};

use crate::json::OneValue;
use crate::look::clean;
use crate::{size, times};

pub(crate) fn to_json(status: &NodeStatus, socket: &str) -> Json {
    let numbers: Map<String, Json> = status.numbers.iter().map(|(name, number)| (name.into(), number.into())).collect();
    let mut facts: Map<String, Json> = Map::new();
    for fact in &status.facts {
        let values = fact.fields().map(|(key, value)| (key.to_owned(), serde_json::to_value(OneValue(value))));
        let values: Map<String, Json> = values.filter_map(|(key, value)| Some((key, value.ok()?))).collect();
        let topic = facts.entry(fact.topic.clone()).or_insert_with(|| Json::Object(Map::new()));
        topic[fact.name.as_str()] = Json::Object(values);
    }
    json!({
        "socket": socket,
        "software": status.software,
        "store_id": format!("{:016x}", status.store_id),
        "fill": status.fill(),
        "wear_ratio": status.wear(),
        "read_only": read_only_words(status.numbers.read_only),
        "numbers": numbers,
        "facts": facts,
    })
}

pub(crate) fn print(status: &NodeStatus, socket: &str, out: &mut impl Write) -> io::Result<()> {
    let n = &status.numbers;
    let up = duration(n.uptime_us);
    writeln!(out, "node       {}, {socket}, boot {}, running for {up}", clean(&status.software), n.boot)?;
    writeln!(out, "id         {:016x}", status.store_id)?;
    if let Some(words) = read_only_words(n.read_only) {
        writeln!(out, "READ-ONLY  the store takes no more writes: {words}")?;
    }
    match n.durable_upto.checked_sub(n.floor) {
        Some(_) => writeln!(out, "records    numbered {} to {}", n.floor, n.durable_upto)?,
        None => writeln!(out, "records    none")?,
    }
    let in_ram = n.next_seq.saturating_sub(1).saturating_sub(n.durable_upto);
    writeln!(out, "at risk    {in_ram} records are in RAM only; of those acknowledged before they are durable, a cut")?;
    writeln!(out, "           takes at most {}", n.volatile_bound)?;
    if let Some(fill) = status.fill() {
        let bytes = size::human(n.segments.saturating_mul(n.segment_bytes));
        let (log, announced, free) = (n.log_segments, n.announced_segments, n.free_segments);
        let percent = fill * 100.0;
        writeln!(out, "fill       {percent:.1} % of {bytes}: {log} log, {announced} announced, {free} free segments")?;
    }
    if let Some(wear) = status.wear() {
        let (device, logged) = (size::human(n.device_bytes), size::human(n.record_bytes));
        writeln!(out, "wear       {wear:.2}: {device} to the device for {logged} of records since the start")?;
    }
    writeln!(
        out,
        "commits    {} of {} records, {} syncs; one takes {} lately",
        n.commits,
        n.records,
        n.syncs,
        duration(n.sync_us)
    )?;
    if n.memtable_bytes > 0 {
        let (used, all) = (size::human(n.memtable_used_bytes), size::human(n.memtable_bytes));
        writeln!(out, "memory     {used} of {all} hold what is not durable yet")?;
    }
    if n.gaps > 0 {
        writeln!(out, "gaps       {} (see lastgasp gaps)", n.gaps)?;
    }
    if n.abandoned_segments > 0 || n.retired_segments > 0 {
        let (abandoned, retired) = (n.abandoned_segments, n.retired_segments);
        writeln!(out, "medium     {abandoned} segments were left after failures since the start, {retired} for good")?;
    }
    let mut topic = "";
    for fact in &status.facts {
        let shown = if fact.topic == topic { String::new() } else { clean(&fact.topic) };
        topic = &fact.topic;
        let values: Vec<String> = fact.fields().map(|(key, value)| named(key, value)).collect();
        writeln!(out, "{shown:<10} {}: {}", clean(&fact.name), values.join(", "))?;
    }
    Ok(())
}

/// A value with its name, without the unit that the name ends in.
fn named(key: &str, value: Value<'_>) -> String {
    let number = match value {
        Value::U64(number) => Some(number),
        Value::I64(number) => u64::try_from(number).ok(),
        _ => None,
    };
    let words = |key: &str| clean(&key.replace('_', " "));
    match (number, number.and_then(|number| with_unit(key, number)), value) {
        (_, Some((key, shown)), _) => format!("{} {shown}", words(key)).trim_start().to_owned(),
        (_, _, Value::Bool(yes)) => format!("{} {}", words(key), if yes { "yes" } else { "no" }),
        (_, _, Value::Bytes(bytes)) => format!("{} {}", words(key), clean(&bytes.escape_ascii().to_string())),
        (_, _, Value::Str(text)) if key == "words" => clean(text),
        (_, _, Value::Str(text)) => format!("{} {}", words(key), clean(text)),
        (_, _, value) => {
            let json = serde_json::to_string(&OneValue(value)).unwrap_or_default();
            format!("{} {}", words(key), clean(&json))
        }
    }
}

/// The name without its unit, and the number with it; none if the name has no unit.
fn with_unit(key: &str, number: u64) -> Option<(&str, String)> {
    if key.ends_with("_per_s") {
        return None;
    }
    let wall = || i64::try_from(number).ok().and_then(times::rfc3339);
    if let Some(name) = key.strip_suffix("_wall_us") {
        return Some((name, wall()?));
    }
    let in_us = |name, us| Some((name, duration(number.saturating_mul(us))));
    let bytes = key.strip_suffix("bytes").map(|name| (name.trim_end_matches('_'), size::human(number)));
    bytes
        .or_else(|| in_us(key.strip_suffix("_us")?, 1))
        .or_else(|| in_us(key.strip_suffix("_ms")?, 1000))
        .or_else(|| in_us(key.strip_suffix("_s")?, 1_000_000))
}

/// Microseconds as people read them.
fn duration(us: u64) -> String {
    let time = Duration::from_micros(us);
    let seconds = time.as_secs();
    let tenths = |whole: u64, part: u64| if part == 0 { whole.to_string() } else { format!("{whole}.{part}") };
    match seconds {
        0 if us < 1000 => format!("{us} us"),
        0 => format!("{} ms", tenths(us / 1000, us % 1000 / 100)),
        1..60 => format!("{} s", tenths(seconds, us % 1_000_000 / 100_000)),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgasp_client::NodeFact;
    use lastgasp_core::format::fields::FieldsWriter;
    use lastgasp_core::readout::Status;

    fn status() -> NodeStatus {
        let mut out = [0; 256];
        let mut fields = FieldsWriter::new(&mut out);
        fields.field("loses_ms", Value::U64(2000)).unwrap();
        fields.field("loses_bytes", Value::U64(65_536)).unwrap();
        fields.field("words", Value::Str("follows\x1b[2J")).unwrap();
        fields.field("works", Value::Bool(true)).unwrap();
        fields.field("bytes", Value::U64(2048)).unwrap();
        fields.field("records_per_s", Value::F64(1.5)).unwrap();
        let field_bytes = fields.as_bytes().to_vec();
        let fact = |topic: &str, name: &str| NodeFact {
            topic: topic.into(),
            name: name.into(),
            field_bytes: field_bytes.clone(),
        };
        NodeStatus {
            software: "lastgaspd 0.1.0".into(),
            store_id: 7,
            numbers: Status {
                next_seq: 11,
                durable_upto: 9,
                floor: 2,
                volatile_bound: 3,
                boot: 4,
                uptime_us: 3_720_000_000,
                segment_bytes: 1 << 20,
                segments: 64,
                log_segments: 10,
                announced_segments: 2,
                free_segments: 28,
                records: 9,
                record_bytes: 1000,
                device_bytes: 1500,
                commits: 3,
                syncs: 4,
                sync_us: 2500,
                ..Status::default()
            },
            facts: vec![fact("class", "interval"), fact("source", "journald"), fact("source", "stdin")],
        }
    }

    #[test]
    fn numbers_and_facts_are_shown_as_people_read_them() {
        let mut out = Vec::new();
        print(&status(), "/run/x.sock", &mut out).unwrap();
        let values = "loses 2 s, loses 64 KiB, follows\\u{1b}[2J, works yes, 2 KiB, records per s 1.5";
        let want = format!(
            "node       lastgaspd 0.1.0, /run/x.sock, boot 4, running for 1 h 2 min\n\
             id         0000000000000007\n\
             records    numbered 2 to 9\n\
             at risk    1 records are in RAM only; of those acknowledged before they are durable, a cut\n\
             \x20          takes at most 3\n\
             fill       25.0 % of 64 MiB: 10 log, 2 announced, 28 free segments\n\
             wear       1.50: 1.4 KiB to the device for 1000 bytes of records since the start\n\
             commits    3 of 9 records, 4 syncs; one takes 2.5 ms lately\n\
             class      interval: {values}\n\
             source     journald: {values}\n\
             \x20          stdin: {values}\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn the_json_has_what_the_node_told_by_name() {
        let json = to_json(&status(), "/run/x.sock");
        assert_eq!((&json["numbers"]["sync_us"], &json["wear_ratio"]), (&2500.into(), &1.5.into()));
        assert_eq!((&json["facts"]["source"]["stdin"]["works"], &json["read_only"]), (&true.into(), &Json::Null));
    }

    #[test]
    fn a_node_that_tells_nothing_is_no_failure() {
        let empty = NodeStatus { numbers: Status::default(), facts: Vec::new(), ..status() };
        let mut out = Vec::new();
        print(&empty, "x", &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("commits    0 of 0 records"));
        assert_eq!(to_json(&empty, "x")["wear_ratio"], Json::Null);
    }
}
