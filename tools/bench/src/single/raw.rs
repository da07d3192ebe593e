//! The limit: plain writes at ascending offsets into a file that was filled before, so that a sync changes no metadata.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::Engine;
use crate::corpus::Record;

/// One step of filling.
const STEP_BYTES: usize = 1 << 20;

/// A file full of zeros, all of it on the medium.
#[derive(Debug)]
pub(crate) struct PreWritten {
    file: File,
    size_bytes: u64,
    at: u64,
}

impl PreWritten {
    /// Makes it.
    pub(crate) fn make(path: &Path, size_bytes: u64) -> Result<Self> {
        let making = || format!("{}: cannot be filled", path.display());
        let file = File::create_new(path).with_context(making)?;
        let zeros = vec![0; STEP_BYTES];
        let mut at = 0;
        while at < size_bytes {
            let step = usize::try_from(size_bytes - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            file.write_all_at(&zeros[..step], at).with_context(making)?;
            at += step as u64;
        }
        file.sync_all().with_context(making)?;
        Ok(Self { file, size_bytes, at: 0 })
    }

    /// Writes on behind what was written before and makes it durable; begins anew at the end of the file.
    pub(crate) fn write_durable(&mut self, bytes: &[u8]) -> Result<()> {
        if self.at + bytes.len() as u64 > self.size_bytes {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at).context("writing")?;
        self.at += bytes.len() as u64;
        self.file.sync_data().context("syncing")
    }
}

/// Lines in such a file.
#[derive(Debug)]
pub(crate) struct RawFile<'p> {
    file: &'p mut PreWritten,
    line: Vec<u8>,
}

impl<'p> RawFile<'p> {
    pub(crate) fn new(file: &'p mut PreWritten) -> Self {
        Self { file, line: Vec::new() }
    }
}

impl Engine for RawFile<'_> {
    fn append_durable(&mut self, record: &Record) -> Result<()> {
        self.line.clear();
        self.line.extend_from_slice(&record.body);
        self.line.push(b'\n');
        self.file.write_durable(&self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_ascend_and_begin_anew_at_the_end_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raw");
        let mut file = PreWritten::make(&path, 10).unwrap();
        for bytes in [b"abcd", b"efgh", b"ijkl"] {
            file.write_durable(bytes).unwrap();
        }
        assert_eq!(std::fs::read(path).unwrap(), b"ijklefgh\0\0");
    }
}
