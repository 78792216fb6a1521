//! The pretend host itself.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::netns::joined;
use crate::{Error, Outside, Result, Snapshot};

/// A host that the thread is in which [`Host::with`] has made. Programs that the thread starts are on it, too.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    cgroup: PathBuf,
    place: tempfile::TempDir,
}

impl Host {
    /// Runs `job` on a host of its own. Whatever [`Host::command`] has started is ended afterwards.
    ///
    /// # Errors
    /// When the host cannot be made (this needs root), and those of `job`.
    pub fn with<T: Send, E: Send + From<Error>>(
        job: impl FnOnce(&Host) -> Result<T, E> + Send,
    ) -> Result<T, E> {
        joined(|scope| scope.spawn(|| job(&Host::enter()?)))
    }

    fn enter() -> Result<Host> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .map_err(Error::doing("make network and mount namespaces (this needs root)"))?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(Error::doing("make the mounts private"))?;
        let place = tempfile::tempdir().map_err(Error::doing("make a temporary directory"))?;
        // They vanish with the namespace, whatever becomes of us.
        for at in [place.path(), Path::new("/run")] {
            mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
                .map_err(Error::doing(format!("mount a tmpfs on {}", at.display())))?;
        }
        let root = place.path().to_path_buf();
        symlink("/run", root.join("run")).map_err(Error::doing("link the host's /run"))?;
        // A new namespace has the setting of the machine; that nixrun turns it on is to be seen.
        sh("ip link set lo up; echo 0 > /proc/sys/net/ipv4/ip_forward")?;
        Ok(Host { root, cgroup: make_cgroup()?, place })
    }

    /// What `--host-root` names; its `run` is /run.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The control group of everything that [`Host::command`] starts.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A program in the host's control group, with a plain environment. It dies with the thread that starts it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec setpriv --pdeathsig KILL \"$@\""])
            .arg(&self.cgroup)
            .arg(program)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .current_dir("/");
        command
    }

    /// Runs a shell command on the host; what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn sh(&self, script: &str) -> Result<String> {
        sh(script)
    }

    /// Connects the host to an outside. To be done once.
    ///
    /// # Errors
    /// When the links and addresses cannot be made.
    pub fn outside(&self) -> Result<Outside> {
        Outside::connect()
    }

    /// Everything of the host that a container could change.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(self)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let events = || fs::read_to_string(self.cgroup.join("cgroup.events")).unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(10);
        while events().contains("populated 1") && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        remove_groups(&self.cgroup);
        // On a hybrid host systemd-nspawn repeats the path in systemd's own hierarchy of version 1.
        if let Some(name) = self.cgroup.file_name() {
            remove_groups(&Path::new("/sys/fs/cgroup/systemd").join(name));
        }
        // The directory can be removed only when nothing is mounted on it.
        let _ = nix::mount::umount2(self.place.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A new group of version 2 below our own.
fn make_cgroup() -> Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let read = |path: &str| fs::read_to_string(path).map_err(Error::doing(format!("read {path}")));
    let (mounts, groups) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
    let mounted = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|l| l.split(' ').nth(4));
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let (Some(mounted), Some(own)) = (mounted, own) else {
        return Err(Error::Unexpected("no control groups of version 2 are mounted".to_owned()));
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let group = Path::new(mounted).join(own).join(format!("nixrun-host-{}-{number}", std::process::id()));
    fs::create_dir(&group).map_err(Error::doing(format!("make {}", group.display())))?;
    Ok(group)
}

fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// What a shell command prints; it must succeed.
pub(crate) fn sh(script: &str) -> Result<String> {
    let output = Command::new("sh").args(["-ec", script]).stdin(Stdio::null()).output();
    let output = output.map_err(Error::doing("start sh"))?;
    if !output.status.success() {
        return Err(Error::program(script.to_owned(), &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
