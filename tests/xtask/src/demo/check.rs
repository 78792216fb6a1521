//! `cargo xtask demo --check`: everything that the sample container must do, seen from where it matters.
//!
//! ```text
//!   outside (a network namespace: 203.0.113.2, 2001:db8::2)
//!      |
//!   the host (network and mount namespaces of our own: 203.0.113.1, 2001:db8::1)
//!      | ve-nextcloud
//!   the container
//! ```
//! The outside has no route to the container's addresses: what comes back was translated.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fixture::Fixture;
use support::{HOST4, HOST6, Host, OUTSIDE4, OUTSIDE6, Outside};

use super::{Booted, NAME, PATIENCE, get, wait_for_page};
use crate::Result;

const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("curl", "curl"),
    ("strace", "strace"),
    ("setpriv", "util-linux"),
];

/// Runs all checks; the line of figures, or the first thing that is not as it must be.
pub(super) fn check(nixrun: &Path, fixture: &Fixture) -> Result<String> {
    fixture::require(PROGRAMS)?;
    Host::with(|host| on_host(&Demo { host, nixrun }, fixture).map_err(|error| Failed(error.to_string())))
        .map_err(|Failed(why)| why.into())
}

/// Why a check failed, on its way out of the host's thread.
struct Failed(String);

impl From<support::Error> for Failed {
    fn from(error: support::Error) -> Failed {
        Failed(error.to_string())
    }
}

/// The host and the nixrun under test.
struct Demo<'a> {
    host: &'a Host,
    nixrun: &'a Path,
}

impl Demo<'_> {
    fn nixrun(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(self.nixrun);
        command.arg("--host-root").arg(self.host.root()).args(arguments);
        command
    }

    fn exec(&self, arguments: &[&str], doing: &str) -> Result<String> {
        output(&mut self.nixrun(&[&["exec", NAME, "--"], arguments].concat()), doing)
    }
}

fn on_host(demo: &Demo<'_>, fixture: &Fixture) -> Result<String> {
    let host = demo.host;
    let outside = host.outside()?;
    fixture::install(fixture, host.root(), NAME)?;
    let log = host.root().join("console");
    let before = host.snapshot()?;

    let mut first = Booted::start(demo.nixrun, host.root(), &log)?;
    let ready = first.wait_ready()?;
    let page = wait_for_page(&format!("{HOST4}:8080"), Duration::from_secs(10))?;
    let answered = first.begun.elapsed();
    pages(&page, &outside)?;
    reaches_outside(demo, &outside)?;
    inside(demo)?;
    firewall(&outside)?;
    let value = number(&get("127.0.0.1:8080", "/")?)?;
    let (status, stop) = first.stop()?;
    expect(status.success(), || format!("nixrun ended with {status} instead of 0"))?;
    before.require_same(&host.snapshot()?, "after the stop")?;

    let helpers = second_boot(demo, value)?;
    before.require_same(&host.snapshot()?, "after the second boot")?;
    Ok(format!(
        "demo --check: READY {} ms, first page {} ms, stop {} ms, value {value} kept over a restart, {helpers}",
        ready.as_millis(),
        answered.as_millis(),
        stop.as_millis()
    ))
}

/// HTTP 200 with the value that was read back from PostgreSQL: from the host's address, from 127.0.0.1, from the
/// outside.
fn pages(first: &str, outside: &Outside) -> Result<()> {
    let first = number(first)?;
    let second = number(&get("127.0.0.1:8080", "/")?)?;
    let third = number(&outside.netns().sh(&format!("curl -sf -m 20 http://{HOST4}:8080/"))?)?;
    let fourth = number(&outside.netns().sh(&format!("curl -sf -m 20 'http://[{HOST6}]:8080/'"))?)?;
    expect([second, third, fourth] == [first + 1, first + 2, first + 3], || {
        format!("the database counted {first}, {second}, {third}, {fourth} for four visits")
    })
}

