//! What a container takes over of its host's files, in roots that are well made and in roots that are traps.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{DETACHED, config, root, run, start};
use runtime::{
    Cgroup, ContainerConfig, Credential, Error, HostFacts, HostPaths, JournalLink, LinkJournal, Mount,
    Outcome, Plan, Prepared, ResolvConf, Timezone,
};

/// A host with name servers, a time zone and a machine id.
struct FakeHost {
    dir: tempfile::TempDir,
}

const SERVERS: &str = "nameserver 192.0.2.53\n";
const ID: &str = "0123456789abcdef0123456789abcdef";

impl FakeHost {
    fn new() -> FakeHost {
        let dir = tempfile::tempdir_in(common::TEMPORARY).unwrap();
        for directory in ["etc", "usr/share/zoneinfo", "var/log/journal"] {
            fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        fs::write(dir.path().join("etc/resolv.conf"), SERVERS).unwrap();
        fs::write(dir.path().join("etc/machine-id"), "fedcba9876543210fedcba9876543210\n").unwrap();
        fs::write(dir.path().join("usr/share/zoneinfo/Mars"), "TZif Mars").unwrap();
        symlink("../usr/share/zoneinfo/Mars", dir.path().join("etc/localtime")).unwrap();
        FakeHost { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Runs a container to its end; what it started without.
    fn run(&self, config: &ContainerConfig) -> Result<(Outcome, Vec<String>), Error> {
        let plan = Plan::new(config, &HostFacts::probe_for(&HostPaths::below(self.dir.path()), config)?)?;
        let group = Cgroup::create(&plan.cgroup)?;
        let supervisor = Prepared::new(plan)?.launch(group)?.resume()?;
        let warnings = supervisor.warnings().to_vec();
        Ok((supervisor.run(&DETACHED, |_| {})?.outcome, warnings))
    }
}

fn resolv(root: &Path, name: &str, mode: ResolvConf) -> ContainerConfig {
    let mut config = config(root, name, "exit 0");
    config.integration.resolv_conf = mode;
    config
}

const FINE: Outcome = Outcome::Exited(0);

#[test]
fn name_servers_are_copied_over_a_file_and_not_through_a_link() {
    let Some((dir, root)) = root() else { return };
    let (host, file) = (FakeHost::new(), root.join("etc/resolv.conf"));
    let copy = resolv(&root, "copy", ResolvConf::CopyHost);
    fs::create_dir(root.join("etc")).unwrap();
    for before in [None, Some("a longer text than the host's, which is to be gone\n")] {
        if let Some(text) = before {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        assert_eq!(host.run(&copy).unwrap(), (FINE, vec![]));
        assert_eq!(fs::read_to_string(&file).unwrap(), SERVERS);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, if before.is_some() { 0o600 } else { 0o644 });
    }
    // Something inside cares for name servers by itself.
    let victim = dir.path().join("victim");
    fs::write(&victim, "host").unwrap();
    for to in [victim.to_str().unwrap(), "../run/resolv.conf", "/dangling"] {
        fs::remove_file(&file).unwrap();
        symlink(to, &file).unwrap();
        assert_eq!(host.run(&copy).unwrap(), (FINE, vec![]));
        assert_eq!(fs::read_link(&file).unwrap(), Path::new(to));
        let bind = resolv(&root, "bind", ResolvConf::BindHost);
        assert_eq!(host.run(&bind).unwrap(), (FINE, vec![]));
    }
    // To replace is to replace whatever is there.
    assert_eq!(host.run(&resolv(&root, "replace", ResolvConf::ReplaceHost)).unwrap(), (FINE, vec![]));
    assert!(!file.is_symlink());
    assert_eq!(fs::read_to_string(&file).unwrap(), SERVERS);
    assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 1, "a half-made file is left");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "host");
    assert_eq!(host.run(&resolv(&root, "delete", ResolvConf::Delete)).unwrap(), (FINE, vec![]));
    assert!(!file.exists());
    assert_eq!(host.run(&resolv(&root, "delete", ResolvConf::Delete)).unwrap(), (FINE, vec![]));
}

#[test]
fn a_bound_resolv_conf_is_the_hosts_own_and_read_only() {
    let Some((_dir, root)) = root() else { return };
    let host = FakeHost::new();
    fs::create_dir(root.join("etc")).unwrap();
    let mut config = resolv(&root, "bind", ResolvConf::BindHost);
    config.payload.argv[3] = "b=/bin/busybox
        test \"$($b cat /etc/resolv.conf)\" = 'nameserver 192.0.2.53' || exit 10
        (: > /etc/resolv.conf) 2>/dev/null && exit 11
        $b grep ' /etc/resolv.conf ro,nosuid,nodev,' /proc/self/mountinfo > /dev/null || exit 12
        exit 0"
        .into();
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    // What was made to mount on is empty, and the container's own.
    assert_eq!(fs::read(root.join("etc/resolv.conf")).unwrap(), b"");
}

/// The mounts that were asked for are there before: the file goes where the container sees it.
#[test]
fn a_file_goes_into_what_is_mounted_over_etc() {
    let Some((_dir, root)) = root() else { return };
    let host = FakeHost::new();
    fs::create_dir(root.join("etc")).unwrap();
    let mut config = resolv(&root, "mounted", ResolvConf::CopyHost);
    config.mounts = vec![Mount::Tmpfs { target: "/etc".into(), options: String::new() }];
    config.payload.argv[3] = "test \"$(/bin/busybox cat /etc/resolv.conf)\" = 'nameserver 192.0.2.53'".into();
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 0);
    // The same with a root that is forgotten, which has one of its own to write to.
    config.mounts = Vec::new();
    config.root.ephemeral = true;
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 0);
    // A read-only one is left as it is: what is bound needs a file to be bound over.
    config.root = runtime::RootOptions { read_only: true, ..runtime::RootOptions::default() };
    config.payload.argv[3] = "test ! -e /etc/resolv.conf".into();
    for mode in [ResolvConf::CopyHost, ResolvConf::BindHost, ResolvConf::Auto] {
        config.integration.resolv_conf = mode;
        assert_eq!(host.run(&config).unwrap(), (FINE, vec![]), "{mode:?}");
    }
    fs::write(root.join("etc/resolv.conf"), "").unwrap();
    config.payload.argv[3] = "test \"$(/bin/busybox cat /etc/resolv.conf)\" = 'nameserver 192.0.2.53'".into();
    config.integration.resolv_conf = ResolvConf::BindHost;
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    assert_eq!(fs::read(root.join("etc/resolv.conf")).unwrap(), b"");
}

