//! How the writer treats a record by its stream and severity: durability class, rate limit, retention; how long a
//! stall holds senders up; and what each stream brings.
//!
//! Invariants: a stream within its rate never loses a record to a limit; a stream has `burst` records in hand after a
//! quiet time and `rate` a second for ever; changing the policy forgets no count.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lastgasp_core::node::Class;
use lastgasp_core::retention::KeepPolicy;

use crate::config::Limits;

/// Severities there are, with 0 for unknown.
const SEVERITIES: usize = 25;
/// Rates are shown by the minute.
const MINUTE_US: u64 = 60_000_000;

/// Records a stream may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Records a second, for ever.
    pub per_second: NonZeroU32,
    /// Records at once, after a quiet time.
    pub burst: NonZeroU32,
}

/// The durability class of a severity within a stream.
pub type ClassOf = Arc<dyn Fn(&str, u8) -> Class + Send + Sync>;

/// The rules.
#[derive(Clone)]
pub struct Policy {
    /// What triggers the commit of a record, unless its source says so.
    pub class_of: ClassOf,
    /// How much each stream may bring; `None` is no limit.
    pub rate: Option<RateLimit>,
    /// What is kept when space is short, and for how long.
    pub keep: KeepPolicy<'static>,
    /// So long a medium that does not answer holds senders up.
    pub stall: Duration,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, keep, stall, .. } = self;
        f.debug_struct("Policy").field("rate", rate).field("keep", keep).field("stall", stall).finish_non_exhaustive()
    }
}

impl Default for Policy {
    /// Errors and worse within 5 ms, everything else within 2 s; no limit.
    fn default() -> Self {
        let class_of = |_: &str, severity: u8| if severity >= 17 { Class::Group } else { Class::Interval };
        Self { class_of: Arc::new(class_of), rate: None, keep: KeepPolicy::default(), stall: Limits::default().stall }
    }
}

/// What a stream brought in this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamCount {
    /// Records taken in.
    pub records: u64,
    /// Bytes of their bodies and fields.
    pub bytes: u64,
    /// Records that were not taken in.
    pub dropped: u64,
    /// Records of the last whole minute before the one under way.
    last_minute: u64,
    /// The minute under way, and its records so far.
    minute: u64,
    in_minute: u64,
}

impl StreamCount {
    fn taken(&mut self, now_us: u64, bytes: usize) {
        let minute = now_us / MINUTE_US;
        if minute != self.minute {
            self.last_minute = if minute == self.minute.saturating_add(1) { self.in_minute } else { 0 };
            (self.minute, self.in_minute) = (minute, 0);
        }
        self.in_minute = self.in_minute.saturating_add(1);
        self.records = self.records.saturating_add(1);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Records in the last whole minute before `now_us`.
    #[must_use]
    pub fn per_minute(&self, now_us: u64) -> u64 {
        match (now_us / MINUTE_US).checked_sub(self.minute) {
            Some(0) => self.last_minute,
            Some(1) => self.in_minute,
            _ => 0,
        }
    }
}

/// What is known of a stream, by its number in the store.
#[derive(Debug, Clone)]
struct Stream {
    classes: [Class; SEVERITIES],
    /// Records in hand, in millionths.
    tokens: u64,
    filled_us: u64,
}

/// The rules at work.
#[derive(Debug, Default)]
pub struct Ruler {
    policy: Policy,
    streams: Vec<Option<Stream>>,
    counts: Vec<StreamCount>,
}

impl Ruler {
    /// Rules from now on by `policy`. What it says of retention is the node's matter, what of stalls the queue's.
    pub fn set(&mut self, policy: Policy) {
        self.policy = policy;
        self.streams.clear();
    }

    /// The policy that holds.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What each stream brought, by stream number.
    #[must_use]
    pub fn counts(&self) -> &[StreamCount] {
        &self.counts
    }

