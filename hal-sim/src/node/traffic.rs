//! What a node takes in: streams with their rates, sizes and durability classes, as a text that a person writes.
//!
//! Invariants: what comes in is a function of the text and the seed; a body follows from its tag, so every record can
//! be told from every other and compared byte for byte.

use crate::model::fill_body;
use crate::rng::Rng;
use crate::supply::duration_us;
use lastgasp_core::node::Class;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Streams that a workload may have.
const STREAMS_MAX: usize = 7;
/// The largest batch and the longest body: what the smallest store of the campaigns takes.
const BATCH_MAX: u64 = 64;
const SIZE_MAX: u64 = 400;

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    name: String,
    every: RangeInclusive<u64>,
    batch: RangeInclusive<u64>,
    size: RangeInclusive<u64>,
    class: Class,
    states: bool,
}

/// What a node takes in, and how often it is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    sources: Vec<Source>,
    lose: Option<RangeInclusive<u64>>,
    stop: Option<RangeInclusive<u64>>,
    kill: Option<RangeInclusive<u64>>,
}

/// The traffic of a node that nobody wrote a workload for: a quiet small server.
pub const DEFAULT_WORKLOAD: &str = "\
stream app every 20s..8m batch 1..9 size 30..220 class interval
stream sshd every 2m..20m batch 1..2 size 60..160 class group states
stream kernel every 30m..3h size 40..120 class each
stream debug every 1m..30m batch 1..24 size 20..90 class ram
lose every 5h..20h
stop every 8h..40h
kill every 4h..20h
";

impl Default for Traffic {
    fn default() -> Self {
        let none = Self { sources: Vec::new(), lose: None, stop: None, kill: None };
        DEFAULT_WORKLOAD.parse().unwrap_or(none)
    }
}

/// What is wrong with a workload, and in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAWorkload {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for NotAWorkload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for NotAWorkload {}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn range(text: &str, parse: fn(&str) -> Result<u64, String>, most: u64) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (parse(first)?, parse(last)?);
    if first == 0 || first > last || last > most {
        return Err(format!("`{text}` does not lie between 1 and {most}, in order"));
    }
    Ok(first..=last)
}

fn times(text: &str) -> Result<RangeInclusive<u64>, String> {
    range(text, duration_us, u64::MAX).map_err(|_| format!("`{text}` is no time or range of times, such as 1m..2h"))
}

fn source(name: &str, words: &[&str]) -> Result<Source, String> {
    let (batch, size) = (1..=1, 40..=120);
    let mut every = None;
    let mut source = Source { name: name.to_owned(), every: 1..=1, batch, size, class: Class::Interval, states: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "states" {
            source.states = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("`{word}` of what?"))?;
        match *word {
            "every" => every = Some(times(value)?),
            "batch" => source.batch = range(value, number, BATCH_MAX)?,
            "size" => source.size = range(value, number, SIZE_MAX)?,
            "class" => {
                source.class = match *value {
                    "each" => Class::Each,
                    "group" => Class::Group,
                    "interval" => Class::Interval,
                    "ram" => Class::Ram,
                    _ => return Err(format!("`{value}` is no class: each, group, interval or ram")),
                }
            }
            _ => return Err(format!("`{word}` is none of: every, batch, size, class, states")),
        }
    }
    source.every = every.ok_or_else(|| format!("how often does {name} write? Say so with `every TIME`"))?;
    Ok(source)
}

impl FromStr for Traffic {
    type Err = NotAWorkload;

    fn from_str(text: &str) -> Result<Self, NotAWorkload> {
        let mut traffic = Self { sources: Vec::new(), lose: None, stop: None, kill: None };
        for (nth, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            traffic.line(&words).map_err(|what| NotAWorkload { line: nth + 1, what })?;
        }
        if traffic.sources.is_empty() {
            let what = "nothing comes in: say what, as in `stream app every 1s..10s class interval`".to_owned();
            return Err(NotAWorkload { line: text.lines().count().max(1), what });
        }
        Ok(traffic)
    }
}

