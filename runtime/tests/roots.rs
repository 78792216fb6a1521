//! How a directory becomes the root of a container.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use runtime::{ContainerConfig, Mount, Outcome, PivotRoot, RootOptions, Volatile};

mod common;
use common::{DETACHED, ok, root, start};

fn config(root: &Path, name: &str, options: RootOptions, script: &str) -> ContainerConfig {
    let mut config =
        common::config(root, name, &format!("b=/bin/busybox; [ -e $b ] || b=/usr/bin/busybox\n{script}"));
    config.root = options;
    config
}

/// A root of which everything is in /usr, as --volatile=yes wants it.
fn usr(root: &Path) {
    fs::create_dir(root.join("usr")).unwrap();
    fs::rename(root.join("bin"), root.join("usr/bin")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    fs::write(root.join("mark"), "").unwrap();
}

/// Everything below a directory, with modes and sizes.
fn tree(root: &Path) -> Vec<String> {
    let output = std::process::Command::new("find")
        .arg(root)
        .args(["-printf", "%P %y %m %s %U %T@\n"])
        .output()
        .unwrap();
    let mut lines: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

const WRITE: &str = "
    try() { (echo x > $1) 2>/dev/null && echo \"$1\"; }
    for place in /x /usr/x /var/x /etc/x /tmp/x /run/x /dev/x /dev/shm/x; do try $place; done";

#[test]
fn a_read_only_root_has_writable_api_file_systems_and_mounts() {
    let Some((dir, root)) = root() else { return };
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::create_dir_all(root.join("data")).unwrap();
    let none: Option<&str> = None;
    mount(Some("tmpfs"), &root.join("sub"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let options = RootOptions { read_only: true, ..RootOptions::default() };
    let mut config = config(&root, "ro", options, &format!("{WRITE}; try /sub/x; try /data/x; exit 0"));
    config.mounts = vec![Mount::Bind {
        source: dir.path().to_path_buf().into(),
        target: "/data".into(),
        read_only: false,
        recursive: false,
        ids: runtime::BindIds::Auto,
    }];
    assert_eq!(ok(&config), "/tmp/x\n/run/x\n/dev/x\n/dev/shm/x\n/data/x\n");
    config.mounts = vec![Mount::Tmpfs { target: "/new".into(), options: String::new() }];
    let error = start(&config).unwrap_err().to_string();
    assert!(error.contains("/new tmpfs") && error.contains("EROFS"), "{error}");
}

#[test]
fn a_volatile_root_has_nothing_but_usr() {
    let Some((_dir, root)) = root() else { return };
    usr(&root);
    let before = tree(&root);
    let options = RootOptions { volatile: Volatile::Yes, ..RootOptions::default() };
    let script = format!(
        "{WRITE}; $b test -e /mark && echo mark; $b stat -c '%n %F %a' /bin /var /etc /root /usr; $b grep ' / / ' /proc/self/mountinfo | $b grep -c 'tmpfs'; exit 0"
    );
    let text = ok(&config(&root, "volatile", options, &script));
    assert_eq!(
        text,
        "/x\n/var/x\n/etc/x\n/tmp/x\n/run/x\n/dev/x\n/dev/shm/x\n/bin symbolic link 777\n/var directory 755\n\
         /etc directory 755\n/root directory 750\n/usr directory 755\n1\n"
    );
    assert_eq!(tree(&root), before);
}

#[test]
fn a_volatile_root_needs_the_programs_in_usr() {
    let Some((_dir, root)) = root() else { return };
    let options = || RootOptions { volatile: Volatile::Yes, ..RootOptions::default() };
    let refused = |what: &str| {
        let error = start(&config(&root, "merge", options(), "")).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    refused("no /usr");
    fs::create_dir(root.join("usr")).unwrap();
    refused("/bin is a directory");
    fs::rename(root.join("bin"), root.join("usr/bin")).unwrap();
    fs::write(root.join("bin"), "").unwrap();
    refused("/bin is no symlink");
    // A root of NixOS has little in /usr, and the program comes from the store.
    fs::remove_file(root.join("bin")).unwrap();
    let config = config(&root, "merge", options(), "exit 3");
    assert_eq!(start(&config).unwrap().run(&DETACHED, |_| {}).unwrap().outcome, Outcome::Exited(3));
}

#[test]
fn of_a_root_with_volatile_state_var_alone_is_writable() {
    let Some((_dir, root)) = root() else { return };
    usr(&root);
    fs::create_dir(root.join("var")).unwrap();
    fs::write(root.join("var/old"), "").unwrap();
    let options = RootOptions { volatile: Volatile::State, ..RootOptions::default() };
    let script = format!("{WRITE}; $b ls /var; $b stat -c %a /var");
    assert_eq!(
        ok(&config(&root, "state", options, &script)),
        "/var/x\n/tmp/x\n/run/x\n/dev/x\n/dev/shm/x\nx\n755\n"
    );
    assert!(!root.join("var/x").exists());
}

#[test]
fn what_is_written_over_an_overlay_is_forgotten() {
    let Some((_dir, root)) = root() else { return };
    usr(&root);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).unwrap();
    let before = tree(&root);
    for options in [
        RootOptions { volatile: Volatile::Overlay, ..RootOptions::default() },
        RootOptions { ephemeral: true, ..RootOptions::default() },
    ] {
        let script = format!("{WRITE}; echo y > /mark; $b rm -r /usr/bin/sh /new; $b stat -c %a /; exit 0");
        let mut config = config(&root, "overlay", options, &script);
        config.mounts = vec![Mount::Tmpfs { target: "/new".into(), options: String::new() }];
        let all = "/x\n/usr/x\n/var/x\n/etc/x\n/tmp/x\n/run/x\n/dev/x\n/dev/shm/x\n";
        let text = ok(&config);
        assert!(text.starts_with(all) && text.ends_with("711\n"), "{text}");
        assert_eq!(tree(&root), before);
    }
}

#[test]
fn an_ephemeral_root_can_be_read_only_or_have_volatile_state() {
    let Some((_dir, root)) = root() else { return };
    let before = tree(&root);
    let read_only = RootOptions { ephemeral: true, read_only: true, ..RootOptions::default() };
    assert_eq!(
        ok(&config(&root, "ero", read_only, &format!("{WRITE}; exit 0"))),
        "/tmp/x\n/run/x\n/dev/x\n/dev/shm/x\n"
    );
    let state = RootOptions { ephemeral: true, volatile: Volatile::State, ..RootOptions::default() };
    let text = ok(&config(&root, "estate", state, &format!("{WRITE}; exit 0")));
    assert_eq!(text, "/var/x\n/tmp/x\n/run/x\n/dev/x\n/dev/shm/x\n");
    assert_eq!(tree(&root), before);
}

#[test]
fn many_ephemeral_containers_run_from_one_root() {
    let Some((_dir, root)) = root() else { return };
    let options = || RootOptions { ephemeral: true, ..RootOptions::default() };
    let script = "echo $$ > /file; trap 'exit 4' TERM; while :; do $b sleep 0.05; done";
    let running: Vec<_> = ["one", "two", "three"]
        .iter()
        .map(|name| start(&config(&root, name, options(), script)).unwrap())
        .collect();
    assert!(!root.join("file").exists());
    for supervisor in running {
        supervisor.stopper().stop();
        assert_eq!(supervisor.run(&DETACHED, |_| {}).unwrap().outcome, Outcome::Exited(4));
    }
    assert_eq!(fs::metadata(&root).unwrap().nlink(), 3);
}

#[test]
fn a_missing_root_is_copied_from_its_template_once() {
    let Some((dir, template)) = root() else { return };
    let root = dir.path().join("copy");
    let options = || RootOptions { template: Some(template.clone()), ..RootOptions::default() };
    let config = config(&root, "template", options(), "test -e /file && echo again; echo x > /file");
    assert_eq!(ok(&config), "");
    assert_eq!(ok(&config), "again\n");
    assert!(root.join("file").exists() && !template.join("file").exists());
    let mut bad = config.clone();
    bad.rootfs = dir.path().join("none/copy");
    start(&bad).unwrap_err();
    bad.rootfs = dir.path().join("bad");
    bad.root.template = Some(dir.path().join("no-template"));
    let error = start(&bad).unwrap_err().to_string();
    assert!(error.contains("no-template"), "{error}");
    // One that would contain its own copy.
    bad.root.template = Some(template.clone());
    bad.rootfs = template.join("inside");
    let error = start(&bad).unwrap_err().to_string();
    assert!(error.contains("lies within it"), "{error}");
    let left: Vec<_> =
        [dir.path(), &template].iter().flat_map(|place| fs::read_dir(place).unwrap().flatten()).collect();
    assert!(!left.iter().any(|entry| entry.file_name().to_string_lossy().starts_with(".#")), "{left:?}");
}

#[test]
fn a_directory_of_the_root_becomes_the_root() {
    let Some((dir, root)) = root() else { return };
    let outer = dir.path().join("outer");
    fs::create_dir_all(outer.join("deploy")).unwrap();
    fs::write(outer.join("mark"), "").unwrap();
    fs::rename(&root, outer.join("deploy/one")).unwrap();
    symlink("one", outer.join("deploy/current")).unwrap();
    let pivot = |old: Option<&str>| RootOptions {
        pivot: Some(PivotRoot { new: "/deploy/current".into(), old: old.map(Into::into) }),
        ..RootOptions::default()
    };
    let script = "$b ls -1d /mark /sysroot/mark /sysroot/deploy/one/bin 2>/dev/null; echo x > /new; exit 0";
    let with_old = config(&outer, "pivot", pivot(Some("/sysroot")), script);
    assert_eq!(ok(&with_old), "/sysroot/deploy/one/bin\n/sysroot/mark\n");
    assert_eq!(ok(&config(&outer, "pivot", pivot(None), script)), "");
    assert!(outer.join("deploy/one/new").exists());
    let mut ephemeral = with_old;
    ephemeral.root.ephemeral = true;
    ephemeral.payload.argv[3] = "echo y > /newer; /bin/busybox ls -d /sysroot/mark".into();
    assert_eq!(ok(&ephemeral), "/sysroot/mark\n");
    assert!(!outer.join("deploy/one/newer").exists());
    symlink("/../..", outer.join("out")).unwrap();
    let mut missing = config(&outer, "pivot", pivot(None), script);
    missing.root.pivot = Some(PivotRoot { new: "/none".into(), old: None });
    let error = start(&missing).unwrap_err().to_string();
    assert!(error.contains("cannot make /none of"), "{error}");
}

#[test]
fn the_roots_options_are_checked() {
    let refused = |options: RootOptions, rootfs: &str, what: &str| {
        let mut config = common::config(Path::new(rootfs), "check", "");
        config.root = options;
        let facts = runtime::HostFacts::probe_for(&runtime::HostPaths::default(), &config).unwrap();
        let error = runtime::Plan::new(&config, &facts).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    let default = RootOptions::default;
    refused(default(), "/", "/var");
    refused(RootOptions { volatile: Volatile::Overlay, ..default() }, "/", "/var");
    refused(RootOptions { read_only: true, volatile: Volatile::State, ..default() }, "/r", "read-only");
    refused(RootOptions { ephemeral: true, template: Some("/t".into()), ..default() }, "/r", "template");
}

/// machined mounts what `machinectl bind` names in the directory for a moment; the end of the container may fall into it.
#[test]
fn what_is_mounted_in_the_directory_for_machined_is_not_removed() {
    let Some((dir, _root)) = root() else { return };
    let (path, source) = (dir.path().join("propagate"), dir.path().join("source"));
    for directory in ["propagate/empty", "propagate/mounted", "source/deep"] {
        fs::create_dir_all(dir.path().join(directory)).unwrap();
    }
    fs::write(path.join("file"), "").unwrap();
    fs::write(source.join("deep/precious"), "").unwrap();
    let none: Option<&str> = None;
    mount(Some(&source), &path.join("mounted"), none, MsFlags::MS_BIND, none).unwrap();
    let propagate = runtime::OnHost::Propagate { path: path.clone() };
    runtime::remove_from_host(&propagate).unwrap_err();
    assert!(source.join("deep/precious").exists(), "the host's file is gone");
    nix::mount::umount(&path.join("mounted")).unwrap();
    assert!(runtime::remove_from_host(&propagate).unwrap());
    assert!(!path.exists() && !runtime::remove_from_host(&propagate).unwrap());
}
