//! An archive from its beginning to its end, whatever somebody has made of it: a member at a time, each checked before it
//! is handed on.

use std::io::{self, Read};
use std::path::PathBuf;

use super::manifest::{Manifest, ManifestError};
use super::member::{Member, MemberError, Records, name_of};
use super::{END, Ending, MANIFEST, Totals};

/// Longest pax header, in bytes: a path and some extended attributes, which have 64 KiB each at most.
const RECORDS_MAX: u64 = 4 << 20;
/// Longest manifest, in bytes.
const MANIFEST_MAX: u64 = 4 << 20;

/// What becomes of the members.
pub trait Sink {
    /// The manifest, before anything else.
    ///
    /// # Errors
    /// Why nothing is to be done with it.
    fn manifest(&mut self, manifest: Manifest) -> io::Result<()>;

    /// A file of the root, with its data.
    ///
    /// # Errors
    /// Why it cannot be made, and those of `data`.
    fn member(&mut self, member: Member, data: &mut dyn Read) -> io::Result<()>;
}

/// Why an archive could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It cannot be read, or it is broken.
    #[error("{0}")]
    Stream(#[from] io::Error),
    /// It is no archive of a container.
    #[error("it is no archive that `nixrun export` wrote: {0}")]
    Foreign(String),
    /// What it says about the container.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A member cannot be used.
    #[error("{path:?} in it cannot be used: {source}")]
    Member {
        /// Its name in the archive.
        path: PathBuf,
        /// Why.
        source: MemberError,
    },
    /// The sink did not take the manifest.
    #[error("{0}")]
    Refused(io::Error),
    /// The sink did not take a member.
    #[error("{path:?}: {source}")]
    Make {
        /// Its path below the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads an archive that is not compressed any more.
///
/// # Errors
/// [`ReadError`], also where it ends too early.
pub fn read(stream: impl Read, sink: &mut impl Sink) -> Result<Totals, ReadError> {
    let mut archive = tar::Archive::new(stream);
    let mut reading = Reading { totals: Totals::default(), expect_root: None, ended: false };
    let mut records = None;
    // Raw: extended headers are read here, where their length is looked at first.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry.map_err(|error| reading.broken(error))?;
        if entry.header().entry_type() == tar::EntryType::XHeader && records.is_none() {
            records = Some(pax(&mut entry)?);
            continue;
        }
        let header = entry.header().clone();
        let size = header.entry_size().map_err(|error| reading.broken(error))?;
        reading.member(&header, &records.take().unwrap_or_default(), size, &mut entry, sink)?;
    }
    if !reading.ended {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off").into());
    }
    // To the end, where the checksum of the last data is.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(reading.totals)
}

/// An error of the crate, which quotes names as they are: no control character of theirs goes to a terminal.
fn clean(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => error,
        None => io::Error::new(error.kind(), error.to_string().replace(char::is_control, "?")),
    }
}

fn pax(entry: &mut impl Read) -> Result<Records, ReadError> {
    let mut data = Vec::new();
    let wrong = |source| ReadError::Member { path: PathBuf::from("pax header"), source };
    entry.take(RECORDS_MAX + 1).read_to_end(&mut data)?;
    if data.len() as u64 > RECORDS_MAX {
        return Err(wrong(MemberError::Wrong("it is longer than anything that belongs there")));
    }
    Records::parse(&data).map_err(wrong)
}

struct Reading {
    totals: Totals,
    /// Whether there is to be a root; `None` before the manifest.
    expect_root: Option<bool>,
    ended: bool,
}

impl Reading {
    /// What is no archive at all is called that.
    fn broken(&self, error: io::Error) -> ReadError {
        match (self.expect_root, error.kind()) {
            (None, io::ErrorKind::Other) => ReadError::Foreign(clean(error).to_string()),
            _ => clean(error).into(),
        }
    }

    fn member(
        &mut self,
        header: &tar::Header,
        records: &Records,
        size: u64,
        data: &mut impl Read,
        sink: &mut impl Sink,
    ) -> Result<(), ReadError> {
        let name = name_of(header, records);
        let wrong = |what| {
            use std::os::unix::ffi::OsStrExt;
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&name));
            ReadError::Member { path, source: MemberError::Wrong(what) }
        };
        if self.ended {
            return Err(wrong("it comes after the end"));
        }
        let Some(root) = self.expect_root else {
            if name != MANIFEST.as_bytes() {
                return Err(ReadError::Foreign(format!("it does not begin with {MANIFEST}")));
            }
            let manifest = Manifest::parse(&text(data, MANIFEST_MAX)?)?;
            self.expect_root = Some(manifest.root);
            return sink.manifest(manifest).map_err(ReadError::Refused);
        };
        if name == END.as_bytes() {
            let end: Ending = serde_json::from_slice(&text(data, 4096)?)
                .map_err(|_| wrong("it does not say what was written"))?;
            if (end.files, end.bytes) != (self.totals.files, self.totals.bytes) {
                return Err(wrong("it counts other files than there are"));
            }
            if root && self.totals.files == 0 {
                return Err(wrong("it comes without a root"));
            }
            self.ended = true;
            return Ok(());
        }
        let member = Member::decode(header, records, size, data).map_err(|source| match source {
            MemberError::Io(error) => ReadError::Stream(clean(error)),
            MemberError::Wrong(what) => wrong(what),
        })?;
        if (self.totals.files == 0) != member.path.as_os_str().is_empty() || !root {
            return Err(wrong("the root is not the first, or is there twice"));
        }
        self.totals.files += 1;
        self.totals.bytes = self.totals.bytes.saturating_add(member.data());
        let path = member.path.clone();
        sink.member(member, data).map_err(|source| ReadError::Make { path, source })
    }
}

fn text(data: &mut impl Read, most: u64) -> Result<Vec<u8>, ReadError> {
    let mut text = Vec::new();
    data.take(most + 1).read_to_end(&mut text)?;
    if text.len() as u64 > most {
        return Err(ReadError::Foreign("its manifest is longer than any".to_owned()));
    }
    Ok(text)
}
