//! What nixrun refuses: one sentence that says what, where and why, a code that is not 0, and a host as before.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;

use blackbox::{Container, Host, finish, nixrun_binary, nspawn, on_host, probe_root, wait_for};
use fixture::Kind;

/// A boot of `name` that must be refused with a sentence that has all of `words`, and leave the host as it is.
#[track_caller]
fn refused(host: &Host<'_>, name: &str, words: &[&str]) {
    let before = host.snapshot();
    for command in ["boot", "start"] {
        let sentence = host.fails(1, &[command, name]);
        for word in words {
            assert!(sentence.contains(word), "{command}: {word:?} is not in {sentence:?}");
        }
        before.assert_same(&host.snapshot(), &format!("after {command} was refused with {sentence:?}"));
    }
}

/// A host with the container `mini`, configured and never booted.
fn with_mini(test: impl FnOnce(&Host<'_>) + Send) {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        test(host);
    });
}

#[test]
fn a_container_that_nobody_configured() {
    with_mini(|host| {
        refused(host, "minj", &["minj", "did you mean \"mini\"?"]);
        refused(host, "something-else", &["something-else", "`nixrun list` shows those that exist"]);
        for name in ["../mini", "a_b", "", "-", &"x".repeat(65)] {
            let sentence = host.fails(1, &["boot", "--", name]);
            assert!(sentence.contains("cannot name a container"), "{name}: {sentence}");
        }
        for command in [&["status", "minj"][..], &["stop", "minj"], &["kill", "minj"], &["plan", "minj"]] {
            assert!(host.fails(1, command).contains("did you mean \"mini\"?"), "{command:?}");
        }
        let sentence = host.fails(125, &["exec", "minj", "--", "true"]);
        assert!(sentence.contains("did you mean \"mini\"?"), "{sentence}");
    });
}

#[test]
fn a_conf_that_cannot_be_read() {
    with_mini(|host| {
        let conf = host.path("etc/nixos-containers/mini.conf");
        fs::write(&conf, b"SYSTEM_PATH=/nix\nPRIVATE_NETWORK=\xff\n").unwrap();
        refused(host, "mini", &["mini.conf"]);
        fs::remove_file(&conf).unwrap();
        fs::create_dir(&conf).unwrap();
        refused(host, "mini", &["mini.conf"]);
        fs::remove_dir(&conf).unwrap();
        symlink("mini.conf", &conf).unwrap();
        refused(host, "mini", &["mini"]);
    });
}

#[test]
fn values_that_make_no_sense_are_shown_with_file_and_line() {
    with_mini(|host| {
        let conf = host.path("etc/nixos-containers/mini.conf");
        let good = fs::read_to_string(&conf).unwrap();
        for (key, value, expected) in [
            ("HOST_ADDRESS", "10.233.2", "an IPv4 address"),
            ("HOST_ADDRESS", "10.233.2.1/24", "a /32"),
            ("HOST_ADDRESS6", "10.0.0.1", "an IPv6 address"),
            ("LOCAL_ADDRESS", "10.233.2.2/33", "an IPv4 address"),
            ("LOCAL_ADDRESS6", "fc00::/-1", "an IPv6 address"),
            ("LOCAL_MAC_ADDRESS", "01:00:00:00:00:01", "multicast"),
            ("HOST_PORT", "tcp:99999:80", "99999"),
            ("HOST_PORT", "dccp:80:80", "dccp"),
            ("HOST_PORT", "tcp:80:80,tcp:80:81", "repeats one"),
            ("HOST_BRIDGE", "a-name-of-sixteen", "1 to 15 bytes"),
            ("PRIVATE_NETWORK", "yes", "0 or 1"),
            ("COPY_RESOLV_CONF", "2", "0 or 1"),
            ("AUTO_START", "true", "0 or 1"),
            ("SYSTEM_PATH", "nix/store/x", "an absolute path"),
            ("SYSTEM_PATH", "/nix/store/../x", "without .."),
            ("PRIVATE_USERS", "some", "pick"),
        ] {
            let rest: Vec<&str> = good.lines().filter(|line| !line.contains(&format!("{key}="))).collect();
            fs::write(&conf, format!("{}\n{key}={value}\n", rest.join("\n"))).unwrap();
            let place = format!("mini.conf:{}: {key}=", rest.len() + 1);
            refused(host, "mini", &[&place, expected]);
        }
        // What cannot be done is said, instead of being left out.
        for (flags, option) in [
            ("-D /x", "--directory"),
            ("--oci-bundle=/x", "--oci-bundle"),
            ("--no-such-option", "--no-such-option"),
        ] {
            fs::write(&conf, format!("{good}\nEXTRA_NSPAWN_FLAGS=\"{flags}\"\n")).unwrap();
            refused(host, "mini", &["EXTRA_NSPAWN_FLAGS", option]);
        }
    });
}

