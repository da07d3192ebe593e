//! Which sources a run has, by its configuration and by what it was started with.
//!
//! Invariants: what is asked for by name runs, or the node says why not; built-in sources run only where nothing else
//! was asked for: a node that something is piped into keeps just that.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use lastgasp_core::node::Class;
use rustix::fs::{FileType, fstat};

use crate::cli::Cli;
use crate::config::{Config, Files, Switch};
use crate::say;
use crate::sources::status::Sources;
use crate::sources::stdin::{self, Lines};
use crate::sources::{Context, files, http, journald, kmsg, listen, syslog};
use crate::supervisor::{Plan, Wanted};
use crate::view::Handle;

/// What the node was started with.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// Standard input is a pipe, a socket or a file: something is piped in.
    piped: bool,
    /// Acknowledgements are printed.
    acks: bool,
    /// Only what is named runs.
    no_defaults: bool,
    /// Started by hand, not by systemd.
    by_hand: bool,
}

impl Means {
    /// Looks.
    #[must_use]
    pub fn find(cli: &Cli, config: &Config) -> Self {
        let kind = fstat(io::stdin().as_fd()).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let piped = matches!(kind, Ok(FileType::Fifo | FileType::Socket | FileType::RegularFile));
        let piped = match config.sources.stdin.enabled {
            Switch::Auto => piped && !cli.no_defaults,
            Switch::On => true,
            Switch::Off => false,
        };
        Self {
            piped,
            acks: cli.print_acks,
            no_defaults: cli.no_defaults,
            by_hand: std::env::var_os("INVOCATION_ID").is_none(),
        }
    }

    /// Built-in sources run.
    fn has_built_in(self, stdin_is_empty: bool) -> bool {
        !self.no_defaults && (!self.piped || stdin_is_empty)
    }

    /// A person wants to know what to do next.
    #[must_use]
    pub fn is_greeting(self) -> bool {
        self.by_hand && self.has_built_in(false)
    }

    /// The class of the lines of standard input.
    fn stdin_class(self, config: &Config) -> Option<Class> {
        config.sources.stdin.class.or(self.acks.then_some(Class::Group))
    }

    /// Every sender is told when its records are durable.
    #[must_use]
    pub fn all_awaited(self, config: &Config) -> bool {
        !self.has_built_in(false) && self.stdin_class(config).is_some_and(Class::is_awaited)
    }
}

/// The sources of a run. `handle` and `all` are for those that tell how the node is.
#[must_use]
pub fn sources<E: Send + 'static>(means: Means, handle: Handle<E>, all: Sources) -> Plan<E> {
    Box::new(move |config, stdin_is_empty| {
        let mut wanted = Vec::new();
        if means.piped && !stdin_is_empty {
            wanted.push(of_stdin(config, means));
        }
        let runs = |switch: Switch| match switch {
            Switch::Auto => means.has_built_in(stdin_is_empty),
            Switch::On => true,
            Switch::Off => false,
        };
        if runs(config.sources.journald.enabled) {
            wanted.extend(of_journald(config));
        }
        // Files are always asked for by name.
        wanted.extend(config.sources.files.iter().filter(|(_, files)| files.enabled).map(of_files));
        if runs(config.sources.syslog.enabled) {
            wanted.extend(of_syslog(config));
        }
        if runs(config.sources.http.enabled) && !config.sources.http.listen.is_empty() {
            wanted.push(of_http(config, handle.clone(), all.clone()));
        }
        wanted
    })
}

fn of_journald<E: Send + 'static>(config: &Config) -> Option<Wanted<E>> {
    let options = journald::Options::from(&config.sources.journald);
    if config.sources.journald.enabled == Switch::Auto && journald::unavailable(&options).is_some() {
        // No journal has the kernel's messages then.
        let kernel = config.sources.journald.kernel && kmsg::unavailable().is_none();
        return kernel.then(|| lasting("kmsg", &(), |context| kmsg::run(&context)));
    }
    Some(lasting("journald", &config.sources.journald, move |context| journald::run(&options, &context)))
}

fn of_files<E: Send + 'static>((section, files): (&String, &Files)) -> Wanted<E> {
    let options = files::Options { section: section.clone(), files: files.clone() };
    lasting(&format!("files.{section}"), files, move |context| files::run(&options, &context))
}

fn of_syslog<E: Send + 'static>(config: &Config) -> Vec<Wanted<E>> {
    let syslog = &config.sources.syslog;
    let (udp, tcp) = (syslog.udp.clone(), syslog.tcp.clone());
    let mut wanted = Vec::new();
    if !udp.is_empty() {
        wanted.push(lasting("syslog.udp", &udp.clone(), move |context| match syslog::udp::bind(&udp) {
            Ok(sockets) => syslog::udp::run(sockets, context),
            Err(error) => cannot_run(&context, &error),
        }));
    }
    if !tcp.is_empty() {
        wanted.push(lasting("syslog.tcp", &tcp.clone(), move |context| match listen::bind(&tcp) {
            Ok(listeners) => {
                let status = Arc::clone(&context.status);
                syslog::tcp::run(listeners, context).unwrap_or_else(|error| status.fails(error.to_string()));
            }
            Err(error) => cannot_run(&context, &error),
        }));
    }
    wanted
}

fn of_http<E: Send + 'static>(config: &Config, handle: Handle<E>, all: Sources) -> Wanted<E> {
    let (http, classes) = (config.sources.http.clone(), config.classes.clone());
    let settings = (config.sources.http.clone(), classes.clone());
    lasting("http", &settings, move |context| {
        let status = Arc::clone(&context.status);
        let listeners = match listen::bind(&http.listen) {
            Ok(listeners) => listeners,
            Err(error) => return cannot_run(&context, &error),
        };
        match http::options(&http, &classes) {
            Ok(options) => {
                let ended = http::run(listeners, options, context, handle, all);
                ended.unwrap_or_else(|error| status.fails(error.to_string()));
            }
            Err(error) => {
                say(format_args!("http does not run: {error:#}"));
                status.fails(format!("{error:#}"));
            }
        }
    })
}

/// A source that runs until it is stopped; it is started anew if `settings` change.
fn lasting<E>(name: &str, settings: &impl fmt::Debug, run: impl FnOnce(Context<E>) + Send + 'static) -> Wanted<E> {
    Wanted { name: name.to_owned(), settings: format!("{settings:?}"), ends: false, run: Box::new(run) }
}

fn cannot_run<E>(context: &Context<E>, error: &io::Error) {
    let name = context.status.report().name;
    say(format_args!("{name} does not run: {error}; free the address, or set another one in [sources]"));
    context.status.fails(error.to_string());
}

fn of_stdin<E: Send + 'static>(config: &Config, means: Means) -> Wanted<E> {
    let stream: Arc<str> = Arc::from(config.sources.stdin.stream.as_str());
    let class = means.stdin_class(config);
    Wanted {
        name: "stdin".to_owned(),
        settings: String::new(),
        ends: true,
        run: Box::new(move |context| {
            let lines = Lines { stream, class, record_bytes_max: context.record_bytes_max };
            if let stdin::Ended::Failed(error) = stdin::run(io::stdin(), &lines, &context) {
                say(format_args!("reading standard input failed ({error}); what was read is kept"));
            }
        }),
    }
}
