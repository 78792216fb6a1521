//! The environment of PID 1.

use std::ffi::OsString;

use crate::config::ContainerConfig;
use crate::host::HostFacts;

/// nspawn's environment in nspawn's order (v256, `inner_child`), then what the configuration sets.
/// `container_uuid` follows when the root has been looked at.
pub(super) fn environment(config: &ContainerConfig, host: &HostFacts) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = Vec::with_capacity(16);
    let mut set = |key: &str, value: OsString| set(&mut env, key.into(), value);
    set("PATH", DEFAULT_PATH.into());
    set("container", "systemd-nspawn".into());
    if let Some(term) = std::env::var_os("TERM") {
        set("TERM", term);
    }
    set("HOME", "/root".into());
    set("USER", "root".into());
    set("LOGNAME", "root".into());
    if config.notify_ready {
        set("NOTIFY_SOCKET", "/run/host/notify".into());
    }
    set("LANG", "C.UTF-8".into());
    for (key, value) in host.os_release.iter().flat_map(|release| &release.fields) {
        set(&format!("container_host_{key}"), value.into());
    }
    for (key, value) in &config.payload.env {
        self::set(&mut env, key.clone(), value.clone());
    }
    env
}

/// Sets a variable: a later value takes an earlier one's place.
pub(crate) fn set(env: &mut Vec<(OsString, OsString)>, key: OsString, value: OsString) {
    match env.iter_mut().find(|(k, _)| *k == key) {
        Some(slot) => slot.1 = value,
        None => env.push((key, value)),
    }
}

/// systemd's `DEFAULT_PATH` with `/usr` split from `/`.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
