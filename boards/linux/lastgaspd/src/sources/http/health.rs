//! `GET /healthz`: alive, and why not.
//!
//! Invariants: alive means that records can be kept: the writer answers, and its store takes writes; a source that does
//! not work is told and makes nobody unwell; who shows no token where one is needed sees no more than that.

use std::thread;

use lastgasp_core::catalog::Catalog;

use super::response::{Response, quoted};
use super::worker::Bell;
use crate::queue::Closed;
use crate::sources::status::Sources;
use crate::view::{Handle, View};

/// The token of a look at the node.
pub(super) const LOOK: u64 = u64::MAX;

/// Who can look at the node.
pub(super) struct Health<E> {
    handle: Handle<E>,
    sources: Sources,
}

/// What is told of the store.
struct Seen {
    read_only: Option<String>,
    durable_upto: u64,
    next_seq: u64,
    dropped: u64,
    gaps: usize,
}

impl Seen {
    fn new(view: &View<'_, '_>) -> Self {
        let catalog: &Catalog<'_> = view.catalog;
        Self {
            read_only: view.read_only.map(|reason| reason.to_string()),
            durable_upto: view.durable_upto,
            next_seq: view.next_seq,
            dropped: view.dropped,
            gaps: catalog.gaps().len(),
        }
    }
}

impl<E: Send + 'static> Health<E> {
    pub(super) fn new(handle: Handle<E>, sources: Sources) -> Self {
        Self { handle, sources }
    }

    /// Looks at the node on a thread of its own, for the writer may be waiting for its medium; rings when it has seen
    /// it.
    pub(super) fn look(&self, bell: Bell) {
        let (handle, sources) = (self.handle.clone(), self.sources.clone());
        let rings = bell.clone();
        let looking = thread::Builder::new().name("http-health".into()).spawn(move || {
            let seen = handle.look(Seen::new);
            rings.ring(LOOK, response(seen, &sources));
        });
        if let Err(error) = looking {
            bell.ring(LOOK, not_alive(&format!("no thread to look at the node: {error}")));
        }
    }
}

/// One that says why not.
pub(super) fn not_alive(reason: &str) -> Response {
    let unwell = Response::error(503, reason, None);
    Response { body: format!("{{\"alive\":false,\"reason\":{}}}", quoted(reason)), ..unwell }
}

/// The same without what is nobody's business.
pub(super) fn for_strangers(response: &Response) -> Response {
    Response { body: format!("{{\"alive\":{}}}", response.status == 200), ..response.clone() }
}

fn response(seen: Result<Seen, Closed>, sources: &Sources) -> Response {
    let seen = match seen {
        Err(Closed) => return not_alive("the node is stopping"),
        Ok(Seen { read_only: Some(reason), .. }) => {
            return not_alive(&format!("the store takes no more writes: {reason}"));
        }
        Ok(seen) => seen,
    };
    let of_source = |report: crate::sources::status::SourceReport| {
        format!(
            "{{\"name\":{},\"works\":{},\"words\":{},\"records\":{},\"errors\":{}}}",
            quoted(&report.name),
            report.works,
            quoted(&report.words),
            report.records,
            report.errors
        )
    };
    let sources: Vec<String> = sources.reports().into_iter().map(of_source).collect();
    let Seen { durable_upto, next_seq, dropped, gaps, .. } = seen;
    Response::ok(format!(
        "{{\"alive\":true,\"durable_upto\":{durable_upto},\"next_seq\":{next_seq},\"dropped\":{dropped},\
         \"gaps\":{gaps},\"sources\":[{}]}}",
        sources.join(",")
    ))
}
