//! Roots that both runtimes can run a probe in, and systemd-nspawn as the oracle.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fixture::Kind;

use crate::{Host, finish};

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

/// What makes the two comparable: no machined, no unit, and as on NixOS no time zone of the host's.
pub const COMPARABLE: [&str; 4] = ["--register=no", "--keep-unit", "--timezone=off", "--resolv-conf=off"];

/// systemd-nspawn on a root, with control groups of version 2 only.
#[must_use]
pub fn nspawn(host: &Host<'_>, root: &Path, args: &[&str]) -> Command {
    let mut command = host.command("systemd-nspawn");
    command.args(COMPARABLE).arg("-D").arg(root).args(args).env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
    command
}

/// `nixrun nspawn`, as [`nspawn`] is systemd-nspawn.
#[must_use]
pub fn in_place(host: &Host<'_>, root: &Path, args: &[&str]) -> Command {
    let mut command = host.nixrun(&["nspawn"]);
    command.args(COMPARABLE).arg("-D").arg(root).args(args);
    command
}

/// Runs one script as PID 1 of a [`probe_root`] under nixrun and of another, or the same, under systemd-nspawn; what
/// each printed.
///
/// # Panics
/// When one of them does not end with 0.
#[track_caller]
pub fn both(host: &Host<'_>, roots: [&Path; 2], options: &[&str], script: &str) -> (String, String) {
    let printed = |mut command: Command| {
        let finished = finish(command.args(["--", "/probe/bash", "-c", script]));
        assert_eq!(finished.code, Some(0), "{options:?}: {}{}", finished.out, finished.err);
        finished.out.replace('\r', "")
    };
    (printed(in_place(host, roots[0], options)), printed(nspawn(host, roots[1], options)))
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
