//! The keys of a JSON configuration. What NixOS has an option for has that option's name and form. The comments here
//! are the descriptions in the schema and in docs/configuration.md.

use schemars::JsonSchema;
use serde::Deserialize;

use super::checked::{at_least_one, port, some, within};
use super::keyed::{Keyed, keyed_objects, object, objects};
use super::values::{
    AbsolutePath, Access, Bytes, Capability, ConsoleWord, Count, CpuNumber, CpuTime, CredentialName,
    DeviceName, ForwardToWord, Hostname, IdsWord, Ipv4Host, Ipv4Local, Ipv6Host, Ipv6Local, JournalWord,
    Limit, LimitName, Link, LinkPair, ListenAddress, Mac, MachineId, NatValue, NumberList, OwnershipWord,
    PersonalityWord, ProtocolWord, ResolvConfWord, RestartWord, Signal, Source, SystemCall, Text,
    TimezoneWord, TmpfsMount, User, UsersValue, VariableName, VolatileWord, WritableWord, Zone,
};

/// The configuration of one container, `/etc/nixrun/NAME.json`. A key that is absent, or null, is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Document {
    /// The schema that this file follows; for editors, nixrun does not read it.
    #[serde(rename = "$schema")]
    pub schema: Option<Text>,

    // What runs.
    /// The NixOS system to boot (SYSTEM_PATH); when neither this nor `command` nor `boot` is set, the container's own
    /// system profile.
    pub system: Option<AbsolutePath>,
    /// The program that is PID 1 instead of a NixOS system, and its arguments: an absolute path inside, or a name that
    /// is looked up in its PATH. The root directory must exist then, and gets nothing from the host's Nix store.
    #[serde(deserialize_with = "some")]
    #[schemars(length(min = 1))]
    pub command: Option<Vec<Text>>,
    /// The init of the root directory is PID 1, as with `systemd-nspawn --boot`.
    pub boot: Option<bool>,
    /// Variables of PID 1.
    pub environment: Option<Keyed<VariableName, Text>>,
    /// Working directory of PID 1.
    pub working_directory: Option<AbsolutePath>,
    /// The user that PID 1 runs as.
    pub user: Option<User>,
    /// A small init is PID 1 and the program PID 2.
    pub as_pid2: Option<bool>,
    /// Hostname; the container's name when not set.
    pub hostname: Option<Hostname>,
    /// Machine id, unless the root has one in /etc/machine-id.
    pub machine_id: Option<MachineId>,
    /// The signal that asks PID 1 to shut down: SIGRTMIN+3 for an init, SIGTERM for a command.
    pub kill_signal: Option<Signal>,
    /// Whether the container is ready when PID 1 says so (READY=1), and not when it runs; true for a NixOS system.
    pub notify_ready: Option<bool>,
    /// What uname(2) says: `compat` for 32-bit programs on a 64-bit machine. A NixOS system for i686 gets it by
    /// itself.
    pub personality: Option<PersonalityWord>,
    /// What /dev/console is connected to; `--console` of the command line wins.
    pub console: Option<ConsoleWord>,

    // The life.
    /// Started with the host, by `nixrun autostart` (AUTO_START).
    pub auto_start: Option<bool>,
    /// Containers that are started before this one, which is not started without them.
    pub requires: Option<Vec<Hostname>>,
    /// When it is started again after its end, if it was not asked to end; a systemd unit has its own Restart= for that.
    pub restart: Option<RestartWord>,
    /// Seconds that it may take to become ready; 60 when not set, `--timeout` of the command line wins.
    #[serde(deserialize_with = "within::<_, _, 1, 86400>")]
    #[schemars(range(min = 1, max = 86400))]
    pub start_timeout: Option<u32>,

    // The root.
    /// Host path of the root directory, or of the image; /var/lib/nixos-containers/NAME when not set.
    pub root: Option<AbsolutePath>,
    /// `root` is a disk image or a block device.
    pub image: Option<bool>,
    /// A directory that a missing root directory is copied from.
    pub template: Option<AbsolutePath>,
    /// The whole root is read-only.
    pub read_only: Option<bool>,
    /// What of the root is forgotten at the end: with `yes` all but /usr, which is read-only; with `state` /var, and all
    /// else is read-only; with `overlay` everything that was written.
    pub volatile: Option<VolatileWord>,
    /// Nothing that is written into the root stays.
    pub ephemeral: Option<bool>,
    /// Another directory of the root is `/`, as OSTree wants it.
    #[serde(deserialize_with = "object")]
    pub pivot_root: Option<Pivot>,

    // Users.
    /// The user namespace (PRIVATE_USERS).
    pub private_users: Option<UsersValue>,
    /// How the root's files come to belong to the container's users.
    pub private_users_ownership: Option<OwnershipWord>,

    // Mounts.
    /// Files and directories of the host, by their path inside.
    #[serde(deserialize_with = "keyed_objects")]
    pub bind_mounts: Option<Keyed<AbsolutePath, Bind>>,
    /// File systems in memory.
    pub tmpfs: Option<Vec<TmpfsMount>>,
    /// Directories laid over each other, by their path inside.
    #[serde(deserialize_with = "keyed_objects")]
    pub overlays: Option<Keyed<AbsolutePath, Overlay>>,
    /// Paths that are there and cannot be looked into.
    pub inaccessible: Option<Vec<AbsolutePath>>,

    // Network.
    /// A network of the container's own (PRIVATE_NETWORK); any link implies it.
    pub private_network: Option<bool>,
    /// The bridge of the host that the link to the host joins (HOST_BRIDGE).
    pub host_bridge: Option<Link>,
    /// A zone: a bridge `vz-ZONE` that is made with the first container in it and removed with the last.
    pub zone: Option<Zone>,
    /// IPv4 address of the host's end of the link (HOST_ADDRESS); the container's default gateway.
    pub host_address: Option<Ipv4Host>,
    /// IPv6 address of the host's end (HOST_ADDRESS6).
    pub host_address6: Option<Ipv6Host>,
    /// IPv4 address of the container's end (LOCAL_ADDRESS), a /32 unless a prefix is written.
    pub local_address: Option<Ipv4Local>,
    /// IPv6 address of the container's end (LOCAL_ADDRESS6), a /128 unless a prefix is written.
    pub local_address6: Option<Ipv6Local>,
    /// MAC address of the container's end (LOCAL_MAC_ADDRESS); a stable one when not set.
    pub local_mac_address: Option<Mac>,
    /// Name of the container's end; eth0 when not set.
    pub link_name: Option<Link>,
    /// Further pairs of links, by the name of the host's end.
    #[serde(deserialize_with = "keyed_objects")]
    pub extra_veths: Option<Keyed<Link, ExtraVeth>>,
    /// Links of the host that move into the container (INTERFACES), each `LINK` or `LINK:NAME-INSIDE`.
    pub interfaces: Option<Vec<LinkPair>>,
    /// Links of the host on which the container gets a macvlan (MACVLANS), likewise.
    pub macvlans: Option<Vec<LinkPair>>,
    /// Links of the host on which the container gets an ipvlan, likewise.
    pub ipvlans: Option<Vec<LinkPair>>,
    /// An existing network namespace that the container joins (NETWORK_NAMESPACE_PATH).
    pub network_namespace: Option<AbsolutePath>,
    /// Ports of the host that lead into the container (HOST_PORT).
    #[serde(deserialize_with = "objects")]
    pub forward_ports: Option<Vec<ForwardPort>>,
    /// Which address of the container they lead to.
    pub forward_to: Option<ForwardToWord>,
    /// Who translates the container's private addresses; `auto` when not set, `--nat` of the command line wins.
    pub nat: Option<NatValue>,

    // Security.
    /// Capabilities beyond the default set.
    pub additional_capabilities: Option<Vec<Capability>>,
    /// Capabilities taken from the default set.
    pub dropped_capabilities: Option<Vec<Capability>>,
    /// Capabilities that survive exec of ordinary programs.
    pub ambient_capabilities: Option<Vec<Capability>>,
    /// Exec gives no privileges: set-user-id programs do not work.
    pub no_new_privileges: Option<bool>,
    /// Changes of the system call filter.
    #[serde(deserialize_with = "object")]
    pub system_call_filter: Option<SystemCalls>,
    /// fsync(2) and its kind do nothing.
    pub suppress_sync: Option<bool>,
    /// Devices beyond those that every container may use. In a systemd unit its `DeviceAllow=` decides.
    #[serde(deserialize_with = "objects")]
    pub allowed_devices: Option<Vec<AllowedDevice>>,
    /// /dev/net/tun and CAP_NET_ADMIN.
    pub enable_tun: Option<bool>,
    /// What containers inside this container need.
    pub nested: Option<bool>,

    // Limits.
    /// Limits of PID 1 (setrlimit(2)), by name.
    pub limits: Option<Keyed<LimitName, Limit>>,
    /// PID 1's place in the queue of the out-of-memory killer.
    #[serde(deserialize_with = "within::<_, _, -1000, 1000>")]
    #[schemars(range(min = -1000, max = 1000))]
    pub oom_score_adjust: Option<i32>,
    /// The CPUs that PID 1 may use.
    #[serde(deserialize_with = "some")]
    #[schemars(length(min = 1))]
    pub cpu_affinity: Option<Vec<CpuNumber>>,
    /// Limits of the control group, by the names of the kernel's files.
    #[serde(deserialize_with = "object")]
    pub resources: Option<Resources>,

    // The host.
    /// The container's /etc/resolv.conf; COPY_RESOLV_CONF=1 is `replace-follow` where the JSON does not say how. With the
    /// host's network a NixOS container has `follow` when nothing is said. docs/dns.md has what each does.
    pub resolv_conf: Option<ResolvConfWord>,
    /// The container's /etc/localtime.
    pub timezone: Option<TimezoneWord>,
    /// Where the container's journal is and who links to it; `try-guest` for a NixOS system that is not ephemeral.
    pub link_journal: Option<JournalWord>,
    /// Secrets for PID 1, by name: files below /run/host/credentials.
    #[serde(deserialize_with = "keyed_objects")]
    pub credentials: Option<Keyed<CredentialName, Credential>>,
    /// How much of the kernel's file systems is seen.
    #[serde(deserialize_with = "object")]
    pub kernel_view: Option<KernelView>,
}

