//! What is answered: a status and a line of JSON.
//!
//! Invariants: every answer has its length; who may try again is told when, and who is wrong is told where.

use std::fmt::Write as _;

use super::head::Refusal;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// A header of its own.
    pub(super) header: Option<&'static str>,
    /// JSON.
    pub(super) body: String,
}

impl Response {
    pub(super) fn ok(body: String) -> Self {
        Self { status: 200, header: None, body }
    }

    /// One that says what is wrong, in which line of the request if that is known.
    pub(super) fn error(status: u16, reason: &str, line: Option<usize>) -> Self {
        let line = line.map_or(String::new(), |line| format!(",\"line\":{line}"));
        let header = match status {
            429 | 503 => Some("Retry-After: 1"),
            _ => None,
        };
        Self { status, header, body: format!("{{\"error\":{}{line}}}", quoted(reason)) }
    }

    /// As it is sent.
    pub(super) fn encode(&self, keeps_alive: bool, head_only: bool) -> Vec<u8> {
        let Self { status, header, body } = self;
        let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
        let mut out = format!(
            "HTTP/1.1 {status} {}\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            phrase(*status),
            body.len().saturating_add(1),
        );
        if let Some(header) = header {
            let _ = write!(out, "{header}\r\n");
        }
        out.push_str(if keeps_alive { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" });
        if !head_only {
            out.push_str(body);
            out.push('\n');
        }
        out.into_bytes()
    }
}

impl From<&Refusal> for Response {
    fn from(refusal: &Refusal) -> Self {
        let response = Self::error(refusal.status, &refusal.reason, None);
        Self { header: refusal.header.or(response.header), ..response }
    }
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_it_is_and_what_comes_next() {
        let error = Response::error(503, "a \"b\"\n", Some(3));
        let text = String::from_utf8(error.encode(false, false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\nDate: "), "{text}");
        assert!(text.contains("\r\nRetry-After: 1\r\n") && text.contains("\r\nConnection: close\r\n"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "{\"error\":\"a \\\"b\\\"\\n\",\"line\":3}\n");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        let head_only = String::from_utf8(Response::ok("{}".to_owned()).encode(true, true)).unwrap();
        assert!(head_only.ends_with("Connection: keep-alive\r\n\r\n") && head_only.contains("Content-Length: 3\r\n"));
    }
}
