//! NOR flash as a driver sees it, behaviour by behaviour.

use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use lastgasp_core::hal::StorageErrorKind;
use lastgasp_hal_sim::cuttable::Cuttable;
use lastgasp_hal_sim::nor::{NorConfig, SimNor, Wear};
use lastgasp_hal_sim::outcome::{Outcome, Plan};
use lastgasp_hal_sim::power::Fault;
use lastgasp_hal_sim::rng::Rng;
use std::collections::HashSet;

type Nor = SimNor<4, 256>;

fn nor() -> Nor {
    Nor::new(NorConfig::new(4, 4))
}

fn word(nor: &mut Nor, at: u32) -> [u8; 4] {
    let mut bytes = [0; 4];
    nor.read(at, &mut bytes).unwrap();
    bytes
}

/// A flash that is cut while it programs `new` at 0.
fn cut_program(config: NorConfig, new: &[u8]) -> Nor {
    let mut nor = Nor::new(config);
    nor.cut_at(Some(0));
    assert_eq!(nor.write(0, new), Err(Fault::Off));
    nor
}

/// A flash that is cut while it erases block 0, which holds `old` throughout.
fn cut_erase(old: u8) -> Nor {
    let mut nor = Nor::new(NorConfig::new(4, 256));
    nor.write(0, &[old; 256]).unwrap();
    nor.cut_at(Some(1));
    assert_eq!(nor.erase(0, 256), Err(Fault::Off));
    nor
}

#[test]
fn programming_only_clears_bits() {
    let mut nor = Nor::new(NorConfig { reprogram: true, ..NorConfig::new(4, 4) });
    nor.write(4, &[0xf0, 0xff, 0x0f, 0xaa]).unwrap();
    nor.write(4, &[0xf0, 0x01, 0x0f, 0x00]).unwrap();
    assert_eq!(word(&mut nor, 4), [0xf0, 0x01, 0x0f, 0x00]);
    nor.erase(0, 256).unwrap();
    assert_eq!(word(&mut nor, 4), [0xff; 4]);
    assert_eq!(nor.erase_counts(), [1, 0, 0, 0]);
}

#[test]
#[should_panic(expected = "would set bits")]
fn programming_a_zero_to_one_is_a_defect_of_the_caller() {
    let mut nor = nor();
    nor.write(0, &[0; 4]).unwrap();
    nor.write(0, &[1; 4]).unwrap();
}

#[test]
#[should_panic(expected = "programmed twice")]
fn programming_a_word_twice_is_a_defect_of_the_caller() {
    let mut nor = nor();
    nor.write(0, &[0xff; 4]).unwrap();
    nor.write(0, &[0xfe; 4]).unwrap();
}

#[test]
#[should_panic(expected = "is not whole blocks")]
fn a_misaligned_erase_is_a_defect_of_the_caller() {
    nor().erase(0, 100).unwrap();
}

#[test]
fn a_write_is_as_many_operations_as_it_has_units() {
    let mut nor = nor();
    nor.write(0, &[0; 16]).unwrap();
    assert_eq!(nor.ops(), 4);
    let mut paged = SimNor::<4, 256>::new(NorConfig::new(4, 64));
    paged.write(60, &[0; 72]).unwrap();
    paged.erase(256, 768).unwrap();
    assert_eq!(paged.ops(), 3 + 2, "a program unit is never crossed");
}

#[test]
fn what_was_programmed_before_the_cut_is_durable() {
    let mut nor = nor();
    nor.cut_at(Some(2));
    assert_eq!(nor.write(0, &[0x11; 16]), Err(Fault::Off));
    assert!(nor.is_off());
    assert_eq!(nor.read(0, &mut [0]), Err(Fault::Off));
    for outcome in nor.outcomes(&Plan { samples: 50, ..Plan::default() }) {
        let mut after = nor.after(&outcome);
        assert_eq!((word(&mut after, 0), word(&mut after, 4), word(&mut after, 12)), ([0x11; 4], [0x11; 4], [0xff; 4]));
    }
}

#[test]
fn a_cut_program_leaves_any_subset_of_the_bits_in_flight() {
    let nor = cut_program(NorConfig::new(4, 4), &[0xff, 0xfe, 0xff, 0xfa]);
    let plan = Plan { exhaustive: 3, samples: 0, ..Plan::default() };
    let seen: HashSet<Vec<u8>> =
        nor.outcomes(&plan).iter().map(|o| nor.after(o).image().to_vec()[..4].to_vec()).collect();
    assert_eq!(seen.len(), 8);
    assert!(seen.iter().all(|word| word[0] == 0xff && word[1] | 1 == 0xff && word[3] | 5 == 0xff));
}

