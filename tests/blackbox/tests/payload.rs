//! How PID 1 is run and what it finds of its host, under `nixrun nspawn` and under the real systemd-nspawn with the same
//! options: what TEST-13 of systemd asserts about users, the stub, credentials, name servers and the like, and more.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use blackbox::{Container, Finished, Host, finish, nspawn, on_host, usr_root, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Options that both get in every case.
const COMMON: [&str; 4] = ["--register=no", "--keep-unit", "-M", "t"];

/// The two runtimes, each with a root of its own that is made alike.
struct Pair<'h> {
    host: &'h Host<'h>,
    roots: [PathBuf; 2],
}

impl<'h> Pair<'h> {
    fn new(host: &'h Host<'h>) -> Pair<'h> {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        let roots = ["ours", "theirs"].map(|name| usr_root(host, name));
        let pair = Pair { host, roots };
        pair.write("etc/nsswitch.conf", "passwd: files\ngroup: files\ninitgroups: files\n");
        pair.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nada:x:1000:100::/home/ada:/bin/sh\n");
        pair.write("etc/group", "root:x:0:\nwheel:x:10:ada\nusers:x:100:\nvideo:x:12:bob,ada\n");
        pair
    }

    /// Does something to both roots.
    fn each(&self, change: impl Fn(&Path)) {
        self.roots.iter().for_each(|root| change(root));
    }

    fn write(&self, path: &str, text: &str) {
        self.each(|root| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        });
    }

    fn commands(&self, options: &[&str]) -> [Command; 2] {
        let [ours, theirs] = &self.roots;
        let mut first = self.host.nixrun(&["nspawn", "--timezone=off", "--resolv-conf=off"]);
        first.args(COMMON).arg("-D").arg(ours);
        let mut second = nspawn(self.host, theirs, &["-M", "t"]);
        for command in [&mut first, &mut second] {
            command.arg("--bind-ro=/usr").args(options);
        }
        [first, second]
    }

    /// Runs a shell script under both with the same options.
    fn run(&self, options: &[&str], script: &str) -> [Finished; 2] {
        self.commands(options).map(|mut command| {
            let mut finished = finish(command.args(["--", "/bin/sh", "-c", script]));
            finished.out = finished.out.replace('\r', "");
            finished
        })
    }

    /// The same, with the same end and the same output under both; that output.
    #[track_caller]
    fn same(&self, options: &[&str], script: &str) -> String {
        let [ours, theirs] = self.run(options, script);
        let lines = |finished: &Finished| finished.out.trim_end().to_owned();
        let words = format!("{options:?}\nours: {}\ntheirs: {}", ours.err, theirs.err);
        assert_eq!((ours.code, lines(&ours)), (theirs.code, lines(&theirs)), "{words}");
        lines(&ours)
    }

    /// What both have at a path: its kind, mode, owner, and content or where it leads.
    #[track_caller]
    fn same_file(&self, path: &str) -> String {
        let of = |root: &Path| {
            let path = root.join(path);
            let script = format!(
                "stat -c '%F %a %u:%g' {0} 2>&1 | sed 's,{1},,'; readlink {0} || [ ! -f {0} ] || cat {0}",
                path.display(),
                root.display()
            );
            self.host.sh(&format!("{script} || :"))
        };
        let [ours, theirs] = [of(&self.roots[0]), of(&self.roots[1])];
        assert_eq!(ours, theirs, "{path}");
        ours
    }
}

