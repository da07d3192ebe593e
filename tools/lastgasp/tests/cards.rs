//! Cards and their images: the store is found on them, or the way to it is told.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, symlink};

use common::{SMALLEST, TestStore, failure, file, lastgasp, stdout};

const START: u64 = 1 << 20;

/// An MBR with a FAT partition and one at 1 MiB.
fn partitioned(content: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; usize::try_from(START).unwrap()];
    for (at, (kind, start, sectors)) in [(0x0C_u8, 512_u32, 1024_u32), (0x83, 2048, 1024)].into_iter().enumerate() {
        let entry = &mut disk[446 + 16 * at..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk[512 * 512 + 54..][..5].copy_from_slice(b"FAT16");
    disk.extend_from_slice(content);
    disk
}

fn sample() -> TestStore {
    let store = TestStore::new(SMALLEST);
    store.boot_with("app", &[b"on the card"]);
    store
}

#[test]
fn a_store_on_a_partition_of_an_image_is_found() {
    let store = sample();
    let image = file(store.dir.path(), "card.img", &partitioned(&fs::read(&store.path).unwrap()));
    let image = image.to_str().unwrap();
    let before = fs::read(image).unwrap();
    assert_eq!(stdout(&["tail", "--store", image, "-o", "cat"]), "on the card\n");
    assert!(stdout(&["check", "--store", image]).contains("sound: records 1 to 1"));
    let status: serde_json::Value = serde_json::from_str(&stdout(&["status", "--store", image, "-o", "json"])).unwrap();
    assert_eq!((&status["records"]["count"], &status["missing_bytes"]), (&1.into(), &0.into()));
    assert_eq!(fs::read(image).unwrap(), before, "nothing was written");
}

#[test]
fn an_image_that_has_to_be_mounted_or_unpacked_says_how() {
    let dir = tempfile::tempdir().unwrap();
    let mut ext4 = vec![0; 1 << 19];
    ext4[1080..1082].copy_from_slice(&[0x53, 0xEF]);
    let mut other = vec![0; 1 << 19];
    other[0] = 1;
    for (name, bytes, words) in [
        ("card.img", partitioned(&ext4), "partition 2 holds a file system (ext4), not a store"),
        ("card.img", partitioned(&ext4), "mount -o ro,noload,loop,offset=1048576"),
        ("card.img", partitioned(&ext4), "lastgasp tail --root /mnt"),
        ("root.img", ext4.clone(), "mount -o ro,noload,loop "),
        ("card.img.xz", b"\xFD7zXZ\0rest".to_vec(), "is packed with xz; unpack it first: xz -dk "),
        ("odd.img", partitioned(&other), "partition 1 holds a file system (vfat)"),
        ("other", b"something else".to_vec(), "something else than a lastgasp store"),
    ] {
        let path = file(dir.path(), name, &bytes);
        let (code, text) = failure(&lastgasp(&["tail", "--store", path.to_str().unwrap()]));
        assert_eq!(code, Some(2), "{name}");
        assert!(text.contains(words) && text.contains(path.to_str().unwrap()), "{name}: {text}");
    }
}

#[test]
fn the_store_of_a_mounted_card_is_found_by_its_configuration() {
    let store = sample();
    let root = tempfile::tempdir().unwrap();
    let at = root.path().to_str().unwrap();
    let (code, text) = failure(&lastgasp(&["tail", "--root", at]));
    assert_eq!(code, Some(2));
    assert!(text.contains("var/lib/lastgasp/store.lg") && text.contains("not found"), "{text}");
    fs::create_dir_all(root.path().join("var/lib/lastgasp")).unwrap();
    fs::create_dir_all(root.path().join("data")).unwrap();
    fs::copy(&store.path, root.path().join("data/log")).unwrap();
    symlink("/data/log", root.path().join("var/lib/lastgasp/store.lg")).unwrap();
    assert_eq!(stdout(&["tail", "--root", at, "-o", "cat"]), "on the card\n", "absolute links stay on the card");
    fs::remove_file(root.path().join("var/lib/lastgasp/store.lg")).unwrap();
    fs::create_dir_all(root.path().join("etc/lastgasp/lastgaspd.d")).unwrap();
    fs::write(root.path().join("etc/lastgasp/lastgaspd.toml"), "[store]\npath = \"/nowhere\"\n").unwrap();
    fs::write(root.path().join("etc/lastgasp/lastgaspd.d/10.toml"), "[store]\npath = \"/data/log\"\n").unwrap();
    for command in ["tail", "status", "check", "boots", "gaps", "export"] {
        stdout(&[command, "--root", at]);
    }
    assert_eq!(lastgasp(&["tail", "--root", at, "--store", "x"]).status.code(), Some(2));
}

#[test]
fn a_loop_device_with_partitions_is_read_as_one() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root may set up loop devices");
        return;
    }
    let store = sample();
    let image = file(store.dir.path(), "card.img", &partitioned(&fs::read(&store.path).unwrap()));
    let made = std::process::Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(&image).output();
    let Some(made) = made.ok().filter(|made| made.status.success()) else {
        println!("skipped: there are no loop devices here");
        return;
    };
    struct Loop(String);
    impl Drop for Loop {
        fn drop(&mut self) {
            let _ = std::process::Command::new("losetup").args(["--detach", &self.0]).status();
        }
    }
    let device = Loop(String::from_utf8(made.stdout).unwrap().trim().to_owned());
    assert_eq!(stdout(&["tail", "--store", &device.0, "-o", "cat"]), "on the card\n");
    assert!(fs::File::open(&image).unwrap().read_at(&mut [0; 1], 0).is_ok());
}
