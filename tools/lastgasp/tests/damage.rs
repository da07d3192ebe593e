//! The check on simulated media: a flipped bit is found or harmless, and nothing that a cut leaves is called damage.

use lastgasp_core::check::{Finding, Part, check};
use lastgasp_core::format::row::Row;
use lastgasp_core::hal::{ReadStorage, SliceArena, Storage};
use lastgasp_core::nor::NorStorage;
use lastgasp_core::reader::Reader;
use lastgasp_core::scan::{Entry, Scan, ScanOptions};
use lastgasp_core::store::{FormatOptions, OpenOptions, Store, format};
use lastgasp_hal_sim::cuttable::Cuttable;
use lastgasp_hal_sim::disk::{DiskConfig, SimDisk};
use lastgasp_hal_sim::nor::{NorConfig, SimNor};
use lastgasp_hal_sim::outcome::Plan;
use lastgasp_hal_sim::rig::{Rig, RigSize, ScanRig};
use lastgasp_hal_sim::rng::Rng;
use std::time::Duration;

const SEGMENTS: u32 = 16;
const SEGMENT_BYTES: u32 = 4096;

fn size() -> RigSize {
    RigSize::new(SEGMENTS, SEGMENT_BYTES)
}

fn formatted() -> SimDisk {
    formatted_on(SimDisk::new(DiskConfig::new(SEGMENTS, SEGMENT_BYTES)))
}

fn formatted_on<S: Storage>(mut medium: S) -> S {
    let mut rig = Rig::new(&size());
    format(&mut medium, rig.parts().0, &FormatOptions { store_id: 99 }).map_err(|_| "format failed").unwrap();
    medium
}

fn nor(flash: SimNor) -> NorStorage<SimNor> {
    NorStorage::new(flash, SEGMENTS, SEGMENT_BYTES, Duration::from_millis(400))
}

/// One boot: `commits` commits of a few records, the third of them a batch over two segments; a clean stop or none.
fn boot<S: Storage>(disk: S, commits: usize, close: bool) -> S {
    let mut rig = Rig::new(&size());
    let (memory, [a, b]) = rig.parts();
    let options = OpenOptions::default();
    let mut store = Store::open(disk, memory, SliceArena(a), Some(SliceArena(b)), &options, &mut |_, _| ()).unwrap();
    let stream = store.stream("app");
    for i in 0..commits {
        let body = vec![b'a' + u8::try_from(i % 26).unwrap(); if i == 2 { 300 } else { 40 + 90 * (i % 5) }];
        let row = Row {
            stream,
            severity: 9,
            continued: false,
            received_us: 1,
            event_time_us: None,
            trace: None,
            body: &body,
            fields: &[],
        };
        let rows = vec![row; if i == 2 { 14 } else { 1 + i % 3 }];
        // A medium without power says so; then this boot is over.
        if store.append(&rows, &[]).is_err() || store.commit().is_err() {
            return store.into_storage();
        }
    }
    if close {
        let _ = store.close();
    }
    store.into_storage()
}

/// What a reader gets: every number that is a record, and every number that is gone for rot.
fn read<R: ReadStorage>(disk: R) -> (Vec<u64>, Vec<u64>) {
    let (mut rig, mut scan_rig) = (Rig::new(&size()), ScanRig::new(&size()));
    let mut reader = Reader::open(disk, rig.parts().0, &mut |_, _| ()).unwrap();
    let mut mem = scan_rig.parts();
    let mut scan = Scan::new(reader.catalog(), ScanOptions::default());
    let (storage, catalog) = reader.parts();
    let (mut records, mut rot) = (Vec::new(), Vec::new());
    while let Some(entry) = scan.next(storage, catalog, &mut mem) {
        match entry {
            Entry::Record(record) => records.push(record.seq),
            Entry::Gap(gap) if gap.cause.name() == "rot" => rot.extend(gap.first_seq..=gap.last_seq),
            _ => {}
        }
    }
    (records, rot)
}

fn findings<R: ReadStorage>(disk: R) -> Vec<Finding> {
    let (mut rig, mut scan_rig) = (Rig::new(&size()), ScanRig::new(&size()));
    let mut reader = Reader::open(disk, rig.parts().0, &mut |_, _| ()).unwrap();
    let mut mem = scan_rig.parts();
    let mut all = Vec::new();
    let (storage, catalog) = reader.parts();
    check(storage, catalog, &mut mem, &mut |_, _| (), &mut |finding| all.push(finding));
    all
}