/// Another directory of the root as `/`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pivot {
    /// The directory.
    pub new: AbsolutePath,
    /// Where the former `/` is found in it.
    pub old: Option<AbsolutePath>,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bind {
    /// Where it comes from; the same path on the host when not set.
    pub host_path: Option<Source>,
    /// Whether it is read-only; true when not set.
    pub is_read_only: Option<bool>,
    /// Whether the mounts below the source come along; true when not set.
    pub recursive: Option<bool>,
    /// How owners of files appear inside a user namespace: `auto` as `map`, or as `host` where the file system cannot;
    /// `map` host ids 0, 1, … are the container's; `host` as they are; `root` the source's owner is root inside;
    /// `owner` the source's owner is the owner of the path inside.
    pub ids: Option<IdsWord>,
}

/// An overlay.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overlay {
    /// The layers that are only read, the lowest first.
    #[serde(deserialize_with = "at_least_one")]
    #[schemars(length(min = 1))]
    pub lower: Vec<Source>,
    /// The layer that takes what is written; without one the mount is read-only.
    pub upper: Option<Source>,
}

/// A further pair of links.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraVeth {
    /// Name of the container's end; the host's when not set.
    pub link_name: Option<Link>,
    /// A bridge of the host that the host's end joins.
    pub host_bridge: Option<Link>,
    /// IPv4 address of the host's end.
    pub host_address: Option<Ipv4Host>,
    /// IPv6 address of the host's end.
    pub host_address6: Option<Ipv6Host>,
    /// IPv4 address of the container's end.
    pub local_address: Option<Ipv4Local>,
    /// IPv6 address of the container's end.
    pub local_address6: Option<Ipv6Local>,
}

