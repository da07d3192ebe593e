//! The table of keys, the typed structs, the explanation and what is shown say the same.

use std::collections::BTreeSet;

use super::super::Files as FileSource;
use super::super::keys::{KEYS, Key, SECTIONS, Section, concrete};
use super::super::pattern::LineStart;
use super::super::*;
use super::{Files, loaded};

/// The section of a key with a line in it.
fn section_with(key: &Key, value: &str) -> String {
    format!("[{}]\n{} = {value}\n", concrete(key.section(), "some"), key.name())
}

/// What a section needs besides a key, and what a key needs so that it contradicts nothing.
fn company(key: &Key) -> &'static str {
    match key.path {
        "keep.*.stream" | "keep.*.severity" | "sources.files.*.paths" => "",
        "classes.*.stream" => "class = \"group\"\nseverity = \"warn\"\n",
        "classes.*.severity" => "class = \"group\"\nstream = \"x\"\n",
        "limits.burst" => "rate = 5\n",
        "sources.files.*.multiline_wait" => "paths = \"/x\"\nmultiline_start = \"^x\"\n",
        "classes.*.class" => "stream = \"x\"\n",
        "sources.http.tls_cert" => "tls_key = \"/k\"\n",
        "sources.http.tls_key" => "tls_cert = \"/c\"\n",
        path if path.starts_with("keep.*") => "stream = \"x\"\n",
        path if path.starts_with("sources.files") => "paths = \"/x\"\n",
        _ => "",
    }
}

#[test]
fn an_empty_file_and_no_file_and_the_explanation_are_the_defaults() {
    assert_eq!(loaded("").config, Config::default());
    if default_file().is_none_or(|file| !file.exists()) {
        assert_eq!(Config::load(&Request::default()), Ok(Config::default()));
    }
    let explained = loaded(&explain());
    assert_eq!(explained.config, Config::default());
    let unset = KEYS.iter().filter(|key| !key.path.contains('*') && !key.unset.is_empty()).count();
    let single = KEYS.iter().filter(|key| !key.path.contains('*')).count();
    let set = KEYS.iter().filter(|key| explained.origin(key.path) != Origin::Default).count();
    assert_eq!(set, single - unset, "the explanation sets every key that has a default");
}

#[test]
fn every_example_of_the_explanation_is_accepted() {
    let text: String = explain().lines().fold(String::new(), |text, line| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_key = KEYS.iter().any(|key| bare.strip_prefix(key.name()).is_some_and(|rest| rest.starts_with(" = ")));
        let is_section = bare.starts_with('[') && bare.ends_with(']');
        text + if is_key || is_section { bare } else { line } + "\n"
    });
    let loaded = loaded(&text);
    for key in KEYS.iter().filter(|key| key.path.contains('*') || !key.unset.is_empty()) {
        let section = SECTIONS.iter().find(|section| section.path == key.section()).unwrap();
        assert_ne!(loaded.origin(&concrete(key.path, section.example)), Origin::Default, "{}", key.path);
    }
}

#[test]
fn every_key_of_the_table_has_an_effect_and_only_its_own() {
    for key in KEYS {
        // One half of a pair alone is a contradiction, and so is a rule without a class.
        let alone = matches!(key.path, "sources.http.tls_cert" | "sources.http.tls_key" | "classes.*.class");
        let without = match company(key) {
            "" => Config::default(),
            _ if alone => Config::default(),
            company => loaded(&format!("[{}]\n{company}", concrete(key.section(), "some"))).config,
        };
        let with = loaded(&(section_with(key, key.example) + company(key)));
        let place = concrete(key.path, "some");
        let Origin::Line { line: 2, column: 1, .. } = with.origin(&place) else { panic!("{place}") };
        let changes: Vec<_> = changed(&without, &with.config).into_iter().map(|c| (c.key, c.apply)).collect();
        let expected = match key.path {
            // Alone in its section, it brings the section.
            path if path.contains('*') && company(key).is_empty() => concrete(key.section(), "some"),
            _ => place,
        };
        if alone {
            assert!(!changes.is_empty(), "{}", key.path);
        } else {
            assert_eq!(changes, [(expected, key.apply)]);
        }
        assert!(key.doc.ends_with('.') && !key.doc.contains('\n'), "{}", key.path);
    }
}

