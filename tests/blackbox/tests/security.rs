//! What systemd-nspawn's options about security and limits make of the processes inside, under both runtimes.
#![forbid(unsafe_code)]

use std::path::Path;

use blackbox::{Arch, Host, call, on_host, probe_root};

/// Runs one script under `nixrun nspawn` and under the real one on the same root; what each printed.
fn both(host: &Host<'_>, root: &Path, options: &[&str], script: &str) -> (String, String) {
    let options = [&["-q", "-M", "t", "--console=pipe"], options].concat();
    blackbox::both(host, [root, root], &options, script)
}

const STATUS: &str = r#"
    B=/probe/busybox
    $B grep -E '^(Cap|NoNewPrivs|Seccomp:|Cpus_allowed_list)' /proc/1/status
    $B cat /proc/1/limits | $B tr -s ' '
    $B cat /proc/1/oom_score_adj /proc/1/personality; $B uname -m
"#;

#[test]
fn processes_are_what_the_options_make_them() {
    on_host(|host| {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        let root = probe_root(host, "t");
        let plain = both(host, &root, &[], STATUS).0;
        let cases: &[&[&str]] = &[
            &[],
            &["--private-network"],
            &["--ambient-capability=CAP_NET_RAW", "--ambient-capability=CAP_KILL"],
            &["--no-new-privileges=yes"],
            &["--capability=CAP_SYS_TIME,CAP_SYSLOG", "--drop-capability=CAP_CHOWN"],
            &["--rlimit=RLIMIT_NOFILE=64:128", "--rlimit=CORE=7", "--rlimit=LIMIT_STACK=1M:2M"],
            &["--oom-score-adjust=500"],
            &["--cpu-affinity=0"],
            &["--personality=x86"],
            &["--no-new-privileges=yes", "--ambient-capability=CAP_SYS_CHROOT", "--personality=x86-64"],
        ];
        for options in cases {
            // Not every name of a limit is one in every version.
            let options: Vec<&str> =
                options.iter().copied().filter(|option| !option.contains("LIMIT_STACK")).collect();
            let (ours, theirs) = both(host, &root, &options, STATUS);
            assert_eq!(ours, theirs, "{options:?}");
            assert!(
                options.is_empty() || options == ["--personality=x86-64"] || ours != plain,
                "{options:?}: {ours}"
            );
        }
    });
}

/// Name, number on x86_64, first argument; the others are 0.
const CALLS: &[(&str, u32, i32)] = &[
    ("getpid", 39, 0),
    ("fsync", 74, -1),
    ("fdatasync", 75, 999),
    ("syncfs", 306, 999),
    ("sync_file_range", 277, -1),
    ("msync", 26, 1),
    ("openat", 257, -1),
    ("openat2", 437, -1),
    ("keyctl", 250, -1),
    ("bpf", 321, -1),
    ("ptrace", 101, -1),
    ("chroot", 161, 0),
    ("mount", 165, 0),
    ("swapon", 167, 0),
    ("syslog", 103, -1),
    ("mlock", 149, 0),
    ("fanotify_init", 300, -1),
    ("open_by_handle_at", 304, -1),
    ("perf_event_open", 298, 0),
    ("clock_settime", 227, -1),
    ("acct", 163, -1),
    ("kexec_load", 246, -1),
    ("reboot", 169, 0),
    ("sethostname", 170, 0),
    ("vhangup", 153, 0),
    ("unknown", 600, 0),
];

/// The same on i386, for some.
const CALLS_32: &[(&str, u32, i32)] = &[
    ("keyctl", 288, -1),
    ("chroot", 61, 0),
    ("fsync", 118, -1),
    ("sync_file_range", 314, -1),
    ("unknown", 600, 0),
];

