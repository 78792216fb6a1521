//! Plans are data: what they say is checked without root and without a kernel.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::{Mount, Store};
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
        tun: false,
        temporary: "/var/tmp".into(),
        token: "0123456789abcdef".into(),
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
    refused(&|c| c.mounts = vec![tmpfs("/")], "cannot be a mount point");
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
