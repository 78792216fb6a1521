//! A line of a log, for a person and for a program.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Serialize;

use crate::journal::Entry;

/// Something that a container has logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LogLine {
    /// When, as in RFC 3339, in UTC with microseconds; none of a console.
    pub time: Option<String>,
    /// The hostname at that time.
    pub host: Option<String>,
    /// The unit that it is of, or about.
    pub unit: Option<String>,
    /// Who logged it, by its own word or else the name of its program.
    pub identifier: Option<String>,
    /// Its process id, as seen inside.
    pub pid: Option<String>,
    /// How bad it is, from 0 (emergency) to 7 (debug).
    pub priority: Option<u8>,
    /// What it says. It may have several lines, and any characters.
    pub message: String,
    #[serde(skip)]
    pub(super) realtime: Option<u64>,
}

impl LogLine {
    /// What is worth showing of an entry of a journal; one without a message is not.
    pub(super) fn of(entry: &Entry) -> Option<LogLine> {
        let text = |name: &str| entry.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        Some(LogLine {
            time: timestamp(entry.realtime()).map(|time| format!("{time:.6}")),
            host: text("_HOSTNAME"),
            unit: text("UNIT").or_else(|| text("_SYSTEMD_UNIT")),
            identifier: text("SYSLOG_IDENTIFIER").or_else(|| text("_COMM")),
            pid: text("_PID").or_else(|| text("SYSLOG_PID")),
            priority: text("PRIORITY").and_then(|priority| priority.parse().ok()).filter(|n| *n < 8),
            message: text("MESSAGE")?,
            realtime: Some(entry.realtime()),
        })
    }

    /// As journalctl shows it, in local time, and with nothing that a terminal would obey.
    #[must_use]
    pub fn text(&self, zone: &TimeZone) -> String {
        let Some(realtime) = self.realtime else { return harmless(&self.message) };
        let time = timestamp(realtime)
            .map(|time| time.to_zoned(zone.clone()).strftime("%b %d %H:%M:%S").to_string());
        let mut head = time.unwrap_or_else(|| "(no time)".to_owned());
        for word in self.host.iter().chain([self.identifier.as_ref().unwrap_or(&UNKNOWN.to_owned())]) {
            head.push(' ');
            head += &harmless(word);
        }
        if let Some(pid) = &self.pid {
            head += &format!("[{}]", harmless(pid));
        }
        head += ": ";
        let mut lines = self.message.trim_end_matches('\n').split('\n').map(harmless);
        let mut text = head.clone() + &lines.next().unwrap_or_default();
        for line in lines {
            // Below the first one.
            text += &format!("\n{:width$}{line}", "", width = head.chars().count());
        }
        text
    }
}

/// In the place of who logged it.
const UNKNOWN: &str = "unknown";

fn timestamp(microseconds: u64) -> Option<Timestamp> {
    Timestamp::from_microsecond(i64::try_from(microseconds).ok()?).ok()
}

/// Without sequences that colour text or move the cursor; what else a terminal would obey is shown by its number.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.trim_end_matches('\r').chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\t' => shown.push(c),
            '\x1b' if characters.next_if_eq(&'[').is_some() => {
                // Parameters, then one letter (ECMA-48, 5.4).
                while characters.next_if(|c| ('\x20'..='\x3f').contains(c)).is_some() {}
                characters.next_if(|c| ('\x40'..='\x7e').contains(c));
            }
            c if c.is_control() => shown += &format!("\\x{:02x}", u32::from(c)),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        for (text, shown) in [
            ("plain\ttext ä", "plain\ttext ä"),
            ("[\x1b[0;32m  OK  \x1b[0m] Started.\r", "[  OK  ] Started."),
            ("\x1b[2J\x1b[31", ""),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("a\u{9b}31mb\x08\x00", "a\\x9b31mb\\x08\\x00"),
        ] {
            assert_eq!(harmless(text), shown, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_journalctls() {
        let line = LogLine {
            host: Some("web".into()),
            identifier: Some("nginx".into()),
            pid: Some("7".into()),
            message: "one\ntwo\n".into(),
            realtime: Some(1_700_000_000_123_456),
            ..LogLine::default()
        };
        let text = "Nov 14 22:13:20 web nginx[7]: one\n                              two";
        assert_eq!(line.text(&TimeZone::UTC), text);
        let line = LogLine { message: "x".into(), realtime: Some(u64::MAX), ..LogLine::default() };
        assert_eq!(line.text(&TimeZone::UTC), "(no time) unknown: x");
    }
}
