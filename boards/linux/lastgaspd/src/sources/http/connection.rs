//! One connection: what it is doing, what it holds, and until when it may.
//!
//! Invariants: requests of a connection are served one after another; nothing is read while one is being served or a
//! response is not sent; a refused request ends the connection, because where the next one begins is not sure; each
//! phase has its end in time but waiting for the medium.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::chunked::{BadChunk, Chunks};
use super::head::{self, Access, Framing, Head, Refusal, Target, refusal};
use super::health::not_alive;
use super::response::Response;
use super::transport::Transport;

/// A silent connection without a request stays so long.
const IDLE: Duration = Duration::from_secs(75);
/// A head has to be there so long after its first byte.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// The next bytes of a body have to come within this time.
const BODY_SILENT: Duration = Duration::from_secs(20);
/// All of it within this time, and more for larger ones:
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// so many bytes a second.
const BODY_RATE: usize = 16 << 10;
/// So long a request waits for memory for its body.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
/// So long `/healthz` waits for the writer.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// So long a response may take to get on.
const SEND_WITHIN: Duration = Duration::from_secs(30);
/// A body up to this size is small: many of them fit at once.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// After a refusal, what is still on its way is read so long, for the refusal to arrive.
const LINGER: Duration = Duration::from_secs(2);
/// And so much of it.
const LINGER_BYTES: usize = 1 << 20;

/// What a connection is doing.
pub(super) enum Phase {
    /// Waiting for a request, or for the rest of its head.
    Head,
    /// Waiting for memory for its body.
    Room(Body),
    /// Receiving a body.
    Body(Body),
    /// Waiting for its response.
    Served,
    /// Waiting for a look at the node.
    Looking { is_trusted: bool, head_only: bool },
    /// Sending the last response, then reading what is still on its way.
    Leaving { left: usize },
}

/// A body that is being received.
pub(super) struct Body {
    pub(super) head: Head,
    bytes: Vec<u8>,
    chunks: Chunks,
    until: Instant,
}

/// What a connection wants of the server.
pub(super) enum Wish {
    /// Nothing for now.
    Nothing,
    /// Memory for a body of so many bytes.
    Room(usize),
    /// The records of this request, and whether they are packed.
    Store(Vec<u8>, bool),
    /// A look at the node.
    Look,
    /// To be closed.
    Close,
}

pub(super) struct Connection {
    pub(super) transport: Transport,
    local: IpAddr,
    /// Tells this request from others on the same place.
    pub(super) serial: u32,
    pub(super) phase: Phase,
    /// Read, and not used.
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    keeps_alive: bool,
    pub(super) deadline: Instant,
    /// Bytes of the server's memory for bodies that it may use.
    pub(super) reserved: usize,
    /// So many it waits for.
    pub(super) wanted: usize,
    /// What epoll looks at.
    pub(super) interest: EventFlags,
}

impl Connection {
    pub(super) fn new(transport: Transport, local: IpAddr, now: Instant) -> Self {
        Self {
            transport,
            local,
            serial: 0,
            phase: Phase::Head,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            keeps_alive: true,
            deadline: later(now, IDLE),
            reserved: 0,
            wanted: 0,
            interest: EventFlags::IN,
        }
    }

    /// Bytes held that are no body.
    pub(super) fn held_bytes(&self) -> usize {
        self.input.capacity().saturating_add(self.output.capacity())
    }

    /// There is something to send.
    fn is_sending(&self) -> bool {
        self.sent < self.output.len() || self.transport.is_sending()
    }

    /// It can go on when there is more to read.
    pub(super) fn is_reading(&self) -> bool {
        match self.phase {
            Phase::Head | Phase::Leaving { .. } => self.sent >= self.output.len(),
            Phase::Body(_) => true,
            Phase::Room(_) | Phase::Served | Phase::Looking { .. } => false,
        }
    }

