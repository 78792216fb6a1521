//! The filters that systemd-nspawn loads, read back from the kernel, against ours: every number, both architectures.

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libc::{c_long, pid_t, sock_filter};

use runtime::seccomp::{Abi, Policy, compile, number};
use runtime::{available_capabilities, nspawn_default};

use super::interpreter::{Answer, Call, ask};
use super::skip;

/// What nspawn of systemd 252 does not allow and 257 does: the calls are newer, or were listed later. Newer systemd
/// with an older libseccomp does not know some of their numbers.
const NEWER: &str = "cachestat file_getattr file_setattr getxattrat landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self listmount listxattrat lsm_get_self_attr lsm_list_modules lsm_set_self_attr mseal \
    removexattrat setxattrat statmount uretprobe";

const SYSTEM_GROUPS: &str = "/sys/fs/cgroup";

/// A root with nothing but busybox, nspawn running in it, and the cgroup that both are in; gone when dropped.
struct Running {
    nspawn: Child,
    group: PathBuf,
}

impl Running {
    /// Must run on a thread in network and mount namespaces of its own.
    fn start(busybox: &Path) -> Running {
        let root = Path::new("/run/root");
        for directory in ["bin", "etc", "proc", "sys", "dev", "run", "tmp", "usr", "var", "root"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        fs::write(root.join("etc/os-release"), "ID=test\n").unwrap();
        let group = Path::new(SYSTEM_GROUPS).join(format!("nixrun-test-sec-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        // A shell moves itself into the cgroup, in which nspawn then makes those of its own.
        let nspawn = Command::new("sh")
            .args(["-c", "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"", "sh"])
            .arg(&group)
            .args(["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--private-network", "-D"])
            .arg(root)
            .args(["/bin/busybox", "sleep", "60"])
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Running { nspawn, group }
    }

    /// The process id of `busybox sleep`, once it runs.
    fn payload(&mut self) -> pid_t {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let procs = fs::read_to_string(self.group.join("payload/cgroup.procs")).unwrap_or_default();
            for pid in procs.lines() {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                if command.starts_with(b"/bin/busybox\0sleep") {
                    return pid.parse().unwrap();
                }
            }
            assert!(self.nspawn.try_wait().unwrap().is_none(), "systemd-nspawn ended early");
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the payload of systemd-nspawn did not start within 20 s");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ends the payload and nspawn together.
        let _ = fs::write(self.group.join("cgroup.kill"), "1");
        let _ = self.nspawn.wait();
        for _ in 0..100 {
            for below in ["payload", "supervisor", ""] {
                let _ = fs::remove_dir(self.group.join(below));
            }
            if !self.group.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(std::thread::panicking(), "{} could not be removed", self.group.display());
    }
}

/// The filters of a process, the one installed last first.
fn filters_of(pid: pid_t) -> Vec<Vec<sock_filter>> {
    const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
    let ptrace = |request, address: usize, data: *mut sock_filter| -> c_long {
        // SAFETY: `data` is null or has room for the filter, whose length the kernel told before.
        unsafe { libc::ptrace(request, pid, address, data) }
    };
    let none = std::ptr::null_mut();
    assert_eq!(ptrace(libc::PTRACE_SEIZE, 0, none), 0, "seize {pid}: {}", Error::last_os_error());
    assert_eq!(ptrace(libc::PTRACE_INTERRUPT, 0, none), 0, "stop {pid}: {}", Error::last_os_error());
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) }, pid);
    let mut filters = Vec::new();
    loop {
        let length = ptrace(PTRACE_SECCOMP_GET_FILTER, filters.len(), none);
        if length < 0 {
            assert_eq!(Error::last_os_error().raw_os_error(), Some(libc::ENOENT));
            return filters;
        }
        let mut filter = vec![sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; length as usize];
        assert_eq!(ptrace(PTRACE_SECCOMP_GET_FILTER, filters.len(), filter.as_mut_ptr()), length);
        filters.push(filter);
    }
}

/// The filters of a container that this machine's nspawn started with a network of its own.
fn nspawns_filters(busybox: PathBuf) -> Vec<Vec<sock_filter>> {
    let namespaces = move || {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_NEWNET)
            .unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        // Unified cgroups only: on a hybrid host nspawn would make groups in the other hierarchy too.
        umount2(SYSTEM_GROUPS, MntFlags::MNT_DETACH).unwrap();
        mount(Some("cgroup2"), SYSTEM_GROUPS, Some("cgroup2"), MsFlags::empty(), none).unwrap();
        let mut running = Running::start(&busybox);
        let payload = running.payload();
        filters_of(payload)
    };
    std::thread::spawn(namespaces).join().unwrap()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn nspawn_filters_the_same() {
    if !nix::unistd::geteuid().is_root() {
        skip("systemd-nspawn needs root");
        return;
    }
    let find = |name: &str| {
        ["/usr/bin", "/bin"].map(|bin| Path::new(bin).join(name)).into_iter().find(|p| p.exists())
    };
    let (Some(_), Some(busybox)) = (find("systemd-nspawn"), find("busybox")) else {
        skip("systemd-nspawn (package systemd-container) or busybox (busybox-static) is not installed");
        return;
    };
    let theirs = nspawns_filters(busybox);
    assert!(theirs.len() >= 4, "{} filters", theirs.len());
    let ours =
        [compile(&Policy::nspawn(nspawn_default(true).intersection(available_capabilities().unwrap())))];
    let (mut compared, mut allowed) = (0, 0);
    for &abi in Abi::LOCAL {
        let newer: Vec<u32> = NEWER.split(' ').filter_map(|name| number(abi, name)).collect();
        let numbers = (0..2048).chain([0x1000_0000, 0x3fff_ffff]);
        let audit = [libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, libc::NETLINK_AUDIT as u64, 0, 0, 0];
        for (number, args) in numbers.flat_map(|number| [(number, [0; 6]), (number, audit)]) {
            let call = Call { number, arch: abi.audit_arch(), args };
            let (their, our) = (ask(&theirs, &call), ask(&ours, &call));
            compared += 1;
            allowed += usize::from(our == Answer::Allow);
            // libseccomp has no rule for socket() on i386 (see the module's description).
            let direct_socket = abi == Abi::I386 && number == 359 && args == audit;
            let expected = their == our
                || direct_socket && (their, our) == (Answer::Allow, Answer::Errno(libc::EAFNOSUPPORT))
                || newer.contains(&number) && their != Answer::Allow;
            assert!(expected, "{abi:?} {number}: nspawn {their:?}, ours {our:?}");
        }
    }
    // Were everything or nothing allowed, both would agree as well.
    assert!(compared > 8000 && (1000..2000).contains(&allowed), "{compared} compared, {allowed} allowed");
}
