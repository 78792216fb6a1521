//! Plans from made-up facts: no kernel, no root.

use std::net::IpAddr;

use netsetup::{
    AddressFact, BoundTo, Error, ErrorKind, ExtraVeth, Forward, GROUP_MASQUERADE, LinkFact, MoveFact,
    MovedLink, Nat, NetFacts, NetworkConfig, NetworkPlan, PortFact, Protocol, Resource, SubLink, Veth,
    resources_for,
};

fn config() -> NetworkConfig {
    NetworkConfig {
        veth: Some(Veth {
            container_link: "eth0".into(),
            bridge: None,
            make_bridge: false,
            up: true,
            container_mac: None,
            host_address: Some([10, 233, 1, 1].into()),
            host_address6: Some("fc00::1".parse().unwrap()),
            local_address: Some("10.233.1.2/32".parse().unwrap()),
            local_address6: Some("fc00::2/128".parse().unwrap()),
        }),
        forwards: vec![forward(8080)],
        ..NetworkConfig::new("nextcloud")
    }
}

fn veth(config: &mut NetworkConfig) -> &mut Veth {
    config.veth.as_mut().unwrap()
}

fn forward(host_port: u16) -> Forward {
    Forward { protocol: Protocol::Tcp, host_address: None, host_port, container_port: 80 }
}

fn link(name: &str, kind: &str, alias: Option<&str>) -> LinkFact {
    LinkFact {
        index: 7,
        name: name.into(),
        kind: Some(kind.into()),
        alias: alias.map(Into::into),
        ..LinkFact::default()
    }
}

fn bridge_facts() -> NetFacts {
    NetFacts { links: vec![("br0".into(), link("br0", "bridge", None))], ..NetFacts::default() }
}

#[track_caller]
fn plan(config: &NetworkConfig, facts: &NetFacts) -> NetworkPlan {
    NetworkPlan::new(config, facts).unwrap_or_else(|error| panic!("{error}"))
}

/// The sentence of the error that stops the plan.
#[track_caller]
fn refused(config: &NetworkConfig, facts: &NetFacts) -> String {
    NetworkPlan::new(config, facts).expect_err("a plan that cannot be").to_string()
}

#[test]
fn prints_as_a_tree() {
    let facts = NetFacts { machine_id: Some([7; 16]), ..NetFacts::default() };
    let expected = "\
network
  host end ve-nextcloud
    mac 02:16:18:ae:d4:c3, group 1852405761, alias nixrun:nextcloud
    address 10.233.1.1/32
    address fc00::1/128
    address fe80::16:18ff:feae:d4c3/64
    route to 10.233.1.2
    route to fc00::2
  container end eth0
    mac 1e:0a:17:ec:0a:b3
    address 10.233.1.2/32
    address fc00::2/128
    address fe80::1c0a:17ff:feec:ab3/64
    route to 10.233.1.1
    route to fc00::1
    default route via 10.233.1.1
    default route via fc00::1
  nat: private sources, on every way out
  nftables: table inet nixrun
    tcp 8080 -> 10.233.1.2:80
    tcp 8080 -> [fc00::2]:80
    masquerade forwarded connections from ve-nextcloud back to it
  forwards by a program, which the kernel cannot make
    tcp [::1]:8080 -> port 80 of the container, by a relay
";
    assert_eq!(plan(&config(), &facts).to_string(), expected);
}

#[test]
fn bridge_has_the_host_address_and_translates_itself() {
    let mut config = config();
    veth(&mut config).bridge = Some("br0".into());
    veth(&mut config).local_address = Some("10.233.1.2/24".parse().unwrap());
    let plan = plan(&config, &bridge_facts());
    let veth = plan.veth.as_ref().unwrap();
    assert_eq!(
        (veth.host.name.as_str(), veth.host.bridge.as_ref().unwrap().index),
        ("vb-nextcloud", Some(7))
    );
    assert!(veth.host.addresses.is_empty() && veth.host.routes.is_empty() && !veth.host.route_localnet);
    assert_eq!(veth.container.gateways, ["10.233.1.1", "fc00::1"].map(|a| a.parse::<IpAddr>().unwrap()));
    assert!(plan.to_string().contains("nat: none"));
    assert!(plan.to_string().contains("connections from 127.0.0.0/8 to br0"), "{plan}");
}

