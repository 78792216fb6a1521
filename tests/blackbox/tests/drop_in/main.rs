//! Every option of systemd-nspawn that nixrun takes in its place: what a program inside sees, under either.
#![forbid(unsafe_code)]

mod known;
mod ports;
mod test13;

use blackbox::compare::{Case, compare};
use blackbox::on_host;

use known::*;

/// Everything is looked at.
const REPORT: Case =
    Case { name: "", options: "", before: "", inside: "", after: "", env: &[], report: true, known: &[] };

/// Only what the scripts print.
const SCRIPT: Case = Case { report: false, ..REPORT };

#[test]
fn identity() {
    on_host(|host| {
        compare(
            host,
            &[
                Case { name: "nothing asked for", ..REPORT },
                Case { name: "names", options: "-M some-name --hostname=inside.example", ..REPORT },
                Case {
                    name: "uuid",
                    options: "--uuid=00112233-4455-6677-8899-aabbccddeeff",
                    inside: "$B cat /run/host/container-uuid; echo $container_uuid",
                    ..SCRIPT
                },
                Case {
                    name: "a machine id of the root's own",
                    options: "--uuid=00112233445566778899aabbccddeeff",
                    before: "echo 0123456789abcdef0123456789abcdef > $ROOT/etc/machine-id",
                    inside: "echo $container_uuid",
                    ..SCRIPT
                },
                Case {
                    name: "variables",
                    options: "--setenv=A=1 -E B_2=x=y --setenv=HOME=/elsewhere -E FROM_CALLER -E NOT_THERE",
                    env: &[("FROM_CALLER", "yes")],
                    inside: "echo $A $B_2 $HOME $FROM_CALLER ${NOT_THERE-unset}",
                    ..REPORT
                },
                Case { name: "working directory", options: "--chdir=/usr/bin", inside: "pwd", ..SCRIPT },
                Case {
                    name: "as pid 2",
                    options: "--as-pid2",
                    inside: "echo $$; $B tr '\\0' ' ' < /proc/1/cmdline; $B cat /proc/1/comm; (exec $B sleep 0.1 &)",
                    known: STUB,
                    ..SCRIPT
                },
                Case { name: "exit status", inside: "exit 7", ..SCRIPT },
                Case { name: "exit status behind a stub", options: "-a", inside: "exit 133", ..SCRIPT },
                Case { name: "killed by a signal", options: "-a", inside: "kill -KILL $$", ..SCRIPT },
            ],
        );
    });
}

#[test]
fn users() {
    // systemd-nspawn asks the container's getent; nixrun reads the files, and asks it for what they do not have.
    const PASSWD: &str = r#"
        printf 'root:x:0:0::/root:/bin/sh\nwho:x:1234:1235::/home/who:/bin/sh\n' > $ROOT/etc/passwd
        printf 'root:x:0:\nwho:x:1235:\nmore:x:77:who\n' > $ROOT/etc/group
        mkdir -p $ROOT/home/who $ROOT/root
        printf '%s\n' '#!/probe/bash' 'case $1 in' 'passwd) /probe/busybox grep "^$2:" /etc/passwd ;;' \
            'initgroups) [ $2 = who ] && echo "who 77" || echo "root 0" ;; esac' > $ROOT/usr/bin/getent
        chmod 755 $ROOT/usr/bin/getent; ln -s usr/bin $ROOT/bin; chmod -R a+rX $ROOT"#;
    on_host(|host| {
        compare(
            host,
            &[
                Case { name: "root by name", options: "--user=root", before: PASSWD, ..REPORT },
                Case {
                    name: "another user",
                    options: "--user=who --chdir=/",
                    before: PASSWD,
                    inside: "$B id; echo $HOME $USER $LOGNAME; pwd",
                    ..SCRIPT
                },
                Case {
                    name: "another user's status",
                    options: "-u who",
                    before: PASSWD,
                    inside: "$B grep -E '^(Cap|Uid|Gid|Groups|NoNew)' /proc/$$/status; pwd",
                    ..SCRIPT
                },
                Case {
                    name: "no new privileges",
                    options: "--no-new-privileges=yes --user=who",
                    before: PASSWD,
                    inside: "$B grep -E '^(Cap|Uid|NoNew|Seccomp:)' /proc/$$/status",
                    ..SCRIPT
                },
            ],
        );
    });
}

