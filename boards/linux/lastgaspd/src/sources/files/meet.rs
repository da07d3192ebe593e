//! Meeting files: which of those that were found is new, known, renamed, or a copy; and where each is begun.
//!
//! Invariants: a file is taken up where it was left only if it is in the same life still; what a file lost to
//! `copytruncate` is read from its copy, and the copy is no file of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::Follower;
use super::book::FILES_MAX;
use super::find::{Found, files_in, is_sibling};
use super::identity::{Id, Mark, Trail, is_front_of};
use super::tail::Tail;
use crate::config::Begin;
use crate::queue::Closed;

/// State entries of a batch without records.
pub(super) const STATES_AT_ONCE: usize = 16;

impl<E> Follower<'_, E> {
    /// Known files that are not followed and have a name that does not match: after a restart all of them, for their
    /// writers may still have them; later those that have grown.
    pub(super) fn find_renamed(&mut self, found: &Found, seen: &BTreeSet<Id>, is_first: bool) {
        let wanted: BTreeSet<Id> = self.book.absent().map(|(id, _)| id).filter(|id| !seen.contains(id)).collect();
        if wanted.is_empty() {
            return;
        }
        let parents = found.files.keys().filter_map(|path| path.parent().map(Path::to_owned));
        let directories: BTreeSet<PathBuf> = parents.chain(found.directories.iter().cloned()).collect();
        for (path, metadata) in directories.iter().flat_map(|directory| files_in(directory)) {
            let id = Id::from(&metadata);
            let Some(known) = wanted.contains(&id).then(|| self.book.get(id)).flatten().cloned() else { continue };
            if self.tails.contains_key(&id) || (!is_first && metadata.len() <= known.mark.offset) {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            if let Ok(Some(trail)) = Trail::resume(&file, &known.mark) {
                self.follow(id, file, &path, known.stream, trail);
                if let Some(tail) = self.tails.get_mut(&id) {
                    (tail.gone, tail.moved) = (true, true);
                }
            }
        }
    }

    /// A file that is not followed yet; `true` if the path leads to another one by now.
    pub(super) fn meet(&mut self, path: &Path, id: Id, is_first: bool) -> Result<bool, Closed> {
        match self.try_meet(path, id, is_first)? {
            Ok(is_there) => Ok(!is_there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => {
                self.refused.insert(path.to_owned(), error.to_string());
                Ok(false)
            }
        }
    }

    fn try_meet(&mut self, path: &Path, listed: Id, is_first: bool) -> Result<io::Result<bool>, Closed> {
        let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let (file, metadata) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let id = Id::from(&metadata);
        let known = self.book.get(id).map(|known| known.stream.clone());
        let mut stream = self.options.files.stream_of(&self.options.section, path);
        if id != listed {
            return Ok(Ok(false));
        }
        if self.tails.contains_key(&id) || !metadata.is_file() {
            return Ok(Ok(true));
        }
        let trail = match self.resume(id, &file, path, &stream)? {
            Ok(None) => match self.is_copy(&file, path) {
                Ok(true) => return Ok(Ok(true)),
                Ok(false) if is_first && self.book.is_new() && self.options.files.from == Begin::End => {
                    Trail::at(&file, metadata.len())
                }
                Ok(false) => Ok(Trail::default()),
                Err(error) => Err(error),
            },
            Ok(Some(trail)) => {
                // A file that was renamed keeps the stream it had; one that only has its inode does not.
                stream = known.unwrap_or(stream);
                Ok(trail)
            }
            Err(error) => Err(error),
        };
        Ok(trail.map(|trail| {
            self.follow(id, file, path, stream, trail);
            true
        }))
    }

    /// Where a known file was left, if it is in the same life still.
    fn resume(&mut self, id: Id, file: &File, path: &Path, stream: &str) -> Result<io::Result<Option<Trail>>, Closed> {
        let Some(mark) = self.book.get(id).map(|known| known.mark) else { return Ok(Ok(None)) };
        let resumed = Trail::resume(file, &mark);
        if matches!(resumed, Ok(None)) {
            self.rescue(id, path, stream, &mark)?;
        }
        Ok(resumed)
    }

    fn follow(&mut self, id: Id, file: File, path: &Path, stream: String, trail: Trail) {
        if !self.book.set(id, trail.mark(), &stream) || self.tails.len() >= FILES_MAX {
            self.too_many = true;
            return;
        }
        let watch = self.watch.file(&file);
        self.others.retain(|other| Some(*other) != watch);
        let tail = Tail {
            watch,
            file,
            path: path.to_owned(),
            stream,
            scanned: trail.offset(),
            trail,
            waits: false,
            dirty: true,
            grown_us: self.ctx.clock.now_us(),
            moved: false,
            gone: false,
            severity: None,
        };
        self.tails.insert(id, tail);
    }

    /// Whether a new file is a copy of one that is followed, as `copytruncate` makes it; or may become one.
    fn is_copy(&mut self, file: &File, path: &Path) -> io::Result<bool> {
        for tail in self.tails.values() {
            if tail.gone || tail.trail.offset() == 0 || !is_sibling(&tail.path, path) {
                continue;
            }
            // It may grow apart from the original; watched before it is looked at, or a change could go unseen.
            let watch = self.watch.file(file);
            // In this order: by the time the original is emptied the copy is whole.
            if tail.trail.holds(file)? || is_front_of(file, &tail.file)? || tail.trail.holds(file)? {
                self.others.extend(watch);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A file has lost what was read of it: if there is a copy, the rest is in there.
    pub(super) fn rescue(&mut self, id: Id, path: &Path, stream: &str, mark: &Mark) -> Result<(), Closed> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let mut copy = None;
        for (other, metadata) in files_in(parent).filter(|_| mark.offset > 0) {
            let other_id = Id::from(&metadata);
            if other_id == id
                || self.tails.contains_key(&other_id)
                || metadata.len() < mark.offset
                || !is_sibling(path, &other)
            {
                continue;
            }
            let Ok(file) = File::open(&other) else { continue };
            // It may have the inode of a file that is no more.
            let known = self.book.get(other_id).filter(|known| known.mark.offset > 0);
            if known.is_some_and(|known| matches!(Trail::resume(&file, &known.mark), Ok(Some(_)))) {
                continue;
            }
            if let Ok(Some(trail)) = Trail::resume(&file, mark) {
                copy = Some((other_id, file, other, trail));
                break;
            }
        }
        let start = Trail::default().mark();
        let of_copy = self.book.get(id).map_or_else(|| stream.to_owned(), |known| known.stream.clone());
        self.book.set(id, start, stream);
        if let Some((copy_id, file, other, trail)) = copy {
            self.follow(copy_id, file, &other, of_copy, trail);
            if let Some(tail) = self.tails.get_mut(&copy_id) {
                (tail.gone, tail.moved) = (true, true);
            }
            // Both at once: neither is the rest of the copy lost, nor is it read twice.
            self.note(&[id, copy_id])?;
            self.drain(copy_id)?;
        }
        Ok(())
    }

    /// Keeps how far these files were read, without a record.
    fn note(&mut self, ids: &[Id]) -> Result<(), Closed> {
        let states: BTreeMap<_, _> = ids.iter().flat_map(|id| self.book.states_with(*id)).collect();
        let parcel = self.parcel()?;
        for (key, value) in &states {
            parcel.state(key, value);
        }
        parcel.end_batch(None);
        Ok(())
    }

    /// Keeps that this section has begun, and where.
    pub(super) fn note_all(&mut self) -> Result<(), Closed> {
        let mut ids: Vec<Id> = self.tails.keys().copied().collect();
        ids.push(Id { dev: 0, ino: 0 });
        ids.chunks(STATES_AT_ONCE).try_for_each(|ids| self.note(ids))
    }
}
