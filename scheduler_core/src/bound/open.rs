//! Which places are open to each task: nodes, and nowhere. One bit each.

#[derive(Clone)]
pub struct Open {
    words: Vec<u64>,
    words_per_task: usize,
    nowhere: u32,
}

impl Open {
    pub fn none(tasks: usize, nodes: usize) -> Self {
        let words_per_task = (nodes + 1).div_ceil(64);
        Self { words: vec![0; tasks * words_per_task], words_per_task, nowhere: nodes as u32 }
    }

    /// The place of a task that is left out.
    pub fn nowhere(&self) -> u32 {
        self.nowhere
    }

    /// How large it is, in words of 64 bits.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    pub fn add(&mut self, task: u32, place: u32) {
        self.row_mut(task)[place as usize / 64] |= 1 << (place % 64);
    }

    pub fn close(&mut self, task: u32, place: u32) {
        self.row_mut(task)[place as usize / 64] &= !(1 << (place % 64));
    }

    /// No other place.
    pub fn only(&mut self, task: u32, place: u32) {
        self.row_mut(task).fill(0);
        self.add(task, place);
    }

    pub fn has(&self, task: u32, place: u32) -> bool {
        self.row(task)[place as usize / 64] >> (place % 64) & 1 == 1
    }

    pub fn count(&self, task: u32) -> u32 {
        self.row(task).iter().map(|word| word.count_ones()).sum()
    }

    pub fn places(&self, task: u32) -> impl Iterator<Item = u32> + '_ {
        (0..=self.nowhere).filter(move |&place| self.has(task, place))
    }

    fn row(&self, task: u32) -> &[u64] {
        &self.words[task as usize * self.words_per_task..][..self.words_per_task]
    }

    fn row_mut(&mut self, task: u32) -> &mut [u64] {
        &mut self.words[task as usize * self.words_per_task..][..self.words_per_task]
    }
}
