//! `nixrun top`: what running containers use, as a table.

use std::collections::BTreeMap;

use crate::ops::Phase;
use crate::output::{Cell, Colour, table};
use crate::stats::{Rates, Stats};
use runtime::HostPaths;

/// Looks again and again, and knows what was used in between.
#[derive(Debug, Default)]
pub struct Watch {
    before: BTreeMap<String, Stats>,
}

impl Watch {
    /// Looks at the containers with these names, at all that run when there are none. Those that use the most
    /// processor time come first.
    pub fn look(&mut self, names: &[String], paths: &HostPaths) -> Vec<Stats> {
        let mut all = crate::stats::running(paths);
        all.retain(|one| names.is_empty() || names.contains(&one.name));
        let mut rated = Vec::with_capacity(all.len());
        let mut now = BTreeMap::new();
        for one in all {
            now.insert(one.name.clone(), one.clone());
            rated.push(match self.before.get(&one.name) {
                Some(before) => one.since(before),
                None => one,
            });
        }
        self.before = now;
        sort(&mut rated);
        rated
    }
}

fn sort(all: &mut [Stats]) {
    let percent = |one: &Stats| one.rates.and_then(|rates| rates.cpu_percent).unwrap_or(0.0);
    all.sort_by(|a, b| percent(b).total_cmp(&percent(a)).then_with(|| a.name.cmp(&b.name)));
}

/// A column: its header, how dear it is, and what stands in it. Where the terminal is narrow the dearest go first.
struct Column {
    header: &'static str,
    price: u8,
    cell: fn(&Stats) -> Cell,
}

const COLUMNS: [Column; 11] = [
    Column { header: "NAME", price: 0, cell: |one| Cell::new(&one.name) },
    Column { header: "STATE", price: 2, cell: state },
    Column { header: "CPU%", price: 0, cell: |one| rate(one, |rates| rates.cpu_percent, percent) },
    Column {
        header: "MEM",
        price: 1,
        cell: |one| number(one.memory.map(|memory| bytes(memory.current as f64))),
    },
    Column {
        header: "LIMIT",
        price: 10,
        cell: |one| number(one.memory.and_then(|memory| memory.limit).map(|limit| bytes(limit as f64))),
    },
    Column { header: "PIDS", price: 5, cell: |one| number(one.pids.map(|pids| pids.current.to_string())) },
    Column { header: "IO-R/s", price: 7, cell: |one| rate(one, |rates| rates.read_bytes, bytes) },
    Column { header: "IO-W/s", price: 8, cell: |one| rate(one, |rates| rates.write_bytes, bytes) },
    Column { header: "NET-RX/s", price: 3, cell: |one| rate(one, |rates| rates.receive_bytes, bytes) },
    Column { header: "NET-TX/s", price: 4, cell: |one| rate(one, |rates| rates.transmit_bytes, bytes) },
    Column { header: "AGE", price: 6, cell: |one| number(one.uptime.map(age)) },
];

/// The table. With a width, it is no wider: whole columns go before names are cut.
#[must_use]
pub fn render(all: &[Stats], width: Option<usize>, colours: bool) -> String {
    let mut columns: Vec<&Column> = COLUMNS.iter().collect();
    loop {
        let header: Vec<&str> = columns.iter().map(|column| column.header).collect();
        let rows: Vec<Vec<Cell>> =
            all.iter().map(|one| columns.iter().map(|column| (column.cell)(one)).collect()).collect();
        let dearest = columns.iter().enumerate().max_by_key(|(_, column)| column.price);
        let too_wide = width.is_some_and(|width| needed(&header, &rows) > width);
        match dearest.filter(|(_, column)| too_wide && column.price > 0).map(|(i, _)| i) {
            Some(i) => columns.remove(i),
            None => return table(&header, &rows, width, colours),
        };
    }
}

/// The line above the table.
#[must_use]
pub fn summary(all: &[Stats]) -> String {
    let cpu = all.iter().filter_map(|one| one.rates?.cpu_percent).fold(0.0, |sum, one| sum + one);
    let memory: u64 = all.iter().filter_map(|one| Some(one.memory?.current)).sum();
    let containers = if all.len() == 1 { "container" } else { "containers" };
    format!("{} {containers}  CPU {}%  MEM {}", all.len(), percent(cpu), bytes(memory as f64))
}

