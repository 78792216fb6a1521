//! Mounts and roots in real containers.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use runtime::{BindIds, BindSource, ContainerConfig, Error, Mount, Outcome};

mod common;
use common::{config, ok, root, start};

fn bind(source: BindSource, target: &str, read_only: bool, recursive: bool) -> Mount {
    Mount::Bind { source, target: target.into(), read_only, recursive, ids: BindIds::Auto }
}

fn host(path: PathBuf) -> BindSource {
    BindSource::Host(path)
}

fn with(root: &Path, name: &str, mounts: Vec<Mount>, script: &str) -> ContainerConfig {
    let mut config = config(root, name, &format!("b=/bin/busybox\n{script}"));
    config.mounts = mounts;
    config
}

fn tmpfs_on(path: &Path) {
    let none: Option<&str> = None;
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

/// What a mount leaves below the host's /var/tmp; other containers' is not told apart from ours but by name.
fn temporaries(name: &str) -> usize {
    let ours =
        |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&format!("nixrun-{name}-"));
    fs::read_dir("/var/tmp").unwrap().flatten().filter(ours).count()
}

#[test]
fn a_bind_without_what_is_mounted_below_shows_the_lower_content() {
    let Some((dir, root)) = root() else { return };
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("sub/file"), "lower").unwrap();
    tmpfs_on(&source.join("sub"));
    fs::write(source.join("sub/file"), "upper").unwrap();
    let script =
        "$b cat /plain/sub/file /all/sub/file; (echo x > /all/sub/file) 2>/dev/null && echo writable; exit 0";
    let mounts =
        vec![bind(host(source.clone()), "/plain", false, false), bind(host(source), "/all", true, true)];
    assert_eq!(ok(&with(&root, "norbind", mounts, script)), "lowerupper");
}

#[test]
fn files_sockets_and_nodes_are_mounted_on_what_is_their_kind() {
    let Some((dir, root)) = root() else { return };
    let place = dir.path();
    fs::write(place.join("file"), "content").unwrap();
    let _listener = UnixListener::bind(place.join("socket")).unwrap();
    let mounts = vec![
        bind(host(place.join("file")), "/a/b/file", true, true),
        bind(host(place.join("socket")), "/a/socket", false, true),
        bind(host("/dev/zero".into()), "/a/zero", false, true),
        bind(BindSource::InRoot("/bin/busybox".into()), "/a/box", true, true),
    ];
    let script = "$b stat -c %F /a/b/file /a/socket /a/zero /a/box; $b cat /a/b/file; (echo > /a/box) 2>&1 | $b grep -c Read-only";
    let text = ok(&with(&root, "kinds", mounts, script));
    assert_eq!(text, "regular file\nsocket\ncharacter special file\nregular file\ncontent1\n");
    assert!(
        root.join("a/b/file").is_file() && root.join("a/socket").is_file() && root.join("a/zero").is_file()
    );
}

#[test]
fn a_source_inside_the_container_is_looked_up_within_it() {
    let Some((dir, root)) = root() else { return };
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::create_dir_all(root.join("data")).unwrap();
    fs::write(root.join("data/file"), "inside").unwrap();
    symlink("/data", root.join("link")).unwrap();
    symlink(dir.path().join("outside"), root.join("out")).unwrap();
    let mounts = vec![
        bind(BindSource::InRoot("/link".into()), "/first", true, true),
        // What is mounted earlier is part of it.
        bind(BindSource::InRoot("/first/file".into()), "/second", false, true),
    ];
    assert_eq!(ok(&with(&root, "inroot", mounts, "$b cat /first/file /second")), "insideinside");
    let error =
        start(&with(&root, "out", vec![bind(BindSource::InRoot("/out".into()), "/x", false, true)], ""))
            .unwrap_err()
            .to_string();
    assert!(error.contains("/x rbind /out of the container") && error.contains("ENOENT"), "{error}");
}

#[test]
fn temporary_sources_are_empty_writable_and_gone_afterwards() {
    let Some((_dir, root)) = root() else { return };
    let mounts = vec![
        bind(BindSource::Temporary, "/t", false, true),
        Mount::Overlay {
            lower: vec![BindSource::InRoot("/bin".into())],
            upper: Some(BindSource::Temporary),
            target: "/bin".into(),
        },
    ];
    let config = with(
        &root,
        "temporary",
        mounts,
        "$b ls -A /t | $b wc -l; echo x > /t/x; echo y > /bin/y; $b cat /t/x /bin/y",
    );
    assert_eq!(ok(&config), "0\nx\ny\n");
    assert!(!root.join("bin/y").exists());
    assert_eq!(temporaries(&config.name), 0);
    let mut failing = config;
    failing.payload.argv = vec!["/no-such-program".into()];
    start(&failing).unwrap_err();
    assert_eq!(temporaries(&failing.name), 0);
}