#[test]
fn a_user_is_the_containers_own() {
    on_host(|host| {
        let pair = Pair::new(host);
        let script = "id -u; id -g; id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '; echo; pwd; env | sort | grep -E '^(HOME|USER|LOGNAME)='
            grep -E '^(Cap|Uid|Gid|Groups|NoNewPrivs)' /proc/self/status; stat -c '%u:%g %a' /home/ada; stat -c %u:%g /home";
        let found = pair.same(&["--console=pipe", "--user=ada"], script);
        assert!(found.contains("1000\n100\n10 12 100") && found.contains("HOME=/home/ada"), "{found}");
        pair.same(&["--console=pipe", "--user=1000"], "id -u; echo $HOME $USER");
        pair.same(&["--console=pipe", "--user=root"], script);
        pair.same(&["--console=pipe", "--user=0"], "id -u; echo $HOME $USER");
        pair.same(&["--console=read-only", "--user=ada"], "stat -L -c %u:%g /proc/self/fd/0 /proc/self/fd/2");
        pair.same(&["--console=pipe", "--user=ada", "-a", "--chdir=/tmp"], "pwd; id -u");
        pair.same(
            &["--console=pipe", "--user=ada", "--no-new-privileges=yes"],
            "grep NoNew /proc/self/status",
        );
        let [ours, theirs] = pair.run(&["--user=eve"], "true");
        assert_eq!((ours.code, theirs.code), (Some(1), Some(1)), "{} {}", ours.err, theirs.err);
        assert!(ours.err.contains("user eve"), "{}", ours.err);
    });
}

#[test]
fn where_and_with_what_pid_1_begins() {
    on_host(|host| {
        let pair = Pair::new(host);
        pair.same(&["--console=pipe", "--chdir=/usr/share"], "pwd");
        let [ours, theirs] = pair.run(&["--console=pipe", "--chdir=/none"], "pwd");
        assert_eq!((ours.code, theirs.code), (Some(1), Some(1)), "{}{}", ours.err, theirs.err);
        pair.same(&["--console=pipe", "--hostname=other"], "cat /proc/sys/kernel/hostname");
        let uuid = "--uuid=f01dab1e-5eed-4bad-ca5e-0123456789ab";
        let script = "echo $container_uuid; cat /run/host/container-uuid";
        assert!(pair.same(&["--console=pipe", uuid], script).contains("f01dab1e-5eed"));
        pair.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        assert!(pair.same(&["--console=pipe", uuid], script).contains("01234567-89ab"));
        // The environment, in its order, but for what one of them knows of the host it runs on.
        let environ = "tr '\\0' '\\n' < /proc/1/environ | grep -v ^container_host_";
        for console in ["--console=pipe", "--console=read-only"] {
            pair.same(&[console, "--setenv=A=1", "--setenv=HOME=/x"], environ);
            pair.same(&[console, "--user=ada", "--set-credential=a:b"], environ);
        }
        pair.same(&["--console=read-only"], "stty size; ls -l /proc/self/fd | wc -l");
        let [ours, theirs] = pair.commands(&["--console=pipe"]).map(|mut command| {
            command.env("SYSTEMD_NSPAWN_CONTAINER_SERVICE", "other");
            finish(command.args(["--", "/bin/sh", "-c", "echo $container; cat /run/host/container-manager"]))
        });
        assert_eq!((ours.out.as_str(), ours.out.as_str()), ("other\nother\n", theirs.out.as_str()));
    });
}

#[test]
fn a_stub_is_pid_1_alike() {
    on_host(|host| {
        let pair = Pair::new(host);
        let script =
            "echo $$; ls /proc/1/fd | tr '\\n' ' '; tr '\\0' '\\n' < /proc/1/environ | sed s/uuid=.*/uuid=/
            sleep 0.1 & ps -o pid= -o sid= -o tty= -p 1,$$ | cat; exit 7";
        for console in ["--console=pipe", "--console=read-only"] {
            let [ours, theirs] = pair.run(&[console, "--as-pid2"], script);
            assert_eq!(ours.code, Some(7), "{}", ours.err);
            // Without CAP_SYS_RESOURCE the real one's environment stays what it was called with.
            let known = |text: &str| {
                text.lines().filter(|line| !line.contains('=')).map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(
                (known(&ours.out), ours.code),
                (known(&theirs.out), theirs.code),
                "{}{}",
                ours.out,
                theirs.out
            );
        }
        pair.same(&["--console=pipe", "-a"], "kill -9 $$");
        let [ours, theirs] = pair.run(&["--console=pipe", "-a"], "echo $LANG; cat /proc/1/comm");
        assert_eq!(
            (ours.out.as_str(), theirs.out.as_str()),
            ("C.UTF-8\nnixrun-stub\n", "C.UTF-8\n(sd-stubinit)\n")
        );
    });
}

/// PID 1 of the container that a supervisor runs: the first process below it in a pid namespace of its own.
fn pid_1(supervisor: i32) -> i32 {
    wait_for("PID 1", || {
        let children = |pid: i32| -> Vec<i32> {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
        };
        let is_first = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| status.lines().any(|line| line == format!("NSpid:\t{pid}\t1")))
        };
        let below = children(supervisor);
        let further: Vec<i32> = below.iter().flat_map(|pid| children(*pid)).collect();
        below.into_iter().chain(further).find(is_first)
    })
}