    fn stream(&mut self, id: u16, name: &str) -> Option<&mut Stream> {
        let at = usize::from(id);
        if self.streams.len() <= at {
            self.streams.resize(at.saturating_add(1), None);
        }
        let policy = &self.policy;
        let slot = self.streams.get_mut(at)?;
        Some(slot.get_or_insert_with(|| {
            let mut severity = 0u8;
            let classes = [(); SEVERITIES].map(|()| {
                let class = (policy.class_of)(name, severity);
                severity = severity.saturating_add(1);
                class
            });
            Stream { classes, tokens: policy.rate.map_or(0, |r| millionths(r.burst.get())), filled_us: 0 }
        }))
    }

    /// What triggers the commit of a record.
    pub fn class(&mut self, id: u16, name: &str, severity: u8) -> Class {
        let stream = self.stream(id, name);
        stream
            .and_then(|s| s.classes.get(usize::from(severity).min(SEVERITIES - 1)))
            .copied()
            .unwrap_or(Class::Interval)
    }

    /// `records` more of a stream are within its limit; if so they count against it.
    pub fn admit(&mut self, id: u16, name: &str, records: u64, now_us: u64) -> bool {
        let Some(limit) = self.policy.rate else { return true };
        let Some(stream) = self.stream(id, name) else { return true };
        let earned = now_us.saturating_sub(stream.filled_us).saturating_mul(u64::from(limit.per_second.get()));
        stream.tokens = stream.tokens.saturating_add(earned).min(millionths(limit.burst.get()));
        stream.filled_us = now_us;
        match stream.tokens.checked_sub(records.saturating_mul(1_000_000)) {
            Some(left) => {
                stream.tokens = left;
                true
            }
            None => false,
        }
    }

    fn count(&mut self, id: u16) -> Option<&mut StreamCount> {
        let at = usize::from(id);
        if self.counts.len() <= at {
            self.counts.resize(at.saturating_add(1), StreamCount::default());
        }
        self.counts.get_mut(at)
    }

    /// A record of a stream was taken in.
    pub fn taken(&mut self, id: u16, bytes: usize, now_us: u64) {
        if let Some(count) = self.count(id) {
            count.taken(now_us, bytes);
        }
    }

    /// Records of a stream were not taken in.
    pub fn turned_away(&mut self, id: u16, records: u64) {
        if let Some(count) = self.count(id) {
            count.dropped = count.dropped.saturating_add(records);
        }
    }
}

fn millionths(records: u32) -> u64 {
    u64::from(records).saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(per_second: u32, burst: u32) -> Ruler {
        let rate = RateLimit { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() };
        let mut ruler = Ruler::default();
        ruler.set(Policy { rate: Some(rate), ..Policy::default() });
        ruler
    }

    #[test]
    fn a_stream_has_its_burst_and_then_its_rate() {
        let mut ruler = limited(10, 100);
        let taken = |ruler: &mut Ruler, now_us, n| (0..n).filter(|_| ruler.admit(1, "a", 1, now_us)).count();
        assert_eq!(taken(&mut ruler, 5, 1000), 100);
        assert_eq!(taken(&mut ruler, 1_000_005, 1000), 10);
        assert_eq!(taken(&mut ruler, 1_050_005, 1000), 0, "half a record");
        assert_eq!(taken(&mut ruler, 1_100_005, 1000), 1, "two halves");
        assert_eq!(taken(&mut ruler, 3_600_000_000, 1000), 100, "no more than the burst");
        assert!(ruler.admit(2, "b", 1, 5), "each stream has its own");
    }

    #[test]
    fn errors_are_durable_sooner() {
        let mut ruler = Ruler::default();
        let classes = [0, 9, 16, 17, 24, 255].map(|severity| ruler.class(0, "s", severity));
        use Class::{Group, Interval};
        assert_eq!(classes, [Interval, Interval, Interval, Group, Group, Group]);
    }

    #[test]
    fn rates_are_those_of_the_last_whole_minute() {
        let mut ruler = Ruler::default();
        for i in 0..120 {
            ruler.taken(3, 10, i * 1_000_000);
        }
        let count = ruler.counts()[3];
        assert_eq!((count.records, count.bytes), (120, 1200));
        assert_eq!(count.per_minute(119_000_000), 60);
        assert_eq!(count.per_minute(121_000_000), 60);
        assert_eq!(count.per_minute(500_000_000), 0);
    }
}
