//! How far a node has taken the journal in.
//!
//! Invariants: what counts is the cursor in the store, durable with the entries before it; nothing is believed of a
//! node that does not run.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lastgasp_client::{FileSource, Writer};

/// Where the journald source of a node keeps its cursor.
const STATE_KEY: &[u8] = b"journald";
/// How long a node may take for what stands in the journal already, without getting on.
const PATIENCE: Duration = Duration::from_secs(20);

/// A place in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The whole text.
    pub(super) text: String,
    /// Numbers are of this sequence.
    sequence: String,
    number: u64,
    realtime_us: u64,
    /// Only the first parts of the entry are kept.
    is_partial: bool,
}

impl Cursor {
    /// Reads `s=...;i=...;b=...;m=...;t=...;x=...`, in a store with a newline and how far the entry is kept behind it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (text, is_partial) = text.split_once('\n').map_or((text, false), |(cursor, _)| (cursor, true));
        let part = |key: &str| text.split(';').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        let hex = |key: &str| u64::from_str_radix(part(key)?, 16).ok();
        let (sequence, number, realtime_us) = (part("s")?.to_owned(), hex("i")?, hex("t")?);
        Some(Self { text: text.to_owned(), sequence, number, realtime_us, is_partial })
    }

    /// This place is that one or behind it.
    pub(super) fn has_reached(&self, other: &Self) -> bool {
        let (this, that) = match self.sequence == other.sequence {
            true => (self.number, other.number),
            false => (self.realtime_us, other.realtime_us),
        };
        if self.is_partial { this > that } else { this >= that }
    }
}

/// The newest entry of the journal; none if there is no entry.
pub(super) fn newest(root: &Path) -> Result<Option<Cursor>> {
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["--quiet", "--no-pager", "--lines=1", "--output=export", "--output-fields=PRIORITY"]);
    if root != Path::new("/") {
        let mut argument = std::ffi::OsString::from("--root=");
        argument.push(root);
        journalctl.arg(argument);
    }
    let out = journalctl.output().context("journalctl cannot be run; it tells how far the journal goes")?;
    if !out.status.success() {
        bail!("journalctl failed: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let Some(cursor) = text.lines().find_map(|line| line.strip_prefix("__CURSOR=")) else { return Ok(None) };
    let parsed = Cursor::parse(cursor);
    parsed.map(Some).with_context(|| format!("journalctl gave a cursor that is not known here: {cursor}"))
}

/// The last entry that the store has for good; none if it has none.
pub(super) fn imported(source: &mut FileSource) -> Result<Option<Cursor>> {
    let state = source.mounted(|catalog, _| catalog.state().get(STATE_KEY).map(<[u8]>::to_vec))?;
    Ok(state.as_deref().and_then(|state| Cursor::parse(std::str::from_utf8(state).ok()?)))
}

/// Makes sure that a running node has everything that stands in the journal now.
pub(super) fn wait_for(source: &mut FileSource, newest: Option<&Cursor>) -> Result<()> {
    let path = source.path().display().to_string();
    if source.status().writer == Writer::None {
        bail!(
            "{path}: no node is running on this store, so nobody would keep the journal; start lastgaspd with its \
             journald source first"
        );
    }
    let Some(newest) = newest else { return Ok(()) };
    let mut last = None;
    let mut since = Instant::now();
    loop {
        let imported = imported(source)?;
        if imported.as_ref().is_some_and(|imported| imported.has_reached(newest)) {
            return Ok(());
        }
        if imported != last {
            (last, since) = (imported, Instant::now());
        }
        let left = PATIENCE.saturating_sub(since.elapsed());
        if left.is_zero() {
            let how_far = last.map_or_else(
                || "nothing of it; is its journald source switched on".to_owned(),
                |cursor| format!("it as far as {}, and does not get on; see lastgasp status", cursor.text),
            );
            bail!("{path}: the journal goes up to {}, and the node has {how_far}", newest.text);
        }
        source.wait(left)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_of_one_sequence_are_compared_by_number_others_by_time() {
        let cursor = |s: &str, i: u64, t: u64| Cursor::parse(&format!("s={s};i={i:x};b=0;m=0;t={t:x};x=0")).unwrap();
        assert!(cursor("a", 11, 0).has_reached(&cursor("a", 10, 99)));
        assert!(!cursor("a", 9, 99).has_reached(&cursor("a", 10, 0)));
        assert!(cursor("a", 10, 0).has_reached(&cursor("a", 10, 0)));
        assert!(cursor("a", 1, 50).has_reached(&cursor("b", 99, 50)));
        assert!(!cursor("a", 99, 49).has_reached(&cursor("b", 1, 50)));
        let partly = Cursor::parse("s=a;i=a;b=0;m=0;t=0;x=0\n4096").unwrap();
        assert!(!partly.has_reached(&cursor("a", 10, 0)) && partly.has_reached(&cursor("a", 9, 0)));
        for text in ["", "s=a", "s=a;i=x;t=1", "i=1;t=1", "x"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