#[test]
fn a_stubs_signals_end_the_container_alike() {
    on_host(|host| {
        // The hang-up that follows would end a shell before its trap runs.
        let script = "trap '' HUP; trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.05; done";
        // Halt, power off; reboot, which the unit that both take themselves to be in sees as exit code 133.
        let pair = Pair::new(host);
        for (signal, code) in [(37, 0), (38, 0), (47, 0), (2, 133), (39, 133), (50, 133)] {
            for mut command in pair.commands(&["--console=pipe", "-a"]) {
                command.args(["--", "/bin/sh", "-c", script]);
                let container = Container::spawn(host, "t", command);
                wait_for("the program", || container.out().contains("up").then_some(()));
                let pid = pid_1(container.supervisor());
                // Real-time signals have no names that the crate knows.
                if signal == 2 {
                    kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
                } else {
                    host.sh(&format!("kill -{signal} {pid}"));
                }
                let end = container.wait();
                assert_eq!((end.code, end.out.as_str()), (Some(code), "up\ntold\n"), "{signal}: {}", end.err);
            }
        }
    });
}

#[test]
fn credentials_are_alike() {
    on_host(|host| {
        let pair = Pair::new(host);
        fs::write(host.path("secret"), "from a file\n").unwrap();
        let load = format!("--load-credential=file:{}", host.path("secret").display());
        let options = ["--console=pipe", "--set-credential=mynote:strangers are friends", load.as_str()];
        let script = "cd $CREDENTIALS_DIRECTORY; pwd; stat -c '%n %a %u:%g %s' . *; cat *
            grep '/run/host/credentials ro' /proc/self/mountinfo | sed 's/shared:[0-9]* - //; s/ramfs [a-z]*/ramfs/; s/,mode=.*//' | cut -d' ' -f5-";
        let found = pair.same(&options, script);
        assert!(found.contains("mynote 400 0:0 21") && found.contains("ramfs ro"), "{found}");
        let options = [options.as_slice(), &["--user=ada", "--no-new-privileges=yes"]].concat();
        // Of no use in 252; since v256 at the latest it may read them, as nobody else is there to.
        let [ours, _] = pair.run(&options, "cat /run/host/credentials/mynote");
        assert_eq!((ours.code, ours.out.as_str()), (Some(0), "strangers are friends"), "{}", ours.err);
        // As PID 2 there is another process beside it.
        let options = [options.as_slice(), &["-a"]].concat();
        pair.same(&options, "cat /run/host/credentials/mynote 2>/dev/null");
        for bad in [
            "--set-credential=a/b:c",
            "--set-credential=:c",
            "--set-credential=a",
            "--load-credential=a:/none",
        ] {
            let [ours, theirs] = pair.run(&[bad], "true");
            assert_eq!((ours.code, theirs.code), (Some(1), Some(1)), "{bad}: {}{}", ours.err, theirs.err);
        }
        // Neither the plan nor what stays of the container says the value.
        let root = pair.roots[0].to_str().unwrap();
        let container = host.spawn(
            "t",
            &[
                "nspawn",
                "--register=no",
                "--keep-unit",
                "-M",
                "t",
                "-D",
                root,
                "--bind-ro=/usr",
                "--set-credential=a:SECRETVALUE",
                "--console=pipe",
                "--",
                "/bin/sh",
                "-c",
                "sleep 1000",
            ],
        );
        let _ = container.leader();
        let kept = host.sh(&format!(
            "cat {0}/run/nixrun/t/* 2>/dev/null; grep -ral SECRETVALUE {0}/run {0}/var || :",
            host.dir().display()
        ));
        assert!(!kept.contains("SECRETVALUE") && !kept.contains("/run/"), "{kept}");
        // No core dump of the supervisor has it.
        let status = fs::metadata(format!("/proc/{}/environ", container.supervisor())).unwrap();
        assert_eq!(status.permissions().mode() & 0o777, 0o400);
    });
}

