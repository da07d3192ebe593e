//! Contradictions: values that are right each, and wrong together.
//!
//! Invariants: all are found at once; each is shown at the place of the value that is easiest to change; the default
//! configuration has none.

use std::net::SocketAddr;

use super::keys::concrete;
use super::load::Origins;
use super::policy::Selector;
use super::problem::{Origin, Problem, shown};
use super::types::{Config, KEEP_CLASSES_MAX, REST, Switch};

/// Everything that contradicts itself.
pub(super) fn check(config: &Config, origins: &Origins) -> Vec<Problem> {
    let mut found = Found { origins, problems: Vec::new() };
    keep(config, &mut found);
    classes(config, &mut found);
    limits(config, &mut found);
    files(config, &mut found);
    http(config, &mut found);
    addresses(config, &mut found);
    found.problems
}

/// What a node without built-in defaults has to be told.
pub(super) fn check_without_defaults(config: &Config) -> Vec<Problem> {
    let sources = &config.sources;
    let mut problems = Vec::new();
    let mut add = |what: &str| problems.push(Problem { origin: Origin::Flag("--no-defaults"), what: what.to_owned() });
    if config.store.path.is_none() {
        add("leaves out the built-in store path; name one with --store PATH, or under [store]");
    }
    let switches = [sources.journald.enabled, sources.syslog.enabled, sources.http.enabled, sources.stdin.enabled];
    if switches.iter().all(|switch| *switch == Switch::Off) && !sources.files.values().any(|files| files.enabled) {
        add("leaves out the built-in sources; name at least one, as with --stdin or [sources.syslog]");
    }
    problems
}

struct Found<'a> {
    origins: &'a Origins,
    problems: Vec<Problem>,
}

impl Found<'_> {
    /// A problem at the first of these paths that is set.
    fn add(&mut self, paths: &[&str], what: String) {
        let origin = paths.iter().find_map(|path| self.origins.get(*path)).cloned().unwrap_or(Origin::Default);
        self.problems.push(Problem { origin, what });
    }

    fn is_set(&self, path: &str) -> bool {
        self.origins.contains_key(path)
    }
}

fn keep(config: &Config, found: &mut Found<'_>) {
    let keep = &config.keep;
    let names: Vec<&str> = keep.names().collect();
    if let Some(over) = names.get(KEEP_CLASSES_MAX) {
        let what = format!(
            "[keep.{over}] is one class too many: a store has {KEEP_CLASSES_MAX}, and [keep.{REST}], which is always \
             there, is one of them; join two"
        );
        found.add(&[&format!("keep.{over}")], what);
    }
    if let Some(rest) = keep.classes.get(REST)
        && (rest.stream.is_some() || rest.severity.is_some())
    {
        let what = format!("[keep.{REST}] takes what no other class takes; take stream and severity out, or rename it");
        found.add(&["keep.rest.stream", "keep.rest.severity"], what);
    }
    for (name, selector) in keep.selectors() {
        if selector.takes_all() {
            let what = format!("[keep.{name}] takes everything; give it a stream or a severity, or call it {REST}");
            found.add(&[&format!("keep.{name}")], what);
        }
    }
    let given = |name: &str| keep.classes.get(name).and_then(|class| class.share_percent);
    let sum: u32 = names.iter().filter_map(|name| given(name)).map(u32::from).sum();
    let last = keep.classes.keys().rev().find(|name| given(name).is_some()).map(String::as_str).unwrap_or_default();
    let unshared = names.iter().find(|name| given(name).is_none());
    if sum > 100 {
        let what = format!("the shares under [keep] come to {sum}%; bring them to 100% or less");
        found.add(&[&format!("keep.{last}.share")], what);
    } else if let Some(poor) = unshared.filter(|name| keep.share_percent_of(name) == 0) {
        let what = format!("the shares under [keep] come to {sum}%, which leaves nothing for [keep.{poor}]; lower one");
        found.add(&[&format!("keep.{last}.share")], what);
    }
    let selectors: Vec<_> = keep.selectors().collect();
    never_matching("keep", &selectors, found);
}

fn classes(config: &Config, found: &mut Found<'_>) {
    let classes = &config.classes;
    if classes.errors > classes.default {
        let what = "errors would be safe later than all other records; give classes.errors the class of \
                    classes.default, or a sooner one";
        found.add(&["classes.errors", "classes.default"], what.to_owned());
    }
    let rules = classes.rules.iter();
    let selectors: Vec<_> =
        rules.map(|(name, r)| (name.as_str(), Selector::new(r.stream.as_ref(), r.severity))).collect();
    for (name, selector) in &selectors {
        if !found.is_set(&format!("classes.{name}.class")) {
            let what = format!("[classes.{name}] says no class; add class = \"group\", or another");
            found.add(&[&format!("classes.{name}")], what);
        }
        if selector.takes_all() {
            let what = format!("[classes.{name}] is about everything; set default in [classes] instead");
            found.add(&[&format!("classes.{name}")], what);
        }
    }
    never_matching("classes", &selectors, found);
}

