//! A bump allocator for the start path, and the guard that no memory is allocated between clone and exec.
//!
//! musl's malloc takes a good part of a short command's run time. The first allocations of a process come from a
//! static arena instead, by moving a pointer; freeing there does nothing unless it was the last one. When the
//! arena is used up, the system's allocator takes over, so that a supervisor that runs for months does not grow.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A start with a network takes about half of it. Pages that nothing was put on take no memory.
const ARENA: usize = 1024 * 1024;

/// What every malloc gives, asked or not: byte buffers are handed to code (control messages of sockets, for one)
/// that looks at them as structures.
const ALIGN: usize = 16;

/// Set in a child's copy of memory from clone on: an allocation there could wait for a lock that another thread
/// of the parent held, forever.
static FORBIDDEN: AtomicBool = AtomicBool::new(false);

pub(crate) fn forbid() {
    FORBIDDEN.store(true, Ordering::Relaxed);
}

/// A global allocator; install it with `#[global_allocator]` in a program that wants the short start.
pub struct Bump {
    arena: UnsafeCell<[u8; ARENA]>,
    used: AtomicUsize,
}

impl Bump {
    /// An empty arena.
    #[must_use]
    pub const fn new() -> Bump {
        Bump { arena: UnsafeCell::new([0; ARENA]), used: AtomicUsize::new(0) }
    }

    /// Has the kernel provide the pages that every start touches, in one call instead of a fault for each. Where it
    /// cannot (before Linux 5.14, or with pages above 4 KiB that the arena does not begin with), they are faulted in.
    pub fn populate(&self) {
        const USUAL: usize = 128 * 1024;
        let begin = self.start().next_multiple_of(4096);
        // SAFETY: the pages from `begin` on lie in the arena; providing them changes nothing of what they hold.
        unsafe { libc::madvise(begin as *mut libc::c_void, USUAL, libc::MADV_POPULATE_WRITE) };
    }

    fn start(&self) -> usize {
        self.arena.get() as usize
    }

    fn owns(&self, pointer: *mut u8) -> bool {
        (self.start()..self.start() + ARENA).contains(&(pointer as usize))
    }

    fn bump(&self, layout: Layout) -> Option<*mut u8> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let begin = (self.start() + used).next_multiple_of(layout.align().max(ALIGN)) - self.start();
            let end = begin.checked_add(layout.size())?;
            if end > ARENA {
                return None;
            }
            match self.used.compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some((self.start() + begin) as *mut u8),
                Err(now) => used = now,
            }
        }
    }
}

impl Default for Bump {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: every byte of the arena is handed out at most once at a time: `used` only grows by compare-and-swap, and
// shrinks only from the end of the very allocation that is being returned.
unsafe impl Sync for Bump {}

// SAFETY: `bump` returns non-overlapping, aligned pieces of the arena; what it cannot serve goes to `System`, and
// `owns` tells the two apart by address.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if cfg!(debug_assertions) && FORBIDDEN.load(Ordering::Relaxed) {
            // SAFETY: abort has no preconditions; it is the point of the check.
            unsafe { libc::abort() };
        }
        match self.bump(layout) {
            Some(pointer) => pointer,
            // SAFETY: the caller's layout is passed on unchanged.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if self.owns(pointer) {
            // The last allocation can be taken back; any other stays until the process ends.
            let begin = pointer as usize - self.start();
            let end = begin + layout.size();
            let _ = self.used.compare_exchange(end, begin, Ordering::Relaxed, Ordering::Relaxed);
        } else {
            // SAFETY: not ours, so it came from `System` with this layout.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}