fn needed(header: &[&str], rows: &[Vec<Cell>]) -> usize {
    let width = |i: usize| rows.iter().map(|row| row[i].width()).max().unwrap_or(0).max(header[i].len());
    (0..header.len()).map(width).sum::<usize>() + 2 * header.len().saturating_sub(1)
}

fn state(one: &Stats) -> Cell {
    Cell::new(one.state.to_string()).coloured(colour(one.state))
}

/// What a container's phase looks like.
#[must_use]
pub fn colour(phase: Phase) -> Option<Colour> {
    match phase {
        Phase::Running => Some(Colour::Green),
        Phase::Starting | Phase::Paused => Some(Colour::Yellow),
        Phase::Crashed => Some(Colour::Red),
        Phase::Stopped => Some(Colour::Faint),
    }
}

fn rate(one: &Stats, of: fn(&Rates) -> Option<f64>, text: fn(f64) -> String) -> Cell {
    number(one.rates.as_ref().and_then(of).map(text))
}

/// What is not known is a dash.
fn number(text: Option<String>) -> Cell {
    Cell::number(text.unwrap_or_else(|| "-".to_owned()))
}

fn percent(value: f64) -> String {
    format!("{value:.1}")
}

/// Bytes in at most four digits, with a unit of a power of 1024.
#[must_use]
pub fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["B", "K", "M", "G", "T", "P"];
    let (mut value, mut unit) = (value, 0);
    // What would be rounded to four digits is one of the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0}B"),
        _ if value < 99.95 => format!("{value:.1}{}", UNITS[unit]),
        _ => format!("{value:.0}{}", UNITS[unit]),
    }
}

/// A span of time in its two largest units.
#[must_use]
pub fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, percent: Option<f64>) -> Stats {
        let mut stats = Stats::idle(name.to_owned(), Phase::Running);
        stats.uptime = Some(3700);
        stats.rates = percent.map(|percent| Rates { cpu_percent: Some(percent), ..Rates::default() });
        stats
    }

    #[test]
    fn the_busiest_comes_first() {
        let mut all = [one("b", None), one("a", None), one("idle", Some(0.5)), one("busy", Some(120.0))];
        sort(&mut all);
        assert_eq!(all.map(|one| one.name), ["busy", "idle", "a", "b"]);
    }

    #[test]
    fn every_width_is_kept_and_whole_columns_go_first() {
        let all = [one("web", Some(12.34)), one("a-container-with-a-long-name", None)];
        let widest = render(&all, None, false);
        let header = widest.lines().next().unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(header, COLUMNS.map(|column| column.header));
        for width in 16..=130 {
            let text = render(&all, Some(width), false);
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= width, "{longest} > {width}:\n{text}");
            assert!(text.contains("CPU%") && text.contains("12.3"), "{text}");
            assert!(width < 60 || text.contains("a-container-with-a-long-name"), "cut too early:\n{text}");
        }
        assert_eq!(render(&all, Some(200), false), widest);
    }

    #[test]
    fn amounts_have_at_most_four_digits() {
        for (value, text) in [
            (0.0, "0B"),
            (999.0, "999B"),
            (1000.0, "1.0K"),
            (1024.0, "1.0K"),
            (99.94 * 1024.0, "99.9K"),
            (99.96 * 1024.0, "100K"),
            (1023.0 * 1024.0, "1.0M"),
            (1.5 * 1024.0 * 1024.0 * 1024.0, "1.5G"),
        ] {
            let got = bytes(value);
            assert_eq!(got, text, "{value}");
        }
        assert_eq!((age(59), age(61), age(90061)), ("59s".into(), "1m 1s".into(), "1d 1h".into()));
    }

    #[test]
    fn the_summary_adds_up() {
        assert_eq!(summary(&[one("a", Some(1.5)), one("b", Some(2.0))]), "2 containers  CPU 3.5%  MEM 0B");
        assert_eq!(summary(&[one("a", None)]), "1 container  CPU 0.0%  MEM 0B");
    }
}
