//! Names and numbers of signals as the container's programs understand them.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The first real-time signal in glibc's numbering, which systemd means by `SIGRTMIN`. `libc::SIGRTMIN()` is not it:
/// musl reserves one signal more and answers 35, and systemd would power off at 38 where 37 asks it to halt.
pub const SIGRTMIN: i32 = 34;
/// The last real-time signal, 64 on every Linux architecture but MIPS.
pub const SIGRTMAX: i32 = 64;

/// What [`parse`] accepts, in words for an error message.
pub const EXPECTED: &str = "a signal's name or number, such as TERM, SIGRTMIN+3 or 15";

/// Reads `TERM`, `SIGTERM`, `15`, `RTMIN`, `SIGRTMIN+3` or `RTMAX-1`.
///
/// # Errors
/// [`EXPECTED`] when the text is none of these.
pub fn parse(text: &str) -> Result<i32, &'static str> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = if let Some(offset) = name.strip_prefix("RTMIN") {
        offset_of(offset, '+').map(|n| SIGRTMIN + n)
    } else if let Some(offset) = name.strip_prefix("RTMAX") {
        offset_of(offset, '-').map(|n| SIGRTMAX - n)
    } else if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok().filter(|n| *n < 32 || *n >= SIGRTMIN)
    } else {
        Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32)
    };
    number.filter(|n| (1..=SIGRTMAX).contains(n)).ok_or(EXPECTED)
}

/// The name of a signal: `SIGTERM`, `SIGRTMIN+3`, or the bare number where it has none.
#[must_use]
pub fn name(number: i32) -> String {
    match number {
        SIGRTMIN => "SIGRTMIN".to_owned(),
        n if (SIGRTMIN..=SIGRTMAX).contains(&n) => format!("SIGRTMIN+{}", n - SIGRTMIN),
        n => Signal::try_from(n).map_or_else(|_| n.to_string(), |signal| signal.as_str().to_owned()),
    }
}

/// The N of `+N` or `-N` behind a real-time signal's name, 0 when nothing is there.
fn offset_of(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix(sign)?;
    let number: i32 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    (number <= SIGRTMAX - SIGRTMIN).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("15", 15),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMIN+30", 64),
            ("RTMAX", 64),
            ("SIGRTMAX-30", 34),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", "0", "-1", "+9", "32", "33", "65", "FOO", "SIG", "RTMIN+31", "RTMIN-1", "RTMIN+", "RTMAX+1"]
        {
            assert_eq!(parse(text), Err(EXPECTED), "{text:?}");
        }
    }

    #[test]
    fn a_name_reads_back() {
        for number in (1..32).chain(SIGRTMIN..=SIGRTMAX) {
            assert_eq!(parse(&name(number)), Ok(number), "{}", name(number));
        }
        assert_eq!(name(37), "SIGRTMIN+3");
    }
}
