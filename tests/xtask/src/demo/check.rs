//! `cargo xtask demo --check`: everything that the sample container must do, seen from where it matters.
//!
//! ```text
//!   outside (a network namespace: 198.51.100.2, 2001:db8:51::2)
//!      | uplink
//!   the host (network and mount namespaces of our own: 198.51.100.1, 2001:db8:51::1)
//!      | ve-nextcloud
//!   the container
//! ```
//! The outside has no route to the container's addresses: what comes back was translated.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use blackbox::Host;
use fixture::Fixture;

use super::{Booted, NAME, get, wait_for_page};
use crate::Result;

const PROGRAMS: &[(&str, &str)] =
    &[("ip", "iproute2"), ("nft", "nftables"), ("socat", "socat"), ("curl", "curl"), ("strace", "strace")];

/// Runs all checks; the line of figures, or the first thing that is not as it must be.
pub(super) fn check(nixrun: &Path, fixture: &Fixture) -> Result<String> {
    fixture::require(PROGRAMS)?;
    let outcome = Mutex::new(Err("the demo needs namespaces of its own, which this machine refuses".to_owned()));
    blackbox::on_host(|host| {
        let result = on_host(host, nixrun, fixture).map_err(|error| error.to_string());
        *outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = result;
    });
    Ok(outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?)
}

fn on_host(host: &Host, nixrun: &Path, fixture: &Fixture) -> Result<String> {
    let _outside = Outside::connect(host);
    fixture::install(fixture, host.dir(), NAME)?;
    // What the first boot makes for good: the root and the container's own profiles.
    std::fs::create_dir_all(host.root_of(NAME))?;
    for kind in ["profiles", "gcroots"] {
        std::fs::create_dir_all(host.path("nix/var/nix").join(kind).join("per-container").join(NAME))?;
    }
    std::fs::create_dir_all(host.path("output"))?;
    let before = host.snapshot();
    let log = host.path("output/console");

    let mut first = Booted::start(nixrun, host.dir(), &log)?;
    let ready = first.wait_ready()?;
    let page = wait_for_page("198.51.100.1:8080", Duration::from_secs(10))?;
    let answered = first.begun.elapsed();
    pages(&page)?;
    reaches_outside(host)?;
    firewall()?;
    inside(host)?;
    let value = number(&get("127.0.0.1:8080", "/")?)?;
    let (status, stop) = first.stop()?;
    expect(status.success(), || format!("nixrun ended with {status} instead of 0"))?;
    same(&before, host, "after the stop")?;

    let helpers = programs_started(host, nixrun, value)?;
    same(&before, host, "after the second boot")?;
    Ok(format!(
        "demo --check: READY {} ms, first page {} ms, stop {} ms, value {value} kept over a restart, {helpers}",
        ready.as_millis(),
        answered.as_millis(),
        stop.as_millis()
    ))
}

/// The network namespace that stands for the rest of the world.
struct Outside<'h>(&'h Host);

impl Outside<'_> {
    fn connect(host: &Host) -> Outside<'_> {
        host.sh("ip netns add outside
            ip link add uplink type veth peer name world netns outside
            ip addr add 198.51.100.1/24 dev uplink; ip addr add 2001:db8:51::1/64 dev uplink nodad
            ip link set uplink up; ip route add default via 198.51.100.2
            ip -n outside addr add 198.51.100.2/24 dev world
            ip -n outside addr add 2001:db8:51::2/64 dev world nodad
            ip -n outside link set lo up; ip -n outside link set world up
            ip -6 route add default via 2001:db8:51::2");
        // Both answer with the address that they were called from.
        for listen in ["TCP4-LISTEN:9000,bind=198.51.100.2", "TCP6-LISTEN:9000,bind=[2001:db8:51::2],ipv6only"] {
            let socat = ["socat", &format!("{listen},fork,reuseaddr"), "SYSTEM:echo $SOCAT_PEERADDR"].join("\u{1}");
            let mut command = host.command("ip");
            command.args(["netns", "exec", "outside"]).args(socat.split('\u{1}'));
            // It ends with the host's control group.
            drop(command.spawn());
        }
        // Link-local addresses settle, so that both snapshots have them.
        std::thread::sleep(Duration::from_millis(2500));
        Outside(host)
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        self.0.end_processes();
        self.0.sh("ip netns del outside");
    }
}

