//! What a container's processes are held to, seen from inside.

mod common;

use caps::Capability;
use common::{printed, root, start};
use runtime::{
    BindIds, BindSource, CapSet, ContainerConfig, Device, DeviceAllow, ErrorKind, HostFacts, HostPaths,
    Mount, Network, Ownership, Personality, Plan, ResourceLimit, UserNamespace,
};

const STATUS: &str = "/bin/busybox grep -E '^(Cap|NoNewPrivs)' /proc/self/status";

fn line<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .trim()
}

#[test]
fn ambient_capabilities_and_no_new_privileges() {
    let Some((_dir, root)) = root() else { return };
    let plain = printed(&root, "plain", STATUS, |_| {});
    assert_eq!((line(&plain, "CapAmb:"), line(&plain, "NoNewPrivs:")), ("0000000000000000", "0"));
    let ambient = CapSet::of(&[Capability::CAP_NET_RAW, Capability::CAP_CHOWN]);
    let found = printed(&root, "ambient", STATUS, |config| {
        config.security.ambient_capabilities = ambient;
        config.security.no_new_privileges = true;
    });
    assert_eq!(u64::from_str_radix(line(&found, "CapAmb:"), 16).unwrap(), ambient.bits());
    assert_eq!(line(&found, "NoNewPrivs:"), "1");
    for set in ["CapBnd:", "CapPrm:", "CapEff:", "CapInh:"] {
        assert_eq!(line(&found, set), line(&plain, set));
    }
}

#[test]
fn the_filter_is_changed_by_name_and_a_wrong_name_starts_nothing() {
    let Some((_dir, root)) = root() else { return };
    let script = "b=/bin/busybox; $b mkdir /tmp/d; $b mount -t tmpfs t /tmp/d 2>/dev/null && echo mount
        $b chroot / $b true 2>/dev/null && echo chroot; $b hostname changed 2>/dev/null && echo hostname; echo end";
    assert_eq!(printed(&root, "unfiltered", script, |_| {}), "mount\nchroot\nhostname\nend\n");
    let out = printed(&root, "filtered", script, |config| {
        config.security.system_calls.deny = vec!["@mount".to_owned(), "sethostname".to_owned()];
        config.security.system_calls.allow = vec!["sethostname".to_owned()];
    });
    assert_eq!(out, "end\n", "what is denied stays denied");
    let mut config = common::config(&root, "wrong", "exit 0");
    config.security.system_calls.allow = vec!["@keyrign".to_owned()];
    let error = start(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("did you mean \"@keyring\"?"), "{error}");
}

/// Denying what the child itself uses last would break the start, not the program.
#[test]
fn sockets_can_be_denied() {
    let Some((_dir, root)) = root() else { return };
    let out = printed(
        &root,
        "nosockets",
        "/bin/busybox nc -l -p 1 2>&1 | /bin/busybox grep -c permitted",
        |config| {
            config.security.system_calls.deny = vec!["@network-io".to_owned()];
        },
    );
    assert_eq!(out, "1\n");
}

