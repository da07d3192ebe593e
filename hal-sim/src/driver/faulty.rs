//! Workloads with a failure put into them: at each sync or write in turn, once, twice or three times.
//!
//! Invariant: a variant has a name of its own, such as `w3~b0s4x2c`: in boot 0 of `w3`, after 4 good syncs, 2 fail and
//! their writes look clean.

use super::workload::{Shapes, Step, Workload, by_hand, by_seed, tables_by_seed};
use crate::disk::faults::{FailSync, SyncEffect};
use crate::outcome::Outcome;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Sync(SyncEffect),
    Write,
}

/// Each failure with its letters in a name.
const KINDS: [(&str, &str, What); 4] = [
    ("s", "c", What::Sync(SyncEffect::LooksClean)),
    ("s", "d", What::Sync(SyncEffect::StaysDirty)),
    ("s", "e", What::Sync(SyncEffect::Evicted(Outcome::None))),
    ("w", "", What::Write),
];

fn with(workload: &Workload, boot: usize, at: u64, count: u64, kind: (&str, &str, What)) -> Option<Workload> {
    let mut variant = workload.clone();
    let steps = &mut variant.boots.get_mut(boot)?.steps;
    let step = match kind.2 {
        What::Sync(effect) => Step::FailSyncs(FailSync { at, count, effect }),
        What::Write => Step::FailWrites(at, count),
    };
    steps.insert(0, step);
    variant.name = format!("{}~b{boot}{}{at}x{count}{}", workload.name, kind.0, kind.1);
    Some(variant)
}

/// Every variant of a workload with up to `places` places in each boot.
pub fn variants(workload: &Workload, places: u64) -> impl Iterator<Item = Workload> + '_ {
    let each = move |boot| {
        (0..places).flat_map(move |at| {
            KINDS
                .into_iter()
                .flat_map(move |kind| (1..=3).filter_map(move |count| with(workload, boot, at, count, kind)))
        })
    };
    (0..workload.boots.len()).flat_map(each)
}

/// The workload of this name, if there is one.
#[must_use]
pub fn named(name: &str, shapes: &Shapes) -> Option<Workload> {
    let (base, variant) = match name.split_once('~') {
        Some((base, variant)) => (base, Some(variant)),
        None => (name, None),
    };
    let workload = match base.strip_prefix('s') {
        Some(seed) => by_seed(seed.parse().ok()?, shapes),
        None if base.starts_with('x') => tables_by_seed(base.get(1..)?.parse().ok()?, shapes)?,
        None => by_hand(shapes).into_iter().find(|w| w.name == base)?,
    };
    let Some(variant) = variant else { return Some(workload) };
    let (boot, rest) = variant.strip_prefix('b')?.split_at_checked(variant.find(['s', 'w'])? - 1)?;
    let (at, rest) = rest.get(1..)?.split_once('x')?;
    let letter = &variant[boot.len() + 1..boot.len() + 2];
    let digits = rest.trim_end_matches(char::is_alphabetic);
    let effect = &rest[digits.len()..];
    let kind = KINDS.into_iter().find(|k| k.0 == letter && k.1 == effect)?;
    with(&workload, boot.parse().ok()?, at.parse().ok()?, digits.parse().ok()?, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_found_by_its_name() {
        let shapes = Shapes::disk();
        let base = by_hand(&shapes).remove(3);
        let all: Vec<Workload> = variants(&base, 2).collect();
        assert_eq!(all.len(), base.boots.len() * 2 * 4 * 3);
        for variant in all {
            assert_eq!(named(&variant.name, &shapes), Some(variant));
        }
        assert_eq!(named("s7", &shapes), Some(by_seed(7, &shapes)));
        for name in ["", "w999", "w3~", "w3~b0", "w3~b9s1x1c", "w3~b0s1x1z", "sx"] {
            assert_eq!(named(name, &shapes), None, "{name}");
        }
    }
}