#[test]
fn every_field_of_the_structs_is_set_by_a_key() {
    // No `..` here: a new field does not compile until it is looked at.
    let all = loaded(&all_examples()).config;
    let none = Config::default();
    let Config { store, keep, classes, limits, sources, api } = all;
    let Store { path, size_bytes, max_record_bytes, on_failure } = store;
    assert!(path.is_some() && size_bytes.is_some() && max_record_bytes.is_some() && on_failure == OnFailure::Memory);
    let Keep { stream_share_percent, classes: kept } = keep;
    assert_ne!(stream_share_percent, none.keep.stream_share_percent);
    let KeepClass { stream, severity, age, share_percent } = kept["some"].clone();
    assert!(stream.is_some() && severity.is_some() && age.is_some() && share_percent.is_some());
    let Classes { default, errors, rules } = classes;
    assert!(default != none.classes.default && errors != none.classes.errors);
    let ClassRule { stream, severity, class } = rules["some"].clone();
    assert!(stream.is_some() && severity.is_some() && class != ClassRule::default().class);
    let Limits { rate, burst, streams, stall } = limits;
    assert!(rate != 0 && burst != 0 && streams != none.limits.streams && stall != none.limits.stall);
    let Sources { journald, files, syslog, http, stdin } = sources;
    let Journald { enabled, kernel, units, exclude, from, directory } = journald;
    assert!(enabled == Switch::Off && !kernel && !units.is_empty() && !exclude.is_empty());
    assert!(from != none.sources.journald.from && directory.is_some());
    let blank = FileSource::default();
    let FileSource { enabled, paths, exclude, stream, multiline_start, multiline_wait, from, max_line_bytes } =
        files["some"].clone();
    assert!(!enabled && !paths.is_empty() && !exclude.is_empty() && stream.is_some() && from != blank.from);
    assert_eq!(multiline_start, LineStart::new("^[0-9]{4}-").ok());
    assert!(multiline_wait != blank.multiline_wait && max_line_bytes.is_some());
    let Syslog { enabled, udp, tcp } = syslog;
    assert!(enabled == Switch::Off && udp != none.sources.syslog.udp && tcp != none.sources.syslog.tcp);
    let Http { enabled, listen, hosts, token_file, tls_cert, tls_key, insecure, max_request_bytes } = http;
    assert!(enabled == Switch::Off && listen != none.sources.http.listen && token_file.is_some());
    assert!(!hosts.is_empty() && tls_cert.is_some() && tls_key.is_some() && insecure);
    assert_ne!(max_request_bytes, none.sources.http.max_request_bytes);
    let Stdin { enabled, stream, class } = stdin;
    assert!(enabled == Switch::Off && stream != none.sources.stdin.stream && class.is_some());
    let Api { enabled, socket, group } = api;
    assert!(enabled == Switch::Off && socket.is_some() && group != none.api.group);
}

/// A file with the example of every key.
fn all_examples() -> String {
    let section = |section: &Section| {
        let keys = KEYS.iter().filter(|key| key.section() == section.path);
        let keys: String = keys.map(|key| format!("{} = {}\n", key.name(), key.example)).collect();
        format!("[{}]\n{keys}", concrete(section.path, "some"))
    };
    SECTIONS.iter().map(section).collect()
}

#[test]
fn what_is_shown_loads_as_the_same() {
    for text in [String::new(), all_examples()] {
        let first = loaded(&text);
        let shown = first.show();
        assert_eq!(loaded(&shown).config, first.config, "{shown}");
        assert!(changed(&first.config, &loaded(&shown).config).is_empty());
        let json: serde_json::Value = serde_json::from_str(&first.show_json()).unwrap();
        assert_eq!(json["limits.stall"]["value"], if text.is_empty() { "5s" } else { "10s" });
    }
}

#[test]
fn what_is_shown_says_where_each_value_comes_from() {
    let files = Files::new("[limits]\nrate = 5\n  stall = \"1s\"\n");
    let drop_in = files.write("node.d/50-more.toml", "limits.rate = 7\n");
    let flags = vec![Flag { flag: "--size", key: "store.size", value: Value::Number(1 << 20) }];
    let shown = Loaded::load(&Request { flags, ..files.request() }).unwrap().show();
    for (key, origin) in [
        ("size = \"1M\"", "--size".to_owned()),
        ("rate = 7", format!("{}:1:8", drop_in.display())),
        ("stall = \"1s\"", format!("{}:3:3", files.path("node.toml").display())),
        ("streams = 256", "default".to_owned()),
    ] {
        let line = shown.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {shown}"));
        assert_eq!(line.split_once('#').unwrap().1.trim(), origin);
    }
}

#[test]
fn keys_and_sections_are_explained_by_name() {
    let age = explain_key("keep.errors.age").unwrap();
    assert_eq!(explain_key("age"), Ok(age.clone()));
    assert_eq!(explain_key("keep.*.age"), Ok(age.clone()));
    assert!(age.contains("Records that are older are dropped.") && age.ends_with("[keep.errors]\nage = \"90d\"\n"));
    let keep = explain_key("[keep]").unwrap();
    assert!(keep.contains("\nstream_share = \"50%\"\n") && keep.contains("\n# [keep.errors]\n"));
    assert_eq!(explain_key("enabled").unwrap().matches("enabled = false").count(), 6);
    assert!(explain_key("sources").unwrap().contains("[sources.stdin]"));
    assert_eq!(
        explain_key("keep.errors.agee").unwrap_err(),
        "there is no key or section keep.errors.agee; did you \
        mean keep.NAME.age?"
    );
    assert!(explain_key("").is_err() && explain_key("zzzzzzzzzzzz").unwrap_err().contains("--explain` lists all"));
}

#[test]
fn a_reload_says_what_it_changes_and_what_has_to_wait() {
    let old = loaded("[store]\nsize = \"64M\"\n[sources.files.a]\npaths = \"/a\"\n[limits]\nrate = 5\n").config;
    let new = loaded("[limits]\nrate = 6\n[sources.files.b]\npaths = \"/b\"\n[sources.syslog]\nudp = []\n").config;
    assert!(changed(&old, &old).is_empty());
    let words: Vec<String> = changed(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "store.size: \"64M\" -> not set (NOT yet: only when the node is started anew)",
            "limits.rate: 5 -> 6 (from the next record on)",
            "sources.files.a: removed (its source is started anew)",
            "sources.files.b: added (its source is started anew)",
            "sources.syslog.udp: [\"127.0.0.1:5514\"] -> [] (its source is started anew)",
        ]
    );
    let sections: BTreeSet<String> = changed(&old, &new).into_iter().map(|change| change.section).collect();
    assert!(sections.contains("sources.files.a") && sections.contains("sources.syslog"));
    assert!(changed(&old, &new).iter().any(|change| change.apply == Apply::Restart));
}
