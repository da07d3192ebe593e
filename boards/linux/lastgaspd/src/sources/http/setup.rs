//! What the configuration says of HTTP, as it is served.
//!
//! Invariant: beyond loopback nobody sends unencrypted or without a token, unless `insecure` says that they may.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Access, Options, tls};
use crate::config::pattern::Pattern;
use crate::config::{Classes, Http};

/// Reads the files that are named, and checks that what is open to others is closed to most of them.
///
/// # Errors
/// A file cannot be read or holds something else; what is listened on is open to others without token and TLS. Says
/// what to do.
pub fn options(http: &Http, classes: &Classes) -> Result<Options> {
    let encrypted = match (&http.tls_cert, &http.tls_key) {
        (Some(certificates), Some(key)) => Some(tls(certificates, key)?),
        (None, None) => None,
        _ => bail!("sources.http.tls_cert and sources.http.tls_key go together; set both, or neither"),
    };
    let token = http.token_file.as_deref().map(token).transpose()?;
    if let Some(open) = http.listen.iter().find(|at| !at.ip().is_loopback()) {
        ensure!(
            http.insecure || (token.is_some() && encrypted.is_some()),
            "{open} is open to others, which needs token_file, tls_cert and tls_key; set them, listen on 127.0.0.1, or \
             say insecure = true"
        );
    }
    let hosts = http.hosts.iter().cloned().chain(own_names()).collect();
    let classes = classes.clone();
    Ok(Options {
        access: Access { hosts, token },
        max_request_bytes: usize::try_from(http.max_request_bytes).unwrap_or(usize::MAX),
        class_of: Arc::new(move |stream, severity| classes.rule_for(stream, severity)),
        tls: encrypted,
    })
}

/// The first line of a file.
fn token(path: &Path) -> Result<Vec<u8>> {
    let text = std::fs::read(path).with_context(|| format!("reading the token from {}", path.display()))?;
    let token = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let is_sendable = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    ensure!(
        is_sendable,
        "{}: the first line is no token: it has to be of letters, digits and signs, without spaces; make one with \
         `openssl rand -hex 32`",
        path.display()
    );
    Ok(token.to_vec())
}

/// Names of this machine: its host name, and that with `.local`.
fn own_names() -> Vec<Pattern> {
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let names = match name.as_str() {
        "" | "(none)" => Vec::new(),
        name if name.contains('.') => vec![name.to_owned()],
        name => vec![name.to_owned(), format!("{name}.local")],
    };
    names.iter().filter_map(|name| Pattern::new(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClassRule, Http};
    use lastgasp_core::node::Class;

    #[test]
    fn what_is_open_to_others_needs_token_and_tls_or_a_word() {
        let open = Http { listen: vec!["0.0.0.0:7311".parse().unwrap()], ..Http::default() };
        let error = options(&open, &Classes::default()).unwrap_err().to_string();
        assert!(error.contains("0.0.0.0:7311") && error.contains("insecure = true"), "{error}");
        assert!(options(&Http { insecure: true, ..open.clone() }, &Classes::default()).is_ok());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "s3cret \nanother\n").unwrap();
        let with_token = Http { token_file: Some(file.clone()), ..open };
        assert!(options(&with_token, &Classes::default()).is_err(), "it would be heard by all");
        let local = Http { token_file: Some(file.clone()), ..Http::default() };
        let read = options(&local, &Classes::default()).unwrap();
        assert_eq!(read.access.token.as_deref(), Some(&b"s3cret"[..]));
        assert!(!format!("{read:?}").contains("s3cret"));
        for bad in ["", "\n", "two words\n", "\u{e9}\n"] {
            std::fs::write(&file, bad).unwrap();
            assert!(options(&local, &Classes::default()).unwrap_err().to_string().contains("no token"), "{bad:?}");
        }
        let half = Http { tls_cert: Some(file), ..Http::default() };
        assert!(options(&half, &Classes::default()).unwrap_err().to_string().contains("go together"));
    }

    #[test]
    fn only_a_rule_of_the_user_says_what_a_request_waits_for() {
        let mut classes = Classes::default();
        let stream = Some(Pattern::new("slow*").unwrap());
        classes.rules.insert("slow".into(), ClassRule { stream, class: Class::Ram, ..ClassRule::default() });
        let of = options(&Http::default(), &classes).unwrap().class_of;
        assert_eq!((of("slow.1", 9), of("web", 9), of("web", 17)), (Some(Class::Ram), None, None));
    }
}
