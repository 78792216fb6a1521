//! The grammar of a forwarded port, shared by `HOST_PORT` and `--port`: systemd-nspawn's
//! `[PROTOCOL:]HOSTPORT[:CONTAINERPORT]`, with the address of the host as an extension in second place.

use std::net::IpAddr;

use netsetup::{Forward, Protocol};

/// What [`parse`] accepts, in words for an error message.
pub const EXPECTED: &str = "[tcp:|udp:|sctp:][HOST-ADDRESS:]HOST-PORT[:CONTAINER-PORT] with ports from 1 to 65535, such as \
                            tcp:8080:80 or tcp:192.0.2.1:8080:80 (an IPv6 address in brackets)";

/// Reads one forward: `8080`, `8080:80`, `udp:53`, `tcp:8080:80`, `tcp:192.0.2.1:8080:80`, `[2001:db8::1]:8080:80`.
/// The protocol is TCP and the container's port is the host's where they are not given.
///
/// # Errors
/// [`EXPECTED`] when the text is none of these.
pub fn parse(text: &str) -> Result<Forward, &'static str> {
    let (protocol, rest) = match text.split_once(':') {
        Some(("tcp", rest)) => (Protocol::Tcp, rest),
        Some(("udp", rest)) => (Protocol::Udp, rest),
        Some(("sctp", rest)) => (Protocol::Sctp, rest),
        _ => (Protocol::Tcp, text),
    };
    let (host_address, ports) = split_address(rest).ok_or(EXPECTED)?;
    let (host, container) = ports.split_once(':').unwrap_or((ports, ports));
    Ok(Forward {
        protocol,
        host_address,
        host_port: port(host).ok_or(EXPECTED)?,
        container_port: port(container).ok_or(EXPECTED)?,
    })
}

/// Splits a leading host address off; `None` when there is one that is no address.
fn split_address(text: &str) -> Option<(Option<IpAddr>, &str)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, ports) = bracketed.split_once("]:")?;
        return Some((Some(IpAddr::V6(address.parse().ok()?)), ports));
    }
    match text.split_once(':') {
        Some((address, ports)) if address.contains('.') => {
            Some((Some(IpAddr::V4(address.parse().ok()?)), ports))
        }
        _ => Some((None, text)),
    }
}

/// Whether a packet could match both: the same port of the host, on the same address or on any.
#[must_use]
pub fn overlap(a: &Forward, b: &Forward) -> bool {
    let addresses = match (a.host_address, b.host_address) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    (a.protocol, a.host_port) == (b.protocol, b.host_port) && addresses
}

/// A port in plain decimal; `u16::from_str` alone would also take `+80`.
fn port(text: &str) -> Option<u16> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(protocol: Protocol, address: Option<&str>, host_port: u16, container_port: u16) -> Forward {
        let host_address = address.map(|a| a.parse().unwrap());
        Forward { protocol, host_address, host_port, container_port }
    }

    #[test]
    fn every_form_is_read() {
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        for (text, expected) in [
            ("8080", forward(tcp, None, 8080, 8080)),
            ("8080:80", forward(tcp, None, 8080, 80)),
            ("udp:53", forward(udp, None, 53, 53)),
            ("sctp:3868", forward(Protocol::Sctp, None, 3868, 3868)),
            ("tcp:65535:1", forward(tcp, None, 65535, 1)),
            ("udp:5353:53", forward(udp, None, 5353, 53)),
            ("tcp:192.0.2.1:8080:80", forward(tcp, Some("192.0.2.1"), 8080, 80)),
            ("192.0.2.1:8080", forward(tcp, Some("192.0.2.1"), 8080, 8080)),
            ("udp:[2001:db8::1]:53:5353", forward(udp, Some("2001:db8::1"), 53, 5353)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn overlapping_forwards_are_told_from_others() {
        let all = parse("tcp:80").unwrap();
        let one = parse("tcp:192.0.2.1:80:81").unwrap();
        assert!(overlap(&all, &one) && overlap(&one, &all) && overlap(&one, &one));
        for text in ["udp:192.0.2.1:80", "tcp:192.0.2.1:81", "tcp:192.0.2.2:80", "tcp:[2001:db8::1]:80"] {
            assert!(!overlap(&one, &parse(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ":",
            "tcp:",
            "tcp",
            "dccp:80",
            "TCP:80",
            "0",
            "80:0",
            "65536",
            "-1",
            "+80",
            " 80",
            "80:",
            ":80",
            "80:80:80",
            "tcp:80:80:80",
            "http",
            "192.0.2.1",
            "192.0.2.300:80",
            "192.0.2.1:",
            "2001:db8::1:80:80",
            "[2001:db8::1]",
            "[192.0.2.1]:80",
            "[2001:db8::1]80",
            "tcp:udp:80",
        ] {
            assert_eq!(parse(text), Err(EXPECTED), "{text:?}");
        }
    }
}
