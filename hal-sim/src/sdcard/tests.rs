//! Each stated fault really happens, and what is not stated does not.

use super::*;
use crate::power::OpKind;

const SEGMENT: u32 = 4096;

fn card(config: impl FnOnce(&mut CardConfig)) -> SimCard {
    let mut of_card = CardConfig::new(16, SEGMENT);
    config(&mut of_card);
    SimCard::new(of_card)
}

/// Fills segments in order, a sync after each write of a sector.
fn fill(card: &mut SimCard, segments: Range<u32>) {
    for segment in segments {
        card.erase(segment).unwrap();
        for sector in 0..u64::from(SEGMENT / 512) {
            let at = u64::from(segment * SEGMENT) + sector * 512;
            card.write(at, &[u8::try_from(segment).unwrap() + 1; 512]).unwrap();
            card.sync().unwrap();
        }
    }
}

#[test]
fn what_was_synced_stays_after_every_outcome_but_collateral_damage() {
    for mapping in [Mapping::Page, Mapping::Block { open: 2 }] {
        let mut card = card(|c| c.mapping = mapping);
        fill(&mut card, 0..5);
        card.write(u64::from(5 * SEGMENT), &[8; 512]).unwrap();
        card.sync().unwrap();
        card.write(u64::from(5 * SEGMENT + 512), &[9; 1024]).unwrap();
        card.record_cuts(true);
        card.sync().unwrap();
        let cut = card.take_cuts().pop().unwrap();
        let synced = |after: &SimCard| after.image().to_vec()[..5 * SEGMENT as usize + 512].to_vec();
        let (mut kept, mut damaged) = (0, 0);
        for outcome in cut.outcomes(&Plan { collateral: true, samples: 40, ..Plan::default() }) {
            let after = cut.after(&outcome);
            match outcome {
                Outcome::Collateral { .. } => damaged += u32::from(synced(&after) != synced(&cut)),
                _ => {
                    assert_eq!(synced(&after), synced(&cut), "{outcome}");
                    kept += 1;
                }
            }
        }
        assert!(kept > 10, "{kept}");
        assert!(damaged > 5, "{damaged} for {mapping:?}");
    }
}

#[test]
fn collateral_damage_hits_only_what_is_in_danger_and_is_the_same_for_an_outcome() {
    for mapping in [Mapping::Page, Mapping::Block { open: 1 }] {
        let mut card = card(|c| c.mapping = mapping);
        fill(&mut card, 0..6);
        card.write(u64::from(6 * SEGMENT), &[1; 512]).unwrap();
        card.sync().unwrap();
        card.write(u64::from(6 * SEGMENT + 512), &[2; 512]).unwrap();
        let danger = card.in_danger();
        let mut neighbours = 0;
        for seed in 0..200 {
            let outcome = Outcome::Collateral { unit: 0, seed };
            let hit = card.collateral(&outcome);
            assert!(!hit.is_empty() && hit.iter().all(|h| danger.iter().any(|d| d.start <= h.start && h.end <= d.end)));
            let (after, again) = (card.after(&outcome), card.after(&outcome));
            assert_eq!(after.image(), again.image());
            let whole = card.after(&Outcome::All);
            for at in after.image().differing_blocks(whole.image(), 512) {
                assert!(hit.iter().any(|h| h.start == at), "seed {seed}: {at:#x} is not among {hit:x?}");
                neighbours += u32::from(at != (6 * SEGMENT + 512) as usize);
            }
        }
        assert!(neighbours > 20, "{neighbours} neighbours were hit with {mapping:?}");
    }
}

#[test]
fn a_card_that_is_idle_damages_nothing() {
    let mut card = card(|_| ());
    fill(&mut card, 0..3);
    assert!(card.in_danger().is_empty());
    card.power_off();
    let outcomes = card.outcomes(&Plan { collateral: true, ..Plan::default() });
    assert_eq!(outcomes, [Outcome::None]);
}

#[test]
fn a_lying_card_loses_what_it_said_was_synced_until_its_cache_is_full() {
    let mut card = card(|c| c.lies_bytes = 2048);
    for sector in 0..4_u64 {
        card.write(sector * 512, &[7; 512]).unwrap();
        card.sync().unwrap();
    }
    assert_eq!(card.wear().lies, 4);
    assert_eq!(card.after(&Outcome::None).image().byte(0), 0, "all of it was in the cache");
    card.write(4 * 512, &[7; 512]).unwrap();
    card.sync().unwrap();
    assert_eq!(card.wear().lies, 4, "the cache was full");
    assert_eq!(card.after(&Outcome::None).image().byte(0), 7);
}

#[test]
fn garbage_collection_and_housekeeping_make_some_syncs_slow() {
    let (mut card, mut rng) = (card(|_| ()), Rng::new(1));
    let mut costs = Vec::new();
    for _ in 0..1500 {
        // Units hold pieces of several segments, which are written anew at different times.
        let segment = u32::try_from(rng.below(16)).unwrap();
        card.erase(segment).unwrap();
        card.write(u64::from(segment * SEGMENT), &vec![1; 512 * (1 + rng.index(8))]).unwrap();
        costs.push(card.cost_us(Access::Sync));
        card.sync().unwrap();
    }
    costs.sort_unstable();
    let (median, longest) = (costs[costs.len() / 2], costs[costs.len() - 1]);
    assert!(median < 8_000, "{median} us");
    assert!((30_000..300_000).contains(&longest), "{longest} us");
    assert!(card.wear().moved_bytes > 0 && card.wear().erases > 100, "{:?}", card.wear());
}

#[test]
fn at_the_end_of_its_life_a_card_turns_read_only_for_good() {
    let mut card = card(|c| c.endurance = 12);
    let mut writes = 0;
    let error = 'life: loop {
        for segment in 0..16 {
            let at = u64::from(segment * SEGMENT);
            let done = card.erase(segment).and_then(|()| card.write(at, &[3; 4096])).and_then(|()| card.sync());
            if let Err(error) = done {
                break 'life error;
            }
            writes += 1;
            assert!(writes < 10_000, "it never wears out");
        }
    };
    assert_eq!(error, Fault::Broken(StorageErrorKind::ReadOnly));
    assert!(card.is_worn_out());
    let mut again = card.after(&Outcome::None);
    assert_eq!(again.erase(0), Err(Fault::Broken(StorageErrorKind::ReadOnly)));
    again.read(0, &mut [0; 512]).unwrap();
}

#[test]
fn a_cut_is_numbered_as_on_a_disk_and_every_operation_has_one() {
    let mut card = card(|_| ());
    card.record_cuts(true);
    card.record_ops(true);
    fill(&mut card, 0..2);
    let cuts = card.take_cuts();
    assert_eq!(cuts.len() as u64, card.ops());
    for (nth, cut) in cuts.iter().enumerate() {
        assert!(cut.is_off() && cut.ops() == nth as u64);
    }
    assert_eq!(card.op_log().iter().filter(|op| op.kind == OpKind::Sync).count(), 16);
}
