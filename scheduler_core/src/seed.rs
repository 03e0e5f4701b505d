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