#[test]
fn traps_in_a_root_catch_nobody() {
    let Some((dir, root)) = root() else { return };
    let host = FakeHost::new();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let everything = |mode| {
        let mut config = resolv(&root, "trap", mode);
        config.integration.timezone = Timezone::Copy;
        config
    };
    let all = [ResolvConf::CopyHost, ResolvConf::ReplaceHost, ResolvConf::BindHost, ResolvConf::Delete];
    // /etc leads out of the root, by either way.
    for to in [outside.to_str().unwrap(), "../outside"] {
        symlink(to, root.join("etc")).unwrap();
        for mode in all {
            let (outcome, warnings) = host.run(&everything(mode)).unwrap();
            assert_eq!(outcome, FINE);
            assert!(!warnings.is_empty(), "{to} {mode:?}");
        }
        fs::remove_file(root.join("etc")).unwrap();
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // Nothing is waited for, and nothing but a file is written to.
    fs::create_dir(root.join("etc")).unwrap();
    let file = root.join("etc/resolv.conf");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let (outcome, warnings) = host.run(&resolv(&root, "trap", ResolvConf::CopyHost)).unwrap();
    assert!(outcome == FINE && warnings.len() == 1, "{warnings:?}");
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&fs::symlink_metadata(&file).unwrap().file_type()));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    for mode in all {
        let (outcome, warnings) = host.run(&resolv(&root, "trap", mode)).unwrap();
        assert!(outcome == FINE && warnings.len() == 1, "{mode:?}: {warnings:?}");
    }
    // A directory that is a file.
    fs::remove_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc"), "").unwrap();
    for mode in all {
        assert_eq!(host.run(&everything(mode)).unwrap().0, FINE);
    }
}

