//! Plans are data: what they say is checked without root and without a kernel.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::{CgroupParent, Mount, Ownership, Store};
use crate::host::{CgroupFacts, InitLimits, OsRelease};
use crate::plan::mounts::Source;

fn host() -> HostFacts {
    HostFacts {
        cgroup: Some(CgroupFacts {
            mount: "/sys/fs/cgroup".into(),
            own: "/sys/fs/cgroup/user.slice".into(),
            delegated: None,
            is_root: false,
        }),
        proc_entries: vec!["bus".into(), "kcore".into(), "sysrq-trigger".into()],
        mqueue: true,
        os_release: Some(OsRelease {
            path: "/etc/os-release".into(),
            fields: vec![("id".into(), "nixos".into())],
        }),
        init_limits: InitLimits { nproc: (100, 200), sigpending: (300, 300), nr_open: 1 << 30 },
        own_limits: vec![(u64::MAX, u64::MAX); 16],
        capabilities: CapSet::ALL,
        tun: None,
        temporary: "/var/tmp".into(),
        token: "0123456789abcdef".into(),
        root: "/".into(),
        systemd: false,
        asked: crate::host::AskedFacts::default(),
    }
}

fn config() -> ContainerConfig {
    let payload = Payload::new(vec!["/init".into()]);
    ContainerConfig::new("web", "/var/lib/nixos-containers/web", payload)
}

fn plan(config: &ContainerConfig) -> Plan {
    Plan::new(config, &host()).unwrap()
}

fn targets(plan: &Plan) -> Vec<&Path> {
    plan.mounts.iter().map(|mount| mount.target.as_path()).collect()
}

fn position(plan: &Plan, target: &str) -> usize {
    targets(plan)
        .iter()
        .position(|t| *t == Path::new(target))
        .unwrap_or_else(|| panic!("no mount on {target}"))
}

#[test]
fn what_lies_below_a_mount_comes_after_it() {
    let mut config = config();
    config.network = Network::Private;
    config.store = Some(Store::Whole("/nix/store".into()));
    config.mounts = vec![Mount::Bind {
        source: crate::BindSource::Host("/srv".into()),
        target: "/tmp/srv".into(),
        read_only: false,
        recursive: true,
        ids: crate::BindIds::Auto,
    }];
    let plan = plan(&config);
    let mut seen: Vec<PathBuf> = Vec::new();
    for mount in &plan.mounts {
        let fresh = !matches!(mount.source, Source::Remount | Source::Share | Source::KernelOutside(_));
        if fresh {
            let hidden =
                seen.iter().find(|earlier| earlier.starts_with(&mount.target) && **earlier != mount.target);
            assert_eq!(hidden, None, "{} hides an earlier mount", mount.target.display());
        }
        seen.push(mount.target.clone());
    }
    assert!(
        position(&plan, "/tmp") < position(&plan, "/tmp/srv"),
        "a bind below /tmp stays visible (systemd#4789)"
    );
}

#[test]
fn the_mounts_of_a_private_network_show_no_host_sysfs() {
    let mut config = config();
    config.network = Network::Private;
    let private = plan(&config);
    assert!(targets(&private).contains(&Path::new("/sys/class")));
    assert!(targets(&private).contains(&Path::new("/proc/sys/net")));
    config.network = Network::Host;
    let shared = plan(&config);
    assert!(!targets(&shared).contains(&Path::new("/sys/class")));
    assert!(!targets(&shared).contains(&Path::new("/proc/sys/net")));
}

#[test]
fn a_tmpfs_takes_options_of_both_kinds() {
    let mut config = config();
    config.mounts =
        vec![Mount::Tmpfs { target: "/var".into(), options: "mode=0755,noexec,size=1m,dev".into() }];
    let plan = plan(&config);
    let var = &plan.mounts[position(&plan, "/var")];
    let expected = ["mode", "size"].map(String::from);
    let Source::Tmpfs { options, .. } = &var.source else { panic!("{var}") };
    assert_eq!(options.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), expected);
    assert!(var.attributes.no_exec && var.attributes.strict_atime && !var.attributes.no_dev);
}

