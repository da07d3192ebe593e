//! What is wrong is said with file, line and what to do; all of it at once; and no file does harm.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::super::*;
use super::{Files, Seed};

/// Asserts the problems of a file, without its name.
#[track_caller]
fn problems(text: &str, expected: &[&str]) {
    let found: Vec<String> = Files::new(text).problems();
    let found: Vec<&str> = found.iter().map(|p| p.strip_prefix("node.toml:").unwrap_or(p)).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn unknown_keys_are_refused_with_the_one_that_may_be_meant() {
    problems(
        "sise = \"64M\"\nstream_share = 5\n[stroe]\npath = \"x\"\n[store]\npth = \"/x\"\n[keep]\nfoo = 1\n\
         [classes.web]\nclass = \"group\"\nclas = \"ram\"\n[sources.jurnald]\n[blurb]\n\"a b\\u001b\" = 1\n",
        &[
            "1:1: unknown key sise; did you mean size in [store]?",
            "2:1: unknown key stream_share; did you mean stream_share in [keep]?",
            "3:2: unknown key stroe; did you mean store?",
            "6:1: unknown key pth in [store]; did you mean path?",
            "8:1: unknown key foo in [keep]; known are stream_share, and sections as [keep.NAME]",
            "11:1: unknown key clas in [classes.web]; did you mean class?",
            "12:10: unknown key jurnald in [sources]; did you mean journald?",
            "13:2: unknown key blurb; known are store, keep, classes, limits, sources, api; `lastgaspd config \
             --explain` says more",
        ],
    );
}

#[test]
fn wrong_types_and_units_are_refused_with_what_to_write() {
    problems(
        "[store]\nsize = 64\nmax_record = \"10X\"\npath = \"logs.lg\"\n[limits]\nrate = \"500\"\nstall = 5\n\
         streams = 0\n\
         burst = 1.5\n[keep]\nstream_share = 50\n[keep.errors]\nshare = \"120%\"\nage = \"90 parsecs\"\nseverity = \
         \"loud\"\n",
        &[
            "2:8: store.size = 64 has no unit; write \"64M\", or another of K, M, G, T, B",
            "3:14: store.max_record = \"10X\" is no size; write a whole number with K, M, G, T or B behind it, as \
             \"64M\"",
            "4:8: store.path = \"logs.lg\" is not absolute; begin it with /",
            "6:8: limits.rate = \"500\" is text; write 500 without quotes",
            "7:9: limits.stall = 5 has no unit; write \"5s\", or another of ms, m, h, d, w",
            "8:11: limits.streams = 0 is out of bounds; write a whole number from 1 to 4096",
            "9:9: limits.burst = 1.5 is a number with a fraction; write a whole number from 0 to 100000000",
            "11:16: keep.stream_share = 50 has no unit; write \"50%\"",
            "13:9: keep.errors.share = \"120%\" is out of bounds; write a whole number from 1 to 100 with % behind it, \
             as \"20%\"",
            "14:7: keep.errors.age = \"90 parsecs\" is no time; write a whole number with ms, s, m, h, d or w behind \
             it, as \"5s\" or \"90d\"",
            "15:12: keep.errors.severity = \"loud\" names no severity; use trace, debug, info, notice, warn, error, \
             crit, alert, fatal, a number from 1 to 24, or a range as trace..debug",
        ],
    );
    problems(
        "[sources.journald]\nenabled = \"yes\"\nkernel = \"true\"\nunits = [\"a\", 5]\nfrom = \"strat\"\n\
         [sources.syslog]\nudp = [\"514\", \"::1:2\"]\ntcp = [\"127.0.0.1\"]\n[sources.files.a]\npaths = [\"log/*\"]\n\
         multiline_start = \"(\"\nstream = \"{host}\"\nfrom = \"boot\"\n[api]\ngroup = \"a b\"\nsocket = \"~/s\"\n\
         [classes]\ndefault = \"grupo\"\nerrors = \"fsync\"\n",
        &[
            "2:11: sources.journald.enabled = \"yes\" is text; write true, false or \"auto\"",
            "3:10: sources.journald.kernel = \"true\" is text; write true without quotes",
            "4:15: sources.journald.units = 5 is a whole number; write text in quotes",
            "5:8: sources.journald.from = \"strat\" is not known; did you mean \"start\"?",
            "7:8: sources.syslog.udp = \"514\" is a port without an address; write \"127.0.0.1:514\", or \
             \"0.0.0.0:514\" for all",
            "8:8: sources.syslog.tcp = \"127.0.0.1\" has no port; write \"127.0.0.1:5514\"",
            "10:10: sources.files.a.paths = \"log/*\" is not absolute; begin it with /",
            "11:19: sources.files.a.multiline_start = \"(\" is no regular expression: found open group without closing \
             ')'; write \\ before what is meant as it stands",
            "12:10: sources.files.a.stream = \"{host}\" holds braces that mean nothing; {stem} and {dir} are \
             understood",
            "13:8: sources.files.a.from = \"boot\" is not known; write one of \"start\", \"end\"",
            "15:9: api.group = \"a b\" is no name of a group; write one as \"lastgasp\" (see `getent group`)",
            "16:10: api.socket = \"~/s\" is not expanded; write the whole path, from / on",
            "18:11: classes.default = \"grupo\" is not known; did you mean \"group\"?",
            "19:10: classes.errors = \"fsync\" is not known; write one of \"each\", \"group\", \"interval\", \"ram\"",
        ],
    );
}

#[test]
fn sections_and_values_are_not_mistaken_for_each_other() {
    problems(
        "sources.http = 5\nlimits = []\n[[sources.files]]\npaths = \"/x\"\n[[classes.rule]]\n[keep.\"bad name\"]\n\
         [store.size]\nM = 64\n",
        &[
            "1:9: sources.http = 5 is a section; write [sources.http] and its keys below it",
            "2:1: limits = [] is a section; write [limits] and its keys below it",
            "3:11: sources.files is a section and no list; write [sources.files.NAME]",
            "5:11: classes.rule is a section and no list; write [classes.rule]",
            "6:7: keep.bad name is no name for a section; write up to 64 letters, digits, - and _",
            "7:1: store.size = {...} is a table; write a size in bytes from \"512K\" to \"64T\"",
        ],
    );
}

#[test]
fn broken_grammar_is_said_once_a_line_and_hides_nothing_else() {
    problems(
        "[store\nsize = \"64M\"\n[limits]\nrate = = 5\nrte = 5\n[limits]\nstreams = 1\n",
        &[
            "1:7: this is not TOML: unclosed table, expected `]`; write key = value, with text in quotes",
            "4:8: this is not TOML at \"=\": extra `=`, expected nothing; write key = value, with text in quotes",
            "5:1: unknown key rte in [limits]; did you mean rate?",
            "6:2: limits is here for the second time in this file; join the two",
        ],
    );
    problems(
        "[sources.files.a]\npaths = \"/a\"\n[sources.files.a]\npaths = \"/b\"\n",
        &[
            "3:16: a is here for the second time in this file; join the two",
            "4:1: paths is here for the second time in this file; join the two",
        ],
    );
}

#[test]
fn contradictions_in_what_is_kept_are_refused() {
    problems(
        "[keep.a]\nstream = \"x\"\nshare = \"60%\"\n[keep.b]\nseverity = \"error\"\nshare = \"60%\"\n[keep.rest]\n\
         severity = \"warn\"\n[keep.c]\n[keep.d]\nstream = \"x\"\n",
        &[
            "6:1: the shares under [keep] come to 120%; bring them to 100% or less",
            "8:1: [keep.rest] takes what no other class takes; take stream and severity out, or rename it",
            "9:7: [keep.c] takes everything; give it a stream or a severity, or call it rest",
            "10:7: [keep.d] is one class too many: a store has 4, and [keep.rest], which is always there, is one of \
             them; join two",
            "10:7: [keep.d] can never match: all its records go to [keep.a]; take one of them out",
        ],
    );
    problems(
        "[keep.a]\nstream = \"*-db\"\n",
        &["2:10: keep.a.stream = \"*-db\" is more than retention can tell apart; write a whole name, or its \
           beginning and a * at the end, as \"nginx*\""],
    );
    problems(
        "[keep.a]\nstream = \"x\"\nshare = \"100%\"\n",
        &["3:1: the shares under [keep] come to 100%, which leaves nothing for [keep.rest]; lower one"],
    );
}

#[test]
fn contradictory_rules_are_refused() {
    problems(
        "[classes]\nerrors = \"ram\"\n[classes.x]\nstream = \"app\"\n[classes.y]\nclass = \"ram\"\nseverity = \
         \"trace\"\nstream = \"**\"\n",
        &[
            "2:1: errors would be safe later than all other records; give classes.errors the class of classes.default, \
             or a sooner one",
            "3:10: [classes.x] says no class; add class = \"group\", or another",
            "5:10: [classes.y] is about everything; set default in [classes] instead",
        ],
    );
    problems(
        "[classes]\na = {severity = \"debug..info\", class = \"ram\"}\nb = {severity = \"debug\", class = \"ram\"}\n\
         c = {severity = \"trace..debug\", class = \"ram\"}\nd = {severity = \"debug..debug\", class = \"ram\"}\n\
         e = {severity = \"info..info\", class = \"ram\"}\n",
        &["2:1: [classes.a] can never match: all its records go to [classes.d] and [classes.e]; take one of them out"],
    );
    // Where streams only may overlap, nothing is claimed.
    let text = "[classes]\na = {stream = \"w*\", class = \"ram\"}\nb = {stream = \"web\", class = \"each\"}\n";
    assert!(Files::new(text).load().is_ok());
}

#[test]
fn keys_without_an_effect_are_refused() {
    problems(
        "[limits]\nrate = 100\nburst = 50\n",
        &["3:1: limits.burst = 50 is less than one second of the rate; make it 100 or more"],
    );
    problems(
        "[limits]\nburst = 50\n",
        &["2:1: limits.burst has no effect without limits.rate; set the rate, or take the burst out"],
    );
    problems(
        "[sources.files.a]\npaths = [\"/x/*.log\"]\nmultiline_wait = \"2s\"\n[sources.files.b]\npaths = \"/x/*.log\"\n\
         [sources.files.c]\n[sources.files.d]\npaths = \"/y\"\nexclude = \"/y\"\n[sources.files.e]\nenabled = false\n\
         paths = \"/y\"\n",
        &[
            "3:1: sources.files.a.multiline_wait has no effect without multiline_start; set it, or take this out",
            "5:1: /x/*.log is followed by [sources.files.a] already; take it out of one",
            "6:16: [sources.files.c] names no files; add paths = [\"/var/log/app/*.log\"]",
            "9:1: [sources.files.d] leaves out all that it names; take something out of exclude",
        ],
    );
}

#[test]
fn listeners_do_not_clash_and_are_not_open_by_accident() {
    problems(
        "[sources.http]\nlisten = [\"0.0.0.0:5514\", \"127.0.0.1:7311\"]\ntls_cert = \"/x\"\n",
        &[
            "2:1: sources.http.listen = \"0.0.0.0:5514\" is open to others, which needs token_file and tls_key too; \
             add that, listen on 127.0.0.1, or say insecure = true",
            "2:1: sources.http.listen = \"0.0.0.0:5514\" is taken by sources.syslog.tcp = \"127.0.0.1:5514\" already; \
             give one another port",
            "3:1: sources.http.tls_cert needs tls_key with it; add it, or take this out",
        ],
    );
    problems(
        "[sources.syslog]\nenabled = true\nudp = []\ntcp = []\n",
        &["2:1: sources.syslog is to listen, and has no address; give it one, or say enabled = false"],
    );
    for fine in [
        "[sources.http]\nlisten = \"0.0.0.0:80\"\ninsecure = true\n",
        "[sources.http]\nlisten = \"[::]:80\"\ntoken_file = \"/t\"\ntls_cert = \"/c\"\ntls_key = \"/k\"\n",
        "[sources.http]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\", \"[::1]:7\"]\n",
        "[sources.http]\nlisten = \"0.0.0.0:80\"\nenabled = false\n",
        "[sources.syslog]\nudp = \"0.0.0.0:7311\"\ntcp = \"localhost:9\"\n",
    ] {
        assert!(Files::new(fine).load().is_ok(), "{fine}: {:?}", Files::new(fine).problems());
    }
}

#[test]
fn files_that_cannot_be_configurations_are_refused_in_words() {
    let binary: Vec<u8> = (0..=255).cycle().take(4000).collect();
    let cases: &[(&str, &[u8], &str)] = &[
        ("binary", &binary, "node.toml:1:1: this is no text file (a byte here is not UTF-8, or is NUL)"),
        ("latin-1", b"[store]\n# gr\xfc\xdfe\n", "node.toml:2:5: this is no text file"),
        ("a NUL", b"[limits]\nrate = 5\n\0", "node.toml:3:1: this is no text file"),
        ("an ELF header", b"\x7fELF\x02\x01\x01\0\0", "node.toml:1:8: this is no text file"),
        ("deep lists", &[b"a = ".as_slice(), &b"[".repeat(60_000)].concat(), "this is nested too deeply"),
        ("deep keys", &[b"a".as_slice(), &b".a".repeat(30_000), b" = 1"].concat(), "node.toml:1:1: this is nested too"),
        ("deep tables", &b"a={".repeat(20_000), "nested too deeply"),
        ("quotes", &b"\"\n".repeat(30_000), "node.toml:1:2: this is not TOML"),
        (
            "many keys",
            &(0..6_000).map(|n| format!("k{n}=1\n")).collect::<String>().into_bytes(),
            ":1:1: unknown key k0",
        ),
        (
            "many sections",
            &(0..4_000).map(|n| format!("[keep.a{n}]\n")).collect::<String>().into_bytes(),
            "there are more than 64 sections [keep.NAME]",
        ),
        (
            "a long list",
            &[b"sources.syslog.udp=[".as_slice(), &b"\"::1:1\",".repeat(8_000), b"]"].concat(),
            "sources.syslog.udp = [...] has 8000 entries; 64 are allowed",
        ),
        ("a long word", &[b"store.path = \"".as_slice(), &b"x".repeat(60_000), b"\""].concat(), "is too long"),
    ];
    for (what, text, expected) in cases {
        let files = Files::new("");
        files.write("node.toml", text);
        let problems = files.problems();
        assert!(problems[0].contains(expected), "{what}: {}", problems[0]);
        assert!(problems.len() <= 401 && problems.iter().all(|p| p.len() < 400), "{what}: {}", problems.len());
    }
}

#[test]
fn a_damaged_file_is_refused_or_read_and_nothing_else() {
    let whole = explain();
    for seed in 0..400u64 {
        let mut random = Seed(seed);
        let start = random.below(whole.len());
        let mut bytes = whole.as_bytes()[start..whole.len().min(start + 4000)].to_vec();
        for _ in 0..1 + random.below(20) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => drop(bytes.drain(at..bytes.len().min(at + random.below(40)))),
                1 => bytes[at] = [b'"', b'[', b'\n', b'=', b'\'', b'{', 0, 0xff][random.below(8)],
                2 => bytes.insert(at, b"\n[]={}\"#."[random.below(9)]),
                _ => bytes.extend_from_within(at..bytes.len().min(at + 50)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        let files = Files::new("");
        files.write("node.toml", &bytes);
        if let Err(problems) = files.load() {
            let one_line = |p: &Problem| !p.to_string().contains(char::is_control) && p.what.contains("; ");
            assert!(problems.iter().all(one_line), "seed {seed}: {}", report(&problems));
        }
    }
}

#[test]
fn huge_files_and_what_is_no_file_are_refused_unread() {
    let files = Files::new("");
    File::create(files.path("node.toml")).unwrap().set_len(100 << 20).unwrap();
    assert_eq!(files.problems(), ["node.toml: has more than 64 KiB; no configuration needs that"]);
    let at = |path: &str| Loaded::load(&Request { file: Some(path.into()), ..Request::default() }).unwrap_err();
    assert_eq!(at("/dev/zero")[0].to_string(), "/dev/zero: is no regular file; give the path of a TOML file");
    assert_eq!(at("/")[0].to_string(), "/: is no regular file; give the path of a TOML file");
    assert_eq!(
        at("/nonexistent/x.toml")[0].to_string(),
        "/nonexistent/x.toml: is not there; check the path, or write the file"
    );
    let files = Files::new("");
    files.write("node.d/10-a.toml", "limits.rate = 1\n");
    symlink(files.path("gone"), files.path("node.d/20-b.toml")).unwrap();
    assert_eq!(files.problems(), ["node.d/20-b.toml: is not there; check the path, or write the file"]);
    let files = Files::new("");
    files.write("node.d/10-a.toml", "");
    // Nobody writes to it: opening it would wait for ever.
    assert!(Command::new("mkfifo").arg(files.path("node.d/20-pipe.toml")).status().unwrap().success());
    assert_eq!(files.problems(), ["node.d/20-pipe.toml: is no regular file; give the path of a TOML file"]);
}

#[test]
fn problems_of_all_files_come_in_their_order() {
    let files = Files::new("[limits]\nrate = \"x\"\n");
    files.write("node.d/20-b.toml", "[limits]\nrat = 1\n");
    files.write("node.d/10-a.toml", "\u{feff}[limits]\nstall = 1\n");
    assert_eq!(
        files.problems(),
        [
            "node.toml:2:8: limits.rate = \"x\" is text; write a whole number from 0 to 10000000",
            "node.d/10-a.toml:2:9: limits.stall = 1 has no unit; write \"1s\", or another of ms, m, h, d, w",
            "node.d/20-b.toml:2:1: unknown key rat in [limits]; did you mean rate?",
        ]
    );
}
