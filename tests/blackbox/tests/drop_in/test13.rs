//! The cases of systemd's own TEST-13-NSPAWN that the rest of the suite does not have.

use blackbox::compare::{Case, Known, compare, only_ours, ours, theirs};
use blackbox::{Host, on_host};

use super::known::SHIFTED;
use super::{REPORT, SCRIPT};

/// Where the container's group is, on a host without systemd.
const GROUP: &str = "nixrun's groups are below one of its own, outside of a unit";
const GROUPS: &[Known] = &[
    ours("mounts", "/sys/fs/cgroup/nixrun-host-", GROUP),
    theirs("mounts", "/sys/fs/cgroup/nixrun-host-", GROUP),
    ours("identity", "cgroup ", GROUP),
    theirs("identity", "cgroup ", GROUP),
    ours("identity", "0::/nixrun-host-", GROUP),
    theirs("identity", "0::/nixrun-host-", GROUP),
];

const IN_FILE: &[Known] = &[
    ours("mounts", "/foo ro,nosuid,nodev tmpfs", "from the container's own /run; v252 takes the host's"),
    theirs("mounts", "/foo ro,relatime tmpfs", "from the container's own /run; v252 takes the host's"),
    ours("links", "renamed2 ", "v252 moves a link by its name alone"),
    theirs("links", "wire2 ", "v252 moves a link by its name alone"),
];

/// An init that tells what it sees, for `--boot`.
const INIT: &str = "mkdir -p $ROOT/sbin; printf '#!/probe/bash\\nexec /probe/bash /probe/report\\n' > $ROOT/sbin/init; chmod 755 $ROOT/sbin/init";

/// One file with nearly every key there is.
const SETTINGS: &str = r#"mkdir -p /run/systemd/nspawn $DIR/bound $DIR/lower $DIR/upper $ROOT/foo $ROOT/etc
    echo bound > $DIR/bound/file; echo lower > $DIR/lower/file; echo upper > $DIR/upper/other
    echo 192.0.2.7 > $ROOT/etc/resolv.conf; echo t > $ROOT/etc/localtime
    for link in wire1 wire2 wire3; do ip link show $link > /dev/null 2>&1 || ip link add $link type veth peer name far$link
        echo I:1 > /run/udev/data/n$(cat /sys/class/net/$link/ifindex); done
    ip link property add dev wire2 altname a-name-that-is-longer-than-any-other-name 2>/dev/null || true
    cat > /run/systemd/nspawn/t.nspawn << END
[Exec]
Boot=no
Ephemeral=no
ProcessTwo=no
Parameters=/probe/bash /probe/report "foo bar" 'bar baz'
Environment=FOO=bar
Environment="LONG_VAR=hello world"
WorkingDirectory=/tmp
Capability=CAP_BLOCK_SUSPEND CAP_BPF CAP_CHOWN
DropCapability=CAP_AUDIT_CONTROL CAP_AUDIT_WRITE
AmbientCapability=CAP_BPF CAP_CHOWN
NoNewPrivileges=no
MachineID=f28f129b51874b1280a89421ec4b4ad4
PrivateUsers=no
NotifyReady=no
SystemCallFilter=@keyring
SystemCallFilter=~ @clock
LimitNOFILE=900:1900
LimitRTPRIO=0:0
LimitCORE=infinity
OOMScoreAdjust=32
CPUAffinity=0,0-1
Hostname=nspawn-settings
ResolvConf=copy-host
Timezone=delete
LinkJournal=no
SuppressSync=no
[Files]
ReadOnly=no
Volatile=no
TemporaryFileSystem=/tmpfs
TemporaryFileSystem=/small:size=64k
Inaccessible=/foo
Bind=$DIR/bound
Bind=$DIR/bound:/renamed:norbind
BindReadOnly=$DIR/bound:/read-only
Overlay=$DIR/lower:$DIR/upper:/overlay
OverlayReadOnly=$DIR/lower:$DIR/upper:/overlay-ro
PrivateUsersOwnership=auto
[Network]
Private=yes
VirtualEthernet=yes
VirtualEthernetExtra=my-fancy-veth1
VirtualEthernetExtra=fancy-veth2:my-fancy-veth2
Interface=wire1
Interface=wire2:renamed2
MACVLAN=wire3
Zone=sd-zone0
Port=80
Port=81:8181
Port=tcp:60
Port=udp:60:61
END"#;

