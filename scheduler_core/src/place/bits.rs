//! A set of small numbers of which the next is found fast, however few there are.

const WORD: usize = 64;

/// Numbers below a length that is fixed.
#[derive(Default)]
pub struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// All numbers below `len`.
    pub fn all(len: usize) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(WORD)];
        if let Some(last) = words.last_mut() {
            *last >>= (WORD - len % WORD) % WORD;
        }
        Self { words }
    }

    pub fn insert(&mut self, number: usize) {
        self.words[number / WORD] |= 1 << (number % WORD);
    }

    pub fn remove(&mut self, number: usize) {
        self.words[number / WORD] &= !(1 << (number % WORD));
    }

    pub fn contains(&self, number: usize) -> bool {
        self.words[number / WORD] >> (number % WORD) & 1 == 1
    }

    /// The least number in the set that is not below `from`.
    pub fn next(&self, from: usize) -> Option<usize> {
        let first = self.words.get(from / WORD)? & (u64::MAX << (from % WORD));
        if first != 0 {
            return Some(from / WORD * WORD + first.trailing_zeros() as usize);
        }
        let later = self.words.iter().enumerate().skip(from / WORD + 1);
        later.filter(|(_, word)| **word != 0).map(|(w, word)| w * WORD + word.trailing_zeros() as usize).next()
    }
}

/// The numbers of the bits that are set, from the lowest on.
pub fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = (word != 0).then(|| word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
        number
    })
}

#[cfg(test)]
mod tests {
    use super::{ones, Bits};

    #[test]
    fn tells_each_bit_that_is_set() {
        assert_eq!(ones(0).count(), 0);
        assert_eq!(ones(1 << 63 | 0b101).collect::<Vec<_>>(), [0, 2, 63]);
        assert_eq!(ones(u64::MAX).collect::<Vec<_>>(), (0..64).collect::<Vec<_>>());
    }

    #[test]
    fn finds_each_number_that_is_left() {
        for len in [0, 1, 63, 64, 65, 200] {
            let mut bits = Bits::all(len);
            (0..len).filter(|n| n % 67 != 3).for_each(|n| bits.remove(n));
            let left = std::iter::successors(bits.next(0), |n| bits.next(n + 1));
            assert_eq!(left.collect::<Vec<_>>(), (0..len).filter(|n| n % 67 == 3).collect::<Vec<_>>());
        }
    }
}
