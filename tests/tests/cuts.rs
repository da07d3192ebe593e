//! What the README promises, under power cuts: the smaller campaign that every `cargo test` runs.
//!
//! The whole one is `cargo run --release -p lastgasp-tests --bin campaign -- --full`; a failure here prints ids that
//! `--replay` takes.

use lastgasp_core::format::frame::FrameKind;
use lastgasp_core::hal::ReadStorage;
use lastgasp_hal_sim::cuttable::Cuttable;
use lastgasp_hal_sim::disk::SimDisk;
use lastgasp_hal_sim::disk::faults::{FailSync, SyncEffect};
use lastgasp_hal_sim::driver::explore::{Explorer, Findings, Reach};
use lastgasp_hal_sim::driver::faulty::variants;
use lastgasp_hal_sim::driver::frames::list;
use lastgasp_hal_sim::driver::machine::{Bench, World};
use lastgasp_hal_sim::driver::medium::{Fate, Flash, Medium};
use lastgasp_hal_sim::driver::rot::{RotReach, closed};
use lastgasp_hal_sim::driver::workload::{
    Boot, Ruin, Shape, Shapes, Step, Stop, Workload, append, boot, by_hand, by_seed,
};
use lastgasp_hal_sim::model::Damage;
use lastgasp_hal_sim::outcome::{Outcome, Plan};
use lastgasp_tests::campaign::{Extent, Options, Profile, run};
use lastgasp_tests::report::Total;

/// Fails with every id, so that one run shows all there is to replay.
fn assert_kept(findings: &Findings) {
    let lines: Vec<String> = findings.violations.iter().map(|(id, violation)| format!("{id}: {violation}")).collect();
    assert!(lines.is_empty(), "replay with `campaign --replay ID`:\n{}", lines.join("\n"));
}

fn explore_all<M: Medium>(workloads: &[Workload], reach: Reach) -> Findings {
    let mut all = Findings::default();
    for workload in workloads {
        all.add(Explorer::new(workload.shape, reach).explore::<M>(workload));
    }
    all
}

fn only(shapes: &Shapes, names: &[&str]) -> Vec<Workload> {
    by_hand(shapes).into_iter().filter(|w| names.contains(&w.name.as_str())).collect()
}

fn single_cuts() -> Reach {
    Reach { second_one_in: 0, ..Reach::default() }
}

#[test]
fn a_single_cut_at_any_operation_loses_nothing_acknowledged() {
    let mut workloads = by_hand(&Shapes::disk());
    workloads.extend((100..104).map(|seed| by_seed(seed, &Shapes::disk())));
    let found = explore_all::<SimDisk>(&workloads, single_cuts());
    assert_kept(&found);
    assert!(found.cuts > 4000, "only {} cuts", found.cuts);
    assert!(found.tally.acknowledged > 4000, "only {} records acknowledged", found.tally.acknowledged);
}

#[test]
fn nor_a_single_cut_at_any_operation_loses_nothing_acknowledged() {
    let reach = Reach { first: Plan { singles: 3, ..Plan::default() }, first_one_in: 30, ..single_cuts() };
    let found = explore_all::<Flash>(&by_hand(&Shapes::nor()), reach);
    assert_kept(&found);
    assert!(found.cuts > 2000, "only {} cuts", found.cuts);
}

#[test]
fn a_second_cut_during_recovery_changes_nothing() {
    let reach = Reach { second_one_in: 6, first_one_in: 3, ..Reach::default() };
    let found = explore_all::<SimDisk>(&only(&Shapes::disk(), &["w1", "w5", "w7", "w9", "w17", "g4"]), reach);
    assert_kept(&found);
    assert!(found.second_cuts > 1000, "only {} second cuts", found.second_cuts);
}

#[test]
fn nor_a_second_cut_during_recovery_changes_nothing() {
    let reach = Reach { first: Plan { singles: 3, ..Plan::default() }, first_one_in: 60, ..Reach::default() };
    let found = explore_all::<Flash>(&only(&Shapes::nor(), &["w1", "w5", "w7", "w17"]), reach);
    assert_kept(&found);
    assert!(found.second_cuts > 1000, "only {} second cuts", found.second_cuts);
}

#[test]
fn a_failed_sync_loses_nothing_that_was_acknowledged() {
    let mut variants_of = Vec::new();
    for workload in only(&Shapes::disk(), &["w1", "w4", "w9", "g6"]) {
        variants_of.extend(variants(&workload, 4));
    }
    let found = explore_all::<SimDisk>(&variants_of, Reach { first_one_in: 60, ..single_cuts() });
    assert_kept(&found);
    assert!(found.cuts > 100, "only {} cuts", found.cuts);
}

#[test]
fn every_case_of_the_decision_table_is_visited() {
    let options = Options {
        extent: Extent::Smoke,
        profiles: vec![Profile::Disk, Profile::Nor],
        seeds: 4,
        threads: 2,
        only: None,
    };
    let rows = run(&options, &|_, _| ());
    let broken: Vec<_> = rows.iter().flat_map(|row| &row.violations).collect();
    assert!(broken.is_empty(), "{broken:?}");
    let total = Total::of(&rows);
    assert_eq!(total.missing_cases, "", "cases never met in {} mounts", total.mounts);
}