#[test]
fn a_time_zone_is_a_link_or_the_hosts_file() {
    let Some((_dir, root)) = root() else { return };
    let host = FakeHost::new();
    fs::create_dir_all(root.join("etc")).unwrap();
    let link = root.join("etc/localtime");
    let mut config = config(&root, "zone", "test \"$(/bin/busybox cat /etc/localtime)\" = 'TZif Mars'");
    config.integration.timezone = Timezone::Auto;
    // The container does not know the zone: it gets the file.
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    assert!(!link.is_symlink() && fs::read(&link).unwrap().is_empty());
    fs::create_dir_all(root.join("usr/share/zoneinfo")).unwrap();
    fs::write(root.join("usr/share/zoneinfo/Mars"), "TZif Mars").unwrap();
    for old in ["/usr/share/zoneinfo/Moon", "/nowhere"] {
        fs::remove_file(&link).unwrap();
        symlink(old, &link).unwrap();
        assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("../usr/share/zoneinfo/Mars"));
    }
    // What is right already is left as it is.
    fs::remove_file(&link).unwrap();
    symlink("/usr/share/zoneinfo/Mars", &link).unwrap();
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/usr/share/zoneinfo/Mars"));
    // Over what the link leads to, within the root.
    fs::write(root.join("usr/share/zoneinfo/Mars"), "TZif old").unwrap();
    config.integration.timezone = Timezone::Bind;
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    assert_eq!(fs::read_to_string(root.join("usr/share/zoneinfo/Mars")).unwrap(), "TZif old");
    config.integration.timezone = Timezone::Copy;
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    assert!(!link.is_symlink() && fs::read_to_string(&link).unwrap() == "TZif Mars");
    config.integration.timezone = Timezone::Delete;
    config.payload.argv[3] = "test ! -e /etc/localtime".into();
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
}

#[test]
fn a_journal_is_linked_to_the_host() {
    let Some((_dir, root)) = root() else { return };
    let host = FakeHost::new();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/machine-id"), format!("{ID}\n")).unwrap();
    let inside = format!("/var/log/journal/{ID}");
    let mut config = config(&root, "journal", &format!("echo entry > {inside}/system.journal"));
    config.integration.journal = LinkJournal { mode: JournalLink::Guest, optional: false };
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    let ours = host.path("var/log/journal").join(ID);
    assert_eq!(fs::read_link(&ours).unwrap(), root.join(inside.trim_start_matches('/')));
    assert_eq!(fs::read_to_string(ours.join("system.journal")).unwrap(), "entry\n");

    fs::remove_dir_all(root.join("var")).unwrap();
    config.integration.journal = LinkJournal { mode: JournalLink::Host, optional: false };
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    assert!(!ours.is_symlink());
    assert_eq!(fs::read_to_string(ours.join("system.journal")).unwrap(), "entry\n");
    assert_eq!(fs::read_dir(root.join("var/log/journal").join(ID)).unwrap().count(), 0);

    // With journals on both sides of a guest's link: refused, or with `try-` the container's own matter.
    config.integration.journal = LinkJournal { mode: JournalLink::Guest, optional: false };
    let error = host.run(&config).unwrap_err().to_string();
    assert!(error.contains("put a link in the place of"), "{error}");
    config.integration.journal.optional = true;
    config.payload.argv[3] = "exit 0".into();
    let (outcome, warnings) = host.run(&config).unwrap();
    assert!(outcome == FINE && warnings[0].contains("not linked"), "{warnings:?}");
    // The host's own machine id.
    fs::copy(host.path("etc/machine-id"), root.join("etc/machine-id")).unwrap();
    let (outcome, warnings) = host.run(&config).unwrap();
    assert!(outcome == FINE && warnings[0].contains("is the host's own"), "{warnings:?}");
}

#[test]
fn credentials_are_roots_alone_and_unchangeable() {
    let Some((_dir, root)) = root() else { return };
    let script = "b=/bin/busybox d=$CREDENTIALS_DIRECTORY
        test $d = /run/host/credentials || exit 10
        test \"$($b cat $d/mynote)\" = 'strangers are friends you have not met yet' || exit 11
        test \"$($b stat -c '%a %u:%g' $d) $($b stat -c '%a %u:%g' $d/mynote)\" = '500 0:0 400 0:0' || exit 12
        $b grep ' /run/host/credentials ro,nosuid,nodev,noexec,relatime .* ramfs ramfs ro,mode=500' /proc/self/mountinfo > /dev/null || exit 13
        (: > $d/mynote) 2>/dev/null && exit 14
        $b mount -o remount,bind,rw $d && (: > $d/mynote) 2>/dev/null && exit 15
        test \"$($b wc -c < $d/binary)\" = 1048576 || exit 16
        exit 0";
    let mut config = config(&root, "credentials", script);
    let credential = |id: &str, value: &[u8]| Credential { id: id.into(), value: value.into() };
    config.integration.credentials = vec![
        credential("mynote", b"strangers are friends you have not met yet"),
        credential("binary", &vec![0; 1 << 20]),
    ];
    assert_eq!(run(&config), FINE);
    // Another user cannot read them, unless it is alone and stays what it is.
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/passwd"), "ada:x:1000:100::/:/bin/sh\n").unwrap();
    let script = "/bin/busybox cat $CREDENTIALS_DIRECTORY/mynote > /dev/null 2>&1";
    config.payload.argv[3] = script.into();
    config.payload.user = Some("ada".into());
    assert_eq!(run(&config), Outcome::Exited(1));
    config.security.no_new_privileges = true;
    assert_eq!(run(&config), FINE);
    config.payload.as_pid2 = true;
    assert_eq!(run(&config), Outcome::Exited(1));
    // A bad name is said before anything is made.
    config.integration.credentials = vec![credential("../x", b"")];
    assert!(start(&config).unwrap_err().to_string().contains("its name must be"));
}

