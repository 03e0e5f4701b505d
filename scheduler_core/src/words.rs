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

/// "0.5 CPU", "2 CPU".
pub fn cpu(milli: u64) -> String {
    format!("{} CPU", thousandths(milli))
}

/// "512 MiB", "1.5 GiB": the larger unit where a quarter of it says it exactly.
pub fn memory(mib: u64) -> String {
    if is_in_gib(mib) {
        format!("{} GiB", gib(mib))
    } else {
        format!("{mib} MiB")
    }
}

/// What is free and what is asked of it, in the unit that suits what is asked. What is free is rounded
/// down, so it never looks like enough.
pub fn memory_pair(free_mib: u64, asked_mib: u64) -> (String, String) {
    let free = if is_in_gib(asked_mib) { format!("{} GiB", gib(free_mib)) } else { format!("{free_mib} MiB") };
    (free, memory(asked_mib))
}

fn is_in_gib(mib: u64) -> bool {
    mib >= 1024 && mib.is_multiple_of(256)
}

/// With two decimals at most, rounded down.
fn gib(mib: u64) -> String {
    thousandths(mib / 1024 * 1000 + mib % 1024 * 100 / 1024 * 10)
}

/// Devices as a task asks for them: "40 % of one A10", "2 H100".
pub fn devices(milli: u64, model: &str) -> String {
    if milli < 1000 {
        format!("{} of one {model}", percent(milli))
    } else {
        format!("{} {model}", thousandths(milli))
    }
}

/// The same of no model in particular: "40 % of one device", "2 devices".
pub fn any_devices(milli: u64) -> String {
    if milli < 1000 {
        devices(milli, "device")
    } else {
        plural((milli / 1000) as usize, "device")
    }
}

/// Thousandths of a whole: "40 %".
pub fn percent(milli: u64) -> String {
    format!("{} %", thousandths(milli * 100))
}

/// "450 W", "1.2 kW".
pub fn power(mw: u128) -> String {
    let mw = u64::try_from(mw).unwrap_or(u64::MAX);
    if mw < 1_000_000 {
        format!("{} W", thousandths(mw))
    } else {
        format!("{} kW", thousandths(mw / 1000))
    }
}

/// Microseconds as milliseconds, without the unit.
pub fn ms(us: u64) -> String {
    thousandths(us)
}

/// Kilobits a second as megabits, without the unit.
pub fn mbps(kbps: u64) -> String {
    thousandths(kbps)
}

/// Micro-CNY as CNY, in fen or finer: "1.20", "0.000004".
pub fn cny(microcny: u64) -> String {
    let text = format!("{}.{:06}", microcny / 1_000_000, microcny % 1_000_000);
    let least = text.len() - 4;
    let kept = text.trim_end_matches('0').len().max(least);
    text[..kept].to_string()
}

/// "1.20 CNY/h".
pub fn rent(microcny_per_hour: u64) -> String {
    format!("{} CNY/h", cny(microcny_per_hour))
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
    fn resources_are_told_in_units_that_a_user_would_write() {
        assert_eq!([0, 500, 2000, 4001].map(cpu), ["0 CPU", "0.5 CPU", "2 CPU", "4.001 CPU"]);
        let sizes = [0, 512, 1024, 1536, 1537, 4096, 1 << 20];
        let told = ["0 MiB", "512 MiB", "1 GiB", "1.5 GiB", "1537 MiB", "4 GiB", "1024 GiB"];
        assert_eq!(sizes.map(memory), told);
        let shares = [1, 333, 400, 1000, 2000].map(|milli| devices(milli, "A10"));
        assert_eq!(shares, ["0.1 % of one A10", "33.3 % of one A10", "40 % of one A10", "1 A10", "2 A10"]);
        assert_eq!([0, 6, 450_000, 1_200_000].map(power), ["0 W", "0.006 W", "450 W", "1.2 kW"]);
    }

    #[test]
    fn what_is_free_never_looks_like_what_is_asked() {
        let pair = |free, asked| memory_pair(free, asked);
        assert_eq!(pair(15_000, 16_384), ("14.64 GiB".into(), "16 GiB".into()));
        assert_eq!(pair(4095, 4096), ("3.99 GiB".into(), "4 GiB".into()));
        assert_eq!(pair(4096, 4097), ("4096 MiB".into(), "4097 MiB".into()));
        assert_eq!(pair(100, 512), ("100 MiB".into(), "512 MiB".into()));
    }

    #[test]
    fn money_and_durations_are_told_in_the_fewest_figures() {
        assert_eq!([0, 1_200_000, 4, 12_345_678].map(cny), ["0.00", "1.20", "0.000004", "12.345678"]);
        assert_eq!([59, 60, 61, 7500, 90_000].map(duration), ["59 s", "1 min", "1 min 1 s", "2 h 5 min", "1 d 1 h"]);
    }
}
