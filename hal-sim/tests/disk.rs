//! The disk as a driver sees it, behaviour by behaviour.

use lastgasp_core::hal::{ReadStorage, Storage, StorageError, StorageErrorKind};
use lastgasp_hal_sim::cuttable::Cuttable;
use lastgasp_hal_sim::disk::faults::{FailSync, SyncEffect};
use lastgasp_hal_sim::disk::{DiskConfig, EraseModel, SimDisk};
use lastgasp_hal_sim::outcome::{Outcome, Plan};
use lastgasp_hal_sim::power::{Counters, Fault};
use lastgasp_hal_sim::rng::Rng;
use std::collections::HashSet;

fn disk() -> SimDisk {
    SimDisk::new(DiskConfig::new(4, 4096))
}

fn bytes(disk: &mut SimDisk, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    disk.read(at, &mut bytes).unwrap();
    bytes
}

/// All first sectors that the outcomes of this state lead to.
fn first_sectors(disk: &SimDisk, plan: &Plan) -> HashSet<Vec<u8>> {
    disk.outcomes(plan).iter().map(|outcome| bytes(&mut disk.after(outcome), 0, 512)).collect()
}

#[test]
fn reads_see_unsynced_writes_but_the_medium_does_not() {
    let mut disk = disk();
    disk.write(512, &[1; 512]).unwrap();
    assert_eq!(bytes(&mut disk, 511, 3), [0, 1, 1]);
    assert_eq!(disk.image().byte(512), 0);
    disk.sync().unwrap();
    assert_eq!(disk.image().byte(512), 1);
}

#[test]
fn an_unsynced_write_may_be_dropped_torn_or_kept() {
    let mut disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    let seen = first_sectors(&disk, &Plan::default());
    let torn = [[1; 256], [0; 256]].concat();
    let torn_the_other_way = [[0; 256], [1; 256]].concat();
    for wanted in [vec![0; 512], vec![1; 512], torn, torn_the_other_way] {
        assert!(seen.contains(&wanted));
    }
    let garbage = seen.iter().any(|sector| sector.iter().any(|&byte| byte > 1));
    assert!(garbage, "no outcome turns the sector to garbage");
}

#[test]
fn a_synced_write_survives_every_outcome() {
    let mut disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    disk.sync().unwrap();
    disk.write(512, &[2; 1024]).unwrap();
    disk.write(4096, &[3; 512]).unwrap();
    let plan = Plan { samples: 200, ..Plan::default() };
    assert_eq!(first_sectors(&disk, &plan), HashSet::from([vec![1; 512]]));
}

#[test]
fn later_writes_may_survive_earlier_ones() {
    let mut disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    disk.write(512, &[2; 512]).unwrap();
    let mut after = disk.after(&Outcome::Only(1));
    assert_eq!(bytes(&mut after, 0, 1024), [[0; 512], [2; 512]].concat());
    assert_eq!(disk.after(&Outcome::Drop(0)).image(), after.image());
    assert_eq!(disk.after(&Outcome::Subset(0b10)).image(), after.image());
}

#[test]
fn every_subset_of_few_units_is_listed() {
    let mut disk = disk();
    disk.write(0, &[1; 2048]).unwrap();
    let plan = Plan { exhaustive: 4, singles: 0, samples: 0, ..Plan::default() };
    let images: HashSet<Vec<u8>> = disk.outcomes(&plan).iter().map(|o| disk.after(o).image().to_vec()).collect();
    assert_eq!(images.len(), 16);
}

#[test]
fn a_cut_stops_everything_and_leaves_the_write_in_flight_at_risk() {
    let mut disk = disk();
    disk.cut_at(Some(1));
    disk.write(0, &[1; 512]).unwrap();
    assert_eq!(disk.write(512, &[2; 512]), Err(Fault::Off));
    assert!(disk.is_off());
    assert_eq!(disk.ops(), 1);
    assert_eq!(disk.write(1024, &[3; 512]), Err(Fault::Off));
    assert_eq!(disk.sync(), Err(Fault::Off));
    assert_eq!(disk.read(0, &mut [0]), Err(Fault::Off));
    assert_eq!(Fault::Off.kind(), StorageErrorKind::Io);
    assert_eq!(disk.at_risk().iter().map(|unit| unit.at).collect::<Vec<_>>(), [0, 512]);
    let mut after = disk.after(&Outcome::All);
    assert!(!after.is_off());
    assert_eq!((after.ops(), bytes(&mut after, 511, 2)), (0, vec![1, 2]));
}

