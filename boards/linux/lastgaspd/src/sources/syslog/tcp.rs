//! Syslog by connections.
//!
//! Invariants: while the store has no room, nothing is read, so senders are held up; one that is stalled for too long
//! drops messages, counted; a connection that is idle costs its table entry and no buffer; what all of them hold
//! together is bounded: beyond that, long messages are kept in parts; connections beyond the limit wait to be accepted.

use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::frames::{Frames, Piece};
use super::records::{Common, Records};
use crate::queue::Closed;
use crate::sources::Context;
use crate::sources::listen::{Listeners, and_connections, connections_max, keep_alive};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 16 << 10;
/// Read at once from one connection.
const READ_BYTES: usize = 64 << 10;
/// Longer messages are kept in parts, also where the store would take them whole.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// What all connections together hold of messages that are not complete.
const HELD_BYTES_MAX: usize = 16 << 20;
/// Reads after the stop of what a sender has sent before.
const LAST_READS: usize = 64;
/// Events that are looked at together.
const EVENTS: usize = 256;
/// After a round with little in it, a little wait: then the next bytes come together, and cost less.
const GATHER: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Tokens: connections come first.
const STOP: u64 = 1 << 32;
const LISTENERS: u64 = STOP + 1;

/// Receives until the stop. Takes listeners of [`crate::sources::listen::bind`].
///
/// # Errors
/// The system has no file descriptor or memory for an epoll instance.
pub fn run<E>(listeners: Vec<TcpListener>, ctx: Context<E>) -> io::Result<()> {
    let mut server = Server::new(listeners, ctx)?;
    server.say();
    let _ = server.run();
    Ok(())
}

/// A sender.
struct Connection {
    stream: TcpStream,
    from: IpAddr,
    frames: Frames,
    /// The message of which a part was taken.
    begun: Option<Box<Common>>,
}

struct Server<E> {
    epoll: OwnedFd,
    listeners: Listeners,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    open: usize,
    open_max: usize,
    /// Bytes held by all connections.
    held: usize,
    message_max: usize,
    buffer: Box<[u8]>,
    records: Records<E>,
}

