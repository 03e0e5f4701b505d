//! Reproducible draws: the same decision draws the same numbers.

/// FNV-1a of the evaluation, mixed with the generation.
pub fn seed(evaluation_id: &str, generation: u64) -> u64 {
    let hash =
        evaluation_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    mixed(hash, generation)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub fn mixed(seed: u64, value: u64) -> u64 {
    let mut z = seed.wrapping_add(value.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of draws from one seed.
pub struct Draws {
    seed: u64,
    count: u64,
}

impl Draws {
    pub fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    pub fn next(&mut self) -> u64 {
        self.count += 1;
        mixed(self.seed, self.count)
    }

    /// Evenly from 0 to `n` - 1; `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}
