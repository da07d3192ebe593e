//! The typed configuration: what the parts of the node read.
//!
//! Invariants: [`Config::default`] is what an empty file, or none, means, and it is a working node; nothing in here
//! depends on the machine: where a path is `None`, the part that needs it knows its built-in one. What each value
//! means to people stands in the table of keys (`table.rs`), once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lastgasp_core::node::Class;

use super::pattern::{LineStart, PathPattern, Pattern};
use super::severities::Severities;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// Where the records are kept.
    pub store: Store,
    /// What is kept how long when the store is full.
    pub keep: Keep,
    /// How soon what becomes durable.
    pub classes: Classes,
    /// What one stream may take.
    pub limits: Limits,
    /// Where records come from.
    pub sources: Sources,
    /// Where readers connect.
    pub api: Api,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Store {
    /// File or block device; `None` is the built-in path of this user.
    pub path: Option<PathBuf>,
    /// Size when it is made; `None` is 64 MiB, or what is there.
    pub size_bytes: Option<u64>,
    /// A longer body is kept in parts; `None` is what the store can take.
    pub max_record_bytes: Option<u64>,
    /// What the node does when the medium takes no more writes.
    pub on_failure: OnFailure,
}

/// What the node does when the medium of its store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// It ends with an error, so that somebody looks.
    #[default]
    Exit,
    /// It says so, and keeps what comes in memory until it is stopped.
    Memory,
}

/// `[keep]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// What one stream may fill of the store when others need room, in per cent.
    pub stream_share_percent: u8,
    /// By name. The one called [`REST`] takes what no other takes; without it there is one with what others leave.
    pub classes: BTreeMap<String, KeepClass>,
}

/// Longest name of a stream.
pub const NAME_BYTES_MAX: usize = 255;
/// Name of the retention class of all that no other one takes.
pub const REST: &str = "rest";
/// Retention classes of a store, the rest included.
pub const KEEP_CLASSES_MAX: usize = 4;

/// `[keep.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeepClass {
    /// Streams whose records belong here; `None` is all.
    pub stream: Option<Pattern>,
    /// Severities that belong here; `None` is all.
    pub severity: Option<Severities>,
    /// Older records may go; `None` keeps them while there is room.
    pub age: Option<Duration>,
    /// What this class may fill when others need room, in per cent; `None` is what the others leave.
    pub share_percent: Option<u8>,
}

/// `[classes]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// For what no rule matches.
    pub default: Class,
    /// For errors and worse that no rule matches.
    pub errors: Class,
    /// `[classes.NAME]`; which one wins says [`Classes::class_of`].
    pub rules: BTreeMap<String, ClassRule>,
}

/// `[classes.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRule {
    /// Streams it is about; `None` is all.
    pub stream: Option<Pattern>,
    /// Severities it is about; `None` is all.
    pub severity: Option<Severities>,
    /// What triggers the commit of their records.
    pub class: Class,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Records a second that each stream may bring for long; 0 is no limit.
    pub rate: u32,
    /// Records that a stream may bring at once on top of that; 0 is ten seconds of the rate.
    pub burst: u32,
    /// Streams that are told apart; further ones share the stream `other`.
    pub streams: u16,
    /// So long a stalled medium holds back who sends; then records are dropped, and a gap says so.
    pub stall: Duration,
}

/// `[sources.*]`
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sources {
    /// The journal of systemd.
    pub journald: Journald,
    /// Followed files, by name.
    pub files: BTreeMap<String, Files>,
    /// Syslog over the network.
    pub syslog: Syslog,
    /// Records by HTTP.
    pub http: Http,
    /// Standard input.
    pub stdin: Stdin,
}

/// Whether a source runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Switch {
    /// Where it can; off with `--no-defaults`, and for built-in sources while something is piped in.
    #[default]
    Auto,
    /// Yes; a source that cannot run says why, in the status too. Without its socket the node does not start.
    On,
    /// No.
    Off,
}

/// Where to begin with what was there before the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At its beginning: all of it is taken in.
    Start,
    /// Where this boot begins (the journal only).
    Boot,
    /// At its end: only what comes from now on.
    End,
}

/// `[sources.journald]`
#[derive(Debug, Clone, PartialEq)]
pub struct Journald {
    /// Whether it is followed; `Auto`: where there is a journal.
    pub enabled: Switch,
    /// Kernel messages too.
    pub kernel: bool,
    /// Units to keep; empty is all.
    pub units: Vec<Pattern>,
    /// Units to leave out, also of those above.
    pub exclude: Vec<Pattern>,
    /// Where the first start begins.
    pub from: Begin,
    /// Directory of the journal; `None` is the machine's.
    pub directory: Option<PathBuf>,
}

/// `[sources.files.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Files {
    /// Whether these are followed.
    pub enabled: bool,
    /// Absolute path patterns of the files to follow; at least one.
    pub paths: Vec<PathPattern>,
    /// Files to leave out of these.
    pub exclude: Vec<PathPattern>,
    /// Name of their stream, with `{stem}` and `{dir}`; `None` is the name of the section. See [`Files::stream_of`].
    pub stream: Option<String>,
    /// A line that matches begins a record; others are joined to the one before. `None`: each line is a record.
    pub multiline_start: Option<LineStart>,
    /// So long a joined record waits for its next line.
    pub multiline_wait: Duration,
    /// Where a file that was there at the first start is begun.
    pub from: Begin,
    /// A longer line is kept in parts; `None` is 1 MiB, or what a record may hold if that is less.
    pub max_line_bytes: Option<u64>,
}

