//! What of a Debian boot is left out, so that a machine is ready in seconds under emulation.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::error::Error;

/// Units that these directories pull in are masked ...
const WANTS: &[&str] =
    &["sysinit.target.wants", "sockets.target.wants", "timers.target.wants", "local-fs.target.wants"];

/// ... as are these, which others pull in ...
const MASKED: &[&str] = &[
    "systemd-remount-fs.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
];

/// ... except those whose names begin so: a host's own services that containers meet.
const KEPT: &[&str] = &[
    "systemd-journald",
    "dbus.socket",
    "systemd-udevd",
    "systemd-sysctl.service",
    "systemd-tmpfiles-setup",
    "systemd-machined.socket",
];

pub(super) fn inputs() -> String {
    format!("{WANTS:?} {MASKED:?} {KEPT:?}")
}

/// Masks units and generators below `root`, and removes what Debian's packages have enabled.
pub(super) fn mask_units(root: &Path) -> Result<(), Error> {
    let vendor = root.join("usr/lib/systemd/system");
    let local = root.join("etc/systemd/system");
    for entry in names(&local)?.iter().filter(|name| name.ends_with(".wants")) {
        let path = local.join(entry);
        fs::remove_dir_all(&path).map_err(Error::file("remove", path))?;
    }
    let mut units: BTreeSet<String> = MASKED.iter().map(ToString::to_string).collect();
    for wants in WANTS.iter().map(|name| vendor.join(name)).filter(|path| path.is_dir()) {
        units.extend(names(&wants)?);
    }
    units.retain(|unit| !KEPT.iter().any(|kept| unit.starts_with(kept)));
    mask(&units, &local)?;
    let generators = names(&root.join("usr/lib/systemd/system-generators"))?;
    mask(&generators, &root.join("etc/systemd/system-generators"))
}

fn mask(names: &BTreeSet<String>, dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    for path in names.iter().map(|name| dir.join(name)) {
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).map_err(Error::file("replace", &path))?;
        }
        symlink("/dev/null", &path).map_err(Error::file("mask", path))?;
    }
    Ok(())
}

fn names(dir: &Path) -> Result<BTreeSet<String>, Error> {
    let entries = fs::read_dir(dir).map_err(Error::file("list", dir))?;
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .map_err(Error::file("list", dir))
}
