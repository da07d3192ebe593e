//! What the sources that listen on TCP have in common: binding, limits, and telling that a peer is gone.
//!
//! Invariant: the process never uses up the file descriptors that others of its parts need.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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

/// Has the kernel find out about peers that went without a word, as after a power cut.
pub fn keep_alive(stream: &TcpStream) {
    let (idle, every, times) = SILENT;
    // Without it a dead connection stays a little longer; nothing else depends on it.
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, idle);
    let _ = sockopt::set_tcp_keepintvl(stream, every);
    let _ = sockopt::set_tcp_keepcnt(stream, times);
}
