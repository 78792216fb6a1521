//! The environment of PID 1.

use std::ffi::OsString;

use crate::config::{ContainerConfig, Program};
use crate::host::HostFacts;
use crate::passwd::is_root;

/// nspawn's environment in nspawn's order (v256, `inner_child`), then what the configuration sets.
/// `container_uuid`, and the home of another user than root, follow when the root has been looked at.
pub(super) fn environment(config: &ContainerConfig, host: &HostFacts) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = Vec::with_capacity(16);
    let mut set = |key: &str, value: OsString| set(&mut env, key.into(), value);
    set("PATH", DEFAULT_PATH.into());
    set("container", config.manager.clone().into());
    if let Some(term) = std::env::var_os("TERM") {
        set("TERM", term);
    }
    let payload = &config.payload;
    let user = payload.user.as_deref().unwrap_or("root");
    if is_root(user) {
        // Another user's follows when the root has been looked at.
        set("HOME", "/root".into());
    }
    set("USER", user.into());
    set("LOGNAME", user.into());
    if payload.listen_fds > 0 {
        set("LISTEN_FDS", payload.listen_fds.to_string().into());
        set("LISTEN_PID", if payload.as_pid2 { "2" } else { "1" }.into());
    }
    if config.notify_ready || config.notify_socket {
        set("NOTIFY_SOCKET", "/run/host/notify".into());
    }
    if !config.integration.credentials.is_empty() {
        set("CREDENTIALS_DIRECTORY", super::integration::CREDENTIALS.into());
    }
    if payload.program != Program::Init {
        set("LANG", "C.UTF-8".into());
    }
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

/// Where an init is looked for, in nspawn's order.
pub(crate) const INITS: &[&str] = &["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init"];
/// Where a login shell is looked for.
pub(crate) const SHELLS: &[&str] = &["/bin/bash", "/bin/sh"];
