//! Arenas in memory of their own: a memtable's memory that an encoder thread can read while the writer goes on in
//! another.
//!
//! Invariants: a [`HeapArena`] has one owner, who alone writes; a [`FrozenHeapArena`] may have many, who only read;
//! thawing succeeds only for the last owner, so nobody ever reads bytes that change; what a burst touched goes back to
//! the system, so a node that is quiet again holds little memory.

use std::alloc::{Layout, handle_alloc_error};
use std::sync::Arc;

use lastgasp_core::hal::Arena;
use memmap2::MmapMut;

/// An arena that was used beyond this is taken anew from the system: the pages cost less than keeping them.
const KEPT_BYTES: usize = 1 << 20;
/// So much behind that tells whether it was: what is untouched is zero.
const PROBE_BYTES: usize = 4096;

/// Memory that can be written by its one owner.
#[derive(Debug)]
pub struct HeapArena {
    /// Not of the allocator, which keeps what is given back to it.
    bytes: MmapMut,
}

/// A frozen [`HeapArena`]: shared, read-only, cheap to clone and to send to another thread.
#[derive(Debug, Clone)]
pub struct FrozenHeapArena(Arc<HeapArena>);

impl HeapArena {
    /// Takes `len_bytes` of zeros from the system; pages that are never touched cost no memory.
    ///
    /// Like every allocation on Linux, it ends the process if the address space is exhausted.
    #[must_use]
    pub fn new(len_bytes: usize) -> Self {
        match MmapMut::map_anon(len_bytes.max(1)) {
            Ok(bytes) => Self { bytes },
            Err(_) => handle_alloc_error(Layout::array::<u8>(len_bytes).unwrap_or(Layout::new::<u8>())),
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn used_again(self) -> Self {
        let probe = self.bytes.get(KEPT_BYTES..).unwrap_or_default();
        let is_touched = probe.iter().take(PROBE_BYTES).any(|byte| *byte != 0);
        if !is_touched {
            return self;
        }
        let len_bytes = self.bytes.len();
        drop(self); // before the new one is taken, so that there are never both
        Self::new(len_bytes)
    }
}

impl FrozenHeapArena {
    /// How many owners read these bytes, this one included.
    #[must_use]
    pub fn readers(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl AsRef<[u8]> for FrozenHeapArena {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Arena for HeapArena {
    type Frozen = FrozenHeapArena;

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    fn freeze(self) -> FrozenHeapArena {
        FrozenHeapArena(Arc::new(self))
    }

    fn thaw(frozen: FrozenHeapArena) -> Result<Self, FrozenHeapArena> {
        Arc::try_unwrap(frozen.0).map(Self::used_again).map_err(FrozenHeapArena)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn an_arena_starts_as_zeros_and_keeps_what_is_written_across_freezing() {
        let mut arena = HeapArena::new(1 << 20);
        assert!(arena.as_slice().iter().all(|&b| b == 0));
        arena.bytes()[7] = 42;
        let address = arena.as_slice().as_ptr();
        let frozen = arena.freeze();
        assert_eq!(frozen.as_ref()[7], 42);
        let arena = HeapArena::thaw(frozen).unwrap();
        assert_eq!((arena.as_slice()[7], arena.len_bytes()), (42, 1 << 20));
        assert_eq!(arena.as_slice().as_ptr(), address, "the bytes are not copied");
    }

    #[test]
    fn thawing_waits_for_the_last_reader() {
        let frozen = HeapArena::new(64).freeze();
        let reader = frozen.clone();
        assert_eq!(frozen.readers(), 2);
        let (done, wait) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            wait.recv().unwrap();
            reader.as_ref().len()
        });
        let frozen = HeapArena::thaw(frozen).expect_err("a thread still reads it");
        done.send(()).unwrap();
        assert_eq!(thread.join().unwrap(), 64);
        assert!(HeapArena::thaw(frozen).is_ok());
    }
}
