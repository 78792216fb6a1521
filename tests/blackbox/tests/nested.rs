//! Containers inside a container: nixrun, systemd-nspawn, bubblewrap and crun, with and without `--nested`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use blackbox::{Finished, Host, finish, nixrun_binary, on_host, probe_root, usr_root};

/// A root with the host's programs, nixrun, and below /inner the root of a container inside it.
fn outer_root(host: &Host<'_>) -> PathBuf {
    let root = usr_root(host, "outer");
    fs::copy(nixrun_binary(), root.join("nixrun")).unwrap();
    let inner = probe_root(host, "outer/inner");
    for directory in ["proc", "sys", "dev", "run", "tmp", "bin"] {
        fs::create_dir_all(inner.join(directory)).unwrap();
    }
    fs::write(inner.join("etc/os-release"), "ID=inner\n").unwrap();
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    root
}

fn outer(host: &Host<'_>, root: &Path, options: &[&str], script: &str) -> Finished {
    let mut command = host.nixrun(&["run", "-M", "outer", "--console=pipe", "--bind-ro=/usr", "-D"]);
    command.arg(root).args(options).args(["--", "/bin/bash", "-c", script]);
    command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
    finish(&mut command)
}

#[track_caller]
fn printed(finished: &Finished, expected: &str) {
    assert_eq!(finished.out, expected, "{}", finished.err);
}

#[test]
fn nixrun_inside_nixrun() {
    on_host(|host| {
        let root = outer_root(host);
        let before = host.snapshot();
        let script = r#"
            inner() { /nixrun run -M inner --console=pipe -D /inner "$@"; }
            inner -- /probe/bash -c 'echo "inner is $$ in $(/probe/busybox grep ^0:: /proc/self/cgroup)"'
            inner -- /probe/bash -c 'echo h > /proc/sysrq-trigger' 2>/dev/null || echo masked
            inner -- /probe/busybox mknod /dev/mem c 1 1 2>/dev/null || echo restricted
            /nixrun list | grep -c inner; ls /sys/fs/cgroup | grep -c nixrun
            echo end
        "#;
        let expected = "inner is 1 in 0::/\nmasked\nrestricted\n0\n0\nend\n";
        for network in [&["--nested"][..], &["--nested", "--private-network"]] {
            printed(&outer(host, &root, network, script), expected);
        }
        let script = r#"
            /nixrun run -M inner --console=pipe -n -D /inner --host-address=10.9.0.1 --local-address=10.9.0.2 -- \
                /probe/busybox ping -q -c 1 -W 5 10.9.0.1 | grep -o "1 packets received"
            # The pair goes with the network namespace, which the kernel removes in its own time.
            for try in 1 2 3 4 5 6 7 8 9 10; do [ -e /sys/class/net/ve-inner ] || break; sleep 1; done
            ls /sys/class/net; echo end
        "#;
        let finished = outer(host, &root, &["--nested", "--private-network"], script);
        printed(&finished, "1 packets received\nlo\nend\n");
        before.assert_same(&host.snapshot(), "after the containers");
    });
}

/// What each of them needs is missing without the option, which shows that the tests can fail.
#[test]
fn systemd_nspawn_bubblewrap_and_crun_inside_nixrun() {
    on_host(|host| {
        let root = outer_root(host);
        let script = r##"
            cp -a /inner /tmp/inner; cd /tmp; export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
            nspawn() { systemd-nspawn -q --register=no --keep-unit --console=pipe -D /tmp/inner "$@" /probe/busybox echo $NAME; }
            NAME=nspawn nspawn
            NAME=private nspawn --private-network
            NAME=users nspawn --private-users=524288:65536 --private-users-ownership=chown
            bwrap --unshare-all --bind / / --dev /dev --proc /proc echo bwrap
            unshare -Urmpfn bash -c 'mount -t proc p /mnt && umount /mnt && mount -t sysfs s /mnt && echo both'
            mkdir bundle; cd bundle; crun spec
            sed -i 's/"terminal": true/"terminal": false/; s#"path": "rootfs"#"path": "/inner"#' config.json
            sed -i 's#"sh"#"/probe/busybox", "echo", "crun"#' config.json
            # This machine may lack CAP_SYS_RESOURCE, without which crun cannot load a device filter anywhere.
            perl -0pi -e 's/"resources": \{.*?\]\s*\},//s' config.json
            crun --root /run/crun run one
            echo end
        "##;
        fs::create_dir_all(root.join("mnt")).unwrap();
        let with = outer(host, &root, &["--nested", "--private-network"], script);
        printed(&with, "nspawn\nprivate\nusers\nbwrap\nboth\ncrun\nend\n");
        let without = outer(host, &root, &["--private-network"], script);
        printed(&without, "nspawn\nprivate\nend\n");
        assert!(without.err.contains("keyring"), "{}", without.err);
        // Its own user namespace needs no more than the file systems out of the way.
        let shared = outer(host, &root, &["--nested"], script);
        assert!(
            shared.out.contains("nspawn\n") && shared.out.contains("users\nbwrap\nboth\n"),
            "{}",
            shared.err
        );
    });
}

#[test]
fn what_is_masked_stays_masked_and_the_rest_is_roots() {
    on_host(|host| {
        let root = outer_root(host);
        let script = r#"
            for name in keys timer_list sysrq-trigger; do
                [ -e /proc/$name ] && [ "$(stat -c %a /proc/$name)" != 0 ] && echo "$name is not masked"
            done
            (echo 1 > /proc/sys/kernel/panic) 2>/dev/null && echo "/proc/sys is writable"
            setpriv --reuid=65534 --clear-groups ls /run/host/nested/proc 2>/dev/null && echo "anybody can look in"
            stat -c '%a %n' /run/host/nested
            [ -c /dev/fuse ] && [ -c /dev/net/tun ] && head -c 0 /dev/fuse && echo devices
        "#;
        printed(&outer(host, &root, &["--nested"], script), "700 /run/host/nested\ndevices\n");
    });
}
