//! Where to read from, as the command line says it.
//!
//! Invariant: what is read is only read; what the user should know of it comes as a note on standard error.

use std::path::PathBuf;

use anstream::eprintln;
use anyhow::Result;
use clap::Args;
use lastgasp_client::{Client, Place};

use crate::look::clean;

/// Where to read from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where to read from (else the running node's socket, else the store at its usual place)")]
pub(crate) struct PlaceArgs {
    /// A store: its file, a block device, or the image of a card or flash chip.
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    pub(crate) store: Option<PathBuf>,
    /// The socket of a running node; with --store, that store is read if the node is silent.
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    pub(crate) socket: Option<PathBuf>,
    /// Where the root of a card is mounted: its node's store is read, wherever its configuration puts it.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, conflicts_with_all = ["store", "socket"])]
    pub(crate) root: Option<PathBuf>,
}

impl PlaceArgs {
    /// Opens what is meant.
    pub(crate) fn open(&self) -> Result<Client> {
        let place = Place { store: self.store.clone(), socket: self.socket.clone(), root: self.root.clone() };
        Ok(Client::open(&place.find()?, &mut note)?)
    }
}

/// Tells the user something beside the answer.
pub(crate) fn note(text: &str) {
    eprintln!("note: {}", clean(text));
}

/// Which medium, where a node is of no use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where to read from (else the store at its usual place)")]
pub(crate) struct MediumArgs {
    /// A store: its file, a block device, or the image of a card or flash chip.
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    pub(crate) store: Option<PathBuf>,
    /// Where the root of a card is mounted: its node's store is read, wherever its configuration puts it.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, conflicts_with = "store")]
    pub(crate) root: Option<PathBuf>,
}

impl MediumArgs {
    /// The path of the store that is meant.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        Ok(Place { store: self.store.clone(), root: self.root.clone(), socket: None }.find_medium()?)
    }
}
