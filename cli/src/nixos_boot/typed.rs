//! What only the JSON can ask for: the rest of a container's configuration.

use std::path::Path;

use runtime::{
    CapSet, ContainerConfig, CpuMax, Credential, Device, DeviceAllow, Execution, IoMax, JournalLink,
    KernelView, LinkJournal, Ownership, PivotRoot, ResourceLimit, Resources, RootOptions, UserNamespace,
    Volatile,
};

use super::{BootError, other, wrong};
use crate::json::{self, Capability, Document};
use crate::settings::Settings;

/// What nixpkgs' start script passes for a container that is not ephemeral.
const TRY_GUEST: LinkJournal = LinkJournal { mode: JournalLink::Guest, optional: true };
/// Largest credential: systemd's own limit (CREDENTIAL_SIZE_MAX).
const CREDENTIAL_MAX: u64 = 1024 * 1024;

/// Fills in everything that is neither program, root directory, mount nor network.
pub(super) fn fill(
    settings: &Settings,
    host: &runtime::HostPaths,
    container: &mut ContainerConfig,
) -> Result<(), BootError> {
    let document = &settings.document;
    check(settings)?;
    container.hostname = document.hostname.as_ref().map(|name| name.0.clone());
    container.uuid = document.machine_id.as_ref().map(|id| id.0);
    container.root = root(document);
    container.root.template = document.template.as_ref().map(|path| host.join(&path.0));
    container.users = document.users();
    container.ownership = ownership(document);
    container.payload.cwd = document.working_directory.as_ref().map(|path| path.0.clone());
    container.payload.user = document.user.as_ref().map(|user| user.0.clone());
    container.payload.as_pid2 = document.as_pid2.unwrap_or(false);
    let environment = document.environment.iter().flat_map(|environment| &environment.0);
    container
        .payload
        .env
        .extend(environment.map(|(key, value)| (key.0.clone().into(), value.0.clone().into())));
    if let Some(signal) = &document.kill_signal {
        container.stop_signal = signal.0;
    }
    if let Some(ready) = document.notify_ready {
        container.notify_ready = ready;
    }
    security(document, container);
    container.execution = execution(document);
    container.resources = resources(settings, host)?;
    container.integration.timezone = document.timezone.map_or_else(Default::default, |word| word.0);
    let nixos = container.store.is_some();
    let journal = if nixos && !container.root.ephemeral { TRY_GUEST } else { LinkJournal::default() };
    container.integration.journal = document.link_journal.map_or(journal, |word| word.0);
    container.integration.credentials = credentials(settings, host)?;
    container.kernel_view = kernel_view(document.kernel_view.as_ref());
    Ok(())
}

/// What is right by itself and wrong beside something else.
fn check(settings: &Settings) -> Result<(), BootError> {
    let document = &settings.document;
    let yes = |value: Option<bool>| value == Some(true);
    let volatile = document.volatile.map_or(Volatile::No, |word| word.0);
    let link = document.link_journal.map_or(JournalLink::No, |word| word.0.mode);
    let linked = matches!(link, JournalLink::Host | JournalLink::Guest);
    let view = document.kernel_view.clone().unwrap_or_default();
    let ephemeral = yes(document.ephemeral);
    let contradictions = [
        ("ephemeral", ephemeral && yes(document.read_only), "is true beside readOnly; set one of them"),
        ("ephemeral", ephemeral && document.template.is_some(), "is true beside template; set one of them"),
        (
            "ephemeral",
            ephemeral && linked,
            "is true beside linkJournal, whose files would be gone at the end; set one of them",
        ),
        (
            "volatile",
            volatile != Volatile::No && yes(document.read_only),
            "makes the root read-only as far as it can be; remove readOnly",
        ),
        (
            "image",
            yes(document.image) && document.template.is_some(),
            "is true beside template, which is copied to a directory; set one of them",
        ),
        ("image", yes(document.image) && document.root.is_none(), "is true, and no root names it; set root"),
        (
            "privateUsersOwnership",
            document.private_users_ownership.is_some() && document.users() == UserNamespace::Host,
            "needs a user namespace; set privateUsers",
        ),
        (
            "hostname",
            document.hostname.is_some() && yes(view.share_uts),
            "cannot be set while kernelView.shareUts is true: it would be the host's",
        ),
    ];
    if let Some((key, _, problem)) = contradictions.iter().find(|(_, wrong, _)| *wrong) {
        return Err(wrong(settings, other(key), *problem));
    }
    let both = union(document.additional_capabilities.as_deref())
        .intersection(union(document.dropped_capabilities.as_deref()));
    if let Some(capability) = both.iter().next() {
        let problem = format!("has {capability}, which additionalCapabilities has too; remove one");
        return Err(wrong(settings, other("droppedCapabilities"), problem));
    }
    let calls = document.system_call_filter.clone().unwrap_or_default();
    if let Some(call) = calls.deny.iter().find(|call| calls.allow.contains(call)) {
        let problem = format!("both allows and denies {}; remove one", call.0);
        return Err(wrong(settings, other("systemCallFilter"), problem));
    }
    Ok(())
}

