//! On a terminal: a pager, colours, and nothing in a log that could drive it.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use common::{SMALLEST, TestStore, command, row};
use lastgasp_core::format::row::Row;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Runs the command line on a terminal of its own; gives what the terminal was sent.
fn on_terminal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave: OwnedFd = File::options().read(true).write(true).open(name).unwrap().into();
    let mut command = command(arguments);
    // Services that test changes say by `CI` that they show colours; so might whoever runs this.
    for name in ["CI", "CLICOLOR", "CLICOLOR_FORCE", "NO_COLOR"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::from(slave)).stderr(Stdio::piped());
    for (name, value) in variables {
        command.env(name, value);
    }
    let mut child = command.spawn().unwrap();
    drop(command); // our end of the terminal
    let reader = std::thread::spawn(move || {
        let (mut terminal, mut sent, mut chunk) = (File::from(master), Vec::new(), [0; 4096]);
        // When the last process has closed it, a terminal gives an error, not an end.
        while let Ok(n @ 1..) = terminal.read(&mut chunk) {
            sent.extend_from_slice(&chunk[..n]);
        }
        sent
    });
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(child.wait().unwrap().success(), "{arguments:?}: {errors}");
    String::from_utf8(reader.join().unwrap()).unwrap().replace("\r\n", "\n")
}

/// Title, colour, cursor, C1, bell, carriage return, delete, direction, bytes that are no text.
const HOSTILE: &[u8] = b"\x1b]0;owned\x07\x1b[31m\x1b[2J\xC2\x9b5n\r\x7f\x08\xE2\x80\xAE\xFF\xC2\x85end\ttab\nline two";

fn hostile() -> TestStore {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let stream = node.stream("evil\x1b[2Jstream\u{9b}");
        // What is no text as a whole is base64 in JSON.
        let text = &HOSTILE[..HOSTILE.iter().position(|byte| *byte == 0xFF).unwrap()];
        for body in [text, HOSTILE] {
            node.append(&[Row { severity: 17, ..row(stream, body) }], &[]).unwrap();
        }
        node.commit().unwrap();
        node.close().unwrap();
    });
    store
}

/// No byte that a terminal obeys, but for newlines, tabs and, where they are ours, colours.
fn assert_harmless(sent: &str, with_colours: bool) {
    let mut plain = sent.to_owned();
    for colour in ["\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[0m"].iter().filter(|_| with_colours) {
        plain = plain.replace(colour, "");
    }
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    let bad: Vec<char> = plain.chars().filter(|c| obeyed(*c) || ('\u{202a}'..='\u{202e}').contains(c)).collect();
    assert!(bad.is_empty(), "{bad:?} in {sent:?}");
}

#[test]
fn hostile_bodies_and_names_do_not_drive_a_terminal() {
    let store = hostile();
    let path = store.path.to_str().unwrap();
    for output in ["short", "short-iso", "cat", "json", "export"] {
        for more in [&[][..], &["-r"]] {
            let arguments = [&["tail", "--store", path, "--no-pager", "-o", output], more].concat();
            let sent = on_terminal(&arguments, &[("NO_COLOR", "1")]);
            assert_harmless(&sent, false);
            let whole = output == "json" || (sent.contains("end") && sent.contains("line two"));
            assert!(whole && sent.contains("owned"), "{output}: {sent:?}");
            assert_harmless(&on_terminal(&arguments, &[]), true);
        }
    }
    for command in ["status", "boots", "gaps"] {
        for output in ["text", "json"] {
            assert_harmless(&on_terminal(&[command, "--store", path, "-o", output], &[]), true);
        }
    }
    let failed = store.run("tail", &["-u", "none\x1b[2J"]);
    assert_harmless(&String::from_utf8(failed.stderr).unwrap(), false);
    assert_eq!(store.bytes("tail", &["-n", "1", "-o", "cat"]), [HOSTILE, b"\n"].concat(), "elsewhere byte for byte");
}

#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() {
    let store = TestStore::new(SMALLEST);
    store.boot(|node| {
        let app = node.stream("app");
        node.append(&[Row { severity: 17, ..row(app, b"broken") }], &[]).unwrap();
        node.commit().unwrap();
        node.close().unwrap();
    });
    let arguments = ["tail", "--store", store.path.to_str().unwrap(), "--no-pager", "--utc"];
    let sent = on_terminal(&arguments, &[]);
    let red = "\x1b[1m\x1b[31m";
    assert!(sent.contains(&format!("app{red} error:\x1b[0m {red}broken\x1b[0m\n")), "{sent:?}");
    assert!(sent.contains("\x1b[36m-- boot 1, Tue 2023-11-14 22:13:20 UTC; the store is new --\x1b[0m\n"), "{sent:?}");
    assert!(!on_terminal(&arguments, &[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(!on_terminal(&arguments, &[("TERM", "dumb")]).contains('\x1b'));
    assert!(!store.text("tail", &[]).contains('\x1b'));
}

#[test]
fn a_terminal_gets_a_pager_at_its_end() {
    let store = TestStore::new(4 << 20);
    let bodies: Vec<String> = (1..=1500).map(|n| format!("line {n}")).collect();
    store.boot(|node| {
        let app = node.stream("app");
        for body in &bodies {
            node.append(&[row(app, body.as_bytes())], &[]).unwrap();
        }
        node.commit().unwrap();
        node.close().unwrap();
    });
    let arguments = ["tail", "--store", store.path.to_str().unwrap(), "-o", "cat"];
    let pager = [("LASTGASP_PAGER", "echo \"[$LESS]\"; sed 's/^/P: /'"), ("PAGER", "false")];
    let sent = on_terminal(&arguments, &pager);
    let lines: Vec<&str> = sent.lines().collect();
    assert_eq!((lines[0], lines[1], lines.len()), ("[FRSXMK +G]", "P: line 501", 1001));
    let all = on_terminal(&[&arguments[..], &["--all"]].concat(), &pager);
    assert!(all.starts_with("[FRSXMK]\nP: line 1\n"), "{:?}", all.get(..60));
    let few = on_terminal(&[&arguments[..], &["-n"]].concat(), &pager);
    assert!(few.starts_with("[FRSXMK]\nP: line 1491\n"), "{few}");
    let plain = on_terminal(&[&arguments[..], &["--no-pager"]].concat(), &pager);
    assert!(plain.starts_with("line 1491\n"), "{:?}", plain.get(..60));
    let plain = on_terminal(&arguments, &[("LASTGASP_PAGER", "cat"), ("PAGER", "false")]);
    assert!(plain.starts_with("line "), "{:?}", plain.get(..60));
}

#[test]
fn a_pager_that_ends_early_is_no_error() {
    let store = TestStore::new(4 << 20);
    let body = vec![b'x'; 60_000];
    store.boot(|node| {
        let app = node.stream("app");
        for _ in 0..20 {
            node.append(&[row(app, &body)], &[]).unwrap();
            node.commit().unwrap();
        }
        node.close().unwrap();
    });
    let arguments = ["tail", "--store", store.path.to_str().unwrap(), "--all"];
    assert_eq!(on_terminal(&arguments, &[("LASTGASP_PAGER", "head -c 5; echo")]).lines().count(), 1);
}
