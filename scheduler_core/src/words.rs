//! Figures as a user would write them.

/// "1 node", "2 nodes".
pub fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Thousandths as a number with as many decimals as are needed: milli, permille.
pub fn thousandths(value: u64) -> String {
    let text = format!("{}.{:03}", value / 1000, value % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Microseconds as milliseconds, without the unit.
pub fn ms(us: u64) -> String {
    thousandths(us)
}

/// Kilobits a second as megabits, without the unit.
pub fn mbps(kbps: u64) -> String {
    thousandths(kbps)
}

/// Milliwatt as kilowatt to the watt, without the unit.
pub fn kw(mw: u128) -> String {
    thousandths(u64::try_from(mw / 1000).unwrap_or(u64::MAX))
}
