//! Which log is meant.
//!
//! Invariant: what is named wins; without a name it is the running node's, else the store at its usual place.

use std::path::PathBuf;

/// The store of a node that was given no other path.
pub const STORE_DEFAULT: &str = "/var/lib/lastgasp/store.lg";
/// The socket of a node that was given no other path.
pub const SOCKET_DEFAULT: &str = "/run/lastgasp/lastgasp.sock";

/// Which log is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A medium: a file, a block device, an image.
    Store(PathBuf),
}
