//! `lastgaspd config` as a user runs it: what goes where, exit codes, and memory whatever the file.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Address space of the daemon in KiB, its code and libraries included.
const ADDRESS_SPACE_KIB: u32 = 64 << 10;

/// Runs the daemon with limited memory, and with nothing but these files.
fn lastgaspd(home: &Path, arguments: &[&str]) -> Output {
    let limited = format!("ulimit -v {ADDRESS_SPACE_KIB} && exec \"$0\" \"$@\"");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &limited, env!("CARGO_BIN_EXE_lastgaspd")]).args(arguments);
    command.env_clear().env("XDG_CONFIG_HOME", home).env("HOME", home).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A directory with a configuration for its user.
fn home(main: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("lastgasp")).unwrap();
    fs::write(home.path().join("lastgasp/lastgaspd.toml"), main).unwrap();
    home
}

#[test]
fn a_sound_configuration_is_named_and_the_exit_code_is_0() {
    let home = home("[limits]\nrate = 5\n");
    let drop_ins = home.path().join("lastgasp/lastgaspd.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("10-x.toml"), "[limits]\nstreams = 5\n").unwrap();
    let output = lastgaspd(home.path(), &["config", "--check"]);
    let files = format!("{0}/lastgaspd.toml, {0}/lastgaspd.d/10-x.toml", home.path().join("lastgasp").display());
    assert_eq!((text(&output.stdout), output.status.code()), (format!("sound: {files}\n").as_str(), Some(0)));
    assert!(output.stderr.is_empty());
}

#[test]
fn problems_go_to_standard_error_and_the_exit_code_is_2() {
    let home = home("[limits]\nrate = 5\nrte = 6\n");
    for arguments in [["config", "--check"], ["config", "--show"]] {
        let output = lastgaspd(home.path(), &arguments);
        let file = home.path().join("lastgasp/lastgaspd.toml");
        let expected =
            format!("{}:3:1: unknown key rte in [limits]; did you mean rate?\n1 problem found\n", file.display());
        assert_eq!((text(&output.stderr), output.status.code()), (expected.as_str(), Some(2)));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn another_file_is_checked_and_flags_are_shown() {
    let home = home("nonsense");
    let other = home.path().join("other.toml");
    fs::write(&other, "[store]\nsize = \"1G\"\n").unwrap();
    let output = lastgaspd(home.path(), &["config", "--check", other.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let arguments = ["--store", "x.lg", "--config", other.to_str().unwrap(), "config"];
    let output = lastgaspd(home.path(), &arguments);
    let shown = text(&output.stdout);
    assert!(shown.contains("path = \"x.lg\"                           # --store\n"), "{shown}");
    assert!(
        shown.contains(&format!("size = \"1G\"                             # {}:2:1\n", other.display())),
        "{shown}"
    );
}

#[test]
fn the_explanation_is_a_file_that_checks() {
    let home = tempfile::tempdir().unwrap();
    let output = lastgaspd(home.path(), &["config", "--explain"]);
    let file = home.path().join("explained.toml");
    fs::write(&file, &output.stdout).unwrap();
    assert_eq!(lastgaspd(home.path(), &["config", "--check", file.to_str().unwrap()]).status.code(), Some(0));
    assert_eq!(lastgaspd(home.path(), &["config", "--explain", "store.siz"]).status.code(), Some(2));
    assert_eq!(lastgaspd(home.path(), &["config", "--explain", "-o", "json"]).status.code(), Some(2));
    let json = lastgaspd(home.path(), &["config", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["store.size"]["origin"], "default");
    let nothing = lastgaspd(home.path(), &["config", "--check"]);
    assert_eq!((nothing.status.code(), text(&nothing.stdout).contains("what is built in holds")), (Some(0), true));
}

#[test]
fn no_file_takes_much_memory() {
    let home = tempfile::tempdir().unwrap();
    let most = 64 << 10;
    let numbered = |line: fn(usize) -> String| -> Vec<u8> { (0..most).map(line).collect::<String>().into_bytes() };
    let hostile: [Vec<u8>; 8] = [
        b"[".repeat(most),
        b"=\n".repeat(most / 2),
        b"a={".repeat(most / 3),
        b"[a]\n".repeat(most / 4),
        b"\"\\\n".repeat(most / 3),
        numbered(|n| format!("k{n}=1\n")),
        numbered(|n| format!("[keep.a{n}]\n")),
        [b"sources.syslog.udp=[".as_slice(), &b"5,".repeat(most / 2)].concat(),
    ];
    let file = home.path().join("hostile.toml");
    for mut bytes in hostile {
        bytes.truncate(most);
        fs::write(&file, &bytes).unwrap();
        let output = lastgaspd(home.path(), &["config", "--check", file.to_str().unwrap()]);
        let start = String::from_utf8_lossy(&bytes[..20]);
        assert_eq!(output.status.code(), Some(2), "{start}: {}", text(&output.stderr));
        assert!(output.stderr.len() < 16 << 10, "{start}");
    }
    File::create(&file).unwrap().set_len(100 << 20).unwrap();
    let output = lastgaspd(home.path(), &["config", "--check", file.to_str().unwrap()]);
    assert!(text(&output.stderr).contains("has more than 64 KiB"));
}
