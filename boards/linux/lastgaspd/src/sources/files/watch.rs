//! Tells when files grow and directories change: inotify, or the clock where there is none.
//!
//! Invariants: waiting never delays a stop; what was missed (a full queue, no room for a watch) is made good by looking
//! at everything after [`Watch::patience`].

use std::collections::BTreeSet;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use crate::stop::Stop;

/// Everything is looked at so often, though inotify says nothing: network file systems do not tell.
const PATIENCE: Duration = Duration::from_secs(30);
/// And so often without inotify.
const PATIENCE_BLIND: Duration = Duration::from_secs(1);

/// What has happened.
#[derive(Debug, Default)]
pub struct News {
    /// Watches of files that changed.
    pub files: BTreeSet<i32>,
    /// Look for files anew.
    pub rescan: bool,
    /// Events were lost: any file may have changed.
    pub all: bool,
}

/// Watches.
#[derive(Debug)]
pub struct Watch {
    inotify: Option<OwnedFd>,
    /// A watch was refused.
    is_partial: bool,
    directories: BTreeSet<i32>,
}

impl Default for Watch {
    /// None yet.
    fn default() -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        Self { is_partial: inotify.is_none(), inotify, directories: BTreeSet::new() }
    }
}

impl Watch {
    /// After so long everything is to be looked at.
    #[must_use]
    pub fn patience(&self) -> Duration {
        if self.is_partial { PATIENCE_BLIND } else { PATIENCE }
    }

    /// Watches an open file, wherever its name leads by now.
    pub fn file(&mut self, file: &File) -> Option<i32> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB | WatchFlags::DELETE_SELF;
        let wd = inotify::add_watch(self.inotify.as_ref()?, path.as_str(), flags).ok();
        self.is_partial |= wd.is_none();
        wd
    }

    /// Ends the watch of a file.
    pub fn leave(&mut self, wd: i32) {
        if let Some(inotify) = &self.inotify {
            let _ = inotify::remove_watch(inotify, wd);
        }
    }

    /// Watches what comes into a directory and leaves it.
    pub fn directory(&mut self, path: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let flags = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        match inotify::add_watch(inotify, path, flags) {
            Ok(wd) => drop(self.directories.insert(wd)),
            Err(_) => self.is_partial |= path.is_dir(),
        }
    }

    /// Waits for news; without any for at most so long. `None` if a stop was asked for.
    pub fn wait(&mut self, at_most: Duration, stop: &Stop) -> Option<News> {
        let seconds = i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX);
        let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(at_most.subsec_nanos()) };
        let stopped = stop.fd();
        let other = self.inotify.as_ref().map_or(stopped, AsFd::as_fd);
        let mut fds = [PollFd::new(&stopped, PollFlags::IN), PollFd::new(&other, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&time));
        (!stop.is_asked()).then(|| self.news())
    }

    /// What has happened by now.
    fn news(&mut self) -> News {
        let mut news = News::default();
        let Some(inotify) = &self.inotify else { return news };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                (news.rescan, news.all) = (true, true);
            } else if self.directories.contains(&event.wd()) {
                news.rescan = true;
                if what.contains(ReadFlags::IGNORED) {
                    self.directories.remove(&event.wd());
                }
            } else {
                news.files.insert(event.wd());
                news.rescan |= !what.contains(ReadFlags::MODIFY);
            }
        }
        news
    }
}
