//! Values in systemd's grammar. Each function takes the text of one and says in its error what was expected.

use runtime::{Personality, UserNamespace};

use crate::quantity::plain;

/// What a reader of a value returns: the value, or what was expected instead.
pub(super) type Value<T> = Result<T, String>;

/// Ids that a user namespace gets where nothing else is said.
pub(super) const ID_RANGE: u32 = 0x1_0000;

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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn links_have_short_plain_names() {
        assert_eq!(link_pair("a:b"), Ok(("a".into(), Some("b".into()))));
        assert_eq!(link_pair("a"), Ok(("a".into(), None)));
        for text in ["", ":", ":b", "a:b:c", "a b", "12", "a/b", "aaaaaaaaaaaaaaaa", "ä", "all"] {
            assert!(link_pair(text).is_err(), "{text}");
        }
    }
}
