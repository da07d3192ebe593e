//! What stands between records: gaps and events, in words and as JSON.
//!
//! Invariant: names are stable; programs read them.

use jiff::tz::TimeZone;
use lastgasp_client::{BootEnd, Event, Gap, GapCause};
use serde_json::{Value, json};

use crate::times;

/// How a boot ended, in words.
pub(crate) fn end_words(end: BootEnd) -> &'static str {
    match end {
        BootEnd::New => "there was none: the store is new",
        BootEnd::Clean => "by a clean stop",
        BootEnd::Cut => "without a clean stop: a power cut, a crash or a kill",
        BootEnd::Rebuilt => "unknown: the manifest was lost and rebuilt",
        BootEnd::Running => "not yet: it runs",
        BootEnd::LastGasp => "with the power, everything was saved before",
        BootEnd::Watchdog => "by the watchdog",
        _ => "in a way that is not known",
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
        Event::Boot { epoch, first_seq, clock, previous_end, torn_bytes } => json!({
            "event": "boot",
            "epoch": epoch,
            "previous_end": previous_end.name(),
            "first_seq": first_seq,
            "torn_bytes": torn_bytes,
            "clock_epoch": clock.clock_epoch,
            "time": times::rfc3339(clock.wall_us),
            "synchronised": clock.synchronised,
        }),
        Event::Close { next_seq } => json!({ "event": "close", "next_seq": next_seq }),
        Event::Unknown(kind) => json!({ "event": "unknown", "kind": kind }),
    }
}

pub(crate) fn event_words(event: &Event, zone: &TimeZone) -> String {
    match event {
        Event::Boot { epoch, clock, previous_end, torn_bytes, .. } => {
            let mut words = format!("boot {epoch}");
            if let Some(time) = times::listed(clock.wall_us, zone) {
                words += &format!(", {time}");
            }
            words += &match previous_end {
                BootEnd::New => "; the store is new".to_owned(),
                end => format!("; the one before ended {}", end_words(*end)),
            };
            if *torn_bytes > 0 {
                words += &format!("; {torn_bytes} bytes were torn");
            }
            if !clock.synchronised {
                words += "; the clock was not synchronised";
            }
            words
        }
        Event::Close { .. } => "clean stop".to_owned(),
        Event::Unknown(kind) => format!("an event of kind {kind}, which a newer version knows"),
    }
}
