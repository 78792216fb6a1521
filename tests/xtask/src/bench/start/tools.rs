//! How each program is asked for the same container: new mount, pid, uts, ipc and cgroup namespaces, /proc, /dev and
//! /tmp, capabilities dropped, and a system call filter where the program has one.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};

use super::super::{Binaries, plan_steps};
use super::{Network, command};
use crate::Result;

/// One program, ready to run again and again.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) network: Network,
    pub(super) command: Command,
    /// A file that the program inherits and reads to its end: its offset is shared with ours.
    filter: Option<File>,
}

impl Tool {
    /// To be called before each run.
    pub(super) fn ready(&mut self) -> Result<()> {
        if let Some(file) = &mut self.filter {
            file.rewind()?;
        }
        Ok(())
    }
}

/// What the commands have in common.
pub(super) struct Tools<'a> {
    binaries: &'a Binaries,
    directory: &'a Path,
    root: &'a Path,
    group: &'a Path,
    capabilities: runtime::CapSet,
}

impl<'a> Tools<'a> {
    pub(super) fn new(
        binaries: &'a Binaries,
        directory: &'a Path,
        root: &'a Path,
        group: &'a Path,
    ) -> Result<Self> {
        // What this machine withholds from root nobody can give.
        let capabilities = runtime::nspawn_default(true).intersection(runtime::available_capabilities()?);
        Ok(Tools { binaries, directory, root, group, capabilities })
    }

    /// Every program with every network that it has.
    pub(super) fn all(&self) -> Result<Vec<Tool>> {
        let mut tools = Vec::new();
        for network in [Network::Loopback, Network::Host, Network::Veth] {
            tools.push(self.floor(network)?);
            tools.push(self.nixrun(network));
            if network != Network::Veth {
                tools.push(self.bwrap(network)?);
                tools.push(self.oci("crun", network, &["--cgroup-manager=disabled"])?);
                tools.push(self.oci("runc", network, &[])?);
            }
            tools.push(self.nspawn(network));
        }
        Ok(tools)
    }

    fn tool(&self, name: &'static str, network: Network, command: Command) -> Tool {
        Tool { name, network, command, filter: None }
    }

    /// With a veth pair asked for, the floor still makes the namespace only.
    fn floor(&self, network: Network) -> Result<Tool> {
        let mut floor = command(&self.binaries.floor);
        let (name, asked) = match network {
            Network::Host => ("host", runtime::Network::Host),
            _ => ("net", runtime::Network::Private),
        };
        floor.arg(self.root).arg(name).args(plan_steps::steps(self.root, asked)?).args(["--", "/exit"]);
        Ok(self.tool("floor", network, floor))
    }

    fn nixrun(&self, network: Network) -> Tool {
        let mut nixrun = command(&self.binaries.nixrun);
        nixrun.arg("run").arg("-D").arg(self.root);
        match network {
            Network::Host => {}
            Network::Loopback => _ = nixrun.arg("--private-network"),
            Network::Veth => {
                nixrun.args(["--network-veth", "--host-address=10.233.9.1", "--local-address=10.233.9.2"]);
                nixrun.arg("--port=tcp:8080:80");
            }
        }
        nixrun.args(["--", "/exit"]);
        self.tool("nixrun run", network, nixrun)
    }

    fn nspawn(&self, network: Network) -> Tool {
        let mut nspawn = command("systemd-nspawn");
        nspawn.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe"]);
        // What nixrun run does not do either.
        nspawn.args(["--link-journal=no", "--resolv-conf=off", "--timezone=off"]);
        nspawn.arg("-D").arg(self.root);
        match network {
            Network::Host => {}
            Network::Loopback => _ = nspawn.arg("--private-network"),
            Network::Veth => _ = nspawn.args(["--network-veth", "--port=tcp:8080:80"]),
        }
        nspawn.arg("/exit");
        self.tool("systemd-nspawn", network, nspawn)
    }

    /// bubblewrap has no filter of its own: it gets nixrun's program.
    fn bwrap(&self, network: Network) -> Result<Tool> {
        let filter = self.filter()?;
        let mut bwrap = command("bwrap");
        bwrap.args(["--unshare-pid", "--unshare-uts", "--unshare-ipc", "--unshare-cgroup", "--as-pid-1"]);
        if network == Network::Loopback {
            bwrap.arg("--unshare-net");
        }
        bwrap.args(["--die-with-parent", "--bind"]).arg(self.root).arg("/");
        bwrap.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run"]);
        bwrap.args(["--cap-drop", "ALL", "--seccomp", &filter.as_raw_fd().to_string(), "/exit"]);
        Ok(Tool { filter: Some(filter), ..self.tool("bwrap", network, bwrap) })
    }

    fn filter(&self) -> Result<File> {
        let program = runtime::seccomp::compile(&runtime::seccomp::Policy::nspawn(self.capabilities));
        let mut file = tempfile::tempfile()?;
        for instruction in program {
            file.write_all(&instruction.code.to_ne_bytes())?;
            file.write_all(&[instruction.jt, instruction.jf])?;
            file.write_all(&instruction.k.to_ne_bytes())?;
        }
        // Inherited under its number.
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(file)
    }

    fn oci(&self, program: &'static str, network: Network, options: &[&str]) -> Result<Tool> {
        let bundle = self.bundle(network)?;
        let mut oci = command(program);
        oci.args(options).args(["run", "--bundle"]).arg(bundle).arg(format!("nixrun-bench-{program}"));
        Ok(self.tool(program, network, oci))
    }

    /// What `crun spec` and `runc spec` write, with our root, program, capabilities and filter.
    fn bundle(&self, network: Network) -> Result<PathBuf> {
        let name = if network == Network::Host { "host" } else { "loopback" };
        let bundle = self.directory.join(name);
        fs::create_dir_all(&bundle)?;
        let mut namespaces = vec!["pid", "ipc", "uts", "mount", "cgroup"];
        if network != Network::Host {
            namespaces.push("network");
        }
        let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
        let capabilities: Vec<String> = self.capabilities.iter().map(|cap| cap.to_string()).collect();
        let policy = runtime::seccomp::Policy::nspawn(self.capabilities);
        let allowed: Vec<&str> = policy.allowed().collect();
        let group = self.group.strip_prefix("/sys/fs/cgroup").unwrap_or(self.group);
        let config = json!({
            "ociVersion": "1.0.0",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": ["/exit"],
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                },
            },
            "root": { "path": self.root },
            "hostname": "bench",
            "mounts": mounts(),
            "linux": {
                "cgroupsPath": Path::new("/").join(group).join("oci"),
                "namespaces": namespaces,
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ERRNO",
                    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                    "syscalls": [{ "names": allowed, "action": "SCMP_ACT_ALLOW" }],
                },
                "maskedPaths": [
                    "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/sysrq-trigger", "/proc/timer_list",
                ],
                "readonlyPaths": [
                    "/proc/acpi", "/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/scsi", "/proc/sys",
                ],
            },
        });
        fs::write(bundle.join("config.json"), config.to_string())?;
        Ok(bundle)
    }
}

fn mounts() -> Value {
    let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let tmp: &[&str] = &["nosuid", "nodev", "mode=1777"];
    let api: &[&str] = &["nosuid", "noexec", "nodev"];
    json!([
        mount("/proc", "proc", api),
        mount("/tmp", "tmpfs", tmp),
        mount("/run", "tmpfs", &["nosuid", "nodev", "mode=755"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=4m"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        mount("/dev/shm", "tmpfs", tmp),
        mount("/dev/mqueue", "mqueue", api),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ])
}
