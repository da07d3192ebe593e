//! The bytes of a connection, plain or by TLS, without waiting for any.
//!
//! Invariants: neither reading nor writing blocks; what TLS itself has to send is sent along; a session holds a bounded
//! amount of what is not sent yet.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// What a session may hold that is not sent.
const UNSENT_MAX: usize = 64 << 10;

/// Reads what TLS needs: certificates and a private key, PEM.
///
/// # Errors
/// A file cannot be read or holds something else, or key and certificate do not belong together; says which.
pub fn tls(certificates: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let chain = || -> Result<Vec<CertificateDer<'static>>> {
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificates)?.collect::<Result<_, _>>()?;
        ensure!(!chain.is_empty(), "there is no certificate in it");
        Ok(chain)
    };
    let chain = chain().with_context(|| format!("reading certificates from {}", certificates.display()))?;
    let private = PrivateKeyDer::from_pem_file(key);
    let private = private.with_context(|| format!("reading a private key from {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("{} and {} together", certificates.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A connection.
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

pub(super) struct Tls {
    stream: TcpStream,
    session: ServerConnection,
}

impl Transport {
    pub(super) fn new(stream: TcpStream, config: Option<&Arc<ServerConfig>>) -> Option<Self> {
        let Some(config) = config else { return Some(Self::Plain(stream)) };
        let mut session = ServerConnection::new(Arc::clone(config)).ok()?;
        session.set_buffer_limit(Some(UNSENT_MAX));
        Some(Self::Tls(Box::new(Tls { stream, session })))
    }

    pub(super) fn stream(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.stream,
        }
    }

    /// Something is left to be sent that was written before.
    pub(super) fn is_sending(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.session.wants_write(),
        }
    }

    /// Reads what there is; 0 at the end.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }

    /// Takes some bytes to be sent; how many.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(tls) => {
                let taken = tls.session.writer().write(bytes)?;
                tls.send()?;
                // Nothing taken and nothing sent: as a socket that is full.
                if taken == 0 && !bytes.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            }
        }
    }

    /// Sends what was taken before.
    pub(super) fn send(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.send(),
        }
    }

    /// Nothing more will be sent.
    pub(super) fn end(&mut self) {
        if let Self::Tls(tls) = self {
            tls.session.send_close_notify();
            let _ = tls.send();
        }
        let _ = self.stream().shutdown(std::net::Shutdown::Write);
    }
}

impl Tls {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(into) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                // Cut off without a goodbye: HTTP says itself where a request ends.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if self.session.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            let processed = self.session.process_new_packets();
            // An alert says why.
            let sent = self.send();
            processed.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
            sent?;
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }
}
