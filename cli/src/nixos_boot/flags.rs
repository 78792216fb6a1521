//! `EXTRA_NSPAWN_FLAGS`: systemd-nspawn's options in NAME.conf, where nixpkgs' module puts `bindMounts` and `extraFlags`.
//! They add to what the settings say, as they stand last on nspawn's command line; what nixrun decides itself, and what
//! contradicts the settings, is refused by name.

use std::ffi::OsString;
use std::path::Path;

use netsetup::{NetworkConfig, Veth};
use runtime::{
    BindSource, Console, HostPaths, LinkJournal, Mount, Network, Ownership, UserNamespace, Volatile,
};

use super::{Boot, BootError, wrong};
use crate::settings::{self, Settings};
use crate::systemd_nspawn::{self, Asked, ConsoleMode, CredentialSource, SettingsMode, Start, Stop};

/// The options, checked by themselves; `None` when there are none.
pub(super) fn read(settings: &Settings) -> Result<Option<Asked>, BootError> {
    let words = match &settings.conf {
        Some(conf) if !conf.extra_nspawn_flags.is_empty() => &conf.extra_nspawn_flags,
        _ => return Ok(None),
    };
    let refused = |problem: String| wrong(settings, settings::EXTRA_FLAGS, problem);
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    let asked = match systemd_nspawn::parse(systemd_nspawn::PROGRAM, &words, Path::new("/")) {
        Ok(asked) => asked,
        Err(Stop::Fault(sentence)) => return Err(refused(format!("cannot be used: {sentence}"))),
        Err(Stop::Print(_)) => return Err(refused("asks for a text and not for a container".to_owned())),
    };
    if let Some(option) = own(&asked) {
        return Err(refused(format!("has {option}, which `nixrun boot` decides by itself; remove it")));
    }
    if let Some(word) = asked.parameters.first() {
        return Err(refused(format!("has {word:?}, which is no option; the container runs its own init")));
    }
    Ok(Some(asked))
}

/// The first option that is boot's own.
fn own(asked: &Asked) -> Option<&'static str> {
    let own = [
        ("--directory", asked.directory.is_some()),
        ("--image", asked.image.is_some()),
        ("--template", asked.template.is_some()),
        ("--machine", asked.machine.is_some()),
        ("--boot", asked.start == Start::Boot),
        ("--cleanup", asked.cleanup),
        ("--settings", !matches!(asked.settings, SettingsMode::Yes | SettingsMode::No)),
        ("--slice", asked.slice.is_some()),
        ("--property", !asked.properties.is_empty()),
    ];
    own.iter().find(|(_, given)| *given).map(|(option, _)| *option)
}

/// Adds the options to what the settings made.
pub(super) fn apply(
    asked: Asked,
    settings: &Settings,
    host: &HostPaths,
    boot: &mut Boot,
) -> Result<(), BootError> {
    users(&asked, settings, boot)?;
    network(&asked, settings, host, boot)?;
    root(&asked, boot);
    program(&asked, boot);
    restrictions(&asked, boot);
    let container = &mut boot.container;
    container.hostname = asked.hostname.or(container.hostname.take());
    container.uuid = asked.uuid.or(container.uuid);
    let integration = &mut container.integration;
    integration.timezone = asked.timezone.unwrap_or(integration.timezone);
    if asked.ephemeral && settings.document.link_journal.is_none() {
        integration.journal = LinkJournal::default();
    }
    integration.journal = asked.link_journal.unwrap_or(integration.journal);
    if let Some(mode) = asked.resolv_conf {
        if settings.document.resolv_conf.is_some_and(|word| word.0 != mode) {
            return Err(wrong(
                settings,
                settings::EXTRA_FLAGS,
                format!(
                    "has --resolv-conf, which contradicts {}; remove one",
                    settings.name(settings::RESOLV_CONF)
                ),
            ));
        }
        integration.resolv_conf = mode;
    }
    for (id, source) in asked.credentials {
        let value = match source {
            CredentialSource::Value(value) => Ok(value),
            CredentialSource::File(path) => super::typed::read_secret(&host.join(&path)),
            CredentialSource::Inherited(name) => Err(format!("{name} is not an absolute path")),
        };
        let value = value.map_err(|problem| {
            wrong(settings, settings::EXTRA_FLAGS, format!("cannot give the credential {id}: {problem}"))
        })?;
        integration.credentials.retain(|known| known.id != id);
        integration.credentials.push(runtime::Credential { id, value });
    }
    boot.register = asked.register.or(boot.register);
    boot.console = asked.console.map(console).or(boot.console);
    let mounts = asked.mounts.into_iter().map(|mount| on_host(mount, host)).collect();
    super::mounts::join(settings, mounts, &mut boot.container.mounts)
}

