//! A cut in words: what was under way, what was at risk, what is owed, and the bytes of the places that were torn.
//!
//! Invariant: telling changes nothing.

use super::frames::{hexdump, list};
use super::machine::World;
use super::medium::Medium;
use super::story::Story;
use super::workload::Shape;
use crate::outcome::Outcome;
use lastgasp_core::hal::ReadStorage;

/// Operations before the cut that are told.
const OPERATIONS: usize = 8;

/// Tells of a cut and what it left; `verbose` lists the frames on the medium and dumps what was torn.
pub fn tell_cut<M: Medium>(story: &Story, cut: &M, outcome: &Outcome, world: &World, shape: &Shape, verbose: bool) {
    if !story.is_told() {
        return;
    }
    let log = cut.op_log();
    let ops: Vec<String> = log.iter().skip(log.len().saturating_sub(OPERATIONS)).map(ToString::to_string).collect();
    let risk: Vec<String> = cut.at_risk().iter().map(|r| format!("{:#x}+{}", r.at, r.len)).collect();
    let damaged: Vec<String> = cut.collateral(outcome).iter().map(|r| format!("{:#x}+{}", r.start, r.len())).collect();
    let model = &world.main;
    story.tell(|| {
        format!(
            "cut at operation {} ({}), at risk {}, outcome {outcome}{}{}; owed: durable up to {}, next {}, {:?}",
            cut.ops(),
            ops.join(", "),
            if risk.is_empty() { "nothing".to_owned() } else { risk.join(" ") },
            if damaged.is_empty() { "" } else { ", damaged beside it " },
            damaged.join(" "),
            model.durable(),
            model.next_seq(),
            model.records().iter().map(|r| (r.seq, r.batch)).collect::<Vec<_>>(),
        )
    });
    if verbose {
        dump(story, cut, outcome, shape);
    }
}

fn dump<M: Medium>(story: &Story, cut: &M, outcome: &Outcome, shape: &Shape) {
    let after = cut.after(outcome);
    let image = after.bytes();
    let geometry = after.into_storage(shape).geometry();
    for segment in list(&image, shape, &geometry) {
        story.tell(|| segment.to_string());
    }
    let torn = cut.at_risk().into_iter().map(|risk| {
        let at = usize::try_from(risk.unit_at).unwrap_or(0);
        at..at + usize::try_from(risk.unit_len).unwrap_or(0)
    });
    for range in torn.chain(cut.collateral(outcome)) {
        story.tell(|| format!("torn: {:#x}+{}\n{}", range.start, range.len(), hexdump(&image, range.clone())));
    }
}