/// /sys of the test's host, and udev as it is when it is done with every link.
fn with_links(host: &Host<'_>) {
    host.sh("mkdir /run/cgroup; mount --rbind /sys/fs/cgroup /run/cgroup; mount -t sysfs sysfs /sys
         mount --rbind /run/cgroup /sys/fs/cgroup; umount -l /run/cgroup; rmdir /run/cgroup
         mkdir -p /run/udev/data /run/systemd/inaccessible/dir; touch /run/udev/control; chmod 0 /run/systemd/inaccessible/dir");
}

#[test]
fn nspawn_settings() {
    on_host(|host| {
        with_links(host);
        compare(
            host,
            &[Case {
                name: "one file with nearly every key",
                options: "--settings=override",
                before: SETTINGS,
                inside: "$B tr '\\0' '|' < /proc/$$/cmdline; echo \"$FOO|$LONG_VAR\"; $B cat /etc/resolv.conf /renamed/file /read-only/file /overlay/*
                    $B ls -d /etc/localtime; (: > /overlay-ro/x) 2>/dev/null || echo read-only; echo w > /overlay/w",
                after: "cat $DIR/upper/w; ip -o link show wire1 | grep -c wire1; ip link show vz-sd-zone0 2>/dev/null | wc -l",
                known: IN_FILE,
                ..REPORT
            }],
        );
    });
}

#[test]
fn notification_socket() {
    // The real libraries, for a program that can send.
    const SEND: &str = r#"/usr/bin/perl -MSocket -e '
        socket(S, PF_UNIX, SOCK_DGRAM, 0); print send(S, "STATUS=x", 0, sockaddr_un($ENV{NOTIFY_SOCKET})) // $!, "\n"'
        echo $NOTIFY_SOCKET"#;
    const LIBRARIES: &str = "rm -rf $ROOT/usr/bin; for d in lib lib64 bin; do ln -s usr/$d $ROOT/$d; done";
    on_host(|host| {
        let case = |options| Case { name: "a datagram", options, before: LIBRARIES, inside: SEND, ..SCRIPT };
        compare(
            host,
            &["--bind-ro=/usr", "--bind-ro=/usr -U", "--bind-ro=/usr --private-network -U"].map(case),
        );
    });
}

#[test]
fn os_release() {
    const SHOW: &str = "$B cat /run/host/os-release; $B tr '\\0' '\\n' < /proc/self/environ | $B grep ^container_host_ | $B sort
        (: >> /run/host/os-release) 2>/dev/null || echo read-only";
    on_host(|host| {
        // A host whose two files are its own.
        host.sh("cp -a /etc /run/etc; mount --bind /run/etc /etc; cp /usr/lib/os-release /run/os-release
             mount --bind /run/os-release /usr/lib/os-release; rm -f /etc/os-release
             printf 'ID=lib\\nVERSION_ID=1\\n' > /usr/lib/os-release");
        compare(
            host,
            &[
                Case { name: "/usr/lib alone", inside: SHOW, ..SCRIPT },
                Case { name: "-U", options: "-U", inside: SHOW, ..SCRIPT },
                Case {
                    name: "/etc wins",
                    before: "printf 'ID=etc\\nVERSION_ID=\"2\"\\nBUILD_ID=b\\nVARIANT_ID=v\\nNAME=x y\\n' > /etc/os-release",
                    inside: SHOW,
                    ..SCRIPT
                },
                Case {
                    name: "a link that leads nowhere",
                    before: "ln -sf nowhere /etc/os-release",
                    inside: SHOW,
                    ..SCRIPT
                },
            ],
        );
    });
}

#[test]
fn check_os_release() {
    on_host(|host| {
        let booted = |name, options, before: &'static str, env| Case { name, options, before, env, ..SCRIPT };
        let none: &'static str = Box::leak(format!("{INIT}\nrm -f $ROOT/etc/os-release").into_boxed_str());
        let file: &'static str =
            Box::leak(format!("{INIT}\necho ID=test > $ROOT/etc/os-release").into_boxed_str());
        let link: &'static str = Box::leak(
            format!("{INIT}\nmkdir -p $ROOT/usr/lib; echo ID=x > $ROOT/usr/lib/os-release; ln -s /usr/lib/os-release $ROOT/etc/os-release")
                .into_boxed_str(),
        );
        let dangling: &'static str =
            Box::leak(format!("{INIT}\nln -s nowhere $ROOT/etc/os-release").into_boxed_str());
        let off: &[(&str, &str)] = &[("SYSTEMD_NSPAWN_CHECK_OS_RELEASE", "0")];
        compare(
            host,
            &[
                booted("no os-release", "--boot", none, &[]),
                booted("a file", "--boot", file, &[]),
                booted("a link", "--boot", link, &[]),
                booted("a link that leads nowhere", "--boot", dangling, &[]),
            ],
        );
        // The variable is v256's.
        for before in [none, dangling] {
            let ours = only_ours(
                host,
                &Case { env: off, inside: "echo booted", ..booted("", "--boot", before, &[]) },
            );
            assert_eq!((ours.code, ours.out.contains("booted")), (Some(0), true), "{}{}", ours.out, ours.err);
        }
    });
}

#[test]
fn ephemeral_config() {
    const FILE: &str = "mkdir -p /run/systemd/nspawn; rm -f /run/systemd/nspawn/*.nspawn; mkdir -p $DIR/x; echo config > $DIR/x/file
        printf \"[Files]\\nBindReadOnly=$DIR/x:/from-the-file\\n\" > /run/systemd/nspawn/t.nspawn";
    on_host(|host| {
        let case = |name, options| Case {
            name,
            options,
            before: FILE,
            inside: "$B cat /from-the-file/file || echo none",
            ..SCRIPT
        };
        compare(
            host,
            &[
                case("by the directory's name", "--ephemeral UNNAMED"),
                case("by the machine's name", "--ephemeral -M t"),
                case("another machine", "--ephemeral -M foobar"),
                case("another machine, not ephemeral", "-M foobar"),
            ],
        );
    });
}

#[test]
fn matrix() {
    const NETNS: &str = "ip netns del other 2>/dev/null || true; ip netns add other";
    on_host(|host| {
        let (mut cases, mut with_users) = (Vec::new(), Vec::new());
        for cgns in ["1", "0"] {
            for api in ["yes", "no", "network"] {
                let env: &'static [(&str, &str)] = Box::leak(Box::new([
                    ("SYSTEMD_NSPAWN_USE_CGNS", cgns),
                    ("SYSTEMD_NSPAWN_API_VFS_WRITABLE", api),
                ]));
                let name: &'static str =
                    Box::leak(format!("USE_CGNS={cgns} API_VFS_WRITABLE={api}").into_boxed_str());
                let groups = if cgns == "0" { GROUPS } else { &[] };
                for options in ["", "--private-network"] {
                    cases.push(Case { name, options, env, known: groups, ..REPORT });
                }
                let options = "--private-users=655360 --private-users-ownership=map --private-network";
                let known: &[Known] = match (cgns, api) {
                    // Refused.
                    (_, "yes") => &[],
                    ("0", _) => Box::leak([SHIFTED, GROUPS].concat().into_boxed_slice()),
                    _ => SHIFTED,
                };
                with_users.push(Case { name, options, env, known, ..REPORT });
            }
        }
        // Last, because systemd-nspawn leaves the group behind that it has given to the container's ids.
        cases.extend(with_users);
        compare(host, &cases);
    });
    on_host(|host| {
        let joined = |options| Case { name: "a network namespace", options, before: NETNS, ..SCRIPT };
        compare(
            host,
            &[
                "--network-namespace-path=/run/netns/other --network-interface=lo",
                "--network-namespace-path=/run/netns/other --network-macvlan=lo",
                "--network-namespace-path=/run/netns/other --network-ipvlan=lo",
                "--network-namespace-path=/run/netns/other --network-veth-extra=lo",
                "--network-namespace-path=/run/netns/other --network-veth",
                "--network-namespace-path=/run/netns/other --network-bridge=lo",
                "--network-namespace-path=/run/netns/other --network-zone=zone",
            ]
            .map(joined),
        );
        compare(
            host,
            &[Case {
                name: "joined, with an option that it may have",
                options: "--network-namespace-path=/run/netns/other --private-network",
                before: NETNS,
                inside: "$B ip -o link show dev lo",
                ..REPORT
            }],
        );
    });
}

