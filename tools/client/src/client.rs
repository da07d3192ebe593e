//! The one reader.
//!
//! Invariant: what a caller sees does not depend on whether a node or a medium is read, but for what only a node knows.

use std::io;

use crate::boots::Boots;
use crate::entry::Entry;
use crate::error::Error;
use crate::file::FileSource;
use crate::query::Query;
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
}

impl Client {
    /// Opens what the target says.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn open(target: &Target) -> Result<Self, Error> {
        match target {
            Target::Store(path) => Ok(Self::File(Box::new(FileSource::open(path)?))),
        }
    }

    /// Reads what the query asks for, and hands each entry over.
    ///
    /// # Errors
    /// The medium or the node fails, or `each` does.
    pub fn read(&mut self, query: &Query, each: Each<'_>) -> Result<(), Error> {
        match self {
            Self::File(source) => source.read(query, each),
        }
    }

    /// The names of all streams, in the order in which they came to be.
    ///
    /// # Errors
    /// The medium or the node fails.
    pub fn streams(&mut self) -> Result<Vec<String>, Error> {
        match self {
            Self::File(source) => source.streams(),
        }
    }

    /// All boots that the log still tells of.
    ///
    /// # Errors
    /// The medium or the node fails.
    pub fn boots(&mut self) -> Result<Boots, Error> {
        match self {
            Self::File(source) => source.boots(),
        }
    }
}
