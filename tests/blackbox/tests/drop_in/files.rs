//! What the root is made of, what is mounted in it, and which files of the host are in it.

use blackbox::compare::{Case, compare};
use blackbox::on_host;

use super::known::*;
use super::{REPORT, SCRIPT};

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