#[test]
fn a_cut_sync_leaves_any_subset() {
    let mut disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    disk.cut_at(Some(1));
    assert_eq!(disk.sync(), Err(Fault::Off));
    assert!(first_sectors(&disk, &Plan::default()).is_superset(&HashSet::from([vec![0; 512], vec![1; 512]])));
}

#[test]
fn a_failed_sync_leaves_clean_looking_pages_that_a_cut_loses() {
    let mut disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    disk.fail_syncs(FailSync { at: 0, count: 1, effect: SyncEffect::LooksClean });
    assert_eq!(disk.sync().unwrap_err().kind(), StorageErrorKind::SyncFailed);
    disk.write(512, &[2; 512]).unwrap();
    disk.sync().unwrap();
    assert_eq!(bytes(&mut disk, 0, 512), [1; 512], "the cache still answers");
    let lost = disk.after(&Outcome::None);
    assert_eq!(lost.image().to_vec()[..1024], [[0; 512], [2; 512]].concat(), "the later sync saved only its own");
    assert_eq!(disk.after(&Outcome::All).image().byte(0), 1);
    assert!(first_sectors(&disk, &Plan::default()).len() > 3, "and it can be torn, too");
}

#[test]
fn a_dropped_cache_shows_what_the_medium_really_holds() {
    let mut disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    disk.fail_syncs(FailSync { at: 0, count: 1, effect: SyncEffect::LooksClean });
    disk.sync().unwrap_err();
    disk.write(512, &[2; 512]).unwrap();
    disk.drop_cache(&Outcome::Head { unit: 0, at: 100 });
    assert_eq!(bytes(&mut disk, 99, 2), [1, 0]);
    assert_eq!(bytes(&mut disk, 512, 1), [2], "what is dirty stays in the cache");
    assert_eq!(disk.after(&Outcome::None).image().byte(512), 0);
}

#[test]
fn a_failed_sync_may_throw_the_pages_out_or_keep_them_dirty() {
    for (effect, read_back, saved_later) in [
        (SyncEffect::Evicted(Outcome::None), 0, 0),
        (SyncEffect::Evicted(Outcome::All), 1, 1),
        (SyncEffect::StaysDirty, 1, 1),
    ] {
        let mut disk = disk();
        disk.write(0, &[1; 512]).unwrap();
        disk.fail_syncs(FailSync { at: 0, count: 1, effect });
        disk.sync().unwrap_err();
        assert_eq!(bytes(&mut disk, 0, 1), [read_back]);
        disk.sync().unwrap();
        assert_eq!(disk.after(&Outcome::None).image().byte(0), saved_later);
    }
}

#[test]
fn syncs_fail_when_told_and_recover_after() {
    let mut disk = disk();
    disk.fail_syncs(FailSync { at: 1, count: 2, effect: SyncEffect::LooksClean });
    let results: Vec<bool> = (0..4).map(|_| disk.sync().is_ok()).collect();
    assert_eq!(results, [true, false, false, true]);
    assert_eq!(disk.counters().syncs, 2);
}

#[test]
fn a_synced_write_settles_the_limbo_below_it_and_cannot_be_hurt_by_it() {
    let config = DiskConfig { torn_unit: 4096, erase: EraseModel::Nothing, ..DiskConfig::new(2, 4096) };
    let mut disk = SimDisk::new(config);
    disk.write(0, &[1; 1024]).unwrap();
    disk.fail_syncs(FailSync { at: 0, count: 1, effect: SyncEffect::LooksClean });
    disk.sync().unwrap_err();
    disk.erase(0).unwrap();
    disk.write(512, &[9; 512]).unwrap();
    disk.sync().unwrap();
    let plan = Plan { samples: 100, ..Plan::default() };
    for outcome in disk.outcomes(&plan) {
        let image = disk.after(&outcome).image().to_vec();
        assert_eq!(image[512..], [&[9; 512][..], &[0; 3072 + 4096]].concat(), "outcome {outcome}");
    }
}

