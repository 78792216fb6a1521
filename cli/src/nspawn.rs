//! Values of options that systemd-nspawn has too, in its grammar.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use netsetup::{Forward, Nat};
use runtime::{BindIds, BindSource, CapSet, Console, Mount};

use crate::{forward, nixos_conf, signals};

/// `--setenv`: a variable and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetEnv {
    /// Name of the variable.
    pub key: String,
    /// Its value; `None` for the one that it has in nixrun's own environment.
    pub value: Option<String>,
}

impl SetEnv {
    /// The variable as the program gets it; one whose value was to be ours is empty when we have none, as
    /// systemd-nspawn has it.
    #[must_use]
    pub fn resolve(&self) -> (OsString, OsString) {
        let value = self.value.clone().map(OsString::from).or_else(|| std::env::var_os(&self.key));
        (self.key.clone().into(), value.unwrap_or_default())
    }
}

/// Reads `PATH[:PATH[:OPTIONS]]`, the first one below `here` if it is relative: a mount of what the host has there, or
/// the container's root where a `+` comes before it, or of a new directory if it is empty.
///
/// # Errors
/// A sentence that says what was expected.
pub fn bind(text: &str, read_only: bool, here: &Path) -> Result<Mount, String> {
    let (words, options) = colons(text, 2)?;
    let from = words.first().map_or("", String::as_str);
    let to = words.get(1).map_or_else(|| from.strip_prefix('+').unwrap_or(from), String::as_str);
    let (recursive, ids) = bind_options(options.unwrap_or_default())?;
    let target = inside(to)?;
    Ok(Mount::Bind { source: source_or_temporary(from, here)?, target, read_only, recursive, ids })
}

/// Reads `--bind`, see [`bind`].
///
/// # Errors
/// A sentence that says what was expected.
pub fn bind_writable(text: &str) -> Result<Mount, String> {
    bind(text, false, &here()?)
}

/// Reads `--bind-ro`, see [`bind`].
///
/// # Errors
/// A sentence that says what was expected.
pub fn bind_read_only(text: &str) -> Result<Mount, String> {
    bind(text, true, &here()?)
}

fn here() -> Result<PathBuf, String> {
    std::env::current_dir().map_err(|error| format!("cannot find the working directory: {error}"))
}

fn bind_options(text: &str) -> Result<(bool, BindIds), String> {
    let (mut recursive, mut ids) = (true, BindIds::Auto);
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rbind" => recursive = true,
            "norbind" => recursive = false,
            "noidmap" => ids = BindIds::Host,
            "idmap" => ids = BindIds::Map,
            "rootidmap" => ids = BindIds::Root,
            "owneridmap" => ids = BindIds::Owner,
            _ => {
                return Err(format!(
                    "expected rbind, norbind, noidmap, idmap, rootidmap or owneridmap in place of the option {option:?}"
                ));
            }
        }
    }
    Ok((recursive, ids))
}

/// Reads `PATH[:OPTIONS]`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn tmpfs(text: &str) -> Result<Mount, String> {
    let (words, options) = colons(text, 1)?;
    let target = inside(words.first().map_or("", String::as_str))?;
    let options = options.filter(|options| !options.is_empty()).unwrap_or("mode=0755").to_owned();
    Ok(Mount::Tmpfs { target, options })
}

/// A path that something is mounted from.
pub(crate) fn source(text: &str, here: &Path) -> Result<BindSource, String> {
    match text.strip_prefix('+') {
        _ if text.is_empty() => Err("expected a path".to_owned()),
        Some(within) => Ok(BindSource::InRoot(inside(within)?)),
        None => Ok(BindSource::Host(absolute(text, here))),
    }
}

/// The same, or empty: a directory that is made and goes away with the container.
pub(crate) fn source_or_temporary(text: &str, here: &Path) -> Result<BindSource, String> {
    if text.is_empty() { Ok(BindSource::Temporary) } else { source(text, here) }
}

