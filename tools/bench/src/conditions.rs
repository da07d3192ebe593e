//! The conditions of a run, to be printed with its results: without them numbers say nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use rustix::fs::{major, minor};
use serde::Serialize;

use crate::cli::Cli;
use crate::corpus::Corpus;
use crate::realtime;

/// What the results depend on.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    pub(crate) version: &'static str,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// Load average over the last minute, before the run.
    pub(crate) load: f64,
    pub(crate) scheduler: &'static str,
    /// Type, device and options of the file system measured on.
    pub(crate) file_system: String,
    pub(crate) data: String,
    pub(crate) mean_record_bytes: f64,
    pub(crate) store_mib: u32,
    /// This program was not optimised.
    pub(crate) debug_build: bool,
}

impl Conditions {
    pub(crate) fn gather(cli: &Cli, corpus: &Corpus) -> Result<Self> {
        let uname = rustix::system::uname();
        let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"));
        let model = model.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
        let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
            cpu: model.unwrap_or_else(|| text(uname.machine())),
            cores: thread::available_parallelism().map_or(1, Into::into),
            load: loadavg.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            scheduler: if realtime::is_fifo() { "SCHED_FIFO" } else { "default" },
            file_system: file_system(&cli.dir)?,
            data: corpus.source.clone(),
            mean_record_bytes: corpus.mean_bytes(),
            store_mib: cli.size_mib,
            debug_build: cfg!(debug_assertions),
        })
    }
}

/// The mount that `path` lies in, as `ext4 on /dev/sda1 (rw,relatime)`.
fn file_system(path: &Path) -> Result<String> {
    let device = fs::metadata(path).with_context(|| format!("{}: cannot be looked at", path.display()))?.dev();
    let wanted = format!("{}:{}", major(device), minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Ok(mounts.lines().find_map(|line| described(line, &wanted)).unwrap_or_else(|| format!("device {wanted}")))
}

/// A line of mountinfo (proc(5)) in words, if it is of this device.
fn described(line: &str, device: &str) -> Option<String> {
    let (mount, super_block) = line.split_once(" - ")?;
    mount.split(' ').nth(2).filter(|number| *number == device)?;
    let mut fields = super_block.split(' ');
    let (kind, source, options) = (fields.next()?, fields.next()?, fields.next()?);
    Some(format!("{kind} on {source} ({options})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_device() {
        let line = "36 35 98:0 /a /b rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(described(line, "98:0").unwrap(), "ext3 on /dev/root (rw,errors=continue)");
        assert_eq!(described(line, "98:1"), None);
    }
}