#[test]
fn the_filter_answers_as_nspawns() {
    on_host(|host| {
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        let root = probe_root(host, "t");
        for (arch, calls) in [(Arch::X86_64, CALLS), (Arch::I386, CALLS_32)] {
            for (name, number, first) in calls {
                // vhangup would end the console that the others print to.
                let (number, first) = if *name == "vhangup" { (1000, 0) } else { (*number, *first) };
                host.program(&root.join(format!("probe/{arch:?}-{name}")), &call(arch, number, first));
            }
        }
        let script = "for call in /probe/X86_64-* /probe/I386-*; do $call; echo \"${call##*/} $?\"; done";
        let (default, _) = both(host, &root, &["--private-network"], script);
        let cases: &[&[&str]] = &[
            &[],
            &["--system-call-filter=@keyring bpf"],
            &["--system-call-filter=~ptrace chroot"],
            &["--system-call-filter=perf_event_open @swap", "--system-call-filter=~sethostname"],
            &["--system-call-filter=~@mount"],
            &["--system-call-filter=~keyctl", "--system-call-filter=keyctl"],
            &["--capability=CAP_SYS_TIME,CAP_SYSLOG,CAP_SYS_PACCT,CAP_IPC_LOCK"],
            &["--drop-capability=CAP_SYS_BOOT,CAP_SYS_PTRACE"],
            &["--no-new-privileges=yes", "--system-call-filter=@keyring"],
            &["--suppress-sync=yes"],
            &["--suppress-sync=yes", "--system-call-filter=~fsync"],
        ];
        for options in cases {
            let options = [&["--private-network"], *options].concat();
            let (ours, theirs) = both(host, &root, &options, script);
            assert_eq!(ours, theirs, "{options:?}");
            assert!(
                options.len() == 1 || ours != default || options.iter().any(|o| o.contains("~keyctl")),
                "{options:?}"
            );
        }
    });
}

#[test]
fn a_command_of_exec_is_held_to_what_pid_1_is() {
    on_host(|host| {
        let root = probe_root(host, "t");
        host.program(&root.join("probe/keyctl"), &call(Arch::X86_64, 250, -1));
        host.program(&root.join("probe/fdatasync"), &call(Arch::X86_64, 75, 999));
        host.program(&root.join("probe/chroot"), &call(Arch::X86_64, 161, 0));
        let status = "/probe/busybox grep -E '^(Cap|NoNewPrivs|Seccomp:|Cpus_allowed_list)' /proc/self/status; \
            /probe/busybox cat /proc/self/oom_score_adj; /probe/busybox uname -m; \
            for call in keyctl fdatasync chroot; do /probe/$call; echo $call $?; done";
        let options = [
            "--ambient-capability=CAP_KILL",
            "--no-new-privileges=yes",
            "--system-call-filter=@keyring",
            "--system-call-filter=~chroot",
            "--suppress-sync=yes",
            "--personality=x86",
            "--oom-score-adjust=300",
            "--cpu-affinity=0",
        ];
        let script = format!(
            "echo \"$({status})\" > /told; mv=1; : > /done; while :; do /probe/busybox sleep 1; done"
        );
        let mut args =
            vec!["nspawn", "-q", "--register=no", "--keep-unit", "--console=pipe", "-M", "t", "-D"];
        args.push(root.to_str().unwrap());
        args.extend(options);
        args.extend(["--", "/probe/bash", "-c", &script]);
        let container = host.spawn("t", &args);
        blackbox::wait_for("the container's own view", || root.join("done").exists().then_some(()));
        let of_pid_1 = std::fs::read_to_string(root.join("told")).unwrap();
        let of_exec = host.ok(&["exec", "t", "--", "/probe/bash", "-c", status]);
        assert_eq!(of_exec, of_pid_1);
        for line in ["i686", "300", "NoNewPrivs:\t1", "Cpus_allowed_list:\t0", "fdatasync 0", "chroot 1"] {
            assert!(of_exec.lines().any(|found| found == line), "{line}: {of_exec}");
        }
        assert!(!of_exec.contains("keyctl 1\n"), "{of_exec}");
        drop(container);
    });
}
