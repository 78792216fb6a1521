//! A container's system exchanged while it runs, and back: generations, activation, what is left when that fails or
//! nixrun is killed.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use blackbox::{Host, Point, calls, on_host};
use fixture::{Fixture, Kind};
use serde_json::Value;

/// A container whose system is its profile's, which has the first release as its only generation. Both releases are
/// returned.
fn imperative(host: &Host<'_>, kind: Kind, name: &str) -> [Fixture; 2] {
    let first = host.install(kind, name);
    let second = fixture::build(kind, 2).expect("the fixture builds");
    host.set_conf(name, &[("SYSTEM_PATH", None)]);
    own_store(host, &first);
    let said = host.ok(&["update", name, "--system-path", path(&first)]);
    assert!(said.contains(&format!("{name}: generation 1, which it will start with: ")), "{said}");
    [first, second]
}

fn path(fixture: &Fixture) -> &str {
    fixture.system.to_str().unwrap()
}

/// The shared store below a layer of the host's own, for systems that only one test has.
fn own_store(host: &Host<'_>, fixture: &Fixture) {
    let (store, layer) = (host.path("nix/store"), host.path("layer"));
    fs::remove_file(&store).unwrap();
    fs::create_dir_all(&store).unwrap();
    fs::create_dir_all(&layer).unwrap();
    host.sh(&format!(
        "mount -t tmpfs none {layer}; mkdir {layer}/up {layer}/work
         mount -t overlay overlay -o lowerdir={lower},upperdir={layer}/up,workdir={layer}/work {store}",
        layer = layer.display(),
        lower = fixture.nix.join("store").display(),
        store = store.display(),
    ));
}

/// A system like this one whose files are changed by a shell command, in the directory of its copy.
fn variant(host: &Host<'_>, fixture: &Fixture, hash: char, script: &str) -> PathBuf {
    let name = fixture.system.file_name().unwrap().to_str().unwrap().split_once('-').unwrap().1;
    let system = Path::new("/nix/store").join(format!("{}-{name}", hash.to_string().repeat(32)));
    let place = host.path(system.to_str().unwrap());
    host.sh(&format!(
        "cp -a {} {place}; chmod -R u+w {place}; cd {place}
         sed -i 's|{}|{}|g' init activate bin/switch-to-configuration; {script}",
        host.path(path(fixture)).display(),
        fixture.system.display(),
        system.display(),
        place = place.display(),
    ));
    system
}

fn json(host: &Host<'_>, args: &[&str]) -> Value {
    serde_json::from_str(&host.ok(args)).expect("JSON")
}

/// What the web server of the container's present system would say: this one's does not start again.
fn page(host: &Host<'_>, name: &str) -> String {
    host.inside(name, "cat /run/current-system/www/index.html").trim().to_owned()
}

/// Numbers of all generations, the current one and the one that runs.
fn generations(host: &Host<'_>, name: &str) -> (Vec<u64>, Option<u64>, Option<u64>) {
    let all = json(host, &["generations", "--json", name]);
    let all = all.as_array().unwrap();
    let number = |one: &Value| one["generation"].as_u64().unwrap();
    let with = |key: &str| all.iter().filter(|one| one[key] == true).map(number).next_back();
    (all.iter().map(number).collect(), with("current"), with("running"))
}

