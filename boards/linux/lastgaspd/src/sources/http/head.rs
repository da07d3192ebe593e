//! The head of a request: what it asks for, how its body comes, and whether it may.
//!
//! Invariants: a head that could mean two things to two readers is refused (two lengths, a length and a coding, two
//! hosts, a length that is more than digits), and the connection with it; nobody gets in by a name of this machine that
//! an attacker's name server made up, nor from a page of another site.

use std::net::IpAddr;

use httparse::{Request, Status};

use crate::config::pattern::Pattern;

/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Bytes of a head.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// `POST /v1/logs`
    Logs,
    /// `GET /healthz`; without its body for HEAD.
    Health {
        /// Only the head of the response is wanted.
        head_only: bool,
    },
}

/// How the body of a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(usize),
    /// In chunks.
    Chunked,
}

/// A request that may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) target: Target,
    pub(super) framing: Framing,
    /// Its body is compressed.
    pub(super) is_gzip: bool,
    /// Another request may follow on the connection.
    pub(super) keeps_alive: bool,
    /// The sender waits for a word before it sends the body.
    pub(super) expects_continue: bool,
    /// It showed the token, or none is needed.
    pub(super) is_trusted: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Status code.
    pub(super) status: u16,
    /// What is wrong.
    pub(super) reason: String,
    /// A header that goes with it.
    pub(super) header: Option<&'static str>,
}

pub(super) fn refusal(status: u16, reason: impl Into<String>) -> Refusal {
    Refusal { status, reason: reason.into(), header: None }
}

/// Who may send.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Names of this machine, in lower case, that senders may use in `Host`, besides `localhost` and the address. Not
    /// asked for where a token is needed: no page knows it.
    pub hosts: Vec<Pattern>,
    /// What senders of records have to show; `None` lets everybody in.
    pub token: Option<Vec<u8>>,
}

/// Reads a head; `None` if there is more of it to come. Else its length, and what is to be done.
pub(super) fn read(
    bytes: &[u8],
    access: &Access,
    local: IpAddr,
    max_request: usize,
) -> Option<(usize, Result<Head, Refusal>)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Partial) if bytes.len() < HEAD_BYTES_MAX => None,
        Ok(Status::Partial) => Some((bytes.len(), Err(refusal(431, "the head of the request is too large")))),
        Err(httparse::Error::TooManyHeaders) => {
            Some((bytes.len(), Err(refusal(431, format!("more than {HEADERS_MAX} headers")))))
        }
        Err(error) => Some((bytes.len(), Err(refusal(400, format!("this is no HTTP request: {error}"))))),
        Ok(Status::Complete(len)) => Some((len, judge(&request, access, local, max_request))),
    }
}

fn judge(request: &Request<'_, '_>, access: &Access, local: IpAddr, max_request: usize) -> Result<Head, Refusal> {
    let headers = Headers(request);
    // How the body comes is clear first of all: who does not know that does not know where the request ends.
    let framing = framing(&headers, request.version == Some(0))?;
    let host = host(request, &headers)?;
    if access.token.is_none() && !is_our_name(host, access, local) {
        let reason = format!("{host} is no name of this node; use its address, or set sources.http.hosts");
        return Err(refusal(403, reason));
    }
    if let Some(origin) = headers.one("Origin")? {
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        if !authority.eq_ignore_ascii_case(host) {
            return Err(refusal(403, "pages of other sites may not send here"));
        }
    }
    let is_trusted = match (&access.token, headers.one("Authorization")?) {
        (None, _) => true,
        (Some(token), Some(shown)) => is_token(shown, token),
        (Some(_), None) => false,
    };
    let target = target(request, is_trusted)?;
    let expects_continue = match headers.one("Expect")? {
        None => false,
        Some(expected) if expected.eq_ignore_ascii_case("100-continue") => request.version == Some(1),
        Some(_) => return Err(refusal(417, "only 100-continue can be expected")),
    };
    let framing = match (target, framing) {
        (Target::Health { .. }, None) => Framing::Length(0),
        (Target::Logs, None) => return Err(refusal(411, "a request needs Content-Length or chunks")),
        (_, Some(Framing::Length(len))) if len > max_request => {
            return Err(refusal(413, format!("{len} bytes, and a request may have at most {max_request}")));
        }
        (_, Some(framing)) => framing,
    };
    let is_gzip = target == Target::Logs && coding(&headers)?;
    if target == Target::Logs {
        content_type(&headers)?;
    }
    Ok(Head { target, framing, is_gzip, keeps_alive: keeps_alive(request, &headers), expects_continue, is_trusted })
}

