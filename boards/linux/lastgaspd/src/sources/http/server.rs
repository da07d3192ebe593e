//! Serves all connections on one thread, which waits for nothing but events.
//!
//! Invariants: a connection that waits for its response, for memory or for its peer costs no time; memory for bodies is
//! granted before they are read, small ones and large ones each from their own pool, in the order they came; a response
//! finds its request, or nobody; at the stop, what was taken in is answered, for as long as [`STOP_WITHIN`].

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use super::Options;
use super::connection::{Connection, Phase, SMALL_BYTES, Wish};
use super::health::{Health, LOOK, for_strangers};
use super::response::Response;
use super::transport::Transport;
use super::worker::{Bell, Done, Job, Worker};
use crate::sources::Context;
use crate::sources::listen::{Listeners, and_connections, connections_max, keep_alive};
use crate::sources::status::SourceStatus;
use crate::stop::Stop;

/// Connections at a time; encrypted ones cost more.
const CONNECTIONS_MAX: usize = 16 << 10;
const TLS_CONNECTIONS_MAX: usize = 2 << 10;
/// Read at once from one connection.
const READ_BYTES: usize = 32 << 10;
/// What all connections together hold besides bodies.
const HELD_BYTES_MAX: usize = 16 << 20;
/// Memory for small bodies.
const SMALL_POOL_BYTES: usize = 8 << 20;
/// Large bodies at once.
const LARGE_BODIES: usize = 3;
/// Events that are looked at together.
const EVENTS: usize = 256;
/// Deadlines are looked at no more often.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// So long after the stop responses are waited for.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Tokens: connections come first.
const STOP: u64 = 1 << 32;
const BELL: u64 = STOP + 1;
const LISTENERS: u64 = STOP + 2;

pub(super) fn run<E: Send + 'static>(
    listeners: Vec<TcpListener>,
    options: Options,
    ctx: Context<E>,
    health: Health<E>,
) -> io::Result<()> {
    let (mut server, worker) = Server::start(listeners, options, ctx, health)?;
    server.say();
    if server.serve() {
        // Every response has come: it has nothing left to do.
        let _ = worker.join();
    }
    Ok(())
}

/// Memory that is granted in turn.
struct Pool {
    left: usize,
    waiting: VecDeque<usize>,
}

struct Server<E> {
    epoll: OwnedFd,
    listeners: Listeners,
    options: Options,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    open: usize,
    open_max: usize,
    held: usize,
    small: Pool,
    large: Pool,
    /// Tells requests apart.
    serial: u32,
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    bell: Bell,
    health: Health<E>,
    is_looking: bool,
    sweep_at: Option<Instant>,
    buffer: Box<[u8]>,
    stop: Stop,
    status: Arc<SourceStatus>,
    stopping: Option<Instant>,
}