#[test]
fn a_failed_write_is_in_limbo_whatever_a_later_sync_says() {
    let mut disk = disk();
    disk.fail_writes(1, 1, StorageErrorKind::Io);
    disk.write(0, &[1; 512]).unwrap();
    assert_eq!(disk.write(512, &[2; 512]), Err(Fault::Broken(StorageErrorKind::Io)));
    disk.write(1024, &[3; 512]).unwrap();
    disk.sync().unwrap();
    assert_eq!(disk.after(&Outcome::None).image().to_vec()[..1536], [[1; 512], [0; 512], [3; 512]].concat());
    assert_eq!(disk.after(&Outcome::All).image().byte(1023), 2);
}

#[test]
fn a_medium_that_turns_read_only_loses_what_was_not_synced_and_stays_so() {
    let mut disk = disk();
    let refused = Err(Fault::Broken(StorageErrorKind::ReadOnly));
    disk.read_only_at(Some(1));
    disk.write(0, &[1; 512]).unwrap();
    assert_eq!(disk.write(512, &[1; 512]), refused);
    assert_eq!(disk.sync(), refused);
    assert_eq!(disk.erase(1), refused);
    let mut after = disk.after(&Outcome::None);
    assert_eq!(after.image().byte(0), 0);
    assert_eq!(after.write(0, &[1; 512]), refused);
}

#[test]
fn a_worn_segment_and_a_bad_sector_are_reported() {
    let mut disk = disk();
    disk.wear_out(1);
    let worn = Err(Fault::Broken(StorageErrorKind::Worn));
    assert_eq!((disk.write(4096, &[1; 512]), disk.erase(1)), (worn, worn));
    assert_eq!(disk.after(&Outcome::None).erase(1), worn, "for good");
    disk.make_unreadable(512, 512);
    assert_eq!(disk.read(1000, &mut [0; 100]), Err(Fault::Broken(StorageErrorKind::Io)));
    assert_eq!(disk.after(&Outcome::None).read(512, &mut [0]), Err(Fault::Broken(StorageErrorKind::Io)));
    disk.read(0, &mut [0; 512]).unwrap();
    disk.write(512, &[5; 512]).unwrap();
    assert_eq!(bytes(&mut disk, 1000, 1), [5], "writing mends");
}

#[test]
fn an_erase_goes_through_the_cache_as_a_write_does() {
    let config = DiskConfig { erase: EraseModel::Fill(0xff), ..DiskConfig::new(2, 4096) };
    let mut disk = SimDisk::new(config);
    disk.write(0, &[1; 512]).unwrap();
    disk.sync().unwrap();
    disk.erase(0).unwrap();
    disk.write(0, &[2; 512]).unwrap();
    assert_eq!(bytes(&mut disk, 511, 2), [2, 0xff]);
    assert_eq!(disk.after(&Outcome::None).image().byte(0), 1);
    assert_eq!(disk.after(&Outcome::All).image().byte(0), 2);
    assert_eq!(disk.after(&Outcome::Reversed).image().byte(0), 0xff, "the erase may come last");
    assert!(disk.outcomes(&Plan::default()).contains(&Outcome::Reversed));
}