/// The headers of a request.
struct Headers<'r, 'h, 'b>(&'r Request<'h, 'b>);

impl<'b> Headers<'_, '_, 'b> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.0.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    }

    /// The value of a header that may be there once.
    fn one(&self, name: &str) -> Result<Option<&'b str>, Refusal> {
        let mut values = self.all(name);
        let Some(value) = values.next() else { return Ok(None) };
        match (values.next(), str::from_utf8(value)) {
            (None, Ok(value)) => Ok(Some(value.trim())),
            (Some(_), _) => Err(refusal(400, format!("more than one {name} header"))),
            (None, Err(_)) => Err(refusal(400, format!("the {name} header is no text"))),
        }
    }
}

fn framing(headers: &Headers<'_, '_, '_>, is_http_1_0: bool) -> Result<Option<Framing>, Refusal> {
    let (length, coding) = (headers.one("Content-Length")?, headers.one("Transfer-Encoding")?);
    match (length, coding) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(refusal(400, "Content-Length and Transfer-Encoding together")),
        (Some(length), None) => {
            let is_number = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
            match length.parse().ok().filter(|_| is_number) {
                Some(length) => Ok(Some(Framing::Length(length))),
                None if is_number => Err(refusal(413, "the request is too large")),
                None => Err(refusal(400, "Content-Length is no number")),
            }
        }
        (None, Some(_)) if is_http_1_0 => Err(refusal(400, "HTTP/1.0 has no Transfer-Encoding")),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
        (None, Some(_)) => Err(refusal(501, "only chunked is understood as Transfer-Encoding")),
    }
}

/// Whom the sender thinks it talks to, with the port.
fn host<'b>(request: &Request<'_, 'b>, headers: &Headers<'_, '_, 'b>) -> Result<&'b str, Refusal> {
    let header = headers.one("Host")?;
    let path = request.path.unwrap_or_default();
    if let Some((_, rest)) = path.split_once("://").filter(|_| !path.starts_with('/')) {
        return Ok(rest.split(['/', '?']).next().unwrap_or_default());
    }
    match header {
        Some(host) => Ok(host),
        None if request.version == Some(0) => Ok("localhost"), // it had no such header
        None => Err(refusal(400, "the Host header is missing")),
    }
}

fn is_our_name(host: &str, access: &Access, local: IpAddr) -> bool {
    let (name, port) = match host.rfind(':').filter(|at| !host.get(*at..).unwrap_or_default().contains(']')) {
        Some(at) => (host.get(..at).unwrap_or_default(), host.get(at.saturating_add(1)..).unwrap_or_default()),
        None => (host, ""),
    };
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let inside = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = inside.parse::<IpAddr>() {
        // An address cannot be made to point elsewhere; but it has to be the one that was called.
        return address.to_canonical() == local.to_canonical() || is_listed(inside, access);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || is_listed(name, access)
}

fn is_listed(name: &str, access: &Access) -> bool {
    let name = name.to_ascii_lowercase();
    access.hosts.iter().any(|host| host.matches(&name))
}

/// Compares in a time that does not tell how much of it is right.
fn is_token(shown: &str, token: &[u8]) -> bool {
    let Some((scheme, shown)) = shown.split_once(' ') else { return false };
    let shown = shown.trim_start().as_bytes();
    let differs = shown.iter().zip(token.iter()).fold(0u8, |differs, (a, b)| std::hint::black_box(differs | (a ^ b)));
    scheme.eq_ignore_ascii_case("bearer") && shown.len() == token.len() && differs == 0
}

fn target(request: &Request<'_, '_>, is_trusted: bool) -> Result<Target, Refusal> {
    let path = request.path.unwrap_or_default();
    let path = match path.split_once("://").filter(|_| !path.starts_with('/')) {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => path,
    };
    let path = path.split('?').next().unwrap_or_default();
    let with = |status, reason: &str, header| Refusal { status, reason: reason.to_owned(), header: Some(header) };
    match (path, request.method.unwrap_or_default()) {
        ("/v1/logs", "POST") if !is_trusted => {
            Err(with(401, "show the token as Authorization: Bearer TOKEN", "WWW-Authenticate: Bearer"))
        }
        ("/v1/logs", "POST") => Ok(Target::Logs),
        ("/v1/logs", _) => Err(with(405, "records are sent by POST", "Allow: POST")),
        ("/healthz", "GET") => Ok(Target::Health { head_only: false }),
        ("/healthz", "HEAD") => Ok(Target::Health { head_only: true }),
        ("/healthz", _) => Err(with(405, "the state is asked for by GET", "Allow: GET, HEAD")),
        _ => Err(refusal(404, "there is POST /v1/logs and GET /healthz")),
    }
}

/// Whether the body is compressed.
fn coding(headers: &Headers<'_, '_, '_>) -> Result<bool, Refusal> {
    let coding = headers.one("Content-Encoding")?.unwrap_or("identity");
    match coding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Ok(true),
        "identity" | "" => Ok(false),
        _ => Err(Refusal {
            status: 415,
            reason: "of content encodings, gzip is understood".to_owned(),
            header: Some("Accept-Encoding: gzip"),
        }),
    }
}

