//! The example dump in core/SPEC.md is what the engine writes today, byte for byte.

use lastgasp_core::format::row::Row;
use lastgasp_core::hal::SliceArena;
use lastgasp_core::store::{FormatOptions, OpenOptions, Store, format};
use lastgasp_hal_sim::disk::{DiskConfig, SimDisk};
use lastgasp_hal_sim::rig::{Rig, RigSize};
use std::fmt::Write as _;
use std::path::Path;

fn example() -> Vec<u8> {
    let size = RigSize::new(8, 4096);
    let mut disk = SimDisk::new(DiskConfig::new(8, 4096));
    let mut rig = Rig::new(&size);
    format(&mut disk, rig.parts().0, &FormatOptions { store_id: 0x1122_3344_5566_7788 }).unwrap();
    let (memory, [a, b]) = rig.parts();
    let options = OpenOptions { wall_us: 1_700_000_000_000_000, synchronised: true, volatile_bound: 0 };
    let mut store = Store::open(disk, memory, SliceArena(a), Some(SliceArena(b)), &options, &mut |_, _| ()).unwrap();
    let stream = store.stream("app");
    for (received_us, body) in [(1000, "hello"), (2000, "world")] {
        let body = body.as_bytes();
        let (continued, event_time_us, trace) = (false, None, None);
        let row = Row { stream, severity: 9, continued, received_us, event_time_us, trace, body, fields: &[] };
        store.append(&[row], &[]).unwrap();
        store.commit().unwrap();
    }
    store.close().unwrap();
    store.into_storage().image().to_vec()
}

fn dump(image: &[u8]) -> String {
    let mut out = String::new();
    for (i, line) in image.chunks(16).enumerate() {
        if line.iter().all(|b| *b == 0) {
            continue;
        }
        let at = i * 16;
        let hex: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        let text: String = line.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '.' }).collect();
        writeln!(out, "{}+{:04x}  {}  {text}", at / 4096, at % 4096, hex.join(" ")).unwrap();
    }
    out
}

#[test]
fn the_example_dump_of_the_spec_is_what_the_engine_writes() {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let path = Path::new(&manifest).join("../core/SPEC.md");
    let spec = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = spec.split_once("```text\n").unwrap();
    let (old, after) = rest.split_once("```").unwrap();
    let new = dump(&example());
    if std::env::var_os("LASTGASP_BLESS").is_some() {
        std::fs::write(&path, format!("{before}```text\n{new}```{after}")).unwrap();
        return;
    }
    assert!(old == new, "the dump in core/SPEC.md is stale; LASTGASP_BLESS=1 writes it anew. It should be:\n{new}");
}