/// The real one reads the machine's own files, so ours is given the same.
fn like_the_machine(host: &Host<'_>) {
    for file in ["/etc/resolv.conf", "/etc/localtime", "/usr/lib/systemd/resolv.conf"] {
        let path = host.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match fs::read_link(file) {
            Ok(to) => {
                symlink(&to, &path).unwrap();
                let below = Path::new("/etc").join(&to);
                let real = fs::canonicalize(below).unwrap();
                let place = host.path(real.to_str().unwrap());
                fs::create_dir_all(place.parent().unwrap()).unwrap();
                fs::copy(&real, &place).unwrap();
            }
            Err(_) if Path::new(file).exists() => drop(fs::copy(file, &path).unwrap()),
            Err(_) => {}
        }
    }
}

#[test]
fn name_servers_come_alike() {
    on_host(|host| {
        like_the_machine(host);
        let modes = [
            "off",
            "copy-host",
            "replace-host",
            "bind-host",
            "delete",
            "auto",
            "copy-static",
            "bind-uplink",
            "replace-stub",
        ];
        for mode in modes {
            let option = format!("--resolv-conf={mode}");
            let options = [option.as_str(), "--console=pipe"];
            let script = "cat /etc/resolv.conf 2>/dev/null; grep /etc/resolv.conf /proc/self/mountinfo | cut -d' ' -f5,6";
            type Setup = (&'static str, fn(&Path));
            let setups: [Setup; 5] = [
                ("nothing", |_| {}),
                ("a file", |etc| {
                    fs::write(etc.join("resolv.conf"), "nameserver 192.0.2.99\n# much longer\n").unwrap()
                }),
                // 252 mounts over what the link leads to; 256 leaves it alone, as we do.
                ("a link", |etc| symlink("../run/resolve.conf", etc.join("resolv.conf")).unwrap()),
                ("a link to a file", |etc| {
                    fs::write(etc.join("other"), "nameserver 192.0.2.98\n").unwrap();
                    symlink("other", etc.join("resolv.conf")).unwrap();
                }),
                ("a directory", |etc| fs::create_dir(etc.join("resolv.conf")).unwrap()),
            ];
            for (what, setup) in setups {
                if what.starts_with("a link") && mode.starts_with("bind") {
                    continue;
                }
                let pair = Pair::new(host);
                pair.each(|root| setup(&root.join("etc")));
                pair.same(&options, script);
                // What it cannot mount, nspawn has made an empty file for.
                if (mode, what) != ("bind-uplink", "nothing") {
                    pair.same_file("etc/resolv.conf");
                }
                pair.same_file("etc/other");
                pair.each(|root| fs::remove_dir_all(root).unwrap());
            }
            let pair = Pair::new(host);
            pair.same(&[option.as_str(), "--console=pipe", "--private-network"], script);
            pair.same(&[option.as_str(), "--console=pipe", "--read-only"], script);
            if mode != "bind-uplink" {
                pair.same_file("etc/resolv.conf");
            }
            pair.each(|root| fs::remove_dir_all(root).unwrap());
        }
    });
}

#[test]
fn the_time_zone_comes_alike() {
    on_host(|host| {
        like_the_machine(host);
        for mode in ["off", "auto", "copy", "bind", "symlink", "delete"] {
            let option = format!("--timezone={mode}");
            for old in ["", "/usr/share/zoneinfo/Nowhere", "../usr/share/zoneinfo/UTC"] {
                let pair = Pair::new(host);
                if !old.is_empty() {
                    pair.each(|root| symlink(old, root.join("etc/localtime")).unwrap());
                }
                let script = "md5sum < /etc/localtime 2>/dev/null; readlink /etc/localtime; grep localtime /proc/self/mountinfo | cut -d' ' -f5,6; :";
                pair.same(&[&option, "--console=pipe"], script);
                pair.same_file("etc/localtime");
                pair.each(|root| fs::remove_dir_all(root).unwrap());
            }
        }
    });
}

#[test]
fn sockets_are_passed_on_alike() {
    on_host(|host| {
        let pair = Pair::new(host);
        let script = "echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | tr '\\n' ' '; cat <&4";
        let [ours, theirs] = pair.commands(&["--console=pipe"]).map(|command| {
            let mut words = vec![command.get_program().to_owned()];
            words.extend(command.get_args().map(std::ffi::OsStr::to_owned));
            let caller = "exec 3</etc/hostname 4</etc/os-release 5</dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\"";
            let mut shell = host.command("bash");
            shell.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1").args(["-c", caller, "bash"]).args(words);
            finish(shell.args(["--", "/bin/sh", "-c", script]))
        });
        assert_eq!(
            (ours.code, ours.out.as_str()),
            (theirs.code, theirs.out.as_str()),
            "{}{}",
            ours.err,
            theirs.err
        );
        // 5 is the directory that is listed.
        assert!(ours.out.starts_with("2 1\n0 1 2 3 4 5 "), "{}", ours.out);
    });
}

#[test]
fn journals_are_linked_alike() {
    const ID: &str = "0123456789abcdef0123456789abcdef";
    on_host(|host| {
        // The real one's are the machine's: of this mount namespace alone.
        host.sh("mount -t tmpfs t /var/log/journal");
        host.write("etc/machine-id", &fs::read_to_string("/etc/machine-id").unwrap(), 0o444);
        let journals = [host.path("var/log/journal"), PathBuf::from("/var/log/journal")];
        fs::create_dir_all(&journals[0]).unwrap();
        let pair = Pair::new(host);
        pair.write("etc/machine-id", &format!("{ID}\n"));
        let script = format!(
            "echo x > /var/log/journal/{ID}/y; stat -c '%F %a' /var/log/journal/{ID}; grep -c {ID} /proc/self/mountinfo; :"
        );
        let state = |index: usize| {
            let path = journals[index].join(ID);
            let link =
                fs::read_link(&path).ok().map(|to| to.strip_prefix(&pair.roots[index]).unwrap().to_owned());
            (
                link,
                path.is_dir(),
                path.join("y").exists(),
                pair.roots[index].join("var/log/journal").join(ID).join("y").exists(),
            )
        };
        for mode in ["no", "guest", "auto", "guest", "host", "auto", "try-guest", "try-host"] {
            let option = format!("--link-journal={mode}");
            // With `try-guest`, a directory with journals is in the way, which is an error to nspawn all the same.
            let [ours, theirs] = pair.run(&[&option, "--console=pipe"], &script);
            if mode != "try-guest" {
                let outcome = |finished: &Finished| (finished.code, finished.out.clone());
                assert_eq!(outcome(&ours), outcome(&theirs), "{mode}: {}{}", ours.err, theirs.err);
                assert_eq!(state(0), state(1), "{mode}");
            }
            assert_eq!(ours.code, Some(0), "{mode}: {}", ours.err);
            for (journal, root) in journals.iter().zip(&pair.roots) {
                let _ = fs::remove_file(root.join("var/log/journal").join(ID).join("y"));
                if mode != "auto" {
                    let _ = fs::remove_file(journal.join(ID).join("y"));
                }
            }
        }
        // Where the host has none.
        host.sh(&format!(
            "umount /var/log/journal; mount -t tmpfs t /var/log; rm -r {}",
            journals[0].display()
        ));
        for (mode, code) in [("guest", 1), ("host", 1), ("try-guest", 0), ("try-host", 0), ("auto", 0)] {
            let option = format!("--link-journal={mode}");
            let [ours, theirs] = pair.run(&[&option, "--console=pipe"], "true");
            assert_eq!(
                (ours.code, theirs.code),
                (Some(code), Some(code)),
                "{mode}: {}{}",
                ours.err,
                theirs.err
            );
        }
        for (mode, code) in [("guest", 1), ("host", 1), ("try-guest", 0), ("auto", 0)] {
            let [ours, theirs] =
                pair.run(&[&format!("--link-journal={mode}"), "--ephemeral", "--console=pipe"], "true");
            assert_eq!(
                (ours.code, theirs.code),
                (Some(code), Some(code)),
                "{mode}: {}{}",
                ours.err,
                theirs.err
            );
        }
    });
}
