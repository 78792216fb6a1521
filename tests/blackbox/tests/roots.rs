//! Roots and mounts by systemd-nspawn's own options, under `nixrun nspawn` and under systemd-nspawn.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use blackbox::{Container, Host, finish, in_place, nspawn, on_host, probe_root, wait_for};

/// A root of which everything is in /usr.
fn system(host: &Host<'_>, name: &str) -> PathBuf {
    let root = probe_root(host, name);
    for program in ["bash", "busybox"] {
        fs::rename(root.join("probe").join(program), root.join("usr/bin").join(program)).unwrap();
    }
    // systemd-nspawn 252 makes the root read-only before it makes what is missing in it.
    for directory in ["tmp", "proc", "sys", "dev", "run", "var", "root", "mnt"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    for (name, to) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib")] {
        fs::create_dir_all(root.join(to)).unwrap();
        symlink(to, root.join(name)).unwrap();
    }
    fs::write(root.join("var/old"), "old").unwrap();
    fs::write(root.join("etc/os-release"), "ID=nixos\n").unwrap();
    fs::write(root.join("usr/lib/os-release"), "ID=nixos\n").unwrap();
    root
}

/// What one or the other would make on the host or in the root besides.
const NO_JOURNAL: &str = "--link-journal=no";

/// What lies where, what is writable, what is there. What every container has is compared elsewhere.
const PROBE: &str = r#"
    B=/usr/bin/busybox
    while read -r _ _ _ root point options rest; do
        rest=${rest#*- }; set -- $rest
        case $point in /proc*|/sys*|/dev*|/run*) continue ;; esac
        case $1 in ext4|xfs|btrfs) type=host ;; *) type=$1 ;; esac
        case $1 in tmpfs) more=$3 ;; *) more= ;; esac
        # Where tests have their files is a tmpfs, too, with no limits.
        case $more in *size=*) ;; *) more= ;; esac
        echo "mount $point $options $type $more"
    done < /proc/self/mountinfo
    for place in / /usr /var /etc /tmp /run /root /dev /dev/shm /mnt/a /mnt/b /mnt/c /mnt/d; do
        [ -e $place ] || { echo "no $place"; continue; }
        echo "at $place: $($B stat -c '%F %a %u' $place)" $($B ls -A $place 2>&1 | $B grep -v -e '^core$' -e '^kmsg$' | $B head -40)
        [ -d $place ] && (: > $place/.probe) 2>/dev/null && $B rm $place/.probe && echo "writable $place"
    done
    exit 0
"#;

/// Runs the probe under both; each gets a root of its own, and the two are the same afterwards.
fn compare(options: &[&str], known: &[&str]) {
    on_host(|host| {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        host.sh(&format!("mkdir -p -m 1777 {}/var/tmp", host.dir().display()));
        let tail = [NO_JOURNAL, "--console=read-only", "-M", "t", "--", "/usr/bin/bash", "-c", PROBE];
        let mut texts = Vec::new();
        let mut trees = Vec::new();
        for (name, is_ours) in [("ours", true), ("theirs", false)] {
            let root = system(host, name);
            let place = host.path("roots").join(name);
            let options: Vec<String> =
                options.iter().map(|o| o.replace("@", place.to_str().unwrap())).collect();
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let mut command =
                if is_ours { in_place(host, &root, &options) } else { nspawn(host, &root, &options) };
            let finished = finish(command.args(tail));
            assert_eq!(finished.code, Some(0), "{options:?}: {}{}", finished.out, finished.err);
            let text = finished.out.replace('\r', "");
            texts.push(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>());
            trees.push(host.sh(&format!("cd {} && find . -printf '%p %y %m %l\\n' | sort", root.display())));
        }
        let (ours, theirs) = (&texts[0], &texts[1]);
        let differs = |line: &&String| !known.iter().any(|known| line.starts_with(known));
        let alone: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).filter(differs).collect();
        let missing: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).filter(differs).collect();
        assert!(
            alone.is_empty() && missing.is_empty(),
            "{options:?}: nixrun {alone:#?}, nspawn {missing:#?}"
        );
        assert_eq!(trees[0], trees[1], "{options:?}: what is left in the root");
    });
}

