//! The kernel: its version, system calls, and what it was built with.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};

use runtime::HostPaths;
use runtime::sys::probe;

use super::Check;

/// The oldest kernel that nixrun is tested on, Debian 12's.
const OLDEST: (u32, u32) = (6, 1);

/// What the network of a container needs: module, a symbol that only this part of the kernel defines, and what for.
const MODULES: [(&str, &str, &str); 6] = [
    ("veth", "veth_newlink", "links between host and container"),
    ("bridge", "br_dev_setup", "HOST_BRIDGE"),
    ("nf_tables", "nf_tables_newtable", "NAT and forwarded ports"),
    ("nft_masq", "nft_masq_eval", "NAT"),
    ("nft_nat", "nft_nat_eval", "forwarded ports"),
    ("nft_fib_inet", "nft_fib_inet_eval", "forwarded ports"),
];

pub(super) fn checks(paths: &HostPaths) -> Vec<Check> {
    let release = fs::read_to_string(paths.proc("sys/kernel/osrelease")).unwrap_or_default();
    let mut checks = vec![version(release.trim())];
    checks.extend(probe::CALLS.iter().map(|(name, number, since)| {
        let name = format!("system call {name}");
        if probe::has_call(*number) {
            Check::ok(name, "present")
        } else {
            Check::fail(
                name,
                "missing",
                format!("run a kernel from {since} on, or allow the call where a filter denies it"),
            )
        }
    }));
    checks.push(seccomp(paths));
    checks.extend(modules(paths, release.trim()));
    checks
}

fn version(release: &str) -> Check {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let (major, minor) = OLDEST;
    match (numbers.next(), numbers.next()) {
        (Some(a), Some(b)) if (a, b) >= OLDEST => Check::ok("kernel", release),
        (Some(_), Some(_)) => Check::warn(
            "kernel",
            format!("{release}, older than any that nixrun is tested on"),
            format!("use Linux {major}.{minor} or newer"),
        ),
        _ => Check::warn("kernel", "version unknown", "mount procfs on /proc"),
    }
}

fn seccomp(paths: &HostPaths) -> Check {
    let name = "seccomp filters";
    match fs::read_to_string(paths.proc("sys/kernel/seccomp/actions_avail")) {
        Ok(actions) if actions.split_whitespace().any(|action| action == "errno") => {
            Check::ok(name, "present")
        }
        _ => Check::fail(name, "missing", "use a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

/// A module is there when its symbols are, whether loaded or built in, or when it can be loaded.
fn modules(paths: &HostPaths, release: &str) -> Vec<Check> {
    let mut present = [false; MODULES.len()];
    let mut named = false;
    if let Ok(file) = File::open(paths.proc("kallsyms")) {
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            // address, type, symbol, [module]
            let Some(symbol) = line.split_ascii_whitespace().nth(2) else { continue };
            named = true;
            for (found, (_, wanted, _)) in present.iter_mut().zip(MODULES) {
                *found |= symbol == wanted;
            }
        }
    }
    let loadable = fs::read_to_string(paths.join("/lib/modules").join(release).join("modules.dep"));
    let loadable = loadable.unwrap_or_default();
    let check = |((module, _, purpose), present): ((&str, &str, &str), bool)| {
        let name = format!("kernel {module}");
        let file = format!("/{module}.ko");
        if present {
            Check::ok(name, "present")
        } else if loadable.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&file)))
        {
            Check::ok(name, "is loaded when it is needed")
        } else if named {
            Check::fail(
                name,
                format!("missing, needed for {purpose}"),
                format!("install the kernel module {module}"),
            )
        } else {
            Check::warn(
                name,
                "unknown: neither /proc/kallsyms nor /lib/modules tell",
                format!("try `modprobe {module}` as root"),
            )
        }
    };
    MODULES.into_iter().zip(present).map(check).collect()
}
