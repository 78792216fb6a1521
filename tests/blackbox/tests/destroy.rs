//! Containers that go: all that is theirs, and nothing of anybody else's; what a killed nixrun has begun is completed.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};

use blackbox::{Host, Point, Pty, calls, on_host, wait_for};
use fixture::Kind;

/// A host with a store, and the path of a system in it.
fn system(host: &Host<'_>) -> String {
    let built = host.install(Kind::Mini, "template");
    fs::remove_file(host.path("etc/nixos-containers/template.conf")).unwrap();
    built.system.to_str().unwrap().to_owned()
}

fn create(host: &Host<'_>, name: &str, system: &str) {
    host.ok(&["create", name, "--system-path", system]);
}

/// Everything about a container is gone.
#[track_caller]
fn assert_gone(host: &Host<'_>, name: &str) {
    let left = host.sh(&format!(
        "cd {}; find etc nix/var var run -path nix/var/nix/db -prune -o -name '{name}' -print -o -name '{name}.*' -print; \
         find run/nixrun var/lib/nixrun etc/nixrun 2>/dev/null || true",
        host.dir().display()
    ));
    assert_eq!(left, "", "something is left of {name}");
    assert!(host.root_of(name).symlink_metadata().is_err());
}

#[test]
fn nothing_of_a_destroyed_container_is_left() {
    on_host(|host| {
        let system = system(host);
        create(host, "other", &system);
        fs::create_dir(host.path("var/log")).unwrap();
        let before = host.snapshot();
        host.ok(&["create", "web", "--system-path", &system, "--set", "hostname=w"]);
        host.boot("web").stop();
        host.write("var/log/nixrun/web.log", "its console", 0o644);
        host.ok(&["destroy", "web"]);
        assert_gone(host, "web");
        before.assert_same(&host.snapshot(), "after the destruction");
        let error = host.fails(1, &["destroy", "wbe"]);
        assert!(error.contains("wbe"), "{error}");
        let error = host.fails(1, &["destroy", "othr"]);
        assert!(error.contains("did you mean \"other\"?"), "{error}");
    });
}

#[test]
fn a_running_container_is_ended_first() {
    on_host(|host| {
        let system = system(host);
        create(host, "web", &system);
        let container = host.boot("web");
        host.ok(&["destroy", "web", "--yes"]);
        assert!(container.wait().code.is_some());
        assert_gone(host, "web");
        assert!(!host.sh("ip -o link").contains("ve-web"));
    });
}

#[test]
fn what_is_mounted_in_the_root_stays_as_it_is() {
    on_host(|host| {
        let system = system(host);
        let data = host.path("data");
        host.write("data/dummy", "important data\n", 0o644);
        host.write("single", "important file\n", 0o644);
        // The scenario of nixpkgs: the root of one of them is itself a bind mount.
        for name in ["one", "two"] {
            create(host, name, &system);
        }
        let (root, elsewhere) = (host.root_of("two"), host.path("elsewhere"));
        fs::rename(&root, &elsewhere).unwrap();
        fs::create_dir(&root).unwrap();
        fs::write(root.join("hidden"), "").unwrap();
        host.sh(&format!("mount --bind {} {}", elsewhere.display(), root.display()));
        for name in ["one", "two"] {
            let root = host.root_of(name);
            fs::create_dir_all(root.join("very/important/data")).unwrap();
            fs::write(root.join("very/file"), "").unwrap();
            host.sh(&format!(
                "mount --bind {data} {root}/very/important/data; mount --bind {data} {root}/very/important/data; \
                 mount --bind {single} {root}/very/file; mount -t tmpfs tmpfs {root}/very; \
                 mkdir {root}/very/deeper; mount --bind {data} {root}/very/deeper",
                data = data.display(),
                single = host.path("single").display(),
                root = root.display()
            ));
        }
        let container = host.boot("two");
        host.ok(&["stop", "two"]);
        assert_eq!(container.wait().code, Some(0));
        for name in ["one", "two"] {
            let output = host.run(&["destroy", name]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{said}");
            assert!(said.contains("very was mounted; what is in it is as it was."), "{said}");
            assert_gone(host, name);
        }
        assert_eq!(fs::read_to_string(data.join("dummy")).unwrap(), "important data\n");
        assert_eq!(fs::read_to_string(host.path("single")).unwrap(), "important file\n");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "the root's own content is gone");
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains("/nixos-containers/"), "{mounts}");
    });
}

