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
use lastgasp_core::readout::answer::{End, Record as Sent};
use lastgasp_core::readout::{Answer, Boot, Read as Window, Request, Status, VERSION};

use crate::client::{Each, Flow, Lookup};
use crate::entry::{Entry, Gap, Record};
use crate::error::Error;
use crate::gaps::KnownGap;
use crate::node::{NodeFact, NodeStatus};
use crate::query::Query;
use crate::session::Session;

/// A node that says nothing for so long is not waited for.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);
/// A checkpoint takes as long as the medium needs.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(60);
/// So often a broken connection is made again without one entry more.
const TRIES: u32 = 4;

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

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    store_id: u64,
    software: String,
}

/// Reads a running node.
#[derive(Debug)]
pub struct NodeSource<D: Dial = SocketDial> {
    main: Line<D>,
    /// For looking elsewhere while an entry of the main line is held.
    side: Line<D>,
}

/// A line that is made again when it breaks.
#[derive(Debug)]
struct Line<D: Dial> {
    dial: D,
    session: Option<Session<D::Line>>,
    known: Option<Known>,
    names: HashMap<u16, String>,
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

impl<D: Dial> Lookup for Line<D> {
    fn look(&mut self, query: &Query, each: &mut dyn FnMut(Entry<'_>) -> io::Result<Flow>) -> Result<(), Error> {
        self.read(query, each).map(|_| ())
    }
}

impl<D: Dial> Line<D> {
    fn new(dial: D) -> Self {
        Self { dial, session: None, known: None, names: HashMap::new() }
    }

    /// Calls with a session that has said hello.
    fn with<T>(
        &mut self,
        call: impl FnOnce(&mut Session<D::Line>, &mut HashMap<u16, String>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if self.session.is_none() {
            self.session = Some(self.greet()?);
        }
        let session = self.session.as_mut().ok_or(Fault::Line(io::ErrorKind::NotConnected.into()))?;
        let done = call(session, &mut self.names);
        if matches!(done, Err(Fault::Line(_))) {
            self.session = None;
        }
        done
    }

    fn greet(&mut self) -> Result<Session<D::Line>, Fault> {
        let mut session = Session::new(self.dial.dial().map_err(Fault::Dial)?);
        session.ask(&Request::Hello { version: VERSION })?;
        let mut met = None;
        loop {
            match session.next()? {
                Answer::Hello(hello) => {
                    met = Some(Known { store_id: hello.store_id, software: hello.software.to_owned() });
                }
                Answer::Error { words, .. } => return Err(Fault::Node(words.to_owned())),
                Answer::End(_) => break,
                _ => {}
            }
        }
        if let (Some(known), Some(met)) = (&self.known, &met)
            && known.store_id != met.store_id
        {
            return Err(Fault::Node("another node answers here now, with another store: start again".to_owned()));
        }
        self.known = met;
        Ok(session)
    }

    /// A request whose answer is short: if the line breaks, it is asked again.
    fn whole(
        &mut self,
        request: &Request<'_>,
        silence: Duration,
        mut each: impl FnMut(&Answer<'_>, &HashMap<u16, String>),
    ) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let done = self.ask_patiently(request, silence, &mut each);
            match done {
                Err(Fault::Line(error)) if tries < TRIES && !is_silence(&error) => tries += 1,
                done => return done.map_err(|fault| fault.at(self.dial.path())),
            }
        }
    }

