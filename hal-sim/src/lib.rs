//! lastgasp-hal-sim: the hardware that the engine runs on, simulated, so that its power can be cut anywhere.
//!
//! - [`disk::SimDisk`]: a disk with a volatile cache; implements [`lastgasp_core::hal::Storage`].
//! - [`sdcard::SimCard`]: an SD card: such a disk on a flash translation layer that moves data and wears out;
//! - [`nor::SimNor`]: NOR flash; implements the `embedded-storage` NOR traits, for the adapter in core.
//! - [`cuttable::Cuttable`]: what they have in common, so that one driver cuts them all.
//! - [`supply::Reserve`] and [`supply::Weather`]: the power supply; [`wall::WallClock`]: a clock that jumps;
//!   [`clocked::Clocked`]: a medium on virtual time.
//! - [`campaign`] and [`powercut`]: every cut of many workloads, and many lives, on all cores.
//! - [`node`]: a whole node on all of this, for days.
//! - [`outcome::Outcome`]: what a cut leaves behind, with a short id that replays it.
//!
//! Invariants of the whole crate:
//! - everything is a function of the configuration, the calls made and the seeds: no clock, no thread, no entropy
//!   (only [`campaign`] and [`powercut`], which run many such things, have threads, and say how long it took);
//! - a defect of the caller (a misaligned write, a write over a live one, programming a 0 to 1) is a panic that says
//!   what was wrong; a fault of the hardware is an error;
//! - media are values: a clone shares its pages until one side writes, so a driver may keep one per cut point.
//!
//! # A campaign in short
//!
//! ```
//! use lastgasp_core::hal::{ReadStorage, Storage};
//! use lastgasp_hal_sim::cuttable::Cuttable;
//! use lastgasp_hal_sim::disk::{DiskConfig, SimDisk};
//! use lastgasp_hal_sim::outcome::Plan;
//!
//! let mut disk = SimDisk::new(DiskConfig::new(16, 4096));
//! disk.record_cuts(true);
//! disk.write(0, &[7; 512]).unwrap();
//! disk.sync().unwrap();
//! disk.write(512, &[8; 1024]).unwrap();
//! for cut in disk.take_cuts() {
//!     for outcome in cut.outcomes(&Plan::default()) {
//!         let mut rebooted = cut.after(&outcome);
//!         let mut byte = [0];
//!         rebooted.read(0, &mut byte).unwrap();
//!         // The write is synced once two operations went through.
//!         assert!(cut.ops() < 2 || byte == [7], "replay with cut {} and outcome {outcome}", cut.ops());
//!     }
//! }
//! ```
#![forbid(unsafe_code)]

pub mod campaign;
pub mod clocked;
pub mod cuttable;
pub mod disk;
pub mod driver;
pub mod image;
pub mod model;
pub mod node;
pub mod nor;
pub mod outcome;
pub mod power;
pub mod powercut;
pub mod rig;
pub mod rng;
pub mod sdcard;
pub mod supply;
pub mod wall;
