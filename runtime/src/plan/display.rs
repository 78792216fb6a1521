//! The plan as a readable tree: what `nixrun plan` prints.

use std::fmt;

use super::mounts::{Attributes, Entry, Layer, MountPlan, Source};
use super::{Confinement, DevicePolicy, JournalPlan, Namespaces, OnHost, Plan};
use crate::config::{BindIds, JournalLink, Network, Personality, Preparation, Program, UserNamespace};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "container {}", self.name)?;
        let kind = if self.root.image { " (image)" } else { "" };
        match &self.root.pivot {
            Some(pivot) => {
                writeln!(f, "├─ root {}{kind}, of it {}", self.rootfs.display(), pivot.new.display())?;
            }
            None => writeln!(f, "├─ root {}{kind}", self.rootfs.display())?,
        }
        section(f, "prepare", &self.preparation)?;
        section(f, "on the host", &self.on_host)?;
        writeln!(f, "├─ namespaces {}", self.namespaces)?;
        if let Some(users) = &self.users {
            writeln!(f, "├─ users {users}")?;
        }
        section(f, "cgroup", &self.cgroup_lines())?;
        section(f, "mounts", &self.mounts)?;
        if let Some(journal) = &self.journal {
            writeln!(f, "├─ {journal}")?;
        }
        writeln!(f, "├─ hostname {}", self.hostname)?;
        writeln!(f, "├─ capabilities {}", self.capabilities)?;
        section(f, "restrictions", &self.confinement.lines())?;
        let limits: Vec<String> = self
            .limits
            .iter()
            .map(|limit| format!("{} {}:{}", limit.name, Bound(limit.soft), Bound(limit.hard)))
            .collect();
        section(f, "limits", &limits)?;
        let env: Vec<String> = self
            .env
            .iter()
            .map(|(key, value)| format!("{}={}", key.to_string_lossy(), value.to_string_lossy()))
            .collect();
        section(f, "environment", &env)?;
        section(f, "warnings", &self.warnings)?;
        if let Some(user) = &self.user {
            writeln!(f, "├─ user {user} of the container's /etc/passwd")?;
        }
        if let Some(cwd) = &self.cwd {
            writeln!(f, "├─ directory {}", cwd.display())?;
        }
        if self.as_pid2 {
            writeln!(f, "├─ a stub as PID 1")?;
        }
        write!(f, "└─ exec {}", self.program_line())
    }
}

impl Plan {
    /// The program and its arguments, as far as the plan knows them.
    #[must_use]
    pub fn program_line(&self) -> String {
        let program = match self.program {
            Program::Command => None,
            Program::Init => Some(format!("the first of {}", super::INITS.join(", "))),
            Program::Shell => Some(format!("the first of {}, as a login shell", super::SHELLS.join(", "))),
        };
        let argv = self.argv.iter().map(|argument| argument.to_string_lossy().into_owned());
        program.into_iter().chain(argv).collect::<Vec<_>>().join(" ")
    }

    fn cgroup_lines(&self) -> Vec<String> {
        let cgroup = &self.cgroup;
        let mut lines = vec![format!(
            "{} {}",
            if cgroup.make_unit { "make" } else { "delegated" },
            cgroup.unit.display()
        )];
        if let Some(supervisor) = &cgroup.supervisor {
            lines.push(format!("nixrun moves to {}", supervisor.display()));
        }
        lines.push(format!("container in {}", cgroup.payload.display()));
        lines.extend(cgroup.settings.iter().map(|setting| format!("{} {}", setting.file, setting.value)));
        let more: Vec<String> = self.devices.iter().map(ToString::to_string).collect();
        lines.push(match (cgroup.devices, more.join(", ")) {
            (DevicePolicy::Unit, _) => "devices as the unit allows".to_owned(),
            (DevicePolicy::Filter, more) if more.is_empty() => {
                "devices null zero full random urandom tty ptmx pts, nothing else".to_owned()
            }
            (DevicePolicy::Filter, more) => {
                format!("devices null zero full random urandom tty ptmx pts, {more}, nothing else")
            }
        });
        lines
    }
}

impl Confinement {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.ambient.is_empty() {
            lines.push(format!("ambient capabilities {}", self.ambient));
        }
        if self.no_new_privileges {
            lines.push("exec gives no privileges (no_new_privs)".to_owned());
        }
        for (what, names) in
            [("allowed beyond the default", &self.system_calls.allow), ("denied", &self.system_calls.deny)]
        {
            if !names.is_empty() {
                lines.push(format!("system calls {what}: {}", names.join(" ")));
            }
        }
        if self.suppress_sync {
            lines.push("fsync and its kind do nothing; O_SYNC is EINVAL; no openat2".to_owned());
        }
        match self.personality {
            None => {}
            Some(Personality::Native) => lines.push("personality of this machine".to_owned()),
            Some(Personality::Compat) => lines.push("personality of a 32-bit machine".to_owned()),
        }
        lines.extend(self.oom_score_adjust.map(|score| format!("OOM score adjustment {score}")));
        if let Some(cpus) = &self.cpu_affinity {
            let cpus: Vec<String> = cpus.iter().map(u32::to_string).collect();
            lines.push(format!("CPUs {}", cpus.join(" ")));
        }
        lines
    }
}

