//! NAME.containers: on the host, between containers, and nowhere any more once they have ended.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use blackbox::{Container, Host, on_host, wait_for};
use fixture::Kind;
use nix::sys::signal::Signal;

/// A hosts(5) file with everything that nixrun must not touch, down to the last line without an end.
const FOREIGN: &str =
    "127.0.0.1\tlocalhost\r\n\n# 10.9.9.9 old.containers\n10.9.9.9 other.containers other\n::1 ip6";

/// Configures a container on a link of its own with these addresses.
fn install(host: &Host<'_>, name: &str, net: u8) {
    host.install(Kind::Mini, name);
    let (outer, inner) = (format!("10.77.{net}.1"), format!("10.77.{net}.2"));
    let (outer6, inner6) = (format!("fd77:{net}::1"), format!("fd77:{net}::2"));
    host.set_conf(
        name,
        &[
            ("HOST_PORT", None),
            ("HOST_ADDRESS", Some(&outer)),
            ("LOCAL_ADDRESS", Some(&inner)),
            ("HOST_ADDRESS6", Some(&outer6)),
            ("LOCAL_ADDRESS6", Some(&inner6)),
        ],
    );
}

fn hosts(host: &Host<'_>) -> String {
    fs::read_to_string(host.path("etc/hosts")).unwrap()
}

/// The address that a program on the host finds for a name, by the C library; empty for none.
fn resolve(host: &Host<'_>, name: &str) -> String {
    let file = host.path("etc/hosts");
    let script = format!(
        "unshare -m sh -c 'busybox mount -o bind {} /etc/hosts && getent -s hosts:files ahostsv4 {name} | grep STREAM | cut -d\" \" -f1' || :",
        file.display()
    );
    host.sh(&script).trim().to_owned()
}

/// Whether a container reaches another one by its name.
fn reaches(host: &Host<'_>, from: &str, to: &str) -> bool {
    host.inside(from, &format!("ping -c 1 -W 2 {to}.containers > /dev/null 2>&1 && echo yes || echo no"))
        == "yes\n"
}

fn kill(host: &Host<'_>, container: Container<'_>) {
    container.signal(Signal::SIGKILL);
    container.wait();
    wait_for("the end of the container", || host.processes().is_empty().then_some(()));
}

#[test]
fn a_name_is_known_on_the_host_for_as_long_as_its_container_runs() {
    on_host(|host| {
        host.write("etc/hosts", FOREIGN, 0o644);
        install(host, "web", 1);
        install(host, "db", 2);
        let mut before = None;
        for _ in 0..2 {
            let (web, db) = (host.boot("web"), host.boot("db"));
            let text = hosts(host);
            for line in
                ["10.77.1.2 web.containers\n", "fd77:1::2 web.containers\n", "10.77.2.2 db.containers\n"]
            {
                assert_eq!(text.matches(line).count(), 1, "{text}");
            }
            assert_eq!(resolve(host, "web.containers"), "10.77.1.2");
            assert_eq!(resolve(host, "db.containers"), "10.77.2.2");
            assert_eq!(web.stop().code, Some(0));
            assert_eq!(
                (resolve(host, "web.containers"), resolve(host, "db.containers").as_str()),
                (String::new(), "10.77.2.2")
            );
            assert_eq!(db.stop().code, Some(0));
            assert_eq!(hosts(host), FOREIGN);
            // The first time their directories are made.
            before
                .get_or_insert_with(|| host.snapshot())
                .assert_same(&host.snapshot(), "after two containers");
        }
    });
}

#[test]
fn the_name_is_there_when_start_returns() {
    on_host(|host| {
        host.write("etc/hosts", FOREIGN, 0o644);
        install(host, "web", 1);
        for _ in 0..3 {
            host.ok(&["start", "web"]);
            assert_eq!(resolve(host, "web.containers"), "10.77.1.2");
            host.ok(&["stop", "web"]);
            assert_eq!(hosts(host), FOREIGN);
        }
    });
}

