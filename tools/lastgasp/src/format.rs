//! `lastgasp format`: makes an empty store.
//!
//! Invariants: what is not blank and not ours is left alone; what was made is removed again if it cannot be completed.

use std::fs;
use std::path::PathBuf;

use anstream::println;
use anyhow::{Context, Result, bail};
use lastgasp_core::hal::ReadStorage;
use lastgasp_core::store;
use lastgasp_hal_linux::{FileStorage, FormatOptions, MediumKind, StoreMemory, TORN_UNIT_DEFAULT};

use crate::check::bar;
use crate::size;

/// Makes an empty store in a new file or on a block device.
///
/// A file is created with its full size. A blank file, or one whose format was cut, is taken; anything else is left as
/// it is. On a block device, --force takes it whatever it holds, unless it is in use.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp format ./store --size 64M
  lastgasp format /dev/mmcblk0p3 --force      the whole partition, whatever it holds

Exit codes: 0 done, 2 it could not be done; then nothing was changed, but for a device taken by force.")]
pub(crate) struct Args {
    /// The file to create, or the block device.
    path: PathBuf,
    /// Size of the store, 512K to 4T: 64M, 1G, 512K (powers of 1024); a device is taken whole if none is given.
    #[arg(long, value_parser = size::parse)]
    size: Option<u64>,
    /// Takes a block device whatever it holds; everything on it is lost.
    #[arg(long)]
    force: bool,
    /// What a power cut can destroy around a write, in bytes: a power of two from 512 to 65536.
    #[arg(long, value_name = "BYTES", default_value_t = TORN_UNIT_DEFAULT)]
    torn_unit: u32,
    /// Makes the store also where nothing is sure to survive a power cut: tmpfs, an overlay, a RAM disk.
    #[arg(long)]
    allow_volatile: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let path = &args.path;
    let existed = fs::symlink_metadata(path).is_ok();
    if args.size.is_none() && !existed {
        bail!("{}: not found; to create a file, say how large with --size, for example --size 64M", path.display());
    }
    if args.size == Some(0) {
        bail!("a store of no size cannot be; the least is 512K");
    }
    let options = FormatOptions {
        torn_unit_bytes: args.torn_unit,
        allow_volatile: args.allow_volatile,
        force: args.force,
        ..FormatOptions::new(args.size.unwrap_or(0))
    };
    let mut bar_of_filling = None;
    let mut storage = FileStorage::create(path, &options, &mut |done, total| {
        bar_of_filling.get_or_insert_with(|| bar(total, "filling", total)).set_position(done);
    })?;
    if let Some(bar) = bar_of_filling {
        bar.finish_and_clear();
    }
    let store_id = getrandom::u64().context("taking a random number from the system failed")?;
    let geometry = storage.geometry();
    let mut memory = StoreMemory::new(&geometry);
    let formatted = store::format(&mut storage, memory.parts(), &store::FormatOptions { store_id });
    if let Err(error) = formatted {
        if !existed && storage.kind() == MediumKind::File {
            // It is blank as far as it goes: if it cannot be removed, the next format takes it.
            let _ = fs::remove_file(path);
        }
        bail!("{}: {error}", path.display());
    }
    println!(
        "{}: an empty store of {} ({} segments of {}), id {store_id:016x}",
        path.display(),
        size::human(geometry.total_bytes()),
        geometry.segments,
        size::human(u64::from(geometry.segment_bytes)),
    );
    Ok(())
}
