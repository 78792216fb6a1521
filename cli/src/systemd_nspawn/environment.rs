//! What systemd-nspawn reads from its environment.

use std::ffi::OsString;

use runtime::{ApiWritable, KernelView};

use crate::nspawn;

/// The variables that change a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variables {
    pub(super) view: KernelView,
    /// Name of the container manager, for `container=`.
    pub(super) manager: Option<String>,
    /// MAC address of the container's end.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) suppress_sync: bool,
    pub(super) check_os_release: bool,
    /// What is not as asked for, one sentence each.
    pub(super) notes: Vec<String>,
}

/// Reads them.
pub(super) fn read(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Variables, String> {
    let text = |name: &str| {
        let value = variable(name)?;
        Some(value.into_string().map_err(|_| format!("Failed to parse ${name}: it is not UTF-8")))
    };
    let boolean = |name: &str| -> Result<Option<bool>, String> {
        let Some(value) = text(name).transpose()? else { return Ok(None) };
        let fault = |right| format!("Failed to parse ${name}={value}: {right}");
        nspawn::boolean(&value).map(Some).map_err(fault)
    };
    let mut view = KernelView::default();
    for (name, shared) in [
        ("SYSTEMD_NSPAWN_SHARE_NS_IPC", &mut view.share_ipc),
        ("SYSTEMD_NSPAWN_SHARE_NS_PID", &mut view.share_pid),
        ("SYSTEMD_NSPAWN_SHARE_NS_UTS", &mut view.share_uts),
    ] {
        *shared = boolean(name)?.unwrap_or(false);
    }
    if let Some(all) = boolean("SYSTEMD_NSPAWN_SHARE_SYSTEM")? {
        (view.share_ipc, view.share_pid, view.share_uts) = (all, all, all);
    }
    view.tmpfs_tmp = boolean("SYSTEMD_NSPAWN_TMPFS_TMP")?.unwrap_or(true);
    view.cgroup_namespace = boolean("SYSTEMD_NSPAWN_USE_CGNS")?.unwrap_or(true);
    let writable = "SYSTEMD_NSPAWN_API_VFS_WRITABLE";
    view.writable = match text(writable).transpose()?.as_deref() {
        None => ApiWritable::Default,
        Some("network") => ApiWritable::Network,
        Some(_) if boolean(writable)? == Some(true) => ApiWritable::Yes,
        Some(_) => ApiWritable::Default,
    };
    let mac = "SYSTEMD_NSPAWN_NETWORK_MAC";
    let mac = match text(mac).transpose()? {
        None => None,
        Some(value) => Some(
            crate::nixos_conf::mac_address(&value)
                .map_err(|right| format!("Failed to parse ${mac}={value}: expected {right}"))?,
        ),
    };
    let mut notes = Vec::new();
    let hierarchy = "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY";
    if variable(hierarchy).is_some_and(|value| !value.is_empty()) && boolean(hierarchy)? == Some(false) {
        notes.push(format!(
            "${hierarchy}=0 changes nothing, containers see the unified cgroup hierarchy only."
        ));
    }
    if boolean("SYSTEMD_NSPAWN_LOCK")? == Some(false) {
        notes.push("$SYSTEMD_NSPAWN_LOCK=0 changes nothing, the root is locked all the same.".to_owned());
    }
    Ok(Variables {
        view,
        manager: text("SYSTEMD_NSPAWN_CONTAINER_SERVICE").transpose()?,
        mac,
        // Anything else in it is passed over, as nspawn does.
        suppress_sync: boolean("SYSTEMD_SUPPRESS_SYNC").ok().flatten().unwrap_or(false),
        check_os_release: boolean("SYSTEMD_NSPAWN_CHECK_OS_RELEASE")?.unwrap_or(true),
        notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Variables, String> {
        read(&|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn every_variable_is_heard() {
        assert_eq!(with(&[]).unwrap().view, KernelView::default());
        let all = with(&[
            ("SYSTEMD_NSPAWN_SHARE_SYSTEM", "1"),
            ("SYSTEMD_NSPAWN_TMPFS_TMP", "0"),
            ("SYSTEMD_NSPAWN_USE_CGNS", "no"),
            ("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network"),
            ("SYSTEMD_NSPAWN_NETWORK_MAC", "02:00:00:00:00:01"),
            ("SYSTEMD_NSPAWN_CONTAINER_SERVICE", "mine"),
            ("SYSTEMD_NSPAWN_CHECK_OS_RELEASE", "0"),
            ("SYSTEMD_SUPPRESS_SYNC", "1"),
            ("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "0"),
        ])
        .unwrap();
        let view = KernelView {
            writable: ApiWritable::Network,
            joined_network_is_own: false,
            tmpfs_tmp: false,
            cgroup_namespace: false,
            share_ipc: true,
            share_pid: true,
            share_uts: true,
        };
        assert_eq!(all.view, view);
        assert_eq!((all.mac, all.manager.as_deref()), (Some([2, 0, 0, 0, 0, 1]), Some("mine")));
        assert!(all.suppress_sync && !all.check_os_release && all.notes.len() == 1);
        let writable =
            |value| with(&[("SYSTEMD_NSPAWN_API_VFS_WRITABLE", value)]).map(|all| all.view.writable);
        assert_eq!(writable("yes"), Ok(ApiWritable::Yes));
        assert_eq!(writable("no"), Ok(ApiWritable::Default));
        assert!(with(&[("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")]).unwrap().notes.is_empty());
        assert!(!with(&[("SYSTEMD_SUPPRESS_SYNC", "what")]).unwrap().suppress_sync);
    }

    #[test]
    fn garbage_is_named() {
        for name in [
            "SYSTEMD_NSPAWN_SHARE_NS_IPC",
            "SYSTEMD_NSPAWN_SHARE_NS_PID",
            "SYSTEMD_NSPAWN_SHARE_NS_UTS",
            "SYSTEMD_NSPAWN_SHARE_SYSTEM",
            "SYSTEMD_NSPAWN_TMPFS_TMP",
            "SYSTEMD_NSPAWN_USE_CGNS",
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE",
            "SYSTEMD_NSPAWN_NETWORK_MAC",
            "SYSTEMD_NSPAWN_CHECK_OS_RELEASE",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY",
            "SYSTEMD_NSPAWN_LOCK",
        ] {
            let sentence = with(&[(name, "what")]).unwrap_err();
            assert!(sentence.contains(name) && sentence.contains("what"), "{sentence}");
        }
    }
}
