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

/// Micro-CNY as CNY, in fen or finer: "1.20", "0.000004".
pub fn cny(microcny: u64) -> String {
    let text = format!("{}.{:06}", microcny / 1_000_000, microcny % 1_000_000);
    let least = text.len() - 4;
    let kept = text.trim_end_matches('0').len().max(least);
    text[..kept].to_string()
}

/// Seconds in their two largest units: "2 h 5 min".
pub fn duration(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60);
    let two = |large: u64, unit: &str, small: u64, of: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {of}"),
    };
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => two(minutes, "min", seconds % 60, "s"),
        (24.., _) => two(hours / 24, "d", hours % 24, "h"),
        _ => two(hours, "h", minutes % 60, "min"),
    }
}

/// "2026-11-26 02:00 UTC": days to a date as in Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub fn utc(unix_s: i64) -> String {
    let (days, of_day) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", of_day / 3600, of_day / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_as_a_date_and_an_hour() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_795_658_460), "2026-11-26 02:01 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn money_and_durations_are_told_in_the_fewest_figures() {
        assert_eq!([0, 1_200_000, 4, 12_345_678].map(cny), ["0.00", "1.20", "0.000004", "12.345678"]);
        assert_eq!([59, 60, 61, 7500, 90_000].map(duration), ["59 s", "1 min", "1 min 1 s", "2 h 5 min", "1 d 1 h"]);
    }
}
