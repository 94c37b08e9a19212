//! Maps by where a shared value lies. Addresses are not chosen by anybody outside, so they need no keyed hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from places in memory. Only for keys that nobody outside can choose.
pub(crate) type ByPlace<K, V> = HashMap<K, V, BuildHasherDefault<PlaceHasher>>;

/// Spreads addresses, whose low bits are alike, over all bits.
#[derive(Debug, Default)]
pub(crate) struct PlaceHasher(u64);

/// 2^64 over the golden ratio: multiplying by it spreads neighbours far apart (Knuth, TAOCP volume 3, section 6.4).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for PlaceHasher {
    fn finish(&self) -> u64 {
        // The map takes its bucket from the low bits, and the high ones are mixed best.
        let folded = (self.0 ^ (self.0 >> 32)).wrapping_mul(SPREAD);
        folded ^ (folded >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(29) ^ n).wrapping_mul(SPREAD);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_places_are_spread() {
        let bucket = |place: usize| {
            let mut hasher = PlaceHasher::default();
            hasher.write_usize(0x7f00_0000_1000 + 64 * place);
            hasher.finish() % 64
        };
        let buckets: std::collections::HashSet<_> = (0..64).map(bucket).collect();
        assert!(buckets.len() > 32, "{}", buckets.len());
    }
}
