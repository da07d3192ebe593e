//! A case in words: what was done, what the medium did, what each mount showed.
//!
//! Invariant: telling costs nothing while nobody listens.

use crate::model::{Item, Seen};
use lastgasp_core::catalog::Catalog;
use lastgasp_core::pool::SegmentEntry;
use lastgasp_core::recovery::RecoveryReport;
use std::cell::RefCell;
use std::rc::Rc;

/// What happened, in words and in order, told by all that share it; silent unless it was asked for.
#[derive(Debug, Clone, Default)]
pub struct Story(Option<Rc<RefCell<Vec<String>>>>);

impl Story {
    /// One that is told.
    #[must_use]
    pub fn told() -> Self {
        Self(Some(Rc::default()))
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.is_some()
    }

    /// Goes on with what `text` says.
    pub fn tell(&self, text: impl FnOnce() -> String) {
        if let Some(lines) = &self.0 {
            let text = text();
            lines.borrow_mut().push(text);
        }
    }

    /// What was told so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.as_ref().map(|lines| lines.borrow().clone()).unwrap_or_default()
    }
}

/// A mount in words.
#[must_use]
pub fn describe_mount(report: &RecoveryReport, seen: &Seen) -> String {
    let cases: String = report.cases.letters().collect();
    format!(
        "mount: previous end {:?}, adopted up to {}, durable up to {}, next {}, epoch {}, floor {}, \
         cases {cases}{}\n  {}",
        report.previous_end,
        report.adopted_upto,
        report.durable_upto,
        report.next_seq,
        report.epoch,
        seen.floor,
        if report.resumes { ", goes on in place" } else { "" },
        describe_items(seen),
    )
}

/// The segments of the log in words, in order, and those that come next.
#[must_use]
pub fn describe_pool(catalog: &Catalog<'_>) -> String {
    let words = |(segment, e): (u32, &SegmentEntry)| {
        let s = e.state;
        format!("{segment} {:?} g{} {}..={}+{}", s.used_for, s.generation, s.first_seq, s.last_seq, s.chain_tail)
    };
    let all: Vec<String> = catalog.pool().iter().map(words).collect();
    format!("  order {:?} of {}", catalog.pool().order(), all.join(", "))
}

fn describe_items(seen: &Seen) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut run: Option<(u64, u64)> = None;
    for item in &seen.items {
        match (item, &mut run) {
            (Item::Record(r), Some((_, last))) if *last + 1 == r.seq => *last = r.seq,
            (Item::Record(r), _) => {
                words.extend(run.take().map(|(a, b)| format!("{a}..={b}")));
                run = Some((r.seq, r.seq));
            }
            (other, _) => {
                words.extend(run.take().map(|(a, b)| format!("{a}..={b}")));
                words.push(match other {
                    Item::Gap { first, last, cause } => format!("[{first}..={last} {}]", cause.name()),
                    Item::Boot(epoch) => format!("boot {epoch}"),
                    _ => "close".to_owned(),
                });
            }
        }
    }
    words.extend(run.map(|(a, b)| format!("{a}..={b}")));
    format!("shown: {}; state {:?}", words.join(" "), seen.state)
}