fn flip_all<M: Medium>(workload: &Workload) {
    let mut bench = Bench::new(workload.shape);
    let store = closed::<M>(workload, &mut bench).unwrap();
    let found = store.flip_all(&mut bench, &RotReach { all_bits: false, go_on_one_in: 64, share: (0, 1) });
    let lines: Vec<String> = found.violations.iter().map(|(at, bit, v)| format!("{at:#x}.{bit}: {v}")).collect();
    assert!(lines.is_empty(), "{} of {} flips of {}:\n{}", found.broken, found.flips, workload.name, lines.join("\n"));
    assert!(found.costly > 300, "only {} flips hit records", found.costly);
}

#[test]
fn each_flipped_bit_of_a_closed_store_costs_only_the_frame_it_hit() {
    for workload in only(&Shapes::disk(), &["w3", "g4"]) {
        flip_all::<SimDisk>(&workload);
    }
}

#[test]
fn nor_each_flipped_bit_of_a_closed_store_costs_only_the_frame_it_hit() {
    for workload in only(&Shapes::nor(), &["w3"]) {
        flip_all::<Flash>(&workload);
    }
}

/// Both media, every cut, some second cuts.
fn on_both(boots: &[Boot], shape_of: fn(&Shapes) -> Shape) {
    let workload = |shapes: &Shapes| {
        let (name, about) = ("scenario".to_owned(), "a scenario");
        Workload { name, about, shape: shape_of(shapes), boots: boots.to_vec() }
    };
    let reach = Reach { first_one_in: 2, second_one_in: 24, ..Reach::default() };
    assert_kept(&explore_all::<SimDisk>(&[workload(&Shapes::disk())], reach));
    let reach = Reach { first_one_in: 40, second_one_in: 60, ..reach };
    assert_kept(&explore_all::<Flash>(&[workload(&Shapes::nor())], reach));
}

fn plain(shapes: &Shapes) -> Shape {
    shapes.plain
}

fn chains(shapes: &Shapes) -> Shape {
    shapes.chains
}

const CUT: Stop = Stop::Crash(Fate::None);

#[test]
fn an_error_that_is_synced_carries_the_records_before_it() {
    let steps = vec![append(&[20]), append(&[30; 4]), append(&[25]), Step::Commit];
    on_both(&[boot(steps, CUT)], plain);
}

#[test]
fn a_tear_that_was_declared_void_is_neither_rot_nor_taken_up_again_later() {
    let torn = || boot(vec![append(&[30]), append(&[40]), Step::Begin], Stop::Crash(Fate::Seeded(3)));
    let good = || boot(vec![append(&[20]), Step::Commit], CUT);
    on_both(&[good(), torn(), good(), torn(), torn(), good(), good()], plain);
}

#[test]
fn a_segment_that_was_announced_and_half_written_is_not_begun_twice() {
    let half = |n| (0..n).flat_map(|_| [append(&[400, 300]), Step::Commit]).collect::<Vec<_>>();
    let cut = || boot([half(4), vec![append(&[400]), Step::Begin]].concat(), Stop::Crash(Fate::Seeded(1)));
    // On NOR flash a second cut between the settling of the manifest and the origin can still take back a last frame
    // that was shown and never acknowledged: README, "Not yet".
    let boots = vec![cut(), cut(), boot(half(2), Stop::Close)];
    let (name, about) = ("scenario".to_owned(), "a scenario");
    let reach = Reach { first_one_in: 2, second_one_in: 24, ..Reach::default() };
    assert_kept(&explore_all::<SimDisk>(&[Workload { name, about, shape: Shapes::disk().plain, boots }], reach));
}

#[test]
fn a_trailer_alone_proves_nothing() {
    // The trailer of a segment rides in the same sync as the first frames of the next one.
    let steps = (0..6).flat_map(|_| [append(&[500, 100]), Step::Commit]).collect();
    on_both(&[boot(steps, CUT)], plain);
}

#[test]
fn a_number_acknowledged_in_ram_is_never_given_out_again() {
    let bounded =
        |bound, stop| Boot { bound, ..boot(vec![append(&[20]), Step::Commit, append(&[20, 20]), append(&[20])], stop) };
    on_both(&[bounded(4, CUT), bounded(2, CUT), bounded(0, CUT), bounded(7, Stop::Close), bounded(1, CUT)], plain);
}

#[test]
fn a_lost_manifest_brings_nothing_back_that_was_superseded() {
    let many = |n| (0..n).flat_map(|_| [append(&[500]), Step::Commit]).collect::<Vec<_>>();
    let torn = boot(vec![append(&[30]), append(&[400]), Step::Begin], Stop::Crash(Fate::All));
    let ruined = Boot { ruin: Ruin::Manifest, ..boot(many(2), CUT) };
    on_both(&[boot(many(5), CUT), torn, ruined, boot(many(1), Stop::Close)], plain);
}

