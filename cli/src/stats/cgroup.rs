//! What a control group says (linux/Documentation/admin-guide/cgroup-v2.rst). A file that is not there belongs to a
//! controller that is not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{Cpu, Io, Memory, Pids, Pressure, Source, Stall};

pub(super) fn cpu(group: &Path) -> Option<Cpu> {
    let stat = keyed(group, "cpu.stat")?;
    Some(Cpu {
        usage_usec: *stat.get("usage_usec")?,
        user_usec: *stat.get("user_usec")?,
        system_usec: *stat.get("system_usec")?,
        throttled_periods: stat.get("nr_throttled").copied(),
        throttled_usec: stat.get("throttled_usec").copied(),
        limit_usec_per_sec: read(group, "cpu.max").as_deref().and_then(cpu_limit),
    })
}

/// `QUOTA PERIOD`, or `max PERIOD`.
fn cpu_limit(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.saturating_mul(1_000_000).checked_div(period)
}

pub(super) fn memory(group: &Path) -> Option<Memory> {
    let events = keyed(group, "memory.events").unwrap_or_default();
    Some(Memory {
        source: Source::Cgroup,
        current: number(group, "memory.current")?,
        peak: number(group, "memory.peak"),
        limit: number(group, "memory.max"),
        swap: number(group, "memory.swap.current"),
        swap_limit: number(group, "memory.swap.max"),
        oom_kills: events.get("oom_kill").copied(),
    })
}

pub(super) fn pids(group: &Path, processes: u64) -> Option<Pids> {
    let current = number(group, "pids.current")?;
    Some(Pids { source: Source::Cgroup, current, processes, limit: number(group, "pids.max") })
}

/// The sum of all devices.
pub(super) fn io(group: &Path) -> Option<Io> {
    let text = read(group, "io.stat")?;
    let sum = |key: &str| -> u64 {
        let fields = text.split_ascii_whitespace().filter_map(|field| field.strip_prefix(key));
        fields.filter_map(|value| value.parse::<u64>().ok()).fold(0, u64::saturating_add)
    };
    Some(Io {
        source: Source::Cgroup,
        read_bytes: sum("rbytes="),
        write_bytes: sum("wbytes="),
        reads: Some(sum("rios=")),
        writes: Some(sum("wios=")),
    })
}

pub(super) fn pressure(group: &Path) -> Pressure {
    let of = |file| read(group, file).as_deref().and_then(stall);
    Pressure { cpu: of("cpu.pressure"), memory: of("memory.pressure"), io: of("io.pressure") }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and a line of `full` behind it.
fn stall(text: &str) -> Option<Stall> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let field = |key: &str| some.split(' ').find_map(|field| field.strip_prefix(key));
    Some(Stall {
        some_avg10: field("avg10=")?.parse().ok()?,
        some_total_usec: field("total=")?.parse().ok()?,
    })
}

fn read(group: &Path, file: &str) -> Option<String> {
    fs::read_to_string(group.join(file)).ok()
}

/// A file with one number. `max` is none.
fn number(group: &Path, file: &str) -> Option<u64> {
    read(group, file)?.trim().parse().ok()
}

/// A file with a key and a number on each line.
fn keyed(group: &Path, file: &str) -> Option<BTreeMap<String, u64>> {
    let text = read(group, file)?;
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    Some(text.lines().filter_map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs::write(dir.path().join(file), text).unwrap();
        }
        dir
    }

    #[test]
    fn everything_that_a_group_with_all_controllers_says() {
        let dir = group(&[
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 9\nnr_throttled 2\nthrottled_usec 7\n",
            ),
            ("cpu.max", "50000 100000\n"),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "0\n"),
            ("memory.swap.max", "1048576\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n"),
            ("pids.current", "3\n"),
            ("pids.max", "100\n"),
            (
                "io.stat",
                "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=900 dios=9\n8:16 rbytes=5 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
            ),
            (
                "memory.pressure",
                "some avg10=1.50 avg60=0.00 avg300=0.00 total=123\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=9\n",
            ),
        ]);
        let group = dir.path();
        let cpu = cpu(group).unwrap();
        assert_eq!((cpu.usage_usec, cpu.user_usec, cpu.system_usec), (30, 20, 10));
        assert_eq!((cpu.throttled_periods, cpu.throttled_usec), (Some(2), Some(7)));
        assert_eq!(cpu.limit_usec_per_sec, Some(500_000), "half a processor");
        let memory = memory(group).unwrap();
        assert_eq!((memory.current, memory.peak, memory.limit), (4096, Some(8192), None));
        assert_eq!((memory.swap, memory.swap_limit, memory.oom_kills), (Some(0), Some(1_048_576), Some(2)));
        let pids = pids(group, 2).unwrap();
        assert_eq!((pids.current, pids.processes, pids.limit), (3, 2, Some(100)));
        let io = io(group).unwrap();
        assert_eq!((io.read_bytes, io.write_bytes, io.reads, io.writes), (15, 20, Some(2), Some(2)));
        let pressure = pressure(group);
        assert_eq!((pressure.cpu, pressure.io), (None, None));
        assert_eq!(pressure.memory, Some(Stall { some_avg10: 1.5, some_total_usec: 123 }));
    }

    #[test]
    fn a_group_without_controllers_has_its_processor_time_alone() {
        let dir = group(&[("cpu.stat", "usage_usec 3\nuser_usec 2\nsystem_usec 1\n")]);
        let group = dir.path();
        let cpu = cpu(group).unwrap();
        assert_eq!((cpu.throttled_usec, cpu.limit_usec_per_sec), (None, None));
        assert!(memory(group).is_none() && pids(group, 1).is_none() && io(group).is_none());
    }
}
