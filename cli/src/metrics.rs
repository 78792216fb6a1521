//! Measurements of all containers for Prometheus, in its text format 0.0.4
//! (prometheus.io/docs/instrumenting/exposition_formats): base units, and `_total` behind what only rises.

mod server;

use std::fmt::Write;

use runtime::HostPaths;

pub use server::{Address, Server, ServerError};

use crate::ops::{Phase, Result};
use crate::stats::{self, Stats, Traffic};

/// What a metric's value does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Rises until the container is started anew.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One metric: name without prefix, kind, help, and its samples of one container: further labels, written out, and the
/// value.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Stats) -> Vec<(String, f64)>,
}

/// All phases, each a sample of the state set.
const PHASES: [Phase; 5] = [Phase::Stopped, Phase::Starting, Phase::Running, Phase::Paused, Phase::Crashed];

macro_rules! families {
    ($($kind:ident $name:literal, $help:literal, $samples:expr;)+) => {
        const FAMILIES: &[Family] =
            &[$(Family { name: $name, kind: Kind::$kind, help: $help, samples: $samples }),+];
    };
}

families! {
    Gauge "up", "Whether the container is ready and has not ended; a paused one is.",
        |one| one_sample(Some(f64::from(u8::from(matches!(one.state, Phase::Running | Phase::Paused)))));
    Gauge "state", "1 for the state that the container is in.", states;
    Gauge "uptime_seconds", "Time since the container was started.", |one| number(one.uptime);
    Counter "cpu_seconds_total", "Processor time since the start.", cpu;
    Counter "cpu_throttled_seconds_total", "Time that the container was kept from its processors by cpu.max.",
        |one| one_sample(one.cpu.and_then(|cpu| cpu.throttled_usec).map(seconds));
    Gauge "cpu_limit_cores", "Processors that cpu.max allows.",
        |one| one_sample(one.cpu.and_then(|cpu| cpu.limit_usec_per_sec).map(seconds));
    Gauge "memory_bytes", "Memory in use; where the host has no memory controller, resident memory of the processes.",
        |one| number(one.memory.map(|memory| memory.current));
    Gauge "memory_peak_bytes", "The most memory in use since the start.",
        |one| number(one.memory.and_then(|memory| memory.peak));
    Gauge "memory_limit_bytes", "The limit, memory.max.", |one| number(one.memory.and_then(|memory| memory.limit));
    Gauge "swap_bytes", "Swapped out.", |one| number(one.memory.and_then(|memory| memory.swap));
    Counter "oom_kills_total", "Processes that the kernel killed for want of memory.",
        |one| number(one.memory.and_then(|memory| memory.oom_kills));
    Gauge "tasks", "Threads; each process has at least one.", |one| number(one.pids.map(|pids| pids.current));
    Gauge "tasks_limit", "The limit, pids.max.", |one| number(one.pids.and_then(|pids| pids.limit));
    Counter "io_read_bytes_total", "Bytes read from disks.", |one| number(one.io.map(|io| io.read_bytes));
    Counter "io_written_bytes_total", "Bytes written to disks.", |one| number(one.io.map(|io| io.write_bytes));
    Counter "io_reads_total", "Reads from disks.", |one| number(one.io.and_then(|io| io.reads));
    Counter "io_writes_total", "Writes to disks.", |one| number(one.io.and_then(|io| io.writes));
    Counter "network_bytes_total", "Bytes that went through the container's links.",
        |one| network(one, |traffic| traffic.bytes);
    Counter "network_packets_total", "Packets that went through the container's links.",
        |one| network(one, |traffic| traffic.packets);
    Counter "network_errors_total", "Packets with errors.", |one| network(one, |traffic| traffic.errors);
    Counter "network_drops_total", "Packets that were dropped.", |one| network(one, |traffic| traffic.drops);
    Counter "pressure_waiting_seconds_total", "Time in which a process waited for the resource.", pressure;
}