/// HTTP 200 with the value that was read back from PostgreSQL: from the host's address, from 127.0.0.1, from the
/// outside.
fn pages(first: &str) -> Result<()> {
    let first = number(first)?;
    let second = number(&get("127.0.0.1:8080", "/")?)?;
    let curl = ["netns", "exec", "outside", "curl", "-sf", "-m", "20", "http://198.51.100.1:8080/"];
    let third = number(&output(Command::new("ip").args(curl), "get the page from outside")?)?;
    let curl = ["netns", "exec", "outside", "curl", "-sf", "-m", "20", "http://[2001:db8:51::1]:8080/"];
    let fourth = number(&output(Command::new("ip").args(curl), "get the page from outside by IPv6")?)?;
    expect([second, third, fourth] == [first + 1, first + 2, first + 3], || {
        format!("the database counted {first}, {second}, {third}, {fourth} for four visits")
    })
}

fn number(page: &str) -> Result<u64> {
    let value: serde_json::Value = serde_json::from_str(page).map_err(|error| format!("the page {page:?}: {error}"))?;
    value["value"].as_u64().ok_or_else(|| format!("the page {page:?} has no value from the database").into())
}

/// The container calls the outside, which sees the host's address.
fn reaches_outside(host: &Host) -> Result<()> {
    for (to, seen) in [("198.51.100.2", "198.51.100.1"), ("2001:db8:51::2", "[2001:0db8:0051:0000:0000:0000:0000:0001]")] {
        let script = format!("exec 3<>/dev/tcp/{to}/9000 && cat <&3");
        let mut exec = host.nixrun(&["exec", NAME, "--", "bash", "-c", &script]);
        let answer = output(&mut exec, &format!("call {to} from the container"))?;
        expect(answer.trim() == seen, || format!("{to} was called from {:?} instead of {seen}", answer.trim()))?;
    }
    Ok(())
}

/// The container's own nftables: 80 is open, PostgreSQL listens on 5432 and cannot be reached.
fn firewall() -> Result<()> {
    get("10.233.1.2:80", "/?read")?;
    let database: SocketAddr = "10.233.1.2:5432".parse()?;
    let reached = TcpStream::connect_timeout(&database, Duration::from_millis(1500)).is_ok();
    expect(!reached, || "the container's firewall let 5432 through".to_owned())
}

fn inside(host: &Host) -> Result<()> {
    let exec = |arguments: &[&str], doing: &str| {
        output(&mut host.nixrun(&[&["exec", NAME, "--"], arguments].concat()), doing)
    };
    let state = exec(&["systemctl", "is-system-running", "--wait"], "ask for the state of the system")?;
    expect(state.trim() == "running", || format!("systemd is {:?} instead of running", state.trim()))?;
    let failed = exec(&["systemctl", "--failed", "--quiet", "--no-legend"], "list failed units")?;
    expect(failed.trim().is_empty(), || format!("units failed: {failed}"))?;
    let listens = exec(&["sh", "-c", "ss -ltn | grep -c ':5432 '"], "look for PostgreSQL")?;
    expect(listens.trim() != "0", || "PostgreSQL does not listen, so the firewall proves nothing".to_owned())?;
    let status = host.nixrun(&["exec", NAME, "--", "sh", "-c", "exit 42"]).status()?;
    expect(status.code() == Some(42), || format!("exec passed on {status} instead of 42"))
}