impl Traffic {
    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        match *words {
            [] => {}
            ["stream", _, ..] if self.sources.len() == STREAMS_MAX => {
                return Err(format!("more than {STREAMS_MAX} streams"));
            }
            ["stream", name, ref words @ ..] => self.sources.push(source(name, words)?),
            ["lose", "every", time] => self.lose = Some(times(time)?),
            ["stop", "every", time] => self.stop = Some(times(time)?),
            ["kill", "every", time] => self.kill = Some(times(time)?),
            _ => {
                return Err(format!(
                    "`{}` is none of: stream NAME every TIME[..TIME] [batch N[..N]] [size N[..N]] [class CLASS] \
                     [states], lose every TIME, stop every TIME, kill every TIME",
                    words.join(" ")
                ));
            }
        }
        Ok(())
    }

    /// Names of the streams, by number.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.sources.iter().map(|source| source.name.as_str()).collect()
    }
}

/// What the bodies of records are.
#[derive(Debug, Clone, Default)]
pub enum Bodies {
    /// Made from the tag.
    #[default]
    Made,
    /// The lines of a real log, in turn, each behind its tag.
    Lines(Vec<Vec<u8>>),
}

impl Bodies {
    /// The lines of a text; long ones are cut to what the smallest store takes.
    #[must_use]
    pub fn of_log(text: &[u8]) -> Self {
        let most = usize::try_from(SIZE_MAX).unwrap_or(0);
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Self::Lines(lines.map(|line| line[..line.len().min(most)].to_vec()).collect())
    }

    fn line(&self, tag: u64) -> Option<&[u8]> {
        let Self::Lines(lines) = self else { return None };
        let nth = tag.checked_rem(lines.len() as u64)?;
        lines.get(usize::try_from(nth).ok()?).map(Vec::as_slice)
    }

    /// How long the body of this tag is, if `wanted` was drawn.
    #[must_use]
    pub fn len_of(&self, tag: u64, wanted: u32) -> u32 {
        let line = self.line(tag).map(|line| u32::try_from(line.len() + 8).unwrap_or(wanted));
        line.unwrap_or(wanted)
    }

    /// The body of this tag.
    pub fn fill(&self, tag: u64, body: &mut [u8]) {
        let Some(line) = self.line(tag) else { return fill_body(tag, body) };
        let head = tag.to_le_bytes();
        body.iter_mut().zip(head.iter().chain(line)).for_each(|(to, from)| *to = *from);
    }
}

/// Something that comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A batch of one stream.
    Batch {
        /// Number of the stream.
        stream: u8,
        /// Lengths of the bodies.
        sizes: Vec<u32>,
        /// A state entry that rides with it.
        state: Option<u8>,
        /// Its class.
        class: Class,
    },
    /// So many records of a stream were lost on the way.
    Lost {
        /// Number of the stream.
        stream: u8,
        /// How many.
        records: u32,
    },
    /// A clean stop is asked for.
    Stop,
    /// The process is killed.
    Kill,
}

/// The arrivals of one life.
#[derive(Debug)]
pub struct Arrivals {
    traffic: Traffic,
    rng: Rng,
    /// When each source is next; then losses, stops and kills.
    next: Vec<u64>,
}

impl Arrivals {
    /// Those of a seed.
    #[must_use]
    pub fn new(traffic: &Traffic, seed: u64) -> Self {
        let mut arrivals = Self { traffic: traffic.clone(), rng: Rng::derived(seed, 0x7aff), next: Vec::new() };
        arrivals.next = (0..traffic.sources.len() + 3).map(|nth| arrivals.draw(nth, 0)).collect();
        arrivals
    }

    fn draw(&mut self, nth: usize, now_us: u64) -> u64 {
        let Traffic { sources, lose, stop, kill } = &self.traffic;
        let range = match nth.checked_sub(sources.len()) {
            None => Some(&sources[nth].every),
            Some(0) => lose.as_ref(),
            Some(1) => stop.as_ref(),
            Some(_) => kill.as_ref(),
        };
        let Some(range) = range else { return u64::MAX };
        now_us.saturating_add(range.start() + self.rng.below(range.end() - range.start() + 1))
    }

