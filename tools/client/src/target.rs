//! Which log is meant.
//!
//! Invariant: what is named wins; without a name it is the running node's, else the store at its usual place.

use std::env;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::config::{CONFIG, Key, SOCKET, STORE, named_here};
use crate::error::Error;
use crate::root;

/// The store of a node that runs as root and was given no other path.
pub const STORE_DEFAULT: &str = "/var/lib/lastgasp/store.lg";
/// The socket of a node that runs as root and was given no other path.
pub const SOCKET_DEFAULT: &str = "/run/lastgasp/lastgasp.sock";

/// What a user said of where to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// A file, a block device, an image.
    pub store: Option<PathBuf>,
    /// The socket of a running node.
    pub socket: Option<PathBuf>,
    /// The directory where the root of a card is mounted.
    pub root: Option<PathBuf>,
}

/// Which log is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A medium: a file, a block device, an image.
    Store(PathBuf),
    /// A running node; should it not answer, the store beside it.
    Node {
        /// Its socket.
        socket: PathBuf,
        /// Its store, if that is known.
        store: Option<PathBuf>,
    },
}

impl Place {
    /// Finds what is meant.
    ///
    /// # Errors
    /// Nothing was named and nothing is at the usual places, or the card has no store.
    pub fn find(&self) -> Result<Target, Error> {
        if let Some(root) = &self.root {
            return root::store_of(root).map(Target::Store);
        }
        if let Some(socket) = &self.socket {
            return Ok(Target::Node { socket: socket.clone(), store: self.store.clone() });
        }
        if let Some(store) = &self.store {
            return Ok(Target::Store(store.clone()));
        }
        let store = usual_store();
        let is_socket = |path: &PathBuf| path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
        match (sockets().into_iter().find(is_socket), store) {
            (Some(socket), store) => Ok(Target::Node { socket, store }),
            (None, Some(store)) => Ok(Target::Store(store)),
            (None, None) => Err(nowhere()),
        }
    }

    /// Finds the medium that is meant, whether a node runs or not.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_medium(&self) -> Result<PathBuf, Error> {
        match (&self.root, &self.store) {
            (Some(root), _) => root::store_of(root),
            (None, Some(store)) => Ok(store.clone()),
            (None, None) => usual_store().ok_or_else(nowhere),
        }
    }
}

fn usual_store() -> Option<PathBuf> {
    stores().into_iter().find(|path| path.exists())
}

fn nowhere() -> Error {
    let list =
        |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ");
    Error::Nowhere { sockets: list(sockets()), stores: list(stores()) }
}

/// A directory of the user's that a variable names.
fn directory(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where the socket of a node may be: that of this user's, then that of the machine's.
fn sockets() -> Vec<PathBuf> {
    let own = match directory("XDG_RUNTIME_DIR") {
        Some(directory) => Some(directory.join("lastgasp/lastgasp.sock")),
        // Without a session, it is beside the store.
        None => own_store().map(|store| store.with_extension("sock")),
    };
    places(SOCKET, own, SOCKET_DEFAULT)
}

/// Where the store of a node may be: that of this user's, then that of the machine's.
fn stores() -> Vec<PathBuf> {
    places(STORE, own_store(), STORE_DEFAULT)
}

/// What the configuration of this user names, the usual place of this user, and the same of the machine.
fn places(key: Key, own: Option<PathBuf>, usual: &str) -> Vec<PathBuf> {
    let config = directory("XDG_CONFIG_HOME").or_else(|| directory("HOME").map(|home| home.join(".config")));
    let config = config.map(|config| config.join("lastgasp/lastgaspd.toml"));
    let named = config.and_then(|config| named_here(&config, key));
    let of_machine = named_here(&Path::new("/").join(CONFIG), key);
    named.into_iter().chain(own).chain(of_machine).chain([PathBuf::from(usual)]).collect()
}

/// The store of a node that this user started.
fn own_store() -> Option<PathBuf> {
    let state = directory("XDG_STATE_HOME").or_else(|| directory("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("lastgasp/store.lg"))
}
