//! A file as the archive has it: the headers of tar, and the records of pax (POSIX.1-2001) for what they have no room
//! for. Pure: no file is touched here.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use tar::{EntryType, Header};

/// Where the root directory is in the archive.
const ROOT: &[u8] = b"root";
/// Room for a name in a header.
const NAME: usize = 100;
/// Longest path below the root, in bytes: the kernel takes none that is longer (PATH_MAX, with the NUL).
pub const PATH_MAX: usize = 4095;
/// Most parts with data that a file with holes is described by; one with more is written as if it had none.
pub const PARTS_MAX: usize = 1 << 18;
/// Largest number in a header's field for the time, 11 octal digits.
const TIME_MAX: i64 = 0o777_7777_7777;
/// What begins the key of an extended attribute, as star, GNU tar and bsdtar write it.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A file below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path; empty for the root itself.
    pub path: PathBuf,
    /// What it is.
    pub what: What,
    /// Permissions, with set-id bits.
    pub mode: u32,
    /// User, as the container counts.
    pub uid: u32,
    /// Group, likewise.
    pub gid: u32,
    /// When it was changed: seconds since 1970, and nanoseconds.
    pub changed: (i64, u32),
    /// Extended attributes.
    pub attributes: Vec<Pair>,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Where there is data, as offset and length; `None` when it has no holes.
        parts: Option<Vec<(u64, u64)>>,
    },
    /// A symlink, and where it leads.
    Symlink(OsString),
    /// Another name of a file that came before, by its path below the root.
    HardLink(PathBuf),
    /// A FIFO.
    Fifo,
    /// A device node.
    Device {
        /// Whether it is a block device.
        block: bool,
        /// Its numbers.
        number: (u32, u32),
    },
}

impl Member {
    /// How many bytes of data follow.
    #[must_use]
    pub fn data(&self) -> u64 {
        match &self.what {
            What::File { size, parts: None } => *size,
            What::File { parts: Some(parts), .. } => parts.iter().map(|(_, length)| length).sum(),
            _ => 0,
        }
    }

    /// The pax records, the header, and what stands before the data.
    #[must_use]
    pub fn encode(&self) -> (Vec<Pair>, Header, Vec<u8>) {
        let mut header = Header::new_ustar();
        let mut records = Vec::new();
        let mut map = Vec::new();
        let mut name = self.name();
        match &self.what {
            What::Directory => name.push(b'/'),
            What::File { size, parts: Some(parts) } => {
                let record = |key: &str, value: String| (key.into(), value.into_bytes());
                records.push(record("GNU.sparse.major", "1".to_owned()));
                records.push(record("GNU.sparse.minor", "0".to_owned()));
                records.push((b"GNU.sparse.name".to_vec(), name.clone()));
                records.push(record("GNU.sparse.realsize", size.to_string()));
                name = b"GNUSparseFile.0".to_vec();
                map = sparse_map(*size, parts);
            }
            _ => {}
        }
        put(&mut header, &mut records, "path", &name);
        header.set_entry_type(self.entry_type());
        header.set_size(self.data() + map.len() as u64);
        header.set_mode(self.mode & 0o7777);
        header.set_uid(self.uid.into());
        header.set_gid(self.gid.into());
        let (seconds, nanoseconds) = self.changed;
        header.set_mtime(seconds.clamp(0, TIME_MAX).unsigned_abs());
        if nanoseconds != 0 || !(0..=TIME_MAX).contains(&seconds) {
            records.push((b"mtime".to_vec(), time(seconds, nanoseconds).into_bytes()));
        }
        match &self.what {
            What::Symlink(target) => put(&mut header, &mut records, "linkpath", target.as_bytes()),
            What::HardLink(to) => put(&mut header, &mut records, "linkpath", &below_root(to)),
            What::Device { number: (major, minor), .. } => {
                if let Some(ustar) = header.as_ustar_mut() {
                    ustar.set_device_major(*major);
                    ustar.set_device_minor(*minor);
                }
            }
            _ => {}
        }
        let attribute = |(name, value): &Pair| ([ATTRIBUTE, name].concat(), value.clone());
        records.extend(self.attributes.iter().map(attribute));
        header.set_cksum();
        (records, header, map)
    }

    fn name(&self) -> Vec<u8> {
        below_root(&self.path)
    }

    fn entry_type(&self) -> EntryType {
        match &self.what {
            What::Directory => EntryType::Directory,
            What::File { .. } => EntryType::Regular,
            What::Symlink(_) => EntryType::Symlink,
            What::HardLink(_) => EntryType::Link,
            What::Fifo => EntryType::Fifo,
            What::Device { block: true, .. } => EntryType::Block,
            What::Device { block: false, .. } => EntryType::Char,
        }
    }

