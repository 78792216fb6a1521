//! From what was asked to what runtime and netsetup are asked for.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use netsetup::{ForwardTo, Nat, NetworkConfig, Veth};
use runtime::{
    CapSet, Console, ContainerConfig, Credential, Execution, HostPaths, Integration, JournalLink,
    LinkJournal, Mount, Network, Payload, Program, ResolvConf, RootOptions, Security, Timezone,
    UserNamespace,
};

use super::asked::{Asked, ConsoleMode, CredentialSource, Start};
use super::environment::{self, Variables};
use super::root::{self, Names};
use super::{Meaning, Surroundings, check, settings};
use crate::ops::{Request, UnitRequest};
use crate::signals;
use crate::unit_property::UnitProperty;

/// systemd's limit for one credential, and for all together.
const CREDENTIAL_SIZE: u64 = 1 << 20;

pub(super) fn translate(mut asked: Asked, around: Surroundings<'_>) -> Result<Meaning, String> {
    let mut variables = environment::read(around.variable)?;
    if asked.share_system {
        let note = "Please do not use --share-system anymore, use $SYSTEMD_NSPAWN_SHARE_* instead.";
        variables.notes.push(note.to_owned());
        let view = &mut variables.view;
        (view.share_ipc, view.share_pid, view.share_uts) = (true, true, true);
    }
    let names = root::names(&asked, around.here, around.paths)?;
    let warnings = settings::load(&mut asked, &names.settings, &names.root, around.here, around.paths)?;
    variables.notes.extend(warnings);
    check::check(&asked, &variables.view)?;
    let mode = console_mode(&asked, around.terminal);
    let rootfs = root::resolve(&names, &asked, variables.check_os_release)?;
    let mut container = ContainerConfig::new(&names.machine, &rootfs, payload(&asked, around));
    container.root = root_options(&asked, &names);
    container.hostname = asked.hostname.clone();
    container.uuid = asked.uuid;
    container.users = asked.users.unwrap_or(UserNamespace::Host);
    container.ownership = check::ownership(&asked);
    container.mounts = mounts(&asked);
    (container.add_capabilities, container.drop_capabilities) = capabilities(&asked);
    container.security = security(&asked, &variables);
    container.execution = Execution {
        limits: asked.limits.clone(),
        oom_score_adjust: asked.oom_score_adjust,
        cpu_affinity: asked.cpu_affinity.clone(),
    };
    let view = &variables.view;
    let register = asked.register.unwrap_or(true) && !view.share_pid && !view.share_uts;
    container.integration = integration(&asked, register, around)?;
    container.kernel_view = variables.view.clone();
    container.kernel_view.joined_network_is_own = asked.network.private == Some(true);
    container.console = mode;
    container.stop_signal = stop_signal(&asked);
    container.notify_ready = asked.notify_ready;
    container.notify_socket = true;
    container.tty_gid = tty_group(around.paths);
    if let Some(manager) = variables.manager.clone() {
        container.manager = manager;
    }
    container.network = match &asked.network.namespace_path {
        Some(path) => Network::Join(path.clone()),
        None if asked.network.is_private() => Network::Private,
        None => Network::Host,
    };
    // In a network that is joined as its own, nothing but the loopback link is brought up.
    let own = container.network == Network::Private
        || (asked.network.namespace_path.is_some() && asked.network.private == Some(true));
    let network = own.then(|| network(&asked, &names.machine, &variables));
    if asked.keep_unit && register && in_user_session(around.paths) {
        return Err("--keep-unit --register=yes may not be used when invoked from a user session.".to_owned());
    }
    if asked.console == Some(ConsoleMode::Pipe) && around.terminal && !asked.quiet {
        let note = "Console mode 'pipe' selected, but standard input/output are connected to an interactive TTY. \
                    Most likely you want to use 'interactive' console mode for proper interactivity and shell job \
                    control. Proceeding anyway.";
        variables.notes.push(note.to_owned());
    }
    let unit = unit(&asked, register, &mut variables.notes)?;
    let request =
        Request { container, network, notes: variables.notes, wait_for_links: true, unit, names: false };
    Ok(Meaning {
        request,
        root: rootfs,
        // Our words must not get between those of a command that has our stderr.
        quiet: asked.quiet || mode == Console::Pipe,
        keep_unit: asked.keep_unit,
    })
}