fn console(mode: ConsoleMode) -> Console {
    match mode {
        ConsoleMode::Interactive => Console::Interactive,
        ConsoleMode::ReadOnly => Console::ReadOnly,
        ConsoleMode::Passive => Console::Passive,
        ConsoleMode::Pipe | ConsoleMode::Autopipe => Console::Pipe,
    }
}

fn users(asked: &Asked, settings: &Settings, boot: &mut Boot) -> Result<(), BootError> {
    let container = &mut boot.container;
    if let Some(users) = asked.users {
        if settings.document.users() != UserNamespace::Host && settings.document.users() != users {
            let users = settings.name(settings::PRIVATE_USERS);
            let problem = format!("has --private-users, which contradicts {users}; remove one");
            return Err(wrong(settings, settings::EXTRA_FLAGS, problem));
        }
        container.users = users;
        if users == UserNamespace::Pick && settings.document.private_users_ownership.is_none() {
            container.ownership = Ownership::Auto;
        }
    }
    container.ownership = asked.ownership.unwrap_or(container.ownership);
    Ok(())
}

/// Links, addresses and forwards. A pair that only the options ask for is as systemd-nspawn makes it: `host0`, which the
/// container sets up itself.
fn network(asked: &Asked, settings: &Settings, host: &HostPaths, boot: &mut Boot) -> Result<(), BootError> {
    let refused = |problem: &str| Err(wrong(settings, settings::EXTRA_FLAGS, problem));
    let links = &asked.network;
    if let Some(path) = &links.namespace_path {
        if boot.network.is_some() || links.has_links() {
            return refused("has --network-namespace-path beside other settings of the network; remove one");
        }
        boot.container.network = Network::Join(host.join(path));
        return Ok(());
    }
    if !links.is_private() && asked.ports.is_empty() {
        return Ok(());
    }
    if matches!(boot.container.network, Network::Join(_)) {
        return refused(
            "has options of the network beside a network namespace that the container joins; remove one",
        );
    }
    let name = boot.container.name.clone();
    let network = boot.network.get_or_insert_with(|| NetworkConfig::new(name));
    if links.has_veth() {
        let bridge = links.bridge.as_ref().or(links.zone.as_ref());
        let veth = network.veth.get_or_insert_with(host0);
        match (&veth.bridge, bridge) {
            (Some(known), Some(other)) if known != other => {
                return refused("names another bridge or zone than the settings; remove one");
            }
            (None, Some(bridge)) => veth.bridge = Some(bridge.clone()),
            _ => {}
        }
        veth.make_bridge |= links.zone.is_some();
    }
    if !asked.ports.is_empty() && network.veth.is_none() {
        return refused("has --port, and the container has no link to the host; add --network-veth");
    }
    network.extra_veths.extend(links.extra_veths.iter().cloned());
    network.interfaces.extend(links.interfaces.iter().cloned());
    network.macvlans.extend(links.macvlans.iter().cloned());
    network.ipvlans.extend(links.ipvlans.iter().cloned());
    for forward in &asked.ports {
        if network.forwards.contains(forward) {
            continue;
        }
        if network.forwards.iter().any(|known| crate::forward::overlap(known, forward)) {
            return refused(&format!("has --port for {}, which is forwarded already", forward.host_port));
        }
        network.forwards.push(*forward);
    }
    let addressed = network
        .veth
        .as_ref()
        .is_some_and(|veth| veth.local_address.is_some() || veth.local_address6.is_some());
    if !network.forwards.is_empty() && !addressed {
        network.forward_to = netsetup::ForwardTo::Current;
    }
    boot.container.network = Network::Private;
    Ok(())
}