#[test]
fn bind_mounts() {
    on_host(|host| {
        compare(
            host,
            &[
                Case {
                    name: "of what lies in the host's /tmp",
                    options: "--bind=/tmp/bind-tmp-path",
                    before: "rm -rf /tmp/bind-tmp-path; echo x > /tmp/bind-tmp-path",
                    inside: "$B cat /tmp/bind-tmp-path",
                    after: "rm /tmp/bind-tmp-path",
                    ..SCRIPT
                },
                Case {
                    name: "not recursive",
                    options: "--bind=DIR/one:/m:norbind",
                    before: "mkdir -p $DIR/one/two; echo inner > $DIR/one/two/file; mount -t tmpfs t $DIR/one/two; echo outer > $DIR/one/two/file",
                    inside: "$B cat /m/two/file",
                    after: "umount $DIR/one/two; cat $DIR/one/two/file",
                    ..SCRIPT
                },
                Case {
                    name: "by the owner of the root",
                    options: "-U --private-users-ownership=map --bind=DIR/own:/m:rootidmap",
                    before: "mkdir -p $DIR/own; echo x > $DIR/own/file; chown -R 1000:1000 $DIR/own; chown 1001 $DIR/own/file",
                    inside: "$B stat -c '%n %u:%g' /m /m/file; : > /m/new && $B stat -c '%u:%g' /m/new",
                    after: "stat -c '%n %u:%g' $DIR/own/new",
                    ..SCRIPT
                },
                Case {
                    name: "an overlay with ids of the container's own",
                    options: "-U --private-network --overlay=DIR/lower:DIR/upper:/m --overlay-ro=+/usr:DIR/lower:/n",
                    before: "mkdir -p $DIR/lower $DIR/upper; echo l > $DIR/lower/l; echo u > $DIR/upper/u",
                    inside: "$B cat /m/l /m/u /n/l; (: > /n/x) 2>/dev/null || echo read-only",
                    ..SCRIPT
                },
            ],
        );
    });
}

