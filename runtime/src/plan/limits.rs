//! Resource limits: what the kernel gives PID 1, whatever the shell that starts nixrun has.

use serde::Serialize;

use crate::config::{ContainerConfig, ResourceLimit};
use crate::error::{Error, ErrorKind};
use crate::host::HostFacts;

/// One `RLIMIT_*`, in the unit that getrlimit(2) gives it: bytes, seconds, microseconds (`RTTIME`) or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Its name, without the prefix.
    pub name: &'static str,
    /// Soft limit; `u64::MAX` is infinity.
    pub soft: u64,
    /// Hard limit, likewise; at most our own where we may not raise it.
    pub hard: u64,
}

/// What getrlimit(2) takes; its type differs between libcs.
#[cfg(target_env = "musl")]
type Resource = libc::c_int;
/// What getrlimit(2) takes; its type differs between libcs.
#[cfg(not(target_env = "musl"))]
type Resource = libc::__rlimit_resource_t;

const INFINITY: u64 = libc::RLIM_INFINITY;

/// nspawn's table (`initialize_rlimits`, v256), and what was asked for in its place. Without CAP_SYS_RESOURCE a hard
/// limit can only go down: what lies above our own is clamped, and said once for all limits.
pub(super) fn plan(
    config: &ContainerConfig,
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<Vec<Limit>, Error> {
    let init = &host.init_limits;
    let nofile = init.nr_open.min(524_288);
    let mut table = [
        (libc::RLIMIT_CPU, "CPU", INFINITY, INFINITY),
        (libc::RLIMIT_FSIZE, "FSIZE", INFINITY, INFINITY),
        (libc::RLIMIT_DATA, "DATA", INFINITY, INFINITY),
        (libc::RLIMIT_STACK, "STACK", 8 << 20, INFINITY),
        (libc::RLIMIT_CORE, "CORE", 0, INFINITY),
        (libc::RLIMIT_RSS, "RSS", INFINITY, INFINITY),
        (libc::RLIMIT_NPROC, "NPROC", init.nproc.0, init.nproc.1),
        (libc::RLIMIT_NOFILE, "NOFILE", 1024.min(nofile), nofile),
        (libc::RLIMIT_MEMLOCK, "MEMLOCK", 8 << 20, 8 << 20),
        (libc::RLIMIT_AS, "AS", INFINITY, INFINITY),
        (libc::RLIMIT_LOCKS, "LOCKS", INFINITY, INFINITY),
        (libc::RLIMIT_SIGPENDING, "SIGPENDING", init.sigpending.0, init.sigpending.1),
        (libc::RLIMIT_MSGQUEUE, "MSGQUEUE", 819_200, 819_200),
        (libc::RLIMIT_NICE, "NICE", 0, 0),
        (libc::RLIMIT_RTPRIO, "RTPRIO", 0, 0),
        (libc::RLIMIT_RTTIME, "RTTIME", INFINITY, INFINITY),
    ];
    for asked in &config.execution.limits {
        let row = row_of(&table, config, asked)?;
        (table[row].2, table[row].3) = (asked.soft, asked.hard);
    }
    let asked = |name: &str| config.execution.limits.iter().any(|limit| plain(&limit.name) == name);
    let may_raise = host.capabilities.contains(caps::Capability::CAP_SYS_RESOURCE);
    let (mut clamped, mut refused) = (Vec::new(), Vec::new());
    let limits = table
        .into_iter()
        .map(|(resource, name, soft, hard)| {
            // The number's type differs between gnu and musl; its values are the same.
            #[allow(clippy::unnecessary_cast)]
            let resource = resource as u32;
            let own = host.own_limits.get(resource as usize).map_or(INFINITY, |limit| limit.1);
            let mut allowed = if may_raise { hard } else { hard.min(own) };
            if name == "NOFILE" {
                // Not even with CAP_SYS_RESOURCE.
                allowed = allowed.min(init.nr_open);
            }
            if allowed < hard {
                if asked(name) { &mut refused } else { &mut clamped }.push(name);
            }
            Limit { resource, name, soft: soft.min(allowed), hard: allowed }
        })
        .collect();
    if !clamped.is_empty() {
        warnings.push(format!(
            "the limits {} stay lower than systemd-nspawn sets them, because this machine lacks CAP_SYS_RESOURCE",
            clamped.join(", ")
        ));
    }
    if !refused.is_empty() {
        warnings.push(format!(
            "the limits {} stay lower than asked for: they cannot be raised above {} here",
            refused.join(", "),
            if may_raise { "fs.nr_open" } else { "nixrun's own without CAP_SYS_RESOURCE" }
        ));
    }
    Ok(limits)
}

/// The name without the prefix that systemd-nspawn takes, too.
fn plain(name: &str) -> &str {
    name.strip_prefix("RLIMIT_").unwrap_or(name)
}

fn row_of(
    table: &[(Resource, &'static str, u64, u64)],
    config: &ContainerConfig,
    asked: &ResourceLimit,
) -> Result<usize, Error> {
    let fault = |why: String| {
        let (container, name) = (&config.name, &asked.name);
        let sentence = format!("container {container} cannot have the limit {name:?}: {why}");
        Err(Error::new(ErrorKind::Config, sentence))
    };
    let Some(row) = table.iter().position(|(_, name, ..)| *name == plain(&asked.name)) else {
        let names = table.iter().map(|(_, name, ..)| *name);
        return fault(match crate::nearest::nearest(plain(&asked.name), names) {
            Some(nearest) => format!("there is none; did you mean {nearest:?}?"),
            None => "there is none; getrlimit(2) lists them".to_owned(),
        });
    };
    if asked.soft > asked.hard {
        return fault(format!("the soft limit {} is above the hard one, {}", asked.soft, asked.hard));
    }
    Ok(row)
}