#[test]
fn only_what_the_kernel_has_is_masked() {
    let plan = plan(&config());
    let masked: Vec<_> = plan
        .mounts
        .iter()
        .filter(
            |mount| matches!(&mount.source, Source::Own { path, .. } if path.ends_with("inaccessible/reg")),
        )
        .map(|mount| mount.target.to_str().unwrap())
        .collect();
    assert_eq!(masked, ["/proc/kcore", "/proc/sysrq-trigger"]);
}

#[test]
fn store_and_masks_are_read_only_and_profiles_are_not() {
    let mut config = config();
    config.store = Some(Store::Whole("/nix/store".into()));
    config.mounts = vec![Mount::Bind {
        source: crate::BindSource::Host("/nix/var/nix/profiles/per-container/web".into()),
        target: "/nix/var/nix/profiles".into(),
        read_only: false,
        recursive: true,
        ids: crate::BindIds::Auto,
    }];
    let plan = plan(&config);
    let read_only = |target| plan.mounts[position(&plan, target)].attributes.read_only;
    assert!(read_only("/nix/store"));
    assert!(read_only("/proc/sys"));
    assert!(read_only("/proc/kcore"));
    assert!(!read_only("/nix/var/nix/profiles"));
}

#[test]
fn the_environment_is_nspawns_and_the_configuration_wins() {
    let mut config = config();
    config.notify_ready = true;
    config.payload.env = vec![("LANG".into(), "de_DE.UTF-8".into()), ("PRIVATE_NETWORK".into(), "1".into())];
    let env = plan(&config).env;
    let value = |key: &str| env.iter().find(|(k, _)| k == key).map(|(_, v)| v.to_str().unwrap());
    assert_eq!(env[0].0, "PATH");
    assert_eq!(value("container"), Some("systemd-nspawn"));
    assert_eq!(value("NOTIFY_SOCKET"), Some("/run/host/notify"));
    assert_eq!(value("container_host_id"), Some("nixos"));
    assert_eq!(value("LANG"), Some("de_DE.UTF-8"));
    assert_eq!(env.iter().filter(|(key, _)| key == "LANG").count(), 1);
}

#[test]
fn limits_stay_below_ours_without_the_capability_to_raise_them() {
    let mut facts = host();
    let nofile = libc::RLIMIT_NOFILE as usize;
    facts.own_limits[nofile] = (1024, 20_000);
    let limit = |facts: &HostFacts| {
        let plan = Plan::new(&config(), facts).unwrap();
        let limit = *plan.limits.iter().find(|limit| limit.name == "NOFILE").unwrap();
        (limit.soft, limit.hard, plan.warnings.len())
    };
    assert_eq!(limit(&facts), (1024, 524_288, 0), "with CAP_SYS_RESOURCE any limit can be set");
    facts.capabilities = facts.capabilities.difference(CapSet::of(&[caps::Capability::CAP_SYS_RESOURCE]));
    assert_eq!(limit(&facts), (1024, 20_000, 1));
}