/// Types that JSON is sent as; `curl -d` says it sends a form.
const TYPES: [&str; 9] = [
    "application/json",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/jsonlines",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "text/plain",
];

fn content_type(headers: &Headers<'_, '_, '_>) -> Result<(), Refusal> {
    let Some(value) = headers.one("Content-Type")? else { return Ok(()) };
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = kind.starts_with("application/") && kind.ends_with("+json");
    if TYPES.contains(&kind.as_str()) || is_json || kind.is_empty() {
        return Ok(());
    }
    let reason = format!("{kind} is not understood; send application/x-ndjson or application/json");
    Err(Refusal { status: 415, reason, header: Some("Accept: application/x-ndjson, application/json") })
}

fn keeps_alive(request: &Request<'_, '_>, headers: &Headers<'_, '_, '_>) -> bool {
    let mut words = headers.all("Connection").filter_map(|value| str::from_utf8(value).ok()).flat_map(|v| v.split(','));
    let is_new = request.version == Some(1);
    let wanted = if is_new { "close" } else { "keep-alive" };
    is_new != words.any(|word| word.trim().eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn ask(head: &str, access: &Access) -> Result<Head, (u16, String)> {
        let bytes = format!("{head}\r\n\r\n");
        let (len, judged) = read(bytes.as_bytes(), access, LOCAL, 1000).expect("it is whole");
        assert!(judged.is_err() || len == bytes.len());
        judged.map_err(|refusal| (refusal.status, refusal.reason))
    }

    #[track_caller]
    fn status(head: &str) -> u16 {
        ask(head, &Access::default()).map_or_else(|(status, _)| status, |_| 200)
    }

    fn post(headers: &str) -> String {
        format!("POST /v1/logs HTTP/1.1\r\nHost: localhost:7311\r\n{headers}")
    }

    #[test]
    fn a_request_says_what_it_wants_and_how_it_comes() {
        let head = ask(&post("Content-Length: 7"), &Access::default()).unwrap();
        let plain = Head {
            target: Target::Logs,
            framing: Framing::Length(7),
            is_gzip: false,
            keeps_alive: true,
            expects_continue: false,
            is_trusted: true,
        };
        assert_eq!(head, plain);
        let head =
            "Transfer-Encoding: Chunked\r\ncontent-encoding: GZIP\r\nExpect: 100-Continue\r\nConnection: x, close";
        let want =
            Head { framing: Framing::Chunked, is_gzip: true, keeps_alive: false, expects_continue: true, ..plain };
        assert_eq!(ask(&post(head), &Access::default()), Ok(want));
        let health = ask("GET /healthz?x HTTP/1.0", &Access::default()).unwrap();
        assert_eq!((health.target, health.keeps_alive), (Target::Health { head_only: false }, false));
        assert!(ask("HEAD /healthz HTTP/1.0\r\nConnection: keep-alive", &Access::default()).unwrap().keeps_alive);
        assert_eq!(status("POST http://127.0.0.1:7311/v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 0"), 200);
        assert_eq!(status("POST http://evil.example/v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0"), 403);
    }

    #[test]
    fn heads_that_could_mean_two_things_are_refused() {
        let length = "Content-Length: 7";
        for (headers, want) in [
            (format!("{length}\r\nTransfer-Encoding: chunked"), 400),
            (format!("{length}\r\n{length}"), 400),
            (format!("{length}\r\nHost: localhost"), 400),
            ("Content-Length: +7".to_owned(), 400),
            ("Content-Length: 7, 7".to_owned(), 400),
            ("Content-Length: 0x7".to_owned(), 400),
            ("Content-Length:".to_owned(), 400),
            ("Content-Length : 7".to_owned(), 400),
            ("Content-Length: 7\r\n folded".to_owned(), 400),
            ("Transfer-Encoding: gzip, chunked".to_owned(), 501),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked".to_owned(), 400),
            ("Transfer-Encoding: \u{b}chunked".to_owned(), 400),
            (format!("Content-Length: {}", "9".repeat(30)), 413),
            ("Content-Length: 1001".to_owned(), 413),
            ("X: y".to_owned(), 411),
            (format!("{length}\r\nExpect: coffee"), 417),
            (format!("{length}\r\nContent-Type: application/x-protobuf"), 415),
            (format!("{length}\r\nContent-Type: application/x-ndjson; charset=utf-8"), 200),
            (format!("{length}\r\nContent-Encoding: zstd"), 415),
        ] {
            assert_eq!(status(&post(&headers)), want, "{headers}");
        }
        assert_eq!(status("POST /v1/logs HTTP/1.0\r\nTransfer-Encoding: chunked"), 400);
        assert_eq!(status("POST /v1/logs HTTP/1.1\r\nContent-Length: 0"), 400, "no host");
        assert_eq!(status("GET /v1/logs HTTP/1.1\r\nHost: localhost"), 405);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: localhost"), 404);
        assert_eq!(status("hello"), 400);
        let many = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(70));
        assert_eq!(status(&many), 431);
        let long = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(HEAD_BYTES_MAX));
        let (_, judged) = read(long.as_bytes(), &Access::default(), LOCAL, 1000).unwrap();
        assert_eq!(judged.unwrap_err().status, 431);
        assert!(read(b"GET / HT", &Access::default(), LOCAL, 1000).is_none());
    }

    #[test]
    fn foreign_hosts_and_origins_are_refused() {
        let access = Access { hosts: vec![Pattern::new("pi.lan").unwrap()], token: None };
        for (host, want) in [
            ("localhost", 200),
            ("LOCALHOST:80", 200),
            ("localhost.", 200),
            ("127.0.0.1:7311", 200),
            ("[::ffff:127.0.0.1]:7311", 200),
            ("Pi.LAN:7311", 200),
            ("192.0.2.1", 403),
            ("[::1]", 403),
            ("evil.example", 403),
            ("localhost.evil.example", 403),
            ("localhost:80@evil.example", 403),
            ("", 403),
        ] {
            let head = format!("POST /v1/logs HTTP/1.1\r\nContent-Length: 0\r\nHost: {host}");
            assert_eq!(ask(&head, &access).map_or_else(|e| e.0, |_| 200), want, "{host}");
        }
        for (origin, want) in [("http://localhost:7311", 200), ("http://evil.example", 403), ("null", 403), ("", 403)] {
            assert_eq!(status(&post(&format!("Content-Length: 0\r\nOrigin: {origin}"))), want, "{origin}");
        }
    }

    #[test]
    fn where_a_token_is_needed_it_has_to_be_shown_to_send() {
        let access = Access { hosts: Vec::new(), token: Some(b"s3cret".to_vec()) };
        for (shown, want) in [
            ("Authorization: Bearer s3cret", 200),
            ("authorization: bearer  s3cret ", 200),
            ("Authorization: Bearer s3cre", 401),
            ("Authorization: Bearer s3crets", 401),
            ("Authorization: Basic s3cret", 401),
            ("Authorization: s3cret", 401),
            ("X: y", 401),
        ] {
            let head = post(&format!("Content-Length: 0\r\n{shown}"));
            assert_eq!(ask(&head, &access).map_or_else(|e| e.0, |_| 200), want, "{shown}");
        }
        let health = ask("GET /healthz HTTP/1.1\r\nHost: any.example", &access).unwrap();
        assert!(!health.is_trusted, "names are not asked for, but nobody is trusted by that");
    }
}
