//! Why something could not be read.
//!
//! Invariant: each text says what is wrong, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why a client could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The medium cannot be opened, or is not ours.
    #[error(transparent)]
    Medium(#[from] lastgasp_hal_linux::OpenError),
    /// The store on it cannot be mounted.
    #[error("{}: {error}", path.display())]
    Mount {
        /// The store.
        path: PathBuf,
        /// Why.
        error: lastgasp_core::error::OpenError,
    },
    /// An error of the system.
    #[error("{}: {doing} failed: {error}", path.display())]
    Io {
        /// What was looked at.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why.
        error: io::Error,
    },
    /// It is there, but cannot be read as it is.
    #[error("{}: {what}", path.display())]
    Unfit {
        /// What was looked at.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Nothing was named, and nothing is at the usual places.
    #[error(
        "no node runs here (no socket {sockets}), and there is no store ({stores}); name one with --store, --socket or \
         --root"
    )]
    Nowhere {
        /// Where sockets were looked for.
        sockets: String,
        /// Where stores were looked for.
        stores: String,
    },
    /// Nobody listens at the socket.
    #[error("{}: no node answers there ({error}); start it, or read its store with --store", path.display())]
    NoNode {
        /// The socket.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A node listens, and this user may not ask it.
    #[error(
        "{}: permission denied; who reads a node has to be in its group (sudo usermod -aG lastgasp USER, then log in \
         again), or root",
        path.display()
    )]
    Denied {
        /// Its socket.
        path: PathBuf,
    },
    /// A node listens, and says nothing.
    #[error(
        "{}: the node there does not answer: it may be stopping or hanging; its store can be read with --store",
        path.display()
    )]
    Silent {
        /// Its socket.
        path: PathBuf,
    },
    /// What was asked for takes a running node.
    #[error(
        "{}: {what} takes a running node, and this is {which}; start lastgaspd, or name its socket with --socket",
        path.display()
    )]
    NeedsNode {
        /// What was opened instead.
        path: PathBuf,
        /// What was asked for.
        what: &'static str,
        /// What the path is.
        which: &'static str,
    },
    /// The caller's own function failed while it took an entry.
    #[error(transparent)]
    Caller(io::Error),
}

impl Error {
    /// Nobody is there, or nobody answers: it may be different in a moment.
    #[must_use]
    pub fn is_away(&self) -> bool {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof,
        };
        match self {
            Self::Silent { .. } | Self::NoNode { .. } => true,
            Self::Io { error, .. } => matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof
            ),
            _ => false,
        }
    }

    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    pub(crate) fn io(path: &Path, doing: &'static str, error: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), doing, error }
    }

    pub(crate) fn unfit(path: &Path, what: impl Into<String>) -> Self {
        Self::Unfit { path: path.to_path_buf(), what: what.into() }
    }
}
