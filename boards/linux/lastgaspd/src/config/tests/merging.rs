//! Files, drop-ins and flags become one configuration: later wins, key by key.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use clap::Parser;

use super::super::keys::{KEYS, concrete};
use super::super::*;
use super::{Files, Seed};
use crate::cli::Cli;

/// Keys with a value each, as a file: each under its section, or with its whole path.
fn text_of(settings: &BTreeMap<String, String>, dotted: bool) -> String {
    let line = |(path, value): (&String, &String)| match path.rsplit_once('.').filter(|_| !dotted) {
        Some((section, key)) => (format!("[{section}]\n"), format!("{key} = {value}\n")),
        None => (String::new(), format!("{path} = {value}\n")),
    };
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    for (section, key) in settings.iter().map(line) {
        sections.entry(section).or_default().push_str(&key);
    }
    sections.into_iter().map(|(section, keys)| section + &keys).collect()
}

#[test]
fn drop_ins_are_the_same_as_one_file_with_what_wins() {
    for seed in 0..120 {
        let mut random = Seed(seed);
        let mut merged = BTreeMap::new();
        let files = Files::new("");
        let count = 1 + random.below(5);
        for number in 0..count {
            let mut settings = BTreeMap::new();
            for _ in 0..random.below(16) {
                let key = &KEYS[random.below(KEYS.len())];
                let default = (key.get)(&Config::default(), "").map(|value| key.kind.write(&value));
                let value = default.filter(|_| random.below(3) == 0).unwrap_or_else(|| key.example.to_owned());
                settings.insert(concrete(key.path, ["web", "rest", "db"][random.below(3)]), value);
            }
            let name = if number == 0 { "node.toml".to_owned() } else { format!("node.d/{number}0-x.toml") };
            files.write(&name, text_of(&settings, random.below(2) == 0));
            merged.extend(settings);
        }
        let one = Files::new(&text_of(&merged, false));
        match (files.load(), one.load()) {
            (Ok(split), Ok(one)) => {
                assert_eq!(split.config, one.config, "seed {seed}");
                assert_eq!(split.files.len(), count, "seed {seed}");
            }
            (Err(split), Err(one)) => {
                let words = |problems: Vec<Problem>| {
                    let mut words: Vec<String> = problems.into_iter().map(|problem| problem.what).collect();
                    words.sort();
                    words
                };
                assert_eq!(words(split), words(one), "seed {seed}");
            }
            (split, one) => panic!("seed {seed}: {split:?} against {one:?}"),
        }
    }
}

#[test]
fn drop_ins_are_read_by_name_and_only_those_meant() {
    let files = Files::new("[limits]\nrate = 1\nstreams = 7\n");
    files.write("node.d/90-z.toml", "[limits]\nrate = 90\n");
    files.write("node.d/10-a.toml", "[limits]\nrate = 10\nstall = \"1s\"\n");
    for ignored in [".95-hidden.toml", "99-backup.toml~", "99-other.conf", "README"] {
        files.write(&format!("node.d/{ignored}"), "this = is not = read");
    }
    symlink("/dev/null", files.path("node.d/50-masked.toml")).unwrap();
    let loaded = files.load().unwrap();
    assert_eq!((loaded.config.limits.rate, loaded.config.limits.streams), (90, 7));
    assert_eq!(loaded.config.limits.stall.as_secs(), 1);
    let names = ["node.toml", "node.d/10-a.toml", "node.d/90-z.toml"].map(|name| files.path(name));
    assert_eq!(loaded.files, names);
}

#[test]
fn a_list_of_a_later_file_takes_the_place_of_the_earlier_one() {
    let files =
        Files::new("[sources.journald]\nunits = [\"a\", \"b\"]\n[sources.files.x]\npaths = \"/a\"\nfrom = \"end\"\n");
    files.write("node.d/1.toml", "[sources.journald]\nunits = []\n[sources.files.x]\npaths = [\"/b\"]\n");
    let config = files.load().unwrap().config;
    assert!(config.sources.journald.units.is_empty());
    let followed = &config.sources.files["x"];
    assert_eq!((followed.paths[0].as_str(), followed.from), ("/b", Begin::End));
}

