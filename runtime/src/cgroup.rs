//! Control groups of one container: made before the clone, killed and removed after it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Doing, Error, ErrorKind};
use crate::plan::{CgroupPlan, DevicePolicy, Setting};
use crate::sys::bpf;

/// Group below the container's own for commands: the container's group itself has controllers enabled for the
/// groups below it once systemd runs, and can hold no process then.
pub(crate) const COMMANDS: &str = "nixrun-exec";

/// How long the kernel may take to end the processes of a killed group.
const KILL_TIME: Duration = Duration::from_secs(10);

/// How often to make a group's parents again.
const MAKE_TRIES: u32 = 100;

/// The control groups of one container. Dropping it kills what is left inside and removes what was made.
#[derive(Debug)]
pub struct Cgroup {
    plan: CgroupPlan,
    payload: File,
    kept: bool,
}

impl Cgroup {
    /// Makes the groups and, in a delegated unit, moves this process into `supervisor` and enables every controller
    /// for `payload`.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when processes are in the container's group already. When a group cannot be made; the
    /// container's is removed again then.
    pub fn create(plan: &CgroupPlan) -> Result<Cgroup, Error> {
        // Removing it at our end would kill them: another container of this name, below another `--host-root`.
        if is_populated(&plan.payload) {
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "cannot place the container in {}: processes are in it already",
                    plan.payload.display()
                ),
            )
            .hint("stop the container of the same name that runs there, or give this one another name"));
        }
        Self::make(plan).inspect_err(|_| {
            let _ = remove(plan);
        })
    }

    fn make(plan: &CgroupPlan) -> Result<Cgroup, Error> {
        if let Some(supervisor) = &plan.supervisor {
            make(supervisor)?;
            let procs = supervisor.join("cgroup.procs");
            fs::write(&procs, "0").doing(|| format!("move nixrun into {}", supervisor.display()))?;
            // Only now: a group with processes of its own cannot have controllers for its children.
            enable_controllers(&plan.unit, &plan.settings)?;
        }
        make(&plan.payload)?;
        if plan.make_unit {
            enable_above(&plan.payload, &plan.settings)?;
        }
        for setting in &plan.settings {
            let file = plan.payload.join(&setting.file);
            fs::write(&file, &setting.value).doing(|| {
                format!("set {} of {} to {}", setting.file, plan.payload.display(), setting.value)
            })?;
        }
        let payload = File::open(&plan.payload).doing(|| format!("open {}", plan.payload.display()))?;
        Ok(Cgroup { plan: plan.clone(), payload, kept: false })
    }

    /// The container's group, to clone into.
    pub(crate) fn payload(&self) -> BorrowedFd<'_> {
        self.payload.as_fd()
    }

    /// Gives the container's group to a user namespace's root: what systemd-nspawn gives, which delegates the group
    /// and leaves its limits to the host.
    pub(crate) fn give_to(&self, id: u32) -> Result<(), Error> {
        give(&self.plan.payload, id)
    }

    /// Host path of the container's group.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.plan.payload
    }

    /// Puts the device filter on the container's group, unless its unit decides about devices.
    ///
    /// # Errors
    /// When the kernel refuses the filter.
    pub fn restrict_devices(&self, filter: &[u64]) -> Result<(), Error> {
        if self.plan.devices == DevicePolicy::Unit {
            return Ok(());
        }
        let doing = || format!("restrict the devices of {}", self.plan.payload.display());
        let program = match bpf::load_device_filter(filter) {
            // Nobody may load one there. Nor can a device node be made there, and those that lead out are restricted by
            // whoever made the user namespace.
            Err(error) if error.errno() == nix::errno::Errno::EPERM && in_user_namespace() => return Ok(()),
            result => result.doing(doing)?,
        };
        bpf::attach_device_filter(self.payload(), program.as_fd()).doing(doing)
    }

    /// Lets the container's processes go on if they are frozen.
    pub(crate) fn thaw(&self) {
        let file = self.plan.payload.join("cgroup.freeze");
        // A write to the file costs more than a look.
        if fs::read_to_string(&file).is_ok_and(|text| text.trim() != "0") {
            let _ = fs::write(&file, "0");
        }
    }

    /// Kills every process of the container and removes its groups.
    ///
    /// # Errors
    /// When processes do not end or a group cannot be removed.
    pub fn remove(mut self) -> Result<(), Error> {
        self.kept = true;
        remove(&self.plan)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.kept {
            // The caller is already returning the error that matters; `reclaim` gets what stays.
            let _ = remove(&self.plan);
        }
    }
}

/// The files of a group that its user may write to (cgroup-v2.rst, Delegation).
const DELEGATED: &[&str] = &[
    "cgroup.procs",
    "cgroup.subtree_control",
    "cgroup.threads",
    "cgroup.controllers",
    "cgroup.events",
    "cgroup.stat",
    "memory.oom.group",
    "memory.reclaim",
];

