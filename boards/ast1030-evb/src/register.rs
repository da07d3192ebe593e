//! Memory-mapped registers: one volatile access each.

use core::ptr;

/// A register, or a window onto a bus, at a fixed address.
pub(crate) struct Register<T>(*mut T);

impl<T: Copy> Register<T> {
    /// Names the register at `address`.
    ///
    /// # Safety
    /// `address` is that of a device register which takes accesses of the size of `T` and is aligned for it, and
    /// neither reading nor writing it makes the device touch memory that Rust owns.
    pub(crate) const unsafe fn at(address: usize) -> Self {
        Self(address as *mut T)
    }

    /// Reads it once.
    pub(crate) fn read(&self) -> T {
        // SAFETY: whoever made this vouched for the address.
        unsafe { ptr::read_volatile(self.0) }
    }

    /// Writes it once.
    pub(crate) fn write(&mut self, value: T) {
        // SAFETY: whoever made this vouched for the address.
        unsafe { ptr::write_volatile(self.0, value) }
    }
}