/// Splits at the first colons that no backslash precedes, into at most `most` words; what is left after those is the
/// rest. A backslash stands for the character behind it.
pub(crate) fn colons(text: &str, most: usize) -> Result<(Vec<String>, Option<&str>), String> {
    let mut words = vec![String::new()];
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ':' if words.len() == most => return Ok((words, Some(&text[at + 1..]))),
            ':' => words.push(String::new()),
            '\\' => match chars.next() {
                Some((_, escaped)) => words.iter_mut().next_back().into_iter().for_each(|w| w.push(escaped)),
                None => return Err("expected a character behind the last backslash".to_owned()),
            },
            _ => words.iter_mut().next_back().into_iter().for_each(|word| word.push(c)),
        }
    }
    Ok((words, None))
}

/// A path without `.` and double slashes, made absolute from `here`.
pub(crate) fn absolute(text: &str, here: &Path) -> PathBuf {
    here.join(text).components().collect()
}

/// Reads an absolute path without `..`; `.` and double slashes in it go.
///
/// # Errors
/// A sentence that says what was expected.
pub fn inside(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if path.is_absolute() && path.components().all(|c| c != Component::ParentDir) {
        Ok(path.components().collect())
    } else {
        Err(format!("expected an absolute path without .. in place of {text:?}"))
    }
}

/// Reads `KEY=VALUE` or `KEY`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn setenv(text: &str) -> Result<SetEnv, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    let mut chars = key.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("expected KEY=VALUE or KEY, with a KEY of letters, digits and _".to_owned());
    }
    Ok(SetEnv { key: key.to_owned(), value })
}

/// Reads a UUID or machine id: 32 hexadecimal digits, with or without the usual dashes.
///
/// # Errors
/// A sentence that says what was expected.
pub fn uuid(text: &str) -> Result<[u8; 16], String> {
    let expected = || "expected 32 hexadecimal digits, not all zero, with or without dashes".to_owned();
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    if !(dashes.is_empty() || dashes == [8, 13, 18, 23]) {
        return Err(expected());
    }
    let digits = text.replace('-', "");
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(expected());
    }
    match u128::from_str_radix(&digits, 16) {
        Ok(number) if number != 0 => Ok(number.to_be_bytes()),
        _ => Err(expected()),
    }
}

/// Reads `auto`, `no` or the name of a link.
///
/// # Errors
/// A sentence that says what was expected.
pub fn nat(text: &str) -> Result<Nat, String> {
    match text {
        "auto" => Ok(Nat::Auto),
        "no" => Ok(Nat::No),
        _ => link(text).map(Nat::Interface),
    }
}

/// Reads what the console is to be connected to.
///
/// # Errors
/// A sentence that says what was expected.
pub fn console(text: &str) -> Result<Console, String> {
    match text {
        "interactive" => Ok(Console::Interactive),
        "read-only" => Ok(Console::ReadOnly),
        "pipe" => Ok(Console::Pipe),
        _ => Err("expected interactive, read-only or pipe".to_owned()),
    }
}

/// Reads a boolean as systemd does.
///
/// # Errors
/// A sentence that says what was expected.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err("expected yes or no".to_owned()),
    }
}

/// Reads the name of a link.
///
/// # Errors
/// A sentence that says what was expected.
pub fn link(text: &str) -> Result<String, String> {
    nixos_conf::link_name(text).map_err(expected)
}

/// Reads a forwarded port, see [`forward::parse`].
///
/// # Errors
/// A sentence that says what was expected.
pub fn port(text: &str) -> Result<Forward, String> {
    forward::parse(text).map_err(expected)
}

/// Reads a signal, see [`signals::parse`].
///
/// # Errors
/// A sentence that says what was expected.
pub fn signal(text: &str) -> Result<i32, String> {
    signals::parse(text).map_err(expected)
}

/// Reads an IPv4 address with or without a prefix.
///
/// # Errors
/// A sentence that says what was expected.
pub fn net4(text: &str) -> Result<Ipv4Net, String> {
    nixos_conf::local_address(text).map_err(expected)
}

/// Reads an IPv6 address with or without a prefix.
///
/// # Errors
/// A sentence that says what was expected.
pub fn net6(text: &str) -> Result<Ipv6Net, String> {
    nixos_conf::local_address6(text).map_err(expected)
}

/// Reads a list of capabilities.
///
/// # Errors
/// A sentence that says what was expected.
pub fn capabilities(text: &str) -> Result<CapSet, String> {
    CapSet::parse(text).map_err(|e| e.to_string())
}

