//! How much of the work goes to dives, and how much to the other steps: more to what has gained more
//! for it of late. Work is counted and not timed, so it is the same on every machine.

/// What a look for a step of the others counts as, in cells of knapsacks: both take about as long.
const CELLS_PER_LOOK: u64 = 1 << 18;
/// What dives count as at the least: small ones are not for nothing either.
const CELLS_PER_DIVES_MIN: u64 = 1 << 20;
/// How much more dives get than the others where neither gains, at most and at least.
const DIVES_AHEAD: f64 = 3.0;
/// What each is hoped to gain for a cell, beside what it has gained: so neither ever counts as hopeless.
const HOPE: f64 = 1.0 / (1 << 27) as f64;
const MOST: f64 = 8.0;
const LEAST: f64 = 1.0 / 16.0;
/// What the proof of a table gets in each round, beside as much as the search takes.
const PROOF_CELLS_PER_ROUND: u64 = 1 << 19;
/// After so many cells what was gained before counts half.
const CELLS_PER_HALF: u64 = 1 << 29;

/// What was gained for how much work, of late.
#[derive(Default)]
struct Yield {
    gain: f64,
    cells: f64,
}

impl Yield {
    fn add(&mut self, cells: u64, gain_microcny: i128) {
        self.cells += cells as f64;
        self.gain += gain_microcny as f64;
    }

    /// Never 0: what has gained nothing yet may still do.
    fn rate(&self) -> f64 {
        HOPE + self.gain / (1.0 + self.cells)
    }
}

#[derive(Default)]
pub struct Share {
    dives: Yield,
    others: Yield,
    /// Work that the dives are owed; below 0: they are ahead.
    owed: f64,
    /// What the search has taken since the proof was last granted anything.
    searched: u64,
}

impl Share {
    /// For how many cells the proof may go on, which are granted by that.
    pub fn cells_for_proof(&mut self) -> u64 {
        PROOF_CELLS_PER_ROUND + std::mem::take(&mut self.searched)
    }

    /// The other steps have looked so many times.
    pub fn looked(&mut self, looks: usize, gain_microcny: i128) {
        let cells = looks as u64 * CELLS_PER_LOOK;
        self.searched += cells;
        self.others.add(cells, gain_microcny);
        self.owed +=
            cells as f64 * ((self.dives.rate() + (DIVES_AHEAD - 1.0) * HOPE) / self.others.rate()).clamp(LEAST, MOST);
    }

    /// Dives have taken so many cells.
    pub fn dived(&mut self, cells: u64, gain_microcny: i128) {
        let cells = cells.max(CELLS_PER_DIVES_MIN);
        self.searched += cells;
        self.dives.add(cells, gain_microcny);
        self.owed -= cells as f64;
        if self.dives.cells + self.others.cells > CELLS_PER_HALF as f64 {
            for of in [&mut self.dives, &mut self.others] {
                of.gain /= 2.0;
                of.cells /= 2.0;
            }
        }
    }

    pub fn is_dive_due(&self) -> bool {
        self.owed > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cells of dives in so many rounds where both gain so much for each million cells.
    fn dived(dives: i128, others: i128) -> u64 {
        let (mut share, mut cells) = (Share::default(), 0);
        for _ in 0..10_000 {
            share.looked(4, others);
            while share.is_dive_due() {
                share.dived(1 << 20, dives);
                cells += 1 << 20;
            }
        }
        cells
    }

    #[test]
    fn what_gains_more_gets_more_and_neither_gets_nothing() {
        let of_others = |dives, others| dived(dives, others) as f64 / (10_000_u64 << 20) as f64;
        let cases = [(0, 0), (5, 5), (0, 500), (500, 0)];
        let [neither, same, none, all] = cases.map(|(dives, others)| of_others(dives, others));
        assert!((0.9 * DIVES_AHEAD..1.1 * DIVES_AHEAD).contains(&neither), "{neither}");
        assert!((0.9..1.1).contains(&same), "{same}");
        assert!((LEAST..1.1 * LEAST).contains(&none), "{none}");
        assert!((0.9 * MOST..1.1 * MOST).contains(&all), "{all}");
    }
}
