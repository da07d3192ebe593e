//! Making the place for a new store: one preallocated file, or a block device.
//!
//! Invariants: content that is not ours and not blank is never changed (a device: unless forced); a format that was
//! cut can be repeated, whatever it left; after an error nothing is left behind that was not there before. The bytes
//! of the store itself, headers and manifest, are the engine's: it formats on top of the storage returned here.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lastgasp_core::format::header::SegmentHeader;
use lastgasp_core::hal::Geometry;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use crate::geometry::{TORN_UNIT_DEFAULT, choose_geometry_with};
use crate::medium::{self, MediumKind};
use crate::open::{assemble, open_medium, refuse_volatile, take_lock};
use crate::open_error::{OpenError, sort};
use crate::probe::{Content, Probe};
use crate::storage::FileStorage;
use crate::syscalls::{Kernel, Syscalls, preallocate, write_zeros};

/// How much is zero-filled when a store is created; the rest when a segment is first used.
pub const FILLED_AT_CREATION_BYTES: u64 = 64 * 1024 * 1024;
/// One step of filling: written, synced and reported.
const STEP_BYTES: u64 = 4 * 1024 * 1024;
/// What other formats keep at the end of a device (a second partition table, RAID).
const TAIL_BYTES: u64 = 1024 * 1024;
/// First bytes of a segment that are wiped with an old header.
const HEADER_WIPE_BYTES: u64 = 4096;
/// The owner writes, the group reads.
const MODE: u32 = 0o640;

/// What store to make.
#[derive(Debug, Clone, Copy)]
pub struct FormatOptions {
    /// Greatest size of the store in bytes; 0 takes the size of the device, or of the blank file that is there.
    pub size_bytes: u64,
    /// What a power cut can destroy around a write, in bytes: 4096 unless the medium is known to be worse. On a block
    /// device it is raised to the page of the kernel (16 KiB on some boards), in which the page cache writes back.
    pub torn_unit_bytes: u32,
    /// Makes the store also where nothing is sure to survive a power cut (`--allow-volatile`).
    pub allow_volatile: bool,
    /// Block devices only: takes the device whatever it holds. Never one that is in use.
    pub force: bool,
}

impl FormatOptions {
    /// A store of at most `size_bytes`, with the usual torn unit.
    #[must_use]
    pub fn new(size_bytes: u64) -> Self {
        Self { size_bytes, torn_unit_bytes: TORN_UNIT_DEFAULT, allow_volatile: false, force: false }
    }
}

