//! What a container uses, for a person.

use super::{Cpu, Io, Memory, Network, Pids, Rates, Source, Stall, Stats, Traffic};
use crate::output::Colour;
use crate::top::{age, bytes, colour};

/// A line for each thing that is measured. `paint` gives text a colour, or not.
#[must_use]
pub fn describe(stats: &Stats, paint: impl Fn(&str, Option<Colour>) -> String) -> String {
    let state = paint(&stats.state.to_string(), colour(stats.state));
    let rates = stats.rates.unwrap_or_default();
    let waits = |name: &str, stall: Option<Stall>| Some(format!("{name} {:.1}%", stall?.some_avg10));
    let pressure = &stats.pressure;
    let pressure: Vec<String> =
        [waits("cpu", pressure.cpu), waits("memory", pressure.memory), waits("io", pressure.io)]
            .into_iter()
            .flatten()
            .collect();
    let lines = [
        ("state", Some(state)),
        ("since", stats.uptime.map(|seconds| format!("{} ago", age(seconds)))),
        ("cpu", stats.cpu.map(|cpu| self::cpu(&cpu, &rates))),
        ("throttled", stats.cpu.and_then(|cpu| throttled(&cpu))),
        ("memory", stats.memory.map(|memory| self::memory(&memory))),
        ("swap", stats.memory.and_then(|memory| swap(&memory))),
        ("oom kills", stats.memory.and_then(|memory| Some(memory.oom_kills?.to_string()))),
        ("tasks", stats.pids.map(|pids| self::pids(&pids))),
        ("disks", stats.io.map(|io| self::io(&io, &rates))),
        ("received", stats.network.as_ref().map(|network| received(network, &rates))),
        ("sent", stats.network.as_ref().map(|network| traffic(&network.transmit, rates.transmit_bytes))),
        ("waits", (!pressure.is_empty()).then(|| format!("{} of the last 10 s", pressure.join(", ")))),
    ];
    let mut text = format!("{}\n", stats.name);
    for (key, value) in lines {
        if let Some(value) = value {
            text += &format!("  {key:<14}{value}\n");
        }
    }
    text
}

fn cpu(cpu: &Cpu, rates: &Rates) -> String {
    let seconds = |usec: u64| usec as f64 / 1e6;
    let percent = rates.cpu_percent.map(|percent| format!("{percent:.1}%, ")).unwrap_or_default();
    let limit = cpu.limit_usec_per_sec.map(|limit| format!("; at most {:.0}%", limit as f64 / 1e4));
    format!(
        "{percent}{:.2} s since the start: {:.2} s user, {:.2} s system{}",
        seconds(cpu.usage_usec),
        seconds(cpu.user_usec),
        seconds(cpu.system_usec),
        limit.unwrap_or_default()
    )
}

fn throttled(cpu: &Cpu) -> Option<String> {
    let periods = cpu.throttled_periods.filter(|periods| *periods > 0)?;
    Some(format!("{periods} times, {:.2} s", cpu.throttled_usec? as f64 / 1e6))
}

fn memory(memory: &Memory) -> String {
    let amount = |prefix: &str, amount: Option<u64>| {
        amount.map(|amount| format!(", {prefix} {}", bytes(amount as f64))).unwrap_or_default()
    };
    let (peak, limit) = (amount("peak", memory.peak), amount("limit", memory.limit));
    format!("{}{peak}{limit}{}", bytes(memory.current as f64), estimated(memory.source))
}

fn swap(memory: &Memory) -> Option<String> {
    let limit = memory.swap_limit.map(|limit| format!(", limit {}", bytes(limit as f64))).unwrap_or_default();
    memory.swap.map(|swap| format!("{}{limit}", bytes(swap as f64)))
}

fn pids(pids: &Pids) -> String {
    let limit = pids.limit.map(|limit| format!(", limit {limit}")).unwrap_or_default();
    format!("{} in {} processes{limit}", pids.current, pids.processes)
}

fn io(io: &Io, rates: &Rates) -> String {
    let operations =
        |count: Option<u64>| count.map(|count| format!(" in {count} operations")).unwrap_or_default();
    format!(
        "read {}{}{}, written {}{}{}{}",
        bytes(io.read_bytes as f64),
        operations(io.reads),
        each_second(rates.read_bytes),
        bytes(io.write_bytes as f64),
        operations(io.writes),
        each_second(rates.write_bytes),
        estimated(io.source)
    )
}

fn received(network: &Network, rates: &Rates) -> String {
    traffic(&network.receive, rates.receive_bytes)
}

fn traffic(traffic: &Traffic, rate: Option<f64>) -> String {
    let counted = |what: &str, count: u64| {
        if count > 0 { format!(", {count} {what}") } else { String::new() }
    };
    format!(
        "{} in {} packets{}{}{}",
        bytes(traffic.bytes as f64),
        traffic.packets,
        each_second(rate),
        counted("errors", traffic.errors),
        counted("dropped", traffic.drops)
    )
}

fn each_second(rate: Option<f64>) -> String {
    rate.filter(|rate| *rate > 0.0).map(|rate| format!(" ({}/s)", bytes(rate))).unwrap_or_default()
}

fn estimated(source: Source) -> &'static str {
    match source {
        Source::Processes => " (sum of its processes; this host has no controller for it)",
        _ => "",
    }
}
