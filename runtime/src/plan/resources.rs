//! Limits of the container's control group: what is written to which of its files.

use serde::{Deserialize, Serialize};

use super::CgroupPlan;
use crate::config::{ContainerConfig, CpuMax, IoMax, Resources};
use crate::error::{Error, ErrorKind};
use crate::host::{CgroupFacts, Controllers, HostFacts};

/// A line that is written to a file of a control group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Name of the file: the controller's, a dot, and more.
    pub file: String,
    /// What is written.
    pub value: String,
}

impl Setting {
    fn new(file: &str, value: impl ToString) -> Setting {
        Setting { file: file.to_owned(), value: value.to_string() }
    }

    /// The controller that the file belongs to.
    #[must_use]
    pub fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }
}

/// What to write, and that the group will have the controllers for it: nothing that was asked for is left out.
pub(super) fn plan(
    config: &ContainerConfig,
    host: &HostFacts,
    cgroup: &CgroupPlan,
) -> Result<Vec<Setting>, Error> {
    if config.resources == Resources::default() {
        return Ok(Vec::new());
    }
    let mut settings = group_settings(&config.name, &config.resources)?;
    for io in &config.resources.io_max {
        settings.push(Setting::new("io.max", io_max(&config.name, host, io)?));
    }
    let (Some(facts), Some(controllers)) = (&host.cgroup, &host.asked.controllers) else {
        return Ok(settings);
    };
    // Planned before the front end has asked systemd for a scope, in which all this will be another matter.
    if cgroup.make_unit && host.systemd {
        return Ok(settings);
    }
    for setting in &settings {
        check(config, setting, facts, controllers, cgroup)?;
    }
    Ok(settings)
}

/// What to write for limits, io.max aside, which depends on the host's devices.
///
/// # Errors
/// What the kernel would not take, in the name of the container.
pub fn group_settings(name: &str, asked: &Resources) -> Result<Vec<Setting>, Error> {
    let mut settings = Vec::new();
    for (file, value) in [
        ("memory.max", asked.memory_max),
        ("memory.high", asked.memory_high),
        ("memory.swap.max", asked.memory_swap_max),
    ] {
        settings.extend(value.map(|value| Setting::new(file, most(value))));
    }
    if let Some(max) = asked.cpu_max {
        settings.push(Setting::new("cpu.max", cpu_max(name, max)?));
    }
    if let Some(weight) = asked.cpu_weight {
        if !(1..=10_000).contains(&weight) {
            return fault(name, &format!("cpu.weight {weight}"), "it goes from 1 to 10000");
        }
        settings.push(Setting::new("cpu.weight", weight));
    }
    if let Some(pids) = asked.pids_max {
        if pids == 0 {
            return fault(name, "pids.max 0", "not even its first process could exist");
        }
        settings.push(Setting::new("pids.max", most(pids)));
    }
    for (file, cpus) in [("cpuset.cpus", &asked.cpuset_cpus), ("cpuset.mems", &asked.cpuset_mems)] {
        if let Some(cpus) = cpus {
            let listed = !cpus.is_empty() && cpus.bytes().all(|b| b.is_ascii_digit() || b",-:/".contains(&b));
            if !listed {
                return fault(name, &format!("{file} {cpus:?}"), "it is a list of numbers such as 0-3,7");
            }
            settings.push(Setting::new(file, cpus));
        }
    }
    Ok(settings)
}

/// The kernel's word for no limit.
fn most(value: u64) -> String {
    if value == u64::MAX { "max".to_owned() } else { value.to_string() }
}

/// The kernel's bounds (kernel/sched/core.c): a millisecond of time at least, a period from one to a second.
fn cpu_max(name: &str, max: CpuMax) -> Result<String, Error> {
    if !(1_000..=1_000_000).contains(&max.period) {
        let what = format!("cpu.max with a period of {} us", max.period);
        return fault(name, &what, "a period has 1000 to 1000000 us");
    }
    match max.quota {
        Some(quota) if quota < 1_000 => fault(
            name,
            &format!("cpu.max with {quota} us in {}", max.period),
            "less than 1000 us the kernel does not give",
        ),
        Some(quota) => Ok(format!("{quota} {}", max.period)),
        None => Ok(format!("max {}", max.period)),
    }
}

fn io_max(name: &str, host: &HostFacts, io: &IoMax) -> Result<String, Error> {
    let disk = host.asked.disks.iter().find(|(path, _)| *path == io.device).and_then(|(_, disk)| *disk);
    let Some((major, minor)) = disk else {
        let what = format!("io.max for {}", io.device.display());
        return fault(name, &what, "it is neither a block device nor a file on one");
    };
    let limits = [
        ("rbps", io.read_bytes),
        ("wbps", io.write_bytes),
        ("riops", io.read_operations),
        ("wiops", io.write_operations),
    ];
    let limits =
        limits.iter().filter_map(|(name, limit)| limit.map(|limit| format!(" {name}={}", most(limit))));
    let limits: String = limits.collect();
    if limits.is_empty() {
        return fault(name, &format!("io.max for {}", io.device.display()), "no limit was given");
    }
    Ok(format!("{major}:{minor}{limits}"))
}

fn fault<T>(container: &str, what: &str, why: &str) -> Result<T, Error> {
    Err(Error::new(ErrorKind::Config, format!("container {container} cannot have {what}: {why}")))
}

/// In a delegated unit we enable its controllers for the groups below it. Elsewhere our own group has processes, us for
/// one, and the kernel enables controllers for the groups below such a one only at the root of all.
fn check(
    config: &ContainerConfig,
    setting: &Setting,
    facts: &CgroupFacts,
    controllers: &Controllers,
    cgroup: &CgroupPlan,
) -> Result<(), Error> {
    let controller = setting.controller();
    let has = |list: &[String]| list.iter().any(|found| found == controller);
    let refuse = |group: &std::path::Path, fault: &str, hint: &str| {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "container {} cannot have {}: the control group {} {fault} {controller}",
                config.name,
                setting.file,
                group.display()
            ),
        )
        .hint(hint))
    };
    if !has(&controllers.available) {
        return refuse(
            if cgroup.make_unit { &facts.own } else { &cgroup.unit },
            "does not have the controller",
            "its service manager gives controllers by Delegate=yes, the kernel only where no version 1 hierarchy has \
             taken them (systemd.unified_cgroup_hierarchy=1)",
        );
    }
    if cgroup.make_unit && !facts.is_root && !has(&controllers.enabled) {
        return refuse(
            &facts.own,
            "has processes and so cannot share out the controller",
            "run nixrun in a unit of its own: systemd-run -p Delegate=yes",
        );
    }
    Ok(())
}