#[test]
fn a_plain_root() {
    compare(&[], &[]);
}

#[test]
fn read_only() {
    compare(&["--read-only"], &[]);
}

#[test]
fn volatile() {
    compare(&["--volatile=yes"], &[]);
    compare(&["--volatile=state"], &[]);
    compare(&["--volatile=overlay"], &[]);
}

#[test]
fn ephemeral() {
    // The copy of systemd-nspawn is on the disk, ours is an overlay in memory.
    compare(&["--ephemeral"], &["mount / "]);
    compare(&["--ephemeral", "--read-only"], &["mount / "]);
}

#[test]
fn binds() {
    // systemd-nspawn's temporary directory is below the machine's /var/tmp, ours below the test's.
    let temporary = ["mount /mnt/d "];
    compare(
        &["--bind=@/etc:/mnt/a", "--bind-ro=@/usr:/mnt/b", "--bind=+/var:/mnt/c", "--bind=:/mnt/d"],
        &temporary,
    );
    compare(
        &["--bind=/dev/null:/mnt/a", "--bind-ro=@/etc/os-release:/mnt/b", "--bind=@/var:/tmp/var:norbind"],
        &[],
    );
}

#[test]
fn overlays_and_tmpfs() {
    compare(
        &["--overlay=@/etc:@/usr:@/var:/mnt/a", "--overlay-ro=@/etc:@/usr:/mnt/b", "--overlay=+/etc::/mnt/c"],
        // The directories that the kernel works in have random names.
        &["at /: "],
    );
    compare(&["--tmpfs=/mnt/a", "--tmpfs=/mnt/b:mode=0700,size=1m", "--tmpfs=/var/old2/new"], &[]);
}

#[test]
fn without_a_tmpfs_on_tmp() {
    on_host(|host| {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        let tail = [NO_JOURNAL, "--console=read-only", "-M", "t", "--", "/usr/bin/bash", "-c", PROBE];
        let root = system(host, "t");
        let run = |mut command: Command| {
            let finished = finish(command.env("SYSTEMD_NSPAWN_TMPFS_TMP", "0").args(tail));
            assert_eq!(finished.code, Some(0), "{}{}", finished.out, finished.err);
            finished.out.replace('\r', "").lines().filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n")
        };
        let ours = run(in_place(host, &root, &[]));
        assert_eq!(ours, run(nspawn(host, &root, &[])));
        assert!(!ours.contains("mount /tmp "), "{ours}");
    });
}

/// Mounts of the kernel's file systems: place and flags.
const KERNEL: &str = r#"
    while read -r _ _ _ root point options rest; do
        rest=${rest#*- }; set -- $rest
        case $point in /proc*|/sys*) echo "$point $options $1" ;; esac
    done < /proc/self/mountinfo
    for file in /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward; do
        (: >> $file) 2>/dev/null && echo "writable $file"
    done
    exit 0
"#;

