//! A root directory into an archive. Its files are the container's: none of its symlinks is followed, no mount crossed,
//! nothing but regular files opened, and what changes meanwhile is taken as it is found.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use nix::unistd::{Whence, lseek};
use runtime::tree::{self, Mounts, Node, Shift};
use tar::{Builder, EntryType, Header};

use super::manifest::Manifest;
use super::member::{Member, PARTS_MAX, PATH_MAX, Records, What};
use super::{END, Ending, MANIFEST, STEP, Totals, Watch, interrupted};

/// Attributes that belong to the host and its policy, not to the container.
const OF_THE_HOST: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];
/// Most warnings that are kept; of more there is only the number.
const WARNINGS_MAX: usize = 20;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// A file of the root cannot be read.
    #[error("cannot read {path:?}: {source}")]
    Read {
        /// Below the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive cannot be written, or nobody wants it any more.
    #[error("{0}")]
    Write(#[from] io::Error),
}

/// The archive that is being written.
pub(super) struct Writer<'w, W: Write> {
    tar: Builder<W>,
    watch: &'w mut dyn Watch,
    totals: Totals,
    told: u64,
    warnings: Vec<String>,
    more: usize,
}

impl<'w, W: Write> Writer<'w, W> {
    pub(super) fn new(to: W, manifest: &Manifest, watch: &'w mut dyn Watch) -> Result<Self, WriteError> {
        let tar = Builder::new(to);
        let mut writer =
            Writer { tar, watch, totals: Totals::default(), told: 0, warnings: Vec::new(), more: 0 };
        writer.text(MANIFEST, &serde_json::to_vec_pretty(manifest).map_err(io::Error::from)?)?;
        Ok(writer)
    }

    /// Everything below the root.
    pub(super) fn root(&mut self, top: &OwnedFd, shift: Shift) -> Result<(), WriteError> {
        Tree::new(self, top.as_fd(), shift, Mounts::Stay).all()
    }

    /// Ends it; what was written to, how much, and what to tell the user.
    pub(super) fn finish(mut self) -> Result<(W, Totals, Vec<String>), WriteError> {
        let end = Ending { files: self.totals.files, bytes: self.totals.bytes };
        self.text(END, &serde_json::to_vec(&end).map_err(io::Error::from)?)?;
        if self.more > 0 {
            self.warnings.push(format!("{} more files were not taken as they are", self.more));
        }
        Ok((self.tar.into_inner()?, self.totals, self.warnings))
    }

    fn text(&mut self, name: &str, text: &[u8]) -> Result<(), WriteError> {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(text.len() as u64);
        header.set_cksum();
        Ok(self.tar.append(&header, text)?)
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

    fn append(&mut self, member: &Member, file: Option<&File>) -> Result<(), WriteError> {
        let (records, header, map) = member.encode();
        let records = Records::encode(&records);
        if !records.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_path("PaxHeader")?;
            extended.set_entry_type(EntryType::XHeader);
            extended.set_size(records.len() as u64);
            extended.set_cksum();
            self.tar.append(&extended, records.as_slice())?;
        }
        self.totals.files += 1;
        let mut data = Data::new(member, file);
        let mut watched =
            Watched { data: &mut data, watch: self.watch, told: &mut self.told, totals: self.totals };
        let written = self.tar.append(&header, map.chain(&mut watched));
        self.totals.bytes += member.data();
        let (failed, short) = (data.failed.take(), data.short);
        if let Some(source) = failed {
            return Err(WriteError::Read { path: member.path.clone(), source });
        }
        written?;
        if short {
            self.warn(format!(
                "{:?} became shorter while it was read; zeros stand for the rest",
                member.path
            ));
        }
        Ok(())
    }
}

impl<W: Write> Take for Writer<'_, W> {
    fn take(&mut self, member: Member, file: Option<&File>) -> Result<(), WriteError> {
        self.append(&member, file)?;
        Ok(self.go_on(512)?)
    }

    fn warn(&mut self, warning: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(warning);
        } else {
            self.more += 1;
        }
    }
}

/// Who gets the files of a tree.
pub(crate) trait Take {
    /// One of them; a regular file comes open.
    fn take(&mut self, member: Member, file: Option<&File>) -> Result<(), WriteError>;

    /// What is not as it should be, a sentence.
    fn warn(&mut self, warning: String);
}

