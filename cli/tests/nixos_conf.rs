//! Container settings as the NixOS module and nixos-container write them, and every wrong value with its sentence.

use std::path::Path;

use nixrun::nixos_conf::{self, ConfError, LinkName, NixosConf, PrivateUsers};
use proptest::prelude::*;

const FILE: &str = "/etc/nixos-containers/web.conf";

fn parse(text: &str) -> NixosConf {
    nixos_conf::parse(text, Path::new(FILE)).unwrap()
}

/// The message for a wrong value in the second line.
fn refused(key: &str, value: &str) -> String {
    let text = format!("AUTO_START=1\n  {key}={value}\n");
    let error = nixos_conf::parse(&text, Path::new(FILE)).expect_err(&format!("{key}={value} was taken"));
    assert!(matches!(error, ConfError::BadValue { line: 2, .. }), "{error:?}");
    let sentence = error.to_string();
    let head = format!("{FILE}:2: {key}=");
    assert!(sentence.starts_with(&head), "{sentence}");
    sentence
}

/// The text that the module generates: an indented block for the private network, and lines left blank by its
/// optional parts.
const DECLARATIVE: &str = "\
SYSTEM_PATH=/nix/store/00000000000000000000000000000000-nixos-system-web-24.11

COPY_RESOLV_CONF=1

  PRIVATE_NETWORK=1
  HOST_BRIDGE=br0
  HOST_PORT=tcp:8080:80,udp:5353:53,443
  HOST_ADDRESS=10.233.1.1
  HOST_ADDRESS6=fc00::1
  LOCAL_ADDRESS=192.168.7.2/24
  LOCAL_ADDRESS6=fc00::2
  LOCAL_MAC_ADDRESS=02:00:5E:10:00:01

NETWORK_NAMESPACE_PATH=/run/netns/web
PRIVATE_USERS=pick
INTERFACES=\"eth1 eth2:lan\"
MACVLANS=\"eno1\"
AUTO_START=1
EXTRA_NSPAWN_FLAGS=\"--bind=/a:/b  --bind-ro=/c \"
";

#[test]
fn what_the_module_writes_is_read_whole() {
    let conf = parse(DECLARATIVE);
    let store = "/nix/store/00000000000000000000000000000000-nixos-system-web-24.11";
    assert_eq!(conf.system_path.as_deref(), Some(Path::new(store)));
    assert!(conf.copy_resolv_conf == Some(true) && conf.private_network && conf.auto_start);
    assert_eq!(conf.host_bridge.as_deref(), Some("br0"));
    let ports: Vec<_> = conf.host_port.iter().map(|f| (f.host_port, f.container_port)).collect();
    assert_eq!(ports, [(8080, 80), (5353, 53), (443, 443)]);
    assert_eq!(conf.host_address, Some("10.233.1.1".parse().unwrap()));
    assert_eq!(conf.host_address6, Some("fc00::1".parse().unwrap()));
    assert_eq!(conf.local_address, Some("192.168.7.2/24".parse().unwrap()));
    assert_eq!(conf.local_address6, Some("fc00::2/128".parse().unwrap()));
    assert_eq!(conf.local_mac_address, Some([2, 0, 0x5e, 0x10, 0, 1]));
    assert_eq!(conf.network_namespace_path.as_deref(), Some(Path::new("/run/netns/web")));
    assert_eq!(conf.private_users, PrivateUsers::Pick);
    let lan = LinkName { host: "eth2".into(), container: Some("lan".into()) };
    assert_eq!(conf.interfaces, [LinkName { host: "eth1".into(), container: None }, lan]);
    assert_eq!(conf.macvlans, [LinkName { host: "eno1".into(), container: None }]);
    assert_eq!(conf.extra_nspawn_flags, ["--bind=/a:/b", "--bind-ro=/c"]);
    assert!(conf.other.is_empty());
    assert_eq!((conf.line_of("HOST_BRIDGE"), conf.line_of("FLAKE")), (Some(6), None));
}

