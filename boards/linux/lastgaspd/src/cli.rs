//! The command line.
//!
//! Invariants: without arguments it is a working node; with `--no-defaults` nothing happens that was not asked for;
//! contradictions are errors before anything is touched.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use lastgasp_core::node::Class;

use crate::config::{ConfigArgs, Flag, Request, Switch, Value, read_size};

/// Size of a store nobody gave a size.
pub const SIZE_DEFAULT_BYTES: u64 = 64 << 20;

const EXAMPLES: &str = "\
Examples:
  dmesg | lastgaspd                         keep the kernel's messages in the store of this user
  myapp 2>&1 | lastgaspd --stream myapp     keep what a program prints
  myapp | lastgaspd --store /data/logs.lg --size 1G --stdin --stream myapp --print-acks
                                            say `ack N` when everything up to record N survives a power cut
  lastgasp tail --store /data/logs.lg -n 20 read it, also while the node runs
  lastgaspd config --explain                every key of the configuration file, with its default

Exit codes: 0 orderly end, 1 failed while running, 2 could not start, 130/143 ended at once by a second signal.";

/// Keeps logs through power cuts: what it acknowledged is there afterwards, what it had to lose it names.
///
/// Without arguments it keeps this machine's logs, or what is piped into it, in a store of 64 MiB in the state
/// directory of the user.
#[derive(Debug, Clone, Parser)]
#[command(name = "lastgaspd", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Something else than running the node.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Configuration file; after it come the drop-ins beside it, as node.d/*.toml for node.toml. Flags win over both
    /// [default: $XDG_CONFIG_HOME/lastgasp/lastgaspd.toml, for root /etc/lastgasp/lastgaspd.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// File or block device of the store; made if it is not there yet
    /// [default: $XDG_STATE_HOME/lastgasp/store.lg, for root /var/lib/lastgasp/store.lg]
    #[arg(long, value_name = "PATH")]
    pub store: Option<PathBuf>,

    /// Size of the store when it is made, as 64M or 2G; one that exists has to be of this size
    /// [default: 64M, or what is there]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub size: Option<u64>,

    /// No built-in store path, sources and configuration file: only what the other flags name
    #[arg(long)]
    pub no_defaults: bool,

    /// Keep each line of standard input as one record
    #[arg(long)]
    pub stdin: bool,

    /// Name of the stream that the lines of standard input belong to [default: stdin]
    #[arg(long, value_name = "NAME", value_parser = parse_stream)]
    pub stream: Option<String>,

    /// Print `ack N` on standard output whenever everything up to record N has become durable
    #[arg(long)]
    pub print_acks: bool,

    /// What triggers a commit: `each` line, `group` within 5 ms, `interval` within 2 s, `ram` within 30 s
    /// [default: group with --print-acks, else as the configuration says: errors group, others interval]
    #[arg(long, value_name = "CLASS", value_enum)]
    pub class: Option<ClassName>,

    /// Run also where nothing is sure to survive a power cut: tmpfs, overlays, RAM disks
    #[arg(long)]
    pub allow_volatile: bool,
}

/// What else it does.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Check, show or explain the configuration
    Config(ConfigArgs),
}

/// A durability class as it is written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClassName {
    /// Every line at once.
    Each,
    /// Within 5 ms, together with what others send meanwhile.
    Group,
    /// Within 2 s.
    Interval,
    /// Within 30 s.
    Ram,
}

impl From<ClassName> for Class {
    fn from(name: ClassName) -> Self {
        match name {
            ClassName::Each => Self::Each,
            ClassName::Group => Self::Group,
            ClassName::Interval => Self::Interval,
            ClassName::Ram => Self::Ram,
        }
    }
}

impl Cli {
    /// The configuration to load: its file, and what the flags say.
    #[must_use]
    pub fn request(&self) -> Request {
        let of = |flag, key, value: Option<Value>| value.map(|value| Flag { flag, key, value });
        let flags = [
            of("--store", "store.path", self.store.clone().map(Value::Path)),
            of("--size", "store.size", self.size.map(Value::Number)),
            of("--stdin", "sources.stdin.enabled", self.stdin.then_some(Value::Switch(Switch::On))),
            of("--stream", "sources.stdin.stream", self.stream.clone().map(Value::Text)),
            of("--class", "sources.stdin.class", self.class.map(|class| Value::Class(class.into()))),
        ];
        let flags = flags.into_iter().flatten().collect();
        Request { file: self.config.clone(), no_defaults: self.no_defaults, flags }
    }

    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// Which flags, and what to do.
    pub fn check(&self) -> Result<()> {
        if self.config.is_some() {
            // What is missing may stand in there.
            return Ok(());
        }
        if self.no_defaults && self.store.is_none() {
            bail!("--no-defaults leaves out the built-in store path: name one with --store PATH");
        }
        if self.no_defaults && !self.stdin {
            bail!("--no-defaults leaves out the built-in sources: name at least one, as with --stdin");
        }
        Ok(())
    }
}

/// Reads `64M`, `64MiB`, `65536`: a size as the configuration has it, or just bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let bytes = text.trim().parse().or_else(|_| read_size(text)).map_err(|why| format!("this {why}"))?;
    if bytes == 0 { Err("a store needs room: the least is 512K".to_owned()) } else { Ok(bytes) }
}

fn parse_stream(name: &str) -> Result<String, String> {
    match name.len() {
        0 => Err("a stream needs a name".to_owned()),
        1..=255 => Ok(name.to_owned()),
        n => Err(format!("{n} bytes are too long for a name: the most is 255")),
    }
}

/// A number of bytes for people.
#[must_use]
pub fn bytes_for_people(bytes: u64) -> String {
    for (shift, unit) in [(40u32, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return match tenths % 10 {
                0 => format!("{} {unit}", tenths / 10),
                tenth => format!("{}.{tenth} {unit}", tenths / 10),
            };
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("64M", 64 << 20), ("2g", 2 << 30), ("512KiB", 512 << 10), ("65536", 65_536)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for bad in ["", "M", "64X", "1.5G", "-1", "0", "99999999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!((bytes_for_people(64 << 20), bytes_for_people(1536)), ("64 MiB".into(), "1.5 KiB".into()));
    }

    #[test]
    fn the_fixed_interface_parses() {
        let args = "lastgaspd --store /s --size 64M --no-defaults --stdin --stream app --print-acks";
        let cli = Cli::try_parse_from(args.split(' ')).unwrap();
        cli.check().unwrap();
        assert_eq!((cli.size, cli.class, cli.print_acks), (Some(64 << 20), None, true));
        let cli = Cli::try_parse_from(["lastgaspd"]).unwrap();
        cli.check().unwrap();
        assert_eq!((cli.store, cli.stdin), (None, false));
    }

    #[test]
    fn without_defaults_everything_has_to_be_named() {
        for args in ["lastgaspd --no-defaults --stdin", "lastgaspd --no-defaults --store /s"] {
            assert!(Cli::try_parse_from(args.split(' ')).unwrap().check().is_err(), "{args}");
        }
    }
}
