//! Containers with a user namespace of their own: whose files are whose, and what their root cannot do.
#![allow(clippy::print_stdout, reason = "why a test was skipped")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use common::{config, printed, root, run, start};
use nix::mount::{MsFlags, mount};
use runtime::{
    BindIds, ContainerConfig, ErrorKind, Mount, Network, Outcome, Ownership, Store, UserNamespace,
};

const BASE: u32 = 0x30_0000;

/// Ids of the test's own, with the root mapped.
fn mapped(config: &mut ContainerConfig) {
    config.users = UserNamespace::Range { base: BASE, length: 65536 };
    config.ownership = Ownership::Map;
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

fn bind(source: &Path, target: &str, read_only: bool, ids: BindIds) -> Mount {
    let (source, target) = (source.to_path_buf().into(), target.into());
    Mount::Bind { source, target, read_only, recursive: true, ids }
}

#[test]
fn each_mode_has_its_ids() {
    let Some((_dir, root)) = root() else { return };
    let script =
        "/bin/busybox cat /proc/self/uid_map /proc/self/gid_map; /bin/busybox id -u; /bin/busybox id -G;
        /bin/busybox cat /proc/self/setgroups";
    let squeezed = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let of = |change: &dyn Fn(&mut ContainerConfig)| squeezed(printed(&root, "ids", script, change));
    let maps = |base: u32| format!("0 {base} 65536 0 {base} 65536 0 0 allow");
    assert_eq!(of(&|c| c.users = UserNamespace::Identity), maps(0));
    assert_eq!(of(&mapped), maps(BASE));
    assert_eq!(of(&|c| c.users = UserNamespace::OfRoot), maps(0));
    chown(&root, Some(BASE), Some(BASE)).unwrap();
    fs::remove_file(root.join("out")).unwrap();
    assert_eq!(of(&|c| c.users = UserNamespace::OfRoot), maps(BASE));
    chown(&root, Some(BASE), Some(0)).unwrap();
    let mut torn = config(&root, "torn", "exit 0");
    torn.users = UserNamespace::OfRoot;
    let error = start(&torn).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("different ranges"), "{error}");
    // What a killed one leaves whose files were being given away is nobody's range.
    chown(&root, Some(0xfffe_0000), Some(0xfffe_0000)).unwrap();
    let error = start(&torn).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("interrupted"), "{error}");
}

/// The host's root outside is nobody inside, so all of this is refused by the kernel; in a container without a user
/// namespace, and in one whose mounts were attached inside it, the store would be written to.
#[test]
fn roots_mounts_are_locked() {
    let Some((dir, root)) = root() else { return };
    let store = dir.path().join("store");
    fs::create_dir_all(store.join("pkg")).unwrap();
    fs::write(store.join("pkg/file"), "precious").unwrap();
    let script = r#"
        b=/bin/busybox; s=/nix/store
        try() { "$@" 2>/dev/null && echo "worked: $*"; }
        try $b mount -o remount,bind,rw $s; try $b mount -o remount,rw $s
        try $b umount $s; try $b umount -l $s
        for m in /dev /tmp /run /run/host/os-release /dev/pts; do try $b umount -l $m; done
        try $b mount -o remount,bind,rw /run/host
        $b mkdir -p /tmp/a /tmp/b
        # A copy is as read-only as what it is of.
        $b mount --bind $s /tmp/a && { try $b mount -o remount,bind,rw /tmp/a; try $b touch /tmp/a/pkg/x; }
        $b mount --rbind / /tmp/b && { try $b umount -l /tmp/b/nix/store; try $b touch /tmp/b/nix/store/pkg/x; }
        # In a namespace of its own, too, with all capabilities there.
        try $b unshare -Umr $b sh -c "$b mount -o remount,bind,rw $s"
        try $b unshare -m $b sh -c "$b umount -l $s"
        try $b touch $s/pkg/x; try $b rm $s/pkg/file; try $b sh -c "echo > $s/pkg/file"; try $b chmod 777 $s/pkg
        $b stat -c %u:%g $s/pkg/file; $b cat $s/pkg/file
    "#;
    for change in [mapped as fn(&mut ContainerConfig), |c| c.users = UserNamespace::Identity] {
        let out = printed(&root, "locked", script, |config| {
            change(config);
            config.store = Some(Store::Whole(store.clone()));
        });
        assert_eq!(out, "0:0\nprecious");
        assert_eq!(fs::read_to_string(store.join("pkg/file")).unwrap(), "precious");
        assert!(!store.join("pkg/x").exists());
    }
    // The probe finds what is not locked: without a user namespace nothing is.
    let out = printed(&root, "open", &format!("{script}\ntrue"), |config| {
        config.store = Some(Store::Whole(store.clone()))
    });
    assert!(out.starts_with("worked: /bin/busybox mount -o remount,bind,rw /nix/store\n"), "{out}");
}