    /// Reads a member of the root from its header and records; the parts of a file with holes are still in `data`, which
    /// has `size` bytes.
    ///
    /// # Errors
    /// What is wrong with it, and the errors of `data`.
    pub fn decode(
        header: &Header,
        records: &Records,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<Member, MemberError> {
        let sparse = match records.get(b"GNU.sparse.major").zip(records.get(b"GNU.sparse.realsize")) {
            Some((b"1", size)) => Some(decimal(size)?),
            None if records.keys().all(|key| !key.starts_with(b"GNU.sparse.")) => None,
            _ => return Err(MemberError::Wrong("its holes are described in a way that is not known")),
        };
        let name = match records.get(b"GNU.sparse.name").filter(|_| sparse.is_some()) {
            Some(name) => name.to_vec(),
            None => name_of(header, records),
        };
        let (name, slash) = name.strip_suffix(b"/").map_or((&name[..], false), |name| (name, true));
        let path = path_below(name)?;
        let link = || match records.get(b"linkpath") {
            Some(path) => path.to_vec(),
            None => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        let what = match (header.entry_type(), sparse) {
            (EntryType::Regular, None) if !slash => What::File { size, parts: None },
            (EntryType::Regular, Some(whole)) if !slash => {
                What::File { size: whole, parts: Some(read_map(whole, size, data)?) }
            }
            (_, Some(_)) => return Err(MemberError::Wrong("it has holes and is no file")),
            (EntryType::Directory, _) => What::Directory,
            (_, _) if slash => return Err(MemberError::Wrong("it is named like a directory and is none")),
            (_, _) if path.as_os_str().is_empty() => {
                return Err(MemberError::Wrong("the root is no directory"));
            }
            (EntryType::Symlink, _) => What::Symlink(OsString::from_vec(symlink(link())?)),
            (EntryType::Link, _) => What::HardLink(path_below(&link())?),
            (EntryType::Fifo, _) => What::Fifo,
            (kind @ (EntryType::Block | EntryType::Char), _) => {
                let number = (header.device_major()?, header.device_minor()?);
                let number = (number.0.unwrap_or_default(), number.1.unwrap_or_default());
                What::Device { block: kind == EntryType::Block, number }
            }
            _ => return Err(MemberError::Wrong("it is of a type that nixrun does not write")),
        };
        if size != 0 && !matches!(what, What::File { .. }) {
            return Err(MemberError::Wrong("it has data and is no file"));
        }
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let (Some(uid), Some(gid)) = (id(header.uid()?), id(header.gid()?)) else {
            return Err(MemberError::Wrong("its owner is no user or its group no group"));
        };
        let changed = match records.get(b"mtime") {
            Some(text) => parse_time(text).ok_or(MemberError::Wrong("its time is none"))?,
            None => (i64::try_from(header.mtime()?).unwrap_or(0), 0),
        };
        let attributes = records.attributes()?;
        Ok(Member { path, what, mode: header.mode()? & 0o7777, uid, gid, changed, attributes })
    }
}

/// Why a member cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// It cannot be read, or a number in its header is none.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no member of such an archive.
    #[error("{0}")]
    Wrong(&'static str),
}

/// The name of any member, without a slash behind it.
#[must_use]
pub fn name_of(header: &Header, records: &Records) -> Vec<u8> {
    records.get(b"path").map_or_else(|| header.path_bytes().into_owned(), <[u8]>::to_vec)
}

fn below_root(path: &Path) -> Vec<u8> {
    if path.as_os_str().is_empty() {
        return ROOT.to_vec();
    }
    [ROOT, b"/", path.as_os_str().as_bytes()].concat()
}

/// The path below the root that a name in the archive stands for, if it can lead nowhere else.
fn path_below(name: &[u8]) -> Result<PathBuf, MemberError> {
    let below = match name.strip_prefix(ROOT) {
        Some(b"") => return Ok(PathBuf::new()),
        Some(below) => below.strip_prefix(b"/"),
        None => None,
    };
    let below = below.ok_or(MemberError::Wrong("it is not below root/"))?;
    if below.contains(&0) || below.len() > PATH_MAX {
        return Err(MemberError::Wrong("its name has a zero byte or is longer than any path"));
    }
    let path = Path::new(OsStr::from_bytes(below));
    let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    // Written as it is read: no empty or superfluous parts, by which one file would have two names.
    let same = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
    if below.is_empty() || !plain || !same {
        return Err(MemberError::Wrong("its name has .. or other parts that are no names"));
    }
    Ok(path.to_path_buf())
}

fn symlink(target: Vec<u8>) -> Result<Vec<u8>, MemberError> {
    if target.is_empty() || target.contains(&0) || target.len() > PATH_MAX {
        return Err(MemberError::Wrong("it leads to what is no path"));
    }
    Ok(target)
}

fn put(header: &mut Header, records: &mut Vec<Pair>, key: &str, value: &[u8]) {
    if value.len() > NAME {
        records.push((key.into(), value.to_vec()));
    }
    let Some(ustar) = header.as_ustar_mut() else { return };
    let field = if key == "path" { &mut ustar.name } else { &mut ustar.linkname };
    field.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
}

fn sparse_map(size: u64, parts: &[(u64, u64)]) -> Vec<u8> {
    // As GNU tar has it: where the file ends in a hole, an empty part says where that is.
    let end = parts.last().is_none_or(|(offset, length)| offset + length < size).then_some((size, 0));
    let all: Vec<_> = parts.iter().copied().chain(end).collect();
    let mut text = format!("{}\n", all.len());
    all.iter().for_each(|(offset, length)| text += &format!("{offset}\n{length}\n"));
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

fn read_map(whole: u64, size: u64, data: &mut dyn Read) -> Result<Vec<(u64, u64)>, MemberError> {
    let wrong = || MemberError::Wrong("its holes make no sense");
    let mut block = [0; 512];
    let (mut at, mut read) = (512, 0);
    let mut number = || -> Result<u64, MemberError> {
        let mut digits = Vec::new();
        loop {
            if at == block.len() {
                data.read_exact(&mut block)?;
                (at, read) = (0, read + 512);
            }
            let byte = *block.get(at).ok_or_else(wrong)?;
            at += 1;
            match byte {
                b'\n' => return decimal(&digits),
                _ if digits.len() == 20 => return Err(wrong()),
                _ => digits.push(byte),
            }
        }
    };
    let count = usize::try_from(number()?).ok().filter(|count| *count <= PARTS_MAX + 1).ok_or_else(wrong)?;
    let (mut parts, mut end, mut sum) = (Vec::new(), 0, 0_u64);
    for _ in 0..count {
        let (offset, length) = (number()?, number()?);
        let after = offset.checked_add(length).filter(|after| *after <= whole).ok_or_else(wrong)?;
        if offset < end {
            return Err(wrong());
        }
        (end, sum) = (after, sum + length);
        if length > 0 {
            parts.push((offset, length));
        }
    }
    if size.checked_sub(read) != Some(sum) {
        return Err(wrong());
    }
    Ok(parts)
}

fn decimal(digits: &[u8]) -> Result<u64, MemberError> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or(MemberError::Wrong("a number in it is none"))
}

/// Seconds with nine decimals; what is before 1970 counts backwards.
fn time(seconds: i64, nanoseconds: u32) -> String {
    match (seconds, nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds, nanoseconds) if seconds >= 0 => format!("{seconds}.{nanoseconds:09}"),
        (seconds, nanoseconds) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
    }
}

fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    let seconds = whole.parse::<i64>().ok()?.checked_mul(sign)?;
    let nanoseconds = format!("{part:0<9}").get(..9)?.parse::<u32>().ok()?;
    match (sign, nanoseconds) {
        (-1, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

/// The records of a pax header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records(Vec<Pair>);

impl Records {
    /// Reads `LENGTH KEY=VALUE\n` again and again; values may hold anything.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(mut data: &[u8]) -> Result<Records, MemberError> {
        let wrong = || MemberError::Wrong("its pax header is broken");
        let mut records: Vec<Pair> = Vec::new();
        while !data.is_empty() {
            let blank = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let length = decimal(data.get(..blank).unwrap_or_default())?;
            let length = usize::try_from(length).map_err(|_| wrong())?;
            let record = data.get(blank + 1..length).ok_or_else(wrong)?;
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
            let (key, value) = record.split_at_checked(equals).ok_or_else(wrong)?;
            if records.iter().any(|(known, _)| known == key) {
                return Err(MemberError::Wrong("its pax header says something twice"));
            }
            records.push((key.to_vec(), value.get(1..).unwrap_or_default().to_vec()));
            data = data.get(length..).unwrap_or_default();
        }
        // Of two places for a number, programs take this one or that.
        let twice: [&[u8]; 3] = [b"size", b"uid", b"gid"];
        if records.iter().any(|(key, _)| twice.contains(&key.as_slice())) {
            return Err(MemberError::Wrong("its pax header says what its header says"));
        }
        Ok(Records(records))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_slice())
    }

    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(key, _)| key.as_slice())
    }

    fn attributes(&self) -> Result<Vec<Pair>, MemberError> {
        let mut found = Vec::new();
        for (key, value) in &self.0 {
            let Some(name) = key.strip_prefix(ATTRIBUTE) else { continue };
            if name.is_empty() || name.contains(&0) {
                return Err(MemberError::Wrong("it has an extended attribute without a name"));
            }
            found.push((name.to_vec(), value.clone()));
        }
        Ok(found)
    }

    /// The records as they stand in the archive.
    #[must_use]
    pub fn encode(records: &[Pair]) -> Vec<u8> {
        let mut data = Vec::new();
        for (key, value) in records {
            // With its own digits: they are one more when they carry.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + rest.to_string().len();
            length = rest + length.to_string().len();
            data.extend_from_slice(format!("{length} ").as_bytes());
            data.extend_from_slice(key);
            data.push(b'=');
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        data
    }
}

#[cfg(test)]
mod tests;
