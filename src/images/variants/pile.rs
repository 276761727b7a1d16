//! Which older side packs a new one takes over. Pure.
//!
//! A side pack cannot grow, and one a file would make a directory of files again, so each new one copies
//! the newer ones before it that are not much larger than itself. So a base has at most some log2 of its
//! variants' bytes in packs, and each byte is copied that often at most.

/// Bytes of a side pack that is not copied any more.
const MOST_BYTES: u64 = 64 << 20;
/// One of up to so many bytes is always copied: that costs less than to keep it apart.
const LEAST_BYTES: u64 = 64 << 10;
/// An older one is copied if it is at most so many times as large as what goes into the new one already.
const FACTOR: u64 = 2;

/// `newest_first`: bytes of the side packs there are. Returns how many of the first of them to take over.
pub(super) fn taken_over(bytes: u64, newest_first: &[u64]) -> usize {
    let mut sum = bytes;
    let takes = |older: &&u64| {
        let fits =
            **older <= sum.saturating_mul(FACTOR).max(LEAST_BYTES) && sum + **older <= MOST_BYTES;
        sum += **older;
        fits
    };
    newest_first.iter().take_while(takes).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones_are_merged_and_large_ones_left_alone() {
        const MIB: u64 = 1 << 20;
        for (bytes, there, taken) in [
            (10, &[][..], 0),
            (10, &[LEAST_BYTES], 1),
            (10, &[LEAST_BYTES + 1], 0),
            (MIB, &[2 * MIB], 1),
            (MIB, &[2 * MIB + 1], 0),
            (MIB, &[MIB, 4 * MIB, 10 * MIB], 3),
            (MIB, &[MIB, 5 * MIB, MIB], 1),
            (0, &[0], 1),
            (40 * MIB, &[30 * MIB], 0),
        ] {
            assert_eq!(taken_over(bytes, there), taken, "{bytes} over {there:?}");
        }
    }

    #[test]
    fn packs_stay_few_and_bytes_are_copied_seldom_whatever_comes() {
        let seed = std::env::var("BLOBSERVE_SEED").map_or_else(
            |_| fastrand::u64(..),
            |seed| seed.parse().expect("BLOBSERVE_SEED is a number"),
        );
        println!("BLOBSERVE_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut packs, mut fresh, mut copied): (Vec<u64>, u64, u64) = (Vec::new(), 0, 0);
        for _ in 0..2_000 {
            let bytes = random.u64(100..20_000);
            let taken = taken_over(bytes, &packs);
            let older: u64 = packs.drain(..taken).sum();
            packs.insert(0, bytes + older);
            (fresh, copied) = (fresh + bytes, copied + older);
            assert!(packs.len() <= 24, "{} packs", packs.len());
        }
        assert!(copied <= 16 * fresh, "{copied} bytes copied for {fresh}");
    }
}