/// The parts of a file one after the other, and zeros where it has become shorter.
pub(crate) struct Data<'f> {
    file: Option<&'f File>,
    parts: Vec<(u64, u64)>,
    part: usize,
    at: u64,
    short: bool,
    /// Why it could not be read: the error that the reader sees is of the same kind alone.
    pub(crate) failed: Option<io::Error>,
    read: u64,
}

impl<'f> Data<'f> {
    pub(crate) fn new(member: &Member, file: Option<&'f File>) -> Data<'f> {
        let parts = match (&member.what, file) {
            (What::File { size, parts: None }, Some(_)) => vec![(0, *size)],
            (What::File { parts: Some(parts), .. }, Some(_)) => parts.clone(),
            _ => Vec::new(),
        };
        Data { file, parts, part: 0, at: 0, short: false, failed: None, read: 0 }
    }
}

impl Read for Data<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.parts.get(self.part).is_some_and(|(_, length)| *length == self.at) {
            self.part += 1;
            self.at = 0;
        }
        let (Some(file), Some((offset, length))) = (self.file, self.parts.get(self.part).copied()) else {
            return Ok(0);
        };
        let room = into.len().min(usize::try_from(length - self.at).unwrap_or(usize::MAX));
        let into = into.get_mut(..room).unwrap_or_default();
        if into.is_empty() {
            return Ok(0);
        }
        let read = match file.read_at(into, offset + self.at) {
            Ok(0) => {
                self.short = true;
                into.fill(0);
                into.len()
            }
            Ok(read) => read,
            Err(error) => {
                let again = io::Error::from(error.kind());
                self.failed = Some(error);
                return Err(again);
            }
        };
        self.at += read as u64;
        self.read += read as u64;
        Ok(read)
    }
}

/// The same with somebody who watches.
struct Watched<'a, 'f> {
    data: &'a mut Data<'f>,
    watch: &'a mut dyn Watch,
    told: &'a mut u64,
    totals: Totals,
}

impl Read for Watched<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.data.read(into)?;
        *self.told += read as u64;
        if *self.told >= STEP {
            *self.told = 0;
            let done = Totals { bytes: self.totals.bytes + self.data.read, ..self.totals };
            if !self.watch.goes_on(done) {
                return Err(interrupted());
            }
        }
        Ok(read)
    }
}

