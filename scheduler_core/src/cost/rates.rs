//! What energy, carbon and rent are at a site over a run of a task: the means over the time that
//! the run covers. Where no forecast reaches, or no time is known, the site's flat figures hold.

use crate::model::Run;
use crate::wire::mumian::api::v1 as api;

const HOUR_S: i64 = 3600;

/// The figures of a site that change by the hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub energy_kwh_microcny: u64,
    pub carbon_mg_per_kwh: u64,
    /// Millionths of the site's rent.
    pub rent_ppm: u64,
}

impl Rates {
    pub fn over(site: &api::Site, run: Run) -> Self {
        let tariff = site.prices.as_ref().map_or(0, |p| p.energy_kwh_microcny);
        let flat = [tariff, mg(site.carbon_g_per_kwh), 1_000_000];
        let forecast = site.forecast.as_ref().filter(|f| run.start_unix_s > 0 && !f.hours.is_empty());
        let means = forecast.map_or(flat, |forecast| means(forecast, flat, run));
        Self { energy_kwh_microcny: means[0], carbon_mg_per_kwh: means[1], rent_ppm: means[2] }
    }

    /// Whether no task can be cheaper here at the other rates.
    pub fn beats(&self, other: &Self) -> bool {
        self.energy_kwh_microcny <= other.energy_kwh_microcny
            && self.carbon_mg_per_kwh <= other.carbon_mg_per_kwh
            && self.rent_ppm <= other.rent_ppm
    }
}

fn mg(g: u32) -> u64 {
    u64::from(g) * 1000
}

/// Rounded down to whole units.
fn means(forecast: &api::Forecast, flat: [u64; 3], run: Run) -> [u64; 3] {
    let seconds = run.seconds.max(1).min(i64::MAX as u64) as i64;
    let end = run.start_unix_s.saturating_add(seconds);
    let first = (run.start_unix_s.saturating_sub(forecast.first_hour_unix_s) / HOUR_S).max(0) as usize;
    let mut sums = [0_u128; 3];
    let mut uncovered = seconds;
    for (i, hour) in forecast.hours.iter().enumerate().skip(first) {
        let begins = forecast.first_hour_unix_s.saturating_add(i as i64 * HOUR_S);
        if begins >= end {
            break;
        }
        let covered = (begins + HOUR_S).min(end) - begins.max(run.start_unix_s);
        let rent_ppm = if hour.rent_permille == 0 { 1_000_000 } else { u64::from(hour.rent_permille) * 1000 };
        let figures = [hour.energy_kwh_microcny, mg(hour.carbon_g_per_kwh), rent_ppm];
        sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += u128::from(figure) * covered as u128);
        uncovered -= covered;
    }
    let sum = sums.into_iter().zip(flat).map(|(sum, flat)| sum + u128::from(flat) * uncovered as u128);
    let mut means = sum.map(|sum| (sum / seconds as u128) as u64); // a mean is no more than the largest
    std::array::from_fn(|_| means.next().unwrap_or(0))
}
