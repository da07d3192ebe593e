//! What reached a block device, by the kernel's own counters of it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::{major, minor, syncfs};
use serde::Serialize;

/// The kernel counts in sectors of this size, whatever the device's own is.
const SECTOR_BYTES: u64 = 512;
/// Where sectors written and flush requests stand in `/sys/dev/block/*/stat` (kernel: Documentation/block/stat.rst).
const SECTORS_WRITTEN_FIELD: usize = 6;
const FLUSHES_FIELD: usize = 15;

/// What one commit cost the device.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct PerCommit {
    pub(crate) commits: u32,
    pub(crate) bytes: f64,
    pub(crate) flushes: f64,
}

/// Counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    written_bytes: u64,
    flushes: u64,
}

impl Counters {
    /// Of the device under the file system of `directory`, once everything the file system holds back is written.
    pub(crate) fn of_settled(directory: &File) -> Result<Self> {
        syncfs(directory).context("syncing the file system")?;
        let device = directory.metadata()?.dev();
        let path = PathBuf::from(format!("/sys/dev/block/{}:{}/stat", major(device), minor(device)));
        let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        Self::parse(&text)
            .with_context(|| format!("{}: no count of flushes; Linux 5.5 or later has it", path.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let written_bytes = fields.get(SECTORS_WRITTEN_FIELD)? * SECTOR_BYTES;
        Some(Self { written_bytes, flushes: *fields.get(FLUSHES_FIELD)? })
    }

    /// What came on top since `before`, spread over so many commits.
    pub(crate) fn since(self, before: Self, commits: u32) -> PerCommit {
        let each = |total: u64| total as f64 / f64::from(commits);
        PerCommit {
            commits,
            bytes: each(self.written_bytes - before.written_bytes),
            flushes: each(self.flushes - before.flushes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_kernels() {
        let text = " 1 2 3 4 5 6 80 8 9 10 11 12 13 14 15 16 17\n";
        let after = Counters::parse(text).unwrap();
        assert_eq!(after, Counters { written_bytes: 80 * 512, flushes: 16 });
        let each = after.since(Counters { written_bytes: 0, flushes: 6 }, 10);
        assert!((each.bytes - 4096.0).abs() < 1e-9 && (each.flushes - 1.0).abs() < 1e-9);
        assert_eq!(Counters::parse("1 2 3 4 5 6 7 8 9 10 11"), None, "an old kernel");
    }
}
