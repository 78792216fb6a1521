//! Points in time as text.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time as in RFC 3339, in UTC with microseconds: `2026-01-02T03:04:05.678901Z`. One before 1970 is 1970.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86400, since.as_secs() % 86400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Year, month and day of the day with this number, counted from 1970-01-01. Years begin in March here, so that a leap
/// day is the last day of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01 to 1970-01-01
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // date -u -d @SECONDS
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
        let time = UNIX_EPOCH + Duration::from_micros(1_000_001);
        assert_eq!(rfc3339(time), "1970-01-01T00:00:01.000001Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut before, mut lengths) = (date(0), Vec::new());
        for number in 1..=146_097 {
            let (year, month, day) = date(number);
            match day {
                1 => {
                    lengths.push(before.2);
                    let next = if before.1 == 12 { (before.0 + 1, 1) } else { (before.0, before.1 + 1) };
                    assert_eq!((year, month), next);
                }
                _ => assert_eq!((year, month, day), (before.0, before.1, before.2 + 1)),
            }
            before = (year, month, day);
        }
        assert_eq!(before, (2370, 1, 1), "400 years have 146097 days");
        assert!(lengths.iter().all(|days| (28..=31).contains(days)));
    }
}