#[test]
fn a_killed_one_is_forgotten_by_reclaim_and_by_its_next_start() {
    on_host(|host| {
        host.write("etc/hosts", FOREIGN, 0o644);
        install(host, "web", 1);
        host.boot("web").stop();
        let before = host.snapshot();
        let container = host.boot("web");
        kill(host, container);
        assert!(hosts(host).contains("web.containers"), "nobody was there to remove it");
        let said = host.ok(&["reclaim"]);
        assert!(said.contains("web.containers"), "{said}");
        assert_eq!(hosts(host), FOREIGN);
        before.assert_same(&host.snapshot(), "after reclaim");
        let container = host.boot("web");
        kill(host, container);
        let container = host.boot("web");
        assert_eq!(hosts(host).matches("10.77.1.2 web.containers").count(), 1);
        assert_eq!(container.stop().code, Some(0));
        assert_eq!(hosts(host), FOREIGN);
    });
}

#[test]
fn containers_know_each_other() {
    on_host(|host| {
        host.write("etc/hosts", FOREIGN, 0o644);
        install(host, "web", 1);
        install(host, "db", 2);
        host.set_conf("db", &[("PRIVATE_USERS", Some("pick"))]);
        install(host, "third", 3);
        // Nobody is asked who would not answer.
        host.write("etc/resolv.conf", "options timeout:1\n", 0o644);
        let (web, db) = (host.boot("web"), host.boot("db"));
        // NixOS has a link into the store there, which stays; a file of the container's own gets the names.
        assert!(host.inside("web", "readlink /etc/hosts").contains("static"));
        host.inside("web", "rm /etc/hosts; echo '10.1.1.1 mine' > /etc/hosts");
        host.inside("db", "rm /etc/hosts");
        let third = host.boot("third");
        for (from, to) in [("web", "db"), ("db", "web"), ("web", "third"), ("db", "third")] {
            wait_for(&format!("{from} to reach {to}"), || reaches(host, from, to).then_some(()));
            let own = format!("{from}.containers");
            assert!(!host.inside(from, "cat /etc/hosts").contains(&own), "its own name is its hostname");
        }
        assert!(host.inside("third", "readlink /etc/hosts").contains("static"));
        assert_eq!(host.inside("db", "stat -c %u:%a /etc/hosts"), "0:644\n");
        assert!(host.inside("web", "cat /etc/hosts").starts_with("10.1.1.1 mine\n"));
        assert_eq!((third.stop().code, db.stop().code), (Some(0), Some(0)));
        wait_for("web to forget them", || {
            (host.inside("web", "cat /etc/hosts") == "10.1.1.1 mine\n").then_some(())
        });
        assert_eq!(web.stop().code, Some(0));
        assert_eq!(hosts(host), FOREIGN);
    });
}

