//! Disk images as roots.

use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runtime::{ContainerConfig, Outcome, RootOptions, Volatile};

mod common;
use common::{DETACHED, ok, root, start};

const ROOT: &str = if cfg!(target_arch = "aarch64") {
    "b921b045-1df0-41c3-af44-4c6f280d3fae"
} else {
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
};
const USR: &str = if cfg!(target_arch = "aarch64") {
    "b0e01050-ee5f-4390-949a-9101b17104e9"
} else {
    "8484680c-9521-48c6-9c11-b0720656f69e"
};
const HOME: &str = "933ac7e1-2eb4-4f13-b844-0e14e2aef915";
const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
const MIB: u64 = 1 << 20;

/// A command that must succeed, with this input.
fn tool(program: &str, args: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An ext4 file system of 16 MiB with what is in a directory.
fn ext4(dir: &Path, name: &str, content: &Path) -> PathBuf {
    let image = dir.join(name);
    tool("mke2fs", &["-q", "-t", "ext4", "-d", text(content), text(&image), "16M"], "");
    image
}

/// A disk with these partitions: type, flags and content of each.
fn disk(dir: &Path, name: &str, label: &str, parts: &[(&str, &str, &Path)]) -> PathBuf {
    let image = dir.join(name);
    let file = fs::File::create(&image).unwrap();
    file.set_len((parts.len() as u64 * 20 + 4) * MIB).unwrap();
    let mut table = format!("label: {label}\n");
    for (index, (kind, more, content)) in parts.iter().enumerate() {
        let start = (index as u64 * 20 + 2) * MIB;
        table += &format!("start={}, size={}, type={kind}{more}\n", start / 512, 16 * MIB / 512);
        let mut bytes = Vec::new();
        let mut source = fs::File::open(content).unwrap();
        source.rewind().unwrap();
        source.read_to_end(&mut bytes).unwrap();
        file.write_all_at(&bytes, start).unwrap();
    }
    tool("sfdisk", &["-q", text(&image)], &table);
    image
}

fn config(image: &Path, name: &str, options: RootOptions, script: &str) -> ContainerConfig {
    let mut config =
        common::config(image, name, &format!("b=/bin/busybox; [ -e $b ] || b=/usr/bin/busybox\n{script}"));
    config.root = RootOptions { image: true, ..options };
    config
}

fn refused(image: &Path, options: RootOptions, what: &str) {
    let error = start(&config(image, "refused", options, "")).unwrap_err().to_string();
    assert!(error.contains(what) && error.contains(text(image)), "{error}");
}

/// Loop devices whose file is this.
fn loops(image: &Path) -> usize {
    let backing = |number: u32| fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file"));
    (0..64).filter(|number| backing(*number).is_ok_and(|file| file.trim() == text(image))).count()
}

fn default() -> RootOptions {
    RootOptions::default()
}

#[test]
fn a_file_system_is_a_root_and_its_loop_device_goes_with_the_container() {
    let Some((dir, root)) = root() else { return };
    let image = ext4(dir.path(), "plain", &root);
    let script = "echo kept > /file; $b grep ' / / ' /proc/self/mountinfo | $b grep -o ' - ext4 /dev/loop'; $b df / | $b grep -c loop";
    assert_eq!(ok(&config(&image, "image", default(), script)), " - ext4 /dev/loop\n1\n");
    assert_eq!(loops(&image), 0);
    // Nothing of it is to be seen on the host while it runs.
    let script = "$b cat /file; trap 'exit 6' TERM; while :; do $b sleep 0.05; done";
    let supervisor = start(&config(&image, "image", default(), script)).unwrap();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains("/dev/loop"), "{mounts}");
    assert_eq!(loops(&image), 1);
    supervisor.stopper().stop();
    assert_eq!(supervisor.run(&DETACHED, |_| {}).unwrap().outcome, Outcome::Exited(6));
    assert_eq!(loops(&image), 0);
}