/// Gives a group, and what its user may do with it, to user and group `id`.
pub(crate) fn give(group: &Path, id: u32) -> Result<(), Error> {
    use std::os::unix::fs::chown;
    if id == 0 {
        return Ok(());
    }
    let doing = || format!("give the control group {} to user {id}", group.display());
    chown(group, Some(id), Some(id)).doing(doing)?;
    for file in DELEGATED {
        match chown(group.join(file), Some(id), Some(id)) {
            // Controllers that the group has not.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.doing(doing)?,
        }
    }
    Ok(())
}

/// Kills and removes the groups of a plan: what [`Cgroup::remove`] does, for a container whose supervisor died.
///
/// # Errors
/// As [`Cgroup::remove`].
pub fn remove(plan: &CgroupPlan) -> Result<(), Error> {
    destroy(&plan.payload)?;
    if plan.make_unit {
        if plan.unit != plan.payload {
            destroy(&plan.unit)?;
        }
        // The parent of all our units; another container's keeps it busy.
        if let Some(parent) = plan.unit.parent().filter(|parent| parent.ends_with("nixrun")) {
            let _ = fs::remove_dir(parent);
        }
    }
    Ok(())
}

fn destroy(group: &Path) -> Result<(), Error> {
    // Most containers leave one empty group behind: one call instead of the search below.
    match fs::remove_dir(group) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    let kill = group.join("cgroup.kill");
    fs::write(&kill, "1").doing(|| format!("kill the processes of {}", group.display()))?;
    let deadline = Instant::now() + KILL_TIME;
    let mut pause = Duration::from_micros(200);
    loop {
        let error = match remove_tree(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("cannot remove the control group {}: {error}", group.display()),
            )
            .hint("a process in it does not end; see its cgroup.procs"));
        }
        // rmdir says EBUSY until the last killed process is reaped.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Removes a group and those below it, the deepest first.
fn remove_tree(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Whether a process is in the group or below it (cgroup-v2.rst, `cgroup.events`); none is in one that is not there.
fn is_populated(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

fn make(group: &Path) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        let error = match fs::create_dir(group) {
            Ok(()) => return Ok(()),
            // Left by a supervisor that was killed, or by a reboot of the container: it is ours.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => error,
        };
        // Another container's end may remove the common parent just when we have made it.
        tries += 1;
        if error.kind() != io::ErrorKind::NotFound || tries > MAKE_TRIES {
            return Err(error).doing(|| format!("make the control group {}", group.display()));
        }
        if let Some(parent) = group.parent() {
            let _ = fs::create_dir_all(parent);
        }
    }
}

/// Enables all controllers that the unit has for the groups below it; a hybrid host has none here. When somebody else
/// sits in the unit itself, the kernel refuses: the container does without then, as under systemd-nspawn, unless
/// `settings` need them.
fn enable_controllers(unit: &Path, settings: &[Setting]) -> Result<(), Error> {
    let available = fs::read_to_string(unit.join("cgroup.controllers"))
        .doing(|| format!("read the controllers of {}", unit.display()))?;
    for controller in available.split_whitespace() {
        let file = unit.join("cgroup.subtree_control");
        match fs::write(&file, format!("+{controller}")) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if let Some(setting) = settings.iter().find(|setting| setting.controller() == controller) {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        format!(
                            "cannot set {} for the container: other processes sit in {}, which so cannot share out \
                             the controller {controller}",
                            setting.file,
                            unit.display()
                        ),
                    )
                    .hint("give nixrun a unit of its own"));
                }
            }
            result => result.doing(|| format!("enable the controller {controller} in {}", unit.display()))?,
        }
    }
    Ok(())
}

/// Enables what the settings need in the two groups above a container's that is below our own. The plan has seen that
/// the upper one either has it enabled or is the root of all, the only group that may have processes, too.
fn enable_above(payload: &Path, settings: &[Setting]) -> Result<(), Error> {
    let above: Vec<&Path> = payload.ancestors().skip(1).take(2).collect();
    for group in above.into_iter().rev() {
        let file = group.join("cgroup.subtree_control");
        for setting in settings {
            let controller = setting.controller();
            let doing = || format!("enable the controller {controller} in {}", group.display());
            let enabled = fs::read_to_string(&file).doing(doing)?;
            if !enabled.split_whitespace().any(|found| found == controller) {
                let enabled = fs::write(&file, format!("+{controller}")).doing(doing);
                enabled.map_err(|error| {
                    error.hint("run nixrun in a unit of its own: systemd-run -p Delegate=yes")
                })?;
            }
        }
    }
    Ok(())
}

/// Whether ids are mapped: the first user namespace has all of them (user_namespaces(7)).
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// PIDs, in our pid namespace, of every process in a control group and in those below it; none when it is gone.
#[must_use]
pub fn processes(group: &Path) -> Vec<libc::pid_t> {
    let mut pids = Vec::new();
    let mut groups = vec![PathBuf::from(group)];
    while let Some(group) = groups.pop() {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<libc::pid_t>().ok()));
        let below = fs::read_dir(&group).into_iter().flatten().flatten();
        groups.extend(below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    pids
}