fn section<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, lines: &[T]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "├─ {name}")?;
    for (index, line) in lines.iter().enumerate() {
        let branch = if index + 1 == lines.len() { "└─" } else { "├─" };
        writeln!(f, "│  {branch} {line}")?;
    }
    Ok(())
}

/// A limit's value.
struct Bound(u64);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == libc::RLIM_INFINITY { f.write_str("infinity") } else { write!(f, "{}", self.0) }
    }
}

impl fmt::Display for JournalPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.directory.display();
        match self.mode {
            JournalLink::Guest => write!(f, "journal: host:{host}/ID becomes a link into the root"),
            JournalLink::Host => write!(f, "journal: host:{host}/ID is made, and mounted"),
            JournalLink::Auto => write!(f, "journal: host:{host}/ID is mounted, if it is there"),
            JournalLink::No => write!(f, "journal: the container's own"),
        }
    }
}

impl fmt::Display for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Preparation::Directory { path, mode } => write!(f, "directory {} {mode:04o}", path.display()),
            Preparation::EmptyFile { path } => write!(f, "file {} unless there", path.display()),
            Preparation::CopyFile { from, path } => {
                write!(f, "copy host:{} to {}", from.display(), path.display())
            }
            Preparation::HostDirectory { path, mode } => {
                write!(f, "directory host:{} {mode:04o}", path.display())
            }
        }
    }
}

impl fmt::Display for OnHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path().display();
        match self {
            OnHost::Root { from, to, .. } => {
                write!(f, "copy of {} as {}, unless that is there", from.display(), to.display())
            }
            OnHost::Temporary { .. } => write!(f, "temporary directory {path}"),
            OnHost::Work { .. } => write!(f, "work directory {path} of an overlay"),
            OnHost::Propagate { .. } => write!(f, "directory {path} for `machinectl bind`"),
            OnHost::UnixExport { .. } => write!(f, "tmpfs {path} for the container's sockets"),
        }
    }
}

