//! A running node as a source, by its socket.
//!
//! Invariants: every entry comes exactly once, also when the connection breaks in the middle and is made again; a node
//! that is silent for two seconds is an error, so that the medium can be read instead; nothing is kept of what was read
//! but names.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lastgasp_core::format::fields::Value;
use lastgasp_core::gaps::{Gap as CoreGap, GapCause};
use lastgasp_core::readout::{Answer, Boot, Read as Window, Request, Status};

use crate::client::{Each, Lookup};
use crate::error::Error;
use crate::gaps::KnownGap;
use crate::line::{Line, shown_gap};
use crate::node::{NodeFact, NodeStatus};
use crate::query::Query;

/// A node that says nothing for so long is not waited for.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);
/// A checkpoint takes as long as the medium needs.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(60);

/// Makes lines to one node.
pub trait Dial: std::fmt::Debug {
    /// A line.
    type Line: Read + Write + std::fmt::Debug;

    /// Makes a new line, on which the node may be silent for two seconds.
    ///
    /// # Errors
    /// Nobody is at the other end.
    fn dial(&mut self) -> io::Result<Self::Line>;

    /// From now on the node may be silent for so long.
    ///
    /// # Errors
    /// The system refuses.
    fn be_patient(&self, line: &Self::Line, silence: Duration) -> io::Result<()>;

    /// Where the node is, for messages.
    fn path(&self) -> &Path;
}

/// Connects to a socket.
#[derive(Debug)]
pub struct SocketDial(PathBuf);

impl Dial for SocketDial {
    type Line = UnixStream;

    fn dial(&mut self) -> io::Result<UnixStream> {
        let line = UnixStream::connect(&self.0)?;
        line.set_write_timeout(Some(SILENCE))?;
        line.set_read_timeout(Some(SILENCE))?;
        Ok(line)
    }

    fn be_patient(&self, line: &UnixStream, silence: Duration) -> io::Result<()> {
        line.set_read_timeout(Some(silence))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

/// Reads a running node.
#[derive(Debug)]
pub struct NodeSource<D: Dial = SocketDial> {
    main: Line<D>,
    /// For looking elsewhere while an entry of the main line is held.
    side: Line<D>,
}

impl NodeSource<SocketDial> {
    /// Connects to the node at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or nobody answers within two seconds.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let line = || Line::new(SocketDial(path.to_path_buf()));
        Self::over(line(), line())
    }
}

impl<D: Dial> NodeSource<D> {
    fn over(main: Line<D>, side: Line<D>) -> Result<Self, Error> {
        let mut source = Self { main, side };
        match source.main.with(|_, _| Ok(())) {
            Ok(()) => Ok(source),
            Err(fault) => Err(fault.at(source.path())),
        }
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.main.dial.path()
    }

    /// The random number that tells the node's store from every other.
    #[must_use]
    pub fn store_id(&self) -> u64 {
        self.main.known.as_ref().map_or(0, |known| known.store_id)
    }

    /// Reads what the query asks for, as [`crate::Client::read`].
    ///
    /// # Errors
    /// The node cannot be reached any more, or `each` fails.
    pub fn read(&mut self, query: &Query, each: Each<'_>) -> Result<u64, Error> {
        let side = &mut self.side;
        self.main.read(query, &mut |entry| each(entry, side))
    }

    /// Waits until there are records from `from` on; `false` if there are none in that time.
    ///
    /// # Errors
    /// The node cannot be reached any more.
    pub fn wait(&mut self, from: u64, patience: Duration) -> Result<bool, Error> {
        let wait_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX).max(1);
        let window = Window { from, bytes_max: 1, wait_ms, ..Window::default() };
        let mut came = false;
        let silence = patience.saturating_add(SILENCE);
        self.main.whole(&Request::Read(window), silence, |answer, _| {
            if let Answer::End(end) = answer {
                came = !end.waited;
            }
        })?;
        Ok(came)
    }

