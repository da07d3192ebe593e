//! `lastgasp completions` and `lastgasp man`: made from the commands as they are.
//!
//! Invariant: every command has its page and its completions, for they are made from the same definition.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// Prints the completions of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp completions bash > /usr/share/bash-completion/completions/lastgasp
  lastgasp completions zsh > ~/.zfunc/_lastgasp
  lastgasp completions fish > ~/.config/fish/completions/lastgasp.fish

Exit codes: 0 done, 2 it could not be done.")]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    shell: Shell,
}

/// Prints the manual page, or writes one for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp man | man -l -
  lastgasp man /usr/local/share/man/man1

Exit codes: 0 done, 2 it could not be done.")]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this directory.
    #[arg(value_hint = clap::ValueHint::DirPath)]
    directory: Option<PathBuf>,
}

pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "lastgasp", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}

pub(crate) fn man(args: &ManArgs, mut command: Command) -> Result<()> {
    command = command.disable_help_subcommand(true);
    command.build();
    let Some(directory) = &args.directory else {
        return Ok(Man::new(command).render(&mut io::stdout().lock())?);
    };
    fs::create_dir_all(directory).with_context(|| format!("{}: cannot be made", directory.display()))?;
    pages(&command, directory)
}

fn pages(command: &Command, directory: &Path) -> Result<()> {
    let man = Man::new(command.clone());
    let path = directory.join(man.get_filename());
    let mut page = Vec::new();
    man.render(&mut page)?;
    fs::write(&path, page).with_context(|| format!("{}: cannot be written", path.display()))?;
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| pages(below, directory))
}