/// `[sources.syslog]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// Whether it listens; `Auto`: where the ports are free.
    pub enabled: Switch,
    /// Addresses to receive datagrams on.
    pub udp: Vec<SocketAddr>,
    /// Addresses to accept connections on.
    pub tcp: Vec<SocketAddr>,
}

/// `[sources.http]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Whether it listens; `Auto`: where the port is free.
    pub enabled: Switch,
    /// Addresses to accept connections on.
    pub listen: Vec<SocketAddr>,
    /// Names of this node that senders may use, besides its addresses, `localhost` and its host name.
    pub hosts: Vec<Pattern>,
    /// File with the token that a sender has to show.
    pub token_file: Option<PathBuf>,
    /// Certificates, PEM; with [`Http::tls_key`], or neither.
    pub tls_cert: Option<PathBuf>,
    /// Private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Listens beyond loopback without token or TLS.
    pub insecure: bool,
    /// A larger request is refused.
    pub max_request_bytes: u64,
}

/// `[sources.stdin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stdin {
    /// Whether it is read; `Auto`: if it is a pipe or a file.
    pub enabled: Switch,
    /// Name of the stream of its lines.
    pub stream: String,
    /// What triggers their commit; `None`: `[classes]` says, or `group` where acknowledgements are printed.
    pub class: Option<Class>,
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Whether readers can connect.
    pub enabled: Switch,
    /// Path of the socket; `None` is the built-in one of this user.
    pub socket: Option<PathBuf>,
    /// Group whose members may connect.
    pub group: String,
}

impl Default for Keep {
    fn default() -> Self {
        Self { stream_share_percent: 50, classes: BTreeMap::new() }
    }
}

impl Default for Classes {
    fn default() -> Self {
        Self { default: Class::Interval, errors: Class::Group, rules: BTreeMap::new() }
    }
}

impl Default for ClassRule {
    fn default() -> Self {
        Self { stream: None, severity: None, class: Class::Interval }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { rate: 0, burst: 0, streams: 256, stall: Duration::from_secs(5) }
    }
}

impl Limits {
    /// What a stream may bring at once: the burst, or ten seconds of the rate. 0 is no limit.
    #[must_use]
    pub fn burst_records(&self) -> u32 {
        if self.burst == 0 { self.rate.saturating_mul(10) } else { self.burst }
    }
}

impl Default for Journald {
    fn default() -> Self {
        Self {
            enabled: Switch::Auto,
            kernel: true,
            units: Vec::new(),
            exclude: Vec::new(),
            from: Begin::Boot,
            directory: None,
        }
    }
}

impl Journald {
    /// Whether the records of a unit are kept, as `nginx.service`.
    #[must_use]
    pub fn keeps_unit(&self, unit: &str) -> bool {
        let named = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(unit));
        (self.units.is_empty() || named(&self.units)) && !named(&self.exclude)
    }
}

impl Default for Files {
    fn default() -> Self {
        Self {
            enabled: true,
            paths: Vec::new(),
            exclude: Vec::new(),
            stream: None,
            multiline_start: None,
            multiline_wait: Duration::from_secs(1),
            from: Begin::Start,
            max_line_bytes: None,
        }
    }
}

impl Files {
    /// Whether a file of this path is followed.
    #[must_use]
    pub fn follows(&self, path: &Path) -> bool {
        let named = |patterns: &[PathPattern]| patterns.iter().any(|pattern| pattern.matches(path));
        named(&self.paths) && !named(&self.exclude)
    }

    /// The stream of a file: `{stem}` is its name without the last ending, `{dir}` the name of its directory. At most
    /// 255 bytes; what is no UTF-8 is replaced. `section` is the name this source has in the configuration.
    #[must_use]
    pub fn stream_of(&self, section: &str, path: &Path) -> String {
        let Some(template) = &self.stream else { return section.to_owned() };
        let part = |name: Option<&std::ffi::OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
        let directory = part(path.parent().and_then(Path::file_name));
        let mut name = template.replace("{dir}", &directory).replace("{stem}", &part(path.file_stem()));
        let fits = (0..=name.len().min(NAME_BYTES_MAX)).rev().find(|at| name.is_char_boundary(*at));
        name.truncate(fits.unwrap_or(0));
        name
    }
}

/// Where syslog is received: 514 needs root, and rsyslog may have it.
const SYSLOG_PORT: u16 = 5514;
/// Where HTTP is served.
const HTTP_PORT: u16 = 7311;

fn loopback(port: u16) -> Vec<SocketAddr> {
    vec![SocketAddr::from(([127, 0, 0, 1], port))]
}

impl Default for Syslog {
    fn default() -> Self {
        Self { enabled: Switch::Auto, udp: loopback(SYSLOG_PORT), tcp: loopback(SYSLOG_PORT) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            enabled: Switch::Auto,
            listen: loopback(HTTP_PORT),
            hosts: Vec::new(),
            token_file: None,
            tls_cert: None,
            tls_key: None,
            insecure: false,
            max_request_bytes: 1 << 20,
        }
    }
}

impl Default for Stdin {
    fn default() -> Self {
        Self { enabled: Switch::Auto, stream: "stdin".to_owned(), class: None }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { enabled: Switch::Auto, socket: None, group: "lastgasp".to_owned() }
    }
}
