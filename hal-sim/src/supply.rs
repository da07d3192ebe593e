//! The power supply of a node: a reserve of energy, the weather on the mains, and a sense that may be wrong.
//!
//! Fault model:
//! - **energy budget**: when the mains go, a reserve (a supercapacitor, the bulk of a converter) feeds the node. A
//!   medium that works draws more than one that rests. The power is off at the very instant the reserve is empty, in
//!   the middle of an operation if one is under way. It charges again while the mains are there, and not at once;
//! - **cut**: the mains go and stay away. **Yank**: the plug between supply and node is pulled, there is no reserve.
//!   **Sag**: the mains go for a moment and return, before the reserve is empty or after. **Bounce**: several sags in
//!   a row, each shorter than the reserve charges, then the mains stay away;
//! - **the sense** tells of the mains rightly, late, not at all, or the opposite of what is ([`Sense`]).
//!
//! Invariant: everything is a function of the script, the seed and the times asked about.

use crate::rng::Rng;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// How a sense is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    /// It is not.
    Right,
    /// It tells of every edge so many microseconds late.
    Late(u64),
    /// It says the mains are there when they are not, and the other way round: a HAT of the other polarity.
    Opposite,
    /// It says that the mains are there, whatever happens.
    Stuck,
}

/// The reserve that feeds a node when the mains are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    full_nj: u64,
    left_nj: u64,
    mains: bool,
}

/// What a node draws at rest, in milliwatts: a small Raspberry Pi.
pub const IDLE_MW: u64 = 1_500;
/// What it draws while its medium works: 100 mA more at 3.3 V, as the SD specification allows a card.
pub const BUSY_MW: u64 = 1_830;
/// What charges the reserve.
const CHARGE_MW: u64 = 500;

impl Reserve {
    /// One that lasts `hold_up_us` while the medium works, full, with the mains on.
    #[must_use]
    pub fn new(hold_up_us: u64) -> Self {
        let full_nj = hold_up_us.saturating_mul(BUSY_MW);
        Self { full_nj, left_nj: full_nj, mains: true }
    }

    /// How long it lasts from now on while the medium works.
    #[must_use]
    pub fn hold_up_us(&self) -> u64 {
        self.left_nj / BUSY_MW
    }

    /// The mains go or come back.
    pub fn set_mains(&mut self, on: bool) {
        self.mains = on;
    }

    /// Whether the mains are there.
    #[must_use]
    pub fn mains(&self) -> bool {
        self.mains
    }

    /// The plug is pulled behind it.
    pub fn yank(&mut self) {
        (self.mains, self.left_nj) = (false, 0);
    }

    /// Lets time go by; if the reserve does not last, says after how much of it the power was off.
    pub fn pass(&mut self, us: u64, busy: bool) -> Option<u64> {
        if self.mains {
            let charged = self.left_nj.saturating_add(us.saturating_mul(CHARGE_MW));
            self.left_nj = charged.min(self.full_nj);
            return None;
        }
        let draw = if busy { BUSY_MW } else { IDLE_MW };
        let need = us.saturating_mul(draw);
        if need <= self.left_nj && self.left_nj > 0 {
            self.left_nj -= need;
            return None;
        }
        let lasted = self.left_nj / draw;
        self.left_nj = 0;
        Some(lasted.min(us))
    }
}

