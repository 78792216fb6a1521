//! What containers use: processor time, memory, processes, disks, network. Counters are read from the container's control
//! group and from the host's ends of its links, never from what the container could write.
//!
//! Where a controller is missing, as on a hybrid host, sums over the container's processes stand in, and [`Source`] says so.

mod cgroup;
mod describe;
mod links;
mod proc;

use std::path::Path;
use std::time::Instant;

use runtime::HostPaths;
use runtime::instance::{self, Found, ProcessId, State};
use schemars::JsonSchema;
use serde::Serialize;

pub use describe::describe;

use crate::ops::{self, Phase, Result};

/// What a container uses. What is absent is not measured: the container does not run, or the kernel does not say.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Stats {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub state: Phase,
    /// Seconds since it was started.
    pub uptime: Option<u64>,
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processes and threads.
    pub pids: Option<Pids>,
    /// What went to and came from disks.
    pub io: Option<Io>,
    /// What went through its links; absent when it has the host's network.
    pub network: Option<Network>,
    /// How long its processes had to wait for what they need.
    pub pressure: Pressure,
    /// What it used in each second between two looks; absent after the first one.
    pub rates: Option<Rates>,
    /// When this look was taken.
    #[serde(skip)]
    at: Option<(ProcessId, Instant)>,
}

/// Where numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The container's control group: exact, and including what has ended.
    Cgroup,
    /// A sum over the processes that live now.
    Processes,
    /// The host's ends of its links.
    HostLinks,
    /// The links in its network namespace, where none has an end on the host.
    Namespace,
}

/// Processor time since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Cpu {
    /// Microseconds in all.
    pub usage_usec: u64,
    /// Microseconds in programs.
    pub user_usec: u64,
    /// Microseconds in the kernel.
    pub system_usec: u64,
    /// How often it had to wait because cpu.max was used up; absent without the controller.
    pub throttled_periods: Option<u64>,
    /// How long, in microseconds.
    pub throttled_usec: Option<u64>,
    /// The limit in microseconds of processor time for each second, from cpu.max.
    pub limit_usec_per_sec: Option<u64>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Memory {
    /// Where the numbers come from: of processes it is the resident memory of each, in which shared pages count for
    /// every one that has them, and files in the cache do not.
    pub source: Source,
    /// Now.
    pub current: u64,
    /// At most since the start.
    pub peak: Option<u64>,
    /// memory.max; absent where there is none.
    pub limit: Option<u64>,
    /// Swapped out.
    pub swap: Option<u64>,
    /// memory.swap.max; absent where there is none.
    pub swap_limit: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Pids {
    /// Where the number comes from.
    pub source: Source,
    /// Threads, of which each process has at least one.
    pub current: u64,
    /// Processes.
    pub processes: u64,
    /// pids.max; absent where there is none.
    pub limit: Option<u64>,
}

/// What went to and came from disks since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Io {
    /// Where the numbers come from.
    pub source: Source,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations; the kernel does not count those of a process.
    pub reads: Option<u64>,
    /// Write operations.
    pub writes: Option<u64>,
}

/// What went through a container's links, as it sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Network {
    /// Where the numbers come from.
    pub source: Source,
    /// What it received.
    pub receive: Traffic,
    /// What it sent.
    pub transmit: Traffic,
}

/// One direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets with errors.
    pub errors: u64,
    /// Packets that were dropped.
    pub drops: u64,
}

/// Pressure stall information (linux/Documentation/accounting/psi.rst); absent where the kernel keeps none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
pub struct Pressure {
    /// Waiting for a processor.
    pub cpu: Option<Stall>,
    /// Waiting for memory.
    pub memory: Option<Stall>,
    /// Waiting for disks.
    pub io: Option<Stall>,
}

/// How long at least one process had to wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
pub struct Stall {
    /// Per cent of the last ten seconds.
    pub some_avg10: f64,
    /// Microseconds since the start.
    pub some_total_usec: u64,
}

/// What was used in each second between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
pub struct Rates {
    /// Seconds between the two looks.
    pub seconds: f64,
    /// Processor time in per cent: 100 is one processor, all of the time.
    pub cpu_percent: Option<f64>,
    /// Bytes read from disks, each second.
    pub read_bytes: Option<f64>,
    /// Bytes written to disks.
    pub write_bytes: Option<f64>,
    /// Bytes received from the network.
    pub receive_bytes: Option<f64>,
    /// Bytes sent.
    pub transmit_bytes: Option<f64>,
}

/// What one container uses.
///
/// # Errors
/// When there is none of this name; the nearest one is suggested.
pub fn stats(name: &str, paths: &HostPaths) -> Result<Stats> {
    match instance::find(paths, name) {
        Some(found) => Ok(look(found, paths)),
        None => ops::status(name, paths).map(|listed| Stats::idle(listed.name, listed.phase)),
    }
}

/// What all containers use that run, by name.
#[must_use]
pub fn running(paths: &HostPaths) -> Vec<Stats> {
    instance::list(paths).into_iter().map(|found| look(found, paths)).collect()
}