impl<E: Send + 'static> Server<E> {
    fn start(
        listeners: Vec<TcpListener>,
        options: Options,
        ctx: Context<E>,
        health: Health<E>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, ctx.stop.fd(), EventData::new_u64(STOP), EventFlags::IN)?;
        epoll::add(&epoll, &*wake, EventData::new_u64(BELL), EventFlags::IN)?;
        let (jobs, work) = unbounded();
        let (rings, done) = unbounded();
        let bell = Bell { done: rings, wake };
        let Context { intake, stop, clock, record_bytes_max, status, .. } = ctx;
        let worker = Worker {
            intake,
            clock,
            record_bytes_max,
            max_request: options.max_request_bytes,
            class_of: Arc::clone(&options.class_of),
            status: Arc::clone(&status),
            bell: bell.clone(),
        };
        let worker = thread::Builder::new().name("http-worker".into()).spawn(move || worker.run(&work))?;
        let open_max = if options.tls.is_some() { TLS_CONNECTIONS_MAX } else { CONNECTIONS_MAX };
        let large = options.max_request_bytes.saturating_mul(LARGE_BODIES);
        let server = Self {
            listeners: Listeners::new(listeners, LISTENERS, &epoll)?,
            epoll,
            options,
            connections: Vec::new(),
            free: Vec::new(),
            open: 0,
            open_max: connections_max(open_max),
            held: 0,
            small: Pool { left: SMALL_POOL_BYTES, waiting: VecDeque::new() },
            large: Pool { left: large, waiting: VecDeque::new() },
            serial: 0,
            jobs: Some(jobs),
            done,
            bell,
            health,
            is_looking: false,
            sweep_at: None,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            stop,
            status,
            stopping: None,
        };
        Ok((server, worker))
    }

    fn say(&self) {
        let scheme = if self.options.tls.is_some() { "https" } else { "http" };
        let at: Vec<String> = self.listeners.addresses().map(|at| format!("{scheme}://{at}")).collect();
        self.status.works(format!("listening on {}{}", at.join(", "), and_connections(self.open)));
    }

    /// Serves; `true` if every request that was taken in got its response.
    fn serve(&mut self) -> bool {
        let mut space = [MaybeUninit::uninit(); EVENTS];
        let mut ready: Vec<(u64, EventFlags)> = Vec::with_capacity(EVENTS);
        loop {
            let timeout = self.timeout().map(|t| Timespec::try_from(t).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 }));
            ready.clear();
            match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
                Ok((events, _)) => ready.extend(events.iter().map(|event| ({ event.data }.u64(), event.flags))),
                Err(Errno::INTR) => continue,
                Err(_) => return false,
            }
            let before = self.open;
            if self.stop.is_asked() && self.stopping.is_none() {
                self.begin_stop();
            }
            for (token, flags) in ready.iter().filter(|(token, _)| *token < STOP) {
                let at = usize::try_from(*token).unwrap_or(usize::MAX);
                // Nobody is there any more to read a response; that is said again and again until it is heard.
                if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                    self.close(at);
                } else {
                    self.pump(at);
                }
            }
            self.answer();
            self.grant();
            self.sweep();
            if self.stopping.is_none() {
                for (token, _) in ready.iter().filter(|(token, _)| *token >= LISTENERS) {
                    let room = self.open_max.saturating_sub(self.open);
                    for (stream, _) in self.listeners.accept(*token, room, &self.epoll, &self.status) {
                        self.add(stream);
                    }
                }
                if self.open < self.open_max {
                    self.listeners.resume(&self.epoll);
                }
                if self.open != before {
                    self.say();
                }
            }
            match self.stopping {
                Some(_) if self.open == 0 => return true,
                Some(until) if Instant::now() >= until => return false,
                _ => {}
            }
        }
    }

    /// How long nothing has to be done unless something happens.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let until = |at: Instant| at.saturating_duration_since(now).saturating_add(Duration::from_millis(1));
        [self.listeners.timeout(), self.sweep_at.map(until), self.stopping.map(until)].into_iter().flatten().min()
    }

    fn add(&mut self, stream: TcpStream) {
        let Ok(local) = stream.set_nonblocking(true).and_then(|()| stream.local_addr()) else { return };
        keep_alive(&stream);
        let _ = stream.set_nodelay(true);
        let Some(transport) = Transport::new(stream, self.options.tls.as_ref()) else { return };
        let at = self.free.pop().unwrap_or(self.connections.len());
        if epoll::add(&self.epoll, &transport, EventData::new_u64(at as u64), EventFlags::IN).is_err() {
            self.free.push(at);
            return;
        }
        let now = Instant::now();
        let connection = Box::new(Connection::new(transport, SocketAddr::ip(&local), now));
        self.note_deadline(connection.deadline);
        self.open = self.open.saturating_add(1);
        match self.connections.get_mut(at) {
            Some(slot) => *slot = Some(connection),
            None => self.connections.push(Some(connection)),
        }
    }

    /// Goes on with a connection as far as it goes.
    fn pump(&mut self, at: usize) {
        let Some(mut connection) = self.connections.get_mut(at).and_then(Option::take) else { return };
        self.held = self.held.saturating_sub(connection.held_bytes());
        let goes_on = self.drive(at, &mut connection);
        self.settle(&mut connection);
        let has_left = self.stopping.is_some() && connection.has_left();
        if !goes_on || has_left {
            self.release(&mut connection);
            self.free.push(at);
            self.open = self.open.saturating_sub(1);
            return; // closing it also ends its part in the epoll set
        }
        self.held = self.held.saturating_add(connection.held_bytes());
        let wanted = connection.wanted_interest();
        if wanted != connection.interest {
            let _ = epoll::modify(&self.epoll, &connection.transport, EventData::new_u64(at as u64), wanted);
            connection.interest = wanted;
        }
        self.note_deadline(connection.deadline);
        if let Some(slot) = self.connections.get_mut(at) {
            *slot = Some(connection);
        }
    }

    /// `false` if the connection is at its end.
    fn drive(&mut self, at: usize, connection: &mut Connection) -> bool {
        loop {
            let now = Instant::now();
            let Ok(is_sent) = connection.send(now) else { return false };
            match connection.advance(&self.options.access, self.options.max_request_bytes, now) {
                Wish::Close => return false,
                Wish::Room(bytes) => {
                    if !self.reserve(at, connection, bytes) {
                        return true;
                    }
                    connection.receive(now);
                    continue;
                }
                Wish::Store(body, is_gzip) => {
                    self.serial = self.serial.wrapping_add(1);
                    connection.serial = self.serial;
                    let job = Job { token: token(at, self.serial), body, is_gzip };
                    let is_sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
                    if !is_sent {
                        connection.respond(&Response::error(503, "the node is stopping", None), false, now);
                        continue;
                    }
                    return true;
                }
                Wish::Look => {
                    if !std::mem::replace(&mut self.is_looking, true) {
                        self.health.look(self.bell.clone());
                    }
                    return true;
                }
                Wish::Nothing => {}
            }
            if is_sent && connection.wanted_interest().contains(EventFlags::OUT) {
                continue; // something new to send
            }
            if !connection.is_reading() {
                return true;
            }
            match connection.transport.read(&mut self.buffer) {
                Ok(0) => return false,
                Ok(got) => connection.take(self.buffer.get(..got).unwrap_or_default(), now),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.held.saturating_add(connection.held_bytes()) > HELD_BYTES_MAX {
                // Too many heads that do not end: somebody floods us.
                self.status.erred();
                return false;
            }
        }
    }

    /// Reserves memory for a body, or has it wait for its turn.
    fn reserve(&mut self, at: usize, connection: &mut Connection, bytes: usize) -> bool {
        let pool = if bytes <= SMALL_BYTES { &mut self.small } else { &mut self.large };
        if !pool.waiting.is_empty() || pool.left < bytes {
            pool.waiting.push_back(at);
            connection.wanted = bytes;
            return false;
        }
        pool.left = pool.left.saturating_sub(bytes);
        self.release(connection);
        connection.reserved = bytes;
        true
    }

    /// Gives reserved memory back.
    fn release(&mut self, connection: &mut Connection) {
        let bytes = std::mem::take(&mut connection.reserved);
        let pool = if bytes <= SMALL_BYTES { &mut self.small } else { &mut self.large };
        pool.left = pool.left.saturating_add(bytes);
    }

    /// Gives reserved memory back if it is not needed any more.
    fn settle(&mut self, connection: &mut Connection) {
        if matches!(connection.phase, Phase::Head | Phase::Leaving { .. }) {
            self.release(connection);
        }
    }

    /// Grants memory to those whose turn it is.
    fn grant(&mut self) {
        for is_small in [true, false] {
            loop {
                let pool = if is_small { &mut self.small } else { &mut self.large };
                let Some(at) = pool.waiting.front().copied() else { break };
                let slot = self.connections.get_mut(at).and_then(Option::as_deref_mut);
                let waits = slot.filter(|c| matches!(c.phase, Phase::Room(_)) && (c.wanted <= SMALL_BYTES) == is_small);
                let Some(connection) = waits else {
                    pool.waiting.pop_front(); // it went
                    continue;
                };
                if pool.left < connection.wanted {
                    break;
                }
                pool.waiting.pop_front();
                pool.left = pool.left.saturating_sub(connection.wanted);
                let before = std::mem::replace(&mut connection.reserved, connection.wanted);
                connection.receive(Instant::now());
                // What a body that grew had before was small.
                self.small.left = self.small.left.saturating_add(before);
                self.pump(at);
            }
        }
    }

    /// Hands responses on.
    fn answer(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell.wake, &mut count);
        while let Ok(Done { token, response }) = self.done.try_recv() {
            if token == LOOK {
                self.tell_health(&response);
                continue;
            }
            let at = usize::try_from(token & u64::from(u32::MAX)).unwrap_or(usize::MAX);
            let connection = self.connections.get_mut(at).and_then(Option::as_deref_mut);
            let waits = |c: &&mut Connection| matches!(c.phase, Phase::Served) && self::token(at, c.serial) == token;
            if let Some(connection) = connection.filter(waits) {
                connection.respond(&response, false, Instant::now());
                self.pump(at);
            }
        }
    }

    fn tell_health(&mut self, response: &Response) {
        self.is_looking = false;
        for at in 0..self.connections.len() {
            let Some(connection) = self.connections.get_mut(at).and_then(Option::as_deref_mut) else { continue };
            let Phase::Looking { is_trusted, head_only } = connection.phase else { continue };
            let now = Instant::now();
            if is_trusted {
                connection.respond(response, head_only, now);
            } else {
                connection.respond(&for_strangers(response), head_only, now);
            }
            self.pump(at);
        }
    }

    fn note_deadline(&mut self, at: Instant) {
        self.sweep_at = Some(self.sweep_at.map_or(at, |sweep| sweep.min(at)));
    }

    /// Looks for connections whose time is over.
    fn sweep(&mut self) {
        let now = Instant::now();
        if self.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        self.sweep_at = None;
        for at in 0..self.connections.len() {
            let Some(connection) = self.connections.get_mut(at).and_then(Option::as_deref_mut) else { continue };
            if connection.deadline > now {
                let deadline = connection.deadline;
                self.note_deadline(deadline);
                continue;
            }
            match connection.expire(now) {
                Wish::Close => self.close(at),
                _ => self.pump(at),
            }
        }
        let soon = now.checked_add(SWEEP_EVERY).unwrap_or(now);
        self.sweep_at = self.sweep_at.map(|at| at.max(soon));
    }

    fn close(&mut self, at: usize) {
        let Some(mut connection) = self.connections.get_mut(at).and_then(Option::take) else { return };
        self.held = self.held.saturating_sub(connection.held_bytes());
        self.release(&mut connection);
        self.free.push(at);
        self.open = self.open.saturating_sub(1);
    }

    /// No new requests; those that were taken in are answered.
    fn begin_stop(&mut self) {
        let now = Instant::now();
        self.stopping = now.checked_add(STOP_WITHIN);
        let _ = epoll::delete(&self.epoll, self.stop.fd());
        self.listeners.close(&self.epoll);
        self.jobs = None;
        for at in 0..self.connections.len() {
            let Some(connection) = self.connections.get_mut(at).and_then(Option::as_deref_mut) else { continue };
            if connection.stop(now) {
                self.close(at);
            } else {
                self.pump(at);
            }
        }
    }
}

/// Where a request is, and which.
fn token(at: usize, serial: u32) -> u64 {
    (u64::from(serial) << 32) | (at as u64 & u64::from(u32::MAX))
}