/// What happens to the mains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// They go and stay away.
    Cut,
    /// The plug is pulled behind the reserve.
    Yank,
    /// They go, and return after so many microseconds.
    Sag(u64),
    /// They sag so many times, then stay away.
    Bounce(u64),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the mains go"),
            Self::Yank => f.write_str("the plug is pulled"),
            Self::Sag(us) => write!(f, "the mains sag for {} ms", us / 1000),
            Self::Bounce(n) => write!(f, "the mains bounce {n} times and go"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Cut,
    Yank,
    Sag(RangeInclusive<u64>),
    Bounce(RangeInclusive<u64>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum When {
    At(u64),
    Every(RangeInclusive<u64>),
}

/// What happens to the mains over the life of a node, and how good its supply is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// How long the full reserve lasts while the medium works, in microseconds.
    pub hold_up_us: u64,
    /// How the sense is wrong.
    pub sense: Sense,
    dark: RangeInclusive<u64>,
    rules: Vec<(When, What)>,
}

/// The script of a node that nobody wrote one for: a reserve of 400 ms, and everything that happens to mains.
pub const DEFAULT_SCRIPT: &str = "\
hold-up 400ms
sense right
dark 2s..20m
every 40m..6h cut
every 2h..9h yank
every 1h..5h sag 5ms..900ms
every 5h..15h bounce 2..6
";

impl Default for Script {
    fn default() -> Self {
        DEFAULT_SCRIPT.parse().unwrap_or(Self { hold_up_us: 0, sense: Sense::Right, dark: 1..=1, rules: Vec::new() })
    }
}

/// What is wrong with a script, and in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAScript {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for NotAScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for NotAScript {}

impl FromStr for Script {
    type Err = NotAScript;

    fn from_str(text: &str) -> Result<Self, NotAScript> {
        let mut script = Self { hold_up_us: 400_000, sense: Sense::Right, dark: 2_000_000..=60_000_000, rules: vec![] };
        for (nth, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            script.line(&words).map_err(|what| NotAScript { line: nth + 1, what })?;
        }
        if script.rules.is_empty() {
            let what = "nothing ever happens: say when, as in `every 1h..4h cut`".to_owned();
            return Err(NotAScript { line: text.lines().count().max(1), what });
        }
        Ok(script)
    }
}

impl Script {
    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        match *words {
            [] => {}
            ["hold-up", time] => self.hold_up_us = duration_us(time)?,
            ["sense", "right"] => self.sense = Sense::Right,
            ["sense", "late", time] => self.sense = Sense::Late(duration_us(time)?),
            ["sense", "opposite"] => self.sense = Sense::Opposite,
            ["sense", "stuck"] => self.sense = Sense::Stuck,
            ["dark", times] => self.dark = range_of(times, duration_us)?,
            ["every", times, ref what @ ..] => {
                let times = range_of(times, duration_us)?;
                if *times.start() == 0 {
                    return Err("every 0s is for ever".to_owned());
                }
                self.rules.push((When::Every(times), what_of(what)?));
            }
            ["at", time, ref what @ ..] => self.rules.push((When::At(duration_us(time)?), what_of(what)?)),
            _ => {
                return Err(format!(
                    "`{}` is none of: hold-up TIME, sense right|late TIME|opposite|stuck, dark TIME[..TIME], \
                     every TIME[..TIME] EVENT, at TIME EVENT; an EVENT is cut, yank, sag TIME[..TIME] or bounce N",
                    words.join(" ")
                ));
            }
        }
        Ok(())
    }
}

fn what_of(words: &[&str]) -> Result<What, String> {
    match *words {
        ["cut"] => Ok(What::Cut),
        ["yank"] => Ok(What::Yank),
        ["sag", times] => Ok(What::Sag(range_of(times, duration_us)?)),
        ["bounce", counts] => Ok(What::Bounce(range_of(counts, count_of)?)),
        _ => Err(format!("`{}` is no event: cut, yank, sag TIME[..TIME] or bounce N[..N]", words.join(" "))),
    }
}

fn count_of(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn range_of(text: &str, parse: fn(&str) -> Result<u64, String>) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = match text.split_once("..") {
        Some((first, last)) => (parse(first)?, parse(last)?),
        None => (parse(text)?, parse(text)?),
    };
    if first > last { Err(format!("`{text}` ends before it begins")) } else { Ok(first..=last) }
}

/// `90s`, `250ms`, `2h`, `1d` in microseconds.
///
/// # Errors
/// It is no time; the text says what one looks like.
pub fn duration_us(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => 0,
    };
    let us = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    us.filter(|_| scale > 0).ok_or_else(|| format!("`{text}` is no time, such as 250ms, 90s, 15m, 2h or 1d"))
}

/// The mains over the life of a node: what happens next, and when.
#[derive(Debug, Clone)]
pub struct Weather {
    script: Script,
    rng: Rng,
    next: Vec<Option<u64>>,
}

impl Weather {
    /// The weather of a seed.
    #[must_use]
    pub fn new(script: &Script, seed: u64) -> Self {
        let mut weather = Self { script: script.clone(), rng: Rng::derived(seed, 0x3ea7), next: Vec::new() };
        let rules = weather.script.rules.clone();
        weather.next = rules.iter().map(|(when, _)| Some(weather.draw_when(when, 0))).collect();
        weather
    }

    fn draw(&mut self, range: &RangeInclusive<u64>) -> u64 {
        range.start() + self.rng.below(range.end() - range.start() + 1)
    }