/// Whether our control group is of a user's session: what is registered is the whole unit, and ending the machine
/// would end the session.
fn in_user_session(paths: &HostPaths) -> bool {
    let groups = fs::read_to_string(paths.proc("self/cgroup")).unwrap_or_default();
    groups.lines().any(|line| {
        let slice = line.split('/').find_map(|part| part.strip_prefix("user-")?.strip_suffix(".slice"));
        slice.is_some_and(|uid| !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_digit()))
    })
}

fn console_mode(asked: &Asked, terminal: bool) -> Console {
    match asked.console {
        Some(ConsoleMode::Interactive) => Console::Interactive,
        Some(ConsoleMode::ReadOnly) => Console::ReadOnly,
        Some(ConsoleMode::Passive) => Console::Passive,
        Some(ConsoleMode::Pipe) => Console::Pipe,
        Some(ConsoleMode::Autopipe) if !terminal => Console::Pipe,
        Some(ConsoleMode::Autopipe) => Console::Interactive,
        None if terminal => Console::Interactive,
        None => Console::ReadOnly,
    }
}

fn payload(asked: &Asked, around: Surroundings<'_>) -> Payload {
    let program = match (asked.start, asked.parameters.is_empty()) {
        (Start::Boot, _) => Program::Init,
        (Start::Pid1 | Start::Pid2, true) => Program::Shell,
        (Start::Pid1 | Start::Pid2, false) => Program::Command,
    };
    let value = |(name, value): &(String, Option<String>)| {
        let value = value.clone().map(OsString::from).or_else(|| (around.variable)(name));
        (OsString::from(name), value.unwrap_or_default())
    };
    Payload {
        program,
        env: asked.environment.iter().map(value).collect(),
        cwd: asked.chdir.clone(),
        user: asked.user.clone().filter(|user| !user.is_empty()),
        as_pid2: asked.start == Start::Pid2,
        listen_fds: around.listen_fds,
        ..Payload::new(asked.parameters.clone())
    }
}

fn root_options(asked: &Asked, names: &Names) -> RootOptions {
    RootOptions {
        image: names.image,
        template: asked.template.clone().filter(|_| !asked.ephemeral),
        read_only: asked.read_only || (names.read_only && !asked.ephemeral),
        volatile: asked.volatile,
        ephemeral: asked.ephemeral,
        pivot: asked.pivot_root.clone(),
    }
}

/// As systemd-nspawn sorts them: what lies below another mount comes after it, and on one path a bind mount before a
/// tmpfs, that before an overlay, and last what hides.
fn mounts(asked: &Asked) -> Vec<Mount> {
    let kind = |mount: &Mount| match mount {
        Mount::Bind { .. } => 0,
        Mount::Tmpfs { .. } => 1,
        Mount::Overlay { .. } => 2,
        _ => 3,
    };
    let mut mounts = asked.mounts.clone();
    mounts.sort_by(|a, b| a.target().cmp(b.target()).then(kind(a).cmp(&kind(b))));
    mounts
}

/// What is added to the default set and what is taken from it.
fn capabilities(asked: &Asked) -> (CapSet, CapSet) {
    let only = |name| CapSet::parse(name).unwrap_or_default();
    let mut drop = asked.drop_capability;
    let private = asked.network.is_private();
    let shifted = match asked.users {
        None | Some(UserNamespace::Host | UserNamespace::Identity) => false,
        Some(UserNamespace::Range { base, .. }) => base > 0,
        Some(_) => true,
    };
    // Ports below 1024 of the host's network belong to the host's root.
    if shifted && !private {
        drop = drop.union(only("CAP_NET_BIND_SERVICE"));
    }
    // Another's network namespace is not the container's own to configure, unless --private-network says so.
    let joined = asked.network.namespace_path.is_some() && !private;
    if joined {
        drop = drop.union(only("CAP_NET_ADMIN").difference(asked.capability));
    }
    (asked.capability, drop)
}

fn security(asked: &Asked, variables: &Variables) -> Security {
    Security {
        ambient_capabilities: asked.ambient_capability,
        no_new_privileges: asked.no_new_privileges,
        system_calls: asked.system_calls.clone(),
        suppress_sync: asked.suppress_sync.unwrap_or(variables.suppress_sync),
        personality: asked.personality,
        devices: Vec::new(),
        nested: false,
    }
}

/// Without a signal of its own a container is ended at once, but with an init, which knows one.
fn stop_signal(asked: &Asked) -> i32 {
    let default = if asked.start == Start::Boot { signals::SIGRTMIN + 3 } else { libc::SIGKILL };
    asked.kill_signal.unwrap_or(default)
}