/// A port of the host that leads into the container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwardPort {
    /// Transport protocol; tcp when not set.
    pub protocol: Option<ProtocolWord>,
    /// Only this address of the host listens; all of them when not set.
    pub host_address: Option<ListenAddress>,
    /// Port of the host.
    #[serde(deserialize_with = "port")]
    #[schemars(range(min = 1))]
    pub host_port: u16,
    /// Port of the container; the host's when not set.
    #[serde(default, deserialize_with = "within::<_, _, 1, 65535>")]
    #[schemars(range(min = 1))]
    pub container_port: Option<u16>,
}

/// Changes of the system call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SystemCalls {
    /// What is allowed beyond the default.
    pub allow: Vec<SystemCall>,
    /// What is forbidden.
    pub deny: Vec<SystemCall>,
}

/// A device that the container may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedDevice {
    /// Which one.
    pub node: DeviceName,
    /// What may be done with it; `rw` when not set.
    pub modifier: Option<Access>,
}

/// Limits of the control group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// Memory.
    #[serde(deserialize_with = "object")]
    pub memory: Option<Memory>,
    /// Processor time.
    #[serde(deserialize_with = "object")]
    pub cpu: Option<Cpu>,
    /// Number of tasks.
    #[serde(deserialize_with = "object")]
    pub pids: Option<Pids>,
    /// Bandwidth of block devices.
    #[serde(deserialize_with = "object")]
    pub io: Option<Io>,
    /// Which CPUs and memory nodes.
    #[serde(deserialize_with = "object")]
    pub cpuset: Option<CpuSet>,
}