#[test]
fn no_link_leads_out_of_the_root() {
    on_host(|host| {
        let system = system(host);
        host.write("data/dummy", "important data\n", 0o644);
        let data = host.path("data");
        create(host, "web", &system);
        let root = host.root_of("web");
        fs::create_dir(root.join("etc")).unwrap();
        symlink(&data, root.join("etc/link")).unwrap();
        symlink("../../../../data", root.join("up")).unwrap();
        fs::hard_link(data.join("dummy"), root.join("hard")).unwrap();
        // The container's own profile is open to its root.
        symlink(&data, host.path("nix/var/nix/profiles/per-container/web/evil")).unwrap();
        symlink(&data, host.path("nix/var/nix/gcroots/per-container/web/evil")).unwrap();
        host.ok(&["destroy", "web"]);
        assert_gone(host, "web");
        // A root that is a link itself: what it leads to is somebody else's.
        create(host, "web", &system);
        fs::remove_dir(host.root_of("web")).unwrap();
        symlink(&data, host.root_of("web")).unwrap();
        host.ok(&["destroy", "web"]);
        assert_gone(host, "web");
        assert_eq!(fs::read_to_string(data.join("dummy")).unwrap(), "important data\n");
        // One at a place of somebody's choice stays.
        let set =
            format!("root={}", data.strip_prefix(host.dir()).map(|d| format!("/{}", d.display())).unwrap());
        host.ok(&["create", "web", "--system-path", &system, "--set", &set]);
        let output = host.run(&["destroy", "web"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("was made by somebody else and stays"), "{said}");
        assert_eq!(fs::read_to_string(data.join("dummy")).unwrap(), "important data\n");
        assert_gone(host, "web");
    });
}

#[test]
fn an_immutable_directory_goes_too() {
    on_host(|host| {
        let system = system(host);
        create(host, "web", &system);
        let empty = host.root_of("web").join("var/empty");
        fs::create_dir_all(&empty).unwrap();
        fs::write(empty.join("file"), "").unwrap();
        let set = host.command("chattr").arg("+i").arg(&empty).output().unwrap();
        let said = String::from_utf8_lossy(&set.stderr).into_owned();
        if !support::may_run(if set.status.success() { Ok(()) } else { Err(said) }) {
            return;
        }
        assert!(fs::remove_file(empty.join("file")).is_err());
        host.ok(&["destroy", "web"]);
        assert_gone(host, "web");
    });
}

#[test]
fn declared_containers_are_refused() {
    on_host(|host| {
        let built = host.install(Kind::Mini, "mini");
        let conf = host.path("etc/nixos-containers/mini.conf");
        let store = host.path("static.conf");
        fs::rename(&conf, &store).unwrap();
        symlink(&store, &conf).unwrap();
        host.boot("mini").stop();
        let before = host.snapshot();
        let error = host.fails(1, &["destroy", "mini"]);
        assert!(
            error.contains("mini.conf is not ours to remove") && error.contains("configuration.nix"),
            "{error}"
        );
        before.assert_same(&host.snapshot(), "after the refusal");
        assert!(host.root_of("mini").is_dir());
        // A file on something read-only is as good as one in the store.
        fs::remove_file(&conf).unwrap();
        fs::write(&conf, &built.conf).unwrap();
        host.sh(&format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", conf.display()));
        let error = host.fails(1, &["destroy", "mini"]);
        assert!(error.contains("mini.conf is not ours to remove"), "{error}");
    });
}

#[test]
fn a_terminal_is_asked() {
    on_host(|host| {
        let system = system(host);
        create(host, "web", &system);
        for (answer, gone) in [("\n", false), ("n\n", false), ("y\n", true)] {
            let mut pty = Pty::spawn(&host.nixrun(&["destroy", "web"]), 24, 200);
            pty.expect("Destroy container web with everything in ");
            pty.expect("[y/N]");
            pty.type_in(answer);
            assert_eq!(pty.wait().0 == Some(0), gone, "{answer:?}");
            assert_eq!(host.path("etc/nixos-containers/web.conf").exists(), !gone, "{answer:?}");
        }
        assert_gone(host, "web");
    });
}

/// A destruction that has stopped half-way, at the removal of the root.
fn stopped_destruction(host: &Host<'_>) -> Child {
    let traced =
        ["-e", "trace=unlinkat", "-e", "inject=unlinkat:delay_enter=100000000:when=1", "-o", "/dev/null"];
    let child = host.traced(&traced, &["destroy", "web"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the change to be locked", || {
        let said = fs::read_to_string(host.path("run/nixrun/.changes/web")).unwrap_or_default();
        let intended = host.path("var/lib/nixrun/changes/web").exists();
        (said.contains("destroy") && intended).then_some(())
    });
    child
}

#[test]
fn two_commands_on_one_container_do_not_meet() {
    on_host(|host| {
        let system = system(host);
        create(host, "web", &system);
        fs::create_dir(host.root_of("web").join("something")).unwrap();
        let mut child = stopped_destruction(host);
        for args in [
            &["destroy", "web"][..],
            &["update", "web", "--system-path", &system],
            &["create", "web", "--system-path", &system],
        ] {
            let error = host.fails(1, args);
            assert!(error.contains("web is being changed by process "), "{args:?}: {error}");
            assert!(error.contains("(nixrun destroy)"), "{args:?}: {error}");
        }
        // Nobody boots what is going.
        let error = host.fails(1, &["boot", "web"]);
        assert!(error.contains("web is running already"), "{error}");
        host.end_processes();
        child.wait().unwrap();
        // Killed by that: the next command completes it.
        host.ok(&["destroy", "web"]);
        assert_gone(host, "web");
    });
}

/// Calls that change something, of a command that is traced from its beginning to its end.
fn effects(host: &Host<'_>, args: &[&str]) -> Vec<Point> {
    const EFFECTS: [&str; 12] = [
        "mkdir",
        "mkdirat",
        "rename",
        "renameat",
        "rmdir",
        "symlink",
        "symlinkat",
        "unlink",
        "unlinkat",
        "fsync",
        "ftruncate",
        "flock",
    ];
    let file = host.path("output/trace");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let status = host.traced(&["-o", file.to_str().unwrap()], args).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{args:?}");
    let points: BTreeSet<Point> =
        calls(&file).into_iter().filter(|point| EFFECTS.contains(&point.name.as_str())).collect();
    points.into_iter().collect()
}

/// `nixrun` killed at a call.
fn killed_at(host: &Host<'_>, point: &Point, args: &[&str]) {
    let inject = format!("inject={}:signal=KILL:when={}", point.name, point.nth);
    let mut command = host.traced(&["-o", "/dev/null", "-e", &inject], args);
    let status = command.stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(!status.success(), "{args:?} was not killed at {point:?}");
}

#[test]
fn a_create_that_is_killed_is_undone_or_complete() {
    on_host(|host| {
        let system = system(host);
        let args = ["create", "web", "--system-path", &system, "--set", "hostname=w"];
        create(host, "other", &system);
        let before = host.snapshot();
        let points = effects(host, &args);
        assert!(points.len() > 15, "{points:?}");
        host.ok(&["destroy", "web"]);
        for (turn, point) in points.iter().enumerate() {
            killed_at(host, point, &args);
            if turn % 2 == 0 {
                // The same again, which meets what is left of the first one.
                let exists = host.path("etc/nixos-containers/web.conf").exists();
                let again = host.run(&args);
                let said = String::from_utf8_lossy(&again.stderr).into_owned();
                assert_eq!(again.status.success(), !exists, "{point:?}: {said}");
                host.boot("web").stop();
                host.ok(&["destroy", "web"]);
                // Nothing is left but what is empty, perhaps.
                host.ok(&["reclaim"]);
            } else {
                host.ok(&["reclaim"]);
                if host.path("etc/nixos-containers/web.conf").exists() {
                    host.boot("web").stop();
                    host.ok(&["destroy", "web"]);
                }
            }
            assert_gone(host, "web");
            before.assert_same(&host.snapshot(), &format!("after a create killed at {point:?}"));
        }
    });
}

#[test]
fn a_destruction_that_is_killed_is_completed() {
    on_host(|host| {
        let system = system(host);
        host.write("data/dummy", "important data\n", 0o644);
        create(host, "other", &system);
        // mount(8) makes a directory in /run that stays.
        host.sh(&format!("mount --bind {0} {0} && umount {0}", host.path("data").display()));
        let before = host.snapshot();
        let fill = || {
            host.ok(&["create", "web", "--system-path", &system, "--set", "hostname=w"]);
            let root = host.root_of("web");
            fs::create_dir_all(root.join("a/b")).unwrap();
            fs::write(root.join("a/file"), "").unwrap();
            host.sh(&format!("mount --bind {} {}/a/b", host.path("data").display(), root.display()));
        };
        fill();
        let points = effects(host, &["destroy", "web"]);
        assert!(points.len() > 15, "{points:?}");
        for (turn, point) in points.iter().enumerate() {
            fill();
            killed_at(host, point, &["destroy", "web"]);
            match turn % 3 {
                0 => {
                    let _ = host.run(&["destroy", "web"]);
                }
                1 => {
                    // Nothing was begun, or nothing is left to boot.
                    let begun = host.path("var/lib/nixrun/changes/web").exists();
                    if begun {
                        host.fails(1, &["boot", "web"]);
                    }
                    let _ = host.run(&["destroy", "web"]);
                }
                _ => {
                    host.ok(&["reclaim"]);
                    let _ = host.run(&["destroy", "web"]);
                }
            }
            assert!(
                !host.root_of("web").exists() && !host.path("etc/nixos-containers/web.conf").exists(),
                "{point:?}"
            );
            // Nothing is left but what is empty, perhaps.
            host.ok(&["reclaim"]);
            assert_gone(host, "web");
            before.assert_same(&host.snapshot(), &format!("after a destruction killed at {point:?}"));
            assert_eq!(fs::read_to_string(host.path("data/dummy")).unwrap(), "important data\n", "{point:?}");
        }
    });
}

#[test]
fn a_root_that_vanishes_under_its_container_stops_no_command() {
    on_host(|host| {
        let system = system(host);
        create(host, "web", &system);
        let container = host.boot("web");
        fs::remove_dir_all(host.root_of("web")).unwrap();
        for args in [&["status", "web"][..], &["list"], &["show-ip", "web"]] {
            host.ok(args);
        }
        let error = host.fails(1, &["show-host-key", "web"]);
        assert!(error.contains("does not exist"), "{error}");
        host.ok(&["stop", "web"]);
        assert!(container.wait().code.is_some());
        // Made anew, empty, by the next start.
        host.boot("web").stop();
        host.ok(&["destroy", "web"]);
        assert_gone(host, "web");
    });
}