/// A container that stays in our unit has no scope to which slice and properties could apply.
fn unit(asked: &Asked, register: bool, notes: &mut Vec<String>) -> Result<UnitRequest, String> {
    if asked.keep_unit {
        if asked.slice.is_some() || !asked.properties.is_empty() {
            let note = "--keep-unit is in effect, --slice= and --property= settings will have no effect.";
            notes.push(note.to_owned());
        }
        return Ok(UnitRequest { register, keep_unit: true, slice: None, properties: Vec::new() });
    }
    let property = |text: &String| {
        text.parse::<UnitProperty>().map_err(|error| format!("Failed to parse --property= argument: {error}"))
    };
    let properties = asked.properties.iter().map(property).collect::<Result<_, _>>()?;
    Ok(UnitRequest { register, keep_unit: false, slice: asked.slice.clone(), properties })
}

fn integration(asked: &Asked, register: bool, around: Surroundings<'_>) -> Result<Integration, String> {
    let journal = LinkJournal { mode: JournalLink::Auto, optional: true };
    Ok(Integration {
        machine: register,
        resolv_conf: asked.resolv_conf.unwrap_or(ResolvConf::Auto),
        timezone: asked.timezone.unwrap_or(Timezone::Auto),
        journal: asked.link_journal.unwrap_or(journal),
        credentials: credentials(asked, around)?,
    })
}

fn credentials(asked: &Asked, around: Surroundings<'_>) -> Result<Vec<Credential>, String> {
    let mut all = Vec::new();
    let mut size = 0;
    for (id, source) in &asked.credentials {
        let value = match source {
            CredentialSource::Value(value) => value.clone(),
            CredentialSource::File(path) => read_credential(path)?,
            CredentialSource::Inherited(name) => {
                let Some(directory) = (around.variable)("CREDENTIALS_DIRECTORY") else {
                    return Err(format!(
                        "Credential not available (no credentials passed at all): {name}; name a file by an absolute \
                         path"
                    ));
                };
                read_credential(&Path::new(&directory).join(name))?
            }
        };
        size += value.len() as u64;
        if size > CREDENTIAL_SIZE {
            return Err(format!(
                "Credential '{id}' is too large: all together may have {CREDENTIAL_SIZE} bytes, use --bind-ro= for more"
            ));
        }
        all.push(Credential { id: id.clone(), value });
    }
    Ok(all)
}

/// A file's content, or what a server writes that listens at a socket.
fn read_credential(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut value = Vec::new();
        let most = CREDENTIAL_SIZE + 1;
        if fs::metadata(path)?.file_type().is_socket() {
            UnixStream::connect(path)?.take(most).read_to_end(&mut value)?;
        } else {
            fs::File::open(path)?.take(most).read_to_end(&mut value)?;
        }
        Ok(value)
    };
    read().map_err(|error| format!("Failed to read credential '{}': {error}", path.display()))
}

/// The links as systemd-nspawn makes them: no addresses, nothing is up but what is on a bridge, nothing is translated.
fn network(asked: &Asked, machine: &str, variables: &Variables) -> NetworkConfig {
    let links = &asked.network;
    let veth = links.has_veth().then(|| Veth {
        container_link: "host0".to_owned(),
        bridge: links.bridge.clone().or_else(|| links.zone.clone()),
        make_bridge: links.zone.is_some(),
        up: false,
        container_mac: variables.mac,
        host_address: None,
        host_address6: None,
        local_address: None,
        local_address6: None,
    });
    NetworkConfig {
        veth,
        extra_veths: links.extra_veths.clone(),
        interfaces: links.interfaces.clone(),
        macvlans: links.macvlans.clone(),
        ipvlans: links.ipvlans.clone(),
        nat: Nat::No,
        forwards: asked.ports.clone(),
        // Only a forward needs an address: one that nobody configured is no reason to watch for it.
        forward_to: if asked.ports.is_empty() { ForwardTo::Configured } else { ForwardTo::Current },
        ..NetworkConfig::new(machine)
    }
}

/// The group of terminals is a matter of the distribution: 5 on most, 3 on NixOS.
fn tty_group(paths: &HostPaths) -> u32 {
    const USUAL: u32 = 5;
    let groups = fs::read_to_string(paths.join("/etc/group")).unwrap_or_default();
    let gid = groups.lines().find_map(|line| line.strip_prefix("tty:")?.split(':').nth(1)?.parse().ok());
    gid.unwrap_or(USUAL)
}
