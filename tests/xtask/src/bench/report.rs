//! The table.

use std::fmt;

use serde::Serialize;

use super::boot::Boot;
use super::machine::Machine;
use super::start::{Network, Start};

/// All that was measured, and what was to be reached.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    /// Medians of the time from posix_spawn to exit.
    starts: Vec<Start>,
    /// Medians of the time to READY=1, of roots that had booted before.
    boots: Vec<Boot>,
    targets: Vec<Target>,
}

/// A ratio to reach.
#[derive(Debug, Serialize)]
struct Target {
    what: &'static str,
    limit: f64,
    reached: f64,
    met: bool,
}

impl Target {
    fn new(what: &'static str, limit: f64, reached: f64) -> Target {
        Target { what, limit, reached, met: reached <= limit }
    }
}

const NIXRUN: &str = "nixrun run";

impl Report {
    pub(super) fn new(machine: Machine, starts: Vec<Start>, boots: Vec<Boot>) -> Report {
        let ratio = |network, other| {
            median(&starts, NIXRUN, network).unwrap_or(f64::NAN)
                / median(&starts, other, network).unwrap_or(f64::NAN)
        };
        let boot = |kind: &str| {
            boots.iter().find(|boot| boot.fixture == kind).map_or(f64::NAN, |b| b.nixrun_ms / b.nspawn_ms)
        };
        let targets = vec![
            Target::new("run, loopback only, to bwrap", 0.3, ratio(Network::Loopback, "bwrap")),
            Target::new("run, host's network, to bwrap", 0.3, ratio(Network::Host, "bwrap")),
            Target::new("run, veth, to systemd-nspawn", 1.0 / 30.0, ratio(Network::Veth, "systemd-nspawn")),
            Target::new("run, veth, to the floor", 2.0, ratio(Network::Veth, "floor")),
            Target::new("boot of mini, to systemd-nspawn", 0.5, boot("mini")),
            Target::new("boot of base, to systemd-nspawn", 0.8, boot("base")),
        ];
        Report { machine, starts, boots, targets }
    }
}

fn median(starts: &[Start], tool: &str, network: Network) -> Option<f64> {
    starts.iter().find(|start| start.tool == tool && start.network == network).map(|start| start.median_us)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { date, cpu, cpus, kernel, load, versions } = &self.machine;
        writeln!(
            f,
            "{date} UTC, {cpu} with {cpus} CPUs, Linux {kernel}, load {load}{}",
            match self.machine.is_busy() {
                true => " (busy: figures too high, ratios rough)",
                false => "",
            }
        )?;
        let versions: Vec<_> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        writeln!(f, "{}\n", versions.join(", "))?;
        self.starts(f)?;
        self.boots(f)?;
        writeln!(f, "| target | at most | measured | |\n|---|---:|---:|---|")?;
        for Target { what, limit, reached, met } in &self.targets {
            writeln!(f, "| {what} | {limit:.3} | {reached:.3} | {} |", if *met { "met" } else { "MISSED" })?;
        }
        Ok(())
    }
}

impl Report {
    fn starts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.starts.first().map_or(0, |start| start.rounds);
        writeln!(
            f,
            "posix_spawn to exit of a program that only exits: median of {rounds} rounds in turn, us (times nixrun)\n"
        )?;
        writeln!(f, "| | own netns, loopback only | host's network | veth, masquerade, one forward |")?;
        writeln!(f, "|---|---:|---:|---:|")?;
        let mut tools: Vec<&str> = Vec::new();
        for start in &self.starts {
            if !tools.contains(&start.tool) {
                tools.push(start.tool);
            }
        }
        for tool in tools {
            write!(f, "| {tool} |")?;
            for network in [Network::Loopback, Network::Host, Network::Veth] {
                match (median(&self.starts, tool, network), median(&self.starts, NIXRUN, network)) {
                    (Some(own), Some(nixrun)) => write!(f, " {own:.0} ({:.2}) |", own / nixrun)?,
                    _ => write!(f, " - |")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f, "\nThe floor under \"veth\" makes the network namespace only.\n")
    }

    fn boots(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "start to READY=1 with a veth pair, root booted before: median, ms\n")?;
        writeln!(f, "| | nixrun boot | systemd-nspawn | ratio | rounds |\n|---|---:|---:|---:|---:|")?;
        for Boot { fixture, nixrun_ms, nspawn_ms, rounds } in &self.boots {
            let ratio = nixrun_ms / nspawn_ms;
            writeln!(f, "| {fixture} | {nixrun_ms:.1} | {nspawn_ms:.1} | {ratio:.2} | {rounds} |")?;
        }
        writeln!(f)
    }
}