    fn ask_patiently(
        &mut self,
        request: &Request<'_>,
        silence: Duration,
        each: &mut impl FnMut(&Answer<'_>, &HashMap<u16, String>),
    ) -> Result<(), Fault> {
        self.with(|_, _| Ok(()))?;
        if let Some(session) = &self.session {
            self.dial.be_patient(session.line(), silence)?;
        }
        let done = self.with(|session, names| {
            session.ask(request)?;
            loop {
                let answer = session.next()?;
                if let Answer::Stream { id, name } = &answer {
                    names.insert(*id, (*name).to_owned());
                }
                if let Answer::Error { words, .. } = &answer {
                    return Err(Fault::Node((*words).to_owned()));
                }
                each(&answer, names);
                if matches!(answer, Answer::End(_)) {
                    return Ok(());
                }
            }
        });
        if let Some(session) = &self.session {
            self.dial.be_patient(session.line(), SILENCE)?;
        }
        done
    }

    /// Reads a range, from wherever a broken line has left it.
    fn read(&mut self, query: &Query, each: &mut dyn FnMut(Entry<'_>) -> io::Result<Flow>) -> Result<u64, Error> {
        let mut at = At { next: if query.reverse { query.to } else { query.from.max(1) }, told: 0, entries: 0 };
        let (mut tries, mut entries) = (0, 0);
        loop {
            match self.read_on(query, &mut at, each) {
                Ok(next) => return Ok(next),
                Err(Fault::Line(_) | Fault::Dial(_)) if tries < TRIES && at.entries > 0 => {
                    tries = if at.entries > entries { 0 } else { tries + 1 };
                    entries = at.entries;
                }
                Err(Fault::Line(error)) if tries < TRIES && !is_silence(&error) => tries += 1,
                Err(fault) => return Err(fault.at(self.dial.path())),
            }
        }
    }

    fn read_on(
        &mut self,
        query: &Query,
        at: &mut At,
        each: &mut dyn FnMut(Entry<'_>) -> io::Result<Flow>,
    ) -> Result<u64, Fault> {
        let stream = match query.streams.as_slice() {
            [only] => Some(only.as_str()),
            _ => None,
        };
        self.with(|session, names| {
            let (from, to) = if query.reverse { (query.from, at.next) } else { (at.next, query.to) };
            session.ask(&Request::Read(Window {
                from,
                to,
                reverse: query.reverse,
                stream,
                severity_min: query.severity_min.unwrap_or(0),
                since_us: query.since_us,
                until_us: query.until_us,
                ..Window::default()
            }))?;
            // Events in front of where the line broke come again.
            let mut again = std::mem::take(&mut at.told);
            loop {
                let flow = match session.next()? {
                    Answer::Stream { id, name } => {
                        names.insert(id, name.to_owned());
                        continue;
                    }
                    Answer::Record(sent) => {
                        let made;
                        let stream = match names.get(&sent.stream) {
                            Some(name) => name,
                            None => {
                                made = format!("stream-{}", sent.stream);
                                &made
                            }
                        };
                        let record = shown(&sent, stream);
                        let flow = if query.keeps(&record) { each(Entry::Record(record)) } else { Ok(Flow::On) };
                        at.pass(sent.seq, query.reverse);
                        flow
                    }
                    // A lost ledger is told at the start of every window; once is enough.
                    Answer::Gap(gap) if gap.cause == GapCause::LedgerLost && at.entries > 0 => continue,
                    Answer::Gap(gap) => {
                        let flow = each(Entry::Gap(shown_gap(&gap, names)));
                        match gap.last_seq < gap.first_seq {
                            true => at.entries += 1,
                            false => at.pass(if query.reverse { gap.first_seq } else { gap.last_seq }, query.reverse),
                        }
                        flow
                    }
                    Answer::Event(event) => {
                        at.told += 1;
                        if again > 0 {
                            again -= 1;
                            continue;
                        }
                        at.entries += 1;
                        each(Entry::Event(event))
                    }
                    Answer::Progress { next } => {
                        at.move_to(next);
                        continue;
                    }
                    Answer::Error { words, .. } => return Err(Fault::Node(words.to_owned())),
                    Answer::End(End { next, .. }) => return Ok(next),
                    _ => continue,
                };
                if flow.map_err(Fault::Caller)? == Flow::Stop {
                    return Ok(at.next);
                }
            }
        })
    }
}

/// Where a read stands.
#[derive(Debug)]
struct At {
    /// The next number; downwards if read newest first.
    next: u64,
    /// Events that came in front of it.
    told: u32,
    /// Entries that came at all.
    entries: u64,
}

impl At {
    fn pass(&mut self, seq: u64, reverse: bool) {
        self.next = if reverse { seq.saturating_sub(1) } else { seq.saturating_add(1) };
        self.told = 0;
        self.entries += 1;
    }

    fn move_to(&mut self, next: u64) {
        if next != self.next && next > 0 {
            (self.next, self.told) = (next, 0);
        }
    }
}

/// Why a request got no whole answer.
#[derive(Debug)]
enum Fault {
    /// No line could be made.
    Dial(io::Error),
    /// The line broke, or was silent.
    Line(io::Error),
    /// The node says so.
    Node(String),
    /// The caller failed.
    Caller(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Line(error)
    }
}

impl Fault {
    fn at(self, path: &Path) -> Error {
        match self {
            Self::Caller(error) => Error::Caller(error),
            Self::Node(words) => Error::unfit(path, words),
            Self::Line(error) if is_silence(&error) => Error::Silent { path: path.to_path_buf() },
            Self::Dial(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Error::Denied { path: path.to_path_buf() }
            }
            Self::Dial(error) => Error::NoNode { path: path.to_path_buf(), error },
            Self::Line(source) => Error::io(path, "reading from the node", source),
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn shown<'a>(sent: &Sent<'a>, stream: &'a str) -> Record<'a> {
    Record {
        seq: sent.seq,
        stream,
        severity: sent.severity,
        boot: (sent.boot > 0).then_some(sent.boot),
        received_offset_us: sent.received_offset_us,
        received_us: sent.received_wall_us(),
        synchronised: sent.synchronised,
        event_time_us: sent.event_time_us,
        trace: sent.trace,
        continued: sent.continued,
        body: sent.body,
        field_bytes: sent.fields,
    }
}

fn shown_gap<'a>(gap: &CoreGap, names: &'a HashMap<u16, String>) -> Gap<'a> {
    let stream = gap.stream.and_then(|id| names.get(&id)).map(String::as_str);
    let CoreGap { first_seq, last_seq, exact, cause, .. } = *gap;
    Gap { first_seq, last_seq, exact, cause, stream }
}