/// The same with those that are configured and do not run.
///
/// # Errors
/// When a directory cannot be read.
pub fn all(paths: &HostPaths) -> Result<Vec<Stats>> {
    let one = |listed: ops::Listed| match instance::find(paths, &listed.name) {
        Some(found) => look(found, paths),
        None => Stats::idle(listed.name, listed.phase),
    };
    Ok(ops::list(paths)?.into_iter().map(one).collect())
}

fn look(found: Found, paths: &HostPaths) -> Stats {
    let phase = ops::phase_of(&found);
    let idle = Stats::idle(found.name, phase);
    match found.state {
        Some(state) if found.alive => measured(idle, &state, paths),
        _ => idle,
    }
}

fn measured(idle: Stats, state: &State, paths: &HostPaths) -> Stats {
    let at = Some((state.leader, Instant::now()));
    let group: &Path = &state.cgroup;
    let mut processes = proc::Processes::of(group, paths);
    let pids = cgroup::pids(group, processes.count());
    Stats {
        uptime: Some(state.uptime()),
        cpu: cgroup::cpu(group),
        memory: cgroup::memory(group).or_else(|| processes.memory()),
        pids: pids.or_else(|| processes.pids()),
        io: cgroup::io(group).or_else(|| processes.io()),
        network: links::network(state, paths),
        pressure: cgroup::pressure(group),
        at,
        ..idle
    }
}

impl Stats {
    pub(crate) fn idle(name: String, state: Phase) -> Stats {
        Stats {
            name,
            state,
            uptime: None,
            cpu: None,
            memory: None,
            pids: None,
            io: None,
            network: None,
            pressure: Pressure::default(),
            rates: None,
            at: None,
        }
    }

    /// The same with what was used in each second since an earlier look; of another start of the container there are
    /// no rates.
    #[must_use]
    pub fn since(mut self, earlier: &Stats) -> Stats {
        self.rates = self.rates_since(earlier);
        self
    }

    fn rates_since(&self, earlier: &Stats) -> Option<Rates> {
        let ((before, begun), (now, ended)) = (earlier.at?, self.at?);
        let seconds = ended.checked_duration_since(begun)?.as_secs_f64();
        if before != now || seconds <= 0.0 {
            return None;
        }
        // Sums over processes fall when one ends.
        let rate =
            |of: fn(&Stats) -> Option<u64>| Some(of(self)?.checked_sub(of(earlier)?)? as f64 / seconds);
        Some(Rates {
            seconds,
            cpu_percent: rate(|stats| Some(stats.cpu?.usage_usec)).map(|usec| usec / 10_000.0),
            read_bytes: rate(|stats| Some(stats.io?.read_bytes)),
            write_bytes: rate(|stats| Some(stats.io?.write_bytes)),
            receive_bytes: rate(|stats| Some(stats.network.as_ref()?.receive.bytes)),
            transmit_bytes: rate(|stats| Some(stats.network.as_ref()?.transmit.bytes)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(leader: i32, when: Instant, usage_usec: u64, read_bytes: u64) -> Stats {
        let mut stats = Stats::idle("web".into(), Phase::Running);
        stats.at = Some((ProcessId { pid: leader, start_time: 1 }, when));
        let (throttled_periods, throttled_usec, limit_usec_per_sec) = (None, None, None);
        let (user_usec, system_usec) = (usage_usec, 0);
        stats.cpu = Some(Cpu {
            usage_usec,
            user_usec,
            system_usec,
            throttled_periods,
            throttled_usec,
            limit_usec_per_sec,
        });
        let (reads, writes, write_bytes) = (None, None, 0);
        stats.io = Some(Io { source: Source::Processes, read_bytes, write_bytes, reads, writes });
        stats
    }

    #[test]
    fn rates_are_of_a_second_and_of_one_start_of_the_container() {
        let (begun, ended) = (Instant::now(), Instant::now() + Duration::from_secs(2));
        let first = at(7, begun, 1_000_000, 5000);
        assert_eq!(first.rates, None);
        let rates = at(7, ended, 2_000_000, 9000).since(&first).rates.unwrap();
        assert!((rates.seconds - 2.0).abs() < 0.01);
        assert!((rates.cpu_percent.unwrap() - 50.0).abs() < 0.5, "half a processor");
        assert!((rates.read_bytes.unwrap() - 2000.0).abs() < 20.0);
        assert_eq!(rates.receive_bytes, None, "it has the host's network");
        let fewer = at(7, ended, 2_000_000, 100).since(&first).rates.unwrap();
        assert_eq!((fewer.read_bytes, fewer.write_bytes), (None, Some(0.0)), "a process has ended");
        assert_eq!(at(8, ended, 2_000_000, 9000).since(&first).rates, None, "it was started again");
        assert_eq!(at(7, begun, 2_000_000, 9000).since(&first).rates, None, "no time has passed");
    }
}
