//! What the system's scheduler is told of our threads.

#![allow(unsafe_code)]

/// The longest slice that Linux takes (`sched_setattr(2)`), nanoseconds.
const LONG: u64 = 100_000_000;

/// Says of the calling thread that its work is long, and that nobody waits for each step of it: threads with the
/// usual slice, those of connections above all, run as soon as they have something to do, and not when this one
/// has had its slice. Its share of the processors stays the same. Linux 6.12 and later; nothing elsewhere, nor where
/// the system does not allow it.
pub(crate) fn work_is_long() {
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: plain numbers, for which zeros are valid.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let (own, no_flags) = (0, 0);
    // SAFETY: `attributes` has `size` bytes, which are all that the call writes.
    let read = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            own,
            &raw mut attributes,
            size,
            no_flags,
        )
    };
    let is_usual = attributes.sched_policy == libc::SCHED_OTHER as u32;
    if read != 0 || !is_usual {
        return;
    }
    attributes.sched_runtime = LONG;
    // SAFETY: the call reads as many bytes as `attributes.size` says, all of them ours.
    let set = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            own,
            &raw const attributes,
            no_flags,
        )
    };
    if set != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "the slice of a thread cannot be set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nice value and slice of the calling thread.
    fn told() -> (i32, u64) {
        // SAFETY: plain numbers, for which zeros are valid.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::sched_attr>();
        // SAFETY: as above: the call writes no more than `size` bytes.
        let read =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        assert_eq!(read, 0);
        (attributes.sched_nice, attributes.sched_runtime)
    }

    #[test]
    fn a_thread_keeps_its_nice_value_and_others_keep_their_slice() {
        let before = told();
        let thread = std::thread::spawn(|| {
            rustix::process::nice(3).unwrap();
            work_is_long();
            told()
        });
        let (nice, slice) = thread.join().unwrap();
        assert_eq!(nice, (before.0 + 3).min(19));
        // Linux before 6.12 says 0.
        assert!([0, LONG].contains(&slice), "{slice}");
        assert_eq!(told(), before);
    }
}
