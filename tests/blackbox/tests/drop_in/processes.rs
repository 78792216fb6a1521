//! What the processes inside are: names, users, privileges, consoles.

use blackbox::compare::{Case, compare};
use blackbox::on_host;

use super::known::*;
use super::{REPORT, SCRIPT};

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
