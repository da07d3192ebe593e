//! `lastgaspd config`: checks, shows and explains.
//!
//! Invariants: it opens no store and no port; what was asked for goes to standard output, what is wrong to standard
//! error; the exit code is 0, or 2 if something is wrong.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::explain::{explain, explain_key};
use super::load::{Loaded, default_file};
use super::problem::report;
use crate::cli::Cli;
use crate::say;

/// What is wrong, as an exit code.
const WRONG: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  lastgaspd config --check                  the file of this node and its drop-ins
  lastgaspd config --check ./new.toml       another one, before it goes there
  lastgaspd config --show                   what holds, and which file and line says so
  lastgaspd --size 1G config --show         the same with flags, which stand before `config`
  lastgaspd config --explain > new.toml     every key with its default, as a file
  lastgaspd config --explain keep           a section; also a key, as store.size

Exit codes: 0 all is well, 2 something is wrong.";

/// Checks, shows and explains the configuration; without a flag it shows what holds.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "action", multiple = false)]
pub struct ConfigArgs {
    /// Print what is wrong with the configuration, or with FILE and the drop-ins beside it
    #[arg(long, value_name = "FILE", num_args = 0..=1, group = "action")]
    pub check: Option<Option<PathBuf>>,

    /// Print the configuration that holds, flags included, with where each value came from
    #[arg(long, group = "action")]
    pub show: bool,

    /// Print every key with its default and what it does, or those of KEY, as a file that changes nothing
    #[arg(long, value_name = "KEY", num_args = 0..=1, group = "action")]
    pub explain: Option<Option<String>>,

    /// How --show prints
    #[arg(short, long, value_enum, default_value = "toml", value_name = "FORMAT")]
    #[arg(conflicts_with_all = ["check", "explain"])]
    pub output: Format,
}

/// How a configuration is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// As a configuration file.
    Toml,
    /// As an object.
    Json,
}

/// Runs the command; the exit code.
#[must_use]
pub fn run(cli: &Cli, args: &ConfigArgs) -> u8 {
    match output(cli, args) {
        Ok(text) => {
            // Nobody reading on is no failure of ours.
            let _ = io::stdout().write_all(text.as_bytes());
            0
        }
        Err(text) => {
            let _ = io::stderr().write_all(text.as_bytes());
            WRONG
        }
    }
}

/// What goes to standard output, or to standard error.
fn output(cli: &Cli, args: &ConfigArgs) -> Result<String, String> {
    if let Some(asked) = &args.explain {
        return match asked {
            Some(key) => explain_key(key).map_err(|what| format!("{what}\n")),
            None => Ok(explain()),
        };
    }
    let mut request = cli.request();
    if let Some(Some(file)) = &args.check {
        request.file = Some(file.clone());
    }
    let loaded = Loaded::load(&request).map_err(|problems| {
        let count = problems.len();
        format!("{}\n{count} problem{} found\n", report(&problems), if count == 1 { "" } else { "s" })
    })?;
    if args.check.is_some() {
        return Ok(sound(&loaded));
    }
    if loaded.files.is_empty() {
        say(format_args!("{}: what is built in holds", nothing_read()));
    }
    Ok(match args.output {
        Format::Toml => loaded.show(),
        Format::Json => loaded.show_json(),
    })
}

fn sound(loaded: &Loaded) -> String {
    if loaded.files.is_empty() {
        return format!("{}: what is built in holds, and is sound\n", nothing_read());
    }
    let files: Vec<String> = loaded.files.iter().map(|file| file.display().to_string()).collect();
    format!("sound: {}\n", files.join(", "))
}

fn nothing_read() -> String {
    match default_file() {
        Some(file) => format!("no configuration file ({} is not there)", file.display()),
        None => "no configuration file".to_owned(),
    }
}
