//! Kernel settings below /proc/sys: read, written, and put back as they were.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Errors, Result};

/// A setting that was changed, or that the kernel changes along with another, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlChange {
    /// Path below /proc/sys, such as `net/ipv4/ip_forward`.
    pub key: String,
    /// Value before.
    pub before: String,
    /// Value that nixrun writes; absent for one that the kernel overwrites when an earlier one is written.
    pub after: Option<String>,
}

impl SysctlChange {
    fn write(key: impl Into<String>, before: impl Into<String>, after: &str) -> SysctlChange {
        SysctlChange { key: key.into(), before: before.into(), after: Some(after.into()) }
    }

    fn side_effect(key: impl Into<String>, before: impl Into<String>) -> SysctlChange {
        SysctlChange { key: key.into(), before: before.into(), after: None }
    }
}

/// The settings below one directory, /proc/sys except in tests of the pure parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sysctls<'a>(pub(crate) &'a Path);

impl Sysctls<'_> {
    /// The setting's value without the line's end; `None` when there is none (IPv6 off, the link gone).
    pub(crate) fn get(self, key: &str) -> Result<Option<String>> {
        match fs::read_to_string(self.0.join(key)) {
            Ok(value) => Ok(Some(value.trim_end().to_owned())),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(Error::io(format!("read the sysctl {key}"))(error)),
        }
    }

    fn set(self, key: &str, value: &str) -> Result<()> {
        fs::write(self.0.join(key), value).map_err(Error::io(format!("set the sysctl {key} to {value}")))
    }

    /// Whether the setting is there and not 0.
    fn is_on(self, key: &str) -> Result<bool> {
        Ok(self.get(key)?.is_some_and(|value| value != "0"))
    }

    /// What turns on IPv4 forwarding; nothing when it is on.
    ///
    /// Turning it off again, the kernel sets `forwarding` of every link to 0 and `all/accept_redirects` to 1
    /// (inet_forward_change, Linux 6.18): those that were otherwise are put back too.
    pub(crate) fn to_forward_ipv4(self) -> Result<Vec<SysctlChange>> {
        const KEY: &str = "net/ipv4/ip_forward";
        const REDIRECTS: &str = "net/ipv4/conf/all/accept_redirects";
        if self.get(KEY)?.is_none_or(|value| value != "0") {
            return Ok(Vec::new());
        }
        let mut changes = vec![SysctlChange::write(KEY, "0", "1")];
        if let Some(value) = self.get(REDIRECTS)?.filter(|value| value != "1") {
            changes.push(SysctlChange::side_effect(REDIRECTS, value));
        }
        changes.extend(self.forwarding_links("net/ipv4/conf")?);
        Ok(changes)
    }

    /// What turns on IPv6 forwarding; nothing when it is on, or when there is no IPv6.
    ///
    /// A link with `accept_ra` 1 stops listening to routers once forwarding is on, and loses the default route it
    /// learnt from them (rt6_purge_dflt_routers): such links get 2 first.
    pub(crate) fn to_forward_ipv6(self) -> Result<Vec<SysctlChange>> {
        const KEY: &str = "net/ipv6/conf/all/forwarding";
        if self.get(KEY)?.is_none_or(|value| value != "0") {
            return Ok(Vec::new());
        }
        let mut changes = Vec::new();
        for link in self.links("net/ipv6/conf")? {
            let key = format!("net/ipv6/conf/{link}/accept_ra");
            let listens = self.get(&key)?.is_some_and(|value| value == "1");
            // A container's link, nspawn's too, must not become one whose advertisements the host heeds.
            let container = link.starts_with("ve-") || link.starts_with("vb-");
            if listens && !container && !matches!(link.as_str(), "all" | "default" | "lo") {
                changes.push(SysctlChange::write(key, "1", "2"));
            }
        }
        changes.push(SysctlChange::write(KEY, "0", "1"));
        changes.extend(self.forwarding_links("net/ipv6/conf")?);
        Ok(changes)
    }

    /// What lets the answers to loopback forwards in by a bridge.
    pub(crate) fn to_route_localnet(self, link: &str) -> Result<Vec<SysctlChange>> {
        let key = format!("net/ipv4/conf/{link}/route_localnet");
        Ok(match self.get(&key)?.as_deref() {
            Some("0") => vec![SysctlChange::write(key, "0", "1")],
            _ => Vec::new(),
        })
    }

    /// Makes the host deaf to router advertisements from a container, which could otherwise give it a default
    /// route. The kernel ignores them already where it forwards, unless `accept_ra` is 2.
    pub(crate) fn ignore_router_advertisements(self, link: &str) -> Result<()> {
        let conf = "net/ipv6/conf";
        let accept = self.get(&format!("{conf}/default/accept_ra"))?;
        let heeded = match accept.as_deref() {
            None | Some("0") => false,
            Some("1") => !self.is_on(&format!("{conf}/all/forwarding"))?,
            Some(_) => true,
        };
        if !heeded {
            return Ok(());
        }
        self.set(&format!("{conf}/{link}/accept_ra"), "0")
    }

    /// Makes the changes, in order; a link that has gone since needs none.
    pub(crate) fn apply(self, changes: &[SysctlChange]) -> Result<()> {
        for change in changes {
            let Some(after) = &change.after else { continue };
            match self.set(&change.key, after) {
                Err(Error::Io { source, .. }) if gone(&source) => {}
                set => set?,
            }
        }
        Ok(())
    }

    /// Puts everything back: first what was written, the last first, then what the kernel overwrites meanwhile.
    /// What somebody else has changed since, and what is gone, is left alone.
    pub(crate) fn restore(self, changes: &[SysctlChange], errors: &mut Errors) {
        let (written, overwritten): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.after.is_some());
        for change in written.into_iter().rev() {
            let ours = errors.note(self.get(&change.key)).flatten();
            if ours.is_some() && ours == change.after {
                errors.note(self.set(&change.key, &change.before));
            }
        }
        for change in overwritten {
            let now = errors.note(self.get(&change.key)).flatten();
            if now.is_some_and(|now| now != change.before) {
                errors.note(self.set(&change.key, &change.before));
            }
        }
    }

    /// Links, with `default`, whose own forwarding is on while the host's is off.
    fn forwarding_links(self, conf: &str) -> Result<Vec<SysctlChange>> {
        let mut changes = Vec::new();
        for link in self.links(conf)? {
            let key = format!("{conf}/{link}/forwarding");
            if let Some(value) = self.get(&key)?.filter(|value| value != "0" && link != "all") {
                changes.push(SysctlChange::side_effect(key, value));
            }
        }
        Ok(changes)
    }

    fn links(self, conf: &str) -> Result<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            let names =
                fs::read_dir(self.0.join(conf))?.map(|entry| Ok(entry?.file_name().into_string().ok()));
            let mut names: Vec<String> =
                names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect();
            names.sort();
            Ok(names)
        };
        read().map_err(Error::io(format!("list the links below /proc/sys/{conf}")))
    }
}

/// ENOENT, and EINVAL, which a setting gives when its link goes while it is open.
fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::EINVAL | libc::ENODEV))
}
