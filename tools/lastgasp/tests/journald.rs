//! Taking the journal over: only where all of it is kept, only where the setup is known, and only by one file of ours.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Node, SMALLEST, TestStore, failure, lastgasp, row};
use tempfile::TempDir;

const DROPIN: &str = "etc/systemd/journald.conf.d/60-lastgasp.conf";
const MACHINE: &str = "0123456789abcdef0123456789abcdef";

/// A system with journald and nothing set.
fn system() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for directory in ["etc/systemd", "usr/lib/systemd/journald.conf.d", "var/log/journal", "run/systemd"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    fs::write(root.path().join("usr/lib/systemd/systemd-journald"), "").unwrap();
    fs::write(root.path().join("etc/machine-id"), format!("{MACHINE}\n")).unwrap();
    root
}

fn write(root: &TempDir, path: &str, text: &str) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn journald(root: &TempDir, store: &TestStore, arguments: &[&str]) -> Output {
    let at = ["--root", root.path().to_str().unwrap(), "--store", store.path.to_str().unwrap()];
    lastgasp(&[&["journald"], arguments, &at].concat())
}

#[track_caller]
fn done(out: &Output) -> String {
    assert!(out.status.success(), "{}", failure(out).1);
    String::from_utf8(out.stdout.clone()).unwrap()
}

#[track_caller]
fn refused(out: &Output, words: &str) {
    let (code, text) = failure(out);
    assert_eq!(code, Some(2), "{}", String::from_utf8_lossy(&out.stdout));
    assert!(text.contains(words), "{text}");
}

/// All files below, with what they hold.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        match entry.metadata().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push((entry.path(), fs::read(entry.path()).unwrap_or_default())),
        }
    }
    found.sort();
    found
}

