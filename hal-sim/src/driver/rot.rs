//! Every flipped bit of a cleanly closed store.
//!
//! The promise: the store opens; either nothing shows, or exactly the records of the frame that was hit (of a chain:
//! the batch) are in a `rot` gap and all others come back byte for byte; going on writing keeps it so.

use super::explore::guarded;
use super::frames::{FrameAt, list};
use super::machine::{Bench, Tally, World};
use super::medium::Medium;
use super::workload::{Step, Stop, Workload, append, boot};
use crate::model::{Damage, Item, Seen, Violation};
use lastgasp_core::hal::ReadStorage;

/// A cleanly closed store, what it owes, and where its frames lie.
#[derive(Debug)]
pub struct Closed<M> {
    /// The medium.
    pub medium: M,
    /// What it owes.
    pub world: World,
    /// Its bytes.
    pub image: Vec<u8>,
    /// Its frames.
    pub frames: Vec<FrameAt>,
}

/// What flipping bits did and found.
#[derive(Debug, Clone, Default)]
pub struct RotFindings {
    /// Bits flipped.
    pub flips: u64,
    /// Flips that cost records.
    pub costly: u64,
    /// Flips after which the store was written and mounted again.
    pub continued: u64,
    /// Mounts and cases.
    pub tally: Tally,
    /// Address, bit and what broke; the first of them.
    pub violations: Vec<(usize, u32, Violation)>,
    /// How many broke.
    pub broken: u64,
}

/// Which bits are flipped.
#[derive(Debug, Clone, Copy)]
pub struct RotReach {
    /// Of each byte, all bits, or one that differs from byte to byte.
    pub all_bits: bool,
    /// After one of how many flips the store is written and mounted again.
    pub go_on_one_in: u64,
    /// This share of the store: number and count.
    pub share: (usize, usize),
}

/// Runs a workload to its clean end.
///
/// # Errors
/// The workload itself breaks a promise.
pub fn closed<M: Medium>(workload: &Workload, bench: &mut Bench) -> Result<Closed<M>, Violation> {
    let mut world = World::new();
    let medium = bench.formatted::<M>()?;
    let mut boots = workload.boots.clone();
    if boots.last().is_none_or(|b| b.stop != Stop::Close) {
        boots.push(boot(vec![append(&[30]), Step::Commit], Stop::Close));
    }
    let medium = bench.run(medium, &mut world, &boots, None)?;
    let (_, world) = bench.look_and_keep(medium.clone(), &world, &Damage::default())?;
    let geometry = medium.clone().into_storage(&workload.shape).geometry();
    let image = medium.bytes();
    let frames = list(&image, &workload.shape, &geometry).into_iter().flat_map(|s| s.frames).collect();
    Ok(Closed { medium, world, image, frames })
}

impl<M: Medium> Closed<M> {
    /// The numbers and batches that a damage of these bytes may cost.
    #[must_use]
    pub fn cost_of(&self, hit: impl Fn(&FrameAt) -> bool) -> (Vec<u64>, Damage) {
        let mut numbers = Vec::new();
        let mut damage = Damage { log_hit: true, ..Damage::default() };
        for frame in self.frames.iter().filter(|f| hit(f)) {
            let range = frame.batch.map_or_else(|| frame.numbers(), |(first, last)| first..last + 1);
            let in_group = |seq| frame.sparse.as_ref().is_some_and(|group| group.contains(&seq));
            let known = self.world.main.records().iter();
            let records = known.filter(|r| range.contains(&r.seq) || in_group(r.seq));
            for record in records {
                numbers.push(record.seq);
                damage.may_lose.push(record.batch);
            }
        }
        damage.may_lose.dedup();
        (numbers, damage)
    }

    /// Flips one bit and judges the store.
    ///
    /// # Errors
    /// The promise that it broke.
    pub fn flip(&self, bench: &mut Bench, at: usize, bit: u32, go_on: bool) -> Result<bool, Violation> {
        // Made anew from its bytes: the medium holds nobody to what was written before the damage.
        let mut image = self.image.clone();
        image[at] ^= 1 << bit;
        let medium = M::from_bytes(&bench.shape(), &image);
        let (numbers, damage) = self.cost_of(|frame| frame.bytes.contains(&at));
        let (seen, world) = bench.look_and_keep(medium.clone(), &self.world, &damage)?;
        let lost = all_or_none(&seen, &numbers)?.unwrap_or(false);
        if go_on {
            let mut world = world;
            let boots = [boot(vec![append(&[30]), Step::Commit, append(&[20; 2]), Step::Commit], Stop::Close)];
            let medium = bench.run_damaged(medium, &mut world, &boots, &damage)?;
            let (seen, _) = bench.look_and_keep(medium, &world, &damage)?;
            if all_or_none(&seen, &numbers)?.is_some_and(|still| still != lost) {
                return Err(Violation::Contract(format!("{numbers:?} were lost {lost}, then {}", !lost)));
            }
        }
        Ok(lost)
    }

    /// Flips many bits.
    #[must_use]
    pub fn flip_all(&self, bench: &mut Bench, reach: &RotReach) -> RotFindings {
        let mut findings = RotFindings::default();
        let before = bench.tally;
        let (share, shares) = reach.share;
        let span = self.image.len().div_ceil(shares);
        for at in (share * span)..((share + 1) * span).min(self.image.len()) {
            for bit in (0..8).filter(|bit| reach.all_bits || at % 8 == *bit as usize) {
                findings.flips += 1;
                let go_on = reach.go_on_one_in > 0 && findings.flips.is_multiple_of(reach.go_on_one_in);
                findings.continued += u64::from(go_on);
                match guarded(|| self.flip(bench, at, bit, go_on)) {
                    Ok(cost) => findings.costly += u64::from(cost),
                    Err(violation) => {
                        findings.broken += 1;
                        if findings.violations.len() < 5 {
                            findings.violations.push((at, bit, violation));
                        }
                    }
                }
            }
        }
        findings.tally = bench.tally;
        findings.tally.mounts -= before.mounts;
        findings
    }
}

/// Whether these numbers are missing, all of them; `None` if retention dropped them.
fn all_or_none(seen: &Seen, numbers: &[u64]) -> Result<Option<bool>, Violation> {
    let shown = |n: u64| seen.items.iter().any(|item| matches!(item, Item::Record(r) if r.seq == n));
    let visible: Vec<u64> = numbers.iter().copied().filter(|n| *n >= seen.floor).collect();
    let missing = visible.iter().filter(|n| !shown(**n)).count();
    match missing {
        _ if visible.is_empty() => Ok(None),
        0 => Ok(Some(false)),
        n if n == visible.len() => Ok(Some(true)),
        _ => Err(Violation::Contract(format!("only {missing} of {visible:?} are lost"))),
    }
}