fn damage<R: ReadStorage>(disk: R) -> Vec<Finding> {
    findings(disk).into_iter().filter(Finding::is_damage).collect()
}

fn lost(all: &[Finding]) -> Vec<u64> {
    let mut numbers: Vec<u64> = all
        .iter()
        .filter_map(|finding| match finding {
            Finding::Lost { gap, .. } => Some(gap.first_seq..=gap.last_seq),
            _ => None,
        })
        .flatten()
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_sound_store_has_no_findings() {
    let disk = boot(boot(boot(formatted(), 6, true), 3, true), 9, true);
    assert_eq!(findings(disk), []);
    let flash = formatted_on(nor(SimNor::new(NorConfig::new(SEGMENTS, 4))));
    assert_eq!(findings(boot(boot(flash, 6, true), 20, true)), []);
}

#[test]
fn a_flipped_bit_is_found_where_it_is_or_harmless() {
    let disk = boot(boot(boot(formatted(), 6, true), 3, false), 9, true);
    assert_eq!(damage(disk.clone()), []);
    let (records, _) = read(disk.clone());
    let image = disk.image().to_vec();
    let (mut found, mut harmless) = (0, Vec::new());
    for at in (0..image.len()).step_by(3) {
        let segment = u32::try_from(at).unwrap() / SEGMENT_BYTES;
        let offset = u32::try_from(at).unwrap() % SEGMENT_BYTES;
        let mut hit = disk.clone();
        hit.flip_bit(at as u64, u32::try_from(at % 8).unwrap());
        let (now, rot) = read(hit.clone());
        let all = damage(hit);
        assert_eq!(lost(&all), rot, "what a scan calls rot; byte {at}");
        let gone: Vec<u64> = records.iter().copied().filter(|seq| !now.contains(seq)).collect();
        for seq in &gone {
            assert!(rot.contains(seq), "record {seq} is gone without a word; byte {at}");
        }
        let here = |finding: &Finding| match finding {
            Finding::Damaged { place, .. } => {
                let end = place.offset + if place.bytes == 0 { SEGMENT_BYTES } else { place.bytes };
                place.segment == segment && (place.offset..end).contains(&offset)
            }
            _ => false,
        };
        for finding in &all {
            assert!(matches!(finding, Finding::Lost { .. }) || here(finding), "byte {segment}:{offset}: {finding:?}");
        }
        if !rot.is_empty() {
            let named = |finding: &Finding| matches!(finding, Finding::Damaged { part: Part::Records, .. });
            assert!(all.iter().any(|f| here(f) && named(f)), "byte {segment}:{offset} lost {rot:?}: {all:?}");
        }
        found += usize::from(!all.is_empty());
        if all.is_empty() && image[at] != 0 {
            harmless.push((segment, offset));
        }
    }
    println!("{found} of {} flips are found, {} bytes that are not zero are harmless", image.len() / 3, harmless.len());
    // What is left of earlier lives behind the last edit of the manifest (segments 0 and 8); the close frame at the end
    // of the log (10), for it cannot be told from a tear; and the trailer that was written last before the boot without
    // a clean stop (5), for nothing tells that it was ever synced.
    let is_excused = |&(segment, offset): &(u32, u32)| match segment {
        0 | 8 => offset >= 2560,
        10 => (2560..3072).contains(&offset),
        5 => offset >= 3584,
        _ => false,
    };
    let missed: Vec<_> = harmless.iter().filter(|at| !is_excused(at)).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Cuts the power at operations of a boot (one in `every`), after none, one or two boots before; returns how many
/// states there were, and how many of them had a torn end or an unfinished copy of the manifest.
fn cut_everywhere<M: Cuttable, S: Storage>(
    fresh: M,
    open: impl Fn(M) -> S,
    close: impl Fn(S) -> M,
    every: usize,
) -> (u32, usize, usize) {
    let plan = Plan { exhaustive: 4, singles: 4, samples: 2, ..Plan::default() };
    let run = |medium: M, commits, clean| close(boot(open(medium), commits, clean));
    let (mut states, mut torn, mut unfinished) = (0, 0, 0);
    for boots in 0..3 {
        let mut medium = close(formatted_on(open(fresh.clone())));
        for _ in 0..boots {
            medium = run(medium, 7, boots == 2);
        }
        medium.record_cuts(true);
        let mut medium = run(medium, 12, true);
        for cut in medium.take_cuts().into_iter().step_by(every) {
            for outcome in cut.outcomes(&plan) {
                let mut rebooted = cut.after(&outcome);
                // The cut itself, then what the next two boots make of it: one that only appends a little, one long.
                for commits in [0, 1, 9] {
                    if commits > 0 {
                        rebooted = run(rebooted, commits, true);
                    }
                    let all = findings(open(rebooted.clone()));
                    let bad: Vec<_> = all.iter().filter(|f| f.is_damage()).collect();
                    assert!(bad.is_empty(), "{boots} boots, cut {} {outcome}, {commits} commits: {bad:?}", cut.ops());
                    states += 1;
                    torn += all.iter().filter(|f| matches!(f, Finding::Torn { .. })).count();
                    unfinished += all.iter().filter(|f| matches!(f, Finding::EditUnfinished { .. })).count();
                }
            }
        }
    }
    println!("{states} states, {torn} torn ends, {unfinished} unfinished copies of the manifest");
    (states, torn, unfinished)
}

#[test]
fn nothing_that_a_cut_leaves_on_a_disk_is_called_damage() {
    let fresh = SimDisk::new(DiskConfig::new(SEGMENTS, SEGMENT_BYTES));
    let (states, torn, unfinished) = cut_everywhere(fresh, |disk| disk, |disk| disk, 1);
    assert!(states > 1000 && torn > 0 && unfinished > 0);
}

#[test]
fn nothing_that_a_cut_leaves_on_nor_flash_is_called_damage() {
    let fresh: SimNor = SimNor::new(NorConfig::new(SEGMENTS, 4));
    let (states, torn, unfinished) = cut_everywhere(fresh, nor, NorStorage::into_inner, 37);
    assert!(states > 1000 && torn > 0 && unfinished > 0);
}

#[test]
fn a_flipped_bit_on_nor_flash_is_found_or_harmless() {
    let flash = boot(boot(formatted_on(nor(SimNor::new(NorConfig::new(SEGMENTS, 4)))), 6, true), 20, true).into_inner();
    let (records, _) = read(nor(flash.clone()));
    let image = flash.image().to_vec();
    let mut found = 0;
    for at in (0..image.len()).step_by(7) {
        let mut hit = flash.clone();
        hit.flip_bit(u32::try_from(at).unwrap(), u32::try_from(at % 8).unwrap());
        let (now, rot) = read(nor(hit.clone()));
        let all = damage(nor(hit));
        assert_eq!(lost(&all), rot, "byte {at}");
        assert!(records.iter().all(|seq| now.contains(seq) || rot.contains(seq)), "byte {at} loses without a word");
        found += usize::from(!all.is_empty());
    }
    println!("{found} of {} flips are found", image.len() / 7);
    assert!(found > 100);
}

#[test]
fn no_image_makes_it_panic_or_run_for_ever() {
    let disk = boot(boot(boot(formatted(), 6, true), 3, false), 9, true);
    let mut rng = Rng::new(11);
    let (mut opened, bytes) = (0, u64::from(SEGMENTS * SEGMENT_BYTES));
    for _ in 0..1500 {
        let mut hit = disk.clone();
        for _ in 0..=rng.below(12) {
            let longest = 1 << rng.below(14);
            let (at, len) = (rng.below(bytes), 1 + rng.below(longest));
            match rng.below(3) {
                0 => hit.flip_bit(at, u32::from(rng.byte() % 8)),
                1 => hit.fill(at, len.min(bytes - at), rng.byte()),
                _ => {
                    let from = usize::try_from(rng.below(bytes - len)).unwrap();
                    let copied = hit.image().to_vec()[from..from + usize::try_from(len).unwrap()].to_vec();
                    let to = usize::try_from(at.min(bytes - len)).unwrap();
                    hit.rot(|image| image.write(to, &copied));
                }
            }
        }
        let (mut rig, mut scan_rig) = (Rig::new(&size()), ScanRig::new(&size()));
        let Ok(mut reader) = Reader::open(hit, rig.parts().0, &mut |_, _| ()) else { continue };
        opened += 1;
        let (storage, catalog) = reader.parts();
        let mut count = 0;
        check(storage, catalog, &mut scan_rig.parts(), &mut |_, _| (), &mut |_| {
            count += 1;
            assert!(count < 10_000, "findings without end");
        });
    }
    println!("{opened} images opened");
    assert!(opened > 1000);
}