/// Limits of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Memory {
    /// memory.max: beyond it processes are killed.
    pub max: Option<Bytes>,
    /// memory.high: beyond it processes are slowed down.
    pub high: Option<Bytes>,
    /// Swap.
    #[serde(deserialize_with = "object")]
    pub swap: Option<Swap>,
}

/// Limit of swap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Swap {
    /// memory.swap.max.
    pub max: Option<Bytes>,
}

/// Limits of processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cpu {
    /// cpu.max.
    pub max: Option<CpuTime>,
    /// cpu.weight: the share beside others; the kernel's default is 100.
    #[serde(deserialize_with = "within::<_, _, 1, 10000>")]
    #[schemars(range(min = 1, max = 10000))]
    pub weight: Option<u32>,
}

/// Limit of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pids {
    /// pids.max.
    pub max: Option<Count>,
}

/// Limits of input and output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Io {
    /// io.max, by a node of the device on the host, or a file on a file system on it.
    #[serde(deserialize_with = "keyed_objects")]
    pub max: Option<Keyed<AbsolutePath, Bandwidth>>,
}

/// Bandwidth of one device, each second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bandwidth {
    /// Bytes read.
    pub read_bytes: Option<Bytes>,
    /// Bytes written.
    pub write_bytes: Option<Bytes>,
    /// Reads.
    pub read_operations: Option<Count>,
    /// Writes.
    pub write_operations: Option<Count>,
}

/// Which processors and memory nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CpuSet {
    /// cpuset.cpus.
    pub cpus: Option<NumberList>,
    /// cpuset.mems.
    pub mems: Option<NumberList>,
}

/// A secret: exactly one of `file` and `text`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Credential {
    /// Host path of a file that holds it, read at each start.
    pub file: Option<AbsolutePath>,
    /// The secret itself, which whoever can read this file can read.
    pub text: Option<Text>,
}

/// How much of the kernel's file systems is seen (`SYSTEMD_NSPAWN_*`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KernelView {
    /// Which of /sys and /proc/sys are writable.
    pub writable: Option<WritableWord>,
    /// /tmp is a tmpfs; true when not set.
    pub tmpfs_tmp: Option<bool>,
    /// The container sees its own control group as the root; true when not set.
    pub cgroup_namespace: Option<bool>,
    /// System V IPC and POSIX message queues are the host's.
    pub share_ipc: Option<bool>,
    /// Processes are the host's.
    pub share_pid: Option<bool>,
    /// The hostname is the host's.
    pub share_uts: Option<bool>,
}
