//! Access control lists of files that get other owners: the ids in them, in the form in which the kernel gives them
//! (`linux/posix_acl_xattr.h`: a version, then entries of tag, permissions and id, all little-endian).

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::sys::fd::{set_xattr_at, xattr_at};

/// Who may do what with a file, and what files get that are made in a directory.
pub(crate) const LISTS: [&CStr; 2] = [c"system.posix_acl_access", c"system.posix_acl_default"];
const HEADER: usize = size_of::<u32>();
const ENTRY: usize = 8;
/// Entries for one user and for one group; the others name nobody.
const NAMED: [u16; 2] = [0x02, 0x08];

/// Replaces the ids in the lists of what `name` is in `directory`. Symlinks have none.
pub(super) fn give(
    directory: BorrowedFd<'_>,
    name: &CStr,
    is_directory: bool,
    id: impl Fn(u32) -> u32,
) -> nix::Result<()> {
    for list in &LISTS[..if is_directory { 2 } else { 1 }] {
        let found = xattr_at(directory, name, list).map_err(|error| error.errno())?;
        if let Some(changed) = found.map(|value| replaced(&value, &id)).transpose()?.flatten() {
            set_xattr_at(directory, name, list, &changed).map_err(|error| error.errno())?;
        }
    }
    Ok(())
}

/// The list with other ids; `None` when they are the same.
pub(crate) fn replaced(value: &[u8], id: impl Fn(u32) -> u32) -> nix::Result<Option<Vec<u8>>> {
    let mut new = value.to_vec();
    let (header, entries) = new.split_at_mut_checked(HEADER).ok_or(Errno::EINVAL)?;
    if header != [2, 0, 0, 0] || entries.len() % ENTRY != 0 {
        return Err(Errno::EINVAL);
    }
    for entry in entries.chunks_exact_mut(ENTRY) {
        if let [tag, tag_high, _, _, owner @ ..] = entry
            && NAMED.contains(&u16::from_le_bytes([*tag, *tag_high]))
            && let Ok(old) = <[u8; 4]>::try_from(&*owner)
        {
            owner.copy_from_slice(&id(u32::from_le_bytes(old)).to_le_bytes());
        }
    }
    Ok((new != value).then_some(new))
}