#[test]
fn overlays_have_the_last_layer_on_top() {
    let Some((dir, root)) = root() else { return };
    let place = |name: &str| dir.path().join(name);
    // What mount(8) would take for separators.
    for name in ["lo:w,e\\r", "mid", "up"] {
        fs::create_dir(place(name)).unwrap();
    }
    fs::write(place("lo:w,e\\r").join("a"), "low").unwrap();
    fs::write(place("lo:w,e\\r").join("b"), "low").unwrap();
    fs::write(place("mid/b"), "mid").unwrap();
    fs::create_dir(root.join("in")).unwrap();
    fs::write(root.join("in/c"), "in").unwrap();
    let lower = || vec![host(place("lo:w,e\\r")), host(place("mid")), BindSource::InRoot("/in".into())];
    let mounts = vec![
        Mount::Overlay { lower: lower(), upper: Some(host(place("up"))), target: "/rw".into() },
        Mount::Overlay { lower: lower(), upper: None, target: "/ro".into() },
        Mount::Overlay {
            lower: vec![host(place("mid"))],
            upper: Some(BindSource::InRoot("/in".into())),
            target: "/own".into(),
        },
    ];
    let script = "$b cat /rw/a /rw/b /rw/c /ro/b /ro/c; echo new > /rw/a; echo own > /own/b
        (echo x > /ro/x) 2>/dev/null && echo writable; exit 0";
    assert_eq!(ok(&with(&root, "overlay", mounts, script)), "lowmidinmidin");
    assert_eq!(fs::read_to_string(place("up/a")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(place("lo:w,e\\r/a")).unwrap(), "low");
    assert_eq!(fs::read_to_string(root.join("in/b")).unwrap(), "own\n");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".#")), "{left:?}");
}