fn cli(line: &str) -> Cli {
    Cli::try_parse_from(line.split(' ')).unwrap()
}

#[test]
fn flags_win_over_files() {
    let files = Files::new("[store]\npath = \"/f\"\nsize = \"1G\"\n[sources.stdin]\nstream = \"f\"\nenabled = false\n");
    let flags = cli("lastgaspd --store x/y --stdin --stream stdin --class each --size 64M").request();
    let loaded = Loaded::load(&Request { flags: flags.flags, ..files.request() }).unwrap();
    let (store, stdin) = (&loaded.config.store, &loaded.config.sources.stdin);
    assert_eq!((store.path.as_deref(), store.size_bytes), (Some("x/y".as_ref()), Some(64 << 20)));
    assert_eq!((stdin.enabled, stdin.stream.as_str()), (Switch::On, "stdin"));
    assert_eq!(stdin.class, Some(lastgasp_core::node::Class::Each));
    for path in ["store.path", "store.size", "sources.stdin.enabled", "sources.stdin.stream", "sources.stdin.class"] {
        assert!(matches!(loaded.origin(path), Origin::Flag(flag) if flag.starts_with("--")), "{path}");
    }
    assert!(cli("lastgaspd").request().flags.is_empty());
}

#[test]
fn without_defaults_only_what_is_named_runs() {
    let all = "lastgaspd --store /s --size 64M --no-defaults --stdin --stream app --print-acks";
    let config = Config::load(&cli(all).request()).unwrap();
    let switches = |config: &Config| {
        let sources = &config.sources;
        [
            sources.journald.enabled,
            sources.syslog.enabled,
            sources.http.enabled,
            sources.stdin.enabled,
            config.api.enabled,
        ]
    };
    use Switch::{Auto, Off, On};
    assert_eq!(switches(&config), [Off, Off, Off, On, Off]);
    assert_eq!(switches(&Config::default()), [Auto; 5]);

    let files = Files::new("[store]\npath = \"/s\"\n[sources.syslog]\ntcp = []\n");
    let request = Request { no_defaults: true, ..files.request() };
    assert_eq!(switches(&Config::load(&request).unwrap()), [Off, Auto, Off, Off, Off]);

    let bare = Request { no_defaults: true, ..Request::default() };
    assert_eq!(
        report(&Config::load(&bare).unwrap_err()),
        "--no-defaults: leaves out the built-in store path; name one with --store PATH, or under [store]\n\
         --no-defaults: leaves out the built-in sources; name at least one, as with --stdin or [sources.syslog]"
    );
}

#[test]
fn a_section_of_the_class_rest_sets_what_all_others_leave() {
    let files = Files::new("[keep.rest]\nage = \"7d\"\n[keep.errors]\nseverity = \"error\"\nshare = \"20%\"\n");
    let keep = files.load().unwrap().config.keep;
    assert_eq!((keep.share_percent_of("rest"), keep.share_percent_of("errors")), (80, 20));
    assert_eq!(keep.names().collect::<Vec<_>>(), ["rest", "errors"]);
}

#[test]
fn files_go_to_the_stream_that_their_path_says() {
    let files = Files::new("[sources.files.web]\npaths = \"/var/log/*/*.log\"\nexclude = \"/var/log/*/debug.log\"\n");
    let path = |path: &'static str| std::path::Path::new(path);
    let web = |text: &str| {
        files.write("node.d/1.toml", text);
        files.load().unwrap().config.sources.files["web"].clone()
    };
    let plain = web("");
    assert_eq!(plain.stream_of("web", path("/var/log/nginx/access.log")), "web");
    assert!(plain.follows(path("/var/log/nginx/access.log")) && !plain.follows(path("/var/log/nginx/debug.log")));
    let named = web("[sources.files.web]\nstream = \"{dir}/{stem}\"\n");
    assert_eq!(named.stream_of("web", path("/var/log/nginx/access.log")), "nginx/access");
    let long = format!("/a/{}.log", "\u{e4}".repeat(200));
    assert_eq!(named.stream_of("web", std::path::Path::new(&long)).len(), 254);
}
