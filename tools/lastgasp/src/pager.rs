//! Where output goes: standard output, or a pager on a terminal.
//!
//! Invariants: a pager is only ever started on a terminal; its end is waited for, so that it has the terminal to
//! itself; a pager that is not there is no error.

use std::env;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Quit if all fits on a screen, colours as they are, long lines cut, no clearing, keep the cursor, quit on ctrl-c.
const LESS: &str = "FRSXMK";

/// Standard output or a pager.
pub(crate) enum Out {
    Stdout(BufWriter<StdoutLock<'static>>),
    Pager(Pager),
}

/// A pager that runs.
pub(crate) struct Pager {
    child: Child,
    /// None when all was handed over.
    input: Option<BufWriter<ChildStdin>>,
}

impl Out {
    /// Standard output as it is.
    pub(crate) fn stdout() -> Self {
        Self::Stdout(BufWriter::with_capacity(1 << 16, io::stdout().lock()))
    }

    /// A pager if standard output is a terminal and there is one; at its end if that is asked for.
    pub(crate) fn paged(at_end: bool) -> Self {
        if io::stdout().is_terminal()
            && let Some(pager) = start(at_end)
        {
            return Self::Pager(pager);
        }
        Self::stdout()
    }
}

fn start(at_end: bool) -> Option<Pager> {
    let named = ["LASTGASP_PAGER", "PAGER"].into_iter().find_map(|name| env::var(name).ok());
    if named.as_deref().is_some_and(|pager| ["", "cat"].contains(&pager.trim())) {
        return None;
    }
    let mut options = env::var("LASTGASP_LESS").unwrap_or_else(|_| LESS.to_owned());
    if at_end {
        options += " +G";
    }
    let asked = named.into_iter().map(|pager| ("sh", vec!["-c".to_owned(), pager]));
    let usual = ["less", "more"].map(|pager| (pager, Vec::new()));
    asked.chain(usual).find_map(|(program, arguments)| {
        let mut child = Command::new(program)
            .args(arguments)
            .env("LESS", &options)
            .env("LESSCHARSET", "utf-8")
            .stdin(Stdio::piped())
            .spawn()
            .ok()?;
        let input = child.stdin.take().map(|input| BufWriter::with_capacity(1 << 16, input));
        Some(Pager { child, input })
    })
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::Pager(Pager { input: Some(input), .. }) => input.write(bytes),
            Self::Pager(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::Pager(Pager { input: Some(input), .. }) => input.flush(),
            Self::Pager(_) => Ok(()),
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // What the pager no longer takes, nobody wants to see.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
