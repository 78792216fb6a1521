//! Name servers of containers: they follow the host's, are usable from inside, and are left to whoever manages them there.
#![forbid(unsafe_code)]

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use blackbox::{Host, on_host, wait_for};
use fixture::Kind;

/// Makes the host's /run part of its root directory, where its links lead to: it is a link of the test's otherwise.
fn own_run(host: &Host<'_>) {
    host.sh(&format!("rm {0}; mkdir {0}; mount --bind /run {0}", host.path("run").display()));
}

/// Configures `mini` with the host's network.
fn shared_network(host: &Host<'_>) {
    let keys =
        ["PRIVATE_NETWORK", "HOST_PORT", "HOST_ADDRESS", "HOST_ADDRESS6", "LOCAL_ADDRESS", "LOCAL_ADDRESS6"];
    host.install(Kind::Mini, "mini");
    host.set_conf("mini", &keys.map(|key| (key, None)));
}

/// What the container's resolver reads, without comments.
fn servers(host: &Host<'_>, name: &str) -> String {
    host.inside(name, "grep -v '^#' /etc/resolv.conf || :")
}

#[track_caller]
fn becomes(host: &Host<'_>, name: &str, expected: &str) {
    let mut last = String::new();
    let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("the container's name servers", || {
            last = servers(host, name);
            (last == expected).then_some(())
        });
    }));
    assert!(reached.is_ok(), "{last:?} instead of {expected:?}");
}

/// Replaces a file as careful programs do.
fn replace(host: &Host<'_>, path: &str, text: &str) {
    host.write(&format!("{path}.new"), text, 0o644);
    fs::rename(host.path(&format!("{path}.new")), host.path(path)).unwrap();
}