    /// When the next thing comes in.
    #[must_use]
    pub fn next_us(&self) -> u64 {
        self.next.iter().copied().min().unwrap_or(u64::MAX)
    }

    /// What comes in at `now_us`; what was missed while the node was dark is not made up for.
    pub fn take(&mut self, now_us: u64) -> Arrival {
        let nth = (0..self.next.len()).min_by_key(|nth| self.next[*nth]).unwrap_or(0);
        self.next[nth] = self.draw(nth, now_us);
        if let Some(other) = nth.checked_sub(self.traffic.sources.len()) {
            return match other {
                0 => Arrival::Lost { stream: self.any_stream(), records: 1 + self.small(9) },
                1 => Arrival::Stop,
                _ => Arrival::Kill,
            };
        }
        let Source { batch, size, class, states, .. } = self.traffic.sources[nth].clone();
        let records = batch.start() + self.rng.below(batch.end() - batch.start() + 1);
        let span = size.end() - size.start() + 1;
        let sizes = (0..records).map(|_| u32::try_from(size.start() + self.rng.below(span)).unwrap_or(8).max(8));
        let sizes = sizes.collect();
        let state = states.then(|| u8::try_from(self.rng.below(4)).unwrap_or(0));
        Arrival::Batch { stream: u8::try_from(nth).unwrap_or(0), sizes, state, class }
    }

    /// Nothing comes in while the node is dark.
    pub fn skip_to(&mut self, now_us: u64) {
        for nth in 0..self.next.len() {
            if self.next[nth] <= now_us {
                self.next[nth] = self.draw(nth, now_us);
            }
        }
    }

    fn any_stream(&mut self) -> u8 {
        u8::try_from(self.rng.index(self.traffic.sources.len())).unwrap_or(0)
    }

    fn small(&mut self, below: u64) -> u32 {
        u32::try_from(self.rng.below(below)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_says_what_is_wrong_and_where() {
        assert_eq!(Traffic::default().names(), ["app", "sshd", "kernel", "debug"]);
        let traffic: Traffic = "# quiet\nstream a every 1s batch 2..3 size 10 class ram states\n".parse().unwrap();
        assert_eq!((traffic.sources[0].class, traffic.sources[0].states), (Class::Ram, true));
        for (text, line) in [
            ("", 1),
            ("\nstream a", 2),
            ("stream a every 1s\nstream b every soon", 2),
            ("stream a every 1s size 9..5", 1),
            ("stream a every 1s size 40000", 1),
            ("stream a every 1s class gold", 1),
            ("stream a every 1s batch", 1),
            ("flood every 1s", 1),
        ] {
            let error = text.parse::<Traffic>().unwrap_err();
            assert_eq!(error.line, line, "{error}");
        }
    }

    #[test]
    fn the_arrivals_of_a_seed_are_the_same_and_everything_comes() {
        let run = |seed| {
            let mut arrivals = Arrivals::new(&Traffic::default(), seed);
            let mut next = || {
                let at = arrivals.next_us();
                (at, arrivals.take(at))
            };
            (0..3000).map(|_| next()).collect::<Vec<_>>()
        };
        let all = run(4);
        assert_eq!(all, run(4));
        assert_ne!(all, run(5));
        assert!(all.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        for kind in [Arrival::Stop, Arrival::Kill] {
            assert!(all.iter().any(|(_, arrival)| *arrival == kind));
        }
        assert!(all.iter().any(|(_, arrival)| matches!(arrival, Arrival::Lost { .. })));
    }

    #[test]
    fn lines_of_a_log_are_the_bodies_in_turn_each_behind_its_tag() {
        let bodies = Bodies::of_log(b"one\n\ntwo three\n");
        let mut body = vec![0; bodies.len_of(3, 99) as usize];
        bodies.fill(3, &mut body);
        assert_eq!(body, [&3_u64.to_le_bytes()[..], b"two three"].concat());
        assert_eq!(bodies.len_of(2, 99), 11);
        assert_eq!(Bodies::Made.len_of(2, 99), 99);
    }
}