#[test]
fn what_is_inaccessible_is_there_and_empty() {
    let Some((dir, root)) = root() else { return };
    fs::create_dir_all(root.join("secret/dir")).unwrap();
    fs::write(root.join("secret/file"), "secret").unwrap();
    nix::unistd::mkfifo(&root.join("secret/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Hostile: leads out of the root, where there is nothing in its place.
    symlink(dir.path(), root.join("secret/link")).unwrap();
    let masked = |path: &str| Mount::Inaccessible { target: path.into() };
    let mounts = ["/secret/file", "/secret/dir", "/secret/fifo"].map(masked).to_vec();
    let script = "$b stat -c '%F %a' /secret/file /secret/dir /secret/fifo; $b cat /secret/file";
    let text = ok(&with(&root, "masked", mounts, script));
    assert_eq!(text, "regular empty file 0\ndirectory 0\nfifo 0\n");
    for missing in ["/secret/none", "/secret/link"] {
        let error = start(&with(&root, "missing", vec![masked(missing)], "")).unwrap_err().to_string();
        assert!(error.contains(missing) && error.contains("ENOENT"), "{error}");
    }
}

/// Every kind of mount, on a target that the container has prepared.
fn hostile(root: &Path, target: &str) -> Vec<Result<Outcome, Error>> {
    let target = PathBuf::from(target);
    let source = root.join("source");
    fs::create_dir_all(&source).unwrap();
    let text = target.to_str().unwrap();
    let kinds = vec![
        bind(host(source.clone()), text, false, true),
        bind(BindSource::InRoot("/bin".into()), text, true, true),
        bind(BindSource::Temporary, text, false, true),
        Mount::Tmpfs { target: target.clone(), options: String::new() },
        Mount::Overlay {
            lower: vec![host(source)],
            upper: Some(BindSource::Temporary),
            target: target.clone(),
        },
        Mount::Inaccessible { target },
    ];
    let start_one = |kind: Mount| {
        let supervisor = start(&with(root, "hostile", vec![kind], "exit 0"))?;
        Ok(supervisor.run(&common::DETACHED, |_| {})?.outcome)
    };
    kinds.into_iter().map(start_one).collect()
}

/// The host's tree below the root's parent, but for the root itself.
fn outside(dir: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    found
}

#[test]
fn no_mount_point_is_made_outside_a_hostile_root() {
    let Some((dir, root)) = root() else { return };
    fs::create_dir(dir.path().join("victim")).unwrap();
    let before = outside(dir.path());
    for (name, to) in
        [("up", "../../../.."), ("dangling", "/no/such/place"), ("victim", "../victim"), ("loop", "loop")]
    {
        symlink(to, root.join(name)).unwrap();
    }
    symlink(dir.path().join("victim"), root.join("absolute")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(root.join("file"), "").unwrap();
    for target in [
        "/up/new",
        "/dangling/new",
        "/victim/new",
        "/absolute/new",
        "/loop/new",
        "/fifo/new",
        "/file/new",
        "/fifo",
    ] {
        for result in hostile(&root, target) {
            match result {
                Ok(outcome) => assert_eq!(outcome, Outcome::Exited(0), "{target}"),
                Err(error) => assert!(error.to_string().contains(target), "{target}: {error}"),
            }
        }
    }
    assert_eq!(outside(dir.path()), before);
    assert_eq!(fs::read_dir(dir.path().join("victim")).unwrap().count(), 0);
    assert!(!Path::new("/new").exists() && !Path::new("/no").exists());
    // A link to the root itself: nothing else than the container's root is covered.
    symlink("/", root.join("slash")).unwrap();
    for result in hostile(&root, "/slash/new") {
        assert!(result.is_ok_and(|outcome| outcome == Outcome::Exited(0)) || root.join("new").is_dir());
    }
    assert!(root.join("new").is_dir());
}

#[test]
fn of_a_directory_and_a_file_neither_lies_on_the_other() {
    let Some((dir, root)) = root() else { return };
    fs::write(dir.path().join("file"), "").unwrap();
    fs::create_dir(root.join("directory")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    let refused = |source: PathBuf, target: &str| {
        let error =
            start(&with(&root, "kind", vec![bind(host(source), target, false, true)], "")).unwrap_err();
        assert!(error.to_string().contains(target), "{error}");
    };
    refused(dir.path().join("file"), "/directory");
    refused(dir.path().to_path_buf(), "/file");
}

#[test]
fn mounts_stand_in_nspawns_order() {
    let Some((_dir, root)) = root() else { return };
    let tmpfs = |target: &str, options: &str| Mount::Tmpfs { target: target.into(), options: options.into() };
    // Asked for the wrong way round; and without options the mode is 0755, with any it is the kernel's.
    let mounts = vec![tmpfs("/a/b", "size=1m"), tmpfs("/a", "")];
    let script = "$b stat -c %a /a /a/b; $b grep -c ' /a/b ' /proc/self/mountinfo; $b mknod /a/null c 1 3; (echo > /a/null) 2>/dev/null && echo device; exit 0";
    assert_eq!(ok(&with(&root, "order", mounts, script)), "755\n1777\n1\n");
}

/// What the kernel says of a mount, on the way of whoever makes it, is in the error.
#[test]
fn what_a_file_system_refuses_is_said_in_the_kernels_words() {
    let Some((dir, root)) = root() else { return };
    let place = |name: &str| dir.path().join(name);
    let overlay = |name: &str, lower: &Path| {
        for part in ["up", "work", ""] {
            fs::create_dir_all(place(name).join(part)).unwrap();
        }
        let [up, work] = ["up", "work"].map(|part| place(name).join(part).display().to_string());
        let options = format!("lowerdir={},upperdir={up},workdir={work}", lower.display());
        let merged = place(&format!("{name}-merged"));
        fs::create_dir(&merged).unwrap();
        mount(Some("o"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        merged
    };
    let error = |config: &ContainerConfig| start(config).unwrap_err().to_string();
    let merged = overlay("one", &root);
    fs::create_dir(merged.join("upper")).unwrap();
    let mount = Mount::Overlay {
        lower: vec![BindSource::InRoot("/bin".into())],
        upper: Some(host(merged.join("upper"))),
        target: "/mnt".into(),
    };
    let said = error(&with(&root, "upper", vec![mount], ""));
    assert!(said.contains("/mnt") && said.contains("the kernel says: overlay: "), "{said}");
    assert!(said.ends_with("not supported as upperdir"), "{said}");

    // An overlay of overlays of overlays: the kernel gives its reason in its log alone.
    let deep = overlay("two", &merged);
    let mut config = with(&deep, "deep", vec![], "");
    config.root.ephemeral = true;
    let said = error(&config);
    assert!(said.contains("fsconfig") && said.contains("EINVAL") && said.contains("dmesg"), "{said}");

    let tmpfs = Mount::Tmpfs { target: "/mnt".into(), options: "size=nonsense".into() };
    let said = error(&with(&root, "tmpfs", vec![tmpfs], ""));
    assert!(said.contains("the kernel says: tmpfs: Bad value for 'size'"), "{said}");
}