/// Rules all of whose records go to rules that say more.
fn never_matching(section: &str, selectors: &[(&str, Selector<'_>)], found: &mut Found<'_>) {
    for (index, (name, rule)) in selectors.iter().enumerate() {
        let wins = |(other, (_, by)): &(usize, &(&str, Selector<'_>))| {
            let earlier = by.rank() == rule.rank() && *other < index;
            *other != index && by.covers_streams_of(rule) && (by.rank() > rule.rank() || earlier)
        };
        let winners: Vec<_> = selectors.iter().enumerate().filter(wins).map(|(_, winner)| winner).collect();
        let covered = |severity| winners.iter().any(|(_, by)| by.severities().contains(severity));
        if !winners.is_empty() && rule.severities().each().all(covered) {
            let takers: Vec<String> = winners.iter().map(|(name, _)| format!("[{section}.{name}]")).collect();
            let what = format!(
                "[{section}.{name}] can never match: all its records go to {}; take one of them out",
                takers.join(" and ")
            );
            found.add(&[&format!("{section}.{name}")], what);
        }
    }
}

fn limits(config: &Config, found: &mut Found<'_>) {
    let limits = &config.limits;
    if limits.burst == 0 {
        return;
    }
    let what = if limits.rate == 0 {
        "limits.burst has no effect without limits.rate; set the rate, or take the burst out".to_owned()
    } else if limits.burst < limits.rate {
        format!("limits.burst = {} is less than one second of the rate; make it {} or more", limits.burst, limits.rate)
    } else {
        return;
    };
    found.add(&["limits.burst"], what);
}

fn files(config: &Config, found: &mut Found<'_>) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (name, files) in &config.sources.files {
        let path = |key: &str| concrete("sources.files.*.", name) + key;
        let section = format!("sources.files.{name}");
        if files.paths.is_empty() {
            let what = format!("[{section}] names no files; add paths = [\"/var/log/app/*.log\"]");
            found.add(&[&path("paths"), &section], what);
        } else if files.paths.iter().all(|pattern| files.exclude.contains(pattern)) {
            let what = format!("[{section}] leaves out all that it names; take something out of exclude");
            found.add(&[&path("exclude")], what);
        }
        if files.multiline_start.is_none() && found.is_set(&path("multiline_wait")) {
            let what =
                format!("{} has no effect without multiline_start; set it, or take this out", path("multiline_wait"));
            found.add(&[&path("multiline_wait")], what);
        }
        for pattern in files.paths.iter().filter(|_| files.enabled) {
            match seen.iter().find(|(text, _)| *text == pattern.as_str()) {
                Some((_, other)) if *other != name => {
                    let text = shown(pattern.as_str());
                    let what = format!("{text} is followed by [sources.files.{other}] already; take it out of one");
                    found.add(&[&path("paths")], what);
                }
                _ => seen.push((pattern.as_str(), name)),
            }
        }
    }
}

fn http(config: &Config, found: &mut Found<'_>) {
    let http = &config.sources.http;
    if http.tls_cert.is_some() != http.tls_key.is_some() {
        let (there, missing) = if http.tls_cert.is_some() { ("tls_cert", "tls_key") } else { ("tls_key", "tls_cert") };
        let what = format!("sources.http.{there} needs {missing} with it; add it, or take this out");
        found.add(&[&format!("sources.http.{there}")], what);
    }
    if http.enabled == Switch::Off || http.insecure {
        return;
    }
    let missing: Vec<&str> =
        [("token_file", &http.token_file), ("tls_cert", &http.tls_cert), ("tls_key", &http.tls_key)]
            .iter()
            .filter(|(_, path)| path.is_none())
            .map(|(key, _)| *key)
            .collect();
    if let Some(address) = http.listen.iter().find(|address| !address.ip().is_loopback())
        && !missing.is_empty()
    {
        let what = format!(
            "sources.http.listen = \"{address}\" is open to others, which needs {} too; add that, listen on 127.0.0.1, \
             or say insecure = true",
            missing.join(" and ")
        );
        found.add(&["sources.http.listen"], what);
    }
}

fn addresses(config: &Config, found: &mut Found<'_>) {
    let (syslog, http) = (&config.sources.syslog, &config.sources.http);
    for (enabled, lists, key) in [
        (syslog.enabled, vec![&syslog.udp, &syslog.tcp], "sources.syslog"),
        (http.enabled, vec![&http.listen], "sources.http"),
    ] {
        if enabled == Switch::On && lists.iter().all(|list| list.is_empty()) {
            let what = format!("{key} is to listen, and has no address; give it one, or say enabled = false");
            found.add(&[&format!("{key}.enabled")], what);
        }
    }
    let on = |switch, list: &[SocketAddr], key: &'static str| -> Vec<(SocketAddr, &'static str)> {
        if switch == Switch::Off { Vec::new() } else { list.iter().map(|address| (*address, key)).collect() }
    };
    let udp = on(syslog.enabled, &syslog.udp, "sources.syslog.udp");
    let mut tcp = on(syslog.enabled, &syslog.tcp, "sources.syslog.tcp");
    tcp.extend(on(http.enabled, &http.listen, "sources.http.listen"));
    for all in [udp, tcp] {
        for (index, (address, key)) in all.iter().enumerate() {
            let taken = all.iter().take(index).find(|(other, _)| clash(*other, *address));
            if let Some((other, by)) = taken {
                let what =
                    format!("{key} = \"{address}\" is taken by {by} = \"{other}\" already; give one another port");
                found.add(&[key, by], what);
            }
        }
    }
}

/// Whether two listeners cannot both be. Port 0 is any free one.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let same_kind = a.is_ipv4() == b.is_ipv4();
    let same_place = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_kind && same_place
}
