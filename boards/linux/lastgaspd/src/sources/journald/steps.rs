//! What of the journal is read, in which steps: the boots that are not read to their end, then the running one.
//!
//! Invariants: no boot comes twice; the running boot comes last, and is followed. Why boots are read one by one stands
//! at the head of the [module](super).

use std::convert::Infallible;

use super::cursor::Cursor;
use super::export::Parser;
use super::{Over, Reader};
use crate::config::Begin;

/// A stretch of the journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Of this boot only.
    pub(super) boot: Option<String>,
    /// From this cursor on.
    pub(super) cursor: Option<String>,
    /// Goes on when all is read.
    pub(super) follow: bool,
    /// Only what comes from now on.
    pub(super) from_end: bool,
}

impl Step {
    fn of(boot: Option<&str>, cursor: Option<&Cursor>, follow: bool) -> Self {
        let cursor = cursor.map(|c| c.text.clone());
        Self { boot: boot.map(str::to_owned), cursor, follow, from_end: false }
    }

    pub(super) fn arguments(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.follow {
            // Without --merge, -f means -b; the match by boot keeps out what --merge would add.
            all.extend(["--follow".to_owned(), "--merge".to_owned()]);
            all.push(if self.from_end { "--lines=1".to_owned() } else { "--no-tail".to_owned() });
        }
        all.extend(self.cursor.iter().map(|cursor| format!("--cursor={cursor}")));
        all.extend(self.boot.iter().map(|boot| format!("_BOOT_ID={boot}")));
        all
    }
}

impl<E> Reader<'_, E> {
    pub(super) fn plan(&mut self) -> Result<Vec<Step>, Over> {
        let last = self.last.as_ref().map(|place| place.cursor.clone());
        let Some(boot) = self.boot_of_journal()? else {
            let from_end = last.is_none() && self.options.journal.from == Begin::End;
            return Ok(vec![Step { from_end, ..Step::of(None, last.as_ref(), true) }]);
        };
        let boot = Some(boot.as_str());
        let mut steps = Vec::new();
        match (&last, self.options.journal.from) {
            (Some(cursor), _) if Some(cursor.boot.as_str()) == boot => {
                return Ok(vec![Step::of(boot, Some(cursor), true)]);
            }
            (Some(cursor), _) => {
                steps.push(Step::of(Some(&cursor.boot), Some(cursor), false));
                let listed = self.boots()?;
                let later = match listed.iter().position(|b| *b == cursor.boot) {
                    Some(at) => listed.get(at.saturating_add(1)..).unwrap_or_default().to_vec(),
                    // journald has lost that boot: those that end later were not read.
                    None => self.ending_after(listed, cursor.realtime_us)?,
                };
                steps.extend(later.iter().filter(|b| Some(b.as_str()) != boot).map(|b| Step::of(Some(b), None, false)));
            }
            (None, Begin::Start) => {
                let listed = self.boots()?;
                steps
                    .extend(listed.iter().filter(|b| Some(b.as_str()) != boot).map(|b| Step::of(Some(b), None, false)));
            }
            (None, Begin::Boot) => {}
            (None, Begin::End) => return Ok(vec![Step { from_end: true, ..Step::of(boot, None, true) }]),
        }
        steps.push(Step::of(boot, None, true));
        Ok(steps)
    }

    /// The running boot, if the journal is that of this machine.
    fn boot_of_journal(&self) -> Result<Option<String>, Over> {
        let Some(boot) = self.boot.clone() else { return Ok(None) };
        if self.options.journal.directory.is_none() {
            return Ok(Some(boot));
        }
        let found = self.ask(&["--lines=1", &format!("_BOOT_ID={boot}")])?;
        Ok((!found.is_empty()).then_some(boot))
    }

    /// The boots of the journal, oldest first.
    fn boots(&self) -> Result<Vec<String>, Over> {
        let list = self.ask(&["--list-boots", "--quiet"])?;
        let list = String::from_utf8_lossy(&list).into_owned();
        let is_id = |word: &&str| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
        Ok(list.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_id).map(str::to_owned).collect())
    }

    fn ending_after(&self, boots: Vec<String>, realtime_us: u64) -> Result<Vec<String>, Over> {
        let mut later = Vec::new();
        for boot in boots {
            let last = self.ask(&["--lines=1", &format!("_BOOT_ID={boot}")])?;
            let mut ends_us = 0;
            let Ok(()) = Parser::new(self.limits()).feed(&last, |entry| {
                let time = entry.text(b"__REALTIME_TIMESTAMP").and_then(|t| t.parse().ok());
                ends_us = time.unwrap_or(ends_us);
                Ok::<(), Infallible>(())
            });
            if ends_us > realtime_us {
                later.push(boot);
            }
        }
        Ok(later)
    }
}
