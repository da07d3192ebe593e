//! Tests of whole configurations: files in a directory, loaded as the node loads them.

mod errors;
mod merging;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Loaded, Problem, Request};

/// A directory with a configuration file and its drop-ins.
struct Files(TempDir);

impl Files {
    fn new(main: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("node.toml", main);
        files
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn request(&self) -> Request {
        Request { file: Some(self.path("node.toml")), ..Request::default() }
    }

    fn load(&self) -> Result<Loaded, Vec<Problem>> {
        Loaded::load(&self.request())
    }

    /// Problems as they are printed, with the paths from this directory on.
    fn problems(&self) -> Vec<String> {
        let here = format!("{}/", Path::display(self.0.path()));
        let problems = self.load().expect_err("this configuration has problems");
        problems.iter().map(|problem| problem.to_string().replace(&here, "")).collect()
    }
}

fn loaded(text: &str) -> Loaded {
    Files::new(text).load().unwrap_or_else(|problems| panic!("{text}\n{}", super::report(&problems)))
}

/// A generator of numbers that needs no crate: splitmix64.
struct Seed(u64);

impl Seed {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
}