#[test]
fn a_cut_page_may_leave_its_first_word_blank_and_later_ones_dirty() {
    let nor = cut_program(NorConfig::new(4, 256), &[0; 256]);
    let images: Vec<Vec<u8>> = nor.outcomes(&Plan::default()).iter().map(|o| nor.after(o).image().to_vec()).collect();
    assert!(images.iter().any(|image| image[..4] == [0xff; 4] && image[4..256] == [0; 252]));
    assert!(images.iter().any(|image| image[..252] == [0; 252] && image[252..256] == [0xff; 4]));
}

#[test]
fn a_metastable_word_reads_differently_after_remount() {
    let nor = cut_program(NorConfig::new(4, 4), &[0; 4]);
    let mut looks = HashSet::new();
    for seed in 0..30 {
        let mut after = nor.after(&Outcome::Metastable(seed));
        assert!(after.metastable_bytes() > 0);
        let first = word(&mut after, 0);
        assert_eq!(word(&mut after, 0), first, "steady within a mount");
        looks.insert(first);
        let changed = (0..20).any(|_| {
            after.remount();
            word(&mut after, 0) != first
        });
        assert!(changed, "seed {seed} never changes");
    }
    assert!(looks.contains(&[0; 4]) && looks.contains(&[0xff; 4]), "it may look applied, and untouched");
}

#[test]
fn a_flickering_cell_changes_from_read_to_read() {
    let nor = cut_program(NorConfig { flicker: true, ..NorConfig::new(4, 4) }, &[0; 4]);
    let mut after = nor.after(&Outcome::Metastable(0));
    let seen: HashSet<[u8; 4]> = (0..20).map(|_| word(&mut after, 0)).collect();
    assert!(seen.len() > 1);
}

#[test]
fn erasing_or_programming_settles_a_metastable_cell() {
    let nor = cut_program(NorConfig::new(4, 4), &[0; 4]);
    let mut erased = nor.after(&Outcome::Metastable(1));
    erased.erase(0, 256).unwrap();
    assert_eq!((erased.metastable_bytes(), word(&mut erased, 0)), (0, [0xff; 4]));
    // Seed 1 looks untouched, so the caller may take the word for blank.
    let mut programmed = nor.after(&Outcome::Metastable(1));
    programmed.write(0, &[0; 4]).unwrap();
    assert_eq!((programmed.metastable_bytes(), word(&mut programmed, 0)), (0, [0; 4]));
}

#[test]
fn metastable_cells_outlive_further_cuts_and_are_drawn_anew() {
    let nor = cut_program(NorConfig::new(4, 256), &[0; 64]);
    let mut second = nor.after(&Outcome::Metastable(0));
    assert_eq!(second.peek()[..64], [0; 64], "seed 0 looks applied");
    second.cut_at(Some(0));
    second.write(64, &[0; 4]).unwrap_err();
    let third = second.after(&Outcome::All);
    assert_eq!(third.metastable_bytes(), second.metastable_bytes());
    assert_ne!(third.peek()[..64], [0; 64]);
}

#[test]
fn a_metastable_outcome_leaves_a_metastable_cell_even_of_a_single_bit() {
    let nor = cut_program(NorConfig::new(4, 4), &[0xff, 0xff, 0xbf, 0xff]);
    for seed in 0..30 {
        assert_eq!(nor.after(&Outcome::Metastable(seed)).metastable_bytes(), 1);
    }
}

#[test]
fn a_cut_erase_leaves_old_erased_zero_partial_or_random_bytes() {
    let nor = cut_erase(0x5a);
    let outcomes = nor.outcomes(&Plan::default());
    let blocks: HashSet<Vec<u8>> = outcomes.iter().map(|o| nor.after(o).peek()[..256].to_vec()).collect();
    for wanted in [vec![0x5a; 256], vec![0xff; 256], vec![0; 256], [[0xff; 128], [0x5a; 128]].concat()] {
        assert!(blocks.contains(&wanted));
    }
    assert!(outcomes.iter().all(|o| nor.after(o).peek()[256..] == [0xff; 768]), "other blocks are untouched");
    assert_eq!(nor.after(&Outcome::None).erase_counts()[0], 0);
    assert_eq!(nor.after(&Outcome::Zeroed).erase_counts()[0], 1);
}

#[test]
fn a_cut_erase_may_look_complete_and_not_be() {
    let mut after = cut_erase(0).after(&Outcome::Metastable(0));
    assert_eq!(after.peek()[..256], [0xff; 256]);
    after.remount();
    assert_ne!(after.peek()[..256], [0xff; 256]);
    after.erase(0, 256).unwrap();
    after.remount();
    assert_eq!(after.peek()[..256], [0xff; 256]);
}