fn host0() -> Veth {
    Veth {
        container_link: "host0".to_owned(),
        bridge: None,
        make_bridge: false,
        up: false,
        container_mac: None,
        host_address: None,
        host_address6: None,
        local_address: None,
        local_address6: None,
    }
}

fn root(asked: &Asked, boot: &mut Boot) {
    let root = &mut boot.container.root;
    root.ephemeral |= asked.ephemeral;
    root.read_only |= asked.read_only;
    if asked.volatile != Volatile::No {
        root.volatile = asked.volatile;
    }
    root.pivot = asked.pivot_root.clone().or(root.pivot.take());
}

fn program(asked: &Asked, boot: &mut Boot) {
    let container = &mut boot.container;
    let payload = &mut container.payload;
    payload.cwd = asked.chdir.clone().or(payload.cwd.take());
    payload.user = asked.user.clone().filter(|user| !user.is_empty()).or(payload.user.take());
    payload.as_pid2 |= asked.start == Start::Pid2;
    let value = |(name, value): &(String, Option<String>)| {
        let value = value.clone().map(OsString::from).or_else(|| std::env::var_os(name))?;
        Some((OsString::from(name), value))
    };
    payload.env.extend(asked.environment.iter().filter_map(value));
    container.stop_signal = asked.kill_signal.unwrap_or(container.stop_signal);
    container.execution.limits.retain(|known| asked.limits.iter().all(|new| new.name != known.name));
    container.execution.limits.extend(asked.limits.iter().cloned());
    let execution = &mut container.execution;
    execution.oom_score_adjust = asked.oom_score_adjust.or(execution.oom_score_adjust);
    execution.cpu_affinity = asked.cpu_affinity.clone().or(execution.cpu_affinity.take());
}

fn restrictions(asked: &Asked, boot: &mut Boot) {
    let container = &mut boot.container;
    container.add_capabilities = container.add_capabilities.union(asked.capability);
    container.drop_capabilities = container.drop_capabilities.union(asked.drop_capability);
    let security = &mut container.security;
    security.ambient_capabilities = security.ambient_capabilities.union(asked.ambient_capability);
    security.no_new_privileges |= asked.no_new_privileges;
    security.suppress_sync = asked.suppress_sync.unwrap_or(security.suppress_sync);
    security.personality = asked.personality.or(security.personality);
    security.system_calls.allow.extend(asked.system_calls.allow.iter().cloned());
    security.system_calls.deny.extend(asked.system_calls.deny.iter().cloned());
    if asked.share_system {
        let view = &mut container.kernel_view;
        (view.share_ipc, view.share_pid, view.share_uts) = (true, true, true);
    }
}

/// With sources below the host's root.
fn on_host(mount: Mount, host: &HostPaths) -> Mount {
    let place = |source: BindSource| match source {
        BindSource::Host(path) => BindSource::Host(host.join(path)),
        other => other,
    };
    match mount {
        Mount::Bind { source, target, read_only, recursive, ids } => {
            Mount::Bind { source: place(source), target, read_only, recursive, ids }
        }
        Mount::Overlay { lower, upper, target } => {
            Mount::Overlay { lower: lower.into_iter().map(place).collect(), upper: upper.map(place), target }
        }
        other => other,
    }
}