#[test]
fn nothing_of_the_hosts_proc_stays() {
    let Some((_dir, root)) = root() else { return };
    let script = r#"
        b=/bin/busybox
        $b grep -c ' proc ' /proc/mounts | $b head -1 > /dev/null
        while read -r _ _ _ _ point _; do case $point in /run/host/proc|/run/host/sys) echo "$point is there" ;; esac; done < /proc/self/mountinfo
        # Below what can be unmounted is nothing.
        $b umount -l /proc; $b ls /proc; $b umount -l /sys/fs/cgroup; $b ls /sys/fs/cgroup /run/host/proc /run/host/sys; true
    "#;
    for network in [Network::Private, Network::Host] {
        let out = printed(&root, "proc", script, |config| {
            mapped(config);
            config.network = network.clone();
        });
        let lines: Vec<&str> = out.lines().filter(|line| !line.is_empty() && !line.ends_with(':')).collect();
        let missing = |line: &&str| line.contains("No such file");
        assert!(lines.iter().all(missing), "{out}");
    }
}

#[test]
fn what_is_made_for_the_container_is_its_roots() {
    let Some((_dir, root)) = root() else { return };
    let script = r#"
        b=/bin/busybox
        $b find /dev /run /tmp /sys/fs/cgroup/cgroup.procs /proc/self/status -not -user 0 -exec $b ls -ldn {} +
        $b ls -nd / /sys /sys/fs/cgroup /dev/shm /dev/mqueue | while read -r _ _ user group _; do
            [ $user$group = 00 ] || echo "$user:$group"; done
        $b stat -c %g /dev/console
        echo hello > /dev/console || echo "no console"
        : > /run/x && : > /dev/shm/x && $b mkdir /sys/fs/cgroup/sub && echo $$ > /sys/fs/cgroup/sub/cgroup.procs
        $b ls /sys/class/net
        $b ip link set lo up && $b ip address show lo | $b grep -c 127.0.0.1
    "#;
    let out = printed(&root, "made", script, |config| {
        mapped(config);
        config.console = runtime::Console::Passive;
        config.notify_ready = true;
        config.mounts.push(Mount::Tmpfs { target: "/mnt".into(), options: "uid=7,mode=700".into() });
    });
    assert_eq!(out, "5\nlo\n1\n");
    assert_eq!(owner(root.join("mnt")), (0, 0), "a mount point of the mapped root is root's on disk");
}

#[test]
fn a_mapped_root_keeps_its_owners_on_disk() {
    let Some((_dir, root)) = root() else { return };
    fs::write(root.join("of-7"), "").unwrap();
    chown(root.join("of-7"), Some(7), Some(8)).unwrap();
    let script = "b=/bin/busybox; $b stat -c %u:%g /of-7 /bin/busybox; $b touch /new; $b touch /new-9; $b chown 9:10 /new-9";
    let out = printed(&root, "map", script, mapped);
    assert_eq!(out, "7:8\n0:0\n");
    assert_eq!(owner(root.join("new")), (0, 0));
    assert_eq!(owner(root.join("new-9")), (9, 10));
    let outcome = run(&{
        let mut config = config(&root, "off", "! /bin/busybox touch /new-off 2>/dev/null");
        mapped(&mut config);
        config.ownership = Ownership::Off;
        config
    });
    assert_eq!(outcome, Outcome::Exited(0), "root inside can write to a directory of the host's root");
}

