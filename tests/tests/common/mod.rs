//! What several tests need: programs of the workspace, processes that end with the test, and a node in this process.
#![allow(dead_code, reason = "each test takes what it needs")]

pub(crate) mod node;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use cargo_metadata::Message;

/// Builds a program of the workspace once, as the tests were built, and returns where it is.
pub(crate) fn program(name: &'static str) -> PathBuf {
    static PROGRAMS: OnceLock<Mutex<Vec<(&'static str, PathBuf)>>> = OnceLock::new();
    let mut programs = PROGRAMS.get_or_init(Default::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, path)) = programs.iter().find(|(n, _)| *n == name) {
        return path.clone();
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--package", name, "--bin", name, "--message-format", "json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "building {name} failed");
    let mut paths = Message::parse_stream(built.stdout.as_slice()).filter_map(|message| match message.unwrap() {
        Message::CompilerArtifact(artifact) if artifact.target.name == name => artifact.executable,
        _ => None,
    });
    let path = paths.next().expect("cargo names the program it built").into_std_path_buf();
    programs.push((name, path.clone()));
    path
}

/// Ends a process that a test has started.
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
