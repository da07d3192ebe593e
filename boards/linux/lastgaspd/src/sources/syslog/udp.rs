//! Syslog by datagrams.
//!
//! Invariants: a datagram is a message; senders cannot be held up, so what the kernel has no room for is lost: it is
//! counted, and becomes a gap of the stream `syslog`, for nobody saw whose it was; an idle socket costs nothing.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use lastgasp_core::gaps::GapCause;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

use super::STREAM;
use super::records::Records;
use crate::queue::Closed;
use crate::sources::Context;

/// Asked of the kernel for datagrams that wait.
const RECEIVE_BYTES: usize = 4 << 20;
/// A datagram is no larger.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Datagrams that are taken from one socket before the others and the stop are looked at.
const ROUND: usize = 1024;
/// Rounds after the stop: more than the kernel's buffer holds.
const LAST_ROUNDS: usize = 64;
/// After messages, a little wait: then the next ones come together, and cost less.
const GATHER: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// How often the kernel is asked what it dropped, while messages come.
const KERNEL_DROPS_EVERY: Duration = Duration::from_secs(1);

/// Binds sockets.
///
/// # Errors
/// One of the addresses cannot be had; it stands in the error.
pub fn bind(addresses: &[SocketAddr]) -> io::Result<Vec<UdpSocket>> {
    addresses.iter().map(|at| bind_one(*at).map_err(|e| io::Error::new(e.kind(), format!("udp {at}: {e}")))).collect()
}

fn bind_one(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    // The limit of the system is for those who may not exceed it.
    if set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES).is_err() {
        let _ = set_socket_recv_buffer_size(&socket, RECEIVE_BYTES);
    }
    Ok(socket)
}

/// Receives until the stop.
pub fn run<E>(sockets: Vec<UdpSocket>, ctx: Context<E>) {
    let mut receiver = Receiver {
        kernel: KernelDrops::new(&sockets, ctx.clock.now_us()),
        buffer: vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice(),
        sockets,
        records: Records::new(ctx),
    };
    let at: Vec<String> = receiver.sockets.iter().filter_map(|s| s.local_addr().ok()).map(|a| a.to_string()).collect();
    receiver.records.say(format!("listening on udp {}", at.join(", ")));
    let _ = receiver.run();
}

struct Receiver<E> {
    sockets: Vec<UdpSocket>,
    records: Records<E>,
    buffer: Box<[u8]>,
    kernel: KernelDrops,
}

impl<E> Receiver<E> {
    fn run(&mut self) -> Result<(), Closed> {
        loop {
            let is_stopped = self.wait(true, self.kernel.due());
            let mut got = self.receive_all()?;
            if is_stopped {
                // What is in the kernel's buffers by now was sent before; but senders may go on for ever.
                let mut rounds = LAST_ROUNDS;
                while got > 0 && rounds > 0 {
                    got = self.receive_all()?;
                    rounds = rounds.saturating_sub(1);
                }
            }
            self.kernel.note(got > 0);
            let now_us = self.records.ctx().clock.now_us();
            if is_stopped || self.kernel.is_due(now_us) {
                let dropped = self.kernel.ask(now_us);
                self.records.ctx().intake.dropped(STREAM, GapCause::Overload, dropped, now_us);
            }
            if is_stopped {
                return Ok(());
            }
            if (1..ROUND).contains(&got) {
                self.wait(false, Some(GATHER));
            }
        }
    }

    /// Takes what the sockets have, up to a round of each, and hands it over; how many datagrams.
    fn receive_all(&mut self) -> Result<usize, Closed> {
        let mut got = 0usize;
        for at in 0..self.sockets.len() {
            got = got.saturating_add(self.receive(at)?);
        }
        self.records.flush()?;
        Ok(got)
    }

