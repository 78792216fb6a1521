//! How much of the kernel's file systems a container sees, which namespaces it shares, and what machined can reach.
#![allow(clippy::print_stdout, reason = "why a test was skipped")]

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use runtime::{ApiWritable, ContainerConfig, ErrorKind, Network, Outcome};

mod common;
use common::{DETACHED, config, ok, root, start};

const TRY: &str = "b=/bin/busybox
    try() { (: >> $1) 2>/dev/null && echo \"$1\"; }
    try /proc/sys/kernel/domainname; try /proc/sys/net/ipv4/ip_forward; try /proc/sysrq-trigger
    [ -e /sys/fs/cgroup ] || echo no cgroup; [ -e /sys/firmware ] && echo all of sysfs
    set -- $($b grep ' /sys ' /proc/self/mountinfo | $b head -1); echo ${6%%,*}; exit 0";

fn view(config: &ContainerConfig, writable: ApiWritable, network: Network) -> String {
    let mut config = config.clone();
    config.kernel_view.writable = writable;
    config.network = network;
    ok(&config)
}

#[test]
fn what_is_writable_of_proc_and_sys_is_nspawns_choice() {
    let Some((_dir, root)) = root() else { return };
    let config = config(&root, "writable", TRY);
    let firmware = if Path::new("/sys/firmware").exists() { "all of sysfs\n" } else { "" };
    let (domain, net) = ("/proc/sys/kernel/domainname\n", "/proc/sys/net/ipv4/ip_forward\n");
    let trigger = if Path::new("/proc/sysrq-trigger").exists() { "/proc/sysrq-trigger\n" } else { "" };
    assert_eq!(view(&config, ApiWritable::Default, Network::Host), format!("{firmware}ro\n"));
    assert_eq!(view(&config, ApiWritable::Default, Network::Private), format!("{net}ro\n"));
    assert_eq!(view(&config, ApiWritable::Network, Network::Host), format!("{net}ro\n"));
    assert_eq!(view(&config, ApiWritable::Network, Network::Private), format!("{net}ro\n"));
    assert_eq!(
        view(&config, ApiWritable::Yes, Network::Host),
        format!("{domain}{net}{trigger}{firmware}rw\n")
    );
    assert_eq!(view(&config, ApiWritable::Yes, Network::Private), format!("{domain}{net}{trigger}rw\n"));
}

#[test]
fn without_a_tmpfs_tmp_is_the_roots_own() {
    let Some((_dir, root)) = root() else { return };
    let mut config = config(&root, "tmp", "echo x > /tmp/file");
    config.kernel_view.tmpfs_tmp = false;
    ok(&config);
    assert!(root.join("tmp/file").exists());
}

#[test]
fn without_a_cgroup_namespace_only_the_own_group_is_writable() {
    let Some((_dir, root)) = root() else { return };
    let script = "b=/bin/busybox; own=$($b grep ^0:: /proc/self/cgroup); own=/sys/fs/cgroup${own#0::}
        $b mkdir /sys/fs/cgroup/x 2>/dev/null && echo the root is writable
        $b mkdir $own/x && $b rmdir $own/x && echo own; [ $own != /sys/fs/cgroup/ ] && echo below";
    let mut config = config(&root, "cgns", script);
    config.kernel_view.cgroup_namespace = false;
    assert_eq!(ok(&config), "own\nbelow\n");
}

#[test]
fn namespaces_can_be_the_hosts() {
    let Some((_dir, root)) = root() else { return };
    let script = "b=/bin/busybox; for n in ipc uts pid; do $b readlink /proc/self/ns/$n; done; $b hostname; [ $$ = 1 ] && echo init; exit 0";
    let mut config = config(&root, "shared", script);
    let read = |name: &str| {
        fs::read_link(format!("/proc/self/ns/{name}")).unwrap().into_os_string().into_string().unwrap()
    };
    let hostname = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let lines = |config: &ContainerConfig| ok(config).lines().map(str::to_owned).collect::<Vec<_>>();
    let own = lines(&config);
    assert!(own[0] != read("ipc") && own[1] != read("uts") && own[2] != read("pid"), "{own:?}");
    assert_eq!(own[3..], [config.name.clone(), "init".to_owned()]);
    config.kernel_view.share_ipc = true;
    config.kernel_view.share_uts = true;
    config.kernel_view.share_pid = true;
    assert_eq!(lines(&config), [read("ipc"), read("uts"), read("pid"), hostname]);
}

#[test]
fn with_the_hosts_processes_a_stop_needs_no_listener_and_nothing_outlives_it() {
    let Some((_dir, root)) = root() else { return };
    // A grandchild in a session of its own, which the end of its parent does not end.
    let script = "b=/bin/busybox; $b setsid $b sleep 1000 & $b sleep 1000";
    let mut config = config(&root, "stop", script);
    config.kernel_view.share_pid = true;
    let supervisor = start(&config).unwrap();
    let group = supervisor.cgroup().to_path_buf();
    let processes = || fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while processes().lines().count() < 2 {
        assert!(std::time::Instant::now() < deadline, "{}", processes());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let all = processes();
    supervisor.stopper().stop();
    let end = supervisor.run(&DETACHED, |_| {}).unwrap();
    assert_eq!((end.outcome, end.cleanup.len()), (Outcome::Killed(libc::SIGTERM), 0));
    for pid in all.lines() {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z"), "{state}");
    }
    assert!(!group.exists());
}

#[test]
fn a_network_is_joined_by_its_path_and_left_as_it_is() {
    let Some((dir, root)) = root() else { return };
    let holder = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let file = fs::File::open("/proc/thread-self/ns/net").unwrap();
        let made = Command::new("ip")
            .args(["link", "add", "mark", "type", "veth", "peer", "name", "other"])
            .status()
            .unwrap();
        assert!(made.success());
        file
    });
    let namespace = holder.join().unwrap();
    let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    let script = "b=/bin/busybox; $b ls /sys/class/net; $b ip link show lo | $b grep -o 'state DOWN'; $b grep CapEff /proc/self/status";
    let mut config = config(&root, "join", script);
    let private = ok(&config);
    config.network = Network::Join(path.into());
    let joined = ok(&config);
    assert!(joined.contains("mark"), "{joined}");
    // The capabilities, and a loopback link that is as it was.
    assert_eq!(joined.lines().last(), private.lines().last());
    for (path, kind) in [
        (dir.path().join("none"), ErrorKind::NotFound),
        ("/etc/passwd".into(), ErrorKind::Config),
        ("/proc/self/ns/mnt".into(), ErrorKind::Config),
    ] {
        config.network = Network::Join(path.clone());
        let error = start(&config).unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn machined_reaches_into_the_container_and_the_host_its_sockets() {
    let Some((dir, root)) = root() else { return };
    let none: Option<&str> = None;
    // As on a host with systemd, /run is shared with whoever copies it.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    mount(none, "/run", none, MsFlags::MS_SHARED, none).unwrap();
    let script = "b=/bin/busybox; trap 'exit 0' TERM; echo x > /run/host/unix-export/file; (: > /run/host/incoming/x) 2>/dev/null && echo writable
        $b stat -c %a /run/host/incoming > /run/host/unix-export/mode
        while ! [ -e /run/host/incoming/new/mark ]; do $b sleep 0.02; done; : > /run/host/unix-export/seen; while :; do $b sleep 0.02; done";
    let mut config = config(&root, "machine", script);
    config.integration.machine = true;
    let (propagate, export) = (
        Path::new("/run/systemd/nspawn/propagate").join(&config.name),
        Path::new("/run/systemd/nspawn/unix-export").join(&config.name),
    );
    let supervisor = start(&config).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&propagate.metadata().unwrap().permissions()) & 0o777,
        0o600
    );
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("mark"), "").unwrap();
    fs::create_dir(propagate.join("new")).unwrap();
    mount(Some(&source), &propagate.join("new"), none, MsFlags::MS_BIND, none).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !export.join("seen").exists() {
        assert!(std::time::Instant::now() < deadline, "the mount did not arrive");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(fs::read_to_string(export.join("file")).unwrap(), "x\n");
    assert_eq!(fs::read_to_string(export.join("mode")).unwrap(), "600\n");
    assert_eq!(fs::write(export.join("ours"), "").unwrap_err().raw_os_error(), Some(libc::EROFS));
    nix::mount::umount(&propagate.join("new")).unwrap();
    supervisor.stopper().stop();
    let end = supervisor.run(&DETACHED, |_| {}).unwrap();
    assert!(end.outcome == Outcome::Exited(0) && end.cleanup.is_empty(), "{end:?}");
    assert!(!propagate.exists() && !export.exists());
    assert!(!fs::read_to_string("/proc/thread-self/mountinfo").unwrap().contains("unix-export"));
}