impl FileStorage {
    /// Makes the place for a store at `path` and opens it; the engine writes the store's own bytes.
    ///
    /// A file is created, or a blank or half-formatted one taken. `progress` is told (bytes done, bytes to do) at the
    /// start, after every 4 MiB that are on the medium, and at the end.
    ///
    /// # Power loss
    /// Before the engine's first sync there is no file, or one that is blank as far as it is there: calling again
    /// takes it. On a device taken by force, what it held is lost from the first moment.
    ///
    /// # Errors
    /// [`OpenError`]. A file that was made is removed again, one that was there has its old size; foreign content is
    /// untouched.
    pub fn create(
        path: impl AsRef<Path>,
        options: &FormatOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, OpenError> {
        create_with(path.as_ref(), options, progress, Arc::new(Kernel))
    }
}

pub(crate) fn create_with(
    path: &Path,
    options: &FormatOptions,
    progress: &mut dyn FnMut(u64, u64),
    sys: Arc<dyn Syscalls>,
) -> Result<FileStorage, OpenError> {
    let (file, kind, is_new) = create_or_open(path, options)?;
    // The lock comes first: only who holds it may remove the file again.
    let file = take_lock(path, file)?;
    let original_bytes = medium::size_bytes(&file, kind).map_err(|e| sort(path, "asking for the size", e))?;
    // Between making the file and getting its lock, another process may have made its store in it: then it is not ours
    // to remove any more.
    let is_new = is_new && original_bytes == 0;
    let mut undo = Undo { path, file: &file, kind, is_new, original_bytes, armed: true };
    refuse_volatile(path, &file, kind, options.allow_volatile)?;
    // What is judged blank must be so on the medium, and not in a cache alone.
    let _ = sys.drop_cache(file.as_fd(), 0, None);
    let probe = Probe { sys: sys.as_ref(), file: &file, kind, size_bytes: original_bytes };
    let content = probe.content().map_err(|e| sort(path, "reading", e))?;
    let content = match content {
        Content::Ours(h) if probe.is_half_made(&h).map_err(|e| sort(path, "reading", e))? => Content::HalfFormatted,
        content => content,
    };
    let old = may_format(path, kind, options.force, content)?;
    let geometry = geometry_for(path, &file, kind, options, original_bytes)?;
    let place = Place { path, file: &file, kind, sys: sys.as_ref(), geometry };
    let filled_bytes = place.allocate()?;
    place.fill(filled_bytes, old.as_deref(), progress)?;
    place.make_durable()?;
    undo.armed = false;
    drop(undo);
    Ok(assemble(path, file, kind, geometry, sys))
}

/// Creates the file, or opens what is there; `true` if it was created.
fn create_or_open(path: &Path, options: &FormatOptions) -> Result<(File, MediumKind, bool), OpenError> {
    // A size that cannot be is refused before anything is made; what is there is judged by its own rules below.
    let geometry = choose_geometry_with(options.size_bytes, options.torn_unit_bytes);
    if let (Err(source), Err(_)) = (geometry, fs::symlink_metadata(path)) {
        return Err(OpenError::Geometry { path: path.to_path_buf(), source });
    }
    if options.size_bytes == 0 {
        return open_medium(path, true).map(|(file, kind)| (file, kind, false));
    }
    let mut create = fs::OpenOptions::new();
    match create.read(true).write(true).create_new(true).mode(MODE).open(path) {
        Ok(file) => Ok((file, MediumKind::File, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            open_medium(path, true).map(|(file, kind)| (file, kind, false))
        }
        Err(error) => Err(sort(path, "creating", error)),
    }
}

/// Decides whether what is there may be overwritten; returns the header of an older store that will be.
fn may_format(
    path: &Path,
    kind: MediumKind,
    force: bool,
    content: Content,
) -> Result<Option<Box<SegmentHeader>>, OpenError> {
    let forced = force && kind == MediumKind::BlockDevice;
    let path = path.to_path_buf();
    match content {
        Content::Blank | Content::HalfFormatted => Ok(None),
        Content::Ours(header) if forced => Ok(Some(header)),
        _ if forced => Ok(None),
        Content::Ours(_) => Err(OpenError::AlreadyAStore { path }),
        Content::Newer { major } => Err(OpenError::NewerVersion { path, major }),
        Content::OnlyDamaged { at } => Err(OpenError::NoIntactHeader { path, damaged_at: at }),
        Content::Foreign { first_byte_at } => Err(OpenError::Foreign { path, first_byte_at }),
    }
}

fn geometry_for(
    path: &Path,
    file: &File,
    kind: MediumKind,
    options: &FormatOptions,
    present_bytes: u64,
) -> Result<Geometry, OpenError> {
    let size_bytes = if options.size_bytes == 0 { present_bytes } else { options.size_bytes };
    let mut torn_unit_bytes = options.torn_unit_bytes;
    if kind == MediumKind::BlockDevice {
        if size_bytes > present_bytes {
            let path = path.to_path_buf();
            return Err(OpenError::DeviceTooSmall { path, size_bytes, device_bytes: present_bytes });
        }
        let sector = medium::sector_bytes(file).map_err(|e| sort(path, "asking for the sector size", e))?;
        // The kernel writes a device back in blocks of up to a page: what shares one must be allowed to tear with it.
        let page = if torn_unit_bytes >= TORN_UNIT_DEFAULT { medium::page_bytes() } else { 0 };
        torn_unit_bytes = torn_unit_bytes.max(sector).max(page.min(65_536));
    }
    choose_geometry_with(size_bytes, torn_unit_bytes)
        .map_err(|source| OpenError::Geometry { path: path.to_path_buf(), source })
}

/// The place of a store that is being made.
struct Place<'a> {
    path: &'a Path,
    file: &'a File,
    kind: MediumKind,
    sys: &'a dyn Syscalls,
    geometry: Geometry,
}

impl Place<'_> {
    /// Gives the file its full size on the medium; returns how much of it must be filled with zeros now.
    fn allocate(&self) -> Result<u64, OpenError> {
        let total = self.geometry.total_bytes();
        let at_first = total.min(FILLED_AT_CREATION_BYTES);
        if self.kind == MediumKind::BlockDevice {
            return Ok(at_first);
        }
        let present = medium::size_bytes(self.file, self.kind).map_err(|e| self.sort("asking for the size", e))?;
        if present > total {
            self.sys.ftruncate(self.file.as_fd(), total).map_err(|e| self.sort("cutting", e))?;
        }
        self.stop_copy_on_write();
        match preallocate(self.sys, self.file.as_fd(), total) {
            Ok(true) => Ok(at_first),
            // No preallocation here: only what is written is sure to be there, so all of it is written.
            Ok(false) => Ok(total),
            Err(errno) => Err(self.sort("preallocating", errno)),
        }
    }