#[test]
fn with_the_hosts_network_the_file_follows_the_hosts_live() {
    on_host(|host| {
        own_run(host);
        shared_network(host);
        host.set_conf("mini", &[("COPY_RESOLV_CONF", None)]);
        host.write("etc/resolv.conf", "nameserver 127.0.0.53\nsearch one.example\n", 0o644);
        let container = host.boot("mini");
        assert_eq!(servers(host, "mini"), "nameserver 127.0.0.53\nsearch one.example\n");
        let inode = host.inside("mini", "stat -c %i /etc/resolv.conf");
        // Written in place, replaced, turned into a link, and the link turned to another file.
        host.write("etc/resolv.conf", "nameserver 192.0.2.2\n", 0o644);
        becomes(host, "mini", "nameserver 192.0.2.2\n");
        assert_ne!(
            host.inside("mini", "stat -c %i /etc/resolv.conf"),
            inode,
            "who reads it sees one or the other"
        );
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.3\n");
        becomes(host, "mini", "nameserver 192.0.2.3\n");
        host.write("run/resolvconf/one", "nameserver 192.0.2.4\n", 0o644);
        symlink("../run/resolvconf/one", host.path("etc/resolv.new")).unwrap();
        fs::rename(host.path("etc/resolv.new"), host.path("etc/resolv.conf")).unwrap();
        becomes(host, "mini", "nameserver 192.0.2.4\n");
        host.write("run/resolvconf/one", "nameserver 192.0.2.5\n", 0o644);
        becomes(host, "mini", "nameserver 192.0.2.5\n");
        // A host that has none for a moment leaves the last ones.
        fs::remove_file(host.path("run/resolvconf/one")).unwrap();
        host.write("run/resolvconf/one", "nameserver 192.0.2.6\n", 0o644);
        becomes(host, "mini", "nameserver 192.0.2.6\n");
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn with_a_network_of_its_own_it_gets_the_servers_behind_the_hosts_stub() {
    on_host(|host| {
        own_run(host);
        host.install(Kind::Mini, "mini");
        let stub = "run/systemd/resolve/stub-resolv.conf";
        host.write(stub, "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n", 0o644);
        let uplink = "run/systemd/resolve/resolv.conf";
        host.write(uplink, "nameserver 192.0.2.10\nnameserver fe80::1%eth0\nsearch lan\n", 0o644);
        fs::remove_file(host.path("etc/resolv.conf")).unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", host.path("etc/resolv.conf")).unwrap();
        let container = host.boot("mini");
        assert_eq!(servers(host, "mini"), "nameserver 192.0.2.10\nsearch lan\n");
        // A lease with other servers: resolved replaces its files.
        replace(host, uplink, "nameserver 192.0.2.11\nsearch elsewhere\n");
        becomes(host, "mini", "nameserver 192.0.2.11\nsearch elsewhere\n");
        // The administrator of the host does without the stub.
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.12\n");
        becomes(host, "mini", "nameserver 192.0.2.12\n");
        // NetworkManager comes, with dnsmasq.
        host.write("run/NetworkManager/no-stub-resolv.conf", "nameserver 192.0.2.13\n", 0o644);
        fs::remove_file(host.path(uplink)).unwrap();
        replace(host, "etc/resolv.conf", "nameserver 127.0.0.1\n");
        becomes(host, "mini", "nameserver 192.0.2.13\n");
        assert_eq!(container.stop().code, Some(0));
        for directory in ["run/systemd", "run/NetworkManager"] {
            fs::remove_dir_all(host.path(directory)).unwrap();
        }
    });
}

#[test]
fn servers_that_only_the_host_reaches_are_said_and_not_given() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.write("etc/resolv.conf", "nameserver 127.0.0.1\n", 0o644);
        let container = host.boot("mini");
        let err = container.err();
        assert!(err.contains("warning: container mini gets no name servers"), "{err}");
        assert!(err.contains("have them listen on the host's end"), "{err}");
        assert_eq!(host.inside("mini", "cat /etc/resolv.conf 2>/dev/null || echo none"), "none\n");
        // From the moment on at which there are others it has them.
        host.write("etc/resolv.conf", "nameserver 127.0.0.1\nnameserver 192.0.2.20\n", 0o644);
        becomes(host, "mini", "nameserver 192.0.2.20\n");
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn what_the_container_manages_is_left_alone() {
    on_host(|host| {
        shared_network(host);
        host.set_conf("mini", &[("COPY_RESOLV_CONF", None)]);
        let etc = host.root_of("mini").join("etc");
        let own = "nameserver 192.0.2.30\n";
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join("resolv.conf"), own).unwrap();
        let container = host.boot("mini");
        assert_eq!(servers(host, "mini"), own, "before the start");
        // A file that says it is ours is the only one that follows, so that this shows when the others would have.
        let second = |name: &str| {
            host.install(Kind::Mini, name);
            host.set_conf(name, &[("HOST_PORT", None), ("HOST_ADDRESS6", None), ("LOCAL_ADDRESS6", None)]);
            host.set_conf(name, &[("HOST_ADDRESS", Some("10.9.0.1")), ("LOCAL_ADDRESS", Some("10.9.0.2"))]);
            host.boot(name)
        };
        let witness = second("witness");
        let change = |server: &str| {
            let text = format!("nameserver {server}\n");
            replace(host, "etc/resolv.conf", &text);
            becomes(host, "witness", &text);
        };
        change("192.0.2.31");
        assert_eq!(servers(host, "mini"), own, "a file of its own");
        host.inside(
            "mini",
            "rm /etc/resolv.conf; ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
        );
        change("192.0.2.32");
        assert_eq!(
            host.inside(
                "mini",
                "readlink /etc/resolv.conf; ls /run/systemd/resolve 2>/dev/null || echo none"
            ),
            "../run/systemd/resolve/stub-resolv.conf\nnone\n"
        );
        // Nor does a file become ours by itself: taking the first line away ends it.
        host.inside("witness", "sed -i 1d /etc/resolv.conf");
        assert_eq!(servers(host, "witness"), "nameserver 192.0.2.32\n");
        host.inside("mini", "rm /etc/resolv.conf");
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.33\n");
        becomes(host, "mini", "nameserver 192.0.2.33\n");
        assert_eq!(servers(host, "witness"), "nameserver 192.0.2.32\n");
        assert_eq!((container.stop().code, witness.stop().code), (Some(0), Some(0)));
    });
}

#[test]
fn a_hostile_link_leads_nowhere() {
    on_host(|host| {
        shared_network(host);
        let victim = host.path("victim");
        fs::write(&victim, "untouched\n").unwrap();
        let container = host.boot("mini");
        host.write("etc/resolv.conf", "nameserver 192.0.2.40\n", 0o644);
        becomes(host, "mini", "nameserver 192.0.2.40\n");
        let link = victim.display().to_string();
        let up = format!("../../../../../../../../..{link}");
        for script in [
            format!("rm /etc/resolv.conf; ln -s {link} /etc/resolv.conf"),
            format!("rm /etc/resolv.conf; ln -s {up} /etc/resolv.conf"),
            format!("ln -sf {link} /etc/.nixrun-new"),
            "mv /etc /etc.old; ln -s /proc/1/root/etc /etc".to_owned(),
            "rm /etc; mkdir /etc; mkfifo /etc/resolv.conf".to_owned(),
            "rm /etc/resolv.conf; mkdir /etc/resolv.conf".to_owned(),
        ] {
            host.inside("mini", &script);
            // The supervisor looks before and after: what it has seen is known by a file that it then may write.
            replace(host, "etc/resolv.conf", "nameserver 192.0.2.41\n");
            replace(host, "etc/resolv.conf", "nameserver 192.0.2.42\n");
            assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched\n", "{script}");
        }
        host.inside("mini", "rm -r /etc/resolv.conf");
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.43\n");
        becomes(host, "mini", "nameserver 192.0.2.43\n");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched\n");
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn in_a_user_namespace_the_file_is_the_containers_own() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.set_conf("mini", &[("PRIVATE_USERS", Some("pick"))]);
        let container = host.boot("mini");
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.50\n");
        becomes(host, "mini", "nameserver 192.0.2.50\n");
        assert_eq!(host.inside("mini", "stat -c %u:%g:%a /etc/resolv.conf"), "0:0:644\n");
        // Where its root has no rights of its own, nothing is written for it: /etc belongs to another user now.
        let etc = host.root_of("mini").join("etc");
        host.sh(&format!("chown 1234:1234 {0}; chmod 755 {0}; rm {0}/resolv.conf", etc.display()));
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.51\n");
        wait_for("the refusal", || container.err().contains("cannot keep the name servers").then_some(()));
        assert_eq!(host.inside("mini", "ls /etc | grep -e resolv -e nixrun || echo none"), "none\n");
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn an_ephemeral_root_and_a_read_only_one() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.write("etc/nixrun/mini.json", r#"{"ephemeral": true}"#, 0o644);
        let container = host.boot("mini");
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.60\n");
        becomes(host, "mini", "nameserver 192.0.2.60\n");
        assert_eq!(container.stop().code, Some(0));
        assert_eq!(host.sh("find /run/nixos-containers -name resolv.conf"), "");
    });
}

/// A name server on this host that knows one answer, for every name. Dropping it ends it.
struct NameServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Listens at `place` in the calling thread's network namespace.
    fn at(place: &str, address: [u8; 4]) -> NameServer {
        let socket = UdpSocket::bind(place).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut query = [0u8; 512];
            while !stopped.load(Ordering::Acquire) {
                let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
                if let Some(reply) = answer(&query[..length], address) {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        NameServer { stop, thread: Some(thread) }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The answer to a query (RFC 1035, 4.1).
fn answer(query: &[u8], address: [u8; 4]) -> Option<Vec<u8>> {
    // The question: labels up to an empty one, type, class.
    let end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
    let question = query.get(12..end)?;
    let is_a = question.ends_with(&[0, 1, 0, 1]);
    let mut reply = query[..2].to_vec();
    // An answer; recursion asked for and available; one question, and an address where one is asked for.
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(question);
    if is_a {
        // Its name is that of the question; it holds for a minute.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address);
    }
    Some(reply)
}

#[test]
fn systemd_resolved_inside_works_and_is_left_alone() {
    let package = fixture::package("systemd-resolved").expect("the package");
    on_host(|host| {
        host.install(Kind::Base, "base");
        host.set_conf("base", &[("COPY_RESOLV_CONF", None)]);
        host.write("etc/nixrun/base.json", r#"{"resolvConf": "follow"}"#, 0o644);
        let root = host.root_of("base");
        let link = "../run/systemd/resolve/stub-resolv.conf";
        fs::create_dir_all(root.join("etc/dbus-1/system.d")).unwrap();
        host.sh(&format!("dpkg-deb -x {} {}/opt", package.display(), root.display()));
        fs::write(root.join("etc/passwd"), "systemd-resolve:x:990:990::/:/bin/false\n").unwrap();
        fs::write(root.join("etc/group"), "systemd-resolve:x:990:\n").unwrap();
        symlink(link, root.join("etc/resolv.conf")).unwrap();
        let container = host.boot("base");
        assert_eq!(host.inside("base", "readlink /etc/resolv.conf").trim(), link);
        // The package's own unit, sandbox and all.
        host.inside(
            "base",
            "mkdir -p /run/systemd/resolved.conf.d /run/systemd/system
             printf '[Resolve]\nDNS=10.233.3.1\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\n' > /run/systemd/resolved.conf.d/test.conf
             cp /opt/usr/share/dbus-1/system.d/org.freedesktop.resolve1.conf /etc/dbus-1/system.d/
             sed 's,/lib/systemd/systemd-resolved,/opt&,' /opt/lib/systemd/system/systemd-resolved.service \
                 > /run/systemd/system/systemd-resolved.service
             systemctl daemon-reload; systemctl reload dbus
             systemctl start systemd-resolved || { journalctl -u systemd-resolved; exit 1; }",
        );
        let server = NameServer::at("10.233.3.1:53", [192, 0, 2, 77]);
        let ask = |name: &str| {
            let script = format!("getent -s hosts:dns ahostsv4 {name} || journalctl -u systemd-resolved");
            let found = host.inside("base", &script);
            assert!(found.starts_with("192.0.2.77 "), "{name}: {found}");
        };
        // The kernel may take a second to say that a link whose ends have the same index is up (linkwatch), and resolved asks
        // nobody before.
        wait_for("resolved to see the link", || {
            let said = host.run(&["exec", "base", "--", "/opt/usr/bin/resolvectl", "query", "first.example"]);
            said.status.success().then_some(())
        });
        ask("some.example");
        let found = host.inside("base", "/opt/usr/bin/resolvectl query --legend=no other.example 2>&1 || :");
        assert!(found.contains("192.0.2.77"), "{found}");
        // The host's name servers change, and this container has its own.
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.99\n");
        ask("third.example");
        assert_eq!(host.inside("base", "readlink /etc/resolv.conf").trim(), link);
        assert!(host.inside("base", "cat /etc/resolv.conf").contains("nameserver 127.0.0.53"));
        assert_eq!(host.inside("base", "systemctl is-active systemd-resolved"), "active\n");
        drop(server);
        assert_eq!(container.stop().code, Some(0));
    });
}

/// Makes of what it is given what openresolv makes of it, with a server of the container's own beside.
const RESOLVCONF: &str = r#"#!/bin/sh
[ "$*" = "-m 1000 -a host" ] || exit 1
mkdir -p /run/resolvconf/interfaces
grep -v '^#' > /run/resolvconf/interfaces/host
{ echo '# Generated by resolvconf'; cat /run/resolvconf/interfaces/host; echo 'nameserver 192.0.2.200'; } > /etc/resolv.tmp
mv /etc/resolv.tmp /etc/resolv.conf
echo given >> /run/given
"#;

#[test]
fn a_resolvconf_inside_is_given_what_it_was_given_at_boot() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let root = host.root_of("mini");
        // What it left when it ran last is no file of somebody's own.
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/resolv.conf"), "# Generated by resolvconf\nnameserver 192.0.2.199\n")
            .unwrap();
        host.set_conf("mini", &[("COPY_RESOLV_CONF", None)]);
        host.write("etc/nixrun/mini.json", r#"{"resolvConf": "follow"}"#, 0o644);
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.70\n");
        let container = host.boot("mini");
        assert_eq!(servers(host, "mini"), "nameserver 192.0.2.70\n");
        let program = root.join("usr/local/bin/resolvconf");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, RESOLVCONF).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        // As stage 2 of NixOS does with useHostResolvConf.
        host.inside("mini", "resolvconf -m 1000 -a host < /etc/resolv.conf");
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.71\n");
        becomes(host, "mini", "nameserver 192.0.2.71\nnameserver 192.0.2.200\n");
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.72\n");
        becomes(host, "mini", "nameserver 192.0.2.72\nnameserver 192.0.2.200\n");
        assert_eq!(host.inside("mini", "cat /run/given"), "given\ngiven\ngiven\n");
        // One that was not given any has them from somewhere else.
        host.inside("mini", "rm -r /run/resolvconf; echo '# Generated by resolvconf' > /etc/resolv.conf");
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.73\n");
        host.inside("mini", "rm /etc/resolv.conf");
        replace(host, "etc/resolv.conf", "nameserver 192.0.2.74\n");
        becomes(host, "mini", "nameserver 192.0.2.74\n");
        assert_eq!(host.inside("mini", "cat /run/given"), "given\ngiven\ngiven\n");
        assert_eq!(container.err().matches("cannot keep").count(), 0, "{}", container.err());
        assert_eq!(container.stop().code, Some(0));
    });
}
