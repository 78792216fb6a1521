//! Values of options that systemd-nspawn has too, in its grammar.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use netsetup::{Forward, Nat};
use runtime::{CapSet, Console};

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

/// `--bind` and `--bind-ro`: what to mount where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// Host path.
    pub source: PathBuf,
    /// Path inside the container.
    pub target: PathBuf,
    /// Whether the mounts below the source come along.
    pub recursive: bool,
}

/// `--tmpfs`: where to mount one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Path inside the container.
    pub target: PathBuf,
    /// Options in mount(8)'s notation.
    pub options: String,
}

/// Reads `SOURCE[:PATH[:OPTIONS]]`; `\:` stands for a colon within a path.
///
/// # Errors
/// A sentence that says what was expected.
pub fn bind(text: &str) -> Result<BindMount, String> {
    let mut parts = split_colons(text)?.into_iter();
    let source = parts.next().unwrap_or_default();
    let target = parts.next().filter(|t| !t.is_empty()).unwrap_or_else(|| source.clone());
    let options = parts.next().unwrap_or_default();
    if parts.next().is_some() {
        return Err("expected at most SOURCE:PATH:OPTIONS; write \\: for a colon within a path".to_owned());
    }
    if source.starts_with('+') {
        return Err("a source inside the container's root (+PATH) is not supported".to_owned());
    }
    if source.is_empty() {
        return Err("expected a source; use --tmpfs for an empty directory".to_owned());
    }
    let mut recursive = true;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rbind" => recursive = true,
            "norbind" => recursive = false,
            "noidmap" => {}
            "idmap" | "rootidmap" | "owneridmap" => {
                return Err(format!("{option} needs a user namespace, which is not supported yet"));
            }
            _ => return Err(format!("unknown option {option:?}; expected rbind, norbind or noidmap")),
        }
    }
    Ok(BindMount { source: inside(&source)?, target: inside(&target)?, recursive })
}

/// Reads `PATH[:OPTIONS]`; `\:` stands for a colon within the path.
///
/// # Errors
/// A sentence that says what was expected.
pub fn tmpfs(text: &str) -> Result<Tmpfs, String> {
    let mut parts = split_colons(text)?.into_iter();
    let target = inside(&parts.next().unwrap_or_default())?;
    let options = parts.next().filter(|o| !o.is_empty()).unwrap_or_else(|| "mode=0755".to_owned());
    if parts.next().is_some() {
        return Err("expected at most PATH:OPTIONS; write \\: for a colon within the path".to_owned());
    }
    Ok(Tmpfs { target, options })
}

/// Splits at colons without a backslash before them. A backslash escapes a colon or a backslash.
fn split_colons(text: &str) -> Result<Vec<String>, String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => parts.push(String::new()),
            '\\' => match chars.next() {
                Some(escaped @ (':' | '\\')) => parts.last_mut().into_iter().for_each(|p| p.push(escaped)),
                _ => return Err("a backslash may only stand before a colon or a backslash".to_owned()),
            },
            _ => parts.last_mut().into_iter().for_each(|p| p.push(c)),
        }
    }
    Ok(parts)
}

/// Reads an absolute path without `..`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn inside(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if path.is_absolute() && path.components().all(|c| c != Component::ParentDir) {
        Ok(path.to_owned())
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
    fn bind_mounts_are_read() {
        for (text, source, target, recursive) in [
            ("/a", "/a", "/a", true),
            ("/a:/b", "/a", "/b", true),
            ("/a::norbind", "/a", "/a", false),
            ("/a:/b:norbind,rbind,noidmap", "/a", "/b", true),
            ("/a\\:b:/c\\\\d", "/a:b", "/c\\d", true),
        ] {
            let expected = BindMount { source: source.into(), target: target.into(), recursive };
            assert_eq!(bind(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn wrong_bind_mounts_are_refused() {
        for (text, why) in [
            ("", "expected a source"),
            (":/a", "expected a source"),
            ("a", "absolute path"),
            ("/a:b", "absolute path"),
            ("/a:/../b", "absolute path"),
            ("+/a:/b", "not supported"),
            ("/a:/b:idmap", "user namespace"),
            ("/a:/b:ro", "unknown option \"ro\""),
            ("/a:/b:rbind:x", "at most"),
            ("/a\\", "backslash"),
            ("/a\\n", "backslash"),
        ] {
            let sentence = bind(text).unwrap_err();
            assert!(sentence.contains(why), "{text:?}: {sentence}");
        }
    }

    #[test]
    fn tmpfs_has_a_default_mode() {
        let read = |text| tmpfs(text).map(|t| (t.target, t.options));
        assert_eq!(read("/a"), Ok(("/a".into(), "mode=0755".into())));
        assert_eq!(read("/a\\:b:size=10%"), Ok(("/a:b".into(), "size=10%".into())));
        for text in ["", "a", "/a:b:c"] {
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