fn root(document: &Document) -> RootOptions {
    RootOptions {
        image: document.image.unwrap_or(false),
        template: None,
        read_only: document.read_only.unwrap_or(false),
        volatile: document.volatile.map_or(Volatile::No, |word| word.0),
        ephemeral: document.ephemeral.unwrap_or(false),
        pivot: document.pivot_root.as_ref().map(|pivot| PivotRoot {
            new: pivot.new.0.clone(),
            old: pivot.old.as_ref().map(|old| old.0.clone()),
        }),
    }
}

/// As systemd-nspawn: with `pick` the root is made to fit, with any other choice it is said to fit already.
fn ownership(document: &Document) -> Ownership {
    match (document.private_users_ownership, document.users()) {
        (Some(word), _) => word.0,
        (None, UserNamespace::Pick) => Ownership::Auto,
        (None, _) => Ownership::Off,
    }
}

fn union(capabilities: Option<&[Capability]>) -> CapSet {
    capabilities.unwrap_or_default().iter().fold(CapSet::EMPTY, |all, one| all.union(one.0))
}

fn security(document: &Document, container: &mut ContainerConfig) {
    container.add_capabilities = union(document.additional_capabilities.as_deref());
    container.drop_capabilities = union(document.dropped_capabilities.as_deref());
    let security = &mut container.security;
    security.ambient_capabilities = union(document.ambient_capabilities.as_deref());
    security.no_new_privileges = document.no_new_privileges.unwrap_or(false);
    security.suppress_sync = document.suppress_sync.unwrap_or(false);
    security.nested = document.nested.unwrap_or(false);
    if let Some(word) = &document.personality {
        security.personality = Some(word.0);
    }
    if let Some(calls) = &document.system_call_filter {
        let names = |calls: &[json::SystemCall]| calls.iter().map(|call| call.0.clone()).collect();
        security.system_calls.allow = names(&calls.allow);
        security.system_calls.deny = names(&calls.deny);
    }
    security.devices = document.allowed_devices.iter().flatten().map(device).collect();
    if document.enable_tun == Some(true) {
        let device = Device::Node("/dev/net/tun".into());
        security.devices.push(DeviceAllow { device, read: true, write: true, mknod: true });
        container.add_capabilities = container.add_capabilities.union(net_admin());
    }
}

fn net_admin() -> CapSet {
    CapSet::parse("CAP_NET_ADMIN").unwrap_or(CapSet::EMPTY)
}

fn device(allowed: &json::AllowedDevice) -> DeviceAllow {
    let access = allowed
        .modifier
        .as_ref()
        .map_or(json::DeviceAccess { read: true, write: true, mknod: false }, |modifier| modifier.0);
    let json::DeviceAccess { read, write, mknod } = access;
    DeviceAllow { device: allowed.node.0.clone(), read, write, mknod }
}

fn execution(document: &Document) -> Execution {
    let limits = document.limits.iter().flat_map(|limits| &limits.0);
    Execution {
        limits: limits
            .map(|(name, limit)| ResourceLimit { name: name.0.clone(), soft: limit.0.0, hard: limit.0.1 })
            .collect(),
        oom_score_adjust: document.oom_score_adjust,
        cpu_affinity: document.cpu_affinity.as_ref().map(|cpus| cpus.iter().map(|cpu| cpu.0).collect()),
    }
}