#[test]
fn host_forwards_only_what_needs_it() {
    let mut config = config();
    assert_eq!(plan(&config, &NetFacts::default()).veth.unwrap().host.group, GROUP_MASQUERADE);
    config.nat = Nat::No;
    let with_forward = plan(&config, &NetFacts::default());
    assert!(with_forward.forwarding.ipv4 && with_forward.forwarding.ipv6);
    config.forwards[0].host_address = Some("192.0.2.1".parse().unwrap());
    let ipv4_only = plan(&config, &NetFacts::default());
    assert!(ipv4_only.forwarding.ipv4 && !ipv4_only.forwarding.ipv6);
    assert!(!ipv4_only.veth.as_ref().unwrap().host.route_localnet);
    config.forwards.clear();
    let none = plan(&config, &NetFacts::default());
    assert!(!none.forwarding.ipv4 && !none.forwarding.ipv6 && none.elements.is_empty());
}

#[test]
fn journal_names_what_is_made() {
    let resources = plan(&config(), &NetFacts::default()).resources();
    assert_eq!(resources.len(), 2);
    assert!(resources.iter().all(|resource| resources_for("nextcloud").contains(resource)));
    let json = serde_json::to_string(&resources).unwrap();
    assert_eq!(json, r#"[{"link":{"name":"ve-nextcloud"}},{"registration":{"container":"nextcloud"}}]"#);
    assert_eq!(serde_json::from_str::<Vec<Resource>>(&json).unwrap(), resources);
}

#[test]
fn contradictions_are_refused() {
    let no_facts = NetFacts::default();
    type Change = fn(&mut NetworkConfig);
    let cases: [(Change, &str); 14] = [
        (|c| c.container = "../etc".into(), "begin with a letter or digit"),
        (|c| c.container = "x".repeat(65), "1 to 64 letters"),
        (|c| c.veth = None, "port 8080 cannot be forwarded without a veth pair"),
        (|c| veth(c).container_link = "a-name-that-is-too-long".into(), "a link's name has 1 to 15 bytes"),
        (|c| veth(c).container_link = "lo".into(), "the link in the container cannot be called \"lo\""),
        (|c| veth(c).bridge = Some("br/0".into()), "the bridge cannot be called \"br/0\""),
        (|c| veth(c).container_mac = Some([1, 0, 0, 0, 0, 1]), "must be a unicast address"),
        (|c| veth(c).host_address = Some([10, 233, 1, 2].into()), "10.233.1.2 is given to both ends"),
        (
            |c| veth(c).host_address6 = Some("ff02::1".parse().unwrap()),
            "ff02::1 cannot be the address of a link",
        ),
        (|c| c.forwards.push(forward(8080)), "port 8080 (tcp) is forwarded twice"),
        (|c| c.forwards[0].container_port = 0, "port 0 cannot be forwarded"),
        (
            |c| {
                c.forwards[0].protocol = Protocol::Sctp;
                c.forwards[0].host_address = Some("::1".parse().unwrap());
            },
            "use 127.0.0.1",
        ),
        (
            |c| {
                veth(c).local_address6 = None;
                c.forwards[0].host_address = Some("2001:db8::1".parse().unwrap());
            },
            "no address of that family to forward to",
        ),
        (
            |c| {
                veth(c).bridge = Some("br0".into());
                c.nat = Nat::Interface("eth0".into());
            },
            "nat = eth0 cannot work through the bridge br0",
        ),
    ];
    for (change, words) in cases {
        let mut config = config();
        change(&mut config);
        let sentence = refused(&config, &no_facts);
        assert!(sentence.starts_with("network of container ") && sentence.contains(words), "{sentence}");
    }
}

#[test]
fn what_others_have_is_refused() {
    let mut facts = NetFacts::default();
    facts.addresses.push(AddressFact {
        address: "10.233.1.2".parse().unwrap(),
        claimed_by: Some("mail".into()),
        bound_to: None,
    });
    assert_eq!(
        refused(&config(), &facts),
        "network of container nextcloud: address 10.233.1.2 is already held by container mail; choose another \
         address, or stop mail (`nixrun reclaim mail` if it crashed)"
    );
    // Its own claim is left from a crash.
    facts.addresses[0].claimed_by = Some("nextcloud".into());
    plan(&config(), &facts);
    facts.addresses[0].bound_to = Some(BoundTo { link: link("eth0", "bond", None), local: true });
    assert_eq!(
        refused(&config(), &facts),
        "network of container nextcloud: address 10.233.1.2 is already held by link eth0; choose another address, \
         or remove it from eth0"
    );
    let mut facts = NetFacts::default();
    facts.ports.push(PortFact {
        forward: forward(8080),
        claimed_by: None,
        listeners: vec![[0, 0, 0, 0].into()],
    });
    let error = NetworkPlan::new(&config(), &facts).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        "network of container nextcloud: port 8080 (tcp) of the host is already used by a program on the host that \
         listens on 0.0.0.0; choose another port, or stop that program"
    );
    let foreign = ("ve-nextcloud".to_owned(), link("ve-nextcloud", "veth", None));
    let facts = NetFacts { host_links: vec![foreign], ..NetFacts::default() };
    assert!(
        refused(&config(), &facts).contains("the name ve-nextcloud is already taken by link ve-nextcloud")
    );
}

