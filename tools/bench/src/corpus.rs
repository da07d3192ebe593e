//! The records that every engine is given: lines of log files, or generated ones.
//!
//! Invariants: the same arguments give the same records in the same order; each is one line without its newline, never
//! empty; they come from several streams in turn, as they would at a node.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Generated records.
const GENERATED: usize = 20_000;
/// Programs the generated lines come from.
const PROGRAMS: [&str; 6] = ["kernel", "sshd", "nginx", "postgres", "sensord", "networkd"];
const EVENTS: [&str; 5] = [
    "accepted connection from 10.0.{a}.{b} port {c} for user u{d}, protocol 2, key fingerprint SHA256:{d}{c}{d}",
    "request GET /api/v1/devices/{c}/state?since={d} returned 200 in {a} ms, {c} bytes, upstream 192.168.{b}.{a}:8080",
    "sensor {a}: temperature {b}.{a} degC, humidity {a}.{b} %, supply {c} mV, sample {d}, checksum ok",
    "checkpoint complete: wrote {c} buffers ({a}.{b}%); {b} file(s) added, {a} removed, {b} recycled; lsn=0/{d}",
    "eth{a}: link is up, {c} Mbps full duplex, flow control rx/tx, carrier changes {b}, last seen {d}",
];

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Index of its stream in [`Corpus::streams`].
    pub(crate) stream: usize,
    /// The line.
    pub(crate) body: Box<[u8]>,
}

/// All records, and where they are from.
#[derive(Debug, Clone)]
pub(crate) struct Corpus {
    /// Names of their streams.
    pub(crate) streams: Vec<String>,
    records: Vec<Record>,
    /// Where they are from, for people.
    pub(crate) source: String,
}

impl Corpus {
    /// The lines of the `*.log` files of a directory, one of each file in turn.
    pub(crate) fn from_dir(dir: &Path) -> Result<Self> {
        let entries = fs::read_dir(dir).with_context(|| format!("{}: cannot be read", dir.display()))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        paths.sort();
        let mut streams = Vec::new();
        let mut files = Vec::new();
        for path in &paths {
            files.push(fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?);
            streams.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
        let mut lines: Vec<_> = files.iter().map(|bytes| bytes.split(|b| *b == b'\n').map(trimmed)).collect();
        let mut records = Vec::new();
        loop {
            let before = records.len();
            for (stream, lines) in lines.iter_mut().enumerate() {
                if let Some(line) = lines.find(|line| !line.is_empty()) {
                    records.push(Record { stream, body: line.into() });
                }
            }
            if records.len() == before {
                break;
            }
        }
        if records.is_empty() {
            bail!("{}: there is no *.log file with lines in it; leave --data out for generated lines", dir.display());
        }
        let source = format!("{} lines of {} file(s) of --data", records.len(), paths.len());
        Ok(Self { streams, records, source })
    }

    /// Lines that look like those of a small server.
    pub(crate) fn generated(seed: u64) -> Self {
        let mut random = SplitMix(seed);
        let streams = PROGRAMS.map(String::from).to_vec();
        let records = (0..GENERATED).map(|n| generated_line(n, &mut random)).collect();
        Self { streams, records, source: format!("{GENERATED} generated lines, seed {seed}") }
    }

    /// Record number `n`; after the last one they begin anew.
    pub(crate) fn record(&self, n: usize) -> &Record {
        &self.records[n % self.records.len()]
    }

    /// `count` records from number `first` on.
    pub(crate) fn records(&self, first: usize, count: u32) -> impl Iterator<Item = &Record> {
        (first..).map(|n| self.record(n)).take(count as usize)
    }

    /// Mean length of a record in bytes.
    pub(crate) fn mean_bytes(&self) -> f64 {
        let bytes: usize = self.records.iter().map(|record| record.body.len()).sum();
        bytes as f64 / self.records.len() as f64
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn generated_line(n: usize, random: &mut SplitMix) -> Record {
    let stream = random.below(PROGRAMS.len());
    let program = PROGRAMS[stream];
    let event = EVENTS[random.below(EVENTS.len())]
        .replace("{a}", &random.below(100).to_string())
        .replace("{b}", &random.below(256).to_string())
        .replace("{c}", &random.below(65_536).to_string())
        .replace("{d}", &format!("{:08x}", random.below(1 << 32)));
    let (hour, minute, second, micros) = (n / 3600 % 24, n / 60 % 60, n % 60, random.below(1_000_000));
    let pid = 300 + 7 * stream;
    let line = format!("2026-03-01T{hour:02}:{minute:02}:{second:02}.{micros:06}Z edge-7 {program}[{pid}]: {event}");
    Record { stream, body: line.into_bytes().into() }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_stands_for_its_lines() {
        let (a, b, c) = (Corpus::generated(1), Corpus::generated(1), Corpus::generated(2));
        assert_eq!(a.records, b.records);
        assert_ne!(a.records, c.records);
        assert!((130.0..170.0).contains(&a.mean_bytes()), "{}", a.mean_bytes());
        assert_eq!(a.record(GENERATED), a.record(0), "they begin anew");
    }

    #[test]
    fn lines_of_files_come_in_turn_without_empty_ones() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.log"), "b1\r\n\nb2").unwrap();
        fs::write(dir.path().join("a.log"), "a1\n").unwrap();
        fs::write(dir.path().join("c.txt"), "not a log\n").unwrap();
        let corpus = Corpus::from_dir(dir.path()).unwrap();
        let bodies: Vec<&[u8]> = corpus.records(0, 3).map(|record| &*record.body).collect();
        assert_eq!(bodies, [&b"a1"[..], b"b1", b"b2"]);
        assert_eq!(corpus.streams, ["a", "b"]);
    }
}
