//! Every command of the README is run: by this test, or word for word by `.ci/run`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("..")
}

/// The commands in the README's shell blocks, without comments.
fn commands() -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut commands = Vec::new();
    for block in readme.split("```sh\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let lines = block.lines().map(|line| line.split("  #").next().unwrap_or("").trim());
        let lines = lines.map(|line| line.split(" # ").next().unwrap_or("").trim());
        commands.extend(lines.filter(|line| !line.is_empty()).map(String::from));
    }
    commands
}

/// Builds the two programs and returns the folder they are in.
fn programs() -> PathBuf {
    let mut build = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    build.args(["build", "-p", "lastgaspd", "-p", "lastgasp", "--message-format=json"]).current_dir(root());
    let output = build.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the programs build");
    let text = String::from_utf8(output.stdout).unwrap();
    let path = text.split("\"executable\":\"").skip(1).filter_map(|rest| rest.split('"').next()).last().unwrap();
    Path::new(path).parent().unwrap().to_path_buf()
}

#[test]
fn every_command_of_the_readme_works() {
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::join_paths(
        std::iter::once(programs()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let path = path.unwrap();
    let mut run = 0;
    for command in commands() {
        if command.starts_with("cargo ") || command.starts_with(".ci/") {
            assert!(ci.contains(&command), "`{command}` is in the README, and .ci/run does not run it");
            continue;
        }
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &command]).current_dir(&folder).env("PATH", &path);
        let output = shell.stdin(Stdio::null()).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{command}` ended with {}:\n{err}", output.status);
        run += 1;
    }
    assert!(run >= 6, "only {run} commands found in the README");
}
