//! The prices as a planner reads them: per site and resource, for a core, a GiB or a device.

use std::collections::BTreeMap;

use super::{Prices, PRICE_SHIFT};
use crate::assignment::problem::{range, Problem, NONE, WHOLE};

/// What one more core, GiB or device at a site would save, in micro-CNY per hour, as far as
/// prices tell: a small amount lowers the least cost by about that much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowPrice {
    pub site: u32,
    /// "cpu", "memory" or an accelerator model.
    pub resource: String,
    pub microcny: i64,
}

/// Prices above 0, by site and resource. Where a site has several classes of nodes the highest
/// counts: a planner would add there. `model_name` names a model of the nodes of a class.
pub fn shadow_prices(problem: &Problem, prices: &Prices, model_name: impl Fn(u32, u32) -> String) -> Vec<ShadowPrice> {
    let mut highest: BTreeMap<(u32, String), i64> = BTreeMap::new();
    for (number, (class, amounts)) in (0..).zip(problem.classes.iter().zip(&prices.of_class)) {
        let mut tell = |resource: String, price: i64, units: i64| {
            let microcny = ((i128::from(price) * i128::from(units)) >> PRICE_SHIFT) as i64;
            let kept = highest.entry((class.site, resource)).or_default();
            *kept = microcny.max(*kept);
        };
        tell("cpu".into(), amounts[0], 1000);
        tell("memory".into(), amounts[1], 1024);
        for column in problem.columns[range(&class.columns)].iter().filter(|c| c.device_dim != NONE) {
            tell(model_name(number, column.model), amounts[column.device_dim as usize], WHOLE);
        }
    }
    let above_zero = highest.into_iter().filter(|(_, microcny)| *microcny > 0);
    above_zero.map(|((site, resource), microcny)| ShadowPrice { site, resource, microcny }).collect()
}
