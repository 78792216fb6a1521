//! Everything about a container, for a person.

use std::fmt::Write;

use serde_json::Value;

use super::network::End;
use super::{Forward, Inspection, Live, Network, Setting};
use crate::output::Colour;
use crate::top::{age, colour};

/// Sections, those with nothing in them left out. `paint` gives text a colour, or not.
#[must_use]
pub fn describe(one: &Inspection, paint: impl Fn(&str, Option<Colour>) -> String) -> String {
    let mut text = format!("{}  {}\n", one.name, paint(&one.state.to_string(), colour(one.state)));
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = write!(text, "\n{}\n", paint(title, Some(Colour::Bold)));
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    };
    section("change", one.change.iter().map(|change| pending(change.holder.as_deref())).collect());
    section("system", one.system.iter().map(system).collect());
    section("snapshots", one.snapshots.iter().map(kept).collect());
    section("configuration", configuration(&one.configuration));
    section("network", one.network.as_ref().map(network).unwrap_or_default());
    section("live", one.live.as_ref().map(live).unwrap_or_default());
    let plan = match (&one.plan, &one.plan_error) {
        (_, Some(error)) => vec![paint(error, Some(Colour::Red))],
        (Some(plan), None) => summary(plan, &one.name),
        (None, None) => Vec::new(),
    };
    section("next start", plan);
    text
}

fn pending(holder: Option<&str>) -> String {
    match holder {
        Some(holder) => format!("being changed by {holder}"),
        None => {
            "was begun and interrupted; the next command on this container completes or undoes it".to_owned()
        }
    }
}

fn kept(snapshot: &super::Snapshot) -> String {
    format!("of generation {}, kept {}: {}", snapshot.generation, snapshot.taken, snapshot.path.display())
}

fn system(system: &super::System) -> String {
    match system.generation {
        Some(number) => {
            format!("{} (generation {number} of {})", system.path.display(), system.generations)
        }
        None => system.path.display().to_string(),
    }
}

/// Each setting with its place behind it.
fn configuration(all: &[Setting]) -> Vec<String> {
    let value = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let pair = |one: &Setting| format!("{} = {}", one.key, value(&one.value));
    let width =
        all.iter().map(|one| pair(one).chars().count()).filter(|width| *width <= 48).max().unwrap_or(0);
    let line = |one: &Setting| {
        let line = one.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!("{:<width$}  {}{line}", pair(one), one.file.display())
    };
    all.iter().map(line).collect()
}

fn network(network: &Network) -> Vec<String> {
    let end = |end: &End| {
        let altname = end.altname.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let addresses: String = end.addresses.iter().map(|address| format!(" {address}")).collect();
        format!("{}{altname}{addresses}", end.name)
    };
    let mut lines = Vec::new();
    for pair in &network.pairs {
        let bridge = pair.bridge.as_ref().map(|bridge| format!(", on bridge {bridge}")).unwrap_or_default();
        lines.push(format!("host       {}{bridge}", end(&pair.host)));
        lines.push(format!("container  {}, mac {}", end(&pair.container), pair.container.mac));
    }
    lines.extend(
        network.inside.iter().map(|link| format!("{} {} of {}", link.kind, link.name, link.host_link)),
    );
    lines.extend(network.forwards.iter().map(forward));
    if network.nat != "none" {
        lines.push(format!("nat        {}", network.nat));
    }
    lines
}

fn forward(forward: &Forward) -> String {
    let address = forward.host_address.as_deref().unwrap_or("any address");
    let Forward { protocol, host_port, container_port, .. } = forward;
    format!("forward    {protocol} port {host_port} of {address} to port {container_port}")
}

fn live(live: &Live) -> Vec<String> {
    let namespaces: Vec<String> = live
        .namespaces
        .iter()
        .filter(|(name, _)| !name.ends_with("_for_children"))
        .map(|(name, inode)| format!("{name} {inode}"))
        .collect();
    let users = live.users.map(|users| format!("{} ids from {} on", users.length, users.base));
    let limits: Vec<String> = live.limits.iter().map(|(file, value)| format!("{file} {value}")).collect();
    let some = |texts: &[String], between| Some(texts.join(between)).filter(|text| !text.is_empty());
    let lines = [
        ("since", Some(format!("{} ago", age(live.uptime)))),
        ("pid", Some(live.leader.to_string())),
        ("supervisor", Some(live.supervisor.to_string())),
        ("program", Some(live.program.clone())),
        ("addresses", some(&live.addresses, " ")),
        ("links", some(&live.links, " ")),
        ("uuid", Some(live.uuid.clone())),
        ("root", Some(live.root.display().to_string())),
        ("cgroup", Some(live.cgroup.display().to_string())),
        ("limits", some(&limits, ", ")),
        ("users", users),
        ("namespaces", some(&namespaces, ", ")),
    ];
    lines.into_iter().filter_map(|(key, value)| Some(format!("{key:<12}{}", value?))).collect()
}

/// How much of each kind the plan has.
fn summary(plan: &serde_json::Map<String, Value>, name: &str) -> Vec<String> {
    let count = |key: &str| plan.get("container").and_then(|plan| plan.get(key)?.as_array()).map(Vec::len);
    let mut lines: Vec<String> = [("mounts", "mounts"), ("warnings", "warnings")]
        .iter()
        .filter_map(|(key, what)| Some(format!("{what:<12}{}", count(key).filter(|count| *count > 0)?)))
        .collect();
    lines.push(format!("`nixrun plan {name}` shows everything"));
    lines
}