#[test]
fn a_system_that_is_not_there() {
    with_mini(|host| {
        let elsewhere = host.path("somewhere");
        fs::create_dir(&elsewhere).unwrap();
        let store = "/nix/store/00000000000000000000000000000000-nixos-system-none";
        for (path, words) in [
            ("/somewhere", &["SYSTEM_PATH", "/nix/store/"][..]),
            (store, &["SYSTEM_PATH", "mini.conf:"]),
            ("/nix/store", &["SYSTEM_PATH"]),
        ] {
            host.set_conf("mini", &[("SYSTEM_PATH", Some(path))]);
            refused(host, "mini", words);
        }
        // A store path without an init: the shell that the system is made with.
        let mini = fixture::build(Kind::Mini, 1).unwrap();
        let without = mini.container_init.to_str().unwrap().to_owned();
        host.set_conf("mini", &[("SYSTEM_PATH", Some(&without))]);
        refused(host, "mini", &["SYSTEM_PATH", "init"]);
        // No SYSTEM_PATH is the container's own profile, which nobody has made.
        host.set_conf("mini", &[("SYSTEM_PATH", None)]);
        refused(host, "mini", &["SYSTEM_PATH"]);
    });
}

#[test]
fn addresses_that_others_hold() {
    with_mini(|host| {
        host.install(Kind::Mini, "other");
        host.set_conf("other", &[("HOST_PORT", None)]);
        let other = host.boot("other");
        refused(host, "mini", &["10.233.2.2", "container other"]);
        assert_eq!(other.stop().code, Some(0));
        host.sh("ip link add d0 type veth peer name d1; ip addr add 10.233.2.2/24 dev d0");
        refused(host, "mini", &["10.233.2.2", "link d0"]);
        host.sh("ip addr flush dev d0; ip addr add 10.233.2.1/24 dev d0");
        refused(host, "mini", &["10.233.2.1", "link d0"]);
        host.sh("ip addr flush dev d0; ip addr add fc00:233:2::2/64 dev d0 nodad");
        refused(host, "mini", &["fc00:233:2::2", "link d0"]);
        host.sh("ip link del d0");
        // A container is no obstacle to itself, and neither is one that has stopped.
        assert_eq!(host.boot("mini").stop().code, Some(0));
    });
}

/// Listens; another test's process may still hold what was closed here, between its fork and its exec.
fn listen(address: &str) -> TcpListener {
    wait_for("the port", || TcpListener::bind(address).ok())
}

#[test]
fn ports_that_others_use() {
    with_mini(|host| {
        let listener = listen("0.0.0.0:8081");
        refused(host, "mini", &["port 8081 (tcp)", "a program on the host"]);
        drop(listener);
        let listener = listen("127.0.0.1:8081");
        refused(host, "mini", &["port 8081 (tcp)", "127.0.0.1"]);
        drop(listener);
        drop(listen("127.0.0.1:8081"));
        // Another protocol is another port.
        let socket = UdpSocket::bind("0.0.0.0:8081").unwrap();
        assert_eq!(host.boot("mini").stop().code, Some(0));
        host.set_conf("mini", &[("HOST_PORT", Some("udp:8081:80"))]);
        refused(host, "mini", &["port 8081 (udp)", "a program on the host"]);
        drop(socket);

        host.set_conf("mini", &[("HOST_PORT", Some("tcp:8081:80"))]);
        host.install(Kind::Mini, "other");
        let own = [("LOCAL_ADDRESS", Some("10.233.9.2")), ("LOCAL_ADDRESS6", None), ("HOST_ADDRESS6", None)];
        host.set_conf("other", &own);
        let other = host.boot("other");
        refused(host, "mini", &["port 8081 (tcp)", "container other"]);
        host.set_conf("mini", &[("HOST_PORT", Some("tcp:8099:80"))]);
        assert_eq!(host.boot("mini").stop().code, Some(0), "two containers at once");
        assert_eq!(other.stop().code, Some(0));
    });
}

