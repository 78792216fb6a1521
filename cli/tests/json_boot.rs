//! What a JSON configuration becomes, alone and over NAME.conf.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use netsetup::{ForwardTo, Nat, Protocol};
use nixrun::nixos_boot::{self, Boot};
use nixrun::settings::Settings;
use nixrun::{json, nixos_conf};
use runtime::{
    BindIds, BindSource, Console, Device, HostPaths, JournalLink, Mount, Network, Personality, Program,
    ResolvConf, Timezone, UserNamespace, Volatile,
};

const SYSTEM: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-web-24.11";

struct Host {
    dir: tempfile::TempDir,
    paths: HostPaths,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let host = Host { paths: HostPaths::below(dir.path()), dir };
        for path in ["/nix/var/nix/db", "/nix/var/nix/daemon-socket", "/var/lib/machines/box", "/etc", SYSTEM]
        {
            fs::create_dir_all(host.path(path)).unwrap();
        }
        let init = host.path(&format!("{SYSTEM}/init"));
        fs::write(&init, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&init, fs::Permissions::from_mode(0o555)).unwrap();
        fs::write(host.path("/etc/secret"), "s3cret").unwrap();
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn boot(&self, conf: Option<&str>, text: &str) -> Result<Boot, String> {
        let conf =
            conf.map(|conf| nixos_conf::parse(conf, Path::new("/etc/nixos-containers/box.conf")).unwrap());
        let json = json::parse(text.as_bytes(), Path::new("/etc/nixrun/box.json")).unwrap();
        let settings = Settings::merge(conf, Some(json)).map_err(|error| error.to_string())?;
        let boot = nixos_boot::to_configs("box", &settings, &self.paths);
        boot.map_err(|error| error.to_string().replace(self.dir.path().to_str().unwrap(), ""))
    }
}