#[test]
fn a_running_container_is_updated_and_rolled_back_without_a_restart() {
    on_host(|host| {
        let [first, second] = imperative(host, Kind::Mini, "mini");
        let container = host.boot("mini");
        let leader = container.leader();
        assert_eq!(page(host, "mini"), r#"{"message": "mini release 1"}"#);

        let updated = json(host, &["update", "mini", "--json", "--system-path", path(&second)]);
        assert_eq!(updated["generation"], 2);
        assert_eq!(updated["previous"], 1);
        assert_eq!(updated["activation"], "activated");
        assert_eq!(updated["system"], path(&second));
        assert_eq!(updated["warnings"], serde_json::json!([]));
        assert_eq!(page(host, "mini"), r#"{"message": "mini release 2"}"#);
        assert_eq!(generations(host, "mini"), (vec![1, 2], Some(2), Some(2)));
        // The same again changes nothing.
        let said = host.ok(&["update", "mini", "--system-path", path(&second)]);
        assert!(said.contains("generation 2, which it runs already"), "{said}");

        let said = host.ok(&["rollback", "mini"]);
        assert!(said.contains("mini: generation 1, activated without a restart: "), "{said}");
        assert_eq!(page(host, "mini"), r#"{"message": "mini release 1"}"#);
        host.ok(&["rollback", "mini", "2"]);
        assert_eq!(generations(host, "mini"), (vec![1, 2], Some(2), Some(2)));
        assert_eq!(container.leader(), leader, "it was restarted");
        let error = host.fails(1, &["rollback", "mini", "3"]);
        assert!(error.contains("no generation 3; there are 1, 2"), "{error}");

        let difference = json(host, &["diff", "mini", "--json"]);
        let packages = difference["packages"].as_array().unwrap();
        let system = packages.iter().find(|one| one["name"] == "nixos-system-mini").unwrap();
        assert_eq!((&system["old"][0], &system["new"][0]), (&"25.11.1".into(), &"25.11.2".into()));
        let paths = |key: &str| difference[key].as_array().unwrap().clone();
        assert!(
            paths("added").contains(&path(&second).into()) && paths("removed").contains(&path(&first).into())
        );
        let text = host.ok(&["diff", "mini", "2", "1"]);
        assert!(text.contains("nixos-system-mini  25.11.2 -> 25.11.1"), "{text}");

        host.inside("mini", "echo changed > /run/current-system-was; rm /etc/static");
        host.ok(&["reload", "mini"]);
        assert_eq!(host.inside("mini", "readlink /etc/static").trim(), format!("{}/etc", path(&second)));
        container.stop();
        let error = host.fails(1, &["reload", "mini"]);
        assert!(error.contains("is not running"), "{error}");
        let container = host.boot("mini");
        assert_eq!(page(host, "mini"), r#"{"message": "mini release 2"}"#);
        container.stop();
    });
}

#[test]
fn the_generations_are_those_of_nix() {
    on_host(|host| {
        let [_, second] = imperative(host, Kind::Mini, "mini");
        host.ok(&["update", "mini", "--system-path", path(&second)]);
        let profile = host.path("nix/var/nix/profiles/per-container/mini/system");
        let nix = |args: &str| {
            let store = format!(
                "NIX_IGNORE_SYMLINK_STORE=1 NIX_CONF_DIR=/nonexistent nix-env --store {}",
                host.dir().display()
            );
            host.sh(&format!("{store} -p {} {args}", profile.display()))
        };
        let listed = nix("--list-generations");
        assert!(
            listed.lines().count() == 2 && listed.lines().nth(1).unwrap().contains("(current)"),
            "{listed}"
        );
        nix("--rollback");
        assert_eq!(generations(host, "mini"), (vec![1, 2], Some(1), None));
        nix("--delete-generations 2");
        assert_eq!(generations(host, "mini"), (vec![1], Some(1), None));
    });
}

#[test]
fn a_system_that_cannot_be_activated_leaves_the_old_one() {
    on_host(|host| {
        let [_, second] = imperative(host, Kind::Mini, "mini");
        let bad = variant(
            host,
            &second,
            '1',
            "printf '#!/bin/sh\\nPATH=/run/current-system/sw/bin\\n\
             ln -sfn /nix/store/none /run/current-system-try; touch /half; echo \\033[31mno such unit; exit 4\\n' \
             > bin/switch-to-configuration",
        );
        let container = host.boot("mini");
        let error = host.fails(1, &["update", "mini", "--system-path", bad.to_str().unwrap()]);
        for part in [
            "generation 2 could not be activated in container mini",
            "switch-to-configuration exited with 4: ",
            "no such unit",
            "generation 1 is the current one again and runs",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains('\u{1b}'), "{error}");
        assert_eq!(generations(host, "mini"), (vec![1, 2], Some(1), Some(1)));
        assert!(host.inside("mini", "ls /half").contains("half"), "it was not tried");
        assert_eq!(page(host, "mini"), r#"{"message": "mini release 1"}"#);

        // One that takes a restart says so, and has it when asked.
        let other = variant(host, &second, '2', "echo -n 'systemd 2' > init-interface-version");
        let updated = json(host, &["update", "mini", "--json", "--system-path", other.to_str().unwrap()]);
        assert_eq!(updated["activation"], "at-restart");
        let warning = updated["warnings"][0].as_str().unwrap();
        assert!(
            warning.contains("when the container is restarted") && warning.contains("systemd 2"),
            "{warning}"
        );
        assert_eq!(generations(host, "mini"), (vec![1, 2, 3], Some(3), Some(1)));
        container.stop();
    });
}

#[test]
fn a_declared_system_is_the_hosts_to_change() {
    on_host(|host| {
        let built = host.install(Kind::Mini, "mini");
        let error = host.fails(1, &["update", "mini", "--system-path", path(&built)]);
        assert!(
            error.contains("SYSTEM_PATH is ") && error.contains("set with the host's configuration"),
            "{error}"
        );
        let error = host.fails(1, &["rollback", "mini"]);
        assert!(error.contains("cannot be rolled back"), "{error}");
        let container = host.boot("mini");
        host.inside("mini", "rm /etc/static");
        host.ok(&["reload", "mini"]);
        host.inside("mini", "test -L /etc/static");
        container.stop();
        let error = host.fails(1, &["update", "mimi", "--system-path", path(&built)]);
        assert!(error.contains("did you mean \"mini\"?"), "{error}");
    });
}

#[test]
fn what_is_no_system_is_refused_before_anything_changes() {
    on_host(|host| {
        let [first, _] = imperative(host, Kind::Mini, "mini");
        let before = host.snapshot();
        let within = format!("{}/bin", path(&first));
        for (given, why) in [
            (within.as_str(), "is no path of the Nix store"),
            ("/etc", "is no path of the Nix store"),
            ("/nix/store/00000000000000000000000000000000-none", "No such file"),
        ] {
            let error = host.fails(1, &["update", "mini", "--system-path", given]);
            assert!(error.contains("is no NixOS system") && error.contains(why), "{error}");
        }
        let error = host.fails(1, &["update", "mini"]);
        assert!(error.contains("etc/nixos/configuration.nix") && error.contains("--config"), "{error}");
        before.assert_same(&host.snapshot(), "after refusals");
    });
}

#[test]
fn data_go_back_with_their_generation_and_forward_again() {
    on_host(|host| {
        let [_, second] = imperative(host, Kind::Mini, "mini");
        let container = host.boot("mini");
        // Hard links, holes, special files and owners are data like any other.
        host.inside(
            "mini",
            "cd /var/lib && echo one > rows && ln rows again && mkfifo fifo && chown 7:8 rows
             truncate -s 1G sparse && chmod 4711 rows && ln -s /etc/shadow link",
        );
        let sparse = || {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(host.root_of("mini").join("var/lib/sparse")).unwrap().blocks()
        };
        let listing = |place: &Path| {
            host.sh(&format!(
                "cd {} && find . -xdev -printf '%P %y %m %U %G %n %T@ %l\\n' | sort",
                place.display()
            ))
        };
        let updated = json(host, &["update", "mini", "--json", "--snapshot", "--system-path", path(&second)]);
        assert_eq!((&updated["kept"], &updated["activation"]), (&1.into(), &"activated".into()));
        let kept = host.path("var/lib/nixos-containers/.snapshots/mini/1");
        assert_eq!(fs::read_to_string(kept.join("var/lib/rows")).unwrap(), "one\n");
        let (was, has) = (listing(&kept.join("var/lib")), listing(&host.root_of("mini").join("var/lib")));
        assert_eq!(was, has);
        assert!(
            was.contains("rows f 4711 7 8 2 ") && was.contains("link l ") && was.contains("fifo p "),
            "{was}"
        );
        assert!(sparse() < 100);
        let listed = json(host, &["generations", "--json", "mini"]);
        assert!(listed[0]["snapshot"].is_string() && listed[1]["snapshot"].is_null(), "{listed}");

        host.inside("mini", "echo two > /var/lib/rows; echo new > /var/lib/new");
        let error = host.fails(1, &["rollback", "mini", "2", "--with-data"]);
        assert!(
            error.contains("no data of generation 2 of container mini were kept: there are those of 1"),
            "{error}"
        );
        let leader = container.leader();
        let back = json(host, &["rollback", "mini", "--json", "--with-data"]);
        assert_eq!(
            (&back["generation"], &back["activation"], &back["kept"]),
            (&1.into(), &"restarted".into(), &2.into())
        );
        assert_ne!(host.ok(&["status", "mini"]).find(&leader.to_string()), Some(0));
        assert_eq!(
            host.inside("mini", "cat /var/lib/rows; cat /var/lib/again; ls /var/lib | grep -c new || :"),
            "one\none\n0\n"
        );
        assert_eq!(page(host, "mini"), r#"{"message": "mini release 1"}"#);
        assert_eq!(generations(host, "mini"), (vec![1, 2], Some(1), Some(1)));
        container.wait();

        host.ok(&["rollback", "mini", "2", "--with-data"]);
        assert_eq!(host.inside("mini", "cat /var/lib/rows /var/lib/new"), "two\nnew\n");
        host.ok(&["stop", "mini"]);
        host.ok(&["rollback", "mini", "1", "--with-data"]);
        assert_eq!(fs::read_to_string(host.root_of("mini").join("var/lib/rows")).unwrap(), "one\n");
        host.ok(&["destroy", "mini", "--yes"]);
        for place in ["var/lib/nixos-containers/.snapshots", "nix/var/nix/profiles/per-container/mini"] {
            assert!(!host.path(place).exists(), "{place} was left");
        }
    });
}

#[test]
fn a_container_goes_on_when_its_data_cannot_be_kept() {
    on_host(|host| {
        let [_, second] = imperative(host, Kind::Mini, "mini");
        let container = host.boot("mini");
        // A disk that is full in the middle.
        host.inside("mini", "dd if=/dev/zero of=/var/lib/big bs=1M count=8 2>/dev/null");
        let snapshots = host.path("var/lib/nixos-containers/.snapshots");
        fs::create_dir(&snapshots).unwrap();
        host.sh(&format!("mount -t tmpfs -o size=4M none {}", snapshots.display()));
        let error = host.fails(1, &["update", "mini", "--snapshot", "--system-path", path(&second)]);
        assert!(error.contains("No space left on device"), "{error}");
        assert_eq!(host.inside("mini", "echo alive"), "alive\n");
        assert_eq!(generations(host, "mini"), (vec![1], Some(1), Some(1)));
        assert_eq!(host.sh(&format!("find {} -mindepth 1", snapshots.display())), "");
        host.ok(&["pause", "mini"]);
        let error = host.fails(1, &["update", "mini", "--system-path", path(&second)]);
        assert!(error.contains("is paused") && error.contains("nixrun resume mini"), "{error}");
        host.ok(&["resume", "mini"]);
        container.stop();
    });
}

/// Calls on which something outside nixrun changes, or is about to.
const EFFECTS: &[&str] = &[
    "rename",
    "symlink",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "write",
    "fsync",
    "fchmod",
    "flock",
    "ioctl",
    "clone3",
    "syncfs",
    "open_tree",
    "openat2",
    "pidfd_open",
    "exit_group",
];

/// Every call of these that a run of nixrun makes, each `step`th of a kind that has many.
fn points(host: &Host<'_>, args: &[&str], step: usize) -> Vec<Point> {
    let file = host.path("output/trace");
    fs::create_dir_all(host.path("output")).unwrap();
    let done = host.traced(&["-o", file.to_str().unwrap()], args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let effects = calls(&file).into_iter().filter(|point| EFFECTS.contains(&point.name.as_str()));
    let all: Vec<Point> = effects.collect();
    let few = |point: &Point| all.iter().filter(|other| other.name == point.name).count() <= 20;
    all.iter().filter(|point| few(point) || point.nth % step == 0).cloned().collect()
}

fn killed_at(host: &Host<'_>, point: &Point, args: &[&str]) -> String {
    let fault = format!("inject={}:signal=SIGKILL:when={}", point.name, point.nth);
    let _ = host.traced(&["-o", "/dev/null", "-e", &fault], args).output().unwrap();
    format!("SIGKILL at {} {}", point.name, point.nth)
}

/// No command is in between, nothing is half made.
fn assert_settled(host: &Host<'_>, point: &str) {
    // An empty directory of ours that all containers share is nothing.
    let left = host.sh(&format!(
        "cd {}; find var/lib/nixrun/changes nix/var/nix/gcroots/nixrun run/nixrun/.changes run/nixrun/.builds \
         nix/var/nix/profiles/per-container/mini ! -type d ! -name 'system*' 2>/dev/null || :
         find var/lib/nixos-containers/.snapshots/mini -maxdepth 1 -name '.*' 2>/dev/null || :",
        host.dir().display()
    ));
    assert_eq!(left, "", "after {point}");
}

#[test]
fn an_update_that_is_killed_anywhere_is_undone_or_was_done() {
    on_host(|host| {
        let [first, second] = imperative(host, Kind::Mini, "mini");
        let container = host.boot("mini");
        let args = ["update", "mini", "--snapshot", "--system-path", path(&second)];
        let profile = host.path("nix/var/nix/profiles/per-container/mini");
        let again = || {
            host.ok(&["rollback", "mini", "1"]);
            host.sh(&format!(
                "rm -rf {}/system-2-link {}",
                profile.display(),
                host.path("var/lib/nixos-containers/.snapshots").display()
            ));
        };
        let points = points(host, &args, 9);
        again();
        let (mut undone, mut done) = (0, 0);
        for point in &points {
            let point = killed_at(host, point, &args);
            // The next command on it.
            host.ok(&["reload", "mini"]);
            assert_settled(host, &point);
            let (all, current, running) = generations(host, "mini");
            assert_eq!(current, running, "after {point}: {all:?}");
            let expected = if current == Some(2) { &second } else { &first };
            assert_eq!(
                host.inside("mini", "readlink /run/current-system").trim(),
                path(expected),
                "after {point}"
            );
            if current == Some(2) {
                done += 1
            } else {
                undone += 1
            }
            again();
        }
        assert!(undone > 10 && done > 0, "{undone} undone, {done} done of {}", points.len());
        container.stop();
    });
}

#[test]
fn a_return_to_earlier_data_that_is_killed_anywhere_is_completed_or_was_not_begun() {
    on_host(|host| {
        let [_, second] = imperative(host, Kind::Mini, "mini");
        let rows = host.root_of("mini").join("rows");
        fs::create_dir_all(host.root_of("mini")).unwrap();
        fs::write(&rows, "1").unwrap();
        host.ok(&["update", "mini", "--snapshot", "--system-path", path(&second)]);
        fs::write(&rows, "2").unwrap();
        let (back, forth) =
            (["rollback", "mini", "1", "--with-data"], ["rollback", "mini", "2", "--with-data"]);
        let points = points(host, &back, 9);
        host.ok(&forth);
        let (mut undone, mut done) = (0, 0);
        for point in &points {
            let point = killed_at(host, point, &back);
            // The next command on it, which then says that it does not run.
            host.fails(1, &["reload", "mini"]);
            assert_settled(host, &point);
            let current = generations(host, "mini").1.unwrap();
            assert_eq!(fs::read_to_string(&rows).unwrap(), current.to_string(), "after {point}");
            let kept = host.path("var/lib/nixos-containers/.snapshots/mini").join((3 - current).to_string());
            assert_eq!(
                fs::read_to_string(kept.join("rows")).unwrap(),
                (3 - current).to_string(),
                "after {point}"
            );
            if current == 1 {
                done += 1;
                host.ok(&forth);
            } else {
                undone += 1;
            }
        }
        assert!(undone > 5 && done > 5, "{undone} undone, {done} done of {}", points.len());
    });
}

#[test]
fn a_subvolume_is_kept_as_a_snapshot_with_those_nested_in_it() {
    on_host(|host| {
        fixture::require(&[("mkfs.btrfs", "btrfs-progs")]).unwrap();
        let [_, second] = imperative(host, Kind::Mini, "mini");
        let containers = host.path("var/lib/nixos-containers");
        host.sh(&format!(
            "truncate -s 200M {image}; mkfs.btrfs -q {image}; mkdir -p {place}; mount -o loop {image} {place}
             btrfs -q subvolume create {place}/mini; mkdir {place}/mini/srv
             btrfs -q subvolume create {place}/mini/srv/nested; echo deep > {place}/mini/srv/nested/rows
             echo one > {place}/mini/rows",
            image = host.path("image").display(),
            place = containers.display(),
        ));
        host.ok(&["update", "mini", "--snapshot", "--system-path", path(&second)]);
        let kept = containers.join(".snapshots/mini/1");
        let inode = |place: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(place).unwrap());
        assert_eq!(inode(&kept), 256, "it is no subvolume");
        assert_eq!(fs::read_to_string(kept.join("srv/nested/rows")).unwrap(), "deep\n");
        fs::write(containers.join("mini/srv/nested/rows"), "changed").unwrap();
        host.ok(&["rollback", "mini", "--with-data"]);
        assert_eq!(fs::read_to_string(containers.join("mini/srv/nested/rows")).unwrap(), "deep\n");
        assert_eq!(
            fs::read_to_string(containers.join(".snapshots/mini/2/srv/nested/rows")).unwrap(),
            "changed"
        );
        host.ok(&["destroy", "mini", "--yes"]);
        assert!(!containers.join(".snapshots").exists());
    });
}
