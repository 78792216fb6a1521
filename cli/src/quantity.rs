//! Numbers, amounts, spans of time and lists of CPUs, as systemd's settings are written.

/// A number in plain decimal, without sign; zeros before it change nothing.
#[must_use]
pub fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A number in plain decimal, without sign and leading zeros.
#[must_use]
pub fn plain(text: &str) -> Option<u32> {
    let zeros = text.len() > 1 && text.starts_with('0');
    (!zeros && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A whole number with an optional decimal fraction, times `unit`.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = digits(whole).filter(|_| !whole.is_empty())?.checked_mul(unit)?;
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // More digits than nine change nothing that counts.
    let fraction = &fraction[..fraction.len().min(9)];
    let part =
        u128::from(digits(fraction)?) * u128::from(unit) / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_add(u64::try_from(part).ok()?)
}

/// An amount such as `64M` or `1.5 G`; its units are powers of `base`: 1024 for bytes, 1000 for rates.
#[must_use]
pub fn amount(text: &str, base: u64) -> Option<u64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let power = match text[end..].trim() {
        "" | "B" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return None,
    };
    scaled(&text[..end], base.checked_pow(power)?)
}

/// Microseconds of a span such as `1min 30s`: numbers with units; one without is in `unit` microseconds.
#[must_use]
pub fn microseconds(text: &str, unit: u64) -> Option<u64> {
    const UNITS: [(&[&str], u64); 7] = [
        (&["us", "usec", "µs"], 1),
        (&["ms", "msec"], 1_000),
        (&["s", "sec", "second", "seconds"], 1_000_000),
        (&["m", "min", "minute", "minutes"], 60_000_000),
        (&["h", "hr", "hour", "hours"], 3_600_000_000),
        (&["d", "day", "days"], 86_400_000_000),
        (&["w", "week", "weeks"], 604_800_000_000),
    ];
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len());
        let name = &behind[..end];
        let found = UNITS.iter().find(|(names, _)| names.contains(&name)).map(|(_, each)| *each);
        let each = if name.is_empty() { unit } else { found? };
        sum = sum.checked_add(scaled(number, each)?)?;
        rest = behind[end..].trim_start();
    }
    Some(sum)
}

/// CPUs or memory nodes by number and range, such as `0-3,7` or `0 1 2`: in order, each once.
#[must_use]
pub fn cpus(text: &str) -> Option<Vec<u32>> {
    // As many as the kernel can be built for.
    const MOST: u32 = 8192;
    let mut all = Vec::new();
    for word in text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty()) {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let number = |text| plain(text).filter(|n| *n < MOST);
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return None;
        }
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_a_base() {
        assert_eq!(amount("64K", 1024), Some(65536));
        assert_eq!(amount("1.5 G", 1024), Some(3 << 29));
        assert_eq!(amount("10M", 1000), Some(10_000_000));
        for text in ["", "M", "1.", ".5", "1Q", "-1", "99999999999E", "1 2"] {
            assert_eq!(amount(text, 1024), None, "{text}");
        }
    }

    #[test]
    fn spans_add_up() {
        for (text, unit, microseconds) in [
            ("5", 1_000_000, 5_000_000),
            ("5", 1, 5),
            ("1min 30s", 1, 90_000_000),
            ("1.5h2ms", 1, 5_400_002_000),
            ("7 µs", 1_000_000, 7),
        ] {
            assert_eq!(super::microseconds(text, unit), Some(microseconds), "{text}");
        }
        for text in ["", " ", "s", "1x", "-1s", "99999999999w"] {
            assert_eq!(super::microseconds(text, 1), None, "{text}");
        }
    }

    #[test]
    fn cpus_are_read() {
        assert_eq!(cpus("0-2,7 5\t5"), Some(vec![0, 1, 2, 5, 7]));
        assert_eq!(cpus(""), Some(vec![]));
        for text in ["x", "2-1", "1-", "-1", "8192", "0-99999999", "1-2-3"] {
            assert!(cpus(text).is_none(), "{text}");
        }
    }
}
