//! Values in systemd's grammar. Each function takes the text of one and says in its error what was expected.

use std::path::{Path, PathBuf};

use runtime::{Personality, ResourceLimit, UserNamespace};

/// What a reader of a value returns: the value, or what was expected instead.
pub(super) type Value<T> = Result<T, String>;

/// Ids that a user namespace gets where nothing else is said.
pub(super) const ID_RANGE: u32 = 0x1_0000;

/// Splits at the first colons that no backslash precedes, into at most `most` words; what is left after those is the
/// rest. A backslash stands for the character behind it.
pub(super) fn colons(text: &str, most: usize) -> Value<(Vec<String>, Option<&str>)> {
    let mut words = vec![String::new()];
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ':' if words.len() == most => return Ok((words, Some(&text[at + 1..]))),
            ':' => words.push(String::new()),
            '\\' => match chars.next() {
                Some((_, escaped)) => words.iter_mut().next_back().into_iter().for_each(|w| w.push(escaped)),
                None => return Err("a character behind the last backslash".to_owned()),
            },
            _ => words.iter_mut().next_back().into_iter().for_each(|word| word.push(c)),
        }
    }
    Ok((words, None))
}

/// `VALUE` of an `ID:VALUE`, and the id, which becomes a file's name.
pub(super) fn credential(text: &str) -> Value<(String, &str)> {
    let (id, value) = text.split_once(':').ok_or("a name and a value with a colon between")?;
    Ok((credential_name(id)?, value))
}

/// The name of a credential.
pub(super) fn credential_name(text: &str) -> Value<String> {
    let fits = |c: char| (' '..='~').contains(&c) && c != '/' && c != ':';
    if text.is_empty() || text.len() > 255 || text == "." || text == ".." || !text.chars().all(fits) {
        return Err("a name of at most 255 printable characters, without slash and colon".to_owned());
    }
    Ok(text.to_owned())
}