#[test]
fn host_address_may_be_shared_among_containers_only() {
    let bound = |link| AddressFact {
        address: "10.233.1.1".parse().unwrap(),
        claimed_by: None,
        bound_to: Some(BoundTo { link, local: true }),
    };
    let shared = |link| NetFacts { addresses: vec![bound(link)], ..NetFacts::default() };
    let ours = LinkFact { group: GROUP_MASQUERADE, ..link("ve-mail", "veth", Some("nixrun:mail")) };
    plan(&config(), &shared(ours));
    plan(&config(), &shared(link("ve-old", "veth", None)));
    assert!(refused(&config(), &shared(link("eth0", "veth", None))).contains("held by link eth0"));
}

#[test]
fn missing_links_are_refused() {
    let mut config = config();
    config.nat = Nat::Interface("wan0".into());
    let error = NetworkPlan::new(&config, &NetFacts::default()).unwrap_err();
    assert!(matches!(error, Error::NoSuchLink { .. }));
    assert!(error.to_string().contains("the NAT interface wan0 does not exist"), "{error}");
    config.nat = Nat::Auto;
    veth(&mut config).bridge = Some("br0".into());
    assert!(
        refused(&config, &NetFacts::default()).contains("the bridge br0 does not exist; create it first")
    );
    let bond = NetFacts { links: vec![("br0".into(), link("br0", "bond", None))], ..NetFacts::default() };
    assert!(refused(&config, &bond).contains("the bridge br0 is a link of another kind"));
    plan(&config, &bridge_facts());
}

/// One of every kind of link beyond the main pair.
fn with_links() -> (NetworkConfig, NetFacts) {
    let extra = ExtraVeth {
        host_link: "veth1".into(),
        container_link: "lan0".into(),
        bridge: None,
        up: true,
        host_address: Some([192, 168, 7, 1].into()),
        host_address6: None,
        local_address: Some("192.168.7.2/32".parse().unwrap()),
        local_address6: None,
    };
    let moved = MovedLink { host_link: "eth1".into(), container_link: Some("wan0".into()) };
    let on = |parent: &str| SubLink { parent: parent.into(), container_link: None };
    let config = NetworkConfig {
        extra_veths: vec![extra],
        interfaces: vec![moved],
        macvlans: vec![on("a-long-named-if")],
        ipvlans: vec![on("eth3")],
        forwards: Vec::new(),
        ..config()
    };
    let links = ["a-long-named-if", "eth3"].map(|name| (name.to_owned(), link(name, "veth", None)));
    let eth1 = LinkFact { index: 9, altnames: vec!["port1".into()], ..link("eth1", "veth", None) };
    let moved = vec![MoveFact { name: "eth1".into(), link: Some(eth1), ..MoveFact::default() }];
    (config, NetFacts { links: links.into(), moved, machine_id: Some([7; 16]), ..NetFacts::default() })
}

