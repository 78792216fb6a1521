//! All that can be known of the files of a tree, for comparison with another one.

use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::libc;
use runtime::tree::Node;

/// A line a file: path, type, permissions, owner, names, length, time, device, where a symlink leads, extended
/// attributes, and what is in it. Without sockets, and whatever of directories is up to the file system.
///
/// # Panics
/// When something cannot be read.
#[must_use]
pub fn listing(top: &Path) -> Vec<String> {
    let mut lines = vec![line(top, Path::new("."))];
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(top.join(&path)).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = path.join(entry.file_name());
            let kind = entry.file_type().expect("its type");
            if std::os::unix::fs::FileTypeExt::is_socket(&kind) {
                continue;
            }
            lines.push(line(top, &path));
            if kind.is_dir() {
                left.push(path);
            }
        }
    }
    lines.sort();
    lines
}

fn line(top: &Path, path: &Path) -> String {
    let full = top.join(path);
    let parent = fs::File::open(full.parent().expect("a parent")).expect("a directory");
    let name = if path == Path::new(".") { full.canonicalize().expect("a path") } else { full };
    let parent = if path == Path::new(".") {
        fs::File::open(name.parent().expect("a parent")).expect("a directory")
    } else {
        parent
    };
    let node = Node::open(parent.as_fd(), name.file_name().expect("a name")).expect("a file");
    let stat = &node.stat;
    let directory = node.kind() == libc::S_IFDIR;
    let mut line = format!(
        "{path:?} {:o} {}:{} {}.{:09} {:x}",
        stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec, stat.st_rdev
    );
    if !directory {
        let _ = write!(line, " {} names, {} bytes", stat.st_nlink, stat.st_size);
    }
    if let Ok(target) = node.target() {
        let _ = write!(line, " -> {target:?}");
    }
    if let Ok(file) = node.read() {
        let holes = u64::try_from(stat.st_blocks).unwrap_or(0) * 512 + 65536
            < u64::try_from(stat.st_size).unwrap_or(0);
        let _ = write!(line, " {:x}{}", hash(&file), if holes { " with holes" } else { "" });
    }
    let mut attributes = node.xattrs().expect("its attributes");
    attributes.sort();
    for (name, value) in attributes {
        let _ = write!(line, " {}={value:02x?}", name.to_string_lossy());
    }
    line
}

/// Of its first and its last MiB, and of the length between.
fn hash(file: &fs::File) -> u64 {
    const PART: u64 = 1 << 20;
    let mut hasher = DefaultHasher::new();
    let mut bytes = Vec::new();
    file.take(PART).read_to_end(&mut bytes).expect("its content");
    hasher.write(&bytes);
    let length = file.metadata().expect("its length").len();
    let mut last = vec![0; usize::try_from(length.min(PART)).unwrap_or(0)];
    let from = length - last.len() as u64;
    file.read_exact_at(&mut last, from).expect("its content");
    hasher.write(&last);
    hasher.finish()
}