#[test]
fn a_hosts_file_that_is_no_file_of_its_own_is_respected() {
    on_host(|host| {
        install(host, "web", 1);
        // NixOS writes a link into the store, and the names of its own containers there.
        host.write("etc/static/hosts", FOREIGN, 0o644);
        symlink("static/hosts", host.path("etc/hosts")).unwrap();
        let container = host.spawn("web", &["-v", "boot", "web"]);
        container.wait_ready();
        assert!(container.err().contains("web.containers is not in"), "{}", container.err());
        assert!(container.err().contains("symbolic link"), "{}", container.err());
        assert_eq!(hosts(host), FOREIGN);
        assert_eq!(container.stop().code, Some(0));
        // One that is mounted from elsewhere cannot be renamed over.
        fs::remove_file(host.path("etc/hosts")).unwrap();
        host.write("etc/hosts", "", 0o644);
        host.sh(&format!(
            "mount --bind {} {}",
            host.path("etc/static/hosts").display(),
            host.path("etc/hosts").display()
        ));
        let container = host.boot("web");
        assert_eq!(resolve(host, "web.containers"), "10.77.1.2");
        assert_eq!(container.stop().code, Some(0));
        assert_eq!(fs::read_to_string(host.path("etc/static/hosts")).unwrap(), FOREIGN);
        // A read-only one is no reason not to start.
        host.sh(&format!("mount -o remount,bind,ro {}", host.path("etc/hosts").display()));
        let container = host.boot("web");
        assert_eq!(hosts(host), FOREIGN);
        assert_eq!(container.stop().code, Some(0));
        host.sh(&format!("umount {}", host.path("etc/hosts").display()));
        // The host does without.
        host.write("etc/hosts", FOREIGN, 0o644);
        host.write("etc/nixrun.json", r#"{"hostsFile": false}"#, 0o644);
        let container = host.boot("web");
        assert_eq!(hosts(host), FOREIGN);
        assert!(!host.path("run/nixrun/.names").exists());
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn a_hostile_hosts_file_inside_leads_nowhere() {
    on_host(|host| {
        host.write("etc/hosts", FOREIGN, 0o644);
        install(host, "web", 1);
        install(host, "db", 2);
        let victim = host.path("victim");
        fs::write(&victim, "untouched\n").unwrap();
        let web = host.boot("web");
        for script in [
            format!("rm -f /etc/hosts; ln -s {} /etc/hosts", victim.display()),
            format!("rm -f /etc/hosts; ln -s ../../../../../../../..{} /etc/hosts", victim.display()),
            "rm -f /etc/hosts; mkfifo /etc/hosts".to_owned(),
            "rm -f /etc/hosts; mkdir /etc/hosts".to_owned(),
        ] {
            host.inside("web", &script);
            let db = host.boot("db");
            assert_eq!(db.stop().code, Some(0));
            assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched\n", "{script}");
        }
        // A file is told again.
        host.inside("web", "rmdir /etc/hosts; touch /etc/hosts");
        let db = host.boot("db");
        wait_for("web to reach db", || reaches(host, "web", "db").then_some(()));
        assert_eq!((db.stop().code, web.stop().code), (Some(0), Some(0)));
        assert_eq!(hosts(host), FOREIGN);
    });
}

/// Boots the container under strace(1), which kills it at the `nth` call of `call` in any thread, or in the first alone; asks
/// it to end once it is ready, if it lives to see that.
fn killed_at(host: &Host<'_>, (call, nth): (&str, usize), threads: bool) {
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let all = if threads { "-f" } else { "-q" };
    let log = host.path("strace.log").display().to_string();
    let mut traced =
        host.traced(&[all, "-o", &log, "-e", &format!("trace={call}"), "-e", &inject], &["boot", "web"]);
    let mut strace = traced.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&format!("its death at {call} {nth}"), || {
        let state = fs::read(host.path("run/nixrun/web/state")).ok();
        let state = state.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        if let Some(pid) =
            state.filter(|state| state["ready"] == true).and_then(|s| s["supervisor"]["pid"].as_i64())
        {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()),
                Signal::SIGTERM,
            );
        }
        strace.try_wait().unwrap()
    });
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("killed by SIGKILL"), "{call} {nth} was not reached: {text}");
    wait_for("the end of the container", || host.processes().is_empty().then_some(()));
}

#[test]
fn killed_at_any_step_the_hosts_file_is_whole_and_reclaim_completes_it() {
    on_host(|host| {
        host.write("etc/hosts", FOREIGN, 0o644);
        install(host, "web", 1);
        host.boot("web").stop();
        let before = host.snapshot();
        // The list, then the file: locked; written; in place; made; written; in place.
        let entering = [("flock", 1), ("fsync", 1), ("fsync", 2), ("fchown", 1), ("fsync", 3), ("fsync", 4)];
        let leaving = [("flock", 1), ("fchown", 1), ("fsync", 1), ("fsync", 2)];
        let points =
            entering.map(|point| (point, true)).into_iter().chain(leaving.map(|point| (point, false)));
        for (point, threads) in points {
            killed_at(host, point, threads);
            let text = hosts(host);
            let ours = text.contains("10.77.1.2 web.containers\n") && text.ends_with("::1 ip6");
            assert!(text == FOREIGN || ours, "{point:?}: {text}");
            host.ok(&["reclaim"]);
            assert_eq!(hosts(host), FOREIGN, "{point:?}");
            fs::remove_file(host.path("strace.log")).unwrap();
            before.assert_same(&host.snapshot(), &format!("killed at {point:?}"));
        }
    });
}