/// Boots once more under strace: the state is still there, and nixrun starts no program but the container's init.
fn programs_started(host: &Host, nixrun: &Path, value: u64) -> Result<String> {
    let trace = host.path("output/trace");
    let mut command = host.command("strace");
    command.args(["-f", "-qq", "-e", "trace=execve,clone,clone3,fork,vfork", "-o"]).arg(&trace).arg(nixrun);
    command.arg("--host-root").arg(host.dir()).args(["boot", NAME]);
    let mut child = command.stdout(std::fs::File::create(host.path("output/console"))?).spawn()?;
    let page = wait_for_page("127.0.0.1:8080", super::PATIENCE)?;
    let again = number(&page)?;
    let stopped = host.nixrun(&["stop", NAME]).status()?;
    let status = child.wait()?;
    expect(status.success() && stopped.success(), || {
        format!("the second boot ended with {status}, its stop with {stopped}")
    })?;
    expect(again == value + 1, || format!("the database said {again} after a restart, and {value} before"))?;
    let started = started_by_first(&std::fs::read_to_string(trace)?);
    let only_init = matches!(&started[..], [init] if init.starts_with("/nix/store/") && init.ends_with("/init"));
    expect(only_init, || format!("nixrun started {started:?} instead of the container's init alone"))?;
    Ok("no helper process".to_owned())
}

/// The programs that children of the first process in strace's output executed; its threads count as itself.
fn started_by_first(trace: &str) -> Vec<String> {
    let mut first: BTreeSet<&str> = trace.split(' ').take(1).collect();
    let mut children = BTreeSet::new();
    let mut started = Vec::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(program) = call.strip_prefix("execve(\"").filter(|_| children.contains(pid)) {
            started.push(program.split('"').next().unwrap_or_default().to_owned());
            // What it executes next is its own business.
            children.remove(pid);
        }
        let made = ["clone", "fork", "vfork", "<... clone", "<... fork", "<... vfork"];
        let child = call.rsplit_once(" = ").filter(|_| made.iter().any(|name| call.starts_with(name)));
        if let Some((how, child)) = child.filter(|_| first.contains(pid)) {
            if how.contains("CLONE_THREAD") { first.insert(child) } else { children.insert(child) };
        }
    }
    started
}

fn same(before: &blackbox::Snapshot, host: &Host, when: &str) -> Result<()> {
    let after = host.snapshot();
    // What the traffic taught the host about the outside, and what the container wrote into its own gcroots.
    let expected = |line: &&str| line.contains(" dev uplink lladdr ") || line.contains("gcroots/per-container/");
    let difference = before.difference(&after);
    let difference: Vec<&str> = difference.lines().filter(|line| !expected(line)).collect();
    let difference = difference.join("\n");
    expect(difference.is_empty(), || format!("{when} the host is not as before:\n{difference}"))
}

fn output(command: &mut Command, doing: &str) -> Result<String> {
    let output = command.output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    expect(output.status.success(), || format!("could not {doing}: {} {out}{err}", output.status))?;
    Ok(out.into_owned())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_children_of_the_first_process_count() {
        let trace = "10 execve(\"/bin/nixrun\", [...], 0x0) = 0
10 clone3({flags=CLONE_VM|CLONE_THREAD}, 88 => {parent_tid=[11]}, 88) = 11
11 clone3({flags=CLONE_NEWNS}, 88 <unfinished ...>
11 <... clone3 resumed>) = 12
12 execve(\"/nix/store/x/init\", [...], 0x0) = 0
12 clone(child_stack=NULL, flags=SIGCHLD) = 13
13 execve(\"/usr/bin/mount\", [...], 0x0) = 0
";
        assert_eq!(started_by_first(trace), ["/nix/store/x/init"]);
        let helper = format!("{trace}10 vfork() = 14\n14 execve(\"/usr/sbin/ip\", [...], 0x0) = 0\n");
        assert_eq!(started_by_first(&helper), ["/nix/store/x/init", "/usr/sbin/ip"]);
    }
}
