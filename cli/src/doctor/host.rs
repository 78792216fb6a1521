//! Who we are and how the host is organised: capabilities, control groups, init.

use runtime::{CapSet, CgroupFacts, HostFacts, HostPaths};

use super::Check;

/// Without one of these no container starts.
const REQUIRED: &str =
    "CAP_SYS_ADMIN,CAP_NET_ADMIN,CAP_SETPCAP,CAP_MKNOD,CAP_CHOWN,CAP_DAC_OVERRIDE,CAP_KILL";

pub(super) fn checks(paths: &HostPaths) -> Vec<Check> {
    match HostFacts::probe(paths) {
        Ok(facts) => {
            let mut checks = vec![capabilities(facts.capabilities)];
            checks.extend(cgroups(facts.cgroup.as_ref(), facts.systemd));
            checks
        }
        Err(error) => vec![Check::fail("host", error.to_string(), "mount procfs on /proc")],
    }
}

pub(super) fn capabilities(available: CapSet) -> Check {
    let name = "capabilities";
    let required = CapSet::parse(REQUIRED).unwrap_or(CapSet::EMPTY);
    let missing = required.difference(available);
    if !missing.is_empty() {
        let fix = "run nixrun as root, outside containers that withhold them";
        return Check::fail(name, format!("{missing} not available"), fix);
    }
    let lacking = runtime::nspawn_default(true).difference(available);
    if lacking.is_empty() {
        return Check::ok(name, "all that containers get by default");
    }
    let fix = "run nixrun where they are available if a container needs them";
    Check::warn(name, format!("{lacking} not available, so containers start without"), fix)
}

pub(super) fn cgroups(facts: Option<&CgroupFacts>, systemd: bool) -> Vec<Check> {
    let name = "control groups";
    let Some(facts) = facts else {
        let fix =
            "boot without systemd.unified_cgroup_hierarchy=0, or `mount -t cgroup2 cgroup2 /sys/fs/cgroup`";
        return vec![Check::fail(name, "no cgroup v2 hierarchy is mounted", fix)];
    };
    let mount = facts.mount.display();
    let layout = if facts.mount.ends_with("unified") {
        let fix = "boot without systemd.unified_cgroup_hierarchy=0";
        let detail = format!("v2 at {mount} beside v1, whose controllers do not apply to containers");
        Check::warn(name, detail, fix)
    } else {
        Check::ok(name, format!("v2 at {mount}"))
    };
    let own = facts.own.display();
    let place = match &facts.delegated {
        Some(unit) => {
            Check::ok("place of containers", format!("below the delegated unit {}", unit.display()))
        }
        None if systemd => Check::ok("place of containers", "a scope of its own, asked from systemd"),
        None => Check::ok("place of containers", format!("below {own}")),
    };
    vec![layout, place, kill(facts)]
}

/// `cgroup.kill` (Linux 5.14) is in every group but the root.
fn kill(facts: &CgroupFacts) -> Check {
    let name = "cgroup.kill";
    let has = |group: &std::path::Path| group.join("cgroup.kill").exists();
    let children = || std::fs::read_dir(&facts.own).into_iter().flatten().flatten().map(|entry| entry.path());
    if has(&facts.own) || children().any(|child| has(&child)) {
        Check::ok(name, "present")
    } else if facts.is_root && !children().any(|child| child.is_dir()) {
        Check::ok(name, "not looked for: there is no group but the root")
    } else {
        Check::fail(name, "missing", "use Linux 5.14 or newer")
    }
}
