//! Workloads written by hand: together they cross every path of the engine that writes.
//!
//! Invariant: the number of a workload is for ever, so that a trace id means the same in every version.

use super::medium::Fate;
use super::workload::{Boot, Ruin, Shape, Shapes, Step, Stop, Workload};
use crate::disk::faults::{FailSync, SyncEffect};
use crate::nor::Wear;

/// A batch of records of stream 0 with these body lengths.
#[must_use]
pub fn append(lens: &[u32]) -> Step {
    Step::Append { rows: lens.iter().map(|len| (0, *len)).collect(), states: Vec::new() }
}

/// A boot without RAM acknowledgements that closes.
#[must_use]
pub fn boot(steps: Vec<Step>, stop: Stop) -> Boot {
    Boot { bound: 0, ruin: Ruin::Nothing, steps, stop }
}

/// Records one by one, each committed.
pub(super) fn singles(n: u32, len: u32) -> Vec<Step> {
    (0..n).flat_map(|i| [append(&[len + i % 5]), Step::Commit]).collect()
}

pub(super) fn fail(at: u64, count: u64, effect: SyncEffect) -> Step {
    Step::FailSyncs(FailSync { at, count, effect })
}

pub(super) const CRASH: Stop = Stop::Crash(Fate::None);
pub(super) const KILLED: Stop = Stop::Crash(Fate::All);

/// The workloads written by hand, for a medium with these shapes: `w0`, `w1`, and with row groups `g3` for `w3`.
#[must_use]
pub fn by_hand(shapes: &Shapes) -> Vec<Workload> {
    let Shapes { plain, chains, groups, .. } = *shapes;
    let mut all = rows_by_hand(plain, chains);
    all.extend(shapes.tables.iter().flat_map(super::by_hand_tables::tables_by_hand));
    for workload in all.clone().into_iter().filter(|workload| workload.name.starts_with('w')) {
        // Single small records never become a row group.
        let large = [3, 4, 5, 6, 8, 10, 15, 16].iter().any(|n| workload.name == format!("w{n}"));
        if let Some([plain_groups, chain_groups]) = groups.filter(|_| large) {
            let shape = if workload.shape == chains { chain_groups } else { plain_groups };
            all.push(Workload { name: workload.name.replace('w', "g"), shape, ..workload });
        }
    }
    all
}