/// Resolves the escapes of C strings: `\n`, `\x41`, `\101`, `\u00e4` and the like.
pub(super) fn c_unescape(text: &str) -> Value<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let letter = rest.chars().next().ok_or("a character behind the last backslash")?;
        rest = &rest[letter.len_utf8()..];
        let mut number = |digits: usize, radix: u32, first: &str| -> Value<u32> {
            let more = rest.get(..digits).filter(|t| t.bytes().all(|b| char::from(b).is_digit(radix)));
            let more = more.ok_or(format!("{digits} more digits behind a backslash and {letter:?}"))?;
            rest = &rest[digits..];
            u32::from_str_radix(&format!("{first}{more}"), radix).map_err(|e| e.to_string())
        };
        match letter {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            's' => bytes.push(b' '),
            '\\' | '"' | '\'' => bytes.push(letter as u8),
            'x' => bytes.extend(u8::try_from(number(2, 16, "")?)),
            '0'..='7' => {
                let first = letter.to_string();
                let byte = u8::try_from(number(2, 8, &first)?);
                bytes.push(byte.map_err(|_| "an octal number up to \\377")?);
            }
            'u' | 'U' => {
                let code = number(if letter == 'u' { 4 } else { 8 }, 16, "")?;
                let c = char::from_u32(code).ok_or("the number of a Unicode character")?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Err(format!("one of C's escapes in place of a backslash and {letter:?}")),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// `NAME=VALUE`, or `NAME` for the value that we have ourselves.
pub(super) fn variable(text: &str) -> Value<(String, Option<String>)> {
    let set = crate::nspawn::setenv(text)
        .map_err(|_| "NAME=VALUE or NAME, with a NAME of letters, digits and _")?;
    let control = |c: char| c.is_ascii_control() && c != '\t' && c != '\n';
    if set.value.as_ref().is_some_and(|value| value.contains(control)) {
        return Err("a value without control characters".to_owned());
    }
    Ok((set.key, set.value))
}

/// The name of a link: 1 to 15 visible characters, neither slash, colon nor percent sign, not only digits.
pub(super) fn link(text: &str) -> Value<String> {
    let fits = |c: char| ('!'..='~').contains(&c) && !"/:%".contains(c);
    let taken = ["", ".", "..", "all", "default"].contains(&text);
    if taken || text.len() > 15 || !text.chars().all(fits) || text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(
            "names of links have 1 to 15 visible characters, without slash, colon and percent sign, and not \
                    only digits"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// `HOSTIF[:CONTAINERIF]`.
pub(super) fn link_pair(text: &str) -> Value<(String, Option<String>)> {
    match text.split_once(':') {
        Some((host, "")) => Ok((link(host)?, None)),
        Some((host, container)) => Ok((link(host)?, Some(link(container)?))),
        None => Ok((link(text)?, None)),
    }
}

/// A path without `.` and double slashes, made absolute from `here`.
pub(super) fn absolute(text: &str, here: &Path) -> PathBuf {
    here.join(text).components().collect()
}

/// An absolute path inside the container, without `..`.
pub(super) fn inside(text: &str) -> Value<PathBuf> {
    crate::nspawn::inside(text).map(|path| path.components().collect())
}

/// `no`, `yes`, `pick`, `identity` or `UIDBASE[:NUIDS]`.
pub(super) fn private_users(text: &str) -> Value<UserNamespace> {
    // Digits are never a boolean here: 0 and 1 are users.
    if text.bytes().any(|b| !b.is_ascii_digit())
        && let Ok(on) = crate::nspawn::boolean(text)
    {
        return Ok(if on { UserNamespace::OfRoot } else { UserNamespace::Host });
    }
    match text {
        "pick" => return Ok(UserNamespace::Pick),
        "identity" => return Ok(UserNamespace::Identity),
        _ => {}
    }
    let (base, length) = match text.split_once(':') {
        Some((base, length)) => (base, plain(length)),
        None => (text, Some(ID_RANGE)),
    };
    let base = user_id(base).ok_or("no, yes, pick, identity or UIDBASE[:NUIDS], such as 131072:65536")?;
    match length {
        Some(length) if length > 0 && base.checked_add(length).is_some() => {
            Ok(UserNamespace::Range { base, length })
        }
        _ => Err(format!("a range that is not empty and ends before {}", u32::MAX)),
    }
}

/// A user id: digits without needless zeros; the two that stand for "none" are no user's.
fn user_id(text: &str) -> Option<u32> {
    plain(text).filter(|id| *id != 0xffff && *id != u32::MAX)
}

/// A number in plain decimal, without sign and leading zeros.
fn plain(text: &str) -> Option<u32> {
    let zeros = text.len() > 1 && text.starts_with('0');
    (!zeros && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// The architecture that PID 1 shall see: the machine's or its 32-bit one.
pub(super) fn personality(text: &str) -> Value<Personality> {
    let (native, compat) = if cfg!(target_arch = "aarch64") { ("arm64", "arm") } else { ("x86-64", "x86") };
    match text {
        _ if text == native => Ok(Personality::Native),
        _ if text == compat => Ok(Personality::Compat),
        _ => Err(format!("{native} or {compat}")),
    }
}

/// From -1000 to 1000.
pub(super) fn oom_score(text: &str) -> Value<i32> {
    let number = text.parse().ok().filter(|score| (-1000..=1000).contains(score));
    number.ok_or_else(|| "a number from -1000 to 1000".to_owned())
}

/// CPUs by number and range, such as `0-3,7` or `0 1 2`.
pub(super) fn cpus(text: &str) -> Value<Vec<u32>> {
    // As many as the kernel can be built for.
    const MOST: u32 = 8192;
    let expected = || "numbers and ranges of CPUs, such as 0-3,7".to_owned();
    let mut all = Vec::new();
    for word in text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty()) {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let number = |text| plain(text).filter(|n| *n < MOST).ok_or_else(expected);
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(expected());
        }
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

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
pub(super) fn limit_names() -> impl Iterator<Item = &'static str> {
    LIMITS.iter().map(|(name, _)| *name)
}

/// getrlimit(2)'s name of a limit, which may be given with `RLIMIT_` or `Limit` before it.
pub(super) fn limit_name(text: &str) -> Option<&'static str> {
    let bare = ["RLIMIT_", "Limit"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    limit_names().find(|known| *known == bare)
}

/// `LIMIT` or `SOFT:HARD` for the limit of this name.
pub(super) fn limit(name: &str, value: &str) -> Value<ResourceLimit> {
    let unit = LIMITS.iter().find(|(known, _)| *known == name).map_or(Unit::Count, |(_, unit)| *unit);
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (limit_value(soft, unit)?, limit_value(hard, unit)?);
    if soft > hard {
        return Err("a soft limit that is not above the hard one".to_owned());
    }
    Ok(ResourceLimit { name: name.to_owned(), soft, hard })
}

fn limit_value(text: &str, unit: Unit) -> Value<u64> {
    if text == "infinity" {
        return Ok(u64::MAX);
    }
    let number = match unit {
        Unit::Count => digits(text),
        Unit::Bytes => bytes(text),
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

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
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

fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let shift = match text[end..].trim() {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return None,
    };
    scaled(&text[..end], 1 << shift)
}

/// A span of time: numbers with units, `unit` where there is none.
fn microseconds(text: &str, unit: u64) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_and_their_escapes() {
        let split = |text, most| colons(text, most).map(|(words, rest)| (words, rest.map(str::to_owned)));
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(split("/a:/b:c:d", 2), Ok((words(&["/a", "/b"]), Some("c:d".to_owned()))));
        assert_eq!(split(r"/a\:b:\\c\d", 2), Ok((words(&["/a:b", r"\cd"]), None)));
        assert_eq!(split("", 2), Ok((words(&[""]), None)));
        assert_eq!(split("::", 9), Ok((words(&["", "", ""]), None)));
        assert!(split(r"/a\", 2).is_err());
    }

    #[test]
    fn strings_of_c_are_unescaped() {
        for (text, bytes) in [
            ("plain", &b"plain"[..]),
            (r"a\nb\tc\\", b"a\nb\tc\\"),
            (r"\x41\101\0007\s", b"AA\x007 "),
            (r"\u00e4\U0001F600", "ä😀".as_bytes()),
            ("", b""),
        ] {
            assert_eq!(c_unescape(text).as_deref(), Ok(bytes), "{text}");
        }
        for text in [r"\", r"\q", r"\x4", r"\777", r"\08", r"\ud800", r"\uä000", r"\U00110000", r"\xä"] {
            assert!(c_unescape(text).is_err(), "{text}");
        }
    }

    #[test]
    fn users_are_read() {
        let range = |base, length| Ok(UserNamespace::Range { base, length });
        for (text, users) in [
            ("no", Ok(UserNamespace::Host)),
            ("false", Ok(UserNamespace::Host)),
            ("yes", Ok(UserNamespace::OfRoot)),
            ("pick", Ok(UserNamespace::Pick)),
            ("identity", Ok(UserNamespace::Identity)),
            ("0", range(0, 65536)),
            ("1", range(1, 65536)),
            ("131072:65536", range(131_072, 65536)),
            ("65536:1", range(65536, 1)),
        ] {
            assert_eq!(private_users(text), users, "{text}");
        }
        for text in [
            "",
            "x",
            "-1",
            "+1",
            "01",
            "1:",
            "1:0",
            "1:x",
            "65535",
            "4294967295",
            "4294967294:2",
            ":1",
            "Pick",
        ] {
            assert!(private_users(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_read() {
        let read = |text: &str| -> Value<(String, u64, u64)> {
            let (name, value) = text.split_once('=').ok_or("an assignment")?;
            let limit = limit(limit_name(name).ok_or("a name")?, value)?;
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

    #[test]
    fn cpus_are_read() {
        assert_eq!(cpus("0-2,7 5\t5"), Ok(vec![0, 1, 2, 5, 7]));
        assert_eq!(cpus(""), Ok(vec![]));
        for text in ["x", "2-1", "1-", "-1", "8192", "0-99999999", "1-2-3"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn links_have_short_plain_names() {
        assert_eq!(link_pair("a:b"), Ok(("a".into(), Some("b".into()))));
        assert_eq!(link_pair("a"), Ok(("a".into(), None)));
        for text in ["", ":", ":b", "a:b:c", "a b", "12", "a/b", "aaaaaaaaaaaaaaaa", "ä", "all"] {
            assert!(link_pair(text).is_err(), "{text}");
        }
    }
}
