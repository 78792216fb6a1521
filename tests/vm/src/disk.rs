//! ext4 images made from directories: the machine's root, a run's payload, a container's closure.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, run};

/// The sizes are part of a saved machine: a disk attached at restore must be as large as the one at save.
pub(crate) const ROOT_SIZE: &str = "1G";
pub(crate) const PAYLOAD_SIZE: u64 = 512 << 20;
pub(crate) const CLOSURE_SIZE: u64 = 1 << 30;

/// Writes the tree below `directory` into a new sparse ext4 image of `size` (as mke2fs reads it).
///
/// No journal, no checksums, no zeroing of tables: nobody keeps these disks, and each costs time in the guest.
pub(crate) fn make(image: &Path, directory: &Path, size: &str) -> Result<(), Error> {
    let features = "^has_journal,^metadata_csum,^resize_inode";
    let options = "lazy_itable_init=1,nodiscard,root_owner=0:0";
    run(
        "make a disk image",
        Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-O", features, "-E", options, "-d"])
            .args([directory, image])
            .arg(size),
    )?;
    Ok(())
}

/// A sparse image without content, for a disk that must be there but is not needed.
pub(crate) fn make_empty(image: &Path, size: u64) -> Result<(), Error> {
    std::fs::File::create(image).and_then(|file| file.set_len(size)).map_err(Error::file("create", image))
}
