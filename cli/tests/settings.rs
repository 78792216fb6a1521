//! NAME.conf and the JSON configuration of one container together.

use std::path::Path;

use nixrun::settings::Settings;
use nixrun::{json, nixos_conf};

const FILE: &str = "/etc/nixrun/web.json";
const CONF: &str = "/etc/nixos-containers/web.conf";

fn merged(conf: &str, json: &str) -> Result<Settings, String> {
    let conf = nixos_conf::parse(conf, Path::new(CONF)).unwrap();
    let json = json::parse(json.as_bytes(), Path::new(FILE)).unwrap();
    Settings::merge(Some(conf), Some(json)).map_err(|error| error.to_string())
}

#[test]
fn both_files_may_say_the_same() {
    for (conf, json) in [
        ("SYSTEM_PATH=/nix/store/x", r#"{"system": "/nix/store/x"}"#),
        ("PRIVATE_NETWORK=1", r#"{"privateNetwork": true}"#),
        ("LOCAL_ADDRESS=10.0.0.2", r#"{"localAddress": "10.0.0.2/32"}"#),
        ("HOST_PORT=tcp:80:80", r#"{"forwardPorts": [{"hostPort": 80}]}"#),
        ("INTERFACES=eth1", r#"{"interfaces": ["eth1"]}"#),
        ("COPY_RESOLV_CONF=1", r#"{"resolvConf": "replace-follow"}"#),
        // That it has the host's name servers; the JSON says how.
        ("COPY_RESOLV_CONF=1", r#"{"resolvConf": "follow"}"#),
        ("COPY_RESOLV_CONF=1", r#"{"resolvConf": "replace-host"}"#),
        ("COPY_RESOLV_CONF=0", r#"{"resolvConf": "copy-stub"}"#),
        ("PRIVATE_USERS=65536", r#"{"privateUsers": 65536}"#),
        ("PRIVATE_USERS=no", r#"{"privateUsers": "pick"}"#),
    ] {
        let both = merged(conf, json).unwrap();
        let mut alone = merged("", json).unwrap();
        alone.conf = both.conf.clone();
        // What NAME.conf has with everything filled in is the same.
        assert_eq!(
            both.document.forward_ports.map(|p| p.len()),
            alone.document.forward_ports.map(|p| p.len())
        );
        assert_eq!(both.document.system, alone.document.system);
        assert_eq!(both.document.local_address, alone.document.local_address);
        assert_eq!(both.document.private_users, alone.document.private_users);
        assert_eq!(both.document.resolv_conf, alone.document.resolv_conf);
    }
}

#[test]
fn lists_of_both_files_are_joined() {
    let both = merged(
        "HOST_PORT=tcp:80:8080\nINTERFACES=eth1",
        r#"{"forwardPorts": [{"hostAddress": "192.0.2.1", "hostPort": 81}], "interfaces": ["eth2", "eth1"]}"#,
    )
    .unwrap();
    let ports: Vec<u16> = both.document.forward_ports.unwrap().iter().map(|port| port.host_port).collect();
    assert_eq!(ports, [80, 81]);
    let links: Vec<String> =
        both.document.interfaces.unwrap().iter().map(|link| link.0.to_string()).collect();
    assert_eq!(links, ["eth1", "eth2"]);
}

#[test]
fn contradictions_name_both_files_and_keys() {
    for (conf, json, conf_key, json_key) in [
        ("SYSTEM_PATH=/nix/store/x", r#"{"system": "/nix/store/y"}"#, "SYSTEM_PATH", "system"),
        ("PRIVATE_NETWORK=1", r#"{"privateNetwork": false}"#, "PRIVATE_NETWORK", "privateNetwork"),
        ("HOST_BRIDGE=br0", r#"{"hostBridge": "br1"}"#, "HOST_BRIDGE", "hostBridge"),
        ("HOST_ADDRESS=10.0.0.1", r#"{"hostAddress": "10.0.0.3"}"#, "HOST_ADDRESS", "hostAddress"),
        ("HOST_ADDRESS6=fc00::1", r#"{"hostAddress6": "fc00::3"}"#, "HOST_ADDRESS6", "hostAddress6"),
        ("LOCAL_ADDRESS=10.0.0.2", r#"{"localAddress": "10.0.0.2/24"}"#, "LOCAL_ADDRESS", "localAddress"),
        ("LOCAL_ADDRESS6=fc00::2", r#"{"localAddress6": "fc00::3"}"#, "LOCAL_ADDRESS6", "localAddress6"),
        (
            "LOCAL_MAC_ADDRESS=02:00:00:00:00:01",
            r#"{"localMacAddress": "02:00:00:00:00:02"}"#,
            "LOCAL_MAC_ADDRESS",
            "localMacAddress",
        ),
        (
            "NETWORK_NAMESPACE_PATH=/run/netns/a",
            r#"{"networkNamespace": "/run/netns/b"}"#,
            "NETWORK_NAMESPACE_PATH",
            "networkNamespace",
        ),
        ("PRIVATE_USERS=pick", r#"{"privateUsers": "identity"}"#, "PRIVATE_USERS", "privateUsers"),
        ("COPY_RESOLV_CONF=1", r#"{"resolvConf": "off"}"#, "COPY_RESOLV_CONF", "resolvConf"),
        ("INTERFACES=eth1", r#"{"interfaces": ["eth1:lan"]}"#, "INTERFACES", "interfaces about eth1"),
        ("MACVLANS=eth1:a", r#"{"macvlans": ["eth1:b"]}"#, "MACVLANS", "macvlans about eth1"),
        (
            "HOST_PORT=80:80",
            r#"{"forwardPorts": [{"hostPort": 80, "containerPort": 81}]}"#,
            "HOST_PORT",
            "forwardPorts about port 80",
        ),
    ] {
        let sentence = merged(&format!("AUTO_START=1\n{conf}\n"), json).expect_err(conf);
        assert_eq!(
            sentence,
            format!("{CONF}:2: {conf_key} contradicts {FILE}: {json_key}; make them agree, or remove one")
        );
    }
}
