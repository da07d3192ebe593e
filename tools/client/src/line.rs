//! A line to a running node that is made again when it breaks.
//!
//! Invariants: what was asked for is answered whole or is an error; a read goes on behind the last entry that came, so
//! every entry comes exactly once; a node that is silent is not asked again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use lastgasp_core::gaps::{Gap as CoreGap, GapCause};
use lastgasp_core::readout::answer::{End, Record as Sent};
use lastgasp_core::readout::{Answer, Read as Window, Request, VERSION};

use crate::client::{Flow, Lookup};
use crate::entry::{Entry, Gap, Record};
use crate::error::Error;
use crate::query::Query;
use crate::session::Session;
use crate::socket::{Dial, SILENCE};

/// So often a broken connection is made again without one entry more.
const TRIES: u32 = 4;

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) store_id: u64,
    pub(crate) software: String,
}

/// A line that is made again when it breaks.
#[derive(Debug)]
pub(crate) struct Line<D: Dial> {
    pub(crate) dial: D,
    session: Option<Session<D::Line>>,
    pub(crate) known: Option<Known>,
    names: HashMap<u16, String>,
}

impl<D: Dial> Lookup for Line<D> {
    fn look(&mut self, query: &Query, each: &mut dyn FnMut(Entry<'_>) -> io::Result<Flow>) -> Result<(), Error> {
        self.read(query, each).map(|_| ())
    }
}

impl<D: Dial> Line<D> {
    pub(crate) fn new(dial: D) -> Self {
        Self { dial, session: None, known: None, names: HashMap::new() }
    }

    /// Calls with a session that has said hello.
    pub(crate) fn with<T>(
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
    pub(crate) fn whole(
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

    pub(crate) fn ask_patiently(
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
    pub(crate) fn read(
        &mut self,
        query: &Query,
        each: &mut dyn FnMut(Entry<'_>) -> io::Result<Flow>,
    ) -> Result<u64, Error> {
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
        self.with(|session, names| {
            session.ask(&Request::Read(at.window(query)))?;
            // Events in front of where the line broke come again.
            let mut again = std::mem::take(&mut at.told);
            loop {
                let flow = match session.next()? {
                    Answer::Stream { id, name } => {
                        names.insert(id, name.to_owned());
                        continue;
                    }
                    Answer::Record(sent) => {
                        let unnamed = || Cow::from(format!("stream-{}", sent.stream));
                        let stream = names.get(&sent.stream).map_or_else(unnamed, Cow::from);
                        let record = shown(&sent, &stream);
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
    /// What is still to be asked for.
    fn window<'q>(&self, query: &'q Query) -> Window<'q> {
        let (from, to) = if query.reverse { (query.from, self.next) } else { (self.next, query.to) };
        let stream = match query.streams.as_slice() {
            [only] => Some(only.as_str()),
            _ => None,
        };
        Window {
            from,
            to,
            reverse: query.reverse,
            stream,
            severity_min: query.severity_min.unwrap_or(0),
            since_us: query.since_us,
            until_us: query.until_us,
            ..Window::default()
        }
    }

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
pub(crate) enum Fault {
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
    pub(crate) fn at(self, path: &Path) -> Error {
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

pub(crate) fn shown_gap<'a>(gap: &CoreGap, names: &'a HashMap<u16, String>) -> Gap<'a> {
    let stream = gap.stream.and_then(|id| names.get(&id)).map(String::as_str);
    let CoreGap { first_seq, last_seq, exact, cause, .. } = *gap;
    Gap { first_seq, last_seq, exact, cause, stream }
}