/// With ids of its own: everything that was made belongs to the container's root, and everything still works.
#[test]
fn what_a_container_with_ids_of_its_own_takes_over_belongs_to_its_root() {
    const BASE: u32 = 0x40_0000;
    let Some((_dir, root)) = root() else { return };
    let host = FakeHost::new();
    for directory in ["etc", "usr/share/zoneinfo"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("usr/share/zoneinfo/Mars"), "TZif Mars").unwrap();
    fs::write(root.join("etc/passwd"), "ada:x:1000:100::/home/ada:/bin/sh\n").unwrap();
    fs::write(root.join("etc/machine-id"), format!("{ID}\n")).unwrap();
    let script = "b=/bin/busybox
        own() { test \"$($b stat -c %u:%g $1)\" = 0:0 || { echo $1 is $($b stat -c %u:%g $1) >&2; exit 10; }; }
        own /etc/resolv.conf; own /etc/localtime; own /run/host/credentials; own /run/host/credentials/a
        own /var/log; own /var/log/journal/0123456789abcdef0123456789abcdef
        test \"$($b cat /run/host/credentials/a)\" = secret || exit 11
        echo y > /var/log/journal/0123456789abcdef0123456789abcdef/y || exit 12
        test $$ = $PID || exit 13
        test $PID = 1 || test \"$($b cat /proc/1/comm)\" = nixrun-stub || exit 14
        exit 0";
    let mut config = config(&root, "ids", script);
    config.users = runtime::UserNamespace::Range { base: BASE, length: 65536 };
    config.ownership = runtime::Ownership::Map;
    config.integration.resolv_conf = ResolvConf::ReplaceHost;
    config.integration.timezone = Timezone::Symlink;
    config.integration.journal = LinkJournal { mode: JournalLink::Guest, optional: false };
    config.integration.credentials = vec![Credential { id: "a".into(), value: b"secret".to_vec() }];
    for (as_pid2, pid) in [(false, "1"), (true, "2")] {
        config.payload.as_pid2 = as_pid2;
        config.payload.env = vec![("PID".into(), pid.into())];
        assert_eq!(host.run(&config).unwrap(), (FINE, vec![]), "as PID {pid}");
    }
    // In the root itself they are root's.
    for path in ["etc/resolv.conf", "etc/localtime", "var/log/journal"] {
        assert_eq!(fs::symlink_metadata(root.join(path)).unwrap().uid(), 0, "{path}");
    }
    // The host's journal of it is root's, and may be written to inside.
    config.integration.journal.mode = JournalLink::Host;
    let (outcome, warnings) = host.run(&config).unwrap();
    assert!(outcome == FINE && warnings.len() == 1 && warnings[0].contains("is not empty"), "{warnings:?}");
    let ours = host.path("var/log/journal").join(ID);
    assert_eq!(fs::metadata(ours.join("y")).unwrap().uid(), 0);
    config.integration.journal = LinkJournal::default();

    config.payload.argv[3] = "b=/bin/busybox
        test \"$($b id -u):$($b id -g) $($b stat -c %u:%g $HOME /dev/console)\" = '1000:100 1000:100
1000:100' || exit 10
        exit 0"
        .into();
    config.payload.user = Some("ada".into());
    config.console = runtime::Console::Passive;
    assert_eq!(host.run(&config).unwrap(), (FINE, vec![]));
    assert_eq!(fs::metadata(root.join("home/ada")).unwrap().uid(), 1000);
}
