//! How far the records are durable, and the clients that wait for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};

/// Shared by the committer and its clients.
#[derive(Debug, Default)]
pub(super) struct Durable {
    state: Mutex<State>,
    risen: Condvar,
}

#[derive(Debug, Default)]
struct State {
    upto: u64,
    /// How often it rose.
    rises: u64,
    /// It rises no more: why.
    ended: Option<String>,
}

impl Durable {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything up to record `upto` is durable.
    pub(super) fn rise(&self, upto: u64) {
        let mut state = self.state();
        state.upto = state.upto.max(upto);
        state.rises += 1;
        drop(state);
        self.risen.notify_all();
    }

    /// How often it rose.
    pub(super) fn rises(&self) -> u64 {
        self.state().rises
    }

    /// Nothing more becomes durable.
    pub(super) fn end(&self, why: String) {
        self.state().ended.get_or_insert(why);
        self.risen.notify_all();
    }

    /// Returns when record `n` is durable; an error if it never will be.
    pub(super) fn wait(&self, n: u64) -> Result<()> {
        let mut state = self.state();
        loop {
            if state.upto >= n {
                return Ok(());
            }
            if let Some(why) = &state.ended {
                bail!("record {n} did not become durable: {why}");
            }
            state = self.risen.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn waiters_are_woken_by_their_number_and_by_the_end() {
        let durable = Durable::default();
        thread::scope(|scope| {
            let first = scope.spawn(|| durable.wait(1));
            let second = scope.spawn(|| durable.wait(2));
            durable.rise(1);
            assert!(first.join().unwrap().is_ok());
            durable.end("it broke".into());
            let error = second.join().unwrap().unwrap_err().to_string();
            assert!(error.contains("record 2") && error.contains("it broke"), "{error}");
        });
    }
}
