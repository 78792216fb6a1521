//! What a container's settings become, on fake hosts in temporary directories, and what is refused before anything is
//! created.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use netsetup::{NetworkConfig, Veth};
use nixrun::nixos_boot::{self, Boot, BootError};
use nixrun::nixos_conf;
use nixrun::settings::Settings;
use runtime::{
    HostPaths, JournalLink, Mount, Network, Ownership, Personality, Preparation, ResolvConf, Store,
    UserNamespace,
};

const SYSTEM: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-web-24.11";
const CONF: &str = "/etc/nixos-containers/web.conf";

/// A host with one system in its store, a Nix database and a daemon socket.
struct Host {
    dir: tempfile::TempDir,
    paths: HostPaths,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let host = Host { paths: HostPaths::below(dir.path()), dir };
        for path in ["/nix/var/nix/db", "/nix/var/nix/daemon-socket", "/var/lib/nixos-containers", "/etc"] {
            fs::create_dir_all(host.path(path)).unwrap();
        }
        host.executable(&format!("{SYSTEM}/init"));
        fs::write(host.path("/etc/resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn executable(&self, path: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
    }

    fn boot(&self, conf: &str) -> Result<Boot, BootError> {
        let conf = nixos_conf::parse(conf, Path::new(CONF)).unwrap();
        let settings = Settings::merge(Some(conf), None).unwrap();
        nixos_boot::to_configs("web", &settings, &self.paths)
    }

    /// The sentence with which settings are refused; the host's own root is left out of it.
    fn refusal(&self, conf: &str) -> String {
        let before = fs::read_dir(self.path("/var/lib/nixos-containers")).unwrap().count();
        let error = self.boot(conf).expect_err(conf).to_string();
        assert_eq!(fs::read_dir(self.path("/var/lib/nixos-containers")).unwrap().count(), before);
        error.replace(self.dir.path().to_str().unwrap(), "")
    }
}

fn with_system(rest: &str) -> String {
    format!("SYSTEM_PATH={SYSTEM}\n{rest}")
}

#[test]
fn a_container_on_the_hosts_network() {
    let host = Host::new();
    let boot = host.boot(&with_system("COPY_RESOLV_CONF=1\n")).unwrap();
    assert_eq!(boot.network, None);
    assert_eq!(boot.notes, [""; 0]);
    let container = boot.container;
    assert_eq!(container.name, "web");
    assert_eq!(container.rootfs, host.path("/var/lib/nixos-containers/web"));
    assert_eq!(container.payload.argv, [format!("{SYSTEM}/init").as_str()]);
    assert!(container.payload.env.is_empty());
    assert_eq!(container.network, Network::Host);
    assert_eq!((container.stop_signal, container.notify_ready, container.tty_gid), (37, true, 3));
    let Some(Store::Whole(store)) = container.store else { panic!("{:?}", container.store) };
    assert_eq!(store, host.path("/nix/store"));

    let directory = |path: &str, mode| Preparation::Directory { path: path.into(), mode };
    let host_directory = |path: &str| Preparation::HostDirectory { path: host.path(path), mode: 0o755 };
    let expected = [
        host_directory("/var/lib/nixos-containers/web"),
        directory("/usr/bin", 0o755),
        directory("/etc", 0o755),
        directory("/var/lib", 0o755),
        directory("/var/lib/private", 0o700),
        directory("/root", 0o700),
        Preparation::EmptyFile { path: "/etc/os-release".into() },
        Preparation::EmptyFile { path: "/etc/machine-id".into() },
        host_directory("/nix/var/nix/profiles/per-container/web"),
        host_directory("/nix/var/nix/gcroots/per-container/web"),
    ];
    assert_eq!(container.preparation, expected);
    assert_eq!(container.integration.resolv_conf, ResolvConf::ReplaceFollow);

    let bind = |source: &str, target: &str, read_only| Mount::Bind {
        source: host.path(source).into(),
        target: target.into(),
        read_only,
        recursive: true,
        ids: runtime::BindIds::Auto,
    };
    let expected = [
        bind("/nix/var/nix/daemon-socket", "/nix/var/nix/daemon-socket", true),
        bind("/nix/var/nix/db", "/nix/var/nix/db", true),
        bind("/nix/var/nix/gcroots/per-container/web", "/nix/var/nix/gcroots", false),
        bind("/nix/var/nix/profiles/per-container/web", "/nix/var/nix/profiles", false),
    ];
    assert_eq!(container.mounts, expected);
}

#[test]
fn a_container_with_a_network_of_its_own() {
    let boot = Host::new()
        .boot(&with_system(
            "PRIVATE_NETWORK=1\nHOST_BRIDGE=br0\nHOST_PORT=tcp:8080:80\nHOST_ADDRESS=10.0.0.1\n\
             HOST_ADDRESS6=fc00::1\nLOCAL_ADDRESS=10.0.0.2/24\nLOCAL_ADDRESS6=fc00::2\n\
             LOCAL_MAC_ADDRESS=02:00:00:00:00:01\n",
        ))
        .unwrap();
    let veth = Veth {
        container_link: "eth0".into(),
        bridge: Some("br0".into()),
        make_bridge: false,
        up: true,
        container_mac: Some([2, 0, 0, 0, 0, 1]),
        host_address: Some("10.0.0.1".parse().unwrap()),
        host_address6: Some("fc00::1".parse().unwrap()),
        local_address: Some("10.0.0.2/24".parse().unwrap()),
        local_address6: Some("fc00::2/128".parse().unwrap()),
    };
    let forwards = vec![nixrun::forward::parse("tcp:8080:80").unwrap()];
    let expected = NetworkConfig { veth: Some(veth), forwards, ..NetworkConfig::new("web") };
    assert_eq!(boot.network, Some(expected));
    assert_eq!(boot.container.network, Network::Private);
    assert_eq!(boot.container.payload.env, [("PRIVATE_NETWORK".into(), "1".into())]);
}

#[test]
fn the_start_scripts_conditions_decide_on_the_links() {
    let host = Host::new();
    for (conf, private, veth) in [
        ("", false, false),
        ("PRIVATE_NETWORK=0\n", false, false),
        ("PRIVATE_NETWORK=1\n", true, false),
        ("HOST_BRIDGE=br0\n", true, true),
        ("HOST_ADDRESS=10.0.0.1\n", true, true),
        ("LOCAL_ADDRESS6=fc00::2\n", true, true),
        ("LOCAL_MAC_ADDRESS=02:00:00:00:00:01\n", true, true),
    ] {
        let network = host.boot(&with_system(conf)).unwrap().network;
        assert_eq!((network.is_some(), network.is_some_and(|n| n.veth.is_some())), (private, veth), "{conf}");
    }
}

#[test]
fn without_a_system_path_the_containers_profile_boots() {
    let host = Host::new();
    let profiles = host.path("/nix/var/nix/profiles/per-container/web");
    fs::create_dir_all(&profiles).unwrap();
    symlink("system-1-link", profiles.join("system")).unwrap();
    symlink(SYSTEM, profiles.join("system-1-link")).unwrap();
    for conf in ["", "FLAKE=github:example/site#web\n", "SYSTEM_PATH=/nix/var/nix/profiles/system\n"] {
        let boot = host.boot(conf).unwrap();
        assert_eq!(boot.container.payload.argv, ["/nix/var/nix/profiles/system/init"], "{conf}");
    }
}

#[test]
fn name_servers_follow_the_hosts_where_the_network_is_its_or_the_conf_says_so() {
    let host = Host::new();
    let private = "PRIVATE_NETWORK=1\nHOST_ADDRESS=10.1.0.1\nLOCAL_ADDRESS=10.1.0.2\n";
    let mode = |conf: &str| host.boot(&with_system(conf)).unwrap().container.integration.resolv_conf;
    for (conf, shared, own) in [
        ("", ResolvConf::Follow, ResolvConf::Off),
        ("COPY_RESOLV_CONF=0\n", ResolvConf::Off, ResolvConf::Off),
        ("COPY_RESOLV_CONF=1\n", ResolvConf::ReplaceFollow, ResolvConf::ReplaceFollow),
    ] {
        assert_eq!((mode(conf), mode(&format!("{private}{conf}"))), (shared, own), "{conf}");
    }
}

#[test]
fn what_the_host_lacks_is_left_out_and_noted() {
    let host = Host::new();
    fs::remove_dir(host.path("/nix/var/nix/daemon-socket")).unwrap();
    let boot = host.boot(&with_system("")).unwrap();
    assert_eq!(boot.container.mounts.len(), 3);
    let notes = boot.notes.join("\n");
    assert!(notes.contains("/nix/var/nix/daemon-socket does not exist"), "{notes}");
}

#[test]
fn a_root_that_is_no_directory_is_refused() {
    let host = Host::new();
    let root = host.path("/var/lib/nixos-containers/web");
    symlink("/etc", &root).unwrap();
    assert_eq!(
        host.refusal(&with_system("")),
        "cannot use /var/lib/nixos-containers/web as the root of container web: it is a symbolic link; make it a \
         directory, or mount the real one there"
    );
    fs::remove_file(&root).unwrap();
    fs::write(&root, "").unwrap();
    assert!(host.refusal(&with_system("")).ends_with("web: it is not a directory"));
    fs::remove_file(&root).unwrap();
    fs::create_dir(&root).unwrap();
    host.boot(&with_system("")).unwrap();
}

#[test]
fn a_host_without_a_nix_database_is_refused() {
    let host = Host::new();
    fs::remove_dir(host.path("/nix/var/nix/db")).unwrap();
    assert_eq!(
        host.refusal(&with_system("")),
        "cannot prepare container web: /nix/var/nix/db is not a directory; the host's Nix database belongs there"
    );
}

#[test]
fn a_system_path_that_cannot_boot_is_refused() {
    let host = Host::new();
    let system = |n: u32| format!("/nix/store/{n:032}-system");
    fs::create_dir_all(host.path(&system(1))).unwrap();
    fs::create_dir_all(host.path(&system(2))).unwrap();
    fs::write(host.path(&format!("{}/init", system(2))), "").unwrap();
    fs::create_dir_all(host.path(&system(3))).unwrap();
    host.executable("/etc/init");
    symlink("/etc/init", host.path(&format!("{}/init", system(3)))).unwrap();
    fs::create_dir_all(host.path(&format!("{}/init", system(4)))).unwrap();
    host.executable("/srv/system/init");
    symlink("/srv/system", host.path("/nix/store/link")).unwrap();
    host.executable("/nix/store/nohash/init");
    fs::create_dir_all(host.path("/run")).unwrap();
    symlink(SYSTEM, host.path("/run/current-system")).unwrap();
    for (path, problem) in [
        ("/run/current-system".to_owned(), "a path that the container does not have; write /nix/store/0123"),
        (system(0), "cannot be used: No such file or directory"),
        (system(1), "has no usable init: No such file or directory"),
        (system(2), "whose init is not an executable file"),
        (system(3), "whose init leads to /etc/init outside the Nix store"),
        (system(4), "whose init is not an executable file"),
        ("/srv/system".to_owned(), "leads to /srv/system, which is not in the Nix store"),
        ("/nix/store/link".to_owned(), "leads to /srv/system, which is not in the Nix store"),
        ("/nix/store".to_owned(), "leads to /nix/store, which is not in the Nix store"),
        ("/nix/store/nohash".to_owned(), "leads to /nix/store/nohash, which is not in the Nix store"),
    ] {
        let sentence = host.refusal(&format!("AUTO_START=1\nSYSTEM_PATH={path}\n"));
        assert!(sentence.starts_with(&format!("{CONF}:2: SYSTEM_PATH ")), "{sentence}");
        assert!(sentence.contains(problem), "{path}: {sentence}");
    }
}

#[test]
fn a_container_that_was_never_built_is_refused() {
    let host = Host::new();
    assert_eq!(
        host.refusal("AUTO_START=0\n"),
        "/etc/nixos-containers/web.conf: SYSTEM_PATH is not set and the container's profile \
         /nix/var/nix/profiles/per-container/web/system cannot be used: No such file or directory (os error 2)"
    );
    assert_eq!(
        host.refusal("FLAKE=github:example/site#web\n"),
        "/etc/nixos-containers/web.conf:1: FLAKE is \"github:example/site#web\", which nixrun does not build; run \
         `nixos-container update web` first"
    );
}

#[test]
fn users_links_and_a_namespace_are_passed_on() {
    let host = Host::new();
    let boot = |conf: &str| host.boot(&with_system(conf)).unwrap();
    for (value, users, ownership) in [
        ("no", UserNamespace::Host, Ownership::Off),
        ("pick", UserNamespace::Pick, Ownership::Auto),
        ("identity", UserNamespace::Identity, Ownership::Off),
        ("131072", UserNamespace::Range { base: 131_072, length: 65536 }, Ownership::Off),
    ] {
        let container = boot(&format!("PRIVATE_USERS={value}")).container;
        assert_eq!((container.users, container.ownership), (users, ownership), "{value}");
    }
    let joined = boot("NETWORK_NAMESPACE_PATH=/run/netns/x");
    assert_eq!(joined.container.network, Network::Join(host.path("/run/netns/x")));
    assert_eq!(joined.network, None);
    let linked = boot("INTERFACES='eth1 eth2:lan'\nMACVLANS=eth3");
    assert_eq!(linked.container.network, Network::Private);
    let network = linked.network.unwrap();
    let moved: Vec<_> =
        network.interfaces.iter().map(|l| (l.host_link.as_str(), l.container_link.as_deref())).collect();
    assert_eq!(moved, [("eth1", None), ("eth2", Some("lan"))]);
    assert_eq!(network.macvlans[0].parent, "eth3");
    let empty = boot("PRIVATE_USERS=no\nINTERFACES=\nEXTRA_NSPAWN_FLAGS=' '\n");
    assert_eq!((empty.container.network, empty.network), (Network::Host, None));
}

#[test]
fn a_forward_without_a_configured_address_follows_the_containers_own() {
    let host = Host::new();
    let forward_to = |conf: &str| host.boot(&with_system(conf)).unwrap().network.unwrap().forward_to;
    assert_eq!(forward_to("HOST_PORT=80\nHOST_BRIDGE=br0"), netsetup::ForwardTo::Current);
    assert_eq!(forward_to("HOST_PORT=80\nLOCAL_ADDRESS=10.0.0.2"), netsetup::ForwardTo::Configured);
}

#[test]
fn the_journal_is_linked_and_machined_is_told_as_under_nixpkgs() {
    let host = Host::new();
    let integration = |conf: &str| host.boot(&with_system(conf)).unwrap().container.integration;
    let plain = integration("");
    assert_eq!((plain.journal.mode, plain.journal.optional, plain.machine), (JournalLink::Guest, true, true));
    let flags = integration("EXTRA_NSPAWN_FLAGS=\"--link-journal=no --register=no\"");
    assert_eq!((flags.journal.mode, flags.machine), (JournalLink::No, false));
}

#[test]
fn an_i686_system_gets_its_personality() {
    let host = Host::new();
    for (kind, personality) in [("x86_64-linux", None), ("i686-linux\n", Some(Personality::Compat))] {
        fs::write(host.path(&format!("{SYSTEM}/system")), kind).unwrap();
        let expected = personality.filter(|_| cfg!(target_arch = "x86_64"));
        assert_eq!(host.boot(&with_system("")).unwrap().container.security.personality, expected, "{kind}");
    }
}

#[test]
fn systems_from_before_2205_keep_their_roots() {
    let host = Host::new();
    let conf = nixos_conf::parse(&with_system(""), Path::new("/etc/containers/web.conf")).unwrap();
    let settings = Settings::merge(Some(conf), None).unwrap();
    let boot = nixos_boot::to_configs("web", &settings, &host.paths).unwrap();
    assert_eq!(boot.container.rootfs, host.path("/var/lib/containers/web"));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let host = Host::new();
    for (conf, key, problem) in [
        ("HOST_PORT=8080:80", "HOST_PORT", "cannot forward port 8080, because the container has no link"),
        ("HOST_PORT=80\nPRIVATE_NETWORK=1", "HOST_PORT", "because the container has no link"),
        ("HOST_PORT=192.0.2.1:80\nLOCAL_ADDRESS6=fc00::2", "HOST_PORT", "leads to; set LOCAL_ADDRESS"),
        ("HOST_PORT=[fc00::9]:80\nLOCAL_ADDRESS=10.0.0.2", "HOST_PORT", "leads to; set LOCAL_ADDRESS6"),
        (
            "NETWORK_NAMESPACE_PATH=/run/netns/x\nHOST_BRIDGE=br0",
            "NETWORK_NAMESPACE_PATH",
            "cannot be used beside an address, a MAC address or a bridge",
        ),
        ("NETWORK_NAMESPACE_PATH=/run/netns/x\nMACVLANS=a", "NETWORK_NAMESPACE_PATH", "beside MACVLANS"),
        ("LOCAL_ADDRESS=10.0.0.1/24\nHOST_ADDRESS=10.0.0.1", "LOCAL_ADDRESS", "is the same address as HOST"),
        ("LOCAL_ADDRESS6=fc00::1\nHOST_ADDRESS6=fc00::1", "LOCAL_ADDRESS6", "is the same address as HOST"),
    ] {
        let sentence = host.refusal(&with_system(conf));
        assert!(sentence.starts_with(&format!("{CONF}:2: {key} ")), "{sentence}");
        assert!(sentence.contains(problem), "{conf}: {sentence}");
    }
}

#[test]
fn a_name_that_is_no_hostname_is_refused() {
    let host = Host::new();
    for name in ["../etc", "a_b", ""] {
        let error = nixos_boot::to_configs(name, &Settings::default(), &host.paths).unwrap_err();
        assert!(error.to_string().contains("cannot name a container"), "{error}");
    }
}

fn boot_flags(host: &Host, flags: &str) -> Boot {
    host.boot(&with_system(&format!("EXTRA_NSPAWN_FLAGS=\"{flags}\"\n"))).unwrap()
}

#[test]
fn flags_for_systemd_nspawn_add_to_the_settings() {
    let host = Host::new();
    let boot = boot_flags(
        &host,
        " --bind-ro=/home/alice:/home --bind /srv:/srv/data:norbind --capability=CAP_NET_ADMIN --rlimit=NOFILE=1:2 \
         --drop-capability=CAP_SYS_CHROOT --setenv=A=b --hostname=www --system-call-filter=@keyring --read-only",
    );
    let container = boot.container;
    let mount = |target: &str| container.mounts.iter().find(|m| m.target() == Path::new(target)).unwrap();
    let bind = |source: &str, target: &str, read_only, recursive| Mount::Bind {
        source: host.path(source).into(),
        target: target.into(),
        read_only,
        recursive,
        ids: runtime::BindIds::Auto,
    };
    assert_eq!(mount("/home"), &bind("/home/alice", "/home", true, true));
    assert_eq!(mount("/srv/data"), &bind("/srv", "/srv/data", false, false));
    assert!(container.mounts.is_sorted_by(|a, b| a.target() <= b.target()));
    assert_eq!(container.add_capabilities.to_string(), "CAP_NET_ADMIN");
    assert_eq!(container.drop_capabilities.to_string(), "CAP_SYS_CHROOT");
    assert_eq!(container.payload.env, [("A".into(), "b".into())]);
    assert_eq!(container.hostname.as_deref(), Some("www"));
    assert_eq!(container.security.system_calls.allow, ["@keyring"]);
    assert!(container.root.read_only);
    assert_eq!((container.execution.limits[0].soft, container.execution.limits[0].hard), (1, 2));
    assert_eq!((container.stop_signal, container.notify_ready), (37, true));
}

#[test]
fn flags_for_the_network_are_as_systemd_nspawns() {
    let host = Host::new();
    let boot = boot_flags(
        &host,
        "--network-zone=back --port=udp:53 --network-macvlan=eth1 --network-veth-extra=v1:in",
    );
    assert_eq!(boot.container.network, Network::Private);
    let network = boot.network.unwrap();
    let veth = network.veth.unwrap();
    assert_eq!(
        (veth.container_link.as_str(), veth.bridge.as_deref(), veth.make_bridge),
        ("host0", Some("vz-back"), true)
    );
    assert_eq!(network.forward_to, netsetup::ForwardTo::Current);
    assert_eq!(network.macvlans[0].parent, "eth1");
    assert_eq!(network.extra_veths[0].container_link, "in");
    let joined = boot_flags(&host, "--network-namespace-path=/run/netns/x");
    assert_eq!(joined.container.network, Network::Join(host.path("/run/netns/x")));
    assert!(joined.container.drop_capabilities.to_string().contains("CAP_NET_ADMIN"));
}

#[test]
fn flags_that_contradict_boot_or_the_settings_are_refused_by_name() {
    let host = Host::new();
    for (conf, problem) in [
        ("-D /x", "has --directory, which `nixrun boot` decides by itself"),
        ("--image=/x", "has --image, which"),
        ("-M other", "has --machine, which"),
        ("--template=/x", "has --template, which"),
        ("-b", "has --boot, which"),
        ("--settings=override", "has --settings, which"),
        ("--slice=x.slice", "has --slice, which"),
        ("--property=A=b", "has --property, which"),
        ("--cleanup", "has --cleanup, which"),
        ("--bind=/a /bin/sh", "has \"/bin/sh\", which is no option"),
        ("--help", "asks for a text"),
        ("--version", "asks for a text"),
        ("--frobnicate", "cannot be used: systemd-nspawn: unrecognized option '--frobnicate'"),
        ("--bind=a:b:c:d", "cannot be used: "),
        ("--port=80", "has --port, and the container has no link to the host"),
        ("--network-namespace-path=/x --network-veth", "has --network-namespace-path beside other"),
        ("--bind=/a:/nix/store", "would cover /nix/store"),
        (
            "--private-users=pick\"\nPRIVATE_USERS=\"identity",
            "has --private-users, which contradicts PRIVATE_USERS",
        ),
        ("--network-bridge=br1\"\nHOST_BRIDGE=\"br0", "names another bridge or zone"),
        ("--resolv-conf=off\"\nCOPY_RESOLV_CONF=\"1", "contradicts COPY_RESOLV_CONF"),
        (
            "--port=80:81\"\nHOST_PORT=80:80\nLOCAL_ADDRESS=\"10.0.0.2",
            "has --port for 80, which is forwarded already",
        ),
        ("--load-credential=a:/none", "cannot give the credential a: "),
    ] {
        let sentence = host.refusal(&with_system(&format!("EXTRA_NSPAWN_FLAGS=\"{conf}\"\n")));
        let place = if problem.starts_with("would cover") { "bindMounts " } else { "EXTRA_NSPAWN_FLAGS " };
        assert!(sentence.contains(place) && sentence.contains(problem), "{conf}: {sentence}");
    }
}
