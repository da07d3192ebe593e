//! The table of all keys: the one place that says what can be configured.
//!
//! Invariants: each key has a default or words for what holds without it; each example differs from the default and is
//! accepted; sections come in the order in which they are explained, keys in that of their section.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::{Apply, Field, Key, Section};
use super::types::Config;
use super::values::Kind;

/// Reads and sets the field of a single section.
macro_rules! one {
    ($($field:ident).+) => {
        (|c, _| Field::get(&c.$($field).+), |c, _, value| Field::set(&mut c.$($field).+, value))
    };
}

/// Reads and sets a field in the section of a name.
macro_rules! each {
    ($($map:ident).+, $field:ident) => {
        (
            |c, name| c.$($map).+.get(name).and_then(|section| Field::get(&section.$field)),
            |c, name, value| Field::set(&mut c.$($map).+.entry(name.to_owned()).or_default().$field, value),
        )
    };
}

type Access = (fn(&Config, &str) -> Option<super::values::Value>, fn(&mut Config, &str, super::values::Value));

/// Words of a key: what holds without it (or nothing), what it does, an example.
struct Words(&'static str, &'static str, &'static str);

const fn key(path: &'static str, kind: Kind, apply: Apply, words: Words, access: Access) -> Key {
    let (Words(unset, doc, example), (get, set)) = (words, access);
    Key { path, kind, unset, doc, example, apply, get, set }
}

const fn single(path: &'static str, doc: &'static str) -> Section {
    Section { path, doc, example: "", names: |_| vec![String::new()], make: |_, _| {} }
}

fn make<T: Default>(map: &mut BTreeMap<String, T>, name: &str) {
    map.entry(name.to_owned()).or_default();
}

fn names<T>(map: &BTreeMap<String, T>) -> Vec<String> {
    map.keys().cloned().collect()
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const YEAR_S: u64 = 365 * 86_400;

/// All sections, in the order in which they are explained.
pub(super) static SECTIONS: &[Section] = &[
    single("store", "Where the records are kept."),
    single(
        "keep",
        "What is kept when the store is full. The oldest records go first, and a gap says so. Up to three retention \
         classes [keep.NAME] have a share of the store and an age of their own; all that none of them takes belongs \
         to [keep.rest], which is always there. If several match, the one that says more wins: a full name of a \
         stream over a pattern, a longer pattern over a shorter one, any stream over none; then the narrower range \
         of severities.",
    ),
    Section {
        path: "keep.*",
        doc: "A retention class, for the records of these streams and severities.",
        example: "errors",
        names: |c| names(&c.keep.classes),
        make: |c, name| make(&mut c.keep.classes, name),
    },
    single(
        "classes",
        "How soon what becomes durable: \"each\" record at once, \"group\" within 5 ms, \"interval\" within 2 s, \
         \"ram\" within 30 s. Sooner costs more writes to the medium. A power cut without hold-up loses at most what \
         came in that time, and a gap says so. A commit takes everything pending along, so an error carries the \
         messages before it.",
    ),
    Section {
        path: "classes.*",
        doc: "A rule for the records of these streams and severities. If several match, the one that says more wins, \
              as under [keep].",
        example: "nginx",
        names: |c| names(&c.classes.rules),
        make: |c, name| make(&mut c.classes.rules, name),
    },
    single("limits", "What one stream, and a stalled medium, may do to the others. What is dropped is a gap."),
    single("sources.journald", "The journal of systemd: nearly all logs of a machine."),
    Section {
        path: "sources.files.*",
        doc: "Files that are followed, also when they are rotated. Each of the patterns may match many files.",
        example: "nginx",
        names: |c| names(&c.sources.files),
        make: |c, name| make(&mut c.sources.files, name),
    },
    single(
        "sources.syslog",
        "Syslog (RFC 5424 and RFC 3164) over the network. The sender's program name becomes the stream.",
    ),
    single(
        "sources.http",
        "Records by HTTP: POST /v1/logs takes JSON, one record a line, and answers when all are durable.",
    ),
    single("sources.stdin", "Lines of standard input, each a record."),
    single("api", "The socket at which `lastgasp tail` and others read while the node runs."),
];

/// All keys, in the order of their sections.
pub(super) static KEYS: &[Key] = &[
    key(
        "store.path",
        Kind::Path,
        Apply::Restart,
        Words(
            "/var/lib/lastgasp/store.lg for root, else $XDG_STATE_HOME/lastgasp/store.lg",
            "File or block device of the store. A file is made if it is not there yet.",
            "\"/data/logs.lg\"",
        ),
        one!(store.path),
    ),
    key(
        "store.size",
        Kind::Size { least: 512 << 10, most: 64 << 40 },
        Apply::Restart,
        Words(
            "\"64M\" for a store that is made, or the size that is there",
            "Size of the store. All of it is taken when it is made, and it never grows. A store that exists keeps its \
             size, and another one here is an error.",
            "\"1G\"",
        ),
        one!(store.size_bytes),
    ),
    key(
        "store.max_record",
        Kind::Size { least: 1 << 10, most: 1 << 30 },
        Apply::Restart,
        Words(
            "the largest record that the store can take, 3/4 of a segment (1.5 MiB in a store of 64 MiB)",
            "The largest record. What is longer is kept in parts, one record each. More than the store can take is as \
             much as it can take.",
            "\"256K\"",
        ),
        one!(store.max_record_bytes),
    ),
    key(
        "store.on_failure",
        Kind::OnFailure,
        Apply::Restart,
        Words(
            "",
            "What to do when the medium takes no more writes, as a card does at its end of life: \"exit\" with an \
             error, or go on in \"memory\": new records can be read until the node is stopped, and are then gone. \
             Sources that can be read again (the journal, files) are at the next start read from where the store ends.",
            "\"memory\"",
        ),
        one!(store.on_failure),
    ),
    key(
        "keep.stream_share",
        Kind::Share,
        Apply::Live,
        Words(
            "",
            "What one stream may fill of the store when others need room: a service that loops cannot drive out the \
             history of the others.",
            "\"25%\"",
        ),
        one!(keep.stream_share_percent),
    ),
    key(
        "keep.*.stream",
        Kind::Beginning,
        Apply::Live,
        Words("all streams", "Streams whose records belong to this class.", "\"nginx*\""),
        each!(keep.classes, stream),
    ),
    key(
        "keep.*.severity",
        Kind::Severities,
        Apply::Live,
        Words(
            "all severities",
            "Severities that belong to this class. A single one means it and everything worse. A record without \
             severity counts as info.",
            "\"error\"",
        ),
        each!(keep.classes, severity),
    ),
    key(
        "keep.*.age",
        Kind::Time { least: seconds(60), most: seconds(100 * YEAR_S) },
        Apply::Live,
        Words("no limit; records are kept while there is room", "Records that are older are dropped.", "\"90d\""),
        each!(keep.classes, age),
    ),
    key(
        "keep.*.share",
        Kind::Share,
        Apply::Live,
        Words(
            "what the other classes leave; several without a share have equal parts of that",
            "What this class may fill of the store when others need room.",
            "\"20%\"",
        ),
        each!(keep.classes, share_percent),
    ),
    key(
        "classes.default",
        Kind::Class,
        Apply::Live,
        Words("", "For every record that no rule names.", "\"ram\""),
        one!(classes.default),
    ),
    key(
        "classes.errors",
        Kind::Class,
        Apply::Live,
        Words("", "For errors and worse that no rule names.", "\"each\""),
        one!(classes.errors),
    ),
    key(
        "classes.*.stream",
        Kind::Pattern,
        Apply::Live,
        Words("all streams", "Streams this rule is about.", "\"nginx*\""),
        each!(classes.rules, stream),
    ),
    key(
        "classes.*.severity",
        Kind::Severities,
        Apply::Live,
        Words(
            "all severities",
            "Severities this rule is about. A single one means it and everything worse. A record without severity \
             counts as info.",
            "\"warn\"",
        ),
        each!(classes.rules, severity),
    ),
    key(
        "classes.*.class",
        Kind::Class,
        Apply::Live,
        Words("nothing: a rule has to say it", "How soon these records become durable.", "\"group\""),
        each!(classes.rules, class),
    ),
    key(
        "limits.rate",
        Kind::Count { least: 0, most: 10_000_000 },
        Apply::Live,
        Words(
            "",
            "Records a second that each stream may bring for long; what is above that is dropped. 0 is no limit.",
            "1000",
        ),
        one!(limits.rate),
    ),
    key(
        "limits.burst",
        Kind::Count { least: 0, most: 100_000_000 },
        Apply::Live,
        Words(
            "",
            "Records that a stream may bring at once before `rate` holds it. At least one second of the rate; 0 is \
             ten seconds of it.",
            "20000",
        ),
        one!(limits.burst),
    ),
    key(
        "limits.streams",
        Kind::Count { least: 1, most: 4096 },
        Apply::Restart,
        Words("", "Streams that are told apart. Records of further ones go to the stream `other`.", "64"),
        one!(limits.streams),
    ),
    key(
        "limits.stall",
        Kind::Time { least: Duration::from_millis(100), most: seconds(3600) },
        Apply::Live,
        Words(
            "",
            "So long a medium that does not answer holds back who sends. Then records are dropped, and a gap says so.",
            "\"10s\"",
        ),
        one!(limits.stall),
    ),
    key(
        "sources.journald.enabled",
        Kind::Switch,
        Apply::Reopen,
        Words("", "Whether it is followed; \"auto\": where there is a journal that can be read.", "false"),
        one!(sources.journald.enabled),
    ),
    key(
        "sources.journald.kernel",
        Kind::Bool,
        Apply::Reopen,
        Words("", "Whether the messages of the kernel are kept too.", "false"),
        one!(sources.journald.kernel),
    ),
    key(
        "sources.journald.units",
        Kind::Patterns,
        Apply::Reopen,
        Words("", "Units whose messages are kept; an empty list is all.", "[\"nginx.service\", \"ssh*\"]"),
        one!(sources.journald.units),
    ),
    key(
        "sources.journald.exclude",
        Kind::Patterns,
        Apply::Reopen,
        Words("", "Units that are left out, also of those above.", "[\"systemd-*\"]"),
        one!(sources.journald.exclude),
    ),
    key(
        "sources.journald.from",
        Kind::BeginOfJournal,
        Apply::Reopen,
        Words(
            "",
            "Where the very first start begins: at the \"start\" of the journal, of this \"boot\", or at its \"end\". \
             Later ones go on where the last one ended.",
            "\"start\"",
        ),
        one!(sources.journald.from),
    ),
    key(
        "sources.journald.directory",
        Kind::Path,
        Apply::Reopen,
        Words("the journal of this machine", "Directory of the journal files.", "\"/mnt/card/var/log/journal\""),
        one!(sources.journald.directory),
    ),
    key(
        "sources.files.*.enabled",
        Kind::Bool,
        Apply::Reopen,
        Words("", "Whether these are followed.", "false"),
        each!(sources.files, enabled),
    ),
    key(
        "sources.files.*.paths",
        Kind::PathPatterns,
        Apply::Reopen,
        Words(
            "nothing: at least one is needed",
            "Files to follow. * and ? stay within a directory, ** goes through all below. Files that come to match \
             later are followed from their start.",
            "[\"/var/log/nginx/*.log\"]",
        ),
        each!(sources.files, paths),
    ),
    key(
        "sources.files.*.exclude",
        Kind::PathPatterns,
        Apply::Reopen,
        Words("", "Files to leave out of these.", "[\"/var/log/nginx/debug*\"]"),
        each!(sources.files, exclude),
    ),
    key(
        "sources.files.*.stream",
        Kind::StreamOfFile,
        Apply::Reopen,
        Words(
            "the name of the section",
            "Name of their stream. {stem} stands for the name of the file without its last ending, {dir} for that of \
             its directory.",
            "\"nginx/{stem}\"",
        ),
        each!(sources.files, stream),
    ),
    key(
        "sources.files.*.multiline_start",
        Kind::Regex,
        Apply::Reopen,
        Words(
            "each line is a record",
            "A line that matches begins a record; lines that do not are joined to the one before. Anchor it with ^.",
            "'^[0-9]{4}-'",
        ),
        each!(sources.files, multiline_start),
    ),
    key(
        "sources.files.*.multiline_wait",
        Kind::Time { least: Duration::from_millis(10), most: seconds(60) },
        Apply::Reopen,
        Words("", "So long a joined record waits for its next line.", "\"2s\""),
        each!(sources.files, multiline_wait),
    ),
    key(
        "sources.files.*.from",
        Kind::BeginOfFile,
        Apply::Reopen,
        Words("", "Where the very first start begins a file that is there already.", "\"end\""),
        each!(sources.files, from),
    ),
    key(
        "sources.files.*.max_line",
        Kind::Size { least: 1 << 10, most: 1 << 30 },
        Apply::Reopen,
        Words(
            "\"1M\", or what a record may hold if that is less",
            "The longest line; longer ones are kept in parts.",
            "\"64K\"",
        ),
        each!(sources.files, max_line_bytes),
    ),
    key(
        "sources.syslog.enabled",
        Kind::Switch,
        Apply::Reopen,
        Words("", "Whether it listens; \"auto\": where the ports are free.", "false"),
        one!(sources.syslog.enabled),
    ),
    key(
        "sources.syslog.udp",
        Kind::Addresses,
        Apply::Reopen,
        Words(
            "",
            "Where datagrams are received; an empty list is nowhere. What comes faster than it can be taken is lost, \
             as the protocol has it, and counted.",
            "[\"0.0.0.0:514\"]",
        ),
        one!(sources.syslog.udp),
    ),
    key(
        "sources.syslog.tcp",
        Kind::Addresses,
        Apply::Reopen,
        Words("", "Where connections are accepted; an empty list is nowhere.", "[\"0.0.0.0:514\", \"[::]:514\"]"),
        one!(sources.syslog.tcp),
    ),
    key(
        "sources.http.enabled",
        Kind::Switch,
        Apply::Reopen,
        Words("", "Whether it listens; \"auto\": where the port is free.", "false"),
        one!(sources.http.enabled),
    ),
    key(
        "sources.http.listen",
        Kind::Addresses,
        Apply::Reopen,
        Words(
            "",
            "Where connections are accepted. Beyond loopback it needs `token_file`, `tls_cert` and `tls_key`, or \
             `insecure`.",
            "[\"127.0.0.1:8080\"]",
        ),
        one!(sources.http.listen),
    ),
    key(
        "sources.http.hosts",
        Kind::Patterns,
        Apply::Reopen,
        Words(
            "",
            "Names of this node that senders may use, besides its addresses, localhost and its host name. Without a \
             token others are refused, so that no web page can have a browser send here.",
            "[\"logs.example.org\"]",
        ),
        one!(sources.http.hosts),
    ),
    key(
        "sources.http.token_file",
        Kind::Path,
        Apply::Reopen,
        Words(
            "no token is asked for",
            "File whose first line is the token that senders show, as `Authorization: Bearer TOKEN`.",
            "\"/etc/lastgasp/token\"",
        ),
        one!(sources.http.token_file),
    ),
    key(
        "sources.http.tls_cert",
        Kind::Path,
        Apply::Reopen,
        Words("no TLS", "Certificates of this node, in PEM, its own first.", "\"/etc/lastgasp/cert.pem\""),
        one!(sources.http.tls_cert),
    ),
    key(
        "sources.http.tls_key",
        Kind::Path,
        Apply::Reopen,
        Words("no TLS", "The private key for it, in PEM.", "\"/etc/lastgasp/key.pem\""),
        one!(sources.http.tls_key),
    ),
    key(
        "sources.http.insecure",
        Kind::Bool,
        Apply::Reopen,
        Words(
            "",
            "Listens beyond loopback also without token or TLS: anyone who reaches the port can fill the store, or \
             read along.",
            "true",
        ),
        one!(sources.http.insecure),
    ),
    key(
        "sources.http.max_request",
        Kind::Size { least: 1 << 10, most: 64 << 20 },
        Apply::Reopen,
        Words("", "The largest request; larger ones are answered with 413.", "\"4M\""),
        one!(sources.http.max_request_bytes),
    ),
    key(
        "sources.stdin.enabled",
        Kind::Switch,
        Apply::Restart,
        Words("", "Whether it is read; \"auto\": if it is a pipe or a file.", "false"),
        one!(sources.stdin.enabled),
    ),
    key(
        "sources.stdin.stream",
        Kind::Stream,
        Apply::Restart,
        Words("", "Name of the stream of its lines.", "\"app\""),
        one!(sources.stdin.stream),
    ),
    key(
        "sources.stdin.class",
        Kind::Class,
        Apply::Restart,
        Words("\"group\" with --print-acks, else as [classes] says", "How soon its lines become durable.", "\"each\""),
        one!(sources.stdin.class),
    ),
    key(
        "api.enabled",
        Kind::Switch,
        Apply::Restart,
        Words("", "Whether readers can connect; \"auto\": where the socket can be made.", "false"),
        one!(api.enabled),
    ),
    key(
        "api.socket",
        Kind::Path,
        Apply::Restart,
        Words(
            "/run/lastgasp/lastgasp.sock for root, else $XDG_RUNTIME_DIR/lastgasp/lastgasp.sock",
            "Path of the socket.",
            "\"/run/lastgasp/node1.sock\"",
        ),
        one!(api.socket),
    ),
    key(
        "api.group",
        Kind::Group,
        Apply::Restart,
        Words("", "Group whose members may read. Without such a group, only the node's own user and root.", "\"adm\""),
        one!(api.group),
    ),
];
