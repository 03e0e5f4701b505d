//! How charges of tasks climb: deflected subgradient steps towards a cost that is known, which become shorter
//! where they gain nothing (Camerini, Fratta and Maffioli, "On improving relaxation methods by modified
//! gradient techniques", Mathematical Programming Study 3, 1975).

/// How much of the last direction is kept.
const INERTIA: f64 = 0.5;
/// Nothing is aimed at that is farther above what is proved.
const AIM_MAX: f64 = 0.02;

/// The charges, as far as they have come; all values are in 2^CHARGE_SHIFT parts.
pub struct Ascent {
    charges: Vec<f64>,
    pub best_charges: Vec<f64>,
    /// What the best charges prove.
    pub best: i64,
    direction: Vec<f64>,
    pub length: f64,
    steps_without_gain: u32,
    /// Steps without gain after which they become half as long.
    patience: u32,
}

impl Ascent {
    pub fn new(charges: Vec<f64>, length: f64, patience: u32) -> Self {
        Self {
            best_charges: charges.clone(),
            best: i64::MIN,
            direction: vec![0.0; charges.len()],
            charges,
            length,
            steps_without_gain: 0,
            patience,
        }
    }

    pub fn charges(&self) -> Vec<i64> {
        whole(&self.charges)
    }

    /// One step on from charges that have proved this value. `slope` is 1 for each task that nobody takes, and one less for
    /// each node that takes it; some solution costs `known`; no charge becomes more than the `most` of its task.
    pub fn step(&mut self, value: i64, slope: &[i32], known: i64, most: &[f64]) {
        self.steps_without_gain += 1;
        if value > self.best {
            self.best = value;
            self.best_charges.clone_from(&self.charges);
            self.steps_without_gain = 0;
        } else if self.steps_without_gain >= self.patience {
            self.steps_without_gain = 0;
            self.length /= 2.0;
            self.charges.clone_from(&self.best_charges);
            self.direction.fill(0.0);
            return;
        }
        let aim = (known as f64).min(self.best as f64 * (1.0 + AIM_MAX) + 1.0);
        let mut square = 0.0;
        for (direction, &slope) in self.direction.iter_mut().zip(slope) {
            *direction = f64::from(slope) + INERTIA * *direction;
            square += *direction * *direction;
        }
        let step = self.length * (aim - value as f64).max(1.0) / f64::max(square, 1e-9);
        for (charge, (direction, most)) in self.charges.iter_mut().zip(self.direction.iter().zip(most)) {
            *charge = (*charge + step * direction).clamp(0.0, *most);
        }
    }
}

/// Whole charges, which prove exactly what they add up to.
pub fn whole(charges: &[f64]) -> Vec<i64> {
    charges.iter().map(|charge| charge.round() as i64).collect()
}