#[test]
fn what_nixos_container_creates_is_read_whole() {
    let conf = parse(
        "PRIVATE_NETWORK=1\nHOST_ADDRESS=10.233.1.1\nLOCAL_ADDRESS=10.233.1.2\nHOST_BRIDGE=\nHOST_PORT=\n\
         AUTO_START=0\nFLAKE=github:example/site#web\n",
    );
    assert_eq!(conf.local_address, Some("10.233.1.2/32".parse().unwrap()));
    assert_eq!((conf.host_bridge, conf.auto_start), (None, false));
    assert!(conf.host_port.is_empty());
    assert_eq!(conf.flake.as_deref(), Some("github:example/site#web"));
    assert_eq!(conf.system_path, None);
}

#[test]
fn an_empty_file_sets_nothing_and_empty_values_are_unset() {
    let mut unset = NixosConf::default();
    unset.file = FILE.into();
    assert_eq!(parse(""), unset);
    let keys = [
        "SYSTEM_PATH",
        "FLAKE",
        "COPY_RESOLV_CONF",
        "PRIVATE_NETWORK",
        "HOST_BRIDGE",
        "HOST_PORT",
        "HOST_ADDRESS",
        "HOST_ADDRESS6",
        "LOCAL_ADDRESS",
        "LOCAL_ADDRESS6",
        "LOCAL_MAC_ADDRESS",
        "NETWORK_NAMESPACE_PATH",
        "PRIVATE_USERS",
        "INTERFACES",
        "MACVLANS",
        "AUTO_START",
        "EXTRA_NSPAWN_FLAGS",
        "SOMETHING_ELSE",
    ];
    for key in keys {
        let conf = parse(&format!("{key}=\"\"\n"));
        assert_eq!(conf.line_of(key), Some(1));
        // Nothing but the line number that the message would need.
        assert_eq!(format!("{conf:?}").replace(&format!("{{\"{key}\": 1}}"), "{}"), format!("{unset:?}"));
    }
}

#[test]
fn the_last_assignment_of_a_key_counts_alone() {
    let conf = parse("HOST_BRIDGE=br0\nHOST_PORT=wrong\nHOST_BRIDGE=\nHOST_PORT=80\n");
    assert_eq!(conf.host_bridge, None);
    assert_eq!(conf.host_port.len(), 1);
    assert_eq!(conf.line_of("HOST_PORT"), Some(4));
}

#[test]
fn unknown_keys_are_kept() {
    let conf = parse("TIMEOUT=5\nOTHER='a b'\n");
    let other: Vec<_> = conf.other.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(other, [("OTHER", "a b"), ("TIMEOUT", "5")]);
}

#[test]
fn a_sentence_names_file_line_key_value_and_what_was_expected() {
    assert_eq!(
        refused("PRIVATE_NETWORK", "yes"),
        "/etc/nixos-containers/web.conf:2: PRIVATE_NETWORK=\"yes\" cannot be used: expected 0 or 1"
    );
}