#[test]
fn views_of_the_kernel() {
    on_host(|host| {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        let root = system(host, "t");
        for network in [&[][..], &["--private-network"][..]] {
            for (key, value) in [
                ("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes"),
                ("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "no"),
                ("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network"),
            ] {
                let tail =
                    [NO_JOURNAL, "--console=read-only", "-M", "t", "--", "/usr/bin/bash", "-c", KERNEL];
                let run = |mut command: Command| {
                    let finished = finish(command.env(key, value).args(tail));
                    assert_eq!(finished.code, Some(0), "{value}: {}{}", finished.out, finished.err);
                    let text = finished.out.replace('\r', "");
                    // systemd-nspawn does not get its masks mounted, and mounts the boot id twice; SELinux is older.
                    let own = [
                        "kallsyms",
                        "kcore",
                        "/keys",
                        "sysrq-trigger",
                        "timer_list",
                        "boot_id rw",
                        "selinux",
                    ];
                    let mut lines: Vec<String> = text
                        .lines()
                        .filter(|line| !line.is_empty() && !own.iter().any(|own| line.contains(own)))
                        .map(str::to_owned)
                        .collect();
                    // systemd-nspawn mounts some a second time over themselves.
                    lines.sort();
                    lines.dedup();
                    lines
                };
                let (ours, theirs) = (run(in_place(host, &root, network)), run(nspawn(host, &root, network)));
                assert_eq!(ours, theirs, "{key}={value} {network:?}");
            }
        }
    });
}

#[test]
fn several_ephemeral_containers_of_one_root() {
    on_host(|host| {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        let root = system(host, "shared");
        let before = host.sh(&format!("find {} -printf '%p %y %m %T@\\n' | sort", root.display()));
        let script = "echo $$ > /file; trap 'exit 0' TERM; echo started; while :; do /usr/bin/busybox sleep 0.05; done";
        let start = |name: &str| {
            let mut command = in_place(host, &root, &["--ephemeral", "--console=read-only", "-M", name]);
            command.args(["--", "/usr/bin/bash", "-c", script]);
            Container::spawn(host, name, command)
        };
        let running: Vec<_> = ["one", "two", "three"].map(start).into_iter().collect();
        for container in &running {
            wait_for("the start", || container.out().contains("started").then_some(()));
        }
        running.into_iter().for_each(|container| drop(container.stop()));
        assert_eq!(host.sh(&format!("find {} -printf '%p %y %m %T@\\n' | sort", root.display())), before);
    });
}

#[test]
fn what_a_killed_nixrun_made_on_the_host_is_reclaimed() {
    on_host(|host| {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        let root = system(host, "t");
        host.sh(&format!("mkdir -p -m 1777 {0}/var/tmp; mkdir {0}/up", host.dir().display()));
        let up = host.path("up/layer");
        fs::create_dir(&up).unwrap();
        let before = host.snapshot();
        let overlay = format!("--overlay={}:{}:/mnt/a", root.join("etc").display(), up.display());
        let script =
            "echo x > /mnt/a/x; echo x > /mnt/b/x; echo started; while :; do /usr/bin/busybox sleep 1; done";
        let options = [&overlay, "--bind=:/mnt/b", "--console=read-only", "-M", "t"];
        let mut command = in_place(host, &root, &options);
        command.args(["--", "/usr/bin/bash", "-c", script]);
        let container = Container::spawn(host, "t", command);
        wait_for("the start", || container.out().contains("started").then_some(()));
        let list = |place: &str| fs::read_dir(host.path(place)).unwrap().count();
        assert_eq!((list("var/tmp"), list("up")), (1, 2));
        container.signal(nix::sys::signal::Signal::SIGKILL);
        container.wait();
        wait_for("the container's end", || host.processes().is_empty().then_some(()));
        let said = host.ok(&["reclaim", "t"]);
        assert!(said.contains("temporary directory") && said.contains("work directory"), "{said}");
        assert_eq!((list("var/tmp"), list("up")), (0, 1));
        fs::remove_file(up.join("x")).unwrap();
        before.assert_same(&host.snapshot(), "after a reclaim");
    });
}

/// A container of a root or an image, until it has said that it runs; then its nixrun is killed.
fn killed(host: &Host<'_>, command: Command) {
    let container = Container::spawn(host, "t", command);
    wait_for("the start", || container.out().contains("started").then_some(()));
    container.signal(nix::sys::signal::Signal::SIGKILL);
    container.wait();
    wait_for("the container's end", || host.processes().is_empty().then_some(()));
}

const RUN: &str = "echo started; while :; do /usr/bin/busybox sleep 1; done";

/// Loop devices of a file, as the kernel knows them.
fn loops(image: &Path) -> usize {
    let devices = fs::read_dir("/sys/block").unwrap().map(|device| device.unwrap().path());
    let files = devices.filter_map(|device| fs::read_to_string(device.join("loop/backing_file")).ok());
    files.filter(|file| file.trim() == image.to_str().unwrap()).count()
}

#[test]
fn the_loop_device_of_a_killed_nixrun_goes_with_it() {
    on_host(|host| {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        let root = system(host, "t");
        let image = host.path("image.raw");
        host.sh(&format!("mke2fs -q -t ext4 -d {} {} 32M", root.display(), image.display()));
        let start = |host: &Host<'_>| {
            let mut command = host.nixrun(&["nspawn", "--register=no", "--keep-unit", NO_JOURNAL, "-i"]);
            command.arg(&image).args(["--console=read-only", "-M", "t", "--", "/usr/bin/bash", "-c"]);
            command
        };
        let before = host.snapshot();
        let mut command = start(host);
        command.arg(RUN);
        let container = Container::spawn(host, "t", command);
        wait_for("the start", || container.out().contains("started").then_some(()));
        assert_eq!(loops(&image), 1);
        container.signal(nix::sys::signal::Signal::SIGKILL);
        container.wait();
        wait_for("the loop device to be free", || (loops(&image) == 0).then_some(()));
        host.ok(&["reclaim", "t"]);
        before.assert_same(&host.snapshot(), "after a reclaim");
        // The image is nobody's, and whole.
        let finished = finish(start(host).arg("echo again"));
        assert_eq!(finished.code, Some(0), "{}", finished.err);
        assert_eq!(loops(&image), 0);
    });
}