#[test]
fn a_bridge_that_is_none() {
    with_mini(|host| {
        host.set_conf("mini", &[("HOST_BRIDGE", Some("br0"))]);
        refused(host, "mini", &["the bridge br0 does not exist"]);
        host.sh("ip link add br0 type veth peer name br1");
        refused(host, "mini", &["the bridge br0", "of another kind"]);
        host.set_conf("mini", &[("HOST_BRIDGE", None)]);
        let sentence = host.fails(1, &["boot", "--nat", "nowhere0", "mini"]);
        assert!(sentence.contains("nowhere0 does not exist"), "{sentence}");
    });
}

#[test]
fn a_link_that_has_the_name() {
    with_mini(|host| {
        host.sh("ip link add ve-mini type bridge");
        refused(host, "mini", &["ve-mini", "already taken"]);
        host.sh(
            "ip link del ve-mini; ip link add x0 type bridge; ip link property add dev x0 altname ve-mini",
        );
        refused(host, "mini", &["ve-mini", "already taken by link x0"]);
    });
}

#[test]
fn a_root_that_is_none() {
    with_mini(|host| {
        fs::create_dir_all(host.path("var/lib/nixos-containers")).unwrap();
        fs::create_dir(host.path("elsewhere")).unwrap();
        symlink(host.path("elsewhere"), host.root_of("mini")).unwrap();
        refused(host, "mini", &["var/lib/nixos-containers/mini", "it is a symbolic link"]);
        fs::remove_file(host.root_of("mini")).unwrap();
        symlink("nowhere", host.root_of("mini")).unwrap();
        refused(host, "mini", &["var/lib/nixos-containers/mini", "it is a symbolic link"]);
        fs::remove_file(host.root_of("mini")).unwrap();
        fs::write(host.root_of("mini"), "").unwrap();
        refused(host, "mini", &["var/lib/nixos-containers/mini", "not a directory"]);
        assert_eq!(fs::read_dir(host.path("elsewhere")).unwrap().count(), 0);
    });
}

/// `nixrun` as the user nobody.
fn as_nobody(host: &Host<'_>, args: &[&str]) -> blackbox::Finished {
    // A place that nobody can reach, with a copy of the program.
    let program = std::path::Path::new("/run/nixrun-of-nobody");
    if !program.exists() {
        fs::copy(nixrun_binary(), program).unwrap();
    }
    let mut command = host.command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--"])
        .arg(program);
    finish(command.arg("--host-root").arg(host.dir()).args(args))
}

#[test]
fn an_ordinary_user_may_plan_and_nothing_else() {
    with_mini(|host| {
        host.sh(&format!("chmod 755 {} /run", host.dir().display()));
        as_nobody(host, &["--version"]);
        let before = host.snapshot();
        for command in
            [&["boot", "mini"][..], &["run", "-D", host.dir().to_str().unwrap(), "--", "/bin/true"]]
        {
            let refused = as_nobody(host, command);
            assert_eq!(refused.code, Some(1), "{refused:?}");
            assert!(refused.err.lines().last().unwrap().contains("root"), "{refused:?}");
        }
        // The same plan as root's, but for what depends on who asks: capabilities, and limits that cannot be raised.
        let plan = as_nobody(host, &["plan", "--json", "mini"]);
        assert_eq!(plan.code, Some(0), "{}", plan.err);
        let plan: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
        let of_root: serde_json::Value = serde_json::from_str(&host.ok(&["plan", "--json", "mini"])).unwrap();
        for key in ["mounts", "argv", "hostname", "preparation", "stop_signal"] {
            assert_eq!(plan["container"][key], of_root["container"][key], "{key}");
        }
        assert_eq!(plan["network"], of_root["network"]);
        let tree = as_nobody(host, &["plan", "mini"]);
        assert!(tree.code == Some(0) && tree.out.contains("/nix/store"), "{tree:?}");
        before.assert_same(&host.snapshot(), "after plans");
    });
}

