//! Differences that are meant, of one case or two.

use blackbox::compare::{Known, ours, theirs};

pub(crate) const JOURNAL: &[Known] =
    &[theirs("inside", "log", "systemd-nspawn makes /var/log/journal before it looks whether to link it")];
pub(crate) const TMP: &[Known] =
    &[ours("writable", "/tmp", "a mount point that every root has, made when it is missing")];
pub(crate) const USERS: &[Known] = &[
    ours("inside", "/dev/console 0:5", "the pty itself, as from v253 on"),
    theirs("inside", "/dev/console 0:0", "the pty itself, as from v253 on"),
];
pub(crate) const SHIFTED: &[Known] = &[
    ours("devices", "/run/host/incoming directory", OURS),
    theirs("devices", "/run/host/incoming directory", OURS),
    ours("devices", "/run/host/os-release regular", OURS),
    theirs("devices", "/run/host/os-release regular", OURS),
];
pub(crate) const SHIFTED_CONSOLE: &[Known] =
    &[SHIFTED[0], SHIFTED[1], SHIFTED[2], SHIFTED[3], USERS[0], USERS[1]];
pub(crate) const OURS: &str = "belongs to the container's root instead of to nobody";
pub(crate) const NOT_READ: &[Known] = &[
    ours("limits", "Max open files ", "v252 leaves its own limits alone when it reads no settings"),
    theirs("limits", "Max open files ", "v252 leaves its own limits alone when it reads no settings"),
];
pub(crate) const CONSOLE: &[Known] = &[
    ours("inside", "/dev/console", "v252 shows the pty's own name"),
    theirs("inside", "/dev/pts/0", "v252 shows the pty's own name"),
];
pub(crate) const MAC: &[Known] = &[
    ours("links", "host0 <BROADCAST", "the variable is v256's"),
    theirs("links", "host0 <BROADCAST", "the variable is v256's"),
];
pub(crate) const TMPFS: &[Known] = &[
    ours("mounts", "/usr/bin ro,nodev tmpfs rw", "the mount is read-only, which is what can be seen of it"),
    theirs("mounts", "/usr/bin ro,nodev tmpfs ro", "the mount is read-only, which is what can be seen of it"),
];
pub(crate) const INACCESSIBLE: &[Known] = &[
    ours("mounts", "/etc/secret ro,nosuid,nodev", "from the container's own /run; v252 takes the host's"),
    ours("mounts", "/usr ro,nosuid,nodev", "from the container's own /run; v252 takes the host's"),
    theirs("mounts", "/etc/secret ro", "from the container's own /run; v252 takes the host's"),
    theirs("mounts", "/usr ro", "from the container's own /run; v252 takes the host's"),
];
pub(crate) const STUB: &[Known] = &[
    ours("inside", "nixrun-stub", "the stub says whose it is"),
    theirs("inside", "(sd-stubinit)", "the stub says whose it is"),
];
