//! What stands for the host while it is measured: mount and network namespaces with an empty /run, a loopback link
//! and version 2 control groups at /sys/fs/cgroup, and a control group of our own. Nothing is left of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::Result;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Runs `f` in such a host, with the path of its control group.
pub(super) fn in_host<T: Send>(f: impl FnOnce(&Path) -> Result<T> + Send) -> Result<T> {
    // An error of `f` is not Send: its text crosses the thread's end.
    let inside = || -> std::result::Result<T, String> {
        let done = enter().and_then(|()| {
            let group = Group::enter()?;
            f(&group.path)
        });
        done.map_err(|error| error.to_string())
    };
    let done = std::thread::scope(|scope| {
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // On a hybrid host systemd-nspawn repeats the path in systemd's own hierarchy of version 1.
    remove(&Path::new(CGROUPS).join("systemd").join(group_name()));
    Ok(done?)
}

fn group_name() -> String {
    format!("nixrun-bench-{}", std::process::id())
}

fn enter() -> Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("cannot make namespaces to measure in: {error} (this needs root)"))?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    // crun refuses the layout of hybrid hosts, with version 1 hierarchies below.
    if !Path::new(CGROUPS).join("cgroup.controllers").exists() {
        umount2(CGROUPS, MntFlags::MNT_DETACH)?;
        mount(Some("cgroup2"), CGROUPS, Some("cgroup2"), MsFlags::empty(), none)?;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    if up.success() { Ok(()) } else { Err("cannot set the loopback link up".into()) }
}

/// This process in a control group of its own: what the programs leave in it is found, and removed.
struct Group {
    path: PathBuf,
    before: PathBuf,
}

impl Group {
    fn enter() -> Result<Group> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let before = Path::new(CGROUPS).join(own);
        let path = before.join(group_name());
        fs::create_dir(&path)?;
        fs::write(path.join("cgroup.procs"), "0")?;
        Ok(Group { path, before })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.before.join("cgroup.procs"), "0");
        remove(&self.path);
    }
}

fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
