//! Which parts of a mapping were in memory a moment ago, so that a warm answer does not ask the
//! kernel each time. Wrong at worst for [`LASTS`]: then one page fault blocks as any would.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

/// Bytes that are asked for, read in, and remembered together.
pub(super) const REGION: u64 = 64 << 10;
/// How long an answer of the kernel is believed, in milliseconds.
const LASTS: u32 = 1_000;

/// One stamp a region: milliseconds of [`now`] when all of it was in memory; 0 for never.
pub(super) struct Residency(Box<[AtomicU32]>);

impl Residency {
    pub(super) fn new(bytes: u64) -> Residency {
        Residency(
            (0..bytes.div_ceil(REGION))
                .map(|_| AtomicU32::new(0))
                .collect(),
        )
    }

    /// The whole regions that hold a range.
    pub(super) fn around(offset: u64, length: u64) -> Range<u64> {
        let end = offset.saturating_add(length);
        offset / REGION * REGION..end.checked_next_multiple_of(REGION).unwrap_or(u64::MAX)
    }

    /// Whether all regions of an [`around`](Residency::around) range were seen a moment ago.
    pub(super) fn is_recent(&self, regions: &Range<u64>, now: u32) -> bool {
        let recent = |stamp: u32| stamp != 0 && now.wrapping_sub(stamp) < LASTS;
        self.stamps(regions)
            .iter()
            .all(|stamp| recent(stamp.load(Relaxed)))
    }

    /// All regions of the range are in memory now.
    pub(super) fn mark(&self, regions: &Range<u64>, now: u32) {
        for stamp in self.stamps(regions) {
            stamp.store(now, Relaxed);
        }
    }

    fn stamps(&self, regions: &Range<u64>) -> &[AtomicU32] {
        let index = |at: u64| {
            usize::try_from(at / REGION).map_or(self.0.len(), |index| index.min(self.0.len()))
        };
        &self.0[index(regions.start)..index(regions.end)]
    }
}

/// Milliseconds since the first call, never 0. Comes round after 49 days, when a stamp of that age looks
/// new for a moment.
pub(super) fn now() -> u32 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_millis();
    // Cut to 32 bits on purpose.
    (elapsed as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_counts_as_resident_for_a_moment_and_only_itself() {
        let residency = Residency::new(3 * REGION + 1);
        let second = Residency::around(REGION + 5, 10);
        assert_eq!(second, REGION..2 * REGION);
        assert!(!residency.is_recent(&second, 1_000));
        residency.mark(&second, 1_000);
        assert!(residency.is_recent(&second, 1_000 + LASTS - 1));
        assert!(!residency.is_recent(&second, 1_000 + LASTS));
        assert!(!residency.is_recent(&Residency::around(REGION - 1, 2), 1_000));
        let end = Residency::around(3 * REGION, 1);
        residency.mark(&end, u32::MAX);
        assert!(residency.is_recent(&end, 5), "the clock came round");
        assert!(
            residency.is_recent(&Residency::around(u64::MAX - 1, 1), 0),
            "nothing to ask for past the end"
        );
    }
}