fn expected(what: impl std::fmt::Display) -> String {
    format!("expected {what}")
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
    fn bind_mounts_are_read() {
        let host = |path: &str| BindSource::Host(path.into());
        for (text, source, target, recursive, ids) in [
            ("/a", host("/a"), "/a", true, BindIds::Auto),
            ("/a:/b", host("/a"), "/b", true, BindIds::Auto),
            ("a/./c:/b", host("/here/a/c"), "/b", true, BindIds::Auto),
            ("/a:/b:norbind,rbind,noidmap", host("/a"), "/b", true, BindIds::Host),
            ("/a:/b:norbind,rootidmap", host("/a"), "/b", false, BindIds::Root),
            ("+/a:/b", BindSource::InRoot("/a".into()), "/b", true, BindIds::Auto),
            (":/b", BindSource::Temporary, "/b", true, BindIds::Auto),
            ("/a\\:b:/c\\\\d", host("/a:b"), "/c\\d", true, BindIds::Auto),
        ] {
            let expected = Mount::Bind { source, target: target.into(), read_only: true, recursive, ids };
            assert_eq!(bind(text, true, Path::new("/here")), Ok(expected), "{text}");
        }
    }

    #[test]
    fn wrong_bind_mounts_are_refused() {
        for (text, why) in [
            ("", "absolute path"),
            ("a", "absolute path"),
            ("/a:b", "absolute path"),
            ("/a:/../b", "absolute path"),
            ("+a:/b", "absolute path"),
            ("/a:/b:ro", "the option \"ro\""),
            ("/a\\", "backslash"),
        ] {
            let sentence = bind(text, false, Path::new("/here")).unwrap_err();
            assert!(sentence.starts_with("expected ") && sentence.contains(why), "{text:?}: {sentence}");
        }
    }

    #[test]
    fn tmpfs_has_a_default_mode() {
        let made =
            |target: &str, options: &str| Ok(Mount::Tmpfs { target: target.into(), options: options.into() });
        assert_eq!(tmpfs("/a"), made("/a", "mode=0755"));
        assert_eq!(tmpfs("/a\\:b:size=10%"), made("/a:b", "size=10%"));
        for text in ["", "a", "/a/../b"] {
            assert!(tmpfs(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn variables_are_read() {
        let read = |text| setenv(text).map(|e| (e.key, e.value));
        assert_eq!(read("A=b=c"), Ok(("A".into(), Some("b=c".into()))));
        assert_eq!(read("A="), Ok(("A".into(), Some(String::new()))));
        assert_eq!(read("A_1"), Ok(("A_1".into(), None)));
        for text in ["", "=a", "1A=b", "A B=c", "Ä=b"] {
            assert!(setenv(text).is_err(), "{text:?}");
        }
        // cargo sets this one for every test.
        let ours = setenv("CARGO_PKG_NAME").unwrap().resolve();
        assert_eq!(ours, ("CARGO_PKG_NAME".into(), std::env::var_os("CARGO_PKG_NAME").unwrap()));
        assert_eq!(setenv("NIXRUN_TEST_UNSET").unwrap().resolve(), ("NIXRUN_TEST_UNSET".into(), "".into()));
    }

    #[test]
    fn uuids_are_read() {
        let bytes = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(uuid("12345678-9abc-def0-0001-020304050607"), Ok(bytes));
        assert_eq!(uuid("123456789ABCDEF00001020304050607"), Ok(bytes));
        for text in [
            "",
            "123456789abcdef0000102030405060",
            "123456789abcdef000010203040506077",
            "+23456789abcdef00001020304050607",
            "1234-56789abcdef00001020304050607",
            "00000000000000000000000000000000",
        ] {
            assert!(uuid(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn words_have_a_closed_set() {
        assert_eq!(nat("auto"), Ok(Nat::Auto));
        assert_eq!(nat("no"), Ok(Nat::No));
        assert_eq!(nat("eth0"), Ok(Nat::Interface("eth0".into())));
        assert!(nat("a/b").is_err());
        assert_eq!(console("pipe"), Ok(Console::Pipe));
        assert!(console("Pipe").is_err());
        assert_eq!((boolean("yes"), boolean("OFF")), (Ok(true), Ok(false)));
        assert!(boolean("maybe").is_err());
    }
}
