//! Members of an archive into a directory that nobody else can look into yet. Every way begins at that directory's own
//! descriptor, and neither a symlink nor `..` is on it: whatever the archive says, nothing else is touched.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};
use runtime::tree::{self, Mounts, Node, Shift};

use super::member::{Member, What};
use super::{STEP, Totals, Watch, interrupted};

/// Fills a directory.
pub(crate) struct Unpacker<'w> {
    top: OwnedFd,
    shift: Shift,
    watch: &'w mut dyn Watch,
    totals: Totals,
    told: u64,
    /// What directories become once they are filled: until then only root gets into them.
    directories: Vec<Member>,
    /// The directory that was filled last.
    last: Option<(PathBuf, OwnedFd)>,
    /// Attributes that this file system does not know.
    unknown: BTreeSet<String>,
    /// Whether what is there already is replaced, and directories are filled that are there.
    replace: bool,
    mounts: Mounts,
}

impl<'w> Unpacker<'w> {
    /// Into an empty directory; files get the ids that `shift` makes of the container's.
    pub(crate) fn new(top: OwnedFd, shift: Shift, watch: &'w mut dyn Watch) -> Unpacker<'w> {
        Unpacker {
            top,
            shift,
            watch,
            totals: Totals::default(),
            told: 0,
            directories: Vec::new(),
            last: None,
            unknown: BTreeSet::new(),
            replace: false,
            mounts: Mounts::Stay,
        }
    }

    /// Into a directory in which others live, who may have much there.
    pub(crate) fn among_others(self) -> Unpacker<'w> {
        Unpacker { replace: true, mounts: Mounts::Cross, ..self }
    }

    pub(crate) fn member(&mut self, member: Member, data: &mut dyn Read) -> io::Result<()> {
        self.totals.files += 1;
        if member.path.as_os_str().is_empty() {
            self.directories.push(member);
            return Ok(());
        }
        let parent = self.parent(&member.path)?;
        let name = name(&member.path)?;
        let made = self.make(&member, parent.as_fd(), &name, data);
        self.last = member.path.parent().map(|path| (path.to_owned(), parent));
        made?;
        if member.what == What::Directory {
            self.directories.push(member);
        }
        self.go_on(512)
    }

    /// Gives directories what is theirs, the deepest first, and puts everything on the disk.
    pub(crate) fn finish(mut self) -> io::Result<Vec<String>> {
        self.last = None;
        for member in std::mem::take(&mut self.directories).into_iter().rev() {
            let failed =
                |error: io::Error| io::Error::new(error.kind(), format!("{:?}: {error}", member.path));
            let open = tree::directory(self.top.as_fd(), &member.path, self.mounts);
            open.and_then(Node::of).and_then(|node| self.dress(&member, &node)).map_err(failed)?;
            self.go_on(512)?;
        }
        if !self.replace {
            nix::unistd::syncfs(&self.top)?;
        }
        Ok(self.unknown.into_iter().collect())
    }

    fn parent(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.last.take() {
            Some((last, open)) if last == parent => Ok(open),
            _ => tree::directory(self.top.as_fd(), parent, self.mounts),
        }
    }