/// Runs while a node has the store open, with this cursor of the journal kept.
fn beside_a_node<T>(store: &TestStore, cursor: Option<&str>, run: impl FnOnce(&mut Node<'_>) -> T) -> T {
    store.boot(|node| {
        let stream = node.stream("journal");
        let cursor = cursor.map(|cursor| (&b"journald"[..], cursor.as_bytes()));
        node.append(&[row(stream, b"x")], cursor.as_slice()).unwrap();
        node.commit().unwrap();
        run(node)
    })
}

#[test]
fn takeover_writes_one_file_and_release_removes_it() {
    let (root, store) = (system(), TestStore::new(SMALLEST));
    write(&root, "etc/systemd/journald.conf", "[Journal]\n#Storage=auto\n");
    let before = files(root.path());
    beside_a_node(&store, None, |_| {
        let text = done(&journald(&root, &store, &["takeover", "--dry-run"]));
        assert!(text.contains("would write") && text.contains("    Storage=volatile"), "{text}");
        assert_eq!(files(root.path()), before, "nothing was changed");
        let text = done(&journald(&root, &store, &["takeover"]));
        assert!(text.contains("kept: ") && text.contains("lost at a power cut: "), "{text}");
        assert!(text.contains("systemd does not run here"), "{text}");
        let dropin = fs::read_to_string(root.path().join(DROPIN)).unwrap();
        assert!(dropin.ends_with("[Journal]\nStorage=volatile\n"), "{dropin}");
        let after = files(root.path());
        assert_eq!(after.len(), before.len() + 1);
        assert!(done(&journald(&root, &store, &["takeover"])).contains("nothing to do"));
        assert_eq!(files(root.path()), after, "twice is once");
        let status = done(&journald(&root, &store, &["status", "-o", "json"]));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!((&status["storage"], &status["taken_over"]), (&"volatile".into(), &true.into()));
        assert_eq!((&status["node_runs"], &status["set_by"]), (&true.into(), &format!("/{DROPIN}").into()));
    });
    let text = done(&journald(&root, &store, &["release", "--dry-run"]));
    assert!(text.contains("would remove") && root.path().join(DROPIN).exists(), "{text}");
    let text = done(&journald(&root, &store, &["release"]));
    assert!(text.contains("on the medium again") && text.contains("Storage=auto"), "{text}");
    assert_eq!(files(root.path()), before, "all is as it was");
    assert!(!root.path().join("etc/systemd/journald.conf.d").exists());
    assert!(done(&journald(&root, &store, &["release"])).contains("nothing to undo"));
}

#[test]
fn a_release_leaves_the_files_of_others_alone() {
    let (root, store) = (system(), TestStore::new(SMALLEST));
    write(&root, "etc/systemd/journald.conf.d/10-mine.conf", "[Journal]\nStorage=persistent\n");
    let before = files(root.path());
    beside_a_node(&store, None, |_| done(&journald(&root, &store, &["takeover"])));
    assert!(done(&journald(&root, &store, &["release"])).contains("Storage=persistent"));
    assert_eq!(files(root.path()), before);
    write(&root, DROPIN, "[Journal]\nStorage=none\n");
    for action in ["takeover", "release"] {
        refused(&journald(&root, &store, &[action]), "60-lastgasp.conf: is not what lastgasp wrote");
    }
    assert_eq!(fs::read_to_string(root.path().join(DROPIN)).unwrap(), "[Journal]\nStorage=none\n");
}

#[test]
fn without_a_node_that_runs_nothing_is_taken_over() {
    let (root, store) = (system(), TestStore::new(SMALLEST));
    store.boot_with("journal", &[b"x"]);
    refused(&journald(&root, &store, &["takeover"]), "no node is running on this store");
    assert!(!root.path().join(DROPIN).exists());
    let status = done(&journald(&root, &store, &["status"]));
    assert!(status.contains("storage     auto (nothing sets it)"), "{status}");
    assert!(status.contains("taken over  no") && status.contains("node        does not run"), "{status}");
}

#[test]
fn unfamiliar_setups_are_refused_with_words() {
    let store = TestStore::new(SMALLEST);
    let storage = |value: &str| format!("[Journal]\nStorage={value}\n");
    let later = "etc/systemd/journald.conf.d/90-mine.conf";
    let vendor = "usr/lib/systemd/journald.conf.d/70-vendor.conf";
    for (path, text, words) in [
        (later, storage("persistent"), "/etc/systemd/journald.conf.d/90-mine.conf: sets Storage=persistent"),
        (vendor, storage("auto"), "/usr/lib/systemd/journald.conf.d/70-vendor.conf: sets Storage=auto"),
        ("etc/systemd/journald.conf", storage("none"), "journald keeps nothing"),
        ("etc/systemd/journald@apps.conf", storage("auto"), "journal namespaces are in use (apps)"),
        ("var/log/journal/0123456789abcdef0123456789abcdef.db/x", String::new(), "namespaces are in use (db)"),
    ] {
        let root = system();
        write(&root, path, &text);
        let before = files(root.path());
        beside_a_node(&store, None, |_| refused(&journald(&root, &store, &["takeover"]), words));
        assert_eq!(files(root.path()), before);
        let status = done(&journald(&root, &store, &["status"]));
        assert!(status.contains("takeover    would be refused: "), "{status}");
    }
    let root = system();
    fs::remove_file(root.path().join("usr/lib/systemd/systemd-journald")).unwrap();
    for action in ["takeover", "release", "status"] {
        refused(&journald(&root, &store, &[action]), "there is no systemd-journald here");
    }
}

#[test]
fn a_journal_that_is_in_ram_already_is_left_as_it_is() {
    let (root, store) = (system(), TestStore::new(SMALLEST));
    let vendor = "usr/lib/systemd/journald.conf.d/40-rpi-volatile-storage.conf";
    write(&root, vendor, "[Journal]\nStorage=volatile\n");
    let text = done(&journald(&root, &store, &["takeover"]));
    assert!(text.contains(vendor) && text.contains("nothing to do"), "{text}");
    assert!(!root.path().join(DROPIN).exists());
    // Masked by the administrator, it counts for nothing.
    fs::create_dir_all(root.path().join("etc/systemd/journald.conf.d")).unwrap();
    symlink("/dev/null", root.path().join("etc/systemd/journald.conf.d/40-rpi-volatile-storage.conf")).unwrap();
    beside_a_node(&store, None, |_| done(&journald(&root, &store, &["takeover"])));
    assert!(root.path().join(DROPIN).exists());
}

/// Puts so many entries into the system's journal; gives the cursors, oldest first. None without the tools for it.
fn fill_journal(root: &TempDir, entries: u32) -> Option<Vec<String>> {
    let places = ["/lib/systemd/systemd-journal-remote", "/usr/lib/systemd/systemd-journal-remote"];
    let remote = places.into_iter().find(|path| Path::new(path).exists())?;
    let directory = root.path().join("var/log/journal").join(MACHINE);
    fs::create_dir_all(&directory).unwrap();
    let mut text = String::new();
    for n in 1..=entries {
        let time = 1_700_000_000_000_000_u64 + u64::from(n);
        text += &format!(
            "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={n}\n_BOOT_ID={MACHINE}\nMESSAGE=entry {n}\n\n"
        );
    }
    let export = root.path().join("export");
    fs::write(&export, text).unwrap();
    let made = Command::new(remote).arg("-o").arg(directory.join("system.journal")).arg(&export).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::remove_file(export).unwrap();
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["--quiet", "-o", "export", "--root"]).arg(root.path());
    let text = String::from_utf8_lossy(&journalctl.output().unwrap().stdout).into_owned();
    let cursors: Vec<String> = text.lines().filter_map(|l| l.strip_prefix("__CURSOR=")).map(str::to_owned).collect();
    assert_eq!(cursors.len(), usize::try_from(entries).unwrap());
    Some(cursors)
}

