//! Lives of nodes: the same for a seed, nothing acknowledged lost on honest media, and each fault of the supply met.

use super::life::{LifePlan, Lived, live};
use super::sums::Under;
use super::traffic::{Bodies, Traffic};
use crate::clocked::Timed;
use crate::disk::SimDisk;
use crate::driver::medium::{Flash, Medium};
use crate::sdcard::{Card, LyingCard};
use crate::supply::Script;

fn lived<M: Medium + Timed>(seed: u64, days: u64, script: &str) -> Lived {
    let script: Script = if script.is_empty() { Script::default() } else { script.parse().unwrap() };
    let (traffic, bodies) = (Traffic::default(), Bodies::default());
    let plan = LifePlan { seed, days, script: &script, traffic: &traffic, bodies: &bodies, tell: None, verbose: false };
    live::<M>(&plan)
}

fn kept<M: Medium + Timed>(days: u64) -> super::sums::Sums {
    let mut sums = super::sums::Sums::default();
    for seed in 0..4 {
        let life = lived::<M>(seed, days, "");
        assert!(life.broken.is_none(), "{}:n{seed}: {:?}", M::NAME, life.broken);
        sums.add(life.sums);
    }
    assert!(sums.cuts > 20 * days && sums.acknowledged > 300 * days, "{sums:?}");
    sums
}

#[test]
fn days_of_a_node_on_a_disk_keep_every_promise() {
    let sums = kept::<SimDisk>(8);
    assert_eq!(sums.acknowledged_hit, 0);
    assert!(sums.kills > 0 && sums.stops > 0 && sums.cuts_in_mounts > 0 && sums.survived_sags > 0, "{sums:?}");
    for under in Under::ALL.into_iter().filter(|under| *under != Under::Erase) {
        assert!(sums.points.iter().any(|point| point.under == under), "no cut {}", under.name());
    }
    assert!(sums.lost.contains_key("ram-tier") && sums.lost.contains_key("overload"), "{:?}", sums.lost);
}

#[test]
fn days_of_a_node_on_nor_flash_keep_every_promise() {
    let sums = kept::<Flash>(4);
    assert_eq!(sums.acknowledged_hit, 0);
    assert!(sums.wear_is_erases && sums.wear.iter().sum::<u64>() > 20, "{:?}", sums.wear);
    assert!(sums.lost.contains_key("retention"), "{:?}", sums.lost);
}

#[test]
fn days_of_a_node_on_a_card_lose_only_what_was_hit_and_report_it() {
    let sums = kept::<Card>(8);
    assert!(sums.damaged > 5, "{} cuts hit neighbours", sums.damaged);
    assert!(sums.acknowledged_hit > 0, "no damage cost a record");
    assert_eq!(sums.lost.get("collateral"), Some(&sums.acknowledged_hit));
    assert!(sums.flash_per_byte() > sums.bytes_per_byte());
}

#[test]
fn a_card_that_lies_loses_what_was_acknowledged() {
    let broken = (0..6).filter(|seed| lived::<LyingCard>(*seed, 4, "").broken.is_some()).count();
    assert!(broken >= 4, "only {broken} of 6 lives noticed");
}

#[test]
fn a_life_is_the_same_for_its_seed_and_differs_for_another() {
    let outline = |seed| {
        let life = lived::<Card>(seed, 3, "");
        (life.sums.cuts, life.sums.operations, life.sums.lost.clone(), life.sums.points, life.sums.flushes)
    };
    assert_eq!(outline(1), outline(1));
    assert_ne!(outline(1), outline(2));
}

#[test]
fn a_hold_up_that_suffices_saves_everything_and_one_that_does_not_is_counted() {
    let long = lived::<SimDisk>(1, 3, "hold-up 2s\nevery 20m..40m cut\n");
    assert!(long.broken.is_none(), "{:?}", long.broken);
    assert_eq!(long.sums.flushes_missed, 0);
    assert!(long.sums.flushes.len() > 50);
    let short = lived::<SimDisk>(1, 3, "hold-up 8ms\nevery 20m..40m cut\n");
    assert!(short.broken.is_none(), "{:?}", short.broken);
    assert!(short.sums.flushes_missed > 0);
}

#[test]
fn a_wrong_sense_costs_only_what_was_never_acknowledged() {
    for sense in ["late 300ms", "opposite", "stuck"] {
        let life = lived::<SimDisk>(
            2,
            4,
            &format!("hold-up 200ms\nsense {sense}\nevery 1h..2h cut\nevery 1h..2h bounce 2..5\n"),
        );
        assert!(life.broken.is_none(), "{sense}: {:?}", life.broken);
        assert!(life.sums.cuts > 20 && life.sums.acknowledged > 1000, "{sense}: {:?}", life.sums);
    }
}

#[test]
fn a_story_tells_of_one_boot_and_of_the_mount_that_follows() {
    let (script, traffic, bodies) = (Script::default(), Traffic::default(), Bodies::default());
    let plan = LifePlan {
        seed: 3,
        days: 2,
        script: &script,
        traffic: &traffic,
        bodies: &bodies,
        tell: Some(4),
        verbose: true,
    };
    let story = live::<SimDisk>(&plan).story;
    let mounts = story.iter().filter(|line| line.starts_with("mount:")).count();
    assert!((1..=2).contains(&mounts), "{story:#?}");
    assert!(story.iter().any(|line| line.contains("operations:")), "{story:#?}");
}

#[test]
fn a_real_log_is_replayed_line_by_line() {
    let text = "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure\nJun 14 15:16:02 combo su: ok\n";
    let (script, traffic, bodies) = (Script::default(), Traffic::default(), Bodies::of_log(text.as_bytes()));
    let plan =
        LifePlan { seed: 3, days: 2, script: &script, traffic: &traffic, bodies: &bodies, tell: None, verbose: false };
    let life = live::<SimDisk>(&plan);
    assert!(life.broken.is_none(), "{:?}", life.broken);
    assert!(life.sums.acknowledged > 500);
}
