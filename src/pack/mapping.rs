//! Files mapped into memory, and what happens when a page of one cannot be read. All
//! `unsafe` of the project is here.
//!
//! A fault inside a mapping (disk error, file cut short) is a `SIGBUS`. The handler puts a
//! page of zeros in its place and marks the mapping as poisoned; whoever read from it asks
//! [`Mapping::poisoned`] before handing the bytes on. A `SIGBUS` anywhere else ends the
//! process as if we had no handler.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Mappings at once. Linux allows a process 65,530 by default, ours among others.
const SLOTS: usize = 65_536;
/// Pages asked for in one `mincore` call.
const RESIDENCY_PAGES: usize = 512;

/// A live mapping as the signal handler sees it. `len` is 0 while the slot is free.
struct Slot {
    start: AtomicUsize,
    len: AtomicUsize,
    poisoned: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        poisoned: AtomicBool::new(false),
    }
}; SLOTS];
/// Slots from here on were never used.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Slots that were given back. Held for a push or pop only, never by the signal handler.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static PAGE: AtomicUsize = AtomicUsize::new(0);
/// What SIGBUS did before us; leaked once, so that the handler may read it.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());
static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();

/// A read-only mapping of a whole file.
pub(super) struct Mapping {
    map: memmap2::Mmap,
    slot: usize,
}

impl Mapping {
    /// Maps the file. It must not be shortened while mapped (else: poisoned, not undefined).
    pub(super) fn new(file: &File) -> io::Result<Mapping> {
        install()?;
        // SAFETY: the mapping is shared and read-only. Packs are private to this process
        // (directory 0700, under a lock) and never written after the rename that publishes them.
        let map = unsafe { memmap2::Mmap::map(file)? };
        let slot = take_slot()?;
        TABLE[slot].poisoned.store(false, Ordering::Relaxed);
        TABLE[slot]
            .start
            .store(map.as_ptr() as usize, Ordering::Release);
        TABLE[slot].len.store(map.len(), Ordering::Release);
        Ok(Mapping { map, slot })
    }

    /// The file's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// See [`super::Pack::poisoned`].
    pub(super) fn poisoned(&self) -> bool {
        TABLE[self.slot].poisoned.load(Ordering::Acquire)
    }

    /// Whole pages that hold the range, cut to the mapping: (address, bytes).
    fn pages(&self, offset: u64, length: u64) -> Option<(usize, usize)> {
        let len = self.map.len() as u64;
        let start = offset.min(len);
        let end = offset.saturating_add(length).min(len);
        if start >= end {
            return None;
        }
        let page = PAGE.load(Ordering::Relaxed) as u64;
        let first = start / page * page;
        Some((
            self.map.as_ptr() as usize + first as usize,
            (end - first) as usize,
        ))
    }

    /// See [`super::Pack::resident`].
    pub(super) fn resident(&self, offset: u64, length: u64) -> bool {
        let Some((mut address, mut len)) = self.pages(offset, length) else {
            return true;
        };
        let page = PAGE.load(Ordering::Relaxed);
        let mut states = [0u8; RESIDENCY_PAGES];
        while len > 0 {
            let piece = len.min(RESIDENCY_PAGES * page);
            // SAFETY: address is page aligned and inside our mapping; `states` has one byte
            // for each of the pages.
            let status = unsafe {
                libc::mincore(
                    address as *mut libc::c_void,
                    piece,
                    states.as_mut_ptr().cast(),
                )
            };
            if status != 0 || states[..piece.div_ceil(page)].iter().any(|s| s & 1 == 0) {
                return false;
            }
            address += piece;
            len -= piece;
        }
        true
    }

    /// See [`super::Pack::populate`].
    pub(super) fn populate(&self, offset: u64, length: u64) -> io::Result<()> {
        let Some((address, len)) = self.pages(offset, length) else {
            return self.check();
        };
        loop {
            // SAFETY: address is page aligned and inside our mapping; reading pages in does
            // not change what they hold.
            let status = unsafe {
                libc::madvise(address as *mut libc::c_void, len, libc::MADV_POPULATE_READ)
            };
            if status == 0 {
                return self.check();
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {}
                // Linux before 5.14.
                Some(libc::EINVAL | libc::ENOSYS) => return self.touch(address, len),
                Some(libc::EFAULT | libc::EIO | libc::EHWPOISON) => {
                    TABLE[self.slot].poisoned.store(true, Ordering::Release);
                    return Err(io::Error::from_raw_os_error(libc::EIO));
                }
                _ => return Err(error),
            }
        }
    }