fn resources(settings: &Settings, host: &runtime::HostPaths) -> Result<Resources, BootError> {
    let json::Resources { memory, cpu, pids, io, cpuset } =
        settings.document.resources.clone().unwrap_or_default();
    let (memory, cpu, cpuset) =
        (memory.unwrap_or_default(), cpu.unwrap_or_default(), cpuset.unwrap_or_default());
    let pids = pids.unwrap_or_default().max.map(|count| count.0);
    let some = |key: &'static str, value: Option<u64>| match value {
        Some(0) => {
            Err(wrong(settings, other(key), "is 0, with which nothing can run; leave it out for no limit"))
        }
        value => Ok(value),
    };
    let bytes = |value: Option<json::Bytes>| value.map(|bytes| bytes.0);
    let weight = cpu.weight;
    Ok(Resources {
        memory_max: some("resources.memory.max", bytes(memory.max))?,
        memory_high: some("resources.memory.high", bytes(memory.high))?,
        memory_swap_max: bytes(memory.swap.unwrap_or_default().max),
        cpu_max: cpu.max.map(|time| CpuMax { quota: time.0.quota, period: time.0.period }),
        cpu_weight: weight,
        pids_max: some("resources.pids.max", pids)?,
        io_max: io_max(settings, host, io.unwrap_or_default())?,
        cpuset_cpus: cpuset.cpus.map(|list| list.0),
        cpuset_mems: cpuset.mems.map(|list| list.0),
    })
}

fn io_max(settings: &Settings, host: &runtime::HostPaths, io: json::Io) -> Result<Vec<IoMax>, BootError> {
    // "max" is no limit, which the kernel has where none is set.
    let limit = |value: Option<u64>| value.filter(|value| *value != u64::MAX);
    let bytes = |value: Option<json::Bytes>| limit(value.map(|bytes| bytes.0));
    let count = |value: Option<json::Count>| limit(value.map(|count| count.0));
    io.max
        .into_iter()
        .flat_map(|devices| devices.0)
        .map(|(device, bandwidth)| {
            let max = IoMax {
                device: host.join(&device.0),
                read_bytes: bytes(bandwidth.read_bytes),
                write_bytes: bytes(bandwidth.write_bytes),
                read_operations: count(bandwidth.read_operations),
                write_operations: count(bandwidth.write_operations),
            };
            let all = [max.read_bytes, max.write_bytes, max.read_operations, max.write_operations];
            if all.contains(&Some(0)) {
                let problem = format!("is 0 for {}, with which nothing gets done", device.0.display());
                return Err(wrong(settings, other("resources.io.max"), problem));
            }
            Ok(max)
        })
        .collect()
}

fn credentials(settings: &Settings, host: &runtime::HostPaths) -> Result<Vec<Credential>, BootError> {
    let credentials = settings.document.credentials.iter().flat_map(|credentials| &credentials.0);
    credentials
        .map(|(id, credential)| {
            let refused = |problem: String| {
                wrong(settings, other("credentials"), format!("cannot give {}: {problem}", id.0))
            };
            let value = match (&credential.file, &credential.text) {
                (Some(file), None) => read_secret(&host.join(&file.0)).map_err(refused)?,
                (None, Some(text)) => text.0.clone().into_bytes(),
                _ => return Err(refused("set exactly one of file and text".to_owned())),
            };
            Ok(Credential { id: id.0.clone(), value })
        })
        .collect()
}

/// A secret may lie behind links whose targets change, as those of agenix and sops-nix do: it is read anew at each start.
pub(super) fn read_secret(file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", file.display());
    let metadata = std::fs::metadata(file).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{} is not a file", file.display()));
    }
    if metadata.len() > CREDENTIAL_MAX {
        return Err(format!("{} is larger than 1 MiB", file.display()));
    }
    std::fs::read(file).map_err(failed)
}

fn kernel_view(asked: Option<&json::KernelView>) -> KernelView {
    let default = KernelView::default();
    let Some(asked) = asked else { return default };
    KernelView {
        writable: asked.writable.map_or(default.writable, |word| word.0),
        tmpfs_tmp: asked.tmpfs_tmp.unwrap_or(default.tmpfs_tmp),
        cgroup_namespace: asked.cgroup_namespace.unwrap_or(default.cgroup_namespace),
        share_ipc: asked.share_ipc.unwrap_or(default.share_ipc),
        share_pid: asked.share_pid.unwrap_or(default.share_pid),
        share_uts: asked.share_uts.unwrap_or(default.share_uts),
        ..default
    }
}