#[test]
fn a_container_that_runs_is_not_booted_again() {
    with_mini(|host| {
        let container = host.boot("mini");
        let before = host.snapshot();
        let sentence = host.fails(1, &["boot", "mini"]);
        let wanted =
            format!("container mini is running already, supervised by process {}", container.supervisor());
        assert!(sentence.starts_with(&wanted), "{sentence}");
        assert!(sentence.ends_with("stop it with `nixrun stop mini`"), "{sentence}");
        // As systemctl does it: what was asked for is so.
        host.ok(&["start", "mini"]);
        let sentence = host.fails(1, &["reclaim", "mini"]);
        assert!(sentence.contains("running"), "{sentence}");
        assert_eq!(host.ok(&["reclaim", "--json"]).trim(), "[]");
        // The same root under another name.
        let root = host.root_of("mini");
        let sentence = host.fails(1, &["run", "-D", root.to_str().unwrap(), "-M", "else", "--", "/bin/true"]);
        assert!(sentence.contains("is in use by another container"), "{sentence}");
        before.assert_same(&host.snapshot(), "after the second boot");
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn nixrun_and_systemd_nspawn_keep_out_of_each_others_roots() {
    on_host(|host| {
        let root = probe_root(host, "t");
        let dir = root.to_str().unwrap();
        let sleep = ["--", "/probe/busybox", "sleep", "100"];
        let mut command = host.nixrun(&["run", "-D", dir, "-M", "ours", "--private-network"]);
        command.args(sleep);
        let ours = Container::spawn(host, "ours", command);
        let _ = ours.leader();
        let theirs = finish(nspawn(host, &root, &["-M", "theirs"]).args(["/probe/busybox", "true"]));
        assert_ne!(theirs.code, Some(0));
        assert!(theirs.err.contains("is currently busy"), "{}", theirs.err);
        host.ok(&["kill", "ours"]);
        ours.wait();
        let theirs = finish(nspawn(host, &root, &["-M", "theirs"]).args(["/probe/busybox", "true"]));
        assert_eq!(theirs.code, Some(0), "{}", theirs.err);

        let mut command = nspawn(host, &root, &["-M", "theirs", "--private-network", "--console=pipe"]);
        command.args(["/probe/bash", "-c", "echo up; exec /probe/busybox sleep 100"]);
        let theirs = Container::spawn(host, "theirs", command);
        wait_for("nspawn's container", || theirs.out().contains("up").then_some(()));
        let before = host.snapshot();
        let sentence = host.fails(1, &["run", "-D", dir, "-M", "ours", "--", "/probe/busybox", "true"]);
        assert!(sentence.contains("is in use by another container"), "{sentence}");
        before.assert_same(&host.snapshot(), "after the refusal");
    });
}

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    on_host(|host| {
        for args in [
            &["boot"][..],
            &["frobnicate"],
            &["run", "-D", "/x", "--port", "tcp:0"],
            &["stop", "--timeout=x", "a"],
            &["run"],
        ] {
            let finished = finish(&mut host.nixrun(args));
            assert_eq!(finished.code, Some(2), "{args:?}: {finished:?}");
        }
        let sentence = host.fails(1, &["run", "-D", "/nowhere", "--", "x"]);
        assert!(sentence.contains("/nowhere"), "{sentence}");
        let root = probe_root(host, "t");
        let dir = root.to_str().unwrap();
        let before = host.snapshot();
        for (args, words) in [
            (&["--", "/nothing"][..], "cannot execute /nothing in the container"),
            (&[], "cannot find an init"),
            (&["--bind=/nowhere:/x", "--", "/probe/busybox"], "/nowhere"),
            (&["-M", "a b", "--", "/probe/busybox"], "cannot name a container"),
            (&["--port=tcp:80:80", "--", "/probe/busybox"], "port"),
        ] {
            let mut all = vec!["run", "-D", dir];
            all.extend(args);
            let sentence = host.fails(1, &all);
            assert!(sentence.contains(words), "{words}: {sentence}");
        }
        before.assert_same(&host.snapshot(), "after refusals");
    });
}