    /// Reads a byte of every page; the signal handler sees those that fail.
    fn touch(&self, address: usize, len: usize) -> io::Result<()> {
        let start = address - self.map.as_ptr() as usize;
        for offset in (start..start + len).step_by(PAGE.load(Ordering::Relaxed)) {
            std::hint::black_box(self.map[offset]);
        }
        self.check()
    }

    fn check(&self) -> io::Result<()> {
        if self.poisoned() {
            Err(io::Error::from_raw_os_error(libc::EIO))
        } else {
            Ok(())
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before the pages go: another mapping may get the same addresses at once.
        TABLE[self.slot].len.store(0, Ordering::Release);
        TABLE[self.slot].start.store(0, Ordering::Release);
        FREE.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self.slot);
    }
}

fn take_slot() -> io::Result<usize> {
    if let Some(slot) = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop() {
        return Ok(slot);
    }
    USED.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
        (used < SLOTS).then_some(used + 1)
    })
    .map_err(|_| io::Error::other(format!("{SLOTS} packs are mapped, no more fit")))
}

fn install() -> io::Result<()> {
    let result = INSTALLED.get_or_init(|| {
        // SAFETY: plain system calls. The handler is async-signal-safe (see there); the box
        // for the previous action is never freed.
        unsafe {
            PAGE.store(
                libc::sysconf(libc::_SC_PAGESIZE) as usize,
                Ordering::Release,
            );
            let previous = Box::into_raw(Box::new(std::mem::zeroed::<libc::sigaction>()));
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), previous) != 0 {
                return Err(io::Error::last_os_error()
                    .raw_os_error()
                    .unwrap_or(libc::EIO));
            }
            PREVIOUS.store(previous, Ordering::Release);
            let mut action = std::mem::zeroed::<libc::sigaction>();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            if libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error()
                    .raw_os_error()
                    .unwrap_or(libc::EIO));
            }
        }
        Ok(())
    });
    result.map_err(io::Error::from_raw_os_error)
}

/// Async-signal-safe: atomics, `mmap`, `sigaction` and `raise` only; keeps `errno`.
extern "C" fn on_sigbus(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo; errno is this thread's own; the page that
    // is replaced lies inside a live read-only mapping of ours, which the faulting thread
    // borrows, and whose bytes nobody may trust once its flag is set.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        // Sent by a program (code ≤ 0), not by a fault: no address to repair.
        let fault = (*info).si_code > 0;
        if fault && repair((*info).si_addr() as usize) {
            *errno = saved;
            return;
        }
        // As without us: the action there was before sees the fault when it happens again.
        libc::sigaction(
            libc::SIGBUS,
            PREVIOUS.load(Ordering::Acquire),
            std::ptr::null_mut(),
        );
        if !fault {
            libc::raise(libc::SIGBUS);
        }
        *errno = saved;
    }
}

/// Maps zeros over the page of `address` if it is in one of our mappings.
///
/// # Safety
/// Only from the handler of a fault at `address`.
unsafe fn repair(address: usize) -> bool {
    let page = PAGE.load(Ordering::Acquire);
    for slot in TABLE.iter().take(USED.load(Ordering::Acquire)) {
        let start = slot.start.load(Ordering::Acquire);
        let len = slot.len.load(Ordering::Acquire);
        // A mapping's last page reaches to the page's end.
        if len == 0 || address < start || address >= start + len.next_multiple_of(page) {
            continue;
        }
        if slot.start.load(Ordering::Acquire) != start {
            continue;
        }
        slot.poisoned.store(true, Ordering::Release);
        // SAFETY: one whole page inside a mapping of ours, see `on_sigbus`.
        let mapped = unsafe {
            libc::mmap(
                (address & !(page - 1)) as *mut libc::c_void,
                page,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        return mapped != libc::MAP_FAILED;
    }
    false
}
