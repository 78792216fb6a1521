//! What the kernel's schedulers and its OOM killer make of the container's processes.

use crate::config::ContainerConfig;
use crate::error::{Error, ErrorKind};
use crate::host::HostFacts;

/// The bounds of `oom_score_adj` (linux/oom.h).
const OOM_SCORE: std::ops::RangeInclusive<i32> = -1000..=1000;

/// One beyond the highest CPU that a mask of ours names: glibc's and musl's `CPU_SETSIZE`.
const MOST_CPUS: u32 = 1024;

/// Without CAP_SYS_RESOURCE a process can make itself the OOM killer's choice, and not less so.
pub(super) fn oom_score(
    config: &ContainerConfig,
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<Option<i32>, Error> {
    let Some(asked) = config.execution.oom_score_adjust else { return Ok(None) };
    if !OOM_SCORE.contains(&asked) {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "container {} cannot have the OOM score adjustment {asked}: it goes from -1000 to 1000",
                config.name
            ),
        ));
    }
    let own = host.asked.oom_score_adjust.unwrap_or(0);
    if asked >= own || host.capabilities.contains(caps::Capability::CAP_SYS_RESOURCE) {
        return Ok(Some(asked));
    }
    warnings.push(format!(
        "the OOM score adjustment is {own} instead of {asked}, because this machine lacks CAP_SYS_RESOURCE"
    ));
    Ok(Some(own))
}

/// The kernel leaves out CPUs that are not there; with none left, it would refuse.
pub(super) fn affinity(config: &ContainerConfig, host: &HostFacts) -> Result<Option<Vec<u32>>, Error> {
    let Some(asked) = &config.execution.cpu_affinity else { return Ok(None) };
    let online = &host.asked.cpus;
    let mut cpus: Vec<u32> = asked.iter().copied().filter(|cpu| *cpu < MOST_CPUS).collect();
    cpus.sort_unstable();
    cpus.dedup();
    if !online.is_empty() && !cpus.iter().any(|cpu| online.contains(cpu)) || cpus.is_empty() {
        let list = |cpus: &[u32]| cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        return Err(Error::new(
            ErrorKind::Config,
            format!("container {} cannot run on the CPUs {}: none of them exists", config.name, list(asked)),
        )
        .hint(format!("this machine has {}", list(online))));
    }
    Ok(Some(cpus))
}