    /// On btrfs, an empty file can be told to be overwritten in place, as a store is. Where it does not work, the
    /// store is as safe, only its metadata changes with every write.
    fn stop_copy_on_write(&self) {
        if medium::is_btrfs(self.file).unwrap_or(false) {
            let _ = ioctl_getflags(self.file).and_then(|flags| ioctl_setflags(self.file, flags | IFlags::NOCOW));
        }
    }

    /// Writes the zeros, and takes away what an older or half-made store left beyond them.
    fn fill(
        &self,
        fill_bytes: u64,
        old: Option<&SegmentHeader>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), OpenError> {
        let mut done = 0_u64;
        progress(0, fill_bytes);
        while done < fill_bytes {
            let step = STEP_BYTES.min(fill_bytes.saturating_sub(done));
            self.zero(done, step)?;
            self.sys.fdatasync(self.file.as_fd()).map_err(|e| self.sort("syncing zeros", e))?;
            done = done.saturating_add(step);
            progress(done, fill_bytes);
        }
        self.wipe_header(self.geometry.segment_start(self.geometry.segments / 2), fill_bytes)?;
        for segment in 0..old.map_or(0, |old| old.segments) {
            let segment_bytes = old.map_or(0, |old| old.segment_bytes);
            self.wipe_header(u64::from(segment).saturating_mul(u64::from(segment_bytes)), fill_bytes)?;
        }
        if self.kind == MediumKind::BlockDevice {
            let end = self.present_bytes()?;
            let tail = end.saturating_sub(TAIL_BYTES).max(fill_bytes);
            self.zero(tail, end.saturating_sub(tail))?;
        }
        Ok(())
    }

    /// Wipes the place of one header, unless it lies in what is filled anyway or beyond the end.
    fn wipe_header(&self, at: u64, filled_bytes: u64) -> Result<(), OpenError> {
        let end = at.saturating_add(HEADER_WIPE_BYTES);
        if at < filled_bytes || end > self.present_bytes()? {
            return Ok(());
        }
        self.zero(at, HEADER_WIPE_BYTES)
    }

    fn present_bytes(&self) -> Result<u64, OpenError> {
        medium::size_bytes(self.file, self.kind).map_err(|e| self.sort("asking for the size", e))
    }

    fn zero(&self, at: u64, len_bytes: u64) -> Result<(), OpenError> {
        write_zeros(self.sys, self.file.as_fd(), at, len_bytes).map_err(|e| self.sort("writing zeros", e))
    }

    /// File, then the directory that names it.
    fn make_durable(&self) -> Result<(), OpenError> {
        self.sys.fsync(self.file.as_fd()).map_err(|e| self.sort("syncing", e))?;
        if self.kind == MediumKind::BlockDevice {
            return Ok(());
        }
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = File::open(parent).map_err(|e| self.sort("opening its directory", e))?;
        match self.sys.fsync(directory.as_fd()) {
            // Some file systems have no sync of directories; they write them at once.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(self.sort("syncing its directory", errno)),
        }
    }

    /// Sorts an error; running out of room gets the number of bytes that are missing.
    fn sort(&self, action: &'static str, error: impl Into<io::Error>) -> OpenError {
        let error = error.into();
        let (path, size_bytes) = (PathBuf::from(self.path), self.geometry.total_bytes());
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => {
                let have = medium::allocated_bytes(self.file)
                    .unwrap_or(0)
                    .saturating_add(medium::free_bytes(self.file).unwrap_or(0));
                // Reserved blocks and quotas do not show in the numbers: at least one block is missing for sure.
                let missing_bytes = size_bytes.saturating_sub(have).max(4096);
                OpenError::NoSpace { path, size_bytes, missing_bytes }
            }
            Some(Errno::FBIG) => OpenError::FileTooLarge { path, size_bytes },
            _ => sort(self.path, action, error),
        }
    }
}

/// Takes back what was made, unless it was completed.
struct Undo<'a> {
    path: &'a Path,
    file: &'a File,
    kind: MediumKind,
    is_new: bool,
    original_bytes: u64,
    armed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.armed || self.kind == MediumKind::BlockDevice {
            return;
        }
        // Errors here leave a blank file, which the next try takes.
        if self.is_new {
            let _ = fs::remove_file(self.path);
        } else if self.file.metadata().is_ok_and(|metadata| metadata.len() != self.original_bytes) {
            let _ = self.file.set_len(self.original_bytes);
        }
    }
}
