//! What damage that a cut did to synced neighbours may cost, and checking a mount that follows it.
//!
//! Invariants:
//! - only batches with a frame, or a header of their segment, in the damaged bytes may be lost, and only as `rot`;
//! - the one exception is a limit that the contract states: the last commits before an unclean stop cannot be told from
//!   a tear when they are damaged afterwards. They are those above every `durable_upto` that is still on the medium,
//!   from the first damaged one on.

use super::frames::list;
use super::machine::World;
use super::medium::Medium;
use super::workload::Shape;
use crate::model::{Damage, Model, Seen, Standing, Undo, Violation};
use crate::outcome::Outcome;
use lastgasp_core::format::header::SegmentKind;
use lastgasp_core::hal::ReadStorage;

/// What `outcome` of a cut may cost beside the writes at risk.
#[must_use]
pub fn damage_of<M: Medium>(cut: &M, outcome: &Outcome, world: &World, shape: &Shape) -> Damage {
    let hits = cut.collateral(outcome);
    let mut damage = Damage::default();
    if hits.is_empty() {
        return damage;
    }
    damage.log_hit = true;
    let is_hit = |from: usize, to: usize| hits.iter().any(|hit| hit.start < to && from < hit.end);
    let whole = cut.after(if cut.at_risk().is_empty() { &Outcome::None } else { &Outcome::All });
    let geometry = whole.clone().into_storage(shape).geometry();
    let mut lost: Vec<std::ops::Range<u64>> = Vec::new();
    for segment in list(&whole.bytes(), shape, &geometry) {
        let start = segment.header.segment as usize * shape.segment_bytes as usize;
        let end = start + shape.segment_bytes as usize;
        if segment.header.kind == SegmentKind::Manifest {
            damage.ledger_hit |= is_hit(start, end);
            continue;
        }
        let header_hit = is_hit(start, start + segment.header.data_start() as usize);
        for frame in segment.frames.iter().filter(|f| header_hit || is_hit(f.bytes.start, f.bytes.end)) {
            lost.push(frame.batch.map_or_else(|| frame.numbers(), |(first, last)| first..last + 1));
        }
    }
    let records = world.main.records();
    let durable = records.iter().filter(|r| r.standing == Standing::Durable);
    let hit = durable.filter(|r| lost.iter().any(|range| range.contains(&r.seq)));
    damage.may_lose.extend(hit.clone().map(|r| r.batch));
    damage.may_lose.dedup();
    let left = cut.after(outcome).bytes();
    let proven = list(&left, shape, &geometry)
        .iter()
        .flat_map(|s| s.frames.iter().map(|f| f.frame.durable_upto).chain([s.header.durable_upto]))
        .max();
    let unproven = hit.filter(|r| proven.is_none_or(|upto| r.seq > upto)).map(|r| r.seq).min();
    damage.may_undo = unproven.map(|from| Undo { from, batches: records.last().map_or(0, |r| r.batch) });
    damage
}

/// Adds later damage to earlier damage.
pub fn add(to: &mut Damage, more: Damage) {
    to.may_lose.extend(more.may_lose);
    to.log_hit |= more.log_hit;
    to.ledger_hit |= more.ledger_hit;
    // What was undone by the earlier one is settled by the mount between them.
    to.may_undo = more.may_undo;
}

/// Compares a mount with what is owed, or with what is owed if the last commits were taken for a tear.
pub(super) fn check(model: &Model, seen: &Seen, damage: &Damage) -> Result<Model, Violation> {
    model.check(seen, damage).or_else(|violation| match damage.may_undo {
        Some(undo) => model.undone(undo).check(seen, damage).map_err(|_| violation),
        None => Err(violation),
    })
}
