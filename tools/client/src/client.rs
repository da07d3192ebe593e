//! The one reader.
//!
//! Invariant: what a caller sees does not depend on whether a node or a medium is read, but for what only a node knows.

use std::io;
use std::time::Duration;

use crate::boots::Boots;
use crate::entry::Entry;
use crate::error::Error;
use crate::file::FileSource;
use crate::gaps::{KnownGap, look_windows_up};
use crate::query::Query;
use crate::socket::NodeSource;
use crate::target::Target;

/// Whether to go on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The next entry.
    On,
    /// That was enough.
    Stop,
}

/// Takes the entries of a read, one after another; meanwhile it can look elsewhere in the log.
pub type Each<'f> = &'f mut dyn FnMut(Entry<'_>, &mut dyn Lookup) -> io::Result<Flow>;

/// Reads a second range while an entry of the first is held.
pub trait Lookup {
    /// Reads what the query asks for.
    ///
    /// # Errors
    /// The medium or the node fails, or `each` does.
    fn look(&mut self, query: &Query, each: &mut dyn FnMut(Entry<'_>) -> io::Result<Flow>) -> Result<(), Error>;
}

/// Reads a node or a medium.
#[derive(Debug)]
pub enum Client {
    /// A medium.
    File(Box<FileSource>),
    /// A running node.
    Node(Box<NodeSource>),
}

impl Client {
    /// Opens what the target says. What a user should know of it besides is handed to `note`.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn open(target: &Target, note: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        match target {
            Target::Store(path) => {
                let source = FileSource::open(path)?;
                if let Some(writer) = source.status().writer.words() {
                    note(&format!("{writer} is writing to {}; shown is what it had written", path.display()));
                }
                Ok(Self::File(Box::new(source)))
            }
            Target::Node { socket, store } => match (NodeSource::open(socket), store) {
                (Ok(source), _) => Ok(Self::Node(Box::new(source))),
                (Err(error), None) => Err(error),
                (Err(error), Some(store)) => {
                    let source = match FileSource::open(store) {
                        Ok(source) => source,
                        // Of two that may not be read, the node is the one to be let in to.
                        Err(_) if error.is_denied() => return Err(error),
                        Err(other) => {
                            note(&error.to_string());
                            return Err(other);
                        }
                    };
                    note(&format!("{error}; reading its store instead: {}", store.display()));
                    Ok(Self::File(Box::new(source)))
                }
            },
        }
    }

    /// What is read, as a user would name it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(source) => source.path().display().to_string(),
            Self::Node(source) => source.path().display().to_string(),
        }
    }

    /// Reads what the query asks for, and hands each entry over. Returns where to go on: oldest first, every number
    /// before it was read, whether the filter kept it or not.
    ///
    /// # Errors
    /// The medium or the node fails, or `each` does.
    pub fn read(&mut self, query: &Query, each: Each<'_>) -> Result<u64, Error> {
        match self {
            Self::File(source) => source.read(query, each),
            Self::Node(source) => source.read(query, each),
        }
    }

    /// Waits until there may be records from `from` on, but not longer than `patience`; `false` if that time is over
    /// and there are none for sure.
    ///
    /// # Errors
    /// The medium or the node fails.
    pub fn wait(&mut self, from: u64, patience: Duration) -> Result<bool, Error> {
        match self {
            Self::File(source) => source.wait(patience),
            Self::Node(source) => source.wait(from, patience),
        }
    }

    /// The number that the next record will have at least: everything before it is durable or gone.
    ///
    /// # Errors
    /// The medium or the node fails.
    pub fn next_seq(&mut self) -> Result<u64, Error> {
        match self {
            Self::File(source) => source.mounted(|catalog, _| catalog.durable_upto().saturating_add(1)),
            Self::Node(source) => Ok(source.status()?.numbers.durable_upto.saturating_add(1)),
        }
    }

    /// The names of all streams, in the order in which they came to be.
    ///
    /// # Errors
    /// The medium or the node fails.
    pub fn streams(&mut self) -> Result<Vec<String>, Error> {
        match self {
            Self::File(source) => source.streams(),
            Self::Node(source) => source.streams(),
        }
    }

    /// All boots that the log still tells of.
    ///
    /// # Errors
    /// The medium or the node fails.
    pub fn boots(&mut self) -> Result<Boots, Error> {
        match self {
            Self::File(source) => source.boots(),
            Self::Node(source) => {
                let mut boots = Boots::of_node(&source.boots()?);
                source.lookups(&mut |look| boots.look_ends_up(look))?;
                Ok(boots)
            }
        }
    }

    /// Everything that is known to be lost: what the ledger of gaps tells, and what retention dropped. With `scan`,
    /// every record is read, so that damage is found too which nobody has met yet; `progress` is told the numbers that
    /// were passed, and how many there are.
    ///
    /// # Errors
    /// The medium or the node fails.
    pub fn gaps(&mut self, scan: bool, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<KnownGap>, Error> {
        let mut gaps = Vec::new();
        if scan {
            let end = self.next_seq()?;
            self.read(&Query::default(), &mut |entry, _| {
                match &entry {
                    Entry::Gap(gap) => gaps.push(KnownGap::of(gap)),
                    Entry::Record(record) => progress(record.seq, end),
                    Entry::Event(_) => {}
                }
                Ok(Flow::On)
            })?;
        } else {
            match self {
                Self::File(source) => gaps = source.gaps()?,
                Self::Node(source) => gaps = source.gaps()?,
            }
        }
        self.lookups(&mut |look| look_windows_up(&mut gaps, look))?;
        Ok(gaps)
    }

    /// The random number that tells this store from every other.
    ///
    /// # Errors
    /// The medium or the node fails.
    pub fn identity(&mut self) -> Result<u64, Error> {
        match self {
            Self::File(source) => source.mounted(|catalog, _| catalog.store_id()),
            Self::Node(source) => Ok(source.store_id()),
        }
    }

    /// Hands out something that looks into the log here and there.
    ///
    /// # Errors
    /// The medium or the node fails, or `run` does.
    pub fn lookups(&mut self, run: &mut dyn FnMut(&mut dyn Lookup) -> Result<(), Error>) -> Result<(), Error> {
        match self {
            Self::File(source) => source.lookups(run),
            Self::Node(source) => source.lookups(run),
        }
    }

    /// Has the node make everything durable that it took in until now; returns the last such number.
    ///
    /// # Errors
    /// It is a medium, or the node cannot.
    pub fn checkpoint(&mut self) -> Result<u64, Error> {
        match self {
            Self::File(source) => Err(Error::NeedsNode {
                path: source.path().to_path_buf(),
                what: "a checkpoint",
                which: "a store; all that is in it is durable",
            }),
            Self::Node(source) => source.checkpoint(),
        }
    }

    /// The state entry of a source: its cursor, as it is durable now.
    ///
    /// # Errors
    /// The medium or the node fails.
    pub fn state(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::File(source) => source.mounted(|catalog, _| catalog.state().get(key).map(<[u8]>::to_vec)),
            Self::Node(source) => source.state(key),
        }
    }
}