#[test]
fn a_sync_that_fails_once_is_not_believed_the_second_time() {
    for effect in [SyncEffect::LooksClean, SyncEffect::StaysDirty] {
        let fail = |at| Step::FailSyncs(FailSync { at, count: 1, effect });
        let steps =
            |at| vec![append(&[30]), Step::Commit, fail(at), append(&[40]), Step::Commit, append(&[20]), Step::Commit];
        on_both(&[boot(steps(0), CUT), boot(steps(1), CUT), boot(steps(2), Stop::Close)], plain);
    }
}

#[test]
fn a_batch_of_many_frames_is_there_whole_or_not_at_all() {
    let chain = |n| append(&vec![300; n]);
    let first = vec![append(&[20]), Step::Commit, chain(7), Step::Commit, chain(3), append(&[9]), Step::Begin];
    on_both(&[boot(first, Stop::Crash(Fate::Seeded(9))), boot(vec![chain(5), Step::Commit], Stop::Close)], chains);
}

#[test]
fn a_boot_loop_wears_nothing_and_evicts_nothing() {
    let mut boots = vec![boot(vec![append(&[30]), Step::Commit], Stop::Close)];
    boots.extend((0..12).map(|_| boot(Vec::new(), CUT)));
    let mut bench = Bench::new(Shape::nor());
    let medium: Flash = bench.formatted().unwrap();
    let mut world = World::new();
    let medium = bench.run(medium, &mut world, &boots[..1], None).unwrap();
    let before = medium.bytes();
    let medium = bench.run(medium, &mut world, &boots[1..], None).unwrap();
    assert_eq!(medium.bytes(), before, "a mount wrote");
}

#[test]
fn boots_that_write_only_their_origin_evict_no_records() {
    let mut boots = vec![boot(vec![append(&[30]), Step::Commit], CUT)];
    boots.extend((0..20).map(|i| boot(vec![append(&[30 + i]), Step::Begin], CUT)));
    let mut bench = Bench::new(Shape::disk());
    let medium: SimDisk = bench.formatted().unwrap();
    let mut world = World::new();
    let medium = bench.run(medium, &mut world, &boots, None).unwrap();
    let seen = bench.look(medium, &world, &Damage::default()).unwrap();
    assert_eq!(seen.floor, 1, "a loop of boots dropped records");
}

/// All cuts of one boot, each with what is owed there.
fn cuts_of(bench: &mut Bench, medium: Flash, world: &World, steps: Vec<Step>) -> Vec<(Flash, World)> {
    let mut cuts = Vec::new();
    let mut tap = |cut: Flash, owed: &World| cuts.push((cut, owed.clone()));
    bench.run(medium, &mut world.clone(), &[boot(steps, CUT)], Some(&mut tap)).unwrap();
    cuts
}

#[test]
fn nor_what_a_boot_declared_void_stays_void_when_its_cells_read_differently_later() {
    let shape = Shape::nor();
    let mut bench = Bench::new(shape);
    let medium: Flash = bench.formatted().unwrap();
    let steps = vec![append(&[20]), Step::Commit, append(&[30]), Step::Begin];
    let (last, owed) = cuts_of(&mut bench, medium, &World::new(), steps).pop().unwrap();
    // One bit of the last word was not programmed in time, and reads as if it had been some boots later.
    let torn = last.after(&Outcome::Drop(0));
    let at = usize::try_from(last.at_risk()[0].at).unwrap();
    let whole = last.after(&Outcome::All).bytes()[at..at + 32].to_vec();
    let (seen, owed) = bench.look_and_keep(torn.clone(), &owed, &Damage::default()).unwrap();
    assert_eq!(seen.next_seq, 2, "the second record is declared void");
    let mut looks = 0;
    for (cut, mut owed) in cuts_of(&mut bench, torn, &owed, vec![append(&[20]), Step::Begin]) {
        let medium = cut.after(&Outcome::None);
        let geometry = medium.clone().into_storage(&shape).geometry();
        let mut image = medium.bytes();
        let frames = list(&image, &shape, &geometry).into_iter().flat_map(|s| s.frames);
        if !frames.map(|f| f.frame).any(|f| f.kind == FrameKind::Origin && f.epoch == 2) {
            continue; // the verdict is not written yet
        }
        owed.main.forget_boots();
        image[at..at + 32].iter_mut().zip(&whole).for_each(|(now, then)| *now &= then);
        bench.look(Flash::from_bytes(&shape, &image), &owed, &Damage::default()).unwrap();
        // With the manifest gone nothing but `void_from` says so, in the header and the origin that came later.
        for slot in [0, image.len() / 2] {
            image[slot..slot + shape.segment_bytes as usize].fill(0);
        }
        owed.main.ruin_manifest(true);
        bench.look(Flash::from_bytes(&shape, &image), &owed, &Damage::default()).unwrap();
        looks += 1;
    }
    assert!(looks >= 2, "only {looks} cuts after the origin");
}