fn with_system(rest: &str) -> String {
    format!(r#"{{"system": "{SYSTEM}"{}{rest}}}"#, if rest.is_empty() { "" } else { ", " })
}

#[test]
fn a_nixos_container_by_json_alone() {
    let host = Host::new();
    let boot = host.boot(None, &with_system("")).unwrap();
    assert_eq!(boot.container.rootfs, host.path("/var/lib/nixos-containers/box"));
    assert_eq!(boot.container.payload.argv, [format!("{SYSTEM}/init").as_str()]);
    assert!(boot.container.store.is_some() && boot.container.notify_ready);
    assert_eq!((boot.container.tty_gid, boot.container.network), (3, Network::Host));
    let ephemeral = host.boot(None, &with_system(r#""ephemeral": true"#)).unwrap().container;
    assert_eq!(ephemeral.rootfs, host.path("/run/nixos-containers/box"));
    assert!(ephemeral.root.ephemeral);
}

#[test]
fn the_same_by_either_file() {
    let host = Host::new();
    let conf = format!(
        "SYSTEM_PATH={SYSTEM}\nCOPY_RESOLV_CONF=0\nPRIVATE_NETWORK=1\nHOST_ADDRESS=10.0.0.1\nLOCAL_ADDRESS=10.0.0.2\n\
         HOST_PORT=tcp:80:8080\nPRIVATE_USERS=pick\nINTERFACES=eth1\nMACVLANS=eth2\n\
         EXTRA_NSPAWN_FLAGS=\"--bind-ro=/home/alice:/home --capability=CAP_NET_RAW\""
    );
    let json = with_system(
        r#""privateNetwork": true, "hostAddress": "10.0.0.1", "localAddress": "10.0.0.2",
           "forwardPorts": [{"hostPort": 80, "containerPort": 8080}], "privateUsers": "pick",
           "interfaces": ["eth1"], "macvlans": ["eth2"], "bindMounts": {"/home": {"hostPath": "/home/alice"}},
           "additionalCapabilities": ["CAP_NET_RAW"]"#,
    );
    let shown = |boot: &Boot| format!("{:#?}\n{:#?}", boot.container, boot.network);
    let (by_conf, by_json) = (host.boot(Some(&conf), "{}").unwrap(), host.boot(None, &json).unwrap());
    assert_eq!(shown(&by_conf), shown(&by_json));
    assert_eq!(shown(&host.boot(Some(&conf), &json).unwrap()), shown(&by_json));
}

#[test]
fn an_ordinary_root_runs_a_command_or_its_init() {
    let host = Host::new();
    let boot = host
        .boot(None, r#"{"command": ["sleep", "1"], "user": "nobody", "workingDirectory": "/srv"}"#)
        .unwrap();
    let container = boot.container;
    assert_eq!(container.rootfs, host.path("/var/lib/machines/box"));
    assert_eq!(
        (container.payload.program, container.stop_signal, container.tty_gid),
        (Program::Command, 15, 5)
    );
    assert_eq!(container.payload.argv, ["sleep", "1"]);
    assert_eq!(container.payload.user.as_deref(), Some("nobody"));
    assert!(container.store.is_none() && container.preparation.is_empty() && container.mounts.is_empty());
    let init = host.boot(None, r#"{"boot": true, "root": "/var/lib/machines/box"}"#).unwrap().container;
    assert_eq!((init.payload.program, init.stop_signal), (Program::Init, 37));
}

#[test]
fn every_key_arrives() {
    let host = Host::new();
    let boot = host
        .boot(
            None,
            &with_system(
                r#""environment": {"A": "b"}, "asPid2": true, "hostname": "www", "killSignal": "TERM", "notifyReady": false,
            "machineId": "123456789abcdef00001020304050607", "personality": "compat", "console": "passive",
            "root": "/srv/box", "readOnly": true, "pivotRoot": {"new": "/a", "old": "/b"},
            "privateUsers": "65536:1000", "privateUsersOwnership": "chown",
            "bindMounts": {"/data": {"hostPath": "/srv/data", "isReadOnly": false, "recursive": false, "ids": "owner"},
                           "/same": {}, "/fresh": {"hostPath": ""}, "/own": {"hostPath": "+/etc"}},
            "tmpfs": ["/var:size=1G"], "overlays": {"/o": {"lower": ["/l1", "+/l2"], "upper": "/u"}}, "inaccessible": ["/x"],
            "zone": "back", "hostAddress": "10.0.0.1", "hostAddress6": "fc00::1", "localAddress": "10.0.0.2/24",
            "localAddress6": "fc00::2", "localMacAddress": "02:00:00:00:00:01", "linkName": "lan",
            "extraVeths": {"v1": {"hostBridge": "br1", "localAddress": "10.1.0.2/24"}, "v2": {"linkName": "in"}},
            "ipvlans": ["eth1:ip"], "forwardPorts": [{"protocol": "udp", "hostAddress": "192.0.2.1", "hostPort": 53}],
            "forwardTo": "current", "nat": "wan0",
            "additionalCapabilities": ["CAP_SYS_TIME"], "droppedCapabilities": ["SYS_CHROOT"],
            "ambientCapabilities": ["CAP_SYS_NICE"], "noNewPrivileges": true,
            "systemCallFilter": {"allow": ["@keyring"], "deny": ["kill"]}, "suppressSync": true,
            "allowedDevices": [{"node": "/dev/fuse"}, {"node": "char-pts", "modifier": "m"}], "enableTun": true,
            "nested": true, "limits": {"NOFILE": "1:2"}, "oomScoreAdjust": -5, "cpuAffinity": [0],
            "resources": {"memory": {"max": "1M", "high": 1000, "swap": {"max": 0}}, "cpu": {"max": "150%", "weight": 7},
                          "pids": {"max": 9}, "io": {"max": {"/dev/sda": {"readBytes": 5, "writeOperations": "max"}}},
                          "cpuset": {"cpus": "0-1", "mems": "0"}},
            "resolvConf": "bind-stub", "timezone": "symlink", "linkJournal": "try-guest",
            "credentials": {"a": {"text": "x"}, "b": {"file": "/etc/secret"}},
            "kernelView": {"writable": "yes", "tmpfsTmp": false, "shareIpc": true}"#,
            ),
        )
        .unwrap();
    let c = &boot.container;
    assert!(c.payload.env.contains(&("A".into(), "b".into())) && c.payload.as_pid2);
    assert_eq!((c.hostname.as_deref(), c.stop_signal, c.notify_ready), (Some("www"), 15, false));
    assert_eq!(c.uuid.unwrap()[0], 0x12);
    assert_eq!((c.security.personality, boot.console), (Some(Personality::Compat), Some(Console::Passive)));
    assert_eq!(
        (c.rootfs.clone(), c.root.read_only, c.root.volatile),
        (host.path("/srv/box"), true, Volatile::No)
    );
    assert_eq!(c.root.pivot.as_ref().unwrap().new, Path::new("/a"));
    assert_eq!(c.users, UserNamespace::Range { base: 65536, length: 1000 });
    assert_eq!(c.ownership, runtime::Ownership::Chown);
    let mount = |target: &str| c.mounts.iter().find(|m| m.target() == Path::new(target)).unwrap();
    let Mount::Bind { source, read_only: false, recursive: false, ids: BindIds::Owner, .. } = mount("/data")
    else {
        panic!("{:?}", mount("/data"))
    };
    assert_eq!(source, &BindSource::Host(host.path("/srv/data")));
    assert!(matches!(
        mount("/same"),
        Mount::Bind { read_only: true, recursive: true, ids: BindIds::Auto, .. }
    ));
    assert!(matches!(mount("/fresh"), Mount::Bind { source: BindSource::Temporary, .. }));
    assert!(matches!(mount("/own"), Mount::Bind { source: BindSource::InRoot(_), .. }));
    assert!(matches!(mount("/var"), Mount::Tmpfs { options, .. } if options == "size=1G"));
    assert!(matches!(mount("/o"), Mount::Overlay { lower, upper: Some(_), .. } if lower.len() == 2));
    assert!(matches!(mount("/x"), Mount::Inaccessible { .. }));
    let n = boot.network.as_ref().unwrap();
    let veth = n.veth.as_ref().unwrap();
    assert_eq!(
        (veth.bridge.as_deref(), veth.make_bridge, veth.container_link.as_str()),
        (Some("vz-back"), true, "lan")
    );
    assert!(veth.host_address.is_some() && veth.host_address6.is_some() && veth.container_mac.is_some());
    assert!(veth.local_address.is_some() && veth.local_address6.is_some());
    let extra: Vec<_> =
        n.extra_veths.iter().map(|v| (v.host_link.as_str(), v.container_link.as_str())).collect();
    assert_eq!(extra, [("v1", "v1"), ("v2", "in")]);
    assert_eq!(n.ipvlans[0].container_link.as_deref(), Some("ip"));
    assert_eq!((n.forwards[0].protocol, n.forwards[0].container_port), (Protocol::Udp, 53));
    assert_eq!((n.forward_to, n.nat.clone()), (ForwardTo::Current, Nat::Interface("wan0".into())));
    assert_eq!(c.add_capabilities.to_string(), "CAP_NET_ADMIN,CAP_SYS_TIME");
    assert_eq!(c.drop_capabilities.to_string(), "CAP_SYS_CHROOT");
    let security = &c.security;
    assert_eq!(security.ambient_capabilities.to_string(), "CAP_SYS_NICE");
    assert!(security.no_new_privileges && security.suppress_sync && security.nested);
    assert_eq!(
        (&security.system_calls.allow[0], &security.system_calls.deny[0]),
        (&"@keyring".into(), &"kill".into())
    );
    let devices: Vec<_> = security.devices.iter().map(|d| (&d.device, d.read, d.write, d.mknod)).collect();
    assert_eq!(devices[0], (&Device::Node("/dev/fuse".into()), true, true, false));
    assert_eq!(devices[1], (&Device::CharGroup("pts".into()), false, false, true));
    assert_eq!(devices[2], (&Device::Node("/dev/net/tun".into()), true, true, true));
    assert_eq!((c.execution.limits[0].soft, c.execution.oom_score_adjust), (1, Some(-5)));
    assert_eq!(c.execution.cpu_affinity.as_deref(), Some(&[0][..]));
    let r = &c.resources;
    assert_eq!((r.memory_max, r.memory_high, r.memory_swap_max), (Some(1 << 20), Some(1000), Some(0)));
    assert_eq!((r.cpu_max.unwrap().quota, r.cpu_weight, r.pids_max), (Some(150_000), Some(7), Some(9)));
    assert_eq!((r.io_max[0].read_bytes, r.io_max[0].write_operations), (Some(5), None));
    assert_eq!((r.cpuset_cpus.as_deref(), r.cpuset_mems.as_deref()), (Some("0-1"), Some("0")));
    let i = &c.integration;
    assert_eq!((i.resolv_conf, i.timezone), (ResolvConf::BindStub, Timezone::Symlink));
    assert_eq!((i.journal.mode, i.journal.optional), (JournalLink::Guest, true));
    let secrets: Vec<_> = i.credentials.iter().map(|c| (c.id.as_str(), c.value.as_slice())).collect();
    assert_eq!(secrets, [("a", &b"x"[..]), ("b", &b"s3cret"[..])]);
    assert!(!c.kernel_view.tmpfs_tmp && c.kernel_view.share_ipc && c.kernel_view.cgroup_namespace);
}

#[test]
fn contradictions_within_the_json_are_refused_by_name() {
    let host = Host::new();
    for (text, problem) in [
        (
            with_system(r#""boot": true"#),
            "boot is set, and so is /etc/nixrun/box.json: system; set one of them",
        ),
        (with_system(r#""command": ["x"]"#), "command is set, and so is"),
        (r#"{"boot": true, "command": ["x"]}"#.into(), "boot is true beside command"),
        (r#"{"command": [""]}"#.into(), "command is empty; name a program"),
        (r#"{"command": ["x"], "root": "/none"}"#.into(), "it is not a directory; name another with root"),
        (
            with_system(r#""root": "/etc/secret""#),
            "cannot use /etc/secret as the root of container box: it is not a directory",
        ),
        (with_system(r#""ephemeral": true, "readOnly": true"#), "ephemeral is true beside readOnly"),
        (with_system(r#""ephemeral": true, "template": "/x""#), "ephemeral is true beside template"),
        (with_system(r#""ephemeral": true, "linkJournal": "guest""#), "ephemeral is true beside linkJournal"),
        (with_system(r#""volatile": "state", "readOnly": true"#), "volatile makes the root read-only"),
        (with_system(r#""image": true, "template": "/x", "root": "/y""#), "image is true beside template"),
        (with_system(r#""image": true"#), "image is true, and no root names it"),
        (with_system(r#""privateUsersOwnership": "map""#), "privateUsersOwnership needs a user namespace"),
        (
            with_system(r#""hostname": "a", "kernelView": {"shareUts": true}"#),
            "hostname cannot be set while kernelView.shareUts",
        ),
        (
            with_system(r#""bindMounts": {"/a": {"ids": "map"}}"#),
            "bindMounts has ids for /a, which need a user namespace",
        ),
        (with_system(r#""bindMounts": {"/nix/store": {}}"#), "bindMounts would cover /nix/store"),
        (with_system(r#""tmpfs": ["/nix"]"#), "tmpfs would cover /nix"),
        (
            with_system(r#""tmpfs": ["/a"], "inaccessible": ["/a"]"#),
            "has /a, where something is mounted already",
        ),
        (with_system(r#""zone": "a", "hostBridge": "br0""#), "zone names one bridge and hostBridge another"),
        (
            with_system(r#""privateNetwork": false, "hostBridge": "br0""#),
            "privateNetwork is false beside a link",
        ),
        (
            with_system(r#""linkName": "lan""#),
            "linkName has no link to apply to, because the container has no link to the host; set hostBridge, or hostAddress and localAddress",
        ),
        (with_system(r#""nat": "no""#), "nat has no link to apply to"),
        (with_system(r#""forwardTo": "current""#), "forwardTo has no link to apply to"),
        (
            with_system(r#""forwardPorts": [{"hostPort": 80}]"#),
            "forwardPorts cannot forward port 80, because",
        ),
        (
            with_system(
                r#""forwardPorts": [{"hostPort": 80}, {"hostPort": 80, "hostAddress": "192.0.2.1"}], "localAddress": "10.0.0.2""#,
            ),
            "has port 80 twice",
        ),
        (
            with_system(
                r#""forwardPorts": [{"hostPort": 80, "hostAddress": "fc00::9"}], "localAddress": "10.0.0.2""#,
            ),
            "set localAddress6",
        ),
        (
            with_system(r#""hostAddress": "10.0.0.1", "localAddress": "10.0.0.1""#),
            "localAddress is the same address as hostAddress",
        ),
        (
            with_system(r#""networkNamespace": "/run/netns/x", "zone": "a""#),
            "networkNamespace cannot be used beside an address",
        ),
        (with_system(r#""networkNamespace": "/run/netns/x", "extraVeths": {"v": {}}"#), "beside extraVeths"),
        (with_system(r#""networkNamespace": "/run/netns/x", "ipvlans": ["a"]"#), "beside ipvlans"),
        (
            with_system(
                r#""additionalCapabilities": ["CAP_SYS_TIME"], "droppedCapabilities": ["CAP_SYS_TIME"]"#,
            ),
            "droppedCapabilities has CAP_SYS_TIME",
        ),
        (
            with_system(r#""systemCallFilter": {"allow": ["kill"], "deny": ["kill"]}"#),
            "systemCallFilter both allows and denies kill",
        ),
        (with_system(r#""resources": {"memory": {"max": 0}}"#), "resources.memory.max is 0"),
        (with_system(r#""resources": {"pids": {"max": 0}}"#), "resources.pids.max is 0"),
        (
            with_system(r#""resources": {"io": {"max": {"/dev/sda": {"readBytes": 0}}}}"#),
            "resources.io.max is 0 for /dev/sda",
        ),
        (with_system(r#""credentials": {"a": {}}"#), "credentials cannot give a: set exactly one"),
        (with_system(r#""credentials": {"a": {"file": "/x", "text": "y"}}"#), "set exactly one"),
        (with_system(r#""credentials": {"a": {"file": "/none"}}"#), "/none cannot be read"),
        (with_system(r#""credentials": {"a": {"file": "/etc"}}"#), "/etc is not a file"),
    ] {
        let sentence = host.boot(None, &text).expect_err(&text);
        assert!(sentence.contains(problem), "{text}: {sentence}");
        assert!(!host.path("/var/lib/nixos-containers").exists(), "{text} created something");
    }
}

#[test]
fn the_json_refines_a_mount_of_the_flags() {
    let host = Host::new();
    let conf =
        format!("SYSTEM_PATH={SYSTEM}\nPRIVATE_USERS=pick\nEXTRA_NSPAWN_FLAGS=\"--bind=/home/alice:/home\"");
    let container =
        host.boot(Some(&conf), r#"{"bindMounts": {"/home": {"ids": "owner"}}}"#).unwrap().container;
    let mount = container.mounts.iter().find(|m| m.target() == Path::new("/home")).unwrap();
    let Mount::Bind { source, read_only, ids, .. } = mount else { panic!("{mount:?}") };
    assert_eq!(
        (source, *read_only, *ids),
        (&BindSource::Host(host.path("/home/alice")), false, BindIds::Owner)
    );
    for json in [
        r#"{"bindMounts": {"/home": {"hostPath": "/home/bob"}}}"#,
        r#"{"bindMounts": {"/home": {"isReadOnly": true}}}"#,
    ] {
        let sentence = host.boot(Some(&conf), json).unwrap_err();
        assert_eq!(
            sentence,
            "/etc/nixos-containers/box.conf:3: EXTRA_NSPAWN_FLAGS contradicts /etc/nixrun/box.json: bindMounts about /home; \
             make them agree, or remove one"
        );
    }
}