    fn make(
        &mut self,
        member: &Member,
        parent: BorrowedFd<'_>,
        name: &CStr,
        data: &mut dyn Read,
    ) -> io::Result<()> {
        if self.replace && member.what != What::Directory {
            match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
                Err(Errno::ENOENT) => {}
                removed => removed?,
            }
        }
        let node = |kind, device| mknodat(parent, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, device);
        match &member.what {
            // Dressed at the end: an access control list for new files would count for what comes next.
            What::Directory => match mkdirat(parent, name, Mode::S_IRWXU) {
                Err(Errno::EEXIST) if self.replace && is_directory(parent, name) => return Ok(()),
                made => return Ok(made?),
            },
            What::HardLink(to) => {
                let from =
                    tree::directory(self.top.as_fd(), to.parent().unwrap_or(Path::new("")), self.mounts)?;
                let target = self::name(to)?;
                return Ok(linkat(&from, target.as_c_str(), parent, name, AtFlags::empty())?);
            }
            What::File { size, parts } => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let file = File::from(openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
                let whole = [(0, *size)];
                if parts.is_some() {
                    file.set_len(*size)?;
                }
                for (offset, length) in parts.as_deref().unwrap_or(&whole) {
                    self.fill(&file, *offset, *length, data)?;
                }
                return self.dress(member, &Node::of(file)?);
            }
            What::Symlink(target) => symlinkat(target.as_os_str(), parent, name)?,
            What::Fifo => node(SFlag::S_IFIFO, 0)?,
            What::Device { block, number: (major, minor) } => {
                let kind = if *block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
                node(kind, makedev((*major).into(), (*minor).into()))?;
            }
        }
        let node = Node::open(parent, OsStr::from_bytes(name.to_bytes()))?;
        self.dress(member, &node)
    }

    fn fill(&mut self, file: &File, offset: u64, length: u64, data: &mut dyn Read) -> io::Result<()> {
        let mut buffer = vec![0; usize::try_from(length.min(STEP)).unwrap_or(0)];
        let mut done = 0;
        while done < length {
            let room = usize::try_from((length - done).min(STEP)).unwrap_or(0);
            let read = data.read(buffer.get_mut(..room).unwrap_or_default())?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off in it"));
            }
            file.write_all_at(buffer.get(..read).unwrap_or_default(), offset + done)?;
            done += read as u64;
            self.totals.bytes += read as u64;
            self.go_on(read as u64)?;
        }
        Ok(())
    }

    /// Owner, attributes, permissions, time, in this order: a change of owner takes set-id bits and capabilities away,
    /// a list changes permissions.
    fn dress(&mut self, member: &Member, node: &Node) -> io::Result<()> {
        // By its descriptor: whoever lives around it may put something else under its name.
        if node.kind() != kind(&member.what) {
            return Err(io::Error::other("something else was put in its place meanwhile"));
        }
        node.give(self.shift.outside(member.uid), self.shift.outside(member.gid))?;
        for (attribute, value) in &member.attributes {
            let value = self.shift.attribute_outside(attribute, value.clone());
            let key = CString::new(attribute.as_slice())?;
            match node.set_xattr(&key, &value) {
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    self.unknown.insert(String::from_utf8_lossy(attribute).into_owned());
                }
                result => result.map_err(|error| {
                    io::Error::new(error.kind(), format!("its attribute {key:?}: {error}"))
                })?,
            }
        }
        if !matches!(member.what, What::Symlink(_)) {
            node.permit(member.mode)?;
        }
        node.date(member.changed)
    }

    fn go_on(&mut self, bytes: u64) -> io::Result<()> {
        self.told += bytes;
        if self.told >= STEP {
            self.told = 0;
            if !self.watch.goes_on(self.totals) {
                return Err(interrupted());
            }
        }
        Ok(())
    }
}

fn kind(what: &What) -> u32 {
    match what {
        What::Directory => libc::S_IFDIR,
        What::File { .. } | What::HardLink(_) => libc::S_IFREG,
        What::Symlink(_) => libc::S_IFLNK,
        What::Fifo => libc::S_IFIFO,
        What::Device { block: true, .. } => libc::S_IFBLK,
        What::Device { block: false, .. } => libc::S_IFCHR,
    }
}

fn is_directory(parent: BorrowedFd<'_>, name: &CStr) -> bool {
    Node::open(parent, OsStr::from_bytes(name.to_bytes())).is_ok_and(|node| node.kind() == libc::S_IFDIR)
}

fn name(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.file_name().unwrap_or(OsStr::new("")).as_bytes())?)
}

impl std::fmt::Debug for Unpacker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").field("totals", &self.totals).finish_non_exhaustive()
    }
}
