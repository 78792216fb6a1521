//! What the options of `nixrun run` become.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use netsetup::{Nat, NetworkConfig, Veth};
use nixrun::args::{self, Command, RunArgs};
use nixrun::nspawn_run::{self, RunError};
use runtime::{CapSet, Console, ContainerConfig, Mount, Network};

fn args(root: &Path, rest: &str) -> RunArgs {
    let root = root.to_str().unwrap();
    let words = ["nixrun", "run", "-D", root].into_iter().chain(rest.split_whitespace());
    match args::parse(words.map(OsString::from)).unwrap().command {
        Command::Run(run) => *run,
        other => panic!("{other:?}"),
    }
}

fn configs(root: &Path, rest: &str) -> Result<(ContainerConfig, Option<NetworkConfig>), RunError> {
    nspawn_run::to_configs(&args(root, rest), Console::ReadOnly)
}

#[test]
fn a_command_on_the_hosts_network() {
    let dir = tempfile::tempdir().unwrap();
    let (container, network) = configs(dir.path(), "-- sh -c true").unwrap();
    assert_eq!(network, None);
    assert_eq!(container.network, Network::Host);
    assert_eq!(container.name, format!("run-{}", std::process::id()));
    assert_eq!(container.rootfs, dir.path());
    assert_eq!(container.payload.argv, ["sh", "-c", "true"]);
    assert_eq!((container.stop_signal, container.notify_ready), (15, false));
    assert_eq!(container.console, Console::ReadOnly);
    assert!(container.mounts.is_empty() && container.preparation.is_empty() && container.store.is_none());
}

#[test]
fn every_option_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let (container, network) = configs(
        dir.path(),
        "-M web --hostname www --uuid 000102030405060708090a0b0c0d0e0f -n --network-bridge br0 -p 8080:80 \
         --host-address 10.0.0.1 --local-address 10.0.0.2/24 --host-address6 fc00::1 --local-address6 fc00::2 \
         --nat no -E A=1 -E NIXRUN_TEST_UNSET --chdir /tmp --bind /b/c:/m/b --bind-ro /e:/e:norbind --tmpfs /m \
         --capability CAP_NET_ADMIN --capability CAP_SYS_TIME --drop-capability CAP_CHOWN \
         --kill-signal HUP --notify-ready yes --console pipe true",
    )
    .unwrap();
    assert_eq!((container.name.as_str(), container.hostname.as_deref()), ("web", Some("www")));
    assert_eq!(container.uuid, Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]));
    assert_eq!(container.payload.env, [("A".into(), "1".into()), ("NIXRUN_TEST_UNSET".into(), "".into())]);
    assert_eq!(container.payload.cwd.as_deref(), Some(Path::new("/tmp")));
    let bind = |source: &str, target: &str, read_only, recursive| Mount::Bind {
        source: std::path::PathBuf::from(source).into(),
        target: target.into(),
        read_only,
        recursive,
        ids: runtime::BindIds::Auto,
    };
    let tmpfs = Mount::Tmpfs { target: "/m".into(), options: "mode=0755".into() };
    assert_eq!(container.mounts, [bind("/e", "/e", true, false), tmpfs, bind("/b/c", "/m/b", false, true)]);
    assert_eq!(container.add_capabilities, CapSet::parse("CAP_NET_ADMIN,CAP_SYS_TIME").unwrap());
    assert_eq!(container.drop_capabilities, CapSet::parse("CAP_CHOWN").unwrap());
    assert_eq!((container.stop_signal, container.notify_ready), (1, true));
    assert_eq!((container.console, container.network), (Console::Pipe, Network::Private));
    let veth = Veth {
        container_link: "host0".into(),
        bridge: Some("br0".into()),
        make_bridge: false,
        up: true,
        container_mac: None,
        host_address: Some("10.0.0.1".parse().unwrap()),
        host_address6: Some("fc00::1".parse().unwrap()),
        local_address: Some("10.0.0.2/24".parse().unwrap()),
        local_address6: Some("fc00::2/128".parse().unwrap()),
    };
    let forwards = vec![nixrun::forward::parse("8080:80").unwrap()];
    assert_eq!(
        network,
        Some(NetworkConfig { veth: Some(veth), nat: Nat::No, forwards, ..NetworkConfig::new("web") })
    );
}