    /// Waits for the stop (`true`), and for datagrams too if `for_input`, or until `timeout`.
    fn wait(&self, for_input: bool, timeout: Option<Timespec>) -> bool {
        let stop = &self.records.ctx().stop;
        let stopped = stop.fd();
        let mut fds = vec![PollFd::new(&stopped, PollFlags::IN)];
        if for_input {
            fds.extend(self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        }
        // Whatever ends the wait, what is there is looked at.
        let _: Result<usize, Errno> = poll(&mut fds, timeout.as_ref());
        stop.is_asked()
    }

    /// Takes what one socket has; how many datagrams.
    fn receive(&mut self, at: usize) -> Result<usize, Closed> {
        let Some(socket) = self.sockets.get(at) else { return Ok(0) };
        for got in 0..ROUND {
            let (len, from) = match socket.recv_from(&mut self.buffer) {
                Ok(got) => got,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(got),
                // An answer to somebody else's packet; the next one is not concerned.
                Err(_) => continue,
            };
            let datagram = self.buffer.get(..len).unwrap_or_default();
            self.records.put(without_end(datagram), from.ip(), false)?;
        }
        Ok(ROUND)
    }
}

/// A datagram without the newline or NUL that some senders put at its end.
fn without_end(datagram: &[u8]) -> &[u8] {
    let body = datagram.strip_suffix(b"\0").unwrap_or(datagram);
    match body.strip_suffix(b"\n") {
        Some(body) => body.strip_suffix(b"\r").unwrap_or(body),
        None => body,
    }
}

/// What the kernel dropped at sockets, as `/proc/net/udp` says.
struct KernelDrops {
    inodes: Vec<u64>,
    told: u64,
    asked_us: u64,
    /// Messages came since it was asked.
    is_stale: bool,
}

impl KernelDrops {
    fn new(sockets: &[UdpSocket], now_us: u64) -> Self {
        let inodes = sockets.iter().filter_map(|socket| fstat(socket.as_fd()).ok()).map(|stat| stat.st_ino).collect();
        Self { inodes, told: 0, asked_us: now_us, is_stale: false }
    }

    fn note(&mut self, came: bool) {
        self.is_stale |= came;
    }

    /// So long the kernel need not be asked; `None` if nothing came since.
    fn due(&self) -> Option<Timespec> {
        self.is_stale.then(|| Timespec::try_from(KERNEL_DROPS_EVERY).unwrap_or(GATHER))
    }

    fn is_due(&self, now_us: u64) -> bool {
        let every = u64::try_from(KERNEL_DROPS_EVERY.as_micros()).unwrap_or(u64::MAX);
        self.is_stale && now_us.saturating_sub(self.asked_us) >= every
    }

    /// Asks; how many were dropped since the last time.
    fn ask(&mut self, now_us: u64) -> u64 {
        (self.asked_us, self.is_stale) = (now_us, false);
        let tables = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
        let texts = tables.map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let total: u64 = texts.iter().map(|text| dropped(text, &self.inodes)).fold(0, u64::saturating_add);
        let new = total.saturating_sub(self.told);
        self.told = self.told.max(total);
        new
    }
}

/// The last column of the rows of these sockets.
fn dropped(table: &str, inodes: &[u64]) -> u64 {
    let of_row = |row: &str| {
        let mut words = row.split_ascii_whitespace();
        let inode: u64 = words.nth(9)?.parse().ok()?;
        let drops: u64 = words.next_back()?.parse().ok()?;
        inodes.contains(&inode).then_some(drops)
    };
    table.lines().filter_map(of_row).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_that_senders_put_to_a_datagram_is_not_kept() {
        let ends: [&[u8]; 5] = [b"<1>a", b"<1>a\n", b"<1>a\r\n", b"<1>a\0", b"<1>a\n\0"];
        assert!(ends.iter().all(|datagram| without_end(datagram) == b"<1>a"));
        assert_eq!(without_end(b"<1>a\n\n"), b"<1>a\n");
    }

    #[test]
    fn the_kernels_table_tells_what_it_dropped_at_our_sockets() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout \
                     inode ref pointer drops\n\
                     1: 0100007F:158A 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0000 12\n\
                     2: 0100007F:158B 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4712 2 0000 7\n\
                     nonsense\n";
        assert_eq!((dropped(table, &[4711]), dropped(table, &[4711, 4712]), dropped(table, &[1])), (12, 19, 0));
    }
}
