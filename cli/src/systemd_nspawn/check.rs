//! Options that cannot stand together.

use runtime::{ApiWritable, JournalLink, KernelView, Mount, Ownership, UserNamespace, Volatile};

use super::asked::{Asked, Start};

/// Checks them, in systemd-nspawn's order and words.
pub(super) fn check(asked: &Asked, view: &KernelView) -> Result<(), String> {
    let ownership = ownership(asked);
    let users = asked.users.unwrap_or(UserNamespace::Host);
    let has_users = users != UserNamespace::Host;
    let network = &asked.network;
    let journal = asked.link_journal.unwrap_or_default();
    let linked = matches!(journal.mode, JournalLink::Guest | JournalLink::Host) && !journal.optional;
    let shared = view.share_pid || view.share_uts;
    let boot = asked.start == Start::Boot;
    let ambient = asked.ambient_capability;
    let default = runtime::nspawn_default(network.is_private());
    let held = default.union(asked.capability).difference(asked.drop_capability);
    let template_alone = asked.template.is_some() && !(asked.directory.is_some() || asked.machine.is_some());
    let keeps = asked.template.is_some() && !(asked.ephemeral && asked.directory.is_none());
    let root_mount = asked.mounts.iter().any(|mount: &Mount| mount.target() == std::path::Path::new("/"));
    let read_only = asked.read_only || asked.volatile != Volatile::No || root_mount;
    let rules: &[(bool, &str)] = &[
        (shared && asked.start != Start::Pid1, "--boot cannot be used without namespacing."),
        (asked.template.is_some() && asked.image.is_some(), "--template= and --image= may not be combined."),
        (keeps && template_alone, "--template= needs --directory= or --machine=."),
        (keeps && asked.ephemeral, "--ephemeral and --template= may not be combined."),
        (asked.ephemeral && linked, "--ephemeral and --link-journal={host,guest} may not be combined."),
        (
            ownership == Ownership::Chown && read_only,
            "--read-only and --private-users-ownership=chown may not be combined.",
        ),
        (
            network.namespace_path.is_some() && network.has_links(),
            "--network-namespace-path= cannot be combined with other network options.",
        ),
        (
            network.bridge.is_some() && network.zone.is_some(),
            "--network-bridge= and --network-zone= may not be combined.",
        ),
        (
            has_users && view.writable == ApiWritable::Network && !network.is_private(),
            "Invalid namespacing settings. Mounting sysfs with --private-users requires --private-network.",
        ),
        (
            has_users && view.writable == ApiWritable::Yes,
            "Cannot combine --private-users with read-write mounts.",
        ),
        (!asked.ports.is_empty() && !network.is_private(), "Cannot use --port= without private networking."),
        (
            !ambient.difference(held).is_empty(),
            "AmbientCapability= setting is not fully covered by Capability= setting.",
        ),
        (!ambient.is_empty() && boot, "AmbientCapability= setting is not useful for boot mode."),
        (
            root_mount && has_users && ownership != Ownership::Off,
            "--private-users-ownership= other than off may not be combined with custom root mounts.",
        ),
        (
            root_mount && matches!(users, UserNamespace::OfRoot | UserNamespace::Pick),
            "--private-users with automatic UID shift may not be combined with custom root mounts.",
        ),
    ];
    match rules.iter().find(|(broken, _)| *broken) {
        Some((_, sentence)) => Err((*sentence).to_owned()),
        None => Ok(()),
    }
}

/// How the root's files come to belong to the container's users, where nothing was said about it.
pub(super) fn ownership(asked: &Asked) -> Ownership {
    let picked = asked.users == Some(UserNamespace::Pick);
    asked.ownership.unwrap_or(if picked { Ownership::Auto } else { Ownership::Off })
}