    /// It waits for a request, and has nothing of one.
    fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head) && self.input.is_empty() && !self.is_sending()
    }

    /// Nothing is left to be said, if no more requests are wanted.
    pub(super) fn has_left(&self) -> bool {
        matches!(self.phase, Phase::Head | Phase::Leaving { .. }) && !self.is_sending()
    }

    pub(super) fn wanted_interest(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        wanted.set(EventFlags::IN, self.is_reading());
        wanted.set(EventFlags::OUT, self.is_sending());
        wanted
    }

    /// Takes bytes that were read; nothing more is read before they are used up.
    pub(super) fn take(&mut self, bytes: &[u8], now: Instant) {
        match &mut self.phase {
            Phase::Leaving { left } => *left = left.saturating_sub(bytes.len()),
            Phase::Head => {
                if self.input.is_empty() {
                    self.deadline = later(now, HEAD_WITHIN);
                }
                self.input.extend_from_slice(bytes);
            }
            Phase::Body(body) => {
                self.deadline = later(now, BODY_SILENT).min(body.until);
                self.input.extend_from_slice(bytes);
            }
            _ => self.input.extend_from_slice(bytes),
        }
    }

    /// Goes on with what was read.
    pub(super) fn advance(&mut self, access: &Access, max_request: usize, now: Instant) -> Wish {
        if self.sent < self.output.len() && !matches!(self.phase, Phase::Body(_)) {
            return Wish::Nothing;
        }
        match &self.phase {
            Phase::Head if !self.input.is_empty() => self.head(access, max_request, now),
            Phase::Body(_) => self.body(max_request, now),
            Phase::Leaving { left: 0 } => Wish::Close,
            _ => Wish::Nothing,
        }
    }

    fn head(&mut self, access: &Access, max_request: usize, now: Instant) -> Wish {
        let Some((len, judged)) = head::read(&self.input, access, self.local, max_request) else {
            return Wish::Nothing;
        };
        self.use_up(len);
        let head = match judged {
            Ok(head) => head,
            Err(refusal) => return self.refuse(&refusal, now),
        };
        self.keeps_alive = head.keeps_alive;
        let expected = match head.framing {
            Framing::Length(len) => len,
            // How much it is shows later.
            Framing::Chunked => SMALL_BYTES,
        };
        let body = Body { head, bytes: Vec::new(), chunks: Chunks::new(), until: now };
        self.phase = Phase::Room(body);
        self.deadline = later(now, ROOM_WITHIN);
        Wish::Room(expected)
    }

    /// Memory for a body is granted: as much as `reserved` says.
    pub(super) fn receive(&mut self, now: Instant) {
        if let Phase::Room(mut body) = std::mem::replace(&mut self.phase, Phase::Head) {
            let seconds = u64::try_from(self.reserved / BODY_RATE).unwrap_or(u64::MAX);
            body.until = later(now, BODY_WITHIN.saturating_add(Duration::from_secs(seconds)));
            self.deadline = later(now, BODY_SILENT);
            let is_begun = !body.bytes.is_empty() || !self.input.is_empty();
            if body.head.expects_continue && !is_begun {
                self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            self.phase = Phase::Body(body);
        }
    }

    fn body(&mut self, max_request: usize, now: Instant) -> Wish {
        let Phase::Body(body) = &mut self.phase else { return Wish::Nothing };
        let (used, is_done) = match body.head.framing {
            Framing::Length(len) => {
                let missing = len.saturating_sub(body.bytes.len());
                let part = self.input.get(..missing).unwrap_or(&self.input);
                body.bytes.extend_from_slice(part);
                (part.len(), body.bytes.len() >= len)
            }
            Framing::Chunked => loop {
                let max = max_request.min(self.reserved);
                match body.chunks.take(&self.input, &mut body.bytes, max) {
                    // It is looked at again: what it stopped at may be too large.
                    Ok(used) if used > 0 && !body.chunks.is_done() => drop(self.input.drain(..used)),
                    Ok(used) => break (used, body.chunks.is_done()),
                    Err(BadChunk::TooLarge) if max < max_request => {
                        if let Phase::Body(body) = std::mem::replace(&mut self.phase, Phase::Head) {
                            self.phase = Phase::Room(body);
                        }
                        self.deadline = later(now, ROOM_WITHIN);
                        return Wish::Room(max_request);
                    }
                    Err(BadChunk::TooLarge) => {
                        let reason = format!("a request may have at most {max_request} bytes");
                        return self.refuse(&refusal(413, reason), now);
                    }
                    Err(BadChunk::Malformed) => return self.refuse(&refusal(400, "these are no chunks"), now),
                }
            },
        };
        let Head { target, is_gzip, is_trusted, .. } = body.head;
        let bytes = if is_done { std::mem::take(&mut body.bytes) } else { Vec::new() };
        self.use_up(used);
        if !is_done {
            return Wish::Nothing;
        }
        match target {
            Target::Logs => {
                self.phase = Phase::Served;
                self.deadline = later(now, Duration::MAX);
                Wish::Store(bytes, is_gzip)
            }
            Target::Health { head_only } => {
                self.phase = Phase::Looking { is_trusted, head_only };
                self.deadline = later(now, LOOK_WITHIN);
                Wish::Look
            }
        }
    }

    /// Forgets input that was used; memory goes with the last of it.
    fn use_up(&mut self, used: usize) {
        if used >= self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..used);
        }
    }

    /// The response of a request that was served.
    pub(super) fn respond(&mut self, response: &Response, head_only: bool, now: Instant) {
        self.output.extend_from_slice(&response.encode(self.keeps_alive, head_only));
        self.deadline = later(now, SEND_WITHIN);
        self.phase = if self.keeps_alive { Phase::Head } else { Phase::Leaving { left: LINGER_BYTES } };
    }

    /// The last response: its request is refused.
    pub(super) fn refuse(&mut self, refusal: &Refusal, now: Instant) -> Wish {
        self.keeps_alive = false;
        self.input = Vec::new();
        self.respond(&Response::from(refusal), false, now);
        Wish::Nothing
    }

    /// Sends what there is to send; `Ok(true)` if all of it is gone.
    pub(super) fn send(&mut self, now: Instant) -> io::Result<bool> {
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.transport.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.sent = self.sent.saturating_add(sent);
                    if !matches!(self.phase, Phase::Body(_)) {
                        self.deadline = later(now, SEND_WITHIN);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.transport.send()?;
        if self.transport.is_sending() {
            return Ok(false);
        }
        if !self.output.is_empty() {
            (self.output, self.sent) = (Vec::new(), 0);
            match self.phase {
                Phase::Head => {
                    let patience = if self.input.is_empty() { IDLE } else { HEAD_WITHIN };
                    self.deadline = later(now, patience);
                }
                Phase::Leaving { .. } => {
                    self.transport.end();
                    self.deadline = later(now, LINGER);
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Its time is over: what is to be done.
    pub(super) fn expire(&mut self, now: Instant) -> Wish {
        let reason = match self.phase {
            Phase::Head if self.input.is_empty() || self.is_sending() => return Wish::Close,
            Phase::Leaving { .. } => return Wish::Close,
            Phase::Head => refusal(408, "the head of the request did not come in time"),
            Phase::Body(_) => refusal(408, "the body of the request did not come in time"),
            Phase::Room(_) => refusal(503, "too many large requests at once; send it again"),
            Phase::Looking { head_only, .. } => {
                let seconds = LOOK_WITHIN.as_secs();
                let unwell =
                    not_alive(&format!("the writer has not answered for {seconds} s: its medium may be stuck"));
                self.respond(&unwell, head_only, now);
                return Wish::Nothing;
            }
            Phase::Served => return Wish::Nothing,
        };
        self.refuse(&reason, now)
    }

    /// The node stops: a request that is not whole is refused. `true` if it can be closed at once.
    pub(super) fn stop(&mut self, now: Instant) -> bool {
        self.keeps_alive = false;
        match self.phase {
            Phase::Head if self.is_idle() => true,
            Phase::Head | Phase::Room(_) | Phase::Body(_) if !self.is_sending() => {
                self.refuse(&refusal(503, "the node is stopping"), now);
                false
            }
            Phase::Head => {
                self.phase = Phase::Leaving { left: LINGER_BYTES };
                false
            }
            Phase::Leaving { .. } => !self.is_sending(),
            _ => false,
        }
    }
}

/// A time so much later; about a year if that is never.
fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).or_else(|| now.checked_add(Duration::from_secs(1 << 25))).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    const MAX: usize = 1 << 20;

    /// A connection, and its client.
    fn pair(now: Instant) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let transport = Transport::new(stream, None).unwrap();
        (Connection::new(transport, IpAddr::V4(Ipv4Addr::LOCALHOST), now), client)
    }

    fn take(connection: &mut Connection, bytes: &[u8], now: Instant) -> Wish {
        connection.take(bytes, now);
        connection.advance(&Access::default(), MAX, now)
    }

    /// The status of the answer that the connection sends, and what it does then.
    fn answer(connection: &mut Connection, mut client: TcpStream, now: Instant) -> String {
        while !connection.send(now).unwrap() {}
        assert!(matches!(connection.phase, Phase::Leaving { .. }), "the connection is over");
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_head_that_drips_in_has_to_end_in_time() {
        let start = Instant::now();
        let (mut connection, client) = pair(start);
        assert_eq!(connection.deadline, start + IDLE);
        let first = start + Duration::from_secs(60);
        for (i, byte) in b"POST /v1/logs".iter().enumerate() {
            let now = first + Duration::from_secs(i as u64);
            assert!(matches!(take(&mut connection, &[*byte], now), Wish::Nothing));
            assert_eq!(connection.deadline, first + HEAD_WITHIN, "more bytes give no more time");
        }
        let now = first + HEAD_WITHIN;
        assert!(matches!(connection.expire(now), Wish::Nothing));
        assert_eq!(answer(&mut connection, client, now), "HTTP/1.1 408 Request Timeout");
        assert_eq!(connection.deadline, now + LINGER);
        assert!(matches!(connection.expire(now), Wish::Close));
    }

    #[test]
    fn a_body_that_drips_in_has_to_end_in_time() {
        let start = Instant::now();
        let (mut connection, client) = pair(start);
        let head = b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65536\r\n\r\n";
        assert!(matches!(take(&mut connection, head, start), Wish::Room(65_536)));
        assert_eq!(connection.deadline, start + ROOM_WITHIN);
        connection.reserved = 65_536;
        connection.receive(start);
        let until = start + BODY_WITHIN + Duration::from_secs(4);
        let mut now = start;
        while connection.deadline < until {
            now += Duration::from_secs(10);
            assert!(matches!(take(&mut connection, b"x", now), Wish::Nothing));
            assert_eq!(connection.deadline, (now + BODY_SILENT).min(until));
        }
        connection.expire(until);
        assert_eq!(answer(&mut connection, client, until), "HTTP/1.1 408 Request Timeout");
    }

    #[test]
    fn who_waits_for_memory_or_for_the_writer_too_long_is_told() {
        let start = Instant::now();
        let (mut connection, client) = pair(start);
        let chunked = b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(matches!(take(&mut connection, chunked, start), Wish::Room(SMALL_BYTES)));
        connection.reserved = SMALL_BYTES;
        connection.receive(start);
        assert!(matches!(take(&mut connection, b"1\r\n", start), Wish::Nothing));
        let wish = take(&mut connection, b"\"\r\n20000\r\n", start);
        assert!(matches!(wish, Wish::Room(MAX)), "it is larger than it seemed");
        connection.expire(connection.deadline);
        assert_eq!(answer(&mut connection, client, start), "HTTP/1.1 503 Service Unavailable");
        let (mut connection, mut client) = pair(start);
        let health = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(matches!(take(&mut connection, health, start), Wish::Room(0)));
        connection.receive(start);
        assert!(matches!(connection.advance(&Access::default(), MAX, start), Wish::Look));
        connection.expire(start + LOOK_WITHIN);
        assert!(connection.send(start).unwrap() && matches!(connection.phase, Phase::Head));
        let mut text = [0; 400];
        let got = client.read(&mut text).unwrap();
        let text = str::from_utf8(&text[..got]).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 503 ") && text.contains("{\"alive\":false,\"reason\":\"the writer"),
            "{text}"
        );
    }
}
