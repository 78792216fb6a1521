//! The guest's kernel: the modules that tests need, unpacked, and an initramfs that finds the root disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, run};

/// Parts of the kernel's module tree that are taken.
const TAKEN: &[&str] = &[
    "kernel/net",
    "kernel/lib",
    "kernel/crypto",
    "kernel/fs/overlayfs",
    "kernel/fs/fuse",
    "kernel/drivers/block",
    "kernel/drivers/virtio",
    "kernel/drivers/char",
    "kernel/drivers/net",
];

/// Parts of those that no test of namespaces needs, and that are large.
const LEFT: &[&str] = &[
    "kernel/drivers/net/ethernet",
    "kernel/drivers/net/hyperv",
    "kernel/drivers/net/wireless",
    "kernel/net/bluetooth",
    "kernel/net/ceph",
    "kernel/net/dccp",
    "kernel/net/mac80211",
    "kernel/net/openvswitch",
    "kernel/net/rxrpc",
    "kernel/net/sunrpc",
    "kernel/net/tipc",
    "kernel/net/wireless",
];

pub(super) fn inputs() -> String {
    format!("{TAKEN:?} {LEFT:?}")
}

/// Unpacks the kernel package in `download`: its modules into `root`, its image to `vmlinuz`. Returns its
/// version.
pub(super) fn install(download: &Path, root: &Path, vmlinuz: &Path) -> Result<String, Error> {
    let package = only(download, |name| name.ends_with(".deb"))?;
    let unpacked = download.join("unpacked");
    run("unpack the kernel", Command::new("dpkg-deb").arg("-x").args([&package, &unpacked]))?;
    let image = only(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let version = name.trim_start_matches("vmlinuz-").to_owned();
    fs::copy(&image, vmlinuz).map_err(Error::file("copy", &image))?;

    let from = ["usr/lib/modules", "lib/modules"].map(|dir| unpacked.join(dir).join(&version));
    let Some(from) = from.iter().find(|dir| dir.is_dir()) else {
        return Err(Error::Input(format!("the kernel package {} has no modules", package.display())));
    };
    let to = root.join("usr/lib/modules").join(&version);
    take_modules(from, &to)?;
    // Unpacking under emulation would cost more than reading the larger file.
    let mut unpack = Command::new("find");
    unpack.arg(&to).args(["-name", "*.ko.xz", "-exec", "xz", "--decompress", "{}", "+"]);
    run("unpack the kernel's modules", &mut unpack)?;
    run("index the kernel's modules", Command::new("chroot").arg(root).args(["depmod", &version]))?;
    Ok(version)
}

fn take_modules(from: &Path, to: &Path) -> Result<(), Error> {
    for part in TAKEN.iter().filter(|part| from.join(part).is_dir()) {
        let target = to.join(part);
        let parent = target.parent().unwrap_or(to);
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        run("copy kernel modules", Command::new("cp").arg("-a").arg(from.join(part)).arg(parent))?;
    }
    for part in LEFT.iter().map(|part| to.join(part)).filter(|part| part.is_dir()) {
        fs::remove_dir_all(&part).map_err(Error::file("remove", part))?;
    }
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(from.join(list), to.join(list)).map_err(Error::file("copy", from.join(list)))?;
    }
    Ok(())
}

/// Packs busybox, `init` and the disk driver with what it depends on, in the order of loading.
pub(super) fn initramfs(root: &Path, version: &str, init: &str, initrd: &Path) -> Result<(), Error> {
    let dir = tempfile::tempdir().map_err(Error::file("create", std::env::temp_dir()))?;
    for name in ["bin", "dev", "root", "modules"] {
        fs::create_dir(dir.path().join(name)).map_err(Error::file("create", dir.path().join(name)))?;
    }
    let busybox = root.join("usr/bin/busybox");
    fs::copy(&busybox, dir.path().join("bin/busybox")).map_err(Error::file("copy", busybox))?;
    super::install_file(&dir.path().join("init"), 0o755, init)?;

    let mut depends = Command::new("chroot");
    depends.arg(root).args(["modprobe", "-S", version, "--show-depends", "virtio_blk"]);
    let depends = run("find the disk driver", &mut depends)?;
    let modules = depends.lines().filter_map(|line| line.strip_prefix("insmod "));
    for (index, module) in modules.enumerate() {
        let from = root.join(module.trim().trim_start_matches('/'));
        // Two digits, so that the shell's glob keeps the order.
        let to = dir.path().join(format!("modules/{index:02}.ko"));
        fs::copy(&from, to).map_err(Error::file("copy", from))?;
    }
    let mut pack = Command::new("sh");
    pack.args(["-ec", "find . | cpio --quiet -o -H newc -R 0:0 > \"$0\""]).arg(initrd);
    run("pack the initramfs", pack.current_dir(dir.path()))?;
    Ok(())
}

fn only(dir: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(dir).map_err(Error::file("list", dir))?;
    let mut found = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&is_it));
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => Err(Error::Input(format!("expected one matching file in {}", dir.display()))),
    }
}
