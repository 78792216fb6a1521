//! Limits of the control group as `run --limit` takes them: the kernel's name of the file, `=`, and what it takes.

use std::path::PathBuf;

use runtime::{CpuMax, IoMax, Resources};

use crate::nearest::nearest;

/// The files, as the kernel calls them.
const FILES: [&str; 9] = [
    "memory.max",
    "memory.high",
    "memory.swap.max",
    "cpu.max",
    "cpu.weight",
    "pids.max",
    "io.max",
    "cpuset.cpus",
    "cpuset.mems",
];

/// The kernel's default period for cpu.max.
const PERIOD: u64 = 100_000;

/// One limit: the resources with nothing else set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLimit(Resources);

/// Reads `memory.max=512M`, `cpu.max=50000 100000`, `pids.max=100`, `io.max=/dev/sda rbps=1M`, `cpuset.cpus=0-1`.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<GroupLimit, String> {
    let (file, value) = text.split_once('=').ok_or("write FILE=VALUE, such as memory.max=512M")?;
    let mut limit = Resources::default();
    match file {
        "memory.max" => limit.memory_max = Some(number(value)?),
        "memory.high" => limit.memory_high = Some(number(value)?),
        "memory.swap.max" => limit.memory_swap_max = Some(number(value)?),
        "cpu.max" => limit.cpu_max = Some(cpu_max(value)?),
        "cpu.weight" => limit.cpu_weight = Some(value.parse().map_err(|_| "expected 1 to 10000")?),
        "pids.max" => limit.pids_max = Some(number(value)?),
        "io.max" => limit.io_max = vec![io_max(value)?],
        "cpuset.cpus" => limit.cpuset_cpus = Some(value.to_owned()),
        "cpuset.mems" => limit.cpuset_mems = Some(value.to_owned()),
        _ => {
            return Err(match nearest(file, FILES) {
                Some(nearest) => format!("there is no limit {file:?}; did you mean {nearest:?}?"),
                None => format!("there is no limit {file:?}; there are {}", FILES.join(", ")),
            });
        }
    }
    Ok(GroupLimit(limit))
}

/// All of them together; of two for one file the later one counts, but io.max is for each device.
#[must_use]
pub fn together(limits: &[GroupLimit]) -> Resources {
    let mut all = Resources::default();
    for GroupLimit(one) in limits.iter().cloned() {
        all.memory_max = one.memory_max.or(all.memory_max);
        all.memory_high = one.memory_high.or(all.memory_high);
        all.memory_swap_max = one.memory_swap_max.or(all.memory_swap_max);
        all.cpu_max = one.cpu_max.or(all.cpu_max);
        all.cpu_weight = one.cpu_weight.or(all.cpu_weight);
        all.pids_max = one.pids_max.or(all.pids_max);
        all.io_max.extend(one.io_max);
        all.cpuset_cpus = one.cpuset_cpus.or(all.cpuset_cpus);
        all.cpuset_mems = one.cpuset_mems.or(all.cpuset_mems);
    }
    all
}

/// A number, with K, M, G or T for powers of 1024, or `max`.
fn number(text: &str) -> Result<u64, String> {
    let fault = || format!("expected a number, with K, M, G or T behind it, or max, not {text:?}");
    if text == "max" {
        return Ok(u64::MAX);
    }
    let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(fault()),
    };
    let number: u64 = digits.parse().map_err(|_| fault())?;
    number.checked_mul(1 << shift).ok_or_else(fault)
}

fn cpu_max(text: &str) -> Result<CpuMax, String> {
    let fault = || format!("expected microseconds, or max, and those of a period, not {text:?}");
    let mut words = text.split_whitespace();
    let quota = match words.next().ok_or_else(fault)? {
        "max" => None,
        quota => Some(quota.parse().map_err(|_| fault())?),
    };
    let period = words.next().map_or(Ok(PERIOD), |period| period.parse().map_err(|_| fault()))?;
    if words.next().is_some() {
        return Err(fault());
    }
    Ok(CpuMax { quota, period })
}

fn io_max(text: &str) -> Result<IoMax, String> {
    let mut words = text.split_whitespace();
    let device = words.next().filter(|device| device.starts_with('/'));
    let device =
        device.ok_or("expected the path of a device, or of a file on it, and limits such as rbps=1M")?;
    let mut io = IoMax {
        device: PathBuf::from(device),
        read_bytes: None,
        write_bytes: None,
        read_operations: None,
        write_operations: None,
    };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let place = match key {
            "rbps" => &mut io.read_bytes,
            "wbps" => &mut io.write_bytes,
            "riops" => &mut io.read_operations,
            "wiops" => &mut io.write_operations,
            _ => return Err(format!("expected rbps=, wbps=, riops= or wiops=, not {word:?}")),
        };
        *place = Some(number(value)?);
    }
    Ok(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(limits: &[&str]) -> Resources {
        together(&limits.iter().map(|limit| parse(limit).unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn limits_come_together() {
        let found = all(&[
            "memory.max=1G",
            "memory.max=64M",
            "memory.swap.max=0",
            "memory.high=max",
            "cpu.max=5000",
            "cpu.weight=7",
            "pids.max=2K",
            "io.max=/dev/a rbps=1M wiops=3",
            "io.max=/srv wbps=9",
            "cpuset.cpus=0-1",
        ]);
        let io = |device: &str| IoMax {
            device: device.into(),
            read_bytes: None,
            write_bytes: None,
            read_operations: None,
            write_operations: None,
        };
        let expected = Resources {
            memory_max: Some(64 << 20),
            memory_high: Some(u64::MAX),
            memory_swap_max: Some(0),
            cpu_max: Some(CpuMax { quota: Some(5000), period: 100_000 }),
            cpu_weight: Some(7),
            pids_max: Some(2048),
            io_max: vec![
                IoMax { read_bytes: Some(1 << 20), write_operations: Some(3), ..io("/dev/a") },
                IoMax { write_bytes: Some(9), ..io("/srv") },
            ],
            cpuset_cpus: Some("0-1".into()),
            cpuset_mems: None,
        };
        assert_eq!(found, expected);
        assert_eq!(all(&["cpu.max=max 50000"]).cpu_max, Some(CpuMax { quota: None, period: 50_000 }));
    }

    #[test]
    fn what_is_none_is_refused() {
        for (text, said) in [
            ("memory.max", "write FILE=VALUE"),
            ("memory.mix=1", "did you mean \"memory.max\"?"),
            ("nothing=1", "there are memory.max, "),
            ("memory.max=", "expected a number"),
            ("memory.max=1MK", "expected a number"),
            ("memory.max=-1", "expected a number"),
            ("pids.max=99999999999T", "expected a number"),
            ("cpu.max=1 2 3", "expected microseconds"),
            ("cpu.max=", "expected microseconds"),
            ("io.max=sda rbps=1", "expected the path"),
            ("io.max=/dev/sda fast", "expected rbps="),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