impl<E> Server<E> {
    fn new(listeners: Vec<TcpListener>, ctx: Context<E>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, ctx.stop.fd(), EventData::new_u64(STOP), EventFlags::IN)?;
        Ok(Self {
            listeners: Listeners::new(listeners, LISTENERS, &epoll)?,
            epoll,
            connections: Vec::new(),
            free: Vec::new(),
            open: 0,
            open_max: connections_max(CONNECTIONS_MAX),
            held: 0,
            message_max: ctx.record_bytes_max.min(MESSAGE_BYTES_MAX),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            records: Records::new(ctx),
        })
    }

    fn say(&mut self) {
        let at: Vec<String> = self.listeners.addresses().map(|at| at.to_string()).collect();
        self.records.say(format!("listening on tcp {}{}", at.join(", "), and_connections(self.open)));
    }

    fn run(&mut self) -> Result<(), Closed> {
        let mut space = [MaybeUninit::uninit(); EVENTS];
        let mut ready = Vec::with_capacity(EVENTS);
        loop {
            let timeout = self.listeners.timeout().and_then(|timeout| Timespec::try_from(timeout).ok());
            ready.clear();
            match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
                Ok((events, _)) => ready.extend(events.iter().map(|event| { event.data }.u64())),
                Err(Errno::INTR) => continue,
                Err(_) => return Ok(()),
            }
            if self.records.ctx().stop.is_asked() {
                return self.finish();
            }
            let before = self.open;
            let mut got = 0usize;
            for token in ready.iter().filter(|token| **token < STOP) {
                got = got.saturating_add(self.read(usize::try_from(*token).unwrap_or(usize::MAX))?);
            }
            self.records.flush()?;
            // After the connections: what they free can be used by others.
            for token in ready.iter().filter(|token| **token >= LISTENERS) {
                let room = self.open_max.saturating_sub(self.open);
                let status = &self.records.ctx().status;
                for (stream, from) in self.listeners.accept(*token, room, &self.epoll, status) {
                    self.add(stream, from);
                }
            }
            if self.open < self.open_max {
                self.listeners.resume(&self.epoll);
            }
            if self.open != before {
                self.say();
            }
            if (1..READ_BYTES).contains(&got) {
                self.gather();
            }
        }
    }

    /// Waits a moment, unless the stop comes.
    fn gather(&self) {
        let stopped = self.records.ctx().stop.fd();
        let _ = poll(&mut [PollFd::new(&stopped, PollFlags::IN)], Some(&GATHER));
    }

    fn add(&mut self, stream: TcpStream, from: SocketAddr) {
        let at = self.free.pop().unwrap_or(self.connections.len());
        let is_ours = stream.set_nonblocking(true).is_ok()
            && epoll::add(&self.epoll, &stream, EventData::new_u64(at as u64), EventFlags::IN).is_ok();
        keep_alive(&stream);
        let connection = Connection { stream, from: from.ip(), frames: Frames::default(), begun: None };
        let connection = Some(connection).filter(|_| is_ours);
        if connection.is_some() {
            self.open = self.open.saturating_add(1);
        } else {
            self.free.push(at);
        }
        match self.connections.get_mut(at) {
            Some(slot) => *slot = connection,
            None => self.connections.push(connection),
        }
    }

    /// Reads once from a connection; how many bytes.
    fn read(&mut self, at: usize) -> Result<usize, Closed> {
        let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) else { return Ok(0) };
        let got = match connection.stream.read(&mut self.buffer) {
            Ok(0) => return self.close(at, false).map(|()| 0),
            Ok(got) => got,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(0),
            Err(_) => return self.close(at, false).map(|()| 0),
        };
        let Connection { from, frames, begun, .. } = connection;
        let before = frames.held_bytes();
        let mut taken = Ok(());
        let mut take = |piece: Piece<'_>| {
            if taken.is_ok() {
                taken = put(&mut self.records, piece, *from, begun);
            }
        };
        frames.take(self.buffer.get(..got).unwrap_or_default(), self.message_max, &mut take);
        let others = self.held.saturating_sub(before);
        if others.saturating_add(frames.held_bytes()) > HELD_BYTES_MAX {
            frames.spill(&mut take);
        }
        self.held = others.saturating_add(frames.held_bytes());
        if frames.has_lost_count() {
            self.records.ctx().status.erred();
        }
        taken.map(|()| got)
    }

    /// The end of a connection; a message that is cut off by the stop is not complete.
    fn close(&mut self, at: usize, is_cut: bool) -> Result<(), Closed> {
        let Some(connection) = self.connections.get_mut(at).and_then(Option::take) else { return Ok(()) };
        self.free.push(at);
        self.open = self.open.saturating_sub(1);
        let Connection { stream, from, frames, mut begun } = connection;
        self.held = self.held.saturating_sub(frames.held_bytes());
        drop(stream); // also ends its part in the epoll set
        let mut taken = Ok(());
        let is_short = frames.finish(is_cut, &mut |piece| {
            if taken.is_ok() {
                taken = put(&mut self.records, piece, from, &mut begun);
            }
        });
        if is_short {
            self.records.ctx().status.erred();
        }
        taken
    }

    /// Takes what was sent before the stop, and hands it over.
    fn finish(&mut self) -> Result<(), Closed> {
        for at in 0..self.connections.len() {
            for _ in 0..LAST_READS {
                if self.read(at)? == 0 {
                    break;
                }
            }
            self.close(at, true)?;
        }
        self.records.flush()
    }
}

/// Hands a piece of a message on.
fn put<E>(
    records: &mut Records<E>,
    piece: Piece<'_>,
    from: IpAddr,
    begun: &mut Option<Box<Common>>,
) -> Result<(), Closed> {
    match (piece, begun.as_deref()) {
        (Piece::Whole(bytes), _) => records.put(bytes, from, false).map(drop),
        (Piece::GoesOn(bytes), Some(common)) => records.put_more(common, bytes, true),
        (Piece::Ends(bytes), Some(common)) => {
            records.put_more(common, bytes, false)?;
            *begun = None;
            Ok(())
        }
        (Piece::Begins(bytes) | Piece::GoesOn(bytes), _) => {
            *begun = Some(Box::new(records.put(bytes, from, true)?));
            Ok(())
        }
        (Piece::Ends(bytes), None) => records.put(bytes, from, false).map(drop),
    }
}