#[test]
fn every_wrong_value_is_refused_with_what_was_expected() {
    let ipv4 = "expected an IPv4 address with";
    let ipv6 = "expected an IPv6 address with";
    let link = "expected a link's name";
    let links = "expected names of links";
    let mac = "expected six bytes in hexadecimal";
    let path = "expected an absolute path";
    let port = "expected [tcp:|udp:|sctp:]";
    let users = "expected no, yes, pick, identity or BASE[:COUNT]";
    for (key, values, expected) in [
        ("SYSTEM_PATH", &["nix/store/x", "./x", "/nix/store/../x"][..], path),
        ("COPY_RESOLV_CONF", &["2", "true", "-1"], "expected 0 or 1"),
        ("PRIVATE_NETWORK", &["yes", "01"], "expected 0 or 1"),
        ("AUTO_START", &["on"], "expected 0 or 1"),
        ("HOST_BRIDGE", &["br 0", "a/b", "a:b", "..", "abcdefghijklmnop"], link),
        ("HOST_PORT", &["http", "tcp:0:80", "80,x", "70000", "tcp:1:2:3:4"], port),
        ("HOST_PORT", &["80,tcp:80:8080", "tcp:192.0.2.1:80:80,80"], "expected each port of the host once"),
        ("HOST_ADDRESS", &["10.0.0.1/24", "10.0.0", "fc00::1", "0.0.0.0", "127.0.0.1", "224.0.0.1"], ipv4),
        ("HOST_ADDRESS6", &["10.0.0.1", "fc00::1/64", "::", "::1", "ff02::1", "fe80::1%eth0"], ipv6),
        ("LOCAL_ADDRESS", &["10.0.0.1/33", "10.0.0.1/0", "10.0.0.1/", "host", "255.255.255.255"], ipv4),
        ("LOCAL_ADDRESS6", &["fc00::1/129", "10.0.0.1/24", "fc00::1/0", "::1/128"], ipv6),
        ("LOCAL_MAC_ADDRESS", &["02:00:00:00:00", "02-00-00-00-00-01", "02:00:00:00:00:01:02"], mac),
        ("LOCAL_MAC_ADDRESS", &["03:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00:+1"], mac),
        ("NETWORK_NAMESPACE_PATH", &["run/netns/x"], path),
        ("PRIVATE_USERS", &["maybe", "-1", "1:0", "1:", ":1", "+1", "4294967295", "4294967000:65536"], users),
        ("INTERFACES", &["eth0 a/b", "eth0:", ":eth0", "abcdefghijklmnop"], links),
        ("MACVLANS", &["eth0:a:b"], links),
    ] {
        for value in values {
            let sentence = refused(key, value);
            assert!(sentence.contains(expected), "{key}={value}: {sentence}");
            assert!(sentence.contains(&format!("{value:?}")), "{sentence}");
        }
    }
}

#[test]
fn private_users_has_all_of_nspawns_forms() {
    for (value, expected) in [
        ("no", PrivateUsers::No),
        ("off", PrivateUsers::No),
        ("yes", PrivateUsers::Yes),
        ("identity", PrivateUsers::Identity),
        ("0", PrivateUsers::Range { base: 0, count: 65536 }),
        ("524288", PrivateUsers::Range { base: 524_288, count: 65536 }),
        ("1000:10", PrivateUsers::Range { base: 1000, count: 10 }),
    ] {
        assert_eq!(parse(&format!("PRIVATE_USERS={value}")).private_users, expected, "{value}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("web.conf");
    let sentence = nixos_conf::read(&missing).unwrap_err().to_string();
    assert!(
        sentence.contains(&*missing.to_string_lossy()) && sentence.contains("No such file"),
        "{sentence}"
    );

    std::fs::write(&missing, b"AUTO_START=1\n\nFLAKE=\xff\n").unwrap();
    let sentence = nixos_conf::read(&missing).unwrap_err().to_string();
    assert!(sentence.ends_with("web.conf:3: the line is not valid UTF-8"), "{sentence}");

    std::fs::write(&missing, "AUTO_START=1\n").unwrap();
    assert!(nixos_conf::read(&missing).unwrap().auto_start);
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*|([A-Z_]{1,20}=\\PC*\n)*") {
        let _ = nixos_conf::parse(&text, Path::new(FILE));
    }

    #[test]
    fn no_value_of_a_known_key_panics(
        key in "HOST_PORT|(HOST|LOCAL)_ADDRESS6?|LOCAL_MAC_ADDRESS|PRIVATE_USERS|INTERFACES|SYSTEM_PATH",
        value in "[0-9a-f:./,\\[\\] é+-]{0,40}",
    ) {
        let _ = nixos_conf::parse(&format!("{key}=\"{value}\""), Path::new(FILE));
    }
}