#[test]
fn a_copy_of_a_template_that_was_not_finished_is_removed() {
    on_host(|host| {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        let template = system(host, "template");
        let root = host.path("roots/t");
        let arguments = |script: &str| {
            [
                "nspawn",
                "--register=no",
                "--keep-unit",
                NO_JOURNAL,
                "--template",
                template.to_str().unwrap(),
                "-D",
                root.to_str().unwrap(),
                "--console=read-only",
                "-M",
                "t",
                "--",
                "/usr/bin/bash",
                "-c",
                script,
            ]
            .map(str::to_owned)
        };
        let entries = || {
            let names = fs::read_dir(host.path("roots")).unwrap().map(|entry| entry.unwrap().file_name());
            let names = names.map(|name| name.to_string_lossy().into_owned());
            let mut names: Vec<_> = names.filter(|name| !name.ends_with(".lck")).collect();
            names.sort();
            names
        };
        // The copy is complete, and would be given its name.
        let kill = || {
            let arguments = arguments("exit 9");
            let arguments = arguments.each_ref().map(String::as_str);
            let fault = "inject=rename:signal=KILL:when=1";
            let output = host.traced(&["-o", "/dev/null", "-e", fault], &arguments).output().unwrap();
            assert!(!output.status.success());
            let names = entries();
            assert!(names.len() == 2 && names[0].starts_with(".#t."), "{names:?}");
        };
        kill();
        let said = host.ok(&["reclaim", "t"]);
        assert!(said.contains("copy of"), "{said}");
        assert_eq!(entries(), ["template"]);
        kill();
        let arguments = arguments("echo whole");
        let finished = finish(&mut host.nixrun(&arguments.each_ref().map(String::as_str)));
        assert!(finished.code == Some(0) && finished.out.contains("whole"), "{}", finished.err);
        assert_eq!(entries(), ["t", "template"]);
    });
}

#[test]
fn what_served_machined_is_reclaimed() {
    on_host(|host| {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        let root = system(host, "t");
        let start = |register: &str, script: &str| {
            let mut command = host.nixrun(&["nspawn", register, "--keep-unit", NO_JOURNAL, "-D"]);
            command.arg(&root).args(["--console=read-only", "-M", "t", "--", "/usr/bin/bash", "-c", script]);
            command
        };
        // The directories above stay, as under systemd-nspawn.
        assert_eq!(finish(&mut start("--register=yes", "exit 0")).code, Some(0));
        let before = host.snapshot();
        let (propagate, export) =
            (host.path("run/systemd/nspawn/propagate/t"), host.path("run/systemd/nspawn/unix-export/t"));
        let there = || (propagate.exists(), export.exists());
        assert_eq!(there(), (false, false));
        killed(host, start("--register=yes", RUN));
        assert_eq!(there(), (true, true));
        let said = host.ok(&["reclaim", "t"]);
        assert!(said.contains("propagate/t") && said.contains("unix-export/t"), "{said}");
        assert_eq!(there(), (false, false));
        before.assert_same(&host.snapshot(), "after a reclaim");
        // The next start does it as well, be it one that needs neither.
        killed(host, start("--register=yes", RUN));
        assert_eq!(there(), (true, true));
        assert_eq!(finish(&mut start("--register=no", "exit 0")).code, Some(0));
        before.assert_same(&host.snapshot(), "after another start");
    });
}
