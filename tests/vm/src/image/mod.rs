//! The machine's image: a Debian root disk with systemd, its kernel, and a small initramfs.
//!
//! Debian trixie, because its systemd 257 is the nearest packaged one to NixOS', with the cloud kernel of the
//! same suite. The root is a plain ext4: overlayfs roots cannot be mounted with an id map.

mod kernel;
mod trim;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cache::Cache;
use crate::disk;
use crate::error::{Error, run};

const SUITE: &str = "trixie";

/// What the guest has beyond Debian's essential packages.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "systemd-container",
    "udev",
    "dbus",
    "nftables",
    "iproute2",
    "kmod",
    "busybox-static",
    "libnss-mymachines",
    "mount",
    "util-linux",
    "procps",
    "strace",
    "socat",
    "e2fsprogs",
    "fdisk",
];

/// What building and running the image needs on the host: programs, and the Debian packages that have them.
pub const HOST_PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("setpriv", "util-linux"),
];

/// Increase by one when the image must be rebuilt though none of the texts below changed.
const REVISION: u32 = 1;

/// Files put into the guest: path, mode, content.
const GUEST_FILES: &[(&str, u32, &str)] = &[
    ("usr/lib/nixrun-vm/agent", 0o755, include_str!("../../guest/agent")),
    ("etc/systemd/system/nixrun-test.target", 0o644, include_str!("../../guest/nixrun-test.target")),
    ("etc/systemd/system/nixrun-test.service", 0o644, include_str!("../../guest/nixrun-test.service")),
    ("etc/systemd/journald.conf.d/vm.conf", 0o644, include_str!("../../guest/journald.conf")),
    ("etc/hostname", 0o644, "vmhost\n"),
    ("etc/machine-id", 0o444, "0123456789abcdef0123456789abcdef\n"),
    ("etc/fstab", 0o644, ""),
    // Without this, loading the module makes a bond0.
    ("etc/modprobe.d/bonding.conf", 0o644, "options bonding max_bonds=0\n"),
];

const INITRAMFS_INIT: &str = include_str!("../../guest/initramfs-init");
const DOWNLOAD_KERNEL: &str = include_str!("../../guest/download-kernel");

/// Builds the image where it is missing or was made from other inputs. Needs root and a Debian mirror.
///
/// # Errors
/// When a tool is missing or fails, with what it said.
pub fn ensure(cache: &Cache) -> Result<(), Error> {
    cache.ensure("image", &inputs(), build)?;
    Ok(())
}

fn inputs() -> String {
    format!(
        "revision {REVISION}\nsuite {SUITE}\nroot {}\npackages {PACKAGES:?}\nmodules {}\nunits {}\n{GUEST_FILES:?}\n\
         {INITRAMFS_INIT:?}\n{DOWNLOAD_KERNEL:?}\n",
        disk::ROOT_SIZE,
        kernel::inputs(),
        trim::inputs(),
    )
}

fn build(dir: &Path) -> Result<(), Error> {
    let root = dir.join("root");
    let download = dir.join("kernel");
    fs::create_dir(&download).map_err(Error::file("create", &download))?;
    debootstrap(&root, &download)?;
    let version = kernel::install(&download, &root, &dir.join("vmlinuz"))?;
    trim::mask_units(&root)?;
    for (path, mode, text) in GUEST_FILES {
        install_file(&root.join(path), *mode, text)?;
    }
    // Where the container's store, database and state will be.
    for path in ["nix/store", "nix/var/nix/db", "nix/var/nix/profiles", "nix/var/nix/gcroots"] {
        fs::create_dir_all(root.join(path)).map_err(Error::file("create", root.join(path)))?;
    }
    kernel::initramfs(&root, &version, INITRAMFS_INIT, &dir.join("initrd"))?;
    disk::make(&dir.join("root.ext4"), &root, disk::ROOT_SIZE)?;
    for path in [root, download] {
        fs::remove_dir_all(&path).map_err(Error::file("remove", path))?;
    }
    Ok(())
}

fn debootstrap(root: &Path, download: &Path) -> Result<(), Error> {
    let script = download.join("download-kernel");
    fs::write(&script, DOWNLOAD_KERNEL).map_err(Error::file("write", &script))?;
    let mirror = mirror();
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--mode=root", "--format=directory", "--variant=essential"]);
    command.arg(format!("--include={}", PACKAGES.join(",")));
    for excluded in ["man/*", "doc/*", "locale/*", "i18n/*"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{excluded}"));
    }
    command.arg("--dpkgopt=path-exclude=/usr/lib/udev/hwdb.d/*");
    command.arg("--aptopt=APT::Install-Recommends \"false\"");
    command.arg("--aptopt=Acquire::Languages \"none\"");
    command.arg(format!(
        "--customize-hook=sh {} {}",
        crate::shell::quote(&script.display().to_string()),
        crate::shell::quote(&download.display().to_string())
    ));
    command.arg(SUITE).arg(root);
    command.arg(format!("deb {mirror} {SUITE} main"));
    command.arg(format!("deb {mirror}-security {SUITE}-security main"));
    run("build the guest's root directory", &mut command).map(drop)
}

/// The mirror this machine's own apt uses, since that is the one known to be reachable from here.
fn mirror() -> String {
    let format = ["indextargets", "--format", "$(SITE)", "Origin: Debian", "Component: main"];
    let sites = run("ask apt for its mirror", Command::new("apt-get").args(format)).unwrap_or_default();
    let site = sites.lines().find(|site| site.ends_with("/debian"));
    site.unwrap_or("http://deb.debian.org/debian").to_owned()
}

fn install_file(path: &Path, mode: u32, text: &str) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    // The package's own file may be a link or read-only.
    if path.symlink_metadata().is_ok() {
        fs::remove_file(path).map_err(Error::file("replace", path))?;
    }
    fs::write(path, text).map_err(Error::file("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::file("chmod", path))
}
