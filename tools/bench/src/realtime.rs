//! Real-time priority: on a busy machine a commit otherwise waits for the neighbours' time slices, not for the medium.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow};

/// A modest priority: above all ordinary programs, below the kernel's own threads.
const PRIORITY: &str = "20";
/// `SCHED_FIFO` in the kernel's numbering.
const FIFO: &str = "1";
/// Where the policy stands in `/proc/self/stat`, counted from the state that follows the name (proc(5), field 41).
const POLICY_FIELD: usize = 38;

/// Goes on under `SCHED_FIFO`; starts this program anew by chrt(1) for that, before anything was made.
pub(crate) fn ensure() -> Result<()> {
    if is_fifo() {
        return Ok(());
    }
    let me = env::current_exe().context("the path of this program is not known")?;
    let error = Command::new("chrt").args(["--fifo", PRIORITY]).arg(me).args(env::args_os().skip(1)).exec();
    Err(anyhow!(error).context("--realtime needs chrt(1) of util-linux, and root"))
}

/// `true` if this process runs under `SCHED_FIFO`.
pub(crate) fn is_fifo() -> bool {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().nth(POLICY_FIELD) == Some(FIFO)
}
