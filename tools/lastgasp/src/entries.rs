//! What stands between records: gaps and events, in words and as JSON.
//!
//! Invariant: names are stable; programs read them.

use jiff::tz::TimeZone;
use lastgasp_client::{Event, Gap, GapCause, PreviousEnd};
use serde_json::{Value, json};

use crate::times;

/// How a boot ended.
pub(crate) fn previous_end_name(end: PreviousEnd) -> &'static str {
    match end {
        PreviousEnd::New => "new",
        PreviousEnd::Clean => "clean",
        PreviousEnd::Cut => "cut",
        PreviousEnd::Rebuilt => "rebuilt",
    }
}

/// How a boot ended, in words.
pub(crate) fn previous_end_words(end: PreviousEnd) -> &'static str {
    match end {
        PreviousEnd::New => "there was none: the store is new",
        PreviousEnd::Clean => "by a clean stop",
        PreviousEnd::Cut => "without a clean stop: a power cut, a crash or a kill",
        PreviousEnd::Rebuilt => "unknown: the manifest was lost and rebuilt",
    }
}

/// A gap as an object.
pub(crate) fn gap_json(gap: &Gap<'_>) -> Value {
    let mut value = json!({
        "first_seq": gap.first_seq,
        "last_seq": gap.last_seq,
        "exact": gap.exact,
        "cause": gap.cause.name(),
    });
    if let Some(stream) = gap.stream {
        value["stream"] = stream.into();
    }
    value
}

/// Why records are gone, in words.
pub(crate) fn cause_words(cause: GapCause) -> &'static str {
    match cause {
        GapCause::RamTier => "they were only in RAM when power failed",
        GapCause::Torn => "they were not yet durable when power failed",
        GapCause::Rot => "the medium damaged them",
        GapCause::Retention => "dropped as the oldest",
        GapCause::Overload => "the node could not keep up",
        GapCause::DiskFull => "the store was full",
        GapCause::MediumFailed => "the medium failed",
        GapCause::Oversize => "they were too large",
        GapCause::LedgerLost => "the manifest was lost",
    }
}

pub(crate) fn gap_words(gap: &Gap<'_>) -> String {
    if gap.last_seq < gap.first_seq {
        return "the manifest was lost and rebuilt: gaps known before may be missing here".to_owned();
    }
    let count = gap.count();
    let most = if gap.exact { "" } else { "at most " };
    let plural = if count == 1 { "record" } else { "records" };
    let of = gap.stream.map_or_else(String::new, |stream| format!(" of {stream}"));
    let why = cause_words(gap.cause);
    let (first, last) = (gap.first_seq, gap.last_seq);
    let range = if first == last { format!("{first}") } else { format!("{first} to {last}") };
    format!("gap: {most}{count} {plural}{of} ({range}), {}: {why}", gap.cause.name())
}

pub(crate) fn event_json(event: &Event) -> Value {
    match event {
        Event::Boot(origin) => json!({
            "event": "boot",
            "epoch": origin.epoch,
            "previous_end": previous_end_name(origin.previous_end),
            "first_seq": origin.first_seq,
            "durable_upto": origin.durable_upto,
            "torn_bytes": origin.torn_bytes,
            "clock_epoch": origin.anchor.clock_epoch,
            "time": times::rfc3339(origin.anchor.wall_us),
            "synchronised": origin.anchor.synchronised,
        }),
        Event::Close(close) => json!({ "event": "close", "next_seq": close.next_seq }),
    }
}

pub(crate) fn event_words(event: &Event, zone: &TimeZone) -> String {
    match event {
        Event::Boot(origin) => {
            let mut words = format!("boot {}", origin.epoch);
            if let Some(time) = times::listed(origin.anchor.wall_us, zone) {
                words += &format!(", {time}");
            }
            words += &match origin.previous_end {
                PreviousEnd::New => "; the store is new".to_owned(),
                end => format!("; the one before ended {}", previous_end_words(end)),
            };
            if origin.torn_bytes > 0 {
                words += &format!("; {} bytes were torn", origin.torn_bytes);
            }
            if !origin.anchor.synchronised {
                words += "; the clock was not synchronised";
            }
            words
        }
        Event::Close(_) => "clean stop".to_owned(),
    }
}
