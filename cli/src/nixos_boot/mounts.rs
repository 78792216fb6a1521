//! Mounts over the root.

use std::path::Path;

use runtime::{BindIds, BindSource, HostPaths, Mount, UserNamespace};

use super::{BootError, other, wrong};
use crate::json::Bind;
use crate::settings::{self, Settings};

/// What may not be covered: the container boots from it.
const NEEDED: [&str; 3] = ["/", "/nix", "/nix/store"];

/// The mounts that the settings ask for, in no particular order.
pub(super) fn asked(settings: &Settings, host: &HostPaths) -> Result<Vec<Mount>, BootError> {
    let document = &settings.document;
    let mut mounts = Vec::new();
    for (target, bind) in document.bind_mounts.iter().flat_map(|mounts| &mounts.0) {
        check_ids(settings, &target.0, bind)?;
        mounts.push(Mount::Bind {
            source: source(bind.host_path.as_ref().map(|source| &source.0), &target.0, host),
            target: target.0.clone(),
            read_only: bind.is_read_only.unwrap_or(true),
            recursive: bind.recursive.unwrap_or(true),
            ids: bind.ids.map_or(BindIds::Auto, |word| word.0),
        });
    }
    mounts.extend(document.tmpfs.iter().flatten().map(|tmpfs| tmpfs.0.clone()));
    for (target, overlay) in document.overlays.iter().flat_map(|overlays| &overlays.0) {
        mounts.push(Mount::Overlay {
            lower: overlay.lower.iter().map(|lower| source(Some(&lower.0), &target.0, host)).collect(),
            upper: overlay.upper.as_ref().map(|upper| source(Some(&upper.0), &target.0, host)),
            target: target.0.clone(),
        });
    }
    for target in document.inaccessible.iter().flatten() {
        mounts.push(Mount::Inaccessible { target: target.0.clone() });
    }
    Ok(mounts)
}

/// Joins mounts of the flags with those that there are: one that both ask for must be the same as far as both say
/// something about it, and the JSON says more.
pub(super) fn join(settings: &Settings, flags: Vec<Mount>, all: &mut Vec<Mount>) -> Result<(), BootError> {
    for flag in flags {
        let json = settings.document.bind_mounts.iter().flat_map(|mounts| &mounts.0);
        let Some((_, bind)) = json.into_iter().find(|(target, _)| target.0 == *flag.target()) else {
            all.push(flag);
            continue;
        };
        let Some(Mount::Bind { source, read_only, recursive, target, .. }) =
            all.iter_mut().find(|mount| mount.target() == flag.target())
        else {
            continue;
        };
        let Mount::Bind { source: flag_source, read_only: flag_read_only, recursive: flag_recursive, .. } =
            flag
        else {
            return Err(contradiction(settings, target));
        };
        let other_source = bind.host_path.is_some() && *source != flag_source;
        if other_source || bind.is_read_only.is_some_and(|said| said != flag_read_only) {
            return Err(contradiction(settings, target));
        }
        *source = flag_source;
        *read_only = flag_read_only;
        *recursive = bind.recursive.unwrap_or(flag_recursive);
    }
    Ok(())
}

fn contradiction(settings: &Settings, target: &Path) -> BootError {
    let json = settings.place(other("bindMounts"));
    wrong(
        settings,
        settings::EXTRA_FLAGS,
        format!("contradicts {json} about {}; make them agree, or remove one", target.display()),
    )
}

/// Refuses mounts that make no sense together, and sorts them: what lies below another mount comes after it.
pub(super) fn order(settings: &Settings, nixos: bool, mounts: &mut [Mount]) -> Result<(), BootError> {
    // Stable: of two mounts on one path, which only flags can ask for, the later one is on top.
    mounts.sort_by(|a, b| a.target().cmp(b.target()));
    if let Some(mount) =
        mounts.iter().find(|mount| nixos && NEEDED.iter().any(|path| mount.target() == Path::new(path)))
    {
        let problem = format!(
            "would cover {}, where the container's own system is; choose a path beside it",
            mount.target().display()
        );
        return Err(wrong(settings, key_of(mount), problem));
    }
    if let Some(pair) = mounts.windows(2).find(|pair| pair[0].target() == pair[1].target()) {
        let problem = format!("has {}, where something is mounted already", pair[1].target().display());
        return Err(wrong(settings, key_of(&pair[1]), problem));
    }
    Ok(())
}

fn key_of(mount: &Mount) -> crate::settings::Key {
    other(match mount {
        Mount::Tmpfs { .. } => "tmpfs",
        Mount::Overlay { .. } => "overlays",
        Mount::Inaccessible { .. } => "inaccessible",
        _ => "bindMounts",
    })
}

fn source(said: Option<&BindSource>, target: &Path, host: &HostPaths) -> BindSource {
    match said {
        None => BindSource::Host(host.join(target)),
        Some(BindSource::Host(path)) => BindSource::Host(host.join(path)),
        Some(other) => other.clone(),
    }
}

fn check_ids(settings: &Settings, target: &Path, bind: &Bind) -> Result<(), BootError> {
    let mapped = bind.ids.is_some_and(|word| !matches!(word.0, BindIds::Auto | BindIds::Host));
    if mapped && settings.document.users() == UserNamespace::Host {
        let problem =
            format!("has ids for {}, which need a user namespace; set privateUsers", target.display());
        return Err(wrong(settings, other("bindMounts"), problem));
    }
    Ok(())
}
