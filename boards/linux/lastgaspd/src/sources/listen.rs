//! What the sources that listen on TCP have in common: binding, accepting within limits, telling that a peer is gone.
//!
//! Invariants: the process never uses up the file descriptors that others of its parts need; listeners that cannot be
//! served are not looked at, so that they cost no time.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::status::SourceStatus;

/// Connections that are accepted before others are looked at.
const ACCEPT_ROUND: usize = 256;
/// When to try again to accept, after the system had no more file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// File descriptors that are left to the rest of the node.
const RESERVED: u64 = 256;
/// A silent peer is asked after so long whether it is still there, and then so often, so many times.
const SILENT: (Duration, Duration, u32) = (Duration::from_secs(120), Duration::from_secs(15), 4);

/// Binds listeners that do not block.
///
/// # Errors
/// One of the addresses cannot be had; it stands in the error.
pub fn bind(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let bind_one = |at: &SocketAddr| {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    addresses
        .iter()
        .map(|at| bind_one(at).map_err(|e: io::Error| io::Error::new(e.kind(), format!("tcp {at}: {e}"))))
        .collect()
}

/// How many connections one source may have, of `wanted`: raises the limit of open files as far as it goes, and takes
/// at most half of it.
#[must_use]
pub fn connections_max(wanted: usize) -> usize {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some() && now.current != now.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let ours = usize::try_from(files.saturating_sub(RESERVED) / 2).unwrap_or(usize::MAX);
    wanted.min(ours).max(8)
}

/// Listeners in an epoll set, that are looked at while there is room for connections.
#[derive(Debug)]
pub(super) struct Listeners {
    all: Vec<TcpListener>,
    /// Token of the first one; those of the others follow it.
    first: u64,
    is_paused: bool,
    /// Accepting has failed, and is not tried again before.
    again_at: Option<Instant>,
}

impl Listeners {
    /// Listeners of [`bind`], looked at from now on.
    pub(super) fn new(all: Vec<TcpListener>, first: u64, epoll: &OwnedFd) -> io::Result<Self> {
        let mut listeners = Self { all, first, is_paused: true, again_at: None };
        listeners.look_at(epoll)?;
        Ok(listeners)
    }

    /// Their addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().filter_map(|listener| listener.local_addr().ok())
    }

    /// When to call [`Self::resume`] again, at the latest.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.is_paused.then_some(ACCEPT_AGAIN)
    }

    fn look_at(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        for (listener, token) in self.all.iter().zip(self.first..) {
            match epoll::add(epoll, listener, EventData::new_u64(token), EventFlags::IN) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        (self.is_paused, self.again_at) = (false, None);
        Ok(())
    }

    /// Looks at them again, if that is due.
    pub(super) fn resume(&mut self, epoll: &OwnedFd) {
        if self.is_paused && self.again_at.is_none_or(|at| at <= Instant::now()) {
            let _ = self.look_at(epoll); // or else after the timeout
        }
    }

    fn pause(&mut self, epoll: &OwnedFd) {
        for listener in &self.all {
            let _ = epoll::delete(epoll, listener);
        }
        self.is_paused = true;
    }

    /// Closes them.
    pub(super) fn close(&mut self, epoll: &OwnedFd) {
        self.pause(epoll);
        self.all.clear();
        self.is_paused = false;
    }

    /// Connections that have come to the listener of a token. Without room for more, or file descriptors (that is
    /// counted), none of them is looked at until [`Self::resume`].
    pub(super) fn accept(
        &mut self,
        token: u64,
        room: usize,
        epoll: &OwnedFd,
        status: &SourceStatus,
    ) -> Vec<(TcpStream, SocketAddr)> {
        let mut come = Vec::new();
        let at = token.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(listener) = at.and_then(|at| self.all.get(at)) else { return come };
        for _ in 0..ACCEPT_ROUND {
            if come.len() >= room {
                self.pause(epoll);
                break;
            }
            match listener.accept() {
                Ok(accepted) => come.push(accepted),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) => {
                    status.erred();
                    self.again_at = Instant::now().checked_add(ACCEPT_AGAIN);
                    self.pause(epoll);
                    break;
                }
            }
        }
        come
    }
}

/// So many connections, for a status: nothing, or what comes behind an address.
pub(super) fn and_connections(open: usize) -> String {
    match open {
        0 => String::new(),
        1 => ", 1 connection".to_owned(),
        open => format!(", {open} connections"),
    }
}

/// Has the kernel find out about peers that went without a word, as after a power cut.
pub fn keep_alive(stream: &TcpStream) {
    let (idle, every, times) = SILENT;
    // Without it a dead connection stays a little longer; nothing else depends on it.
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, idle);
    let _ = sockopt::set_tcp_keepintvl(stream, every);
    let _ = sockopt::set_tcp_keepcnt(stream, times);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::epoll::CreateFlags;
    use std::mem::MaybeUninit;

    #[test]
    fn listeners_without_room_are_not_looked_at_until_there_is_some() {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let mut listeners = Listeners::new(bind(&["127.0.0.1:0".parse().unwrap()]).unwrap(), 7, &epoll).unwrap();
        let at = listeners.addresses().next().unwrap();
        let _clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
        let status = SourceStatus::new("test");
        let mut space = [MaybeUninit::uninit(); 4];
        let mut tokens = || {
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let (events, _) = epoll::wait(&epoll, &mut space, Some(&now)).unwrap();
            events.iter().map(|event| { event.data }.u64()).collect::<Vec<_>>()
        };
        assert_eq!(tokens(), [7]);
        assert_eq!(listeners.accept(8, 9, &epoll, &status).len(), 0, "nobody's token");
        assert_eq!(listeners.accept(7, 2, &epoll, &status).len(), 2);
        assert_eq!((tokens(), listeners.timeout()), (vec![], Some(ACCEPT_AGAIN)), "one waits, and costs nothing");
        listeners.resume(&epoll);
        assert_eq!((tokens(), listeners.timeout()), (vec![7], None));
        assert_eq!(listeners.accept(7, 9, &epoll, &status).len(), 1);
        listeners.close(&epoll);
        assert!(TcpStream::connect(at).is_err() && status.report().errors == 0);
    }
}
