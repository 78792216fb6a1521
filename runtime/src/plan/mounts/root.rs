//! What becomes the container's `/`.

use super::{Attributes, Entry, MountPlan, Source, directory, mount, tmpfs, tmpfs_options};
use crate::config::{ContainerConfig, RootOptions, Volatile};
use crate::error::{Error, ErrorKind};
use crate::host::HostFacts;
use crate::plan::OnHost;

/// nspawn's limits for a root and a /var in memory (v256).
const LIMITS: &str = "mode=0755,size=25%,nr_inodes=1m";

pub(super) fn plan(
    mounts: &mut Vec<MountPlan>,
    on_host: &mut Vec<OnHost>,
    config: &ContainerConfig,
    host: &HostFacts,
) -> Result<(), Error> {
    let root = &config.root;
    check(config)?;
    if let Some(from) = &root.template {
        let mut name = std::ffi::OsString::from(".#");
        name.push(config.rootfs.file_name().unwrap_or_default());
        name.push(format!(".{}", host.token));
        let (from, to) = (from.clone(), config.rootfs.clone());
        on_host.push(OnHost::Root { from, path: to.with_file_name(name), to });
    }
    let memory = Attributes { strict_atime: true, ..Attributes::NONE };
    match root.volatile {
        Volatile::Yes => {
            mounts.push(mount("/", tmpfs(LIMITS, directories()), memory));
            mounts.push(mount("/usr", Source::BaseOf { path: "/usr".into() }, Attributes::RO));
        }
        _ if is_overlay(root) => {
            mounts.push(mount("/", Source::RootOverlay { options: tmpfs_options(LIMITS) }, Attributes::NONE));
        }
        Volatile::State => mounts.push(mount("/", Source::Root, Attributes::RO)),
        _ => {
            let attributes = if root.read_only { Attributes::RO } else { Attributes::NONE };
            mounts.push(mount("/", Source::Root, attributes));
        }
    }
    if let Some(old) = root.pivot.as_ref().and_then(|pivot| pivot.old.as_ref()) {
        let attributes = if root.read_only { Attributes::RO } else { Attributes::NONE };
        mounts.push(MountPlan { target: old.clone(), source: Source::FormerRoot, attributes, ids: None });
    }
    if root.volatile == Volatile::State {
        mounts.push(mount("/var", tmpfs(LIMITS, vec![]), memory));
    }
    Ok(())
}

/// What comes last.
pub(super) fn seal(mounts: &mut Vec<MountPlan>, config: &ContainerConfig) {
    let read_only = config.root.read_only || config.root.volatile == Volatile::State;
    // What is in the way of mount points is made first, in the layer that is thrown away.
    if read_only && is_overlay(&config.root) {
        mounts.push(mount("/", Source::Remount, Attributes::RO));
    }
    mounts.push(mount("/", Source::Share, Attributes::NONE));
}

/// A tmpfs takes what is written. With `Volatile::Yes` nothing of the root but /usr is there, and that is read-only.
fn is_overlay(root: &RootOptions) -> bool {
    root.volatile == Volatile::Overlay || root.ephemeral && root.volatile != Volatile::Yes
}

/// The top of a file hierarchy: systemd's `base_filesystem_create`, as far as it does not depend on what /usr has.
fn directories() -> Vec<Entry> {
    [
        ("usr", 0o755),
        ("var", 0o755),
        ("etc", 0o755),
        ("root", 0o750),
        ("proc", 0o555),
        ("sys", 0o555),
        ("dev", 0o555),
        ("run", 0o555),
        ("tmp", 0o1777),
    ]
    .iter()
    .map(|(name, mode)| directory(name, *mode))
    .collect()
}

fn check(config: &ContainerConfig) -> Result<(), Error> {
    let root = &config.root;
    let refuse = |why: &str| {
        Err(Error::new(ErrorKind::Config, format!("cannot start container {}: {why}", config.name)))
    };
    if root.ephemeral && root.template.is_some() {
        return refuse(
            "its root is to be made from a template and to be forgotten at once; name the template as the root",
        );
    }
    if root.read_only && root.volatile != Volatile::No {
        return refuse("a volatile root is read-only where it has to be; leave out read-only");
    }
    if let Some(template) = root.template.as_ref().filter(|template| !template.is_absolute()) {
        return refuse(&format!("the template {} is not an absolute path", template.display()));
    }
    if root.image && root.template.is_some() {
        return refuse("a template is a directory, and its root is an image");
    }
    if let Some(pivot) = &root.pivot {
        let paths = [Some(&pivot.new), pivot.old.as_ref()];
        for path in paths.into_iter().flatten() {
            super::custom::check_target(path)?;
        }
    }
    let spared = root.ephemeral || matches!(root.volatile, Volatile::Yes | Volatile::State);
    if config.rootfs.as_os_str() == "/" && !spared {
        return refuse("two systems would write to the host's /var; make its root ephemeral or volatile");
    }
    Ok(())
}