/// A root of the test's own whose busybox is nobody else's: its owner will change.
fn separate(root: &Path) {
    let program = root.join("bin/busybox");
    let copy = root.join("bin/copy");
    fs::copy(&program, &copy).unwrap();
    fs::rename(&copy, &program).unwrap();
}

#[test]
fn a_given_root_is_the_containers_and_given_once() {
    let Some((dir, root)) = root() else { return };
    separate(&root);
    fs::create_dir_all(root.join("home/user")).unwrap();
    for (path, uid, gid) in [("home/user", 1000, 100), ("home", 0, 0)] {
        chown(root.join(path), Some(uid), Some(gid)).unwrap();
    }
    fs::write(root.join("home/user/setuid"), "").unwrap();
    chown(root.join("home/user/setuid"), Some(1000), Some(100)).unwrap();
    fs::set_permissions(root.join("home/user/setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    let outside = dir.path().join("outside");
    fs::write(&outside, "").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    lchown(root.join("link"), Some(3), Some(4)).unwrap();
    // Another file system in the root stays as it is.
    fs::create_dir(root.join("mnt")).unwrap();
    mount(Some("t"), &root.join("mnt"), Some("tmpfs"), MsFlags::empty(), Some("uid=5")).unwrap();

    let given = |config: &mut ContainerConfig| {
        mapped(config);
        config.ownership = Ownership::Chown;
        config.preparation = vec![
            runtime::Preparation::Directory { path: "/made/below".into(), mode: 0o755 },
            runtime::Preparation::EmptyFile { path: "/made/file".into() },
        ];
    };
    let script =
        "b=/bin/busybox; $b stat -c %u:%g /home/user /link /made/below /made/file / /mnt; $b touch /new";
    let inside = "1000:100\n3:4\n0:0\n0:0\n0:0\n65534:65534\n";
    assert_eq!(printed(&root, "chown", script, given), inside);
    assert_eq!(owner(&root), (BASE, BASE));
    assert_eq!(owner(root.join("home/user/setuid")), (BASE + 1000, BASE + 100));
    assert_eq!(fs::metadata(root.join("home/user/setuid")).unwrap().mode() & 0o7777, 0o6755);
    assert_eq!(owner(root.join("link")), (BASE + 3, BASE + 4));
    assert_eq!(
        (owner(&outside), owner(root.join("mnt")), owner(root.join("new"))),
        ((0, 0), (5, 0), (BASE, BASE))
    );

    // A root that belongs to the ids is not looked through.
    chown(root.join("home"), Some(77), Some(77)).unwrap();
    printed(&root, "again", script, given);
    assert_eq!(owner(root.join("home")), (77, 77));
    // One that is nobody's, since the last to give it away was killed, is.
    chown(&root, Some(0xfffe_0000), Some(0xfffe_0000)).unwrap();
    printed(&root, "resumed", script, given);
    assert_eq!((owner(&root), owner(root.join("home"))), ((BASE, BASE), (BASE + 77, BASE + 77)));
    // What is shifted already is not mapped on top.
    assert_eq!(
        printed(&root, "auto", script, |c| {
            given(c);
            c.ownership = Ownership::Auto
        }),
        inside
    );
    let mut wrong = config(&root, "wrong", "exit 0");
    mapped(&mut wrong);
    let error = start(&wrong).unwrap_err();
    assert!(error.to_string().contains("cannot be mapped: it belongs to user 3145728"), "{error}");
}

#[test]
fn what_cannot_be_mapped_is_named_or_given() {
    let Some((dir, root)) = root() else { return };
    separate(&root);
    let [upper, work, merged] = ["upper", "work", "merged"].map(|name| dir.path().join(name));
    for path in [&upper, &work, &merged] {
        fs::create_dir(path).unwrap();
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", root.display(), upper.display(), work.display());
    mount(Some("o"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();

    let mut overlay = config(&merged, "overlay", "test $(/bin/busybox stat -c %u /) = 0");
    mapped(&mut overlay);
    let error = start(&overlay).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("merged") && error.to_string().contains("(overlay)"), "{error}");
    overlay.ownership = Ownership::Auto;
    assert_eq!(run(&overlay), Outcome::Exited(0));
    assert_eq!((owner(&merged), owner(&root)), ((BASE, BASE), (0, 0)));

    // Bind mounts of it: refused where the mapping was asked for, else nobody's.
    let script = "/bin/busybox stat -c %u:%g /data /data/bin";
    let bound = |ids| {
        let (root, merged) = (&root, &merged);
        move |config: &mut ContainerConfig| {
            let _ = root;
            mapped(config);
            config.mounts.push(bind(merged, "/data", false, ids));
        }
    };
    assert_eq!(printed(&root, "bound", script, bound(BindIds::Auto)), "0:0\n0:0\n");
    chown(&merged, Some(0), Some(0)).unwrap();
    assert_eq!(printed(&root, "bound", script, bound(BindIds::Auto)), "65534:65534\n0:0\n");
    let mut refused = config(&root, "refused", script);
    bound(BindIds::Map)(&mut refused);
    let error = start(&refused).unwrap_err().to_string();
    assert!(error.contains("/data") && error.contains("merged") && error.contains("(overlay)"), "{error}");
}

#[test]
fn owners_of_bind_mounts_are_as_asked() {
    let Some((dir, root)) = root() else { return };
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for (name, uid) in [("host-root", 0), ("mine", 1000), ("other", 2000)] {
        fs::write(source.join(name), "").unwrap();
        chown(source.join(name), Some(uid), Some(uid)).unwrap();
    }
    chown(&source, Some(1000), Some(1000)).unwrap();
    fs::create_dir(root.join("owned")).unwrap();
    chown(root.join("owned"), Some(33), Some(34)).unwrap();
    let of = |ids: BindIds, change: &dyn Fn(&mut ContainerConfig)| {
        let script =
            "cd /owned; b=/bin/busybox; $b touch new 2>/dev/null; $b stat -c %u:%g . host-root mine other";
        let out = printed(&root, "binds", script, |config| {
            mapped(config);
            change(config);
            config.mounts.push(bind(&source, "/owned", false, ids));
        });
        let new = source.join("new").exists().then(|| owner(source.join("new")));
        let _ = fs::remove_file(source.join("new"));
        (out.split_whitespace().collect::<Vec<_>>().join(" "), new)
    };
    let nothing = |_: &mut ContainerConfig| {};
    let whole = "1000:1000 0:0 1000:1000 2000:2000".to_owned();
    assert_eq!(of(BindIds::Auto, &nothing), (whole.clone(), Some((0, 0))));
    assert_eq!(of(BindIds::Map, &nothing), (whole, Some((0, 0))));
    let nobody = "65534:65534";
    assert_eq!(of(BindIds::Host, &nothing), ([nobody; 4].join(" "), None));
    assert_eq!(of(BindIds::Root, &nothing), (format!("0:0 {nobody} 0:0 {nobody}"), Some((1000, 1000))));
    // Root inside has no id on that mount.
    assert_eq!(of(BindIds::Owner, &nothing), (format!("33:34 {nobody} 33:34 {nobody}"), None));
    // With ids that are the host's, root of the container is the host's.
    let identity = |config: &mut ContainerConfig| config.users = UserNamespace::Identity;
    assert_eq!(of(BindIds::Root, &identity), (format!("0:0 {nobody} 0:0 {nobody}"), Some((1000, 1000))));
}