#[test]
fn suppressed_syncs_succeed_even_where_they_are_denied() {
    let Some((_dir, root)) = root() else { return };
    let script =
        "/bin/busybox dd if=/dev/zero of=/tmp/x bs=1 count=1 conv=fsync 2>/dev/null && echo fsync; echo end";
    let deny = |config: &mut runtime::ContainerConfig| {
        config.security.system_calls.deny = vec!["@sync".to_owned()];
    };
    assert_eq!(printed(&root, "sync", script, deny), "end\n");
    let out = printed(&root, "nosync", script, |config| {
        deny(config);
        config.security.suppress_sync = true;
    });
    assert_eq!(out, "fsync\nend\n", "as under systemd-nspawn, whose filter for this is the later one");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_personality_of_a_32_bit_machine() {
    let Some((_dir, root)) = root() else { return };
    for (personality, expected) in
        [(None, "x86_64\n"), (Some(Personality::Native), "x86_64\n"), (Some(Personality::Compat), "i686\n")]
    {
        let out = printed(&root, "personality", "/bin/busybox uname -m", |config| {
            config.security.personality = personality;
        });
        assert_eq!(out, expected, "{personality:?}");
    }
}

#[test]
fn an_ambient_capability_that_the_container_lacks_starts_nothing() {
    let Some((_dir, root)) = root() else { return };
    let mut config = common::config(&root, "lacks", "exit 0");
    config.security.ambient_capabilities = CapSet::of(&[Capability::CAP_SYS_MODULE]);
    let error = start(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("CAP_SYS_MODULE"), "{error}");
}

/// In every combination of the container's own namespaces, one inside can mount what it needs.
#[test]
fn a_user_namespace_inside_can_mount_a_procfs_where_containers_are_to_be_nested() {
    let Some((_dir, root)) = root() else { return };
    let script = "b=/bin/busybox; $b mkdir /tmp/m
        $b unshare -Urmpf $b mount -t proc p /tmp/m 2>/dev/null && echo proc
        $b unshare -Urmpnf $b mount -t sysfs -o ro s /tmp/m 2>/dev/null && echo sysfs; echo end";
    let users = UserNamespace::Range { base: 1_000_000, length: 65_536 };
    for users in [UserNamespace::Host, users] {
        for network in [Network::Host, Network::Private] {
            let out = |nested| {
                printed(&root, "nested", script, |config| {
                    (config.users, config.network) = (users, network.clone());
                    config.ownership = Ownership::Map;
                    if users == UserNamespace::Host {
                        config.ownership = Ownership::Off;
                    }
                    config.security.nested = nested;
                })
            };
            assert_eq!(out(true), "proc\nsysfs\nend\n", "{users:?} {network:?}");
            assert!(!out(false).contains("proc"), "{users:?} {network:?}");
        }
    }
}

fn plan(config: &ContainerConfig) -> Plan {
    Plan::new(config, &HostFacts::probe_for(&HostPaths::default(), config).unwrap()).unwrap()
}

fn limit(name: &str, soft: u64, hard: u64) -> ResourceLimit {
    ResourceLimit { name: name.to_owned(), soft, hard }
}

#[test]
fn limits_scheduling_and_the_oom_score() {
    let Some((_dir, root)) = root() else { return };
    let script = "b=/bin/busybox; $b grep -E '^Max (core|open files)' /proc/self/limits | $b tr -s ' '
        $b cat /proc/self/oom_score_adj; $b grep Cpus_allowed_list /proc/self/status";
    let out = printed(&root, "limits", script, |config| {
        config.execution.limits =
            vec![limit("RLIMIT_CORE", 5, 6), limit("NOFILE", 100, 200), limit("CORE", 7, 8)];
        config.execution.oom_score_adjust = Some(321);
        config.execution.cpu_affinity = Some(vec![0, 4000, 0]);
    });
    let expected =
        "Max core file size 7 8 bytes \nMax open files 100 200 files \n321\nCpus_allowed_list:\t0\n";
    assert_eq!(out, expected);
}

#[test]
fn limits_that_cannot_be_are_refused_by_name() {
    let config = |change: fn(&mut ContainerConfig)| {
        let mut config = ContainerConfig::new("t", "/srv/t", runtime::Payload::new(vec!["/x".into()]));
        change(&mut config);
        let facts = HostFacts::probe_for(&HostPaths::default(), &config).unwrap();
        Plan::new(&config, &facts).unwrap_err().to_string()
    };
    for (change, expected) in [
        (
            (|c| c.execution.limits = vec![limit("NOFILES", 1, 1)]) as fn(&mut ContainerConfig),
            "did you mean \"NOFILE\"?",
        ),
        (|c| c.execution.limits = vec![limit("CORE", 2, 1)], "the soft limit 2 is above the hard one, 1"),
        (|c| c.execution.oom_score_adjust = Some(1001), "from -1000 to 1000"),
        (|c| c.execution.cpu_affinity = Some(vec![1000, 5000]), "the CPUs 1000,5000: none of them exists"),
        (|c| c.execution.cpu_affinity = Some(vec![]), "none of them exists"),
        (|c| c.resources.cpu_weight = Some(0), "from 1 to 10000"),
    ] {
        let said = config(change);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn what_the_machine_forbids_is_clamped_with_a_warning() {
    let mut config = ContainerConfig::new("t", "/srv/t", runtime::Payload::new(vec!["/x".into()]));
    config.execution.oom_score_adjust = Some(-900);
    config.execution.limits = vec![limit("NOFILE", u64::MAX, u64::MAX)];
    let mut facts = HostFacts::probe_for(&HostPaths::default(), &config).unwrap();
    facts.capabilities = CapSet::ALL;
    facts.asked.oom_score_adjust = Some(-7);
    let plan = Plan::new(&config, &facts).unwrap();
    assert_eq!(plan.confinement.oom_score_adjust, Some(-900));
    let nofile = |plan: &Plan| plan.limits.iter().find(|limit| limit.name == "NOFILE").unwrap().hard;
    assert_eq!(nofile(&plan), facts.init_limits.nr_open, "not even CAP_SYS_RESOURCE goes beyond fs.nr_open");
    assert!(plan.warnings.iter().any(|warning| warning.contains("NOFILE") && warning.contains("nr_open")));
    facts.capabilities = CapSet::EMPTY;
    facts.own_limits = vec![(100, 1000); 16];
    let plan = Plan::new(&config, &facts).unwrap();
    assert_eq!((plan.confinement.oom_score_adjust, nofile(&plan)), (Some(-7), 1000));
    let said = plan.warnings.join("; ");
    assert!(
        said.contains("is -7 instead of -900") && said.contains("NOFILE stay lower than asked for"),
        "{said}"
    );
}

fn allow(device: Device) -> DeviceAllow {
    DeviceAllow { device, read: true, write: true, mknod: true }
}

#[test]
fn devices_are_allowed_by_node_driver_and_mount() {
    let Some((_dir, root)) = root() else { return };
    let script = "b=/bin/busybox
        try() { $b mknod /dev/$1 $2 $3 $4 2>/dev/null && echo made $1; ($b head -c 0 /dev/$1) 2>/dev/null && echo opened $1; }
        try fuse c 10 229; try mem c 1 1; [ -e /dev/m ] && { $b head -c 0 /dev/m && echo read m; (: > /dev/m) 2>/dev/null && echo wrote m; }; echo end";
    assert_eq!(printed(&root, "none", script, |_| {}), "end\n");
    let by = |name: &str, device: Device| {
        printed(&root, name, script, |config| config.security.devices = vec![allow(device)])
    };
    assert_eq!(by("node", Device::Node("/dev/fuse".into())), "made fuse\nopened fuse\nend\n");
    assert_eq!(by("driver", Device::CharGroup("m*c".into())), "made fuse\nopened fuse\nend\n");
    assert_eq!(by("block", Device::BlockGroup("*".into())), "end\n");
    assert!(by("any", Device::CharGroup("*".into())).contains("made fuse\nopened fuse\nmade mem"));
    let bind = |read_only| Mount::Bind {
        source: BindSource::Host("/dev/fuse".into()),
        target: "/dev/m".into(),
        read_only,
        recursive: true,
        ids: BindIds::Auto,
    };
    // Reading alone, or with writing, and no node of the number besides.
    for (read_only, expected) in [(true, "read m\nend\n"), (false, "read m\nwrote m\nend\n")] {
        let out = printed(&root, "bind", script, |config| config.mounts = vec![bind(read_only)]);
        assert_eq!(out, expected, "read only: {read_only}");
    }
}

#[test]
fn devices_that_cannot_be_allowed() {
    let mut config = ContainerConfig::new("t", "/srv/t", runtime::Payload::new(vec!["/x".into()]));
    config.security.devices =
        vec![allow(Device::Node("/dev/no-such-thing".into())), allow(Device::BlockGroup("nosuch".into()))];
    let plan = plan(&config);
    assert!(plan.devices.is_empty());
    assert!(
        plan.warnings.iter().any(|said| said.contains("/dev/no-such-thing does not exist")),
        "{:?}",
        plan.warnings
    );
    assert!(plan.warnings.iter().any(|said| said.contains("\"nosuch\"")), "{:?}", plan.warnings);
    for path in ["/etc", "dev/null"] {
        config.security.devices = vec![allow(Device::Node(path.into()))];
        let facts = HostFacts::probe_for(&HostPaths::default(), &config).unwrap();
        assert_eq!(Plan::new(&config, &facts).unwrap_err().kind(), ErrorKind::Config, "{path}");
    }
    // In a service unit nothing of ours decides.
    config.security.devices = vec![allow(Device::Node("/dev/null".into()))];
    let mut facts = HostFacts::probe_for(&HostPaths::default(), &config).unwrap();
    facts.cgroup.as_mut().unwrap().delegated = Some("/sys/fs/cgroup/x.service".into());
    let plan = Plan::new(&config, &facts).unwrap();
    assert!(
        plan.devices.is_empty()
            && plan.warnings.iter().any(|said| said.contains("DeviceAllow= must allow c 1:3 rwm"))
    );
}

#[test]
fn limits_of_the_group_need_their_controller() {
    let mut config = ContainerConfig::new("t", "/srv/t", runtime::Payload::new(vec!["/x".into()]));
    config.resources.memory_max = Some(1 << 20);
    config.resources.cpu_max = Some(runtime::CpuMax { quota: None, period: 50_000 });
    let mut facts = HostFacts::probe_for(&HostPaths::default(), &config).unwrap();
    let group = facts.cgroup.as_mut().unwrap();
    (group.delegated, group.is_root) = (None, false);
    facts.systemd = false;
    let set = |facts: &mut HostFacts, available: &[&str], enabled: &[&str]| {
        let own = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        facts.asked.controllers =
            Some(runtime::Controllers { available: own(available), enabled: own(enabled) });
    };
    let refused = |facts: &HostFacts| Plan::new(&config, facts).unwrap_err().to_string();
    set(&mut facts, &["pids"], &[]);
    assert!(refused(&facts).contains("does not have the controller memory"), "{}", refused(&facts));
    set(&mut facts, &["memory", "cpu"], &["memory"]);
    assert!(refused(&facts).contains("has processes and so cannot share out the controller cpu"));
    // Below the root of all, and in a unit of our own, they can be enabled.
    facts.cgroup.as_mut().unwrap().is_root = true;
    let settings = |facts: &HostFacts| {
        let settings = Plan::new(&config, facts).unwrap().cgroup.settings;
        settings.iter().map(|setting| format!("{} {}", setting.file, setting.value)).collect::<Vec<_>>()
    };
    assert_eq!(settings(&facts), ["memory.max 1048576", "cpu.max max 50000"]);
    let group = facts.cgroup.as_mut().unwrap();
    (group.delegated, group.is_root) = (Some("/sys/fs/cgroup/x.service".into()), false);
    assert_eq!(settings(&facts), ["memory.max 1048576", "cpu.max max 50000"]);
}
