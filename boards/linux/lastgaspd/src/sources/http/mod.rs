//! Records by HTTP: `POST /v1/logs`, answered when they are durable, and `GET /healthz`.
//!
//! One thread serves all connections ([`server`]) and waits for none of them; another turns bodies into batches and
//! answers into responses ([`worker`]); a third one, only while somebody asks, looks at the node for `/healthz`.
//!
//! Invariants: a request is kept whole or not at all, and 200 means that it survives a power cut; memory is bounded by
//! a few requests of the largest size, however many connections there are, however slow they are and whatever they
//! send; nobody sends by a name or from a page that is not ours.

mod chunked;
mod connection;
mod head;
mod health;
mod ingest;
mod meaning;
mod response;
mod server;
mod setup;
mod transport;
mod values;
mod worker;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use lastgasp_core::node::Class;
use rustls::ServerConfig;

use crate::sources::Context;
use crate::sources::status::Sources;
use crate::view::Handle;

pub use head::Access;
pub use ingest::STREAM;
pub use setup::options;
pub use transport::tls;

/// What the configuration says of the class of a stream's records of a severity; `None` if it says nothing.
pub type ClassOf = Arc<dyn Fn(&str, u8) -> Option<Class> + Send + Sync>;

/// How it is served.
#[derive(Clone)]
pub struct Options {
    /// Who may send.
    pub access: Access,
    /// A larger request is refused, packed or unpacked.
    pub max_request_bytes: usize,
    /// What triggers the commit of a request, if it is configured; else [`Class::Group`].
    pub class_of: ClassOf,
    /// With it, connections are encrypted; see [`tls`].
    pub tls: Option<Arc<ServerConfig>>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access, max_request_bytes, tls, .. } = self;
        let hosts = &access.hosts;
        // Not the token.
        f.debug_struct("Options")
            .field("hosts", hosts)
            .field("max_request_bytes", max_request_bytes)
            .field("is_tls", &tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    /// Anybody who reaches it; 8 MiB a request; not encrypted.
    fn default() -> Self {
        Self { access: Access::default(), max_request_bytes: 8 << 20, class_of: Arc::new(|_, _| None), tls: None }
    }
}

/// Serves until the stop, and after it until what was taken in is answered: join its thread before the process ends.
/// Takes listeners of [`crate::sources::listen::bind`].
///
/// # Errors
/// The system has no more file descriptors or threads.
pub fn run<E: Send + 'static>(
    listeners: Vec<TcpListener>,
    options: Options,
    ctx: Context<E>,
    handle: Handle<E>,
    sources: Sources,
) -> io::Result<()> {
    server::run(listeners, options, ctx, health::Health::new(handle, sources))
}
