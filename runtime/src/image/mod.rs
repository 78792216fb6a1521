//! Disk images as roots: a file system, or a partition table of the Discoverable Partitions Specification with one.
//! Partitions are found and mounted by their place in the image, each from a loop device of its own, so nothing waits
//! for udev. What is mounted has no place on the host, and the loop devices go when the container's mounts do.
//!
//! <https://uapi-group.org/specifications/specs/discoverable_partitions_specification/>

mod probe;
mod table;

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Doing, Error, ErrorKind};
use crate::host::c_path;
use crate::sys::loopdev;
use crate::sys::mount::{FsContext, attr};
use probe::Content;
use table::{Kind, Partition};

/// Mounts that are attached to nothing, with the places where they belong.
pub(crate) type Parts = Vec<(&'static str, OwnedFd)>;

/// An image's file systems, mounted and attached to nothing.
#[derive(Debug)]
pub(crate) struct Image {
    /// The one with the root.
    pub(crate) root: OwnedFd,
    /// Those on partitions of their own, with their places.
    pub(crate) parts: Parts,
}

/// How an image is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    /// Nothing of it is written, not even what a file system left to be done at its next mount.
    pub(crate) read_only: bool,
    /// Nothing of it is written by the container.
    pub(crate) mounted_read_only: bool,
}

/// Partition types that are mounted, and where: those of this architecture.
const TYPES: &[(&str, &str)] = &[
    #[cfg(target_arch = "x86_64")]
    ("/", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
    #[cfg(target_arch = "x86_64")]
    ("/usr", "8484680c-9521-48c6-9c11-b0720656f69e"),
    #[cfg(target_arch = "aarch64")]
    ("/", "b921b045-1df0-41c3-af44-4c6f280d3fae"),
    #[cfg(target_arch = "aarch64")]
    ("/usr", "b0e01050-ee5f-4390-949a-9101b17104e9"),
    #[cfg(target_arch = "riscv64")]
    ("/", "72ec70a6-cf74-40e6-bd49-4bda08e8f224"),
    #[cfg(target_arch = "riscv64")]
    ("/usr", "beaec34b-8442-439b-a40b-984381ed097d"),
    ("/home", "933ac7e1-2eb4-4f13-b844-0e14e2aef915"),
    ("/srv", "3b8f8425-20e0-4f3b-907f-1a25a76f98e8"),
    ("/var", "4d21b016-b534-45c2-a9fb-5c16e091fd2d"),
];
/// A partition that says no more than that it is for Linux.
const GENERIC: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
const GENERIC_MBR: u8 = 0x83;

/// Opens and mounts an image.
pub(crate) fn open(path: &Path, access: Access) -> Result<Image, Error> {
    let disk = Disk::open(path, access)?;
    let doing = || format!("read the image {}", path.display());
    if let Some(content) = probe::content(&disk.file, 0).doing(doing)? {
        let whole = (0, disk.size);
        return Ok(Image { root: disk.mount(content, whole, false, "it")?, parts: Vec::new() });
    }
    let Some(partitions) = table::read(&disk.file, disk.size).doing(doing)? else {
        return Err(disk.refuse("it holds neither a file system that nixrun knows nor a partition table"));
    };
    let mut root = None;
    let mut parts = Vec::new();
    for (place, partition) in disk.choose(&partitions)? {
        let which = format!("its partition {} for {place}", partition.number);
        let Some(content) = probe::content(&disk.file, partition.offset).doing(doing)? else {
            return Err(disk.refuse(&format!("{which} holds no file system that nixrun knows")));
        };
        let (area, read_only) = ((partition.offset, partition.size), partition.read_only);
        let tree = disk.mount(content, area, read_only, &which)?;
        match place {
            "/" => root = Some(tree),
            place => parts.push((place, tree)),
        }
    }
    match root {
        Some(root) => Ok(Image { root, parts }),
        None => Err(disk.refuse("none of its partitions is a root for this architecture")),
    }
}

/// An open image.
struct Disk<'a> {
    path: &'a Path,
    file: File,
    size: u64,
    is_device: bool,
    access: Access,
}

impl Disk<'_> {
    fn open(path: &Path, access: Access) -> Result<Disk<'_>, Error> {
        let doing = || format!("open the image {}", path.display());
        // A FIFO in its place would hold us up.
        let mut options = OpenOptions::new();
        options.read(true).write(!access.read_only).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let mut file = options.open(path).doing(doing)?;
        let kind = file.metadata().doing(doing)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let why = "it is neither a file nor a block device";
            return Err(Error::new(
                ErrorKind::Config,
                format!("cannot use the image {}: {why}", path.display()),
            ));
        }
        let size = file.seek(SeekFrom::End(0)).doing(doing)?;
        Ok(Disk { path, file, size, is_device: kind.is_block_device(), access })
    }

    fn refuse(&self, why: &str) -> Error {
        Error::new(ErrorKind::Config, format!("cannot use the image {}: {why}", self.path.display()))
    }

    /// The partitions that are mounted, with their places: of each kind the first, and without a root of this
    /// architecture the one for Linux in general, which in an MBR must be bootable: systemd's rules.
    fn choose<'p>(&self, partitions: &'p [Partition]) -> Result<Vec<(&'static str, &'p Partition)>, Error> {
        let uuid = |text| crate::rootfs::parse_uuid(text).map(Kind::Gpt);
        let mut chosen: Vec<(&'static str, &Partition)> = TYPES
            .iter()
            .filter_map(|(place, kind)| {
                Some((*place, partitions.iter().find(|part| Some(part.kind) == uuid(kind))?))
            })
            .collect();
        if chosen.iter().any(|(place, _)| *place == "/") {
            return Ok(chosen);
        }
        let generic = [uuid(GENERIC), Some(Kind::Mbr(GENERIC_MBR, true))];
        let mut candidates = partitions.iter().filter(|part| generic.contains(&Some(part.kind)));
        if let Some(root) = candidates.next() {
            chosen.insert(0, ("/", root));
        }
        match candidates.next() {
            None => Ok(chosen),
            Some(_) => {
                Err(self
                    .refuse("it has several partitions for Linux, and none of them says that it is the root"))
            }
        }
    }

    fn mount(
        &self,
        content: Content,
        (offset, size): (u64, u64),
        read_only: bool,
        which: &str,
    ) -> Result<OwnedFd, Error> {
        let fstype = match content {
            Content::FileSystem(fstype) => fstype,
            Content::Locked(how) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "cannot use the image {}: {which} is {how}, which nixrun does not open",
                        self.path.display()
                    ),
                ));
            }
        };
        let doing = || format!("mount the image {}: {which} holds {fstype}", self.path.display());
        let read_only = read_only || self.access.read_only;
        let whole_device = self.is_device && (offset, size) == (0, self.size);
        let device = if whole_device {
            None
        } else {
            Some(loopdev::attach(self.file.as_fd(), offset, size, read_only).doing(doing)?)
        };
        let source = device.as_ref().map_or(self.path, |device| device.path.as_path());
        let fstype = std::ffi::CString::new(fstype).unwrap_or_default();
        let context = FsContext::with_source(&fstype, &c_path(source)?).doing(doing)?;
        let mut attributes = attr::NODEV;
        if read_only || self.access.mounted_read_only {
            context.set(c"ro", None).doing(doing)?;
            attributes |= attr::RDONLY;
        }
        context.mount(attributes).doing(doing)
    }
}
