//! What is written about a new container: the text of `/etc/nixos-containers/NAME.conf`, key for key as nixpkgs'
//! `nixos-container create` writes it, so that each of the two programs reads the other's.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use netsetup::Forward;

use crate::env_file;
use crate::ops::{Error, Result};

/// The network of a new container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// Whether it is the container's own.
    pub(super) private: bool,
    pub(super) bridge: Option<String>,
    pub(super) ports: Vec<Forward>,
    pub(super) host_address: Option<Ipv4Addr>,
    pub(super) local_address: Option<Ipv4Net>,
    pub(super) host_address6: Option<Ipv6Addr>,
    pub(super) local_address6: Option<Ipv6Net>,
}

/// The text of the file.
pub(super) fn text(network: &Network, auto_start: bool, flake: Option<&str>) -> Result<String> {
    let local = network.local_address.map(|net| without_whole(net.to_string(), "/32"));
    let local6 = network.local_address6.map(|net| without_whole(net.to_string(), "/128"));
    let digit = |yes: bool| if yes { "1" } else { "0" }.to_owned();
    // Keys of the first kind are always there, be they empty.
    let lines = [
        ("PRIVATE_NETWORK", Some(digit(network.private))),
        ("HOST_ADDRESS", Some(shown(network.host_address.as_ref()))),
        ("LOCAL_ADDRESS", Some(local.unwrap_or_default())),
        ("HOST_ADDRESS6", network.host_address6.map(|address| address.to_string())),
        ("LOCAL_ADDRESS6", local6),
        ("HOST_BRIDGE", Some(network.bridge.clone().unwrap_or_default())),
        ("HOST_PORT", Some(network.ports.iter().map(port).collect::<Vec<_>>().join(","))),
        ("AUTO_START", Some(digit(auto_start))),
        ("FLAKE", flake.map(str::to_owned)),
    ];
    let mut text = String::new();
    for (key, value) in lines {
        let Some(value) = value else { continue };
        let line = format!("{key}={value}\n");
        // Nobody quotes here: the other program takes what stands behind the equals sign as it is.
        if env_file::parse(&line).first().is_none_or(|read| read.value != value) {
            return Err(Error::Other(format!(
                "cannot keep {key}={value:?} in the container's settings: quotes, backslashes, line ends and blanks at \
                 the end have no place there"
            )));
        }
        text += &line;
    }
    Ok(text)
}

fn shown(address: Option<&Ipv4Addr>) -> String {
    address.map(Ipv4Addr::to_string).unwrap_or_default()
}

fn without_whole(net: String, whole: &str) -> String {
    net.strip_suffix(whole).map(str::to_owned).unwrap_or(net)
}

fn port(forward: &Forward) -> String {
    let address = match forward.host_address {
        Some(address) if address.is_ipv6() => format!("[{address}]:"),
        Some(address) => format!("{address}:"),
        None => String::new(),
    };
    format!("{}:{address}{}:{}", forward.protocol, forward.host_port, forward.container_port)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{forward, nixos_conf};

    #[test]
    fn what_is_written_is_what_nixpkgs_writes_and_what_is_read() {
        let mut network = Network {
            private: true,
            host_address: Some([10, 233, 1, 1].into()),
            local_address: Some("10.233.1.2/32".parse().unwrap()),
            ..Network::default()
        };
        assert_eq!(
            text(&network, false, None).unwrap(),
            "PRIVATE_NETWORK=1\nHOST_ADDRESS=10.233.1.1\nLOCAL_ADDRESS=10.233.1.2\nHOST_BRIDGE=\nHOST_PORT=\nAUTO_START=0\n"
        );
        network.bridge = Some("br0".to_owned());
        network.local_address = Some("192.168.7.2/24".parse().unwrap());
        network.local_address6 = Some("fd00::2/128".parse().unwrap());
        network.ports =
            ["8080:80", "udp:53", "tcp:[fd00::1]:1:2"].map(|text| forward::parse(text).unwrap()).into();
        let conf = text(&network, true, Some("github:a/b?ref=c")).unwrap();
        let read = nixos_conf::parse(&conf, Path::new("/x.conf")).unwrap();
        assert_eq!((read.host_port, read.local_address6), (network.ports, network.local_address6));
        assert_eq!((read.host_bridge, read.local_address), (network.bridge, network.local_address));
        assert_eq!((read.flake.as_deref(), read.auto_start), (Some("github:a/b?ref=c"), true));
        assert!(conf.contains("\nLOCAL_ADDRESS6=fd00::2\n"), "{conf}");
    }

    #[test]
    fn what_the_file_cannot_hold_is_refused() {
        for flake in ["a\nAUTO_START=1", "\"a\"", "a\\b", "a "] {
            assert!(text(&Network::default(), false, Some(flake)).is_err(), "{flake:?}");
        }
    }
}