#[test]
fn collateral_damage_hits_synced_neighbours_only_on_demand() {
    let config = DiskConfig { allocation_unit: Some(4096), ..DiskConfig::new(2, 4096) };
    let mut disk = SimDisk::new(config);
    disk.write(0, &[1; 2048]).unwrap();
    disk.sync().unwrap();
    disk.write(2048, &[2; 512]).unwrap();
    let tame = Plan { samples: 50, ..Plan::default() };
    assert_eq!(first_sectors(&disk, &tame).len(), 1);
    let wild = Plan { collateral: true, ..tame };
    let hurt: Vec<Outcome> =
        disk.outcomes(&wild).into_iter().filter(|o| matches!(o, Outcome::Collateral { .. })).collect();
    assert_eq!(hurt.len(), 1);
    let (before, after) = (disk.after(&Outcome::All), disk.after(&hurt[0]));
    let damaged = after.image().differing_blocks(before.image(), 512);
    assert!(!damaged.is_empty() && damaged.iter().all(|&at| at < 4096));
}

#[test]
fn rot_is_seen_unless_the_cache_covers_it() {
    let mut disk = disk();
    disk.flip_bit(0, 3);
    disk.fill(1024, 2, 7);
    assert_eq!(bytes(&mut disk, 0, 1), [8]);
    assert_eq!(bytes(&mut disk, 1023, 4), [0, 7, 7, 0]);
    disk.write(512, &[1; 512]).unwrap();
    disk.flip_bit(512, 1);
    assert_eq!(bytes(&mut disk, 512, 1), [1]);
}

#[test]
fn a_store_that_was_cut_short_reads_out_of_bounds() {
    let mut disk = SimDisk::from_image(DiskConfig::new(2, 4096), &[1; 5000]);
    assert_eq!(bytes(&mut disk, 4999, 1), [1]);
    assert_eq!(disk.read(4999, &mut [0; 2]), Err(Fault::Broken(StorageErrorKind::OutOfBounds)));
    assert_eq!(disk.read(u64::MAX, &mut [0; 2]), Err(Fault::Broken(StorageErrorKind::OutOfBounds)));
    assert_eq!(disk.write(4096 + 512, &[0; 512]), Err(Fault::Broken(StorageErrorKind::OutOfBounds)));
    assert_eq!(disk.erase(1), Err(Fault::Broken(StorageErrorKind::OutOfBounds)));
}

#[test]
#[should_panic(expected = "goes back")]
fn writing_twice_in_one_life_is_a_defect_of_the_caller() {
    let mut disk = disk();
    disk.write(512, &[1; 512]).unwrap();
    disk.write(0, &[1; 512]).unwrap();
}

#[test]
fn an_erase_begins_a_new_life_and_a_cut_ends_one_at_what_is_durable() {
    let mut disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    disk.sync().unwrap();
    disk.write(512, &[2; 512]).unwrap();
    let mut after = disk.after(&Outcome::All);
    after.write(512, &[3; 512]).unwrap();
    after.erase(0).unwrap();
    after.write(0, &[4; 512]).unwrap();
}

#[test]
#[should_panic(expected = "segment 0 is written up to 0x200")]
fn durable_writes_are_still_guarded_after_a_cut() {
    let mut disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    disk.sync().unwrap();
    disk.after(&Outcome::None).write(0, &[2; 512]).unwrap();
}

#[test]
#[should_panic(expected = "is not aligned")]
fn a_misaligned_write_is_a_defect_of_the_caller() {
    disk().write(1, &[1; 512]).unwrap();
}

#[test]
#[should_panic(expected = "crosses the end of segment")]
fn a_write_across_segments_is_a_defect_of_the_caller() {
    disk().write(4096 - 512, &[1; 1024]).unwrap();
}

#[test]
#[should_panic(expected = "belongs to another cut")]
fn an_outcome_of_another_run_is_refused() {
    let mut disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    let _ = disk.after(&Outcome::Drop(1));
}

#[test]
fn counters_live_as_long_as_the_disk_and_the_log_tells_the_story() {
    let mut disk = disk();
    disk.record_ops(true);
    disk.erase(1).unwrap();
    disk.write(4096, &[1; 512]).unwrap();
    disk.sync().unwrap();
    bytes(&mut disk, 0, 7);
    let story: Vec<String> = disk.op_log().iter().map(ToString::to_string).collect();
    assert_eq!(story, ["0 erase 0x1000+4096", "1 write 0x1000+512", "2 sync"]);
    let counters = Counters { reads: 1, read_bytes: 7, writes: 1, written_bytes: 512, erases: 1, syncs: 1 };
    assert_eq!(disk.after(&Outcome::None).counters(), counters);
}