    /// The names of all streams.
    ///
    /// # Errors
    /// The node cannot be reached any more.
    pub fn streams(&mut self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        self.main.whole(&Request::Streams, SILENCE, |answer, _| match answer {
            Answer::Stream { name, .. } if !names.iter().any(|known| known == name) => names.push((*name).to_owned()),
            _ => {}
        })?;
        Ok(names)
    }

    /// All boots that the log still tells of, oldest first, as the node tells them.
    ///
    /// # Errors
    /// The node cannot be reached any more.
    pub fn boots(&mut self) -> Result<Vec<Boot>, Error> {
        let mut boots: Vec<Boot> = Vec::new();
        self.main.whole(&Request::Boots, SILENCE, |answer, _| {
            if let Answer::Boot(boot) = answer {
                boots.retain(|known| known.epoch < boot.epoch); // the line was made again: they come again
                boots.push(*boot);
            }
        })?;
        Ok(boots)
    }

    /// What the ledger knows, and what retention dropped.
    ///
    /// # Errors
    /// The node cannot be reached any more.
    pub fn gaps(&mut self) -> Result<Vec<KnownGap>, Error> {
        let floor = self.status()?.numbers.floor;
        let dropped = CoreGap::new(1, floor.saturating_sub(1), false, GapCause::Retention);
        let mut gaps: Vec<KnownGap> = Vec::new();
        if dropped.first_seq <= dropped.last_seq {
            gaps.push(KnownGap::of(&shown_gap(&dropped, &HashMap::new())));
        }
        self.main.whole(&Request::Gaps, SILENCE, |answer, names| {
            if let Answer::Gap(gap) = answer {
                let known = KnownGap::of(&shown_gap(gap, names));
                if !gaps.contains(&known) {
                    gaps.push(known);
                }
            }
        })?;
        Ok(gaps)
    }

    /// What the node tells of itself.
    ///
    /// # Errors
    /// The node cannot be reached any more.
    pub fn status(&mut self) -> Result<NodeStatus, Error> {
        let (mut numbers, mut facts) = (Status::default(), Vec::new());
        self.main.whole(&Request::Status, SILENCE, |answer, _| match answer {
            Answer::Status(status) => {
                numbers = *status;
                facts.clear();
            }
            Answer::Fact(fact) => facts.push(NodeFact {
                topic: fact.topic.to_owned(),
                name: fact.name.to_owned(),
                field_bytes: fact.fields.to_vec(),
            }),
            _ => {}
        })?;
        let known = self.main.known.clone();
        let (store_id, software) = known.map_or((0, String::new()), |known| (known.store_id, known.software));
        Ok(NodeStatus { software, store_id, numbers, facts })
    }

    /// The state entry of a source: its cursor, as it is durable now; none if it is longer than a node tells.
    ///
    /// # Errors
    /// The node cannot be reached any more.
    pub fn state(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let facts = self.status()?.facts;
        let fact = facts.iter().find(|fact| fact.topic == "state" && fact.name.as_bytes() == key);
        Ok(fact.and_then(|fact| match fact.fields().get("value") {
            Some(Value::Bytes(value)) => Some(value.to_vec()),
            _ => None,
        }))
    }

    /// Has the node make everything durable that it took in until now; returns the last such number.
    ///
    /// # Errors
    /// The node cannot, or cannot be reached any more.
    pub fn checkpoint(&mut self) -> Result<u64, Error> {
        let mut durable = 0;
        self.main.whole(&Request::Checkpoint, CHECKPOINT_PATIENCE, |answer, _| {
            if let Answer::Durable { upto } = answer {
                durable = *upto;
            }
        })?;
        Ok(durable)
    }

    /// Hands out something that looks into the log here and there.
    ///
    /// # Errors
    /// As `run`.
    pub fn lookups(&mut self, run: &mut dyn FnMut(&mut dyn Lookup) -> Result<(), Error>) -> Result<(), Error> {
        run(&mut self.side)
    }
}