#[test]
fn worn_out_blocks_fail_for_good() {
    let fault = Fault::Broken(StorageErrorKind::Worn);
    let worn = Err(fault);
    let mut nor = nor();
    nor.wear_out(1, 1, Wear::Erase);
    nor.wear_out(2, 0, Wear::Program);
    nor.erase(256, 512).unwrap();
    nor.write(256, &[0; 256]).unwrap();
    assert_eq!(nor.erase(256, 512), worn);
    assert_ne!(nor.peek()[256..512], [0xff; 256], "some cells stay");
    assert_eq!(nor.write(512, &[0; 4]), worn);
    assert_ne!(nor.peek()[512..516], [0; 4]);
    let mut after = nor.after(&Outcome::None);
    assert_eq!(after.erase(256, 512), worn);
    assert_eq!(fault.kind(), NorFlashErrorKind::Other);
}

#[test]
fn reads_beyond_the_end_are_refused() {
    let mut nor = nor();
    assert_eq!(nor.capacity(), 1024);
    assert_eq!(nor.read(1022, &mut [0; 4]), Err(Fault::Broken(StorageErrorKind::OutOfBounds)));
}

#[test]
fn an_image_can_be_taken_over_and_rot() {
    let mut bytes = vec![0xff; 1024];
    bytes[8] = 0;
    let mut nor = Nor::from_image(NorConfig::new(4, 4), &bytes);
    nor.flip_bit(12, 0);
    assert_eq!((word(&mut nor, 8), word(&mut nor, 12)), ([0, 0xff, 0xff, 0xff], [0xfe, 0xff, 0xff, 0xff]));
}

#[test]
#[should_panic(expected = "of no operation in flight")]
fn an_outcome_of_another_run_is_refused() {
    let _ = nor().after(&Outcome::All);
}

/// One random call; `false` if the power failed.
fn act(nor: &mut Nor, rng: &mut Rng, fronts: &mut [u32]) -> bool {
    let block = rng.index(fronts.len());
    let start = u32::try_from(block).unwrap() * 256;
    let words = rng.below(8).min(u64::from((256 - fronts[block]) / 4));
    if words == 0 {
        fronts[block] = 0;
        return nor.erase(start, start + 256).is_ok();
    }
    let mut content = vec![0; usize::try_from(words * 4).unwrap()];
    rng.fill(&mut content);
    let at = start + fronts[block];
    fronts[block] += u32::try_from(content.len()).unwrap();
    nor.write(at, &content).is_ok()
}

#[test]
fn outcomes_differ_only_in_the_unit_in_flight_and_replay_by_their_id() {
    for unit in [4, 16, 256] {
        for seed in 0..60 {
            let (mut nor, mut rng, mut fronts) = (Nor::new(NorConfig::new(4, unit)), Rng::new(seed), [0; 4]);
            nor.cut_at(Some(rng.below(80)));
            while act(&mut nor, &mut rng, &mut fronts) {}
            let risk = nor.at_risk()[0];
            let range = usize::try_from(risk.unit_at).unwrap()..usize::try_from(risk.unit_at + risk.unit_len).unwrap();
            let before = nor.peek();
            for outcome in nor.outcomes(&Plan { samples: 10, ..Plan::default() }) {
                let after = nor.after(&outcome);
                let now = after.peek();
                assert!(now[..range.start] == before[..range.start] && now[range.end..] == before[range.end..]);
                let again: Outcome = outcome.to_string().parse().unwrap();
                assert_eq!(nor.after(&again).peek(), now, "unit {unit} seed {seed}: the id {outcome} does not replay");
            }
        }
    }
}

#[test]
fn recorded_cuts_are_the_states_of_runs_cut_there() {
    let run = |nor: &mut Nor| {
        let (mut rng, mut fronts) = (Rng::new(9), [0; 4]);
        (0..30).all(|_| act(nor, &mut rng, &mut fronts))
    };
    let mut whole = nor();
    whole.record_cuts(true);
    assert!(run(&mut whole));
    let cuts = whole.take_cuts();
    assert_eq!(cuts.len() as u64, whole.ops());
    for (number, recorded) in (0..).zip(&cuts) {
        let mut cut = nor();
        cut.cut_at(Some(number));
        assert!(!run(&mut cut));
        let outcomes = cut.outcomes(&Plan::default());
        assert_eq!(outcomes, recorded.outcomes(&Plan::default()));
        assert!(outcomes.iter().all(|outcome| cut.after(outcome).peek() == recorded.after(outcome).peek()));
    }
}