#[test]
fn what_root_is_booted() {
    on_host(|host| {
        compare(
            host,
            &[
                Case {
                    name: "an init of the root's own",
                    options: "--boot",
                    before: INIT,
                    inside: "echo $$; $B tr '\\0' ' ' < /proc/1/cmdline",
                    ..SCRIPT
                },
                Case {
                    name: "by a template, which is there for the first run alone",
                    options: "--template=ROOT -D DIR/copy",
                    before: "mkdir -p $ROOT/etc/deep; echo x > $ROOT/etc/deep/x; chmod 700 $ROOT/etc/deep; ln -s x $ROOT/etc/deep/y",
                    inside: "$B stat -c '%a %F' /etc/deep /etc/deep/y; $B cat /etc/deep/y",
                    after: "cat $DIR/copy/etc/deep/x",
                    ..SCRIPT
                },
                Case {
                    name: "a template for a directory that is there",
                    options: "--template=ROOT -D DIR/copy",
                    before: "echo template > $ROOT/etc/which; cp -a $ROOT $DIR/copy; echo old > $DIR/copy/etc/which",
                    inside: "$B cat /etc/which",
                    after: "cat $DIR/copy/etc/which",
                    ..SCRIPT
                },
                Case {
                    name: "read-only and forgetful at once",
                    options: "--ephemeral --read-only",
                    before: "mkdir $ROOT/proc $ROOT/sys $ROOT/dev $ROOT/run $ROOT/tmp",
                    inside: "(: > /x) 2>/dev/null || echo read-only",
                    ..SCRIPT
                },
            ],
        );
    });
}
