//! Which sources a run has, by its configuration and by what it was started with.
//!
//! Invariants: what is asked for by name runs, or the node says why not; built-in sources run only where nothing else
//! was asked for: a node that something is piped into keeps just that.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use lastgasp_core::node::Class;
use rustix::fs::{FileType, fstat};

use crate::cli::Cli;
use crate::config::{Config, Switch};
use crate::say;
use crate::sources::stdin::{self, Lines};
use crate::supervisor::{Plan, Wanted};

/// What the node was started with.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// Standard input is a pipe, a socket or a file: something is piped in.
    piped: bool,
    /// Acknowledgements are printed.
    acks: bool,
    /// Only what is named runs.
    no_defaults: bool,
    /// Somebody watches in a terminal.
    terminal: bool,
}

impl Means {
    /// Looks.
    #[must_use]
    pub fn find(cli: &Cli, config: &Config) -> Self {
        use std::io::IsTerminal;
        let kind = fstat(io::stdin().as_fd()).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let piped = matches!(kind, Ok(FileType::Fifo | FileType::Socket | FileType::RegularFile));
        let piped = match config.sources.stdin.enabled {
            Switch::Auto => piped && !cli.no_defaults,
            Switch::On => true,
            Switch::Off => false,
        };
        Self { piped, acks: cli.print_acks, no_defaults: cli.no_defaults, terminal: io::stderr().is_terminal() }
    }

    /// Built-in sources run.
    fn has_built_in(self, stdin_is_empty: bool) -> bool {
        !self.no_defaults && (!self.piped || stdin_is_empty)
    }

    /// A person wants to know what to do next.
    #[must_use]
    pub fn is_greeting(self) -> bool {
        self.terminal && self.has_built_in(false)
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

/// The sources of a run.
#[must_use]
pub fn sources<E: Send + 'static>(means: Means) -> Plan<E> {
    Box::new(move |config, stdin_is_empty| {
        let mut wanted = Vec::new();
        if means.piped && !stdin_is_empty {
            wanted.push(of_stdin(config, means));
        }
        wanted
    })
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
