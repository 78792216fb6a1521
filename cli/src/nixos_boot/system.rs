//! The NixOS system that a container boots.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use runtime::{HostPaths, Personality};

use super::BootError;
use crate::lookup::lookup;
use crate::settings::{self, Settings};
pub(super) use crate::systems::STORE;
use crate::systems::in_store;

/// Where a container's own profiles are inside it; on the host, below `per-container/NAME` there.
const PROFILES: &str = "/nix/var/nix/profiles";
/// What boots when the settings name no `SYSTEM_PATH`: the container's own system profile, as seen inside.
const SYSTEM_PROFILE: &str = "/nix/var/nix/profiles/system";

/// The system to boot.
pub(super) struct System {
    /// Its path as the container sees it.
    pub(super) path: PathBuf,
    /// What uname(2) has to say for it.
    pub(super) personality: Option<Personality>,
}

/// The system to boot, once it is certain that its `init` can be executed.
pub(super) fn find(name: &str, settings: &Settings, host: &HostPaths) -> Result<System, BootError> {
    let wrong = |problem: String| super::wrong(settings, settings::SYSTEM, problem);
    let said = settings.document.system.as_ref().map(|path| path.0.clone());
    let flake = settings.conf.as_ref().and_then(|conf| conf.flake.as_ref());
    let system = said.clone().unwrap_or_else(|| SYSTEM_PROFILE.into());
    let on_host = match system.strip_prefix(PROFILES) {
        Ok(profile) => Path::new(PROFILES).join("per-container").join(name).join(profile),
        Err(_) => system.clone(),
    };
    let real = lookup(host, &on_host).map_err(|e| match (flake, &said) {
        (Some(flake), None) => super::wrong(
            settings,
            settings::FLAKE,
            format!("is {flake:?}, which nixrun does not build; run `nixos-container update {name}` first"),
        ),
        (None, None) => wrong(format!(
            "is not set and the container's profile {} cannot be used: {e}",
            host.join(&on_host).display()
        )),
        (_, Some(_)) => wrong(format!("is {}, which cannot be used: {e}", system.display())),
    })?;
    if !in_store(&real.path) {
        return Err(wrong(format!(
            "leads to {}, which is not in the Nix store; expected /nix/store/HASH-nixos-system-…",
            real.path.display()
        )));
    }
    if !system.starts_with(STORE) && !system.starts_with(PROFILES) {
        return Err(wrong(format!(
            "is {}, a path that the container does not have; write {} instead",
            system.display(),
            real.path.display()
        )));
    }
    check_init(&system, &on_host, host).map_err(wrong)?;
    Ok(System { personality: personality(&real.path, host), path: system })
}

fn check_init(system: &Path, on_host: &Path, host: &HostPaths) -> Result<(), String> {
    let init = lookup(host, &on_host.join("init"))
        .map_err(|e| format!("is {}, which has no usable init: {e}", system.display()))?;
    if !init.metadata.is_file() || init.metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("is {}, whose init is not an executable file", system.display()));
    }
    if !in_store(&init.path) {
        return Err(format!(
            "is {}, whose init leads to {} outside the Nix store, which the container does not have",
            system.display(),
            init.path.display()
        ));
    }
    Ok(())
}

/// A system for i686 on x86_64 gets the personality that nixpkgs' start script gives it. `system` is one line that
/// NixOS writes into each system; one without it is taken for native.
fn personality(real: &Path, host: &HostPaths) -> Option<Personality> {
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    let kind = std::fs::read(host.join(real.join("system"))).ok()?;
    (kind.trim_ascii() == b"i686-linux").then_some(Personality::Compat)
}