/// Without a user namespace the modes mean nothing; `Auto` goes without saying.
fn ids_note(ids: Option<BindIds>) -> &'static str {
    match ids {
        None | Some(BindIds::Auto) => "",
        Some(BindIds::Host) => ",noidmap",
        Some(BindIds::Map) => ",idmap",
        Some(BindIds::Root) => ",rootidmap",
        Some(BindIds::Owner) => ",owneridmap",
    }
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mnt")?;
        for (new, name) in [(self.pid, "pid"), (self.uts, "uts"), (self.ipc, "ipc"), (self.cgroup, "cgroup")]
        {
            if new {
                write!(f, " {name}")?;
            }
        }
        if self.users != UserNamespace::Host {
            f.write_str(" user")?;
        }
        match &self.network {
            Network::Private => f.write_str(" net"),
            Network::Join(path) => write!(f, ", net of {}", path.display()),
            Network::Host => Ok(()),
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layer::Host(path) => write!(f, "host:{}", path.display()),
            Layer::InRoot(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.read_only { "ro" } else { "rw" })?;
        for (on, name) in [
            (self.no_suid, "nosuid"),
            (self.no_dev, "nodev"),
            (self.no_exec, "noexec"),
            (self.no_symlinks, "nosymfollow"),
            (self.strict_atime, "strictatime"),
        ] {
            if on {
                write!(f, ",{name}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for MountPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.display();
        match &self.source {
            Source::Root if self.attributes.read_only => {
                write!(f, "{target} the root directory, private, all of it read-only")
            }
            Source::Root => write!(f, "{target} the root directory, private"),
            Source::RootOverlay { options } => {
                write!(f, "{target} overlay: the root directory below a tmpfs ({})", Options(options))
            }
            Source::FormerRoot => write!(f, "{target} the root that was left, with all of it"),
            Source::BaseOf { path } => {
                write!(f, "{target} rbind {} of the root directory ({})", path.display(), self.attributes)
            }
            Source::HostPath { path, recursive, .. } => {
                let (bind, ids) = (if *recursive { "rbind" } else { "bind" }, ids_note(self.ids));
                write!(f, "{target} {bind} host:{} ({}{ids})", path.display(), self.attributes)
            }
            Source::Tmpfs { options, entries } => {
                write!(f, "{target} tmpfs ({}", self.attributes)?;
                if !options.is_empty() {
                    write!(f, ",{}", Options(options))?;
                }
                write!(f, ")")?;
                if !entries.is_empty() {
                    let names: Vec<_> = entries.iter().map(|entry| entry.path().to_string_lossy()).collect();
                    write!(f, " with {}", names.join(" "))?;
                }
                Ok(())
            }
            Source::Devpts { gid } => write!(f, "{target} devpts ({},gid={gid})", self.attributes),
            Source::Kernel(fstype) => write!(f, "{target} {fstype} ({})", self.attributes),
            Source::Own { path, recursive } => {
                let bind = if *recursive { "rbind" } else { "bind" };
                write!(f, "{target} {bind} {} ({})", path.display(), self.attributes)
            }
            Source::InRoot { path, recursive } => {
                let bind = if *recursive { "rbind" } else { "bind" };
                write!(f, "{target} {bind} {} of the container ({})", path.display(), self.attributes)
            }
            Source::Overlay { lower, upper } => {
                write!(f, "{target} overlay (")?;
                for (index, layer) in lower.iter().enumerate() {
                    write!(f, "{}{layer}", if index == 0 { "" } else { " < " })?;
                }
                match upper {
                    Some(upper) => write!(f, " < {}, rw)", upper.layer),
                    None => write!(f, ", ro)"),
                }
            }
            Source::Inaccessible => write!(f, "{target} an inode without permissions"),
            Source::Incoming { path } => {
                write!(
                    f,
                    "{target} bind host:{} ({}), what is mounted below it arrives",
                    path.display(),
                    self.attributes
                )
            }
            Source::UnixExport { path } => {
                write!(f, "{target} tmpfs of host:{} ({})", path.display(), self.attributes)
            }
            Source::Console => write!(f, "{target} a pty of /dev/pts"),
            Source::BootId => write!(f, "{target} a random id ({})", self.attributes),
            Source::KernelLog => write!(f, "{target} a silent fifo"),
            Source::Remount => write!(f, "{target} becomes {}", self.attributes),
            Source::KernelOutside(fstype) => {
                write!(f, "{target} {fstype} outside the container, to copy from")
            }
            Source::Outside { path } => {
                write!(f, "{target} bind {} from outside ({})", path.display(), self.attributes)
            }
            Source::HostFile { path, unless: None, .. } => {
                write!(f, "{target} bind host:{} ({}), if it can be", path.display(), self.attributes)
            }
            Source::HostFile { path, unless: Some(unless), .. } => write!(
                f,
                "{target} bind host:{} ({}), unless {} is there",
                path.display(),
                self.attributes,
                unless.display()
            ),
            Source::Copy { from, replace: true } => {
                write!(f, "{target} becomes a copy of host:{}", from.display())
            }
            Source::Copy { from, replace: false } => {
                write!(f, "{target} becomes a copy of host:{}, unless it is a link", from.display())
            }
            Source::NameServers { text, replace } => {
                let servers: Vec<&str> =
                    text.lines().filter_map(|line| line.trim().strip_prefix("nameserver ")).collect();
                let unless = if *replace { "" } else { ", unless the container has its own" };
                write!(f, "{target} follows the host's name servers ({}){unless}", servers.join(" "))
            }
            Source::Symlink { to, needs } => {
                write!(f, "{target} becomes a link to {}, if {} is there", to.display(), needs.display())
            }
            Source::Delete => write!(f, "{target} is removed"),
            Source::Directory => write!(f, "{target} becomes a directory"),
            Source::Journal => write!(f, "{target}/ID, ID being the container's machine id"),
            Source::Credentials { names, .. } => {
                write!(f, "{target} ramfs ({}) with {}", self.attributes, names.join(" "))
            }
            Source::Unmount => write!(f, "{target} is unmounted"),
            Source::Visible(fstype) => {
                write!(f, "{target} {fstype} of the host, until the container has mounted its own")
            }
            Source::UserNamespace => write!(f, "{target} in the user namespace: what stands above is locked"),
            Source::Share => write!(f, "{target} becomes shared, recursively"),
        }
    }
}

/// Options of a tmpfs in mount(8)'s notation.
struct Options<'a>(&'a [(String, Option<String>)]);

impl fmt::Display for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match value {
                Some(value) => write!(f, "{comma}{key}={value}")?,
                None => write!(f, "{comma}{key}")?,
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Path relative to the tmpfs.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        match self {
            Entry::Directory { path, .. }
            | Entry::File { path, .. }
            | Entry::Symlink { path, .. }
            | Entry::Device { path, .. }
            | Entry::Fifo { path, .. }
            | Entry::Socket { path, .. } => path,
        }
    }
}
