//! What damage that a cut did to synced neighbours may cost, and checking a mount that follows it.
//!
//! Invariants:
//! - only batches with a frame, or a header of their segment, in the damaged bytes may be lost, and only as `rot`;
//! - a record may lose the name of its stream (never get another), for the frame that says it may be hit;
//! - a store without an intact header of its log may be refused if its manifest was hit: nothing says what it was;
//! - where the manifest was hit, the store may be rebuilt: what only it said was dead may show, and what it moved and
//!   dropped may count as dropped by retention;
//! - the one exception is a limit that the contract states: the last commits before an unclean stop cannot be told from
//!   a tear when they are damaged afterwards. They are those above every `durable_upto` that is still on the medium,
//!   from the first damaged one on.

use super::frames::{SegmentAt, list};
use super::machine::World;
use super::medium::Medium;
use super::workload::Shape;
use crate::model::{Damage, Model, Seen, Standing, Undo, Violation};
use crate::outcome::Outcome;
use lastgasp_core::format::header::SegmentKind;
use lastgasp_core::hal::ReadStorage;
use std::ops::Range;

/// What `outcome` of a cut may cost beside the writes at risk.
#[must_use]
pub fn damage_of<M: Medium>(cut: &M, outcome: &Outcome, world: &World, shape: &Shape) -> Damage {
    let hits = cut.collateral(outcome);
    let mut damage = Damage::default();
    if hits.is_empty() {
        return damage;
    }
    damage.log_hit = true;
    damage.by_card = true;
    let is_hit = |from: usize, to: usize| hits.iter().any(|hit| hit.start < to && from < hit.end);
    let whole = cut.after(if cut.at_risk().is_empty() { &Outcome::None } else { &Outcome::All });
    let geometry = whole.clone().into_storage(shape).geometry();
    let mut lost: Vec<Range<u64>> = Vec::new();
    let mut groups: Vec<u64> = Vec::new();
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
            groups.extend(frame.sparse.iter().flatten());
        }
    }
    let records = world.main.records();
    let durable = records.iter().filter(|r| r.standing == Standing::Durable);
    let hit = durable.filter(|r| lost.iter().any(|range| range.contains(&r.seq)) || groups.contains(&r.seq));
    damage.may_lose.extend(hit.clone().map(|r| r.batch));
    damage.may_lose.dedup();
    let left = list(&cut.after(outcome).bytes(), shape, &geometry);
    // The slots alone do not tell what a store was when both are hit.
    let is_told = |s: &SegmentAt| s.header.kind != SegmentKind::Manifest;
    damage.may_refuse = left.is_empty() || damage.ledger_hit && !left.iter().any(is_told);
    // What a table says proves nothing before its edit does.
    let log = left.iter().filter(|s| s.header.kind != SegmentKind::Table);
    let proven = log.flat_map(|s| s.frames.iter().map(|f| f.frame.durable_upto).chain([s.header.durable_upto])).max();
    let unproven = hit.filter(|r| proven.is_none_or(|upto| r.seq > upto)).map(|r| r.seq).min();
    damage.may_undo = unproven.map(|from| Undo { from, batches: records.last().map_or(0, |r| r.batch) });
    damage
}

/// Adds later damage to earlier damage.
pub fn add(to: &mut Damage, more: Damage) {
    to.may_lose.extend(more.may_lose);
    to.log_hit |= more.log_hit;
    to.ledger_hit |= more.ledger_hit;
    to.by_card |= more.by_card;
    to.may_refuse |= more.may_refuse;
    // What was undone by the earlier one is settled by the mount between them.
    to.may_undo = more.may_undo;
}

/// Compares a mount with what is owed, or with what is owed if the last commits were taken for a tear.
pub(super) fn check(model: &Model, seen: &Seen, damage: &Damage) -> Result<Model, Violation> {
    model.check(seen, damage).or_else(|violation| {
        let Some(undo) = damage.may_undo else { return Err(violation) };
        let mut damage = damage.clone();
        let taken_back = |batch: &u32| {
            *batch <= undo.batches && model.records().iter().any(|r| r.seq >= undo.from && r.batch == *batch)
        };
        damage.may_lose.retain(|batch| !taken_back(batch));
        model.undone(undo).check(seen, &damage).map_err(|_| violation)
    })
}