fn rows_by_hand(plain: Shape, chains: Shape) -> Vec<Workload> {
    let part = u32::try_from(chains.frame_bytes).unwrap_or(0) / 3;
    let half = plain.segment_bytes / 4;
    let states = |lens: &[u32], keys: &[u8]| Step::Append {
        rows: lens.iter().enumerate().map(|(i, len)| (u8::try_from(i % 3).unwrap_or(0), *len)).collect(),
        states: keys.to_vec(),
    };
    let with_bound = |bound, steps, stop| Boot { bound, ..boot(steps, stop) };
    let ruined = |ruin, steps, stop| Boot { ruin, ..boot(steps, stop) };
    let big = |n: usize| append(&vec![part; n]);
    let mut list: Vec<(&'static str, Shape, Vec<Boot>)> = vec![
        ("two boots, clean stop", plain, vec![boot(singles(3, 40), Stop::Close), boot(singles(2, 40), Stop::Close)]),
        (
            "a boot after a cut, then one after a kill",
            plain,
            vec![
                boot([singles(2, 30), vec![append(&[20, 20]), Step::Begin]].concat(), CRASH),
                boot([singles(2, 30), vec![append(&[20, 20]), Step::Begin]].concat(), KILLED),
                boot(singles(1, 30), Stop::Close),
            ],
        ),
        (
            "batches with states and several streams",
            plain,
            vec![
                boot(vec![states(&[30, 40, 50], &[1, 2]), Step::Commit, states(&[], &[2]), Step::Commit], Stop::Close),
                boot(vec![states(&[60], &[1]), states(&[], &[3]), states(&[70, 20], &[1]), Step::Commit], CRASH),
                boot(vec![states(&[30], &[2]), Step::Commit], Stop::Close),
            ],
        ),
        (
            "many segments, retention and manifest rollover",
            plain,
            vec![
                boot((0..14).flat_map(|_| [append(&[half]), Step::Commit]).collect(), CRASH),
                boot((0..14).flat_map(|_| [append(&[half, 30]), Step::Commit]).collect(), Stop::Close),
            ],
        ),
        (
            "large commits of many batches, across segments",
            plain,
            vec![
                boot(
                    vec![
                        append(&[half; 2]),
                        append(&[half]),
                        append(&[half]),
                        Step::Commit,
                        append(&[9]),
                        Step::Commit,
                    ],
                    CRASH,
                ),
                boot(
                    vec![append(&[half]), append(&[half]), append(&[half, 20]), Step::Begin, Step::Sync, Step::End],
                    Stop::Close,
                ),
            ],
        ),
        (
            "chains",
            chains,
            vec![
                boot(vec![append(&[40]), Step::Commit, big(5), Step::Commit, append(&[50]), Step::Commit], CRASH),
                boot(vec![big(6), append(&[20]), Step::Commit, big(4), Step::Begin], KILLED),
                boot(vec![append(&[50]), Step::Commit], Stop::Close),
            ],
        ),
        (
            "chains across segments",
            chains,
            vec![
                boot(
                    vec![append(&[50]), Step::Commit, big(8), Step::Commit, append(&[20]), big(8), Step::Commit],
                    CRASH,
                ),
                boot(vec![big(8), Step::Commit, big(7), Step::Commit], Stop::Close),
            ],
        ),
        (
            "acknowledged in RAM, with a bound that changes",
            plain,
            vec![
                with_bound(5, vec![append(&[30]), Step::Commit, append(&[20; 3]), append(&[20])], CRASH),
                with_bound(2, vec![append(&[30]), Step::Commit, append(&[20])], KILLED),
                with_bound(0, vec![append(&[30]), Step::Commit, append(&[20])], CRASH),
                with_bound(9, vec![append(&[30]), append(&[30]), Step::Commit, append(&[20])], Stop::Close),
                with_bound(0, vec![append(&[30]), Step::Commit, append(&[20])], CRASH),
            ],
        ),
        (
            "split commits with appends between",
            plain,
            vec![
                boot(
                    vec![
                        append(&[30]),
                        Step::Begin,
                        append(&[40]),
                        Step::Sync,
                        append(&[20, 20]),
                        Step::End,
                        Step::Begin,
                        append(&[30]),
                        Step::Sync,
                        Step::End,
                        append(&[10]),
                        Step::Commit,
                    ],
                    CRASH,
                ),
                boot(vec![append(&[30]), Step::Begin, append(&[40]), Step::Sync], CRASH),
                boot(vec![append(&[30]), Step::Begin, Step::Sync, Step::End], Stop::Close),
            ],
        ),
        (
            "one failed sync",
            plain,
            vec![
                boot([singles(2, 40), vec![fail(0, 1, SyncEffect::LooksClean)], singles(3, 40)].concat(), CRASH),
                boot(singles(2, 40), Stop::Close),
            ],
        ),
        (
            "two failed syncs of a split commit",
            plain,
            vec![
                boot(
                    [
                        singles(1, 40),
                        vec![
                            append(&[half]),
                            append(&[half]),
                            append(&[30]),
                            fail(0, 2, SyncEffect::LooksClean),
                            Step::Begin,
                            append(&[25]),
                            Step::Sync,
                            Step::End,
                            Step::Commit,
                        ],
                    ]
                    .concat(),
                    Stop::Crash(Fate::Seeded(5)),
                ),
                boot(singles(2, 40), Stop::Close),
            ],
        ),
        (
            "syncs that fail until the store gives up",
            plain,
            vec![
                boot([singles(2, 40), vec![fail(1, 9, SyncEffect::LooksClean)], singles(3, 40)].concat(), KILLED),
                boot([singles(1, 40), vec![fail(0, 9, SyncEffect::StaysDirty)], singles(2, 40)].concat(), CRASH),
                boot(singles(2, 40), Stop::Close),
            ],
        ),
        (
            "a sync fails when a segment is opened",
            plain,
            vec![
                boot(
                    [
                        vec![append(&[half; 2]), Step::Commit, fail(2, 1, SyncEffect::LooksClean)],
                        vec![append(&[half; 2]), Step::Commit, append(&[half; 2]), Step::Commit],
                    ]
                    .concat(),
                    Stop::Crash(Fate::Seeded(3)),
                ),
                boot(singles(2, 40), CRASH),
            ],
        ),
        (
            "failed writes",
            plain,
            vec![
                boot([singles(2, 40), vec![Step::FailWrites(0, 1)], singles(2, 40)].concat(), CRASH),
                boot([singles(1, 40), vec![Step::FailWrites(1, 2)], singles(2, 40)].concat(), KILLED),
                boot([singles(1, 40), vec![Step::FailWrites(0, 9)], singles(2, 40)].concat(), CRASH),
                boot(singles(2, 40), Stop::Close),
            ],
        ),
        (
            "worn out segments",
            Shape { segments: 12, ..plain },
            vec![
                boot(
                    [
                        vec![Step::WearOut(2, Wear::Erase), Step::WearOut(7, Wear::Program)],
                        (0..12).flat_map(|_| [append(&[half; 2]), Step::Commit]).collect(),
                    ]
                    .concat(),
                    CRASH,
                ),
                boot(singles(2, 40), Stop::Close),
            ],
        ),
        (
            "rebuild",
            plain,
            vec![
                boot(
                    [singles(3, 40), (0..16).flat_map(|_| [append(&[half]), Step::Commit]).collect()].concat(),
                    Stop::Close,
                ),
                ruined(Ruin::Manifest, singles(3, 40), CRASH),
                boot((0..6).flat_map(|_| [append(&[half]), Step::Commit]).collect(), Stop::Close),
            ],
        ),
        (
            "rebuild of a chain after a cut",
            chains,
            vec![
                boot(vec![append(&[40]), Step::Commit, big(8), Step::Commit, big(4), Step::Begin], KILLED),
                ruined(Ruin::Manifest, vec![big(5), Step::Commit], CRASH),
                boot(singles(1, 40), Stop::Close),
            ],
        ),
        (
            "boots that only crash",
            plain,
            vec![
                boot(vec![append(&[30]), Step::Begin], CRASH),
                boot(vec![append(&[30]), Step::Begin], Stop::Crash(Fate::Seeded(1))),
                boot(vec![append(&[30]), append(&[40]), Step::Begin], Stop::Crash(Fate::Seeded(2))),
                boot(vec![append(&[30]), Step::Begin], KILLED),
                boot(vec![], Stop::Close),
                boot(vec![append(&[30]), Step::Commit], Stop::Close),
            ],
        ),
        ("the last edits rot after tears", chains, {
            let torn = |seed| boot(vec![big(5), Step::Begin], Stop::Crash(Fate::Seeded(seed)));
            vec![
                boot(singles(2, 40), CRASH),
                torn(1),
                torn(2),
                torn(4),
                boot(singles(14, 40), CRASH),
                ruined(Ruin::LastEdits, singles(2, 40), CRASH),
                boot(singles(1, 40), Stop::Close),
            ]
        }),
        ("the newest header rots after a failed sync", plain, {
            let failed = || [singles(2, 40), vec![fail(0, 1, SyncEffect::StaysDirty)], singles(2, 40)].concat();
            vec![
                boot(failed(), CRASH),
                ruined(Ruin::LastHeaderAndEdits, singles(1, 40), CRASH),
                boot(failed(), Stop::Close),
                ruined(Ruin::LastHeader, singles(1, 40), Stop::Close),
            ]
        }),
        (
            "records that were lost on the way",
            plain,
            vec![
                boot(vec![append(&[30]), Step::Lose(3, 7), append(&[30]), Step::Commit, Step::Lose(0, 1)], CRASH),
                boot(vec![Step::Lose(1, 2), Step::Lose(2, 3), Step::Commit, append(&[30]), Step::Commit], KILLED),
                boot((0..10).flat_map(|_| [append(&[half]), Step::Lose(1, 4), Step::Commit]).collect(), CRASH),
                with_bound(4, vec![append(&[30]), Step::Commit, Step::Lose(1, 9), append(&[20])], CRASH),
                boot(vec![append(&[30]), Step::Begin, Step::Lose(2, 5), Step::Sync, Step::End], Stop::Close),
            ],
        ),
    ];
    if plain != Shape::nor() {
        // On a compact medium the bound is that of the boot.
        list.push((
            "a bound that rises and falls",
            plain,
            vec![
                boot(vec![append(&[30]), Step::Bound(7), Step::Commit, append(&[20]), Step::Bound(1)], CRASH),
                with_bound(
                    6,
                    vec![append(&[30]), Step::Bound(1), Step::Begin, append(&[20; 4]), Step::Bound(3)],
                    KILLED,
                ),
                boot([vec![Step::Bound(5)], singles(2, 40), vec![append(&[20; 3]), Step::Bound(0)]].concat(), CRASH),
                boot(singles(2, 40), Stop::Close),
            ],
        ));
    }
    let workload = |(i, (about, shape, boots))| Workload { name: format!("w{i}"), about, shape, boots };
    list.into_iter().enumerate().map(workload).collect()
}
