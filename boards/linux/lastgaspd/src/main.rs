//! The binary: parses the command line, runs the node or a command, and turns its end into an exit code.
//!
//! Exit codes: 0 an orderly end; 1 the node failed while it ran; 2 it could not start, or its configuration is wrong;
//! 130 and 143 when a second signal ended it at once.

use std::process::ExitCode;

use clap::Parser;
use lastgaspd::cli::{Cli, Command};
use lastgaspd::{config, run, say};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Config(args)) = &cli.command {
        return ExitCode::from(config::run(&cli, args));
    }
    match run::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(run::Failure::Start(error)) => {
            say(sentence(&error));
            ExitCode::from(2)
        }
        Err(run::Failure::Running(error)) => {
            say(sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each said once: some quote theirs already.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match () {
        () if said.is_empty() => cause,
        () if said.contains(&cause) => said,
        () => format!("{said}: {cause}"),
    })
}
