//! Roots that both runtimes can run a probe in, and systemd-nspawn as the oracle.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fixture::Kind;

use crate::Host;

/// A root with nothing but `/probe/busybox` and `/probe/bash`, both static, and an empty `/usr` and `/etc`.
///
/// # Panics
/// When the fixture that they come from cannot be built.
pub fn probe_root(host: &Host<'_>, name: &str) -> PathBuf {
    let mini = fixture::build(Kind::Mini, 1).expect("the fixture builds");
    let root = host.path("roots").join(name);
    for directory in ["probe", "usr/bin", "etc"] {
        fs::create_dir_all(root.join(directory)).expect("the root can be made");
    }
    let bin = mini.physical(&mini.system).join("sw/bin");
    for (program, called) in [("busybox", "busybox"), ("bash", "bash")] {
        let target = resolve(&mini.nix, &bin.join(program));
        fs::copy(target, root.join("probe").join(called)).expect("the program can be copied");
    }
    root
}

/// Follows links of the store, whose paths begin with /nix, in the directory that stands for it.
fn resolve(nix: &Path, path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    loop {
        // Any directory on the way may be such a link.
        let mut done = PathBuf::new();
        let mut changed = false;
        for part in path.components() {
            done.push(part);
            if let Ok(to) = fs::read_link(&done) {
                let to =
                    to.strip_prefix("/nix").map_or_else(|_| done.with_file_name(&to), |rest| nix.join(rest));
                done = to;
                changed = true;
            }
        }
        if !changed {
            return done;
        }
        path = done;
    }
}

/// A root whose `/usr` is meant to be the host's, bound there: for probes written in Perl.
///
/// # Panics
/// When it cannot be made.
pub fn usr_root(host: &Host<'_>, name: &str) -> PathBuf {
    let root = host.path("roots").join(name);
    for directory in ["usr", "etc"] {
        fs::create_dir_all(root.join(directory)).expect("the root can be made");
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(Path::new("usr").join(link), root.join(link)).expect("the root can be made");
    }
    root
}

/// systemd-nspawn on a root, with what makes it comparable: no machined, control groups of version 2 only, and as on
/// NixOS no time zone of the host's.
#[must_use]
pub fn nspawn(host: &Host<'_>, root: &Path, args: &[&str]) -> Command {
    let mut command = host.command("systemd-nspawn");
    command
        .args(["--register=no", "--keep-unit", "--timezone=off", "--resolv-conf=off", "-D"])
        .arg(root)
        .args(args)
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
    command
}

/// Writes an executable file.
///
/// # Panics
/// When it cannot be written.
pub(crate) fn executable(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("the program can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
}

impl Host<'_> {
    /// Writes an executable into a root.
    pub fn program(&self, path: &Path, bytes: &[u8]) {
        executable(path, bytes);
    }
}
