//! Workloads by chance.
//!
//! Invariant: the workload of a seed is the same for ever.

use super::by_hand::{CRASH, KILLED, fail};
use super::medium::Fate;
use super::workload::{Boot, Ruin, Shape, Shapes, Step, Stop, Workload};
use crate::disk::faults::SyncEffect;
use crate::rng::Rng;

/// The workload of a seed.
#[must_use]
pub fn by_seed(seed: u64, shapes: &Shapes) -> Workload {
    let mut rng = Rng::derived(seed, 0x5eed);
    let mut choice = vec![shapes.plain, shapes.plain, shapes.chains];
    choice.extend(shapes.groups.into_iter().flatten());
    let shape = choice[rng.index(choice.len())];
    let bounded = rng.chance(1, 3);
    let boots = (0..2 + rng.below(3)).map(|_| {
        let bound = if bounded { u32::try_from(rng.below(6)).unwrap_or(0) } else { 0 };
        let mut steps = Vec::new();
        for _ in 0..2 + rng.below(7) {
            random_step(&mut rng, &shape, &mut steps);
            if bounded && shapes.groups.is_some() && rng.chance(1, 4) {
                steps.push(Step::Bound(u32::try_from(rng.below(9)).unwrap_or(0)));
            }
        }
        let stop = match rng.below(5) {
            0 | 1 => Stop::Close,
            2 => CRASH,
            3 => KILLED,
            _ => Stop::Crash(Fate::Seeded(rng.below(1 << 16))),
        };
        Boot { bound, ruin: Ruin::Nothing, steps, stop }
    });
    Workload { name: format!("s{seed}"), about: "by chance", shape, boots: boots.collect() }
}

/// The workload of a seed in which old log is rewritten; `None` for a medium without tables.
#[must_use]
pub fn tables_by_seed(seed: u64, shapes: &Shapes) -> Option<Workload> {
    let mut rng = Rng::derived(seed, 0x7ab1e);
    let choice = shapes.tables?;
    let mut shape = choice[rng.index(choice.len())];
    shape.segments = shape.segments.min(9 + u32::try_from(rng.below(8)).unwrap_or(0));
    let boots = (0..2 + rng.below(3)).map(|_| {
        let mut steps = Vec::new();
        for _ in 0..3 + rng.below(8) {
            if rng.chance(2, 3) {
                let len = 8 + u32::try_from(rng.below(u64::from(shape.segment_bytes) / 6)).unwrap_or(0);
                let rows = |rng: &mut Rng| {
                    (0..1 + rng.below(3)).map(|_| (u8::try_from(rng.below(4)).unwrap_or(0), len)).collect()
                };
                for _ in 0..1 + rng.below(6) {
                    steps.extend([Step::Append { rows: rows(&mut rng), states: Vec::new() }, Step::Commit]);
                }
            } else {
                random_step(&mut rng, &shape, &mut steps);
            }
            if rng.chance(1, 2) {
                steps.push(Step::Rewrite(1 + u32::try_from(rng.below(8)).unwrap_or(0)));
            }
        }
        let stop = match rng.below(5) {
            0 | 1 => Stop::Close,
            2 => CRASH,
            3 => KILLED,
            _ => Stop::Crash(Fate::Seeded(rng.below(1 << 16))),
        };
        let ruin = match rng.below(12) {
            0 => Ruin::Manifest,
            1 => Ruin::LastEdits,
            _ => Ruin::Nothing,
        };
        Boot { bound: 0, ruin, steps, stop }
    });
    let boots = boots.collect();
    Some(Workload { name: format!("x{seed}"), about: "by chance, with tables", shape, boots })
}

fn random_step(rng: &mut Rng, shape: &Shape, steps: &mut Vec<Step>) {
    let unit = u64::from(shape.segment_bytes);
    let frame = shape.frame_bytes as u64;
    let batch = |rng: &mut Rng| {
        let large = rng.chance(1, 3);
        let rows = (0..1 + rng.below(if large { 6 } else { 3 })).map(|_| {
            let len = 8 + rng.below(if large { frame.min(unit / 2) / 2 } else { 60 });
            (u8::try_from(rng.below(4)).unwrap_or(0), u32::try_from(len).unwrap_or(8))
        });
        let rows: Vec<_> = rows.collect();
        let states = if rng.chance(1, 4) { vec![u8::try_from(rng.below(4)).unwrap_or(0)] } else { Vec::new() };
        Step::Append { rows, states }
    };
    match rng.below(13) {
        0..=4 => steps.extend([batch(rng), Step::Commit]),
        5..=6 => steps.push(batch(rng)),
        7 => steps.extend([batch(rng), batch(rng), Step::Commit]),
        8 => steps.extend([batch(rng), Step::Begin, batch(rng), Step::Sync, batch(rng), Step::End]),
        9 => steps.push(Step::Append { rows: Vec::new(), states: vec![u8::try_from(rng.below(4)).unwrap_or(0)] }),
        10 => {
            let effect = if rng.chance(1, 4) { SyncEffect::StaysDirty } else { SyncEffect::LooksClean };
            steps.push(fail(rng.below(4), 1 + rng.below(3), effect));
        }
        11 => steps.push(Step::FailWrites(rng.below(4), 1 + rng.below(3))),
        _ => steps
            .push(Step::Lose(u8::try_from(rng.below(5)).unwrap_or(0), 1 + u32::try_from(rng.below(9)).unwrap_or(0))),
    }
}