#[test]
fn takeover_waits_until_the_node_has_the_whole_journal() {
    let (root, store) = (system(), TestStore::new(SMALLEST));
    let Some(cursors) = fill_journal(&root, 5) else {
        println!("skipped: there is no systemd-journal-remote here");
        return;
    };
    beside_a_node(&store, Some(&cursors[2]), |node| {
        let status = done(&journald(&root, &store, &["status", "-o", "json"]));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["node_is_up_to_date"], false);
        assert_eq!(
            (&status["node_cursor"], &status["journal_cursor"]),
            (&cursors[2].clone().into(), &cursors[4].clone().into())
        );
        let root_path = root.path().to_str().unwrap().to_owned();
        let store_path = store.path.to_str().unwrap().to_owned();
        let takeover = std::thread::spawn(move || {
            lastgasp(&["journald", "takeover", "--root", &root_path, "--store", &store_path])
        });
        let stream = node.stream("journal");
        for cursor in &cursors[3..] {
            assert!(!root.path().join(DROPIN).exists(), "not before all of it is kept");
            node.append(&[row(stream, b"x")], &[(b"journald", cursor.as_bytes())]).unwrap();
            node.commit().unwrap();
        }
        let text = done(&takeover.join().unwrap());
        assert!(text.contains("left as it is: ") && text.contains("var/log/journal"), "{text}");
        assert!(root.path().join(DROPIN).exists());
    });
}

#[test]
fn a_place_where_a_change_would_not_last_is_refused() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root may mount");
        return;
    }
    let (root, store) = (system(), TestStore::new(SMALLEST));
    let at = root.path().to_str().unwrap();
    let read_only = format!("mount --bind {at}/etc {at}/etc && mount -o remount,ro,bind {at}/etc");
    let overlay = format!(
        "mount -t tmpfs none {at}/run && mkdir {at}/run/upper {at}/run/work && \
         mount -t overlay overlay -o lowerdir={at}/etc,upperdir={at}/run/upper,workdir={at}/run/work {at}/etc"
    );
    for (mount, words) in [(read_only, "is mounted read-only"), (overlay, "lies on an overlay")] {
        beside_a_node(&store, None, |_| {
            let binary = env!("CARGO_BIN_EXE_lastgasp");
            let store = store.path.display();
            let script = format!("{mount} || exit 77; {binary} journald takeover --root {at} --store {store}");
            let out = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
            if out.status.code() == Some(77) {
                println!("skipped: this mount is not possible here: {}", failure(&out).1);
                return;
            }
            refused(&out, words);
        });
    }
    assert!(!root.path().join(DROPIN).exists());
}
