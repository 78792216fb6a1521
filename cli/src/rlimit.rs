//! Resource limits of processes (setrlimit(2)): their names, and how the value of each is written.

use runtime::ResourceLimit;

use crate::quantity::{amount, digits, microseconds};

/// How the value of a limit is written.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Count,
    Bytes,
    Seconds,
    Microseconds,
    Nice,
}

/// Every limit that there is.
const LIMITS: [(&str, Unit); 16] = [
    ("CPU", Unit::Seconds),
    ("FSIZE", Unit::Bytes),
    ("DATA", Unit::Bytes),
    ("STACK", Unit::Bytes),
    ("CORE", Unit::Bytes),
    ("RSS", Unit::Bytes),
    ("NOFILE", Unit::Count),
    ("AS", Unit::Bytes),
    ("NPROC", Unit::Count),
    ("MEMLOCK", Unit::Bytes),
    ("LOCKS", Unit::Count),
    ("SIGPENDING", Unit::Count),
    ("MSGQUEUE", Unit::Bytes),
    ("NICE", Unit::Nice),
    ("RTPRIO", Unit::Count),
    ("RTTIME", Unit::Microseconds),
];

/// The names of all limits.
pub fn names() -> impl Iterator<Item = &'static str> {
    LIMITS.iter().map(|(name, _)| *name)
}

/// The name of a limit, which may be given with `RLIMIT_` or `Limit` before it.
#[must_use]
pub fn name(text: &str) -> Option<&'static str> {
    let bare = ["RLIMIT_", "Limit"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    names().find(|known| *known == bare)
}

/// Reads `LIMIT` or `SOFT:HARD` for the limit of this name.
///
/// # Errors
/// What was expected.
pub fn limit(name: &str, value: &str) -> Result<ResourceLimit, String> {
    let unit = LIMITS.iter().find(|(known, _)| *known == name).map_or(Unit::Count, |(_, unit)| *unit);
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (limit_value(soft, unit)?, limit_value(hard, unit)?);
    if soft > hard {
        return Err("a soft limit that is not above the hard one".to_owned());
    }
    Ok(ResourceLimit { name: name.to_owned(), soft, hard })
}

fn limit_value(text: &str, unit: Unit) -> Result<u64, String> {
    if text == "infinity" {
        return Ok(u64::MAX);
    }
    let number = match unit {
        Unit::Count => digits(text),
        Unit::Bytes => amount(text, 1024),
        Unit::Seconds => microseconds(text, 1_000_000).map(|time| time.div_ceil(1_000_000)),
        Unit::Microseconds => microseconds(text, 1),
        Unit::Nice => nice(text),
    };
    number.filter(|number| *number != u64::MAX).ok_or_else(|| {
        let form = match unit {
            Unit::Count => "a number",
            Unit::Bytes => "a number of bytes, such as 65536 or 64M",
            Unit::Seconds | Unit::Microseconds => "a span of time, such as 90s or 1min 30s",
            Unit::Nice => "+N or -N for a nice level, or a number up to 40",
        };
        format!("{form}, or infinity")
    })
}

/// The kernel counts nice levels from 1 (nice 19) to 40 (nice -20).
fn nice(text: &str) -> Option<u64> {
    let Some(first) = text.chars().next().filter(|c| "+-".contains(*c)) else {
        return digits(text).filter(|level| *level <= 40);
    };
    let level = i64::try_from(digits(&text[1..])?).ok()?;
    let level = if first == '-' { -level } else { level };
    if !(-20..=19).contains(&level) {
        return None;
    }
    u64::try_from(20 - level).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let read = |text: &str| -> Result<(String, u64, u64), String> {
            let (name, value) = text.split_once('=').ok_or("an assignment")?;
            let limit = limit(super::name(name).ok_or("a name")?, value)?;
            Ok((limit.name, limit.soft, limit.hard))
        };
        let is = |name: &str, soft, hard| Ok((name.to_owned(), soft, hard));
        for (text, expected) in [
            ("NOFILE=1024", is("NOFILE", 1024, 1024)),
            ("RLIMIT_NOFILE=1:2", is("NOFILE", 1, 2)),
            ("LimitNOFILE=1:infinity", is("NOFILE", 1, u64::MAX)),
            ("AS=64K:1.5G", is("AS", 65536, 3 << 29)),
            ("CPU=1500ms:1min 30", is("CPU", 2, 90)),
            ("CPU=5", is("CPU", 5, 5)),
            ("RTTIME=5:1s", is("RTTIME", 5, 1_000_000)),
            ("NICE=+19:-20", is("NICE", 1, 40)),
            ("NICE=7", is("NICE", 7, 7)),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        for text in [
            "",
            "=",
            "NOFILE",
            "NOFILE=",
            "nofile=1",
            "FOO=1",
            "NOFILE=-1",
            "NOFILE=2:1",
            "NOFILE=1:",
            "NOFILE=1:2:3",
            "AS=1Q",
            "AS=99999999999E",
            "NICE=+20",
            "NICE=41",
            "CPU=1x",
            "CPU=",
            "NOFILE=18446744073709551615",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
