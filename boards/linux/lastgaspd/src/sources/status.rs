//! What a source says of itself, for `lastgasp status` and `GET /healthz`.
//!
//! Invariant: saying it never waits for whoever reads it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What one source says of itself.
#[derive(Debug)]
pub struct SourceStatus {
    name: String,
    words: Mutex<(bool, String)>,
    records: AtomicU64,
    errors: AtomicU64,
}

/// A copy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// Its name: `journald`, `files.nginx`, `syslog.udp`.
    pub name: String,
    /// It does what it is meant to do.
    pub works: bool,
    /// What it does, or what keeps it from it.
    pub words: String,
    /// Records it read in this run.
    pub records: u64,
    /// Inputs it could not make sense of, or failures of its input.
    pub errors: u64,
}

impl SourceStatus {
    /// One that is starting.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let words = Mutex::new((true, "starting".to_owned()));
        Self { name: name.to_owned(), words, records: AtomicU64::new(0), errors: AtomicU64::new(0) }
    }

    /// It works, in these words: `following 3 files`.
    pub fn works(&self, words: impl Into<String>) {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = (true, words.into());
    }

    /// It does not work, for this reason.
    pub fn fails(&self, words: impl Into<String>) {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = (false, words.into());
    }

    /// It read so many records.
    pub fn read(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// It met something it could not make sense of.
    pub fn erred(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A copy.
    #[must_use]
    pub fn report(&self) -> SourceReport {
        let (works, words) = self.words.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (records, errors) = (self.records.load(Ordering::Relaxed), self.errors.load(Ordering::Relaxed));
        SourceReport { name: self.name.clone(), works, words, records, errors }
    }
}

/// All sources of a node.
#[derive(Debug, Default, Clone)]
pub struct Sources(Arc<Mutex<Vec<Arc<SourceStatus>>>>);

impl Sources {
    /// A source joins, in the place of one of this name that could not run.
    pub fn join(&self, name: &str) -> Arc<SourceStatus> {
        let status = Arc::new(SourceStatus::new(name));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.name != name);
        all.push(Arc::clone(&status));
        status
    }

    /// A source leaves.
    pub fn leave(&self, status: &Arc<SourceStatus>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| !Arc::ptr_eq(known, status));
    }

    /// What all of them say.
    #[must_use]
    pub fn reports(&self) -> Vec<SourceReport> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.iter().map(|status| status.report()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_come_and_go_and_say_how_they_are() {
        let sources = Sources::default();
        let (a, b) = (sources.join("a"), sources.join("b"));
        a.read(2);
        a.works("following 3 files");
        b.erred();
        b.fails("no such file");
        let reports = sources.reports();
        assert_eq!((reports[0].works, reports[0].records, reports[0].words.as_str()), (true, 2, "following 3 files"));
        assert_eq!((reports[1].works, reports[1].errors), (false, 1));
        sources.leave(&a);
        assert_eq!(sources.reports().len(), 1);
    }
}