/// A tree on its way to somebody.
pub(crate) struct Tree<'t, T: Take> {
    writer: &'t mut T,
    top: BorrowedFd<'t>,
    shift: Shift,
    mounts: Mounts,
    /// The first name of files that have several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<'t, T: Take> Tree<'t, T> {
    pub(crate) fn new(writer: &'t mut T, top: BorrowedFd<'t>, shift: Shift, mounts: Mounts) -> Tree<'t, T> {
        Tree { writer, top, shift, mounts, links: HashMap::new() }
    }

    /// Everything in it, the top directory with the empty path first.
    pub(crate) fn all(&mut self) -> Result<(), WriteError> {
        // Directories by their paths and not by open descriptors: a tree may be deeper than there are of them. Each comes
        // right before what is in it: GNU tar dates it when it sees something else.
        let mut left = vec![PathBuf::new()];
        while let Some(path) = left.pop() {
            let mut below = self.directory(&path)?;
            below.reverse();
            left.extend(below);
        }
        Ok(())
    }

    /// A directory and the files in it; the directories in it are returned.
    fn directory(&mut self, path: &Path) -> Result<Vec<PathBuf>, WriteError> {
        let read = || {
            let open = tree::directory(self.top, path, self.mounts)?;
            Ok((tree::names(open.as_fd())?, Node::open(open.as_fd(), OsStr::new("."))?, open))
        };
        let (names, node, open) = match read() {
            Err(error) if vanished(&error) && !path.as_os_str().is_empty() => {
                self.writer.warn(format!("{path:?} vanished while the root was read"));
                return Ok(Vec::new());
            }
            Err(source) => return Err(WriteError::Read { path: path.to_owned(), source }),
            Ok(read) => read,
        };
        let failed = |source| WriteError::Read { path: path.to_owned(), source };
        let member = self.member(path, &node, What::Directory).map_err(failed)?;
        self.writer.take(member, None)?;
        let mut below = Vec::new();
        for name in names {
            let path = path.join(&name);
            if path.as_os_str().len() > PATH_MAX {
                self.writer.warn(format!("{}… was left out: its path is longer than any", start(&path)));
                continue;
            }
            match self.entry(open.as_fd(), &name, &path) {
                Ok(true) => below.push(path),
                Ok(false) => {}
                Err(WriteError::Read { source, .. }) if vanished(&source) => {
                    self.writer.warn(format!("{path:?} vanished while the root was read"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(below)
    }

    /// One file, unless it is a directory; whether it is one.
    pub(crate) fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<bool, WriteError> {
        let failed = |source| WriteError::Read { path: path.to_owned(), source };
        let node = Node::open(directory, name).map_err(failed)?;
        if node.kind() == libc::S_IFDIR {
            return Ok(true);
        }
        // Sockets mean nothing without the process that listens.
        if node.kind() == libc::S_IFSOCK {
            return Ok(false);
        }
        // The field types differ between libcs.
        #[allow(clippy::unnecessary_cast)]
        let inode = (node.stat.st_dev as u64, node.stat.st_ino as u64);
        let several = node.stat.st_nlink > 1;
        if let Some(first) = self.links.get(&inode).filter(|_| several) {
            let member = self.member(path, &node, What::HardLink(first.clone())).map_err(failed)?;
            self.writer.take(Member { attributes: Vec::new(), ..member }, None)?;
            return Ok(false);
        }
        let (what, file) = self.what(&node).map_err(failed)?;
        let member = self.member(path, &node, what).map_err(failed)?;
        self.writer.take(member, file.as_ref())?;
        if several {
            self.links.insert(inode, path.to_owned());
        }
        Ok(false)
    }

    fn what(&self, node: &Node) -> io::Result<(What, Option<File>)> {
        let device = |block| {
            let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            let (major, minor) = (major(node.stat.st_rdev), minor(node.stat.st_rdev));
            What::Device { block, number: (number(major), number(minor)) }
        };
        Ok(match node.kind() {
            libc::S_IFREG => {
                let file = node.read()?;
                let size = u64::try_from(node.stat.st_size).unwrap_or(0);
                let parts = parts(&file, size, u64::try_from(node.stat.st_blocks).unwrap_or(0));
                (What::File { size, parts }, Some(file))
            }
            libc::S_IFLNK => (What::Symlink(node.target()?), None),
            libc::S_IFIFO => (What::Fifo, None),
            libc::S_IFBLK => (device(true), None),
            _ => (device(false), None),
        })
    }

    fn member(&mut self, path: &Path, node: &Node, what: What) -> io::Result<Member> {
        let mut attributes = Vec::new();
        for (name, value) in node.xattrs()? {
            let name = name.into_bytes();
            if OF_THE_HOST.contains(&name.as_slice()) {
                continue;
            }
            // The key of a record ends at the first one.
            if name.contains(&b'=') {
                self.writer.warn(format!("{path:?} has an attribute whose name has =, which was left out"));
                continue;
            }
            let value = self.shift.attribute_inside(&name, value);
            attributes.push((name, value));
        }
        let stat = &node.stat;
        // The field types differ between libcs.
        #[allow(clippy::unnecessary_cast)]
        let changed = (stat.st_mtime as i64, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        Ok(Member {
            path: path.to_owned(),
            what,
            mode: stat.st_mode & 0o7777,
            uid: self.shift.inside(stat.st_uid),
            gid: self.shift.inside(stat.st_gid),
            changed,
            attributes,
        })
    }
}

fn vanished(error: &io::Error) -> bool {
    // ENOTDIR, ELOOP, EINVAL: something else stands there now.
    let other = [libc::ENOTDIR, libc::ELOOP, libc::ESTALE];
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error().is_some_and(|errno| other.contains(&errno))
}

fn start(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes().get(..60).unwrap_or_default()).into_owned()
}

/// Where a file has data, when it has fewer blocks than its length needs.
fn parts(file: &File, size: u64, blocks: u64) -> Option<Vec<(u64, u64)>> {
    if blocks.saturating_mul(512) >= size {
        return None;
    }
    let seek = |at: u64, whence| {
        let found = lseek(file, i64::try_from(at).ok()?, whence);
        Some(found.map(|at| u64::try_from(at).unwrap_or(0)))
    };
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < size {
        let data = match seek(at, Whence::SeekData)? {
            Ok(data) => data,
            // No data behind here.
            Err(nix::errno::Errno::ENXIO) => break,
            Err(_) => return None,
        };
        let hole = seek(data, Whence::SeekHole)?.ok()?.min(size);
        if data >= size || hole <= data {
            break;
        }
        parts.push((data, hole - data));
        if parts.len() > PARTS_MAX {
            return None;
        }
        at = hole;
    }
    Some(parts)
}