#[test]
fn a_delegated_unit_is_split_and_a_shell_gets_a_group_of_its_own() {
    let mut facts = host();
    let plan = |facts: &HostFacts| Plan::new(&config(), facts).unwrap().cgroup;
    let own = plan(&facts);
    assert_eq!(own.payload, Path::new("/sys/fs/cgroup/user.slice/nixrun/web"));
    assert_eq!((own.make_unit, own.supervisor, own.devices), (true, None, DevicePolicy::Filter));
    let unit = Path::new("/sys/fs/cgroup/machine.slice/container@web.service");
    facts.cgroup.as_mut().unwrap().delegated = Some(unit.into());
    let delegated = plan(&facts);
    assert_eq!(delegated.payload, unit.join("payload"));
    assert_eq!(delegated.supervisor, Some(unit.join("supervisor")));
    assert_eq!((delegated.make_unit, delegated.devices), (false, DevicePolicy::Unit));
    let mut one_of_many = config();
    one_of_many.cgroup = CgroupParent::Beside;
    let beside = Plan::new(&one_of_many, &facts).unwrap().cgroup;
    assert_eq!((beside.payload, beside.supervisor), (unit.join("payload-web"), delegated.supervisor));
    facts.cgroup.as_mut().unwrap().delegated = Some("/sys/fs/cgroup/machine.slice/machine-web.scope".into());
    assert_eq!(plan(&facts).devices, DevicePolicy::Filter);
    facts.cgroup = None;
    let error = Plan::new(&config(), &facts).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn only_capabilities_that_we_have_are_given() {
    let mut facts = host();
    let raise = caps::Capability::CAP_SYS_RESOURCE;
    let has = |facts: &HostFacts| Plan::new(&config(), facts).unwrap().capabilities.contains(raise);
    assert!(has(&facts));
    facts.capabilities = facts.capabilities.difference(CapSet::of(&[raise]));
    assert!(!has(&facts));
}

#[test]
fn nonsense_is_refused_in_a_sentence() {
    let refused = |change: &dyn Fn(&mut ContainerConfig), what: &str| {
        let mut config = config();
        change(&mut config);
        let error = Plan::new(&config, &host()).unwrap_err().to_string();
        assert!(error.contains(what), "{error:?} does not say {what:?}");
    };
    refused(&|c| c.name = String::new(), "is empty");
    refused(&|c| c.name = "a/b".into(), "has characters other than");
    refused(&|c| c.name = "..".into(), "begins or ends with");
    refused(&|c| c.name = "a".repeat(65), "longer than 64 bytes");
    refused(&|c| c.rootfs = "relative".into(), "not an absolute path");
    refused(&|c| c.payload.argv.clear(), "no program to run");
    refused(&|c| c.payload.argv = vec!["a\0b".into()], "NUL byte");
    refused(&|c| c.payload.env = vec![("A=B".into(), "".into())], "no name for an environment variable");
    refused(&|c| c.payload.cwd = Some("tmp".into()), "working directory");
    refused(&|c| c.stop_signal = 0, "is no signal");
    let tmpfs = |target: &str| Mount::Tmpfs { target: target.into(), options: String::new() };
    refused(&|c| c.mounts = vec![tmpfs("/")], "a tmpfs on / cannot take the place of the container's root");
    let bind = |source| Mount::Bind {
        source,
        target: "//".into(),
        read_only: false,
        recursive: true,
        ids: crate::BindIds::Auto,
    };
    let other = || bind(crate::BindSource::Host("/other".into()));
    refused(&|c| c.mounts = vec![other()], "name /other as the root directory");
    let overlay = || {
        let lower = vec![crate::BindSource::InRoot("/".into())];
        Mount::Overlay { lower, upper: Some(crate::BindSource::Temporary), target: "/".into() }
    };
    refused(&|c| c.mounts = vec![overlay()], "make the root ephemeral");
    refused(&|c| c.mounts = vec![tmpfs("/a/../../b")], "cannot be a mount point");
}

#[test]
fn the_plan_prints_every_mount_once() {
    let plan = plan(&config());
    let text = plan.to_string();
    for mount in &plan.mounts {
        assert!(text.contains(&format!(" {mount}\n")), "{mount} is missing");
    }
    assert!(text.ends_with("└─ exec /init"));
}

fn steps(config: &ContainerConfig, shared: crate::SharedFiles) -> (Vec<String>, Vec<String>) {
    let mut facts = host();
    facts.asked.shared = shared;
    let plan = Plan::new(config, &facts).unwrap();
    let about = |mount: &&MountPlan| mount.target.starts_with("/etc") || mount.target.starts_with("/var/log");
    (plan.mounts.iter().filter(about).map(ToString::to_string).collect(), plan.warnings)
}

#[test]
fn name_servers_come_by_nspawns_rules() {
    use crate::{ResolvConf, Resolved, SharedFiles};
    let host_only = SharedFiles { resolv_conf: Some("/etc/resolv.conf".into()), ..SharedFiles::default() };
    let resolved = Resolved {
        fixed: None,
        uplink: Some("/run/uplink".into()),
        stub: Some("/run/stub".into()),
        listening: true,
    };
    let both = SharedFiles { resolved, ..host_only.clone() };
    let deaf =
        SharedFiles { resolved: Resolved { listening: false, ..both.resolved.clone() }, ..both.clone() };
    let none = SharedFiles::default();
    let copy = |from| format!("/etc/resolv.conf becomes a copy of host:{from}, unless it is a link");
    let replace = |from| format!("/etc/resolv.conf becomes a copy of host:{from}");
    let bind = |from| format!("/etc/resolv.conf bind host:{from} (ro,nosuid,nodev), if it can be");
    let removed = "/etc/resolv.conf is removed".to_owned();
    for (mode, shared, expected) in [
        (ResolvConf::Off, &both, None),
        (ResolvConf::Auto, &both, Some(copy("/run/stub"))),
        (ResolvConf::Auto, &deaf, Some(copy("/etc/resolv.conf"))),
        (ResolvConf::Auto, &host_only, Some(copy("/etc/resolv.conf"))),
        (ResolvConf::Auto, &none, Some(removed.clone())),
        (ResolvConf::Delete, &both, Some(removed)),
        (ResolvConf::CopyHost, &host_only, Some(copy("/etc/resolv.conf"))),
        (ResolvConf::CopyUplink, &both, Some(copy("/run/uplink"))),
        (ResolvConf::ReplaceHost, &both, Some(replace("/etc/resolv.conf"))),
        (ResolvConf::ReplaceStub, &deaf, Some(replace("/run/stub"))),
        (ResolvConf::BindHost, &host_only, Some(bind("/etc/resolv.conf"))),
        (ResolvConf::BindUplink, &both, Some(bind("/run/uplink"))),
    ] {
        let mut config = config();
        config.integration.resolv_conf = mode;
        let (found, warnings) = steps(&config, shared.clone());
        assert_eq!((found, warnings), (expected.into_iter().collect(), vec![]), "{mode:?} {shared:?}");
    }
    for mode in [ResolvConf::CopyStatic, ResolvConf::BindStatic, ResolvConf::ReplaceStatic] {
        let mut config = config();
        config.integration.resolv_conf = mode;
        let (found, warnings) = steps(&config, both.clone());
        assert!(found.is_empty(), "{found:?}");
        assert!(warnings[0].contains("the host has no static resolv.conf"), "{warnings:?}");
    }
    // With a network of its own it has name servers of its own, too.
    let mut config = config();
    config.integration.resolv_conf = ResolvConf::Auto;
    config.network = Network::Private;
    assert!(steps(&config, both).0.is_empty());
}

#[test]
fn a_time_zone_comes_as_a_link_where_the_host_has_one() {
    use crate::{Localtime, SharedFiles, Timezone};
    let with = |localtime| SharedFiles { localtime, ..SharedFiles::default() };
    let file = PathBuf::from("/usr/share/zoneinfo/Europe/Berlin");
    let link = |to: &str| with(Localtime::Link { to: to.into(), file: Some(file.clone()) });
    let zone = "/etc/localtime becomes a link to ../usr/share/zoneinfo/Europe/Berlin, if \
                /usr/share/zoneinfo/Europe/Berlin is there";
    let bind = "/etc/localtime bind host:/usr/share/zoneinfo/Europe/Berlin (ro,nosuid,nodev)";
    let unless = format!("{bind}, unless /usr/share/zoneinfo/Europe/Berlin is there");
    let if_it_can = format!("{bind}, if it can be");
    let copy = "/etc/localtime becomes a copy of host:/usr/share/zoneinfo/Europe/Berlin";
    let removed = "/etc/localtime is removed";
    let berlin = "../usr/share/zoneinfo/Europe/Berlin";
    for (mode, shared, expected) in [
        (Timezone::Auto, link(berlin), vec![zone, &unless]),
        (Timezone::Symlink, link("/usr/share/zoneinfo/Europe/Berlin"), vec![zone, &unless]),
        (Timezone::Auto, with(Localtime::File(file.clone())), vec![copy]),
        (Timezone::Auto, with(Localtime::Missing), vec![removed]),
        (Timezone::Delete, link(berlin), vec![removed]),
        (Timezone::Copy, link(berlin), vec![copy]),
        (Timezone::Bind, link(berlin), vec![&if_it_can]),
        (Timezone::Off, link(berlin), vec![]),
    ] {
        let mut config = config();
        config.integration.timezone = mode;
        assert_eq!(
            steps(&config, shared.clone()),
            (expected.iter().map(|s| (*s).to_owned()).collect(), vec![]),
            "{mode:?}"
        );
    }
    for (mode, shared) in [
        (Timezone::Auto, link("/etc/zoneinfo/Europe/Berlin")),
        (Timezone::Symlink, link("../usr/share/zoneinfo/../../../etc/shadow")),
        (Timezone::Symlink, with(Localtime::Missing)),
        (Timezone::Bind, with(Localtime::Missing)),
    ] {
        let mut config = config();
        config.integration.timezone = mode;
        let (found, warnings) = steps(&config, shared.clone());
        assert_eq!((found.len(), warnings.len()), (0, 1), "{mode:?} {shared:?}: {found:?}");
    }
}

#[test]
fn a_journal_is_linked_where_there_is_one_to_link() {
    use crate::{JournalLink, LinkJournal, SharedFiles};
    let plan = |mode, optional, change: &dyn Fn(&mut ContainerConfig), machine_id| {
        let (mut config, mut facts) = (config(), host());
        config.integration.journal = LinkJournal { mode, optional };
        change(&mut config);
        facts.asked.shared = SharedFiles { machine_id, ..SharedFiles::default() };
        let journal = super::integration::journal(&config, &facts);
        journal.map(|journal| journal.is_some()).map_err(|error| error.to_string())
    };
    let (as_is, id) = (&|_: &mut ContainerConfig| {}, Some([7; 16]));
    assert_eq!(plan(JournalLink::No, false, as_is, id), Ok(false));
    assert_eq!(plan(JournalLink::Guest, false, as_is, id), Ok(true));
    assert!(plan(JournalLink::Guest, false, as_is, None).unwrap_err().contains("machine id"));
    assert_eq!(plan(JournalLink::Guest, true, as_is, None), Ok(false));
    assert_eq!(plan(JournalLink::Auto, false, as_is, None), Ok(false));
    let ephemeral = &|config: &mut ContainerConfig| config.root.ephemeral = true;
    assert!(plan(JournalLink::Host, false, ephemeral, id).unwrap_err().contains("ephemeral"));
    assert_eq!(plan(JournalLink::Host, true, ephemeral, id), Ok(false));
    let read_only = &|config: &mut ContainerConfig| config.root.read_only = true;
    assert!(plan(JournalLink::Guest, false, read_only, id).unwrap_err().contains("read-only"));
    assert_eq!(plan(JournalLink::Auto, false, read_only, id), Ok(false));
}

#[test]
fn credentials_are_named_by_systemds_rule_and_never_printed() {
    use crate::Credential;
    let credential = |id: &str, value: &[u8]| Credential { id: id.into(), value: value.into() };
    let with = |credentials: Vec<Credential>| {
        let mut config = config();
        config.integration.credentials = credentials;
        config
    };
    let good = with(vec![credential("a.b-c d", b"SECRET"), credential("e", &[0, 10])]);
    let plan = plan(&good);
    let shown = format!("{plan}{plan:?}{}{good:?}", serde_json::to_string(&plan).unwrap());
    assert!(shown.contains("a.b-c d") && !shown.contains("SECRET") && !shown.contains("83,69,67"), "{shown}");
    assert!(
        plan.env
            .iter()
            .any(|(key, value)| key == "CREDENTIALS_DIRECTORY" && value == "/run/host/credentials")
    );
    let long = "x".repeat(256);
    for bad in ["", ".", "..", "a/b", "a:b", "a\n", "ä", long.as_str()] {
        let error = Plan::new(&with(vec![credential(bad, b"")]), &host()).unwrap_err().to_string();
        assert!(error.contains("its name must be"), "{bad}: {error}");
    }
    let twice = with(vec![credential("a", b""), credential("a", b"")]);
    assert!(Plan::new(&twice, &host()).unwrap_err().to_string().contains("given twice"));
    let much = with(vec![credential("a", &vec![0; (1 << 20) + 1])]);
    assert!(Plan::new(&much, &host()).unwrap_err().to_string().contains("longer than 1 MiB"));
}

#[test]
fn what_a_user_namespace_must_not_change_is_mounted_before_it() {
    for network in [Network::Private, Network::Host] {
        let mut config = config();
        config.network = network;
        config.users = UserNamespace::Pick;
        config.store = Some(Store::Whole("/nix/store".into()));
        let plan = plan(&config);
        let (outside, inside) = plan
            .mounts
            .split_at(plan.mounts.iter().position(|mount| mount.source == Source::UserNamespace).unwrap());
        let has = |mounts: &[MountPlan], target: &str| mounts.iter().any(|m| m.target == Path::new(target));
        for target in ["/nix/store", "/dev", "/run", "/run/host", "/dev/pts", "/tmp"] {
            assert!(has(outside, target) && !has(inside, target), "{target}");
        }
        for target in ["/proc", "/proc/kcore", "/sys/fs/cgroup", "/dev/mqueue"] {
            assert!(has(inside, target) && !has(outside, target), "{target}");
        }
        // Only who owns a network may mount its sysfs.
        let private = config.network == Network::Private;
        assert_eq!(has(inside, "/sys/class"), private);
        assert!(has(outside, "/sys"));
        let shown = plan.to_string();
        assert!(
            shown.contains("├─ users ids ")
                && shown.contains("in the user namespace: what stands above is locked"),
            "{shown}"
        );
    }
}

#[test]
fn ports_of_the_hosts_network_are_the_hosts() {
    use caps::Capability::CAP_NET_BIND_SERVICE;
    let holds = |users, network| {
        let mut config = config();
        (config.users, config.network) = (users, network);
        plan(&config).capabilities.contains(CAP_NET_BIND_SERVICE)
    };
    let shifted = UserNamespace::Range { base: 65536, length: 65536 };
    for users in
        [UserNamespace::Host, UserNamespace::Identity, UserNamespace::Range { base: 0, length: 65536 }]
    {
        assert!(holds(users, Network::Host), "{users:?}");
    }
    for users in [UserNamespace::Pick, UserNamespace::OfRoot, shifted] {
        assert!(!holds(users, Network::Host) && holds(users, Network::Private), "{users:?}");
    }
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    let refused = |base, length, ownership| {
        let mut config = config();
        config.users = UserNamespace::Range { base, length };
        config.ownership = ownership;
        Plan::new(&config, &host()).err().map(|error| error.to_string())
    };
    for (base, length) in [(0, 0), (u32::MAX, 1), (u32::MAX - 65535, 65536)] {
        assert!(
            refused(base, length, Ownership::Off).unwrap().contains("end before 4294967295"),
            "{base}:{length}"
        );
    }
    assert!(refused(65536, 10, Ownership::Chown).unwrap().contains("cannot be given"));
    assert!(refused(1, 65536, Ownership::Chown).is_some());
    assert_eq!(refused(1, 10, Ownership::Map), None);
}