#[test]
fn the_network_options_decide_on_the_links() {
    let dir = tempfile::tempdir().unwrap();
    for (rest, private, veth) in [
        ("true", false, false),
        ("--private-network true", true, false),
        ("-n true", true, true),
        ("--network-bridge br0 true", true, true),
    ] {
        let (container, network) = configs(dir.path(), rest).unwrap();
        assert_eq!(container.network == Network::Private, private, "{rest}");
        assert_eq!((network.is_some(), network.is_some_and(|n| n.veth.is_some())), (private, veth), "{rest}");
    }
}

#[test]
fn without_a_command_the_roots_init_runs() {
    let dir = tempfile::tempdir().unwrap();
    let sentence = configs(dir.path(), "").unwrap_err().to_string();
    assert!(sentence.contains("cannot find an init in "), "{sentence}");
    assert!(sentence.ends_with("/lib/systemd/systemd, /sbin/init; give a command after --"), "{sentence}");

    fs::create_dir_all(dir.path().join("sbin")).unwrap();
    fs::create_dir_all(dir.path().join("usr/lib/systemd")).unwrap();
    // A link to a place that only the host has must not count.
    symlink("/proc/self/exe", dir.path().join("sbin/init")).unwrap();
    assert!(configs(dir.path(), "").is_err());
    fs::write(dir.path().join("usr/lib/systemd/real"), "").unwrap();
    fs::remove_file(dir.path().join("sbin/init")).unwrap();
    symlink("/usr/lib/systemd/real", dir.path().join("sbin/init")).unwrap();
    let (container, _) = configs(dir.path(), "").unwrap();
    assert_eq!((container.payload.argv, container.stop_signal), (vec!["/sbin/init".into()], 37));
    fs::write(dir.path().join("usr/lib/systemd/systemd"), "").unwrap();
    let (container, _) = configs(dir.path(), "--kill-signal TERM").unwrap();
    assert_eq!(
        (container.payload.argv, container.stop_signal),
        (vec!["/usr/lib/systemd/systemd".into()], 15)
    );
}

#[test]
fn a_root_may_be_a_symlink_but_not_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (root, link, file) = (dir.path().join("root"), dir.path().join("link"), dir.path().join("file"));
    fs::create_dir(&root).unwrap();
    fs::write(&file, "").unwrap();
    symlink(&root, &link).unwrap();
    assert_eq!(configs(&link, "true").unwrap().0.rootfs, root);
    for (path, why) in
        [(&file, "as a container's root: not a directory"), (&dir.path().join("none"), "No such file")]
    {
        let sentence = configs(path, "true").unwrap_err().to_string();
        assert!(sentence.contains(why) && sentence.contains(&*path.to_string_lossy()), "{sentence}");
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (rest, expected) in [
        ("-p 80 true", "cannot use --port: the container has no veth pair"),
        (
            "--private-network --local-address 10.0.0.2 true",
            "cannot use --local-address: the container has no",
        ),
        ("--host-address6 fc00::1 true", "cannot use --host-address6: the container has no veth pair"),
        ("-n -p 80 true", "cannot use --port: it needs an address to lead to"),
        ("-n --local-address6 fc00::2 -p 192.0.2.1:80 true", "cannot use --port: it needs an address"),
        ("-n --local-address 10.0.0.2 -p [fc00::9]:80 true", "cannot use --port: it needs an address"),
        ("-n --local-address 10.0.0.2 -p 80 -p tcp:80:81 true", "cannot use --port: the same port"),
        ("-n --local-address 10.0.0.2 --host-address 10.0.0.2 true", "cannot use --local-address: it is the"),
        (
            "-n --local-address6 fc00::2 --host-address6 fc00::2 true",
            "cannot use --local-address6: it is the",
        ),
        ("-M a_b true", "\"a_b\" cannot name a container"),
        ("--hostname a_b true", "\"a_b\" cannot name a container"),
    ] {
        let sentence = configs(dir.path(), rest).unwrap_err().to_string();
        assert!(sentence.starts_with(expected), "{rest}: {sentence}");
    }
}
