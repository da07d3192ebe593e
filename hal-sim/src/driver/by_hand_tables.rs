//! Workloads written by hand in which old log is rewritten into tables.
//!
//! Invariant: the number of a workload is for ever, so that a trace id means the same in every version.

use super::by_hand::{CRASH, KILLED, append, boot, fail, singles};
use super::medium::Fate;
use super::workload::{Boot, Ruin, Shape, Step, Stop, Workload};
use crate::disk::faults::SyncEffect;

/// Batches of records of all streams, each committed.
fn mixed(n: u32, len: u32) -> Vec<Step> {
    let rows = |i: u32| (0..4).map(|stream| (stream, len + (i * 7 + u32::from(stream) * 3) % 11)).collect();
    (0..n).flat_map(|i| [Step::Append { rows: rows(i), states: Vec::new() }, Step::Commit]).collect()
}

/// A stream that takes nearly all, a quiet one, and a step of rewriting after each commit.
fn flood(n: u32, len: u32, steps: u32) -> Vec<Step> {
    let rows = |i: u32| match i % 8 {
        0 => vec![(0, len), (3, 10)],
        _ => vec![(0, len); 2],
    };
    let one = |i| [Step::Append { rows: rows(i), states: Vec::new() }, Step::Commit, Step::Rewrite(steps)];
    (0..n).flat_map(one).collect()
}

/// The workloads `t0`, `t1`.
pub(super) fn tables_by_hand([one, three, chains]: &[Shape; 3]) -> Vec<Workload> {
    let rewrite = |steps| vec![Step::Rewrite(steps)];
    let ruined = |ruin, steps, stop| Boot { ruin, ..boot(steps, stop) };
    let failing = |at| vec![fail(at, 1, SyncEffect::LooksClean)];
    let part = u32::try_from(chains.frame_bytes).unwrap_or(0) / 3;
    let big = |n: usize| append(&vec![part; n]);
    let list: Vec<(&'static str, Shape, Vec<Boot>)> = vec![
        (
            "old log becomes tables, over three boots",
            *one,
            vec![
                boot([singles(14, 300), rewrite(20), singles(3, 40)].concat(), Stop::Close),
                boot([singles(9, 300), rewrite(20), singles(2, 40)].concat(), CRASH),
                boot([singles(9, 300), rewrite(20), singles(2, 40)].concat(), Stop::Close),
            ],
        ),
        (
            "three classes",
            *three,
            vec![
                boot([mixed(16, 60), rewrite(30), mixed(2, 40)].concat(), CRASH),
                boot([mixed(14, 60), rewrite(30), mixed(2, 40)].concat(), Stop::Close),
            ],
        ),
        (
            "one stream floods a full store",
            *one,
            vec![boot(flood(26, 400, 3), CRASH), boot(flood(12, 400, 3), Stop::Close)],
        ),
        (
            "syncs fail while rewriting",
            *one,
            vec![
                boot([singles(14, 200), failing(0), rewrite(20), singles(3, 40)].concat(), KILLED),
                boot([singles(10, 200), failing(2), rewrite(20), singles(2, 40)].concat(), CRASH),
                boot([singles(10, 200), vec![Step::FailWrites(1, 1)], rewrite(20)].concat(), Stop::Close),
            ],
        ),
        (
            "rebuild with tables",
            *one,
            vec![
                boot([singles(14, 200), rewrite(20), singles(8, 200), rewrite(2)].concat(), CRASH),
                ruined(Ruin::Manifest, [singles(3, 40), rewrite(20)].concat(), CRASH),
                boot([singles(6, 200), rewrite(20)].concat(), Stop::Close),
            ],
        ),
        (
            "a rewrite is cut short by a clean stop, a cut, and commits",
            *one,
            vec![
                boot([singles(16, 200), rewrite(3)].concat(), Stop::Close),
                boot([singles(2, 40), rewrite(3), singles(1, 30), rewrite(1), singles(1, 30)].concat(), KILLED),
                boot([singles(2, 40), rewrite(2)].concat(), Stop::Crash(Fate::Seeded(4))),
                boot([singles(2, 40), rewrite(20)].concat(), Stop::Close),
            ],
        ),
        (
            "batches across segments become tables",
            *chains,
            vec![
                boot([vec![big(8), Step::Commit, big(8), Step::Commit], singles(8, 60), rewrite(20)].concat(), CRASH),
                boot([vec![big(7), Step::Commit], rewrite(20)].concat(), Stop::Close),
            ],
        ),
        (
            "the last edits rot after a rewrite",
            *one,
            vec![
                boot([singles(14, 200), rewrite(20)].concat(), CRASH),
                ruined(Ruin::LastEdits, singles(2, 40), CRASH),
                boot([singles(8, 200), rewrite(20)].concat(), Stop::Close),
            ],
        ),
        (
            "a full store of three classes",
            Shape { segments: 10, ..*three },
            vec![
                boot((0..10).flat_map(|_| [mixed(2, 150), rewrite(4)].concat()).collect(), CRASH),
                boot((0..6).flat_map(|_| [mixed(2, 150), rewrite(4)].concat()).collect(), Stop::Close),
            ],
        ),
        (
            "records that were lost on the way, and the ledger is full",
            *one,
            vec![
                boot(
                    [
                        (0..9).flat_map(|i| [append(&[300]), Step::Lose(1, 1 + i % 4), Step::Commit]).collect(),
                        rewrite(20),
                        (0..9).flat_map(|_| [append(&[300]), Step::Lose(2, 3), Step::Commit]).collect(),
                    ]
                    .concat(),
                    CRASH,
                ),
                boot([singles(4, 200), rewrite(20), singles(2, 40)].concat(), Stop::Close),
            ],
        ),
        (
            "a full store that is never given time to rewrite",
            *one,
            vec![
                boot([singles(14, 300), rewrite(9), singles(40, 300)].concat(), CRASH),
                boot([rewrite(3), singles(30, 300), rewrite(2)].concat(), Stop::Close),
            ],
        ),
    ];
    let workload = |(i, (about, shape, boots))| Workload { name: format!("t{i}"), about, shape, boots };
    list.into_iter().enumerate().map(workload).collect()
}
