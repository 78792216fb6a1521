//! What is on a device or a part of one, by the magic numbers of superblocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What begins at some place of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A file system, by the kernel's name for it.
    FileSystem(&'static str),
    /// Something that must be opened with a key or a hash first, by its name.
    Locked(&'static str),
}

/// Where a magic number is, and what it means. btrfs has 64 KiB of room before it, in which others may have left theirs.
const MAGIC: &[(u64, &[u8], Content)] = &[
    (0x10040, b"_BHRfS_M", Content::FileSystem("btrfs")),
    (0, b"LUKS\xba\xbe", Content::Locked("encrypted with LUKS")),
    (0, b"verity\0\0", Content::Locked("a tree of hashes for dm-verity")),
    (0, b"XFSB", Content::FileSystem("xfs")),
    (0, b"hsqs", Content::FileSystem("squashfs")),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], Content::FileSystem("erofs")),
    (0x438, &[0x53, 0xef], Content::FileSystem("ext4")),
    (0x52, b"FAT32   ", Content::FileSystem("vfat")),
    (0x36, b"FAT1", Content::FileSystem("vfat")),
];

/// What begins at `offset`, if it is anything known.
pub(super) fn content(file: &File, offset: u64) -> io::Result<Option<Content>> {
    for (at, magic, content) in MAGIC {
        let mut bytes = vec![0; magic.len()];
        match offset.checked_add(*at).map(|at| file.read_exact_at(&mut bytes, at)) {
            Some(Ok(())) if bytes == *magic => return Ok(Some(*content)),
            Some(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magic_number_counts_in_its_place_only() {
        for (at, magic, expected) in MAGIC {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(magic, 4096 + at).unwrap();
            assert_eq!(content(&file, 4096).unwrap(), Some(*expected));
            assert_eq!(content(&file, 4097).unwrap(), None);
            assert_eq!(content(&file, 1 << 40).unwrap(), None);
        }
    }
}