#[test]
fn an_empty_write_is_no_operation() {
    let mut disk = disk();
    disk.write(4096, &[]).unwrap();
    assert_eq!((disk.ops(), disk.unsynced_writes()), (0, 0));
}

/// One random call; `false` if it failed.
fn act(disk: &mut SimDisk, rng: &mut Rng, fronts: &mut [u64]) -> bool {
    let segment = rng.index(fronts.len());
    let result = match rng.below(8) {
        0 => disk.sync(),
        1 | 2 if fronts[segment] > 2048 => {
            fronts[segment] = 0;
            disk.erase(u32::try_from(segment).unwrap())
        }
        _ => {
            let sectors = (1 + rng.below(4)).min((4096 - fronts[segment]) / 512);
            let mut content = vec![0; usize::try_from(sectors * 512).unwrap()];
            rng.fill(&mut content);
            let at = segment as u64 * 4096 + fronts[segment];
            fronts[segment] += sectors * 512;
            disk.write(at, &content)
        }
    };
    result.is_ok()
}

fn models() -> impl Iterator<Item = DiskConfig> {
    [EraseModel::Nothing, EraseModel::Fill(0xff), EraseModel::Scramble].into_iter().flat_map(|erase| {
        [512, 1024, 4096].map(|torn_unit| DiskConfig { erase, torn_unit, ..DiskConfig::new(4, 4096) })
    })
}

#[test]
fn outcomes_differ_from_the_synced_image_only_in_torn_units_touched_since() {
    let plan = Plan { samples: 20, ..Plan::default() };
    for config in models() {
        let torn = config.torn_unit as usize;
        for seed in 0..40 {
            let (mut disk, mut rng, mut fronts) = (SimDisk::new(config), Rng::new(seed), [0; 4]);
            disk.cut_at(Some(rng.below(40)));
            disk.fail_syncs(FailSync { at: rng.below(4), count: rng.below(2), effect: SyncEffect::LooksClean });
            disk.fail_writes(rng.below(40), 1, StorageErrorKind::Io);
            while !disk.is_off() {
                act(&mut disk, &mut rng, &mut fronts);
            }
            let touched: HashSet<usize> = disk
                .at_risk()
                .iter()
                .flat_map(|unit| (unit.at..unit.at + unit.len).step_by(512))
                .map(|at| usize::try_from(at).unwrap() / torn * torn)
                .collect();
            for outcome in disk.outcomes(&plan) {
                let after = disk.after(&outcome);
                let changed = after.image().differing_blocks(disk.image(), torn);
                assert!(changed.iter().all(|at| touched.contains(at)), "torn {torn} seed {seed} outcome {outcome}");
                let again: Outcome = outcome.to_string().parse().unwrap();
                assert_eq!(disk.after(&again).image(), after.image(), "the id {outcome} does not replay");
            }
        }
    }
}

#[test]
fn recorded_cuts_are_the_states_of_runs_cut_there() {
    for config in models() {
        let mut whole = SimDisk::new(config);
        whole.record_cuts(true);
        let run = |disk: &mut SimDisk| {
            let (mut rng, mut fronts) = (Rng::new(5), [0; 4]);
            (0..60).all(|_| act(disk, &mut rng, &mut fronts))
        };
        assert!(run(&mut whole));
        let cuts = whole.take_cuts();
        assert_eq!(cuts.len() as u64, whole.ops());
        for (number, recorded) in (0..).zip(&cuts) {
            let mut cut = SimDisk::new(config);
            cut.cut_at(Some(number));
            assert!(!run(&mut cut));
            assert_eq!((cut.ops(), recorded.ops()), (number, number));
            let plan = Plan::default();
            assert_eq!(cut.outcomes(&plan), recorded.outcomes(&plan));
            for outcome in cut.outcomes(&plan) {
                assert_eq!(cut.after(&outcome).image(), recorded.after(&outcome).image());
            }
        }
    }
}