fn number(page: &str) -> Result<u64> {
    let value: serde_json::Value =
        serde_json::from_str(page).map_err(|error| format!("the page {page:?}: {error}"))?;
    value["value"].as_u64().ok_or_else(|| format!("the page {page:?} has no value from the database").into())
}

/// The container calls the outside, which sees the host's address.
fn reaches_outside(demo: &Demo<'_>, outside: &Outside) -> Result<()> {
    for (to, seen) in [(IpAddr::V4(OUTSIDE4), IpAddr::V4(HOST4)), (OUTSIDE6.into(), HOST6.into())] {
        let served = outside.serve_once(SocketAddr::new(to, 9000))?;
        let script = format!("exec 3<>/dev/tcp/{to}/9000 && echo >&3 && cat <&3");
        let answer = demo.exec(&["bash", "-c", &script], &format!("call {to} from the container"))?;
        let peer = served.asked_by()?;
        expect(answer.ends_with("outside\n") && peer == seen, || {
            format!("{to} was called from {peer} instead of {seen}, and answered {answer:?}")
        })?;
    }
    Ok(())
}

/// The container's own nftables, from the host and from an outside with a route to it: 80 is open; PostgreSQL
/// listens on 5432 and cannot be reached.
fn firewall(outside: &Outside) -> Result<()> {
    get("10.233.1.2:80", "/?read")?;
    outside
        .netns()
        .sh(&format!("ip route add 10.233.1.2 via {HOST4}; curl -sf -m 20 http://10.233.1.2/?read"))?;
    let database: SocketAddr = "10.233.1.2:5432".parse()?;
    let reach = || TcpStream::connect_timeout(&database, Duration::from_millis(1200)).is_ok();
    let reached = [reach(), outside.netns().run(|| Ok(reach()))?];
    expect(reached == [false, false], || "the container's firewall let 5432 through".to_owned())
}

fn inside(demo: &Demo<'_>) -> Result<()> {
    let state =
        demo.exec(&["systemctl", "is-system-running", "--wait"], "ask for the state of the system")?;
    expect(state.trim() == "running", || format!("systemd is {:?} instead of running", state.trim()))?;
    let failed = demo.exec(&["systemctl", "--failed", "--quiet", "--no-legend"], "list failed units")?;
    expect(failed.trim().is_empty(), || format!("units failed: {failed}"))?;
    // Or the firewall's silence would prove nothing.
    demo.exec(&["sh", "-c", "ss -ltn | grep -q '0.0.0.0:5432 '"], "see PostgreSQL listen on every address")?;
    let status = demo.nixrun(&["exec", NAME, "--", "sh", "-c", "exit 42"]).status()?;
    expect(status.code() == Some(42), || format!("exec passed on {status} instead of 42"))
}

/// Boots once more under strace: the state is still there, and nixrun starts no program but the container's init.
fn second_boot(demo: &Demo<'_>, value: u64) -> Result<String> {
    let trace = demo.host.root().join("trace");
    let mut command = demo.host.command("strace");
    command
        .args(["-f", "-qq", "-e", "trace=execve,clone,clone3,fork,vfork", "-o"])
        .arg(&trace)
        .arg(demo.nixrun);
    command.arg("--host-root").arg(demo.host.root()).args(["--quiet", "boot", NAME]);
    let mut child = command.stdout(fs::File::create(demo.host.root().join("console"))?).spawn()?;
    let again = number(&wait_for_page("127.0.0.1:8080", PATIENCE)?)?;
    let stopped = demo.nixrun(&["stop", NAME]).status()?;
    let status = child.wait()?;
    expect(status.success() && stopped.success(), || {
        format!("the second boot ended with {status}, its stop with {stopped}")
    })?;
    expect(again == value + 1, || format!("the database said {again} after a restart, and {value} before"))?;
    let started = started_by_first(&fs::read_to_string(trace)?);
    let only_init =
        matches!(&started[..], [init] if init.starts_with("/nix/store/") && init.ends_with("/init"));
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
            if how.contains("CLONE_THREAD") {
                first.insert(child)
            } else {
                children.insert(child)
            };
        }
    }
    started
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