#[test]
fn mounts() {
    const TREE: &str = "mkdir -p $DIR/a/sub $DIR/b; echo a > $DIR/a/file; echo b > $DIR/b/file
         mount -t tmpfs sub $DIR/a/sub; echo sub > $DIR/a/sub/file";
    on_host(|host| {
        compare(
            host,
            &[
                Case {
                    name: "bind",
                    options: "--bind=DIR/a:/m --bind-ro=DIR/b --bind=DIR/a/file:/f/file",
                    before: TREE,
                    inside: "$B cat /m/file /m/sub/file $DIRB/file /f/file; : > /m/new && echo written",
                    after: "cat $DIR/a/new; ls -A $ROOT | grep -v probe; umount $DIR/a/sub",
                    known: &[],
                    ..REPORT
                },
                Case {
                    name: "norbind, and options that mean nothing without a user namespace",
                    options: "--bind=DIR/a:/m:norbind --bind-ro=DIR/a:/n:rbind,noidmap",
                    before: TREE,
                    inside: "$B ls /m/sub /n/sub; (: > /n/sub/x) 2>/dev/null || echo read-only",
                    after: "umount $DIR/a/sub",
                    ..REPORT
                },
                Case {
                    name: "escapes and sources in the root",
                    options: "--bind=DIR/a\\:b:/with\\:colon --bind=+/usr/bin:/inside --bind-ro=:/empty",
                    before: "mkdir $DIR/a:b; echo ab > $DIR/a:b/file; echo u > $ROOT/usr/bin/u",
                    inside: "$B cat /with:colon/file /inside/u; $B ls -A /empty; $B stat -c %a /empty",
                    ..SCRIPT
                },
                Case {
                    name: "tmpfs",
                    options: "--tmpfs=/m --tmpfs=/n:size=1m,mode=0700 --tmpfs=/usr/bin:ro",
                    inside: "$B stat -c '%a %u' /m /n; (: > /usr/bin/x) 2>/dev/null || echo read-only",
                    known: TMPFS,
                    ..REPORT
                },
                Case {
                    name: "below /tmp and /run",
                    options: "--bind=DIR/a:/tmp/x/y --tmpfs=/run/z --bind-ro=DIR/b:/run/b",
                    before: TREE,
                    inside: "$B cat /tmp/x/y/file /run/b/file",
                    after: "umount $DIR/a/sub; ls -A $ROOT/tmp",
                    ..REPORT
                },
                Case {
                    name: "overlay",
                    options: "--overlay=DIR/a:DIR/b:/m --overlay-ro=DIR/a:DIR/b:/n --overlay=+/usr::/o",
                    before: "mkdir $DIR/a $DIR/b; echo a > $DIR/a/a; echo b > $DIR/b/b; echo u > $ROOT/usr/u",
                    inside: "$B cat /m/a /m/b /n/a /n/b /o/u; echo w > /m/w; (: > /n/w) 2>/dev/null || echo read-only
                             echo o > /o/o && $B cat /o/o",
                    after: "cat $DIR/b/w; ls -A $ROOT/usr $DIR",
                    ..SCRIPT
                },
                Case {
                    name: "inaccessible",
                    options: "--inaccessible=/usr --inaccessible=/etc/secret",
                    // systemd makes these where it runs; v252 looks for them there.
                    before: "echo s > $ROOT/etc/secret; mkdir -p /run/systemd/inaccessible/dir
                             : > /run/systemd/inaccessible/reg; chmod 0 /run/systemd/inaccessible/*",
                    inside: "$B stat -c '%F %a' /usr /etc/secret; $B ls -A /usr; $B cat /etc/secret",
                    known: INACCESSIBLE,
                    ..REPORT
                },
            ],
        );
    });
}

#[test]
fn roots() {
    on_host(|host| {
        compare(
            host,
            &[
                Case {
                    name: "read-only",
                    options: "--read-only",
                    before: "mkdir $ROOT/proc $ROOT/sys $ROOT/dev $ROOT/run $ROOT/tmp",
                    ..REPORT
                },
                Case {
                    name: "read-only with a writable mount",
                    options: "--read-only --tmpfs=/var",
                    before: "mkdir -p $ROOT/proc $ROOT/sys $ROOT/dev $ROOT/run $ROOT/tmp $ROOT/var",
                    inside: ": > /var/x && echo var; (: > /usr/x) 2>/dev/null || echo usr",
                    ..SCRIPT
                },
                Case {
                    name: "volatile=state",
                    options: "--volatile=state",
                    before: "mkdir -p $ROOT/proc $ROOT/sys $ROOT/dev $ROOT/run $ROOT/tmp $ROOT/var; echo x > $ROOT/var/x",
                    inside: "$B ls -A /var; : > /var/y && echo var; (: > /etc/x) 2>/dev/null || echo etc",
                    known: JOURNAL,
                    after: "ls -A $ROOT/var",
                    ..REPORT
                },
                Case {
                    name: "volatile=overlay",
                    options: "--volatile=overlay",
                    inside: ": > /new && : > /usr/new && echo written",
                    after: "ls -A $ROOT/usr; [ ! -e $ROOT/new ]",
                    ..SCRIPT
                },
                Case {
                    name: "volatile=yes",
                    options: "--volatile=yes --bind-ro=DIR/probe:/probe",
                    before: "echo u > $ROOT/usr/u; echo x > $ROOT/etc/x; cp -r $ROOT/probe $DIR",
                    inside: "$B cat /usr/u; $B ls -A /etc | $B grep x; (: > /usr/x) 2>/dev/null || echo read-only; : > /x && echo root",
                    after: "[ ! -e $ROOT/x ]",
                    ..SCRIPT
                },
                Case {
                    name: "ephemeral",
                    options: "--ephemeral",
                    inside: "echo w > /new; : > /etc/new; $B cat /new",
                    after: "[ ! -e $ROOT/new ] && ls -A $ROOT/etc && ls -A $ROOT/..",
                    ..SCRIPT
                },
                Case {
                    name: "what the kernel's file systems show",
                    env: &[("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes")],
                    ..REPORT
                },
                Case {
                    name: "writable with a network of its own",
                    options: "--private-network",
                    env: &[("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")],
                    ..REPORT
                },
                Case { name: "no tmpfs", env: &[("SYSTEMD_NSPAWN_TMPFS_TMP", "0")], known: TMP, ..REPORT },
                Case {
                    name: "another manager",
                    env: &[("SYSTEMD_NSPAWN_CONTAINER_SERVICE", "someone")],
                    ..REPORT
                },
                Case {
                    name: "shared names",
                    env: &[("SYSTEMD_NSPAWN_SHARE_NS_IPC", "1"), ("SYSTEMD_NSPAWN_SHARE_NS_UTS", "1")],
                    ..REPORT
                },
            ],
        );
    });
}

#[test]
fn links() {
    on_host(|host| {
        // /sys of this host, and udev as it is when it is done with every link.
        host.sh("ip link add br0 type bridge; ip link set br0 up
             mkdir /run/cgroup; mount --rbind /sys/fs/cgroup /run/cgroup; mount -t sysfs sysfs /sys
             mount --rbind /run/cgroup /sys/fs/cgroup; umount -l /run/cgroup; rmdir /run/cgroup
             mkdir -p /run/udev/data; touch /run/udev/control
             echo I:1 > /run/udev/data/n$(cat /sys/class/net/br0/ifindex)");
        compare(
            host,
            &[
                Case { name: "a network of its own", options: "--private-network", ..REPORT },
                Case { name: "veth", options: "--network-veth", ..REPORT },
                Case {
                    name: "on a bridge, by a long name",
                    options: "-n --network-bridge=br0 -M a-really-long-name",
                    ..REPORT
                },
                Case { name: "a zone", options: "--network-zone=lan", ..REPORT },
                Case {
                    name: "further pairs",
                    options: "--network-veth-extra=one:two --network-veth-extra=three",
                    ..REPORT
                },
                Case { name: "macvlan", options: "--network-macvlan=br0", ..REPORT },
                Case {
                    name: "a link that moves in",
                    options: "--network-interface=eth7",
                    before: "ip link show eth7 >/dev/null 2>&1 || ip link add eth7 type veth peer name far7
                             echo I:1 > /run/udev/data/n$(cat /sys/class/net/eth7/ifindex)",
                    after: "ip -o link show eth7 | grep -c eth7",
                    ..REPORT
                },
                Case {
                    name: "a network namespace",
                    options: "--network-namespace-path=/run/netns/other",
                    before: "ip netns del other 2>/dev/null || true; ip netns add other; ip -n other link add in0 address 02:00:00:00:00:07 type bridge",
                    after: "ip netns del other",
                    ..REPORT
                },
                Case {
                    name: "a MAC address",
                    options: "-n",
                    env: &[("SYSTEMD_NSPAWN_NETWORK_MAC", "02:00:00:00:00:17")],
                    known: MAC,
                    ..REPORT
                },
            ],
        );
    });
}

#[test]
fn privileges() {
    on_host(|host| {
        compare(
            host,
            &[
                Case {
                    name: "capabilities",
                    options: "--capability=CAP_SYS_TIME,CAP_SYSLOG --drop-capability=CAP_SYS_ADMIN,CAP_AUDIT_WRITE",
                    ..REPORT
                },
                Case { name: "all capabilities", options: "--capability=all", ..REPORT },
                Case { name: "no capabilities", options: "--drop-capability=all", ..REPORT },
                Case {
                    name: "ambient capabilities",
                    options: "--ambient-capability=CAP_CHOWN,CAP_NET_RAW",
                    ..REPORT
                },
                Case {
                    name: "system calls",
                    options: "--system-call-filter=@keyring --system-call-filter=~sync",
                    ..REPORT
                },
                Case {
                    name: "system calls by group",
                    options: "--system-call-filter=bpf --system-call-filter=~@mount",
                    ..REPORT
                },
                Case {
                    name: "suppressed syncs",
                    options: "--suppress-sync=yes",
                    inside: "$B sync; echo $?",
                    ..REPORT
                },
                Case {
                    name: "limits",
                    options: "--rlimit=NOFILE=1000:2000 --rlimit=CORE=0 --rlimit=STACK=4M:infinity",
                    ..REPORT
                },
                Case { name: "scheduling", options: "--oom-score-adjust=500 --cpu-affinity=0", ..REPORT },
                Case { name: "a 32-bit machine", options: "--personality=x86", ..REPORT },
                Case { name: "no new privileges", options: "--no-new-privileges=yes", ..REPORT },
            ],
        );
    });
}

#[test]
fn files_of_the_host() {
    const ETC: &str = "mkdir -p $ROOT/etc; echo 'nameserver 192.0.2.1' > $ROOT/etc/resolv.conf";
    on_host(|host| {
        let resolv_conf = |options| Case {
            name: "resolv.conf",
            options,
            before: ETC,
            inside: "$B cat /etc/resolv.conf; $B grep -c /etc/resolv.conf /proc/self/mountinfo",
            after: "cat $ROOT/etc/resolv.conf 2>/dev/null || echo none",
            ..SCRIPT
        };
        let modes = [
            "--resolv-conf=off",
            "--resolv-conf=copy-host",
            "--resolv-conf=bind-host",
            "--resolv-conf=replace-host",
            "--resolv-conf=delete",
            "--resolv-conf=auto",
        ];
        compare(host, &modes.map(resolv_conf));
        compare(
            host,
            &[
                Case {
                    name: "resolv.conf by a link that leads out",
                    options: "--resolv-conf=copy-host",
                    before: "ln -s ../../../../../beside/victim $ROOT/etc/resolv.conf; echo v > $DIR/victim",
                    inside: "$B cat /etc/resolv.conf",
                    after: "cat $DIR/victim; [ -L $ROOT/etc/resolv.conf ] && echo link",
                    ..SCRIPT
                },
                Case { name: "time zone left alone", options: "--timezone=off", inside: "$B ls /etc", ..SCRIPT },
                Case {
                    name: "time zone removed",
                    options: "--timezone=delete",
                    before: "echo t > $ROOT/etc/localtime",
                    inside: "$B ls /etc",
                    ..SCRIPT
                },
                Case {
                    name: "credentials",
                    options: "--set-credential=one:a\\x20value --set-credential=two: --load-credential=three:DIR/three",
                    before: "printf 'from a file' > $DIR/three",
                    inside: "$B ls -ln $CREDENTIALS_DIRECTORY | $B awk '{print $1, $3, $4, $5, $9}'; for c in one two three; do echo \"[$($B cat $CREDENTIALS_DIRECTORY/$c)]\"; done
                             $B stat -c '%a %u' $CREDENTIALS_DIRECTORY; (: > $CREDENTIALS_DIRECTORY/new) 2>/dev/null || echo read-only",
                    ..REPORT
                },
                Case {
                    name: "no journal of the host's to link",
                    options: "--link-journal=try-guest",
                    inside: "$B ls -A /var 2>/dev/null",
                    ..SCRIPT
                },
            ],
        );
    });
}

#[test]
fn consoles() {
    on_host(|host| {
        compare(
            host,
            &[
                Case { name: "pipe", options: "--console=pipe", ..REPORT },
                Case {
                    name: "read-only",
                    options: "--console=read-only",
                    inside: "$B stty size; $B tty",
                    known: CONSOLE,
                    ..SCRIPT
                },
                Case {
                    name: "without a terminal",
                    options: "--console=autopipe",
                    inside: "[ -t 0 ] && echo terminal",
                    ..SCRIPT
                },
                Case {
                    name: "-P",
                    options: "-P",
                    inside: "[ -t 1 ] && echo terminal; echo error >&2",
                    ..SCRIPT
                },
            ],
        );
    });
}

#[test]
fn settings_files() {
    const FILE: &str = "mkdir -p /run/systemd/nspawn
         printf '[Exec]\\nEnvironment=A=one B=two\\nWorkingDirectory=/usr\\nCapability=CAP_SYS_TIME\\nHostname=from-file\\nLimitNOFILE=900:1900\\n[Files]\\nTemporaryFileSystem=/m\\nBind=/etc/hostname:/h\\n[Network]\\nPrivate=yes\\n' > /run/systemd/nspawn/t.nspawn";
    const BESIDE: &str = "rm -f /run/systemd/nspawn/t.nspawn
         printf '[Exec]\\nEnvironment=A=beside\\nCapability=CAP_SYS_TIME\\n[Files]\\nBind=/etc/hostname:/h\\n' > $ROOT.nspawn";
    on_host(|host| {
        compare(
            host,
            &[
                Case { name: "trusted", before: FILE, inside: "echo $A $B_ ; pwd; $B cat /h", ..REPORT },
                Case {
                    name: "the command line wins",
                    options: "--settings=yes --setenv=A=line --hostname=line --rlimit=NOFILE=800",
                    before: FILE,
                    inside: "echo $A",
                    ..REPORT
                },
                Case {
                    name: "the file wins",
                    options: "--settings=override --hostname=line --rlimit=NOFILE=800",
                    before: FILE,
                    ..REPORT
                },
                Case { name: "not read", options: "--settings=no", before: FILE, known: NOT_READ, ..REPORT },
                Case {
                    name: "beside the root, not trusted",
                    before: BESIDE,
                    inside: "echo $A; [ -e /h ] || echo 'no bind'",
                    after: "rm $ROOT.nspawn",
                    ..REPORT
                },
                Case {
                    name: "beside the root, trusted",
                    options: "--settings=trusted",
                    before: BESIDE,
                    inside: "echo $A; $B cat /h",
                    after: "rm $ROOT.nspawn",
                    ..REPORT
                },
            ],
        );
    });
}

#[test]
fn user_namespaces() {
    const OWNERS: &str =
        "$B stat -c '%n %u:%g' / /usr /probe /run /dev /dev/pts /dev/console /tmp /run/host/notify";
    const FILES: &str =
        "mkdir $DIR/a; echo a > $DIR/a/root; echo b > $DIR/a/user; chown 1000:1000 $DIR/a/user";
    on_host(|host| {
        compare(
            host,
            &[
                Case {
                    name: "identity",
                    options: "--private-users=identity",
                    inside: OWNERS,
                    known: USERS,
                    ..REPORT
                },
                Case {
                    name: "a range, given to it",
                    options: "--private-users=655360:65536 --private-users-ownership=chown --private-network",
                    inside: OWNERS,
                    known: SHIFTED_CONSOLE,
                    after: "stat -c '%u:%g' $ROOT $ROOT/usr $ROOT/probe/bash",
                    ..REPORT
                },
                Case {
                    name: "a range, mapped",
                    options: "--private-users=655360 --private-users-ownership=map -n",
                    inside: OWNERS,
                    known: SHIFTED_CONSOLE,
                    after: "stat -c '%u:%g' $ROOT $ROOT/usr $ROOT/probe/bash",
                    ..REPORT
                },
                Case {
                    name: "picked",
                    options: "--private-users=pick --private-users-ownership=map",
                    inside: OWNERS,
                    known: SHIFTED_CONSOLE,
                    ..REPORT
                },
                Case {
                    name: "-U",
                    options: "-U --private-network",
                    known: SHIFTED,
                    inside: "echo x > /made && $B stat -c '%u:%g' /made",
                    after: "stat -c '%u:%g' $ROOT/made",
                    ..REPORT
                },
                Case {
                    name: "owners of bind mounts",
                    options: "--private-users=655360 --private-users-ownership=map --bind=DIR/a:/m:idmap \
                              --bind=DIR/a:/o:rootidmap --bind=DIR/a:/h:noidmap",
                    before: FILES,
                    inside: "$B stat -c '%n %u:%g' /m/root /m/user /o/root /o/user /h/root /h/user
                             : > /m/new-m && : > /o/new-o; (: > /h/new-h) 2>/dev/null || echo not ours",
                    after: "stat -c '%n %u:%g' $DIR/a/*",
                    ..SCRIPT
                },
            ],
        );
    });
}