    fn draw_when(&mut self, when: &When, now_us: u64) -> u64 {
        match when {
            When::At(at) => *at,
            When::Every(range) => now_us.saturating_add(self.draw(range)),
        }
    }

    /// The next event after `now_us`, and when it is; `None` if nothing happens any more. Rules whose time went by
    /// while the node was dark begin anew.
    pub fn next(&mut self, now_us: u64) -> Option<(u64, Event)> {
        let rules = self.script.rules.clone();
        for (nth, (when, _)) in rules.iter().enumerate() {
            while self.next[nth].is_some_and(|at| at <= now_us) {
                self.next[nth] = match when {
                    When::At(_) => None,
                    When::Every(_) => Some(self.draw_when(when, now_us)),
                };
            }
        }
        let nth = (0..rules.len()).filter(|nth| self.next[*nth].is_some()).min_by_key(|nth| self.next[*nth])?;
        let event = match &rules[nth].1 {
            What::Cut => Event::Cut,
            What::Yank => Event::Yank,
            What::Sag(times) => Event::Sag(self.draw(times)),
            What::Bounce(counts) => Event::Bounce(self.draw(counts)),
        };
        Some((self.next[nth]?, event))
    }

    /// How long the node stays dark after a cut.
    pub fn dark_us(&mut self) -> u64 {
        let range = self.script.dark.clone();
        self.draw(&range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_lasts_as_long_as_it_says_while_the_medium_works_and_longer_at_rest() {
        let mut reserve = Reserve::new(100_000);
        assert_eq!(reserve.pass(1 << 40, true), None, "the mains are on");
        reserve.set_mains(false);
        assert_eq!(reserve.pass(99_999, true), None);
        assert_eq!(reserve.pass(100, true), Some(1));
        let mut idle = Reserve::new(100_000);
        idle.set_mains(false);
        assert_eq!(idle.pass(1_000_000, false), Some(100_000 * BUSY_MW / IDLE_MW));
    }

    #[test]
    fn a_reserve_that_was_drained_is_not_full_again_at_once() {
        let mut reserve = Reserve::new(100_000);
        reserve.set_mains(false);
        assert_eq!(reserve.pass(90_000, true), None);
        reserve.set_mains(true);
        reserve.pass(10_000, false);
        assert!(reserve.hold_up_us() < 20_000, "{}", reserve.hold_up_us());
        reserve.pass(10_000_000, false);
        assert_eq!(reserve.hold_up_us(), 100_000);
        reserve.yank();
        assert_eq!(reserve.pass(1, false), Some(0));
    }

    #[test]
    fn a_script_says_what_is_wrong_and_where() {
        let script: Script =
            "# a HAT\nhold-up 1s\nsense late 200ms\nevery 1h..2h cut # often\nat 3d yank\n".parse().unwrap();
        assert_eq!((script.hold_up_us, script.sense), (1_000_000, Sense::Late(200_000)));
        assert_eq!("hold-up 1s".parse::<Script>().unwrap_err().line, 1);
        for (text, line) in [("\nevery x cut", 2), ("every 2h..1h cut", 1), ("every 1h melt", 1), ("hold-up 1 s", 1)] {
            let error = text.parse::<Script>().unwrap_err();
            assert_eq!(error.line, line, "{error}");
        }
        assert!("every 0s cut".parse::<Script>().is_err());
        assert_eq!(Script::default().rules.len(), 4);
    }

    #[test]
    fn the_weather_of_a_seed_is_the_same_and_every_rule_comes_up() {
        let run = |seed| {
            let mut weather = Weather::new(&Script::default(), seed);
            let mut now = 0;
            let mut events = Vec::new();
            for _ in 0..200 {
                let (at, event) = weather.next(now).unwrap();
                assert!(at > now);
                now = at;
                events.push((at, event));
            }
            events
        };
        let events = run(1);
        assert_eq!(events, run(1));
        assert_ne!(events, run(2));
        let kinds: [fn(&Event) -> bool; 4] = [
            |e| matches!(e, Event::Cut),
            |e| matches!(e, Event::Yank),
            |e| matches!(e, Event::Sag(_)),
            |e| matches!(e, Event::Bounce(_)),
        ];
        assert!(kinds.iter().all(|kind| events.iter().any(|(_, event)| kind(event))));
        let mut once = Weather::new(&"at 5s cut".parse().unwrap(), 0);
        assert_eq!(once.next(0), Some((5_000_000, Event::Cut)));
        assert_eq!(once.next(5_000_000), None);
    }
}