fn one_sample(value: Option<f64>) -> Vec<(String, f64)> {
    value.map(|value| (String::new(), value)).into_iter().collect()
}

fn number(value: Option<u64>) -> Vec<(String, f64)> {
    one_sample(value.map(|value| value as f64))
}

fn labelled(key: &str, value: &str, number: f64) -> (String, f64) {
    (format!(",{key}=\"{}\"", escaped(value)), number)
}

fn seconds(usec: u64) -> f64 {
    usec as f64 / 1e6
}

fn states(one: &Stats) -> Vec<(String, f64)> {
    let sample =
        |phase: &Phase| labelled("state", &phase.to_string(), f64::from(u8::from(one.state == *phase)));
    PHASES.iter().map(sample).collect()
}

fn cpu(one: &Stats) -> Vec<(String, f64)> {
    let Some(cpu) = one.cpu else { return Vec::new() };
    [("user", cpu.user_usec), ("system", cpu.system_usec)]
        .map(|(mode, usec)| labelled("mode", mode, seconds(usec)))
        .to_vec()
}

fn network(one: &Stats, of: fn(&Traffic) -> u64) -> Vec<(String, f64)> {
    let Some(network) = &one.network else { return Vec::new() };
    [("receive", &network.receive), ("transmit", &network.transmit)]
        .map(|(direction, traffic)| labelled("direction", direction, of(traffic) as f64))
        .to_vec()
}

fn pressure(one: &Stats) -> Vec<(String, f64)> {
    let pressure = &one.pressure;
    [("cpu", pressure.cpu), ("memory", pressure.memory), ("io", pressure.io)]
        .into_iter()
        .filter_map(|(resource, stall)| Some(labelled("resource", resource, seconds(stall?.some_total_usec))))
        .collect()
}

/// Measures all containers.
///
/// # Errors
/// When the containers cannot be listed.
pub fn metrics(paths: &HostPaths) -> Result<String> {
    Ok(render(&stats::all(paths)?))
}

/// The measurements as text. A metric without a sample is left out.
#[must_use]
pub fn render(all: &[Stats]) -> String {
    let version = escaped(env!("CARGO_PKG_VERSION"));
    let mut text = format!(
        "# HELP nixrun_build_info What measures.\n# TYPE nixrun_build_info gauge\n\
         nixrun_build_info{{version=\"{version}\"}} 1\n"
    );
    for Family { name, kind, help, samples } in FAMILIES {
        let name = format!("nixrun_container_{name}");
        let mut lines = String::new();
        for one in all {
            let container = escaped(&one.name);
            for (labels, value) in samples(one) {
                let _ = writeln!(lines, "{name}{{name=\"{container}\"{labels}}} {value}");
            }
        }
        if lines.is_empty() {
            continue;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
    }
    text
}

/// A label's value: backslashes, quotes and line feeds are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Memory, Source};

    #[test]
    fn what_is_not_measured_has_no_sample_and_what_only_rises_says_so() {
        let mut one = Stats::idle("web".into(), Phase::Running);
        let (peak, swap, swap_limit, oom_kills) = (None, None, None, None);
        let (source, current, limit) = (Source::Cgroup, 1 << 40, Some(u64::MAX));
        one.memory = Some(Memory { source, current, peak, limit, swap, swap_limit, oom_kills });
        let text = render(&[one, Stats::idle("db".into(), Phase::Stopped)]);
        assert!(text.contains("\nnixrun_container_up{name=\"web\"} 1\nnixrun_container_up{name=\"db\"} 0\n"));
        assert!(text.contains("nixrun_container_state{name=\"db\",state=\"stopped\"} 1\n"));
        assert!(text.contains("nixrun_container_memory_bytes{name=\"web\"} 1099511627776\n"));
        assert!(!text.contains("memory_peak") && !text.contains("cpu_seconds"), "{text}");
        for Family { name, kind, .. } in FAMILIES {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
    }
}