#[test]
fn further_links_print_as_a_tree() {
    let (mut config, facts) = with_links();
    config.veth = None;
    let expected = "\
network
  host end veth1
    mac be:9a:ae:7e:35:01, group 1852405760, alias nixrun:nextcloud
    address 192.168.7.1/32
    route to 192.168.7.2
  container end lan0
    mac b6:16:67:19:a0:da
    address 192.168.7.2/32
    route to 192.168.7.1
  eth1 moves in, and back at the end; inside it is wan0
  MACVLAN mv-a-long-n2Gpt on a-long-named-if
    alternative name mv-a-long-named-if
    mac 42:09:b9:f0:e1:3a
  IPVLAN iv-eth3 on eth3
";
    assert_eq!(plan(&config, &facts).to_string(), expected);
    assert_eq!(
        serde_json::to_string(&plan(&config, &facts).resources()).unwrap(),
        r#"[{"link":{"name":"veth1"}},{"registration":{"container":"nextcloud"}}]"#
    );
}

#[test]
fn links_that_contradict_each_other_are_refused() {
    type Change = fn(&mut NetworkConfig, &mut NetFacts);
    let cases: [(Change, &str); 17] = [
        (
            |c, _| c.extra_veths[0].host_link = "a-name-that-is-too-long".into(),
            "the link on the host cannot be called",
        ),
        (
            |c, _| c.extra_veths[0].host_link = "ve-nextcloud".into(),
            "two links of the host would be called ve-nextcloud",
        ),
        (
            |c, _| c.extra_veths[0].container_link = "eth0".into(),
            "two links in the container would be called eth0",
        ),
        (
            |c, _| c.extra_veths[0].container_link = "iv-eth3".into(),
            "two links in the container would be called iv-eth3",
        ),
        (
            |c, _| c.extra_veths[0].local_address = veth(c).local_address,
            "10.233.1.2 is given to two veth pairs",
        ),
        (
            |c, _| c.extra_veths[0].up = false,
            "192.168.7.1 cannot be set, because the pair of lan0 stays down",
        ),
        (
            |c, _| c.extra_veths[0].bridge = Some("br9".into()),
            "the bridge br9 does not exist; create it first",
        ),
        (|c, _| veth(c).make_bridge = true, "a zone needs a name for its bridge"),
        (|c, _| c.interfaces[0].host_link = "lo".into(), "the loopback link lo stays where it is"),
        (|c, _| c.interfaces[0].host_link = String::new(), "no link of the host can be called \"\""),
        (|c, _| c.interfaces.push(c.interfaces[0].clone()), "two links of the host would be called eth1"),
        (
            |c, _| c.extra_veths[0].container_link = "port1".into(),
            "would answer to port1, which is an alternative name",
        ),
        (|_, f| f.moved[0].link = None, "the interface eth1 does not exist on the host"),
        (
            |_, f| f.moved[0].claimed_by = Some("mail".into()),
            "the interface eth1 has moved into container mail",
        ),
        (|_, f| f.moved[0].wireless = true, "the interface eth1 is a Wi-Fi link"),
        (|_, f| drop(f.links.remove(0)), "the parent interface a-long-named-if does not exist on the host"),
        (|_, f| f.links[1].1.index = 9, "the parent interface eth3 moves into the container"),
    ];
    for (change, words) in cases {
        let (mut config, mut facts) = with_links();
        plan(&config, &facts);
        change(&mut config, &mut facts);
        let sentence = refused(&config, &facts);
        assert!(sentence.starts_with("network of container ") && sentence.contains(words), "{sentence}");
    }
}

#[test]
fn a_link_that_a_crash_left_inside_is_expected_back() {
    let (config, mut facts) = with_links();
    (facts.moved[0].link, facts.moved[0].claimed_by) = (None, Some("nextcloud".into()));
    plan(&config, &facts);
}

#[test]
fn a_bridge_is_known_by_its_alternative_name() {
    let mut config = config();
    veth(&mut config).bridge = Some("lan-bridge".into());
    let facts =
        NetFacts { links: vec![("lan-bridge".into(), link("br0", "bridge", None))], ..NetFacts::default() };
    let plan = plan(&config, &facts).to_string();
    assert!(plan.contains("on bridge br0") && plan.contains("connections from 127.0.0.0/8 to br0"), "{plan}");
}