#[test]
fn read_only_and_ephemeral_images_are_not_written_to() {
    let Some((dir, root)) = root() else { return };
    for name in ["proc", "sys", "dev", "run", "tmp"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    let image = ext4(dir.path(), "image", &root);
    let before = fs::read(&image).unwrap();
    let try_write = "(echo x > /x) 2>/dev/null && echo written; exit 0";
    assert_eq!(ok(&config(&image, "iro", RootOptions { read_only: true, ..default() }, try_write)), "");
    let ephemeral = || RootOptions { ephemeral: true, ..default() };
    assert_eq!(ok(&config(&image, "ieph", ephemeral(), try_write)), "written\n");
    assert!(fs::read(&image).unwrap() == before, "the image was written to");
    assert_eq!(loops(&image), 0);
}

/// The layer's directory is whose the image's is; one that is nobody's in the container is its root's.
#[test]
fn an_image_of_anybodys_is_its_roots_where_a_layer_lies_over_it() {
    let Some((dir, root)) = root() else { return };
    for name in ["proc", "sys", "dev", "run", "tmp"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    for (owner, seen) in [("0:0", "0:0"), ("7:8", "7:8"), ("4294901760:4294901761", "0:0")] {
        let image = dir.path().join(format!("image-{owner}"));
        let owner = format!("root_owner={owner}");
        let options = ["-q", "-t", "ext4", "-E", &owner, "-d", text(&root), text(&image), "16M"];
        tool("mke2fs", &options, "");
        let ephemeral = RootOptions { ephemeral: true, ..default() };
        let mut config = config(&image, "iowner", ephemeral, "$b stat -c %u:%g /");
        config.users = runtime::UserNamespace::Range { base: 0x6fff_0000, length: 65536 };
        config.ownership = runtime::Ownership::Map;
        assert_eq!(ok(&config), format!("{seen}\n"));
    }
}

#[test]
fn a_file_system_that_cannot_be_written_is_a_root_for_reading() {
    let Some((dir, root)) = root() else { return };
    for name in ["proc", "sys", "dev", "run", "tmp"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    let image = dir.path().join("squashfs");
    tool("mksquashfs", &[text(&root), text(&image), "-quiet", "-no-progress"], "");
    let script = "$b grep ' / / ' /proc/self/mountinfo | $b grep -o squashfs; (echo x > /x) 2>/dev/null && echo written; exit 0";
    assert_eq!(
        ok(&config(&image, "squash", RootOptions { read_only: true, ..default() }, script)),
        "squashfs\n"
    );
    let overlay = RootOptions { ephemeral: true, ..default() };
    assert_eq!(ok(&config(&image, "squash", overlay, "echo x > /x && $b cat /x")), "x\n");
}

#[test]
fn partitions_are_found_by_their_types() {
    let Some((dir, root)) = root() else { return };
    fs::create_dir(root.join("home")).unwrap();
    let system = ext4(dir.path(), "system", &root);
    let home = dir.path().join("h");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("mark"), "home").unwrap();
    let home = ext4(dir.path(), "home", &home);
    let gpt = disk(dir.path(), "gpt", "gpt", &[(HOME, "", &home), (LINUX, "", &home), (ROOT, "", &system)]);
    let script =
        "$b cat /home/mark; echo y > /home/new; $b ls /home/new; $b grep -c /dev/loop /proc/self/mountinfo";
    assert_eq!(ok(&config(&gpt, "gpt", default(), script)), "home/home/new\n2\n");
    assert_eq!(loops(&gpt), 0);
    // Without a root by its type it is the one that is for Linux in general.
    let generic =
        disk(dir.path(), "generic", "gpt", &[(LINUX, "", &system), (HOME, ", attrs=\"GUID:60\"", &home)]);
    let script = "$b cat /home/mark; (echo y > /home/new) 2>/dev/null && echo written; exit 0";
    assert_eq!(ok(&config(&generic, "generic", default(), script)), "home");
    let mbr = disk(dir.path(), "mbr", "dos", &[("83", "", &home), ("83", ", bootable", &system)]);
    assert_eq!(ok(&config(&mbr, "mbr", default(), "echo ran")), "ran\n");
    // A partition that is not to be found by itself.
    let hidden =
        disk(dir.path(), "hidden", "gpt", &[(ROOT, "", &system), (HOME, ", attrs=\"GUID:63\"", &home)]);
    assert_eq!(ok(&config(&hidden, "hidden", default(), "$b ls /home")), "");
}

#[test]
fn a_usr_of_its_own_serves_a_volatile_root() {
    let Some((dir, root)) = root() else { return };
    let usr = ext4(dir.path(), "usr", &root);
    let rest = dir.path().join("rest");
    fs::create_dir_all(rest.join("usr")).unwrap();
    std::os::unix::fs::symlink("usr/bin", rest.join("bin")).unwrap();
    let rest = ext4(dir.path(), "rest.ext4", &rest);
    let image = disk(dir.path(), "two", "gpt", &[(ROOT, "", &rest), (USR, "", &usr)]);
    assert_eq!(ok(&config(&image, "usr", default(), "echo x > /usr/x; $b ls /usr/x")), "/usr/x\n");
    let volatile = |volatile| RootOptions { volatile, ..default() };
    let script =
        "(echo x > /usr/y) 2>/dev/null && echo written; echo x > /x && echo x > /var/x; $b ls -d /usr/x";
    assert_eq!(ok(&config(&image, "usr", volatile(Volatile::Yes), script)), "/usr/x\n");
    refused(&image, volatile(Volatile::Overlay), "/usr is a partition of its own");
    assert_eq!(loops(&image), 0);
}

#[test]
fn what_is_no_root_is_refused_by_name() {
    let Some((dir, root)) = root() else { return };
    let place = |name: &str| dir.path().join(name);
    let write = |name: &str, at: u64, bytes: &[u8]| {
        let file = fs::File::create(place(name)).unwrap();
        file.set_len(MIB).unwrap();
        file.write_all_at(bytes, at).unwrap();
        place(name)
    };
    refused(&write("empty", 0, b""), default(), "neither a file system");
    refused(&write("luks", 0, b"LUKS\xba\xbe"), default(), "encrypted with LUKS");
    refused(&write("verity", 0, b"verity\0\0"), default(), "dm-verity");
    refused(&write("broken", 0x438, &[0x53, 0xef]), default(), "holds ext4");
    refused(&place("missing"), default(), "No such file");
    refused(dir.path(), default(), "open the image");
    let system = ext4(dir.path(), "system", &root);
    let luks = write("luks2", 0, b"LUKS\xba\xbe");
    let encrypted = disk(dir.path(), "encrypted", "gpt", &[(ROOT, "", &luks)]);
    refused(&encrypted, default(), "its partition 1 for / is encrypted with LUKS");
    let two = disk(dir.path(), "ambiguous", "gpt", &[(LINUX, "", &system), (LINUX, "", &system)]);
    refused(&two, default(), "several partitions for Linux");
    let none = disk(dir.path(), "none", "gpt", &[(HOME, "", &system)]);
    refused(&none, default(), "none of its partitions is a root");
    refused(
        &disk(dir.path(), "inactive", "dos", &[("83", "", &system)]),
        default(),
        "none of its partitions",
    );
    for image in ["luks", "encrypted", "ambiguous", "none", "broken"] {
        assert_eq!(loops(&place(image)), 0, "{image}");
    }
}
