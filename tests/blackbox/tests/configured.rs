//! A NixOS container with its typed configuration beside NAME.conf: what is asked for is what is found inside.
#![forbid(unsafe_code)]

use std::fs;

use blackbox::{Host, on_host};
use fixture::Kind;

fn with_mini(json: &str, conf: &[(&str, Option<&str>)], test: impl FnOnce(&Host<'_>) + Send) {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.set_conf("mini", conf);
        fs::create_dir_all(host.path("etc/nixrun")).unwrap();
        fs::write(host.path("etc/nixrun/mini.json"), json).unwrap();
        test(host);
    });
}

#[test]
fn mounts_capabilities_environment_limits_and_credentials() {
    let json = r#"{
        "tmpfs": ["/var/cache:size=1M"], "additionalCapabilities": ["CAP_SYS_TIME"], "environment": {"GREETING": "hello"},
        "limits": {"NOFILE": 333}, "hostname": "www", "noNewPrivileges": true,
        "credentials": {"password": {"file": "/etc/password"}},
        "bindMounts": {"/srv/data": {"isReadOnly": false}}
    }"#;
    let flags = [("EXTRA_NSPAWN_FLAGS", Some("--bind=/data:/srv/data --drop-capability=CAP_SYS_CHROOT"))];
    with_mini(json, &flags, |host| {
        fs::create_dir_all(host.path("data")).unwrap();
        fs::write(host.path("data/file"), "from the host").unwrap();
        fs::write(host.path("etc/password"), "s3cret").unwrap();
        let container = host.boot("mini");
        let inside = |script: &str| host.inside("mini", script).trim_end().to_owned();
        assert_eq!(
            inside("cat /srv/data/file && echo back > /srv/data/file && hostname"),
            "from the hostwww"
        );
        assert_eq!(fs::read_to_string(host.path("data/file")).unwrap(), "back\n");
        assert!(inside("grep ' /var/cache ' /proc/mounts").contains("size=1024k"));
        assert_eq!(inside("tr '\\0' '\\n' < /proc/1/environ | grep GREETING"), "GREETING=hello");
        assert!(inside("grep 'Max open files' /proc/1/limits").contains("333"));
        assert_eq!(inside("cat /run/host/credentials/password"), "s3cret");
        let bounding = u64::from_str_radix(&inside("awk '/CapBnd/ {print $2}' /proc/1/status"), 16).unwrap();
        assert_eq!(
            (bounding >> 25 & 1, bounding >> 18 & 1),
            (1, 0),
            "SYS_TIME is there and SYS_CHROOT is not"
        );
        assert_eq!(inside("awk '/NoNewPrivs/ {print $2}' /proc/1/status"), "1");
        // A host without persistent journal is no reason for a word.
        let words = container.stop().err;
        assert!(!words.contains("journal"), "{words}");
    });
}

#[test]
fn an_ephemeral_root_keeps_nothing() {
    with_mini(r#"{"ephemeral": true}"#, &[], |host| {
        for _ in 0..2 {
            let container = host.boot("mini");
            assert_eq!(
                host.inside("mini", "ls /var/lib/kept 2>/dev/null; touch /var/lib/kept; echo ok"),
                "ok\n"
            );
            container.stop();
            assert!(!host.root_of("mini").exists(), "nothing is made where persistent roots are");
            // What the start script makes in a root is there, as under nixpkgs, whose unit removes it from /run.
            assert!(!host.path("run/nixos-containers/mini/var/lib/kept").exists(), "nothing of it stays");
        }
    });
}

#[test]
fn further_links_and_a_forward_on_one_address() {
    let json = r#"{
        "extraVeths": {"extra1": {"hostAddress": "10.244.0.1", "localAddress": "10.244.0.2"}},
        "forwardPorts": [{"hostAddress": "10.244.0.1", "hostPort": 8181, "containerPort": 80}]
    }"#;
    with_mini(json, &[], |host| {
        let container = host.boot("mini");
        assert!(host.inside("mini", "ip -4 -o addr show dev extra1").contains("10.244.0.2"));
        assert!(host.sh("ip -4 -o addr show dev extra1").contains("10.244.0.1"));
        assert!(host.sh("ip route get 10.244.0.2").contains("extra1"));
        assert!(host.sh("nft list table inet nixrun").contains("10.244.0.1 . tcp . 8181"));
        container.stop();
        assert!(!host.sh("ip -o link").contains("extra1"));
    });
}

#[test]
fn contradictions_and_unknown_keys_are_refused_and_leave_nothing() {
    for (json, words) in [
        (r#"{"ephemral": true}"#, &["mini.json:1:11: there is no key \"ephemral\"", "\"ephemeral\""][..]),
        (
            r#"{"hostAddress": "10.9.9.9"}"#,
            &["mini.conf", "HOST_ADDRESS contradicts", "mini.json: hostAddress"],
        ),
        (r#"{"tmpfs": ["/nix/store"]}"#, &["mini.json: tmpfs would cover /nix/store"]),
        ("{", &["not valid JSON"]),
        ("", &["not valid JSON"]),
    ] {
        with_mini(json, &[], |host| {
            let before = host.snapshot();
            for command in ["boot", "start", "plan"] {
                let sentence = host.fails(1, &[command, "mini"]);
                for word in words {
                    assert!(sentence.contains(word), "{command}: {word:?} is not in {sentence:?}");
                }
            }
            before.assert_same(&host.snapshot(), json);
        });
    }
}

#[test]
fn a_root_directory_by_json_alone() {
    on_host(|host| {
        let root = host.path("roots/box");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        fs::create_dir_all(host.path("etc/nixrun")).unwrap();
        let json = format!(
            r#"{{"root": "/{}", "command": ["busybox", "sh", "-c", "echo $GREETING from $(busybox hostname)"],
                "environment": {{"GREETING": "hello"}}}}"#,
            root.strip_prefix(host.dir()).unwrap().display()
        );
        fs::write(host.path("etc/nixrun/box.json"), json).unwrap();
        assert!(host.ok(&["list"]).contains("box"));
        assert_eq!(host.ok(&["boot", "box"]).lines().next(), Some("hello from box"));
    });
}
