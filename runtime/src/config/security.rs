//! What PID 1 may do, and how much of the machine it gets.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::caps::CapSet;

/// Restrictions beyond the namespaces. The default is systemd-nspawn's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Security {
    /// Capabilities that survive exec of a program without file capabilities, and the change to another user; some of
    /// those that the container has anyway.
    pub ambient_capabilities: CapSet,
    /// Whether exec can no longer give privileges, by set-user-id for one.
    pub no_new_privileges: bool,
    /// Changes of the system call filter, in order: names of calls or `@groups`.
    pub system_calls: SystemCallRules,
    /// Whether fsync(2) and its kind do nothing, successfully.
    pub suppress_sync: bool,
    /// What uname(2) says the machine is, and the layout of memory that goes with it.
    pub personality: Option<Personality>,
    /// Devices beyond those that every container may use.
    pub devices: Vec<DeviceAllow>,
    /// What containers inside this one need: a procfs and a sysfs out of the way, without which none could be mounted in
    /// a user namespace, keyrings, bpf, /dev/fuse and /dev/net/tun.
    pub nested: bool,
}

/// Changes of the system call filter (`--system-call-filter=`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemCallRules {
    /// Calls and `@groups` that are allowed beyond the default.
    pub allow: Vec<String>,
    /// Calls and `@groups` that are forbidden.
    pub deny: Vec<String>,
}

/// The kind of machine that a container's programs see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Personality {
    /// The machine's own.
    Native,
    /// The 32-bit one that the machine's processor can be, too: i686 on x86_64.
    Compat,
}

/// A device that the container may use (systemd's `DeviceAllow=`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceAllow {
    /// Which one.
    pub device: Device,
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making nodes.
    pub mknod: bool,
}

/// Names a device, or many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The one behind a node of the host.
    Node(PathBuf),
    /// All character devices of a driver, by its name in /proc/devices; `*` for any.
    CharGroup(String),
    /// All block devices of a driver, likewise.
    BlockGroup(String),
}

/// What PID 1 gets from the kernel's schedulers and limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Execution {
    /// Limits in place of the kernel's for PID 1.
    pub limits: Vec<ResourceLimit>,
    /// `/proc/self/oom_score_adj`, from -1000 to 1000; the supervisor's when absent.
    pub oom_score_adjust: Option<i32>,
    /// The CPUs that PID 1 may use, by number; the supervisor's when absent.
    pub cpu_affinity: Option<Vec<u32>>,
}

/// An `RLIMIT_*`, in the unit that getrlimit(2) gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceLimit {
    /// Name without the prefix, such as `NOFILE`.
    pub name: String,
    /// Soft limit; `u64::MAX` is infinity.
    pub soft: u64,
    /// Hard limit, likewise.
    pub hard: u64,
}

/// Limits of the control group, by the kernel's names for its files. Absent: not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// `memory.max`, bytes.
    pub memory_max: Option<u64>,
    /// `memory.high`, bytes.
    pub memory_high: Option<u64>,
    /// `memory.swap.max`, bytes.
    pub memory_swap_max: Option<u64>,
    /// `cpu.max`.
    pub cpu_max: Option<CpuMax>,
    /// `cpu.weight`, from 1 to 10000.
    pub cpu_weight: Option<u32>,
    /// `pids.max`, a number of tasks.
    pub pids_max: Option<u64>,
    /// `io.max`, a line for each device.
    pub io_max: Vec<IoMax>,
    /// `cpuset.cpus`, such as `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// `cpuset.mems`.
    pub cpuset_mems: Option<String>,
}

/// Processor time in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CpuMax {
    /// Microseconds of processor time; no limit when absent.
    pub quota: Option<u64>,
    /// Length of the period, microseconds; the kernel's default is 100000.
    pub period: u64,
}

/// Bandwidth of one block device. Absent: no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IoMax {
    /// A node of the device on the host, or a file on a file system that lies on it.
    pub device: PathBuf,
    /// Bytes read a second.
    pub read_bytes: Option<u64>,
    /// Bytes written a second.
    pub write_bytes: Option<u64>,
    /// Reads a second.
    pub read_operations: Option<u64>,
    /// Writes a second.
    pub write_operations: Option<u64>,
}
