//! One journal file: its header, its entries by number.

use std::fs::File;
use std::io;

use super::data::Data;
use super::entry::{Entry, Head};
use super::pages::Pages;

/// Size of the oldest header that has all that is read here, in bytes.
const HEADER: usize = 208;
/// Size of an object's header, in bytes.
pub(super) const OBJECT: u64 = 16;
/// Types of objects.
pub(super) const DATA: u8 = 1;
const ENTRY: u8 = 3;
const ENTRY_ARRAY: u8 = 6;
/// Incompatible flags: three ways to compress data (xz, lz4, zstd), another hash, which only a search by value needs, and
/// a layout with offsets of four bytes.
const KNOWN: u32 = 0b1_1111;
const COMPACT: u32 = 1 << 4;
/// Most arrays of entries in a chain. Each is longer than the one before it: journald's files have some thirty.
const MOST_ARRAYS: usize = 4096;
/// Most fields of an entry, as journald has it.
const MOST_FIELDS: u64 = 1024;

/// Why a file, or a part of it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The kernel's error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no journal file.
    #[error("it is no journal file")]
    Foreign,
    /// It is of a newer format.
    #[error("it uses features of a newer systemd (incompatible flags {0:#x})")]
    Newer(u32),
    /// What stands there cannot stand there.
    #[error("it is damaged at offset {offset}: {what}")]
    Damaged {
        /// Where, in bytes.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// An array of the offsets of entries.
#[derive(Debug, Clone, Copy)]
struct Array {
    offset: u64,
    /// Number of its first entry in the file.
    first: u64,
    /// Entries that it has room for.
    room: u64,
}

/// A journal file that is open.
#[derive(Debug)]
pub struct JournalFile {
    pages: Pages,
    id: [u8; 16],
    seqnum_id: [u8; 16],
    compact: bool,
    header_size: u64,
    arrays: Vec<Array>,
    entries: u64,
    data: Data,
}

impl JournalFile {
    /// Reads the header of an open file.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn open(file: File) -> Result<JournalFile, Fault> {
        let mut journal = JournalFile {
            pages: Pages::new(file)?,
            id: [0; 16],
            seqnum_id: [0; 16],
            compact: false,
            header_size: 0,
            arrays: Vec::new(),
            entries: 0,
            data: Data::default(),
        };
        journal.read_header()?;
        Ok(journal)
    }

    /// What tells it from every other file, whatever it is renamed to.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// How many entries it has.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Looks for what was written since.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn refresh(&mut self) -> Result<(), Fault> {
        self.pages.refresh()?;
        self.read_header()
    }

    fn read_header(&mut self) -> Result<(), Fault> {
        let mut header = [0; HEADER];
        match self.pages.read(0, &mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Fault::Foreign),
            result => result?,
        }
        if &header[..8] != b"LPKSHHRH" {
            return Err(Fault::Foreign);
        }
        let flags = le32(&header, 12);
        if flags & !KNOWN != 0 {
            return Err(Fault::Newer(flags));
        }
        let id = bytes16(&header, 24);
        if self.header_size != 0 && id != self.id {
            return Err(Fault::Damaged { offset: 24, what: "another file has been written over it" });
        }
        (self.id, self.seqnum_id, self.compact) = (id, bytes16(&header, 72), flags & COMPACT != 0);
        self.header_size = le64(&header, 88).max(HEADER as u64);
        self.follow_arrays(le64(&header, 176))?;
        let room = self.arrays.last().map_or(0, |last| last.first.saturating_add(last.room));
        self.entries = self.used(le64(&header, 152).min(room))?;
        Ok(())
    }

    /// The chain of arrays from its last known one on.
    fn follow_arrays(&mut self, first: u64) -> Result<(), Fault> {
        let mut next = match self.arrays.last() {
            Some(last) => self.next_array(last.offset)?,
            None => first,
        };
        while next != 0 {
            let last = self.arrays.last().copied();
            // Onwards only, so that the chain ends.
            if last.is_some_and(|last| next <= last.offset) || self.arrays.len() >= MOST_ARRAYS {
                return Err(Fault::Damaged { offset: next, what: "the arrays of entries lead in a circle" });
            }
            let size = self.object(next, ENTRY_ARRAY)?;
            let room = size.saturating_sub(OBJECT + 8) / self.item();
            let first = last.map_or(0, |last| last.first.saturating_add(last.room));
            self.arrays.push(Array { offset: next, first, room });
            next = self.next_array(next)?;
        }
        Ok(())
    }

    fn next_array(&mut self, offset: u64) -> Result<u64, Fault> {
        self.le64(offset + OBJECT)
    }

    /// Bytes of an offset in an array, or of a field in an entry of the compact layout.
    fn item(&self) -> u64 {
        if self.compact { 4 } else { 8 }
    }

    /// How many of the first `entries` places are in use: those that are not yet hold zero.
    pub(super) fn used(&mut self, entries: u64) -> Result<u64, Fault> {
        let (mut low, mut high) = (0, entries);
        if high == 0 || self.offset(high - 1)? != 0 {
            return Ok(high);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.offset(middle)? == 0 { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }

    /// Whether there is nothing yet in the place with this number.
    pub(super) fn is_unused(&mut self, number: u64) -> bool {
        self.offset(number).is_ok_and(|offset| offset == 0)
    }

    /// Where the entry with this number is.
    fn offset(&mut self, number: u64) -> Result<u64, Fault> {
        let index = self.arrays.partition_point(|array| array.first <= number);
        let array = index.checked_sub(1).and_then(|index| self.arrays.get(index)).copied();
        let Some(array) = array.filter(|array| number - array.first < array.room) else {
            return Err(Fault::Damaged { offset: 0, what: "there is no such entry" });
        };
        let at = array.offset + OBJECT + 8 + (number - array.first) * self.item();
        if self.compact { self.le32(at).map(u64::from) } else { self.le64(at) }
    }

    /// When, and as what, the entry with this number was written.
    ///
    /// # Errors
    /// [`Fault`]; the entries around it may be whole.
    pub(super) fn head(&mut self, number: u64) -> Result<Head, Fault> {
        let offset = self.offset(number)?;
        let size = self.object(offset, ENTRY)?;
        let mut fixed = [0; 64];
        if size < 64 {
            return Err(Fault::Damaged { offset, what: "an entry is too short" });
        }
        self.pages.read(offset, &mut fixed)?;
        let item = if self.compact { 4 } else { 16 };
        Ok(Head {
            seqnum_id: self.seqnum_id,
            seqnum: le64(&fixed, 16),
            realtime: le64(&fixed, 24),
            monotonic: le64(&fixed, 32),
            boot_id: bytes16(&fixed, 40),
            hash: le64(&fixed, 56),
            offset,
            fields: ((size - 64) / item).min(MOST_FIELDS),
        })
    }

    /// The fields of an entry. One that cannot be read is left out.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn entry(&mut self, head: Head) -> Result<Entry, Fault> {
        let mut fields = Vec::new();
        let mut room = super::data::MOST_OF_AN_ENTRY;
        for index in 0..head.fields {
            let offset = match self.compact {
                true => u64::from(self.le32(head.offset + 64 + index * 4)?),
                false => self.le64(head.offset + 64 + index * 16)?,
            };
            let Ok(field) = self.field(offset, room) else { continue };
            room = room.saturating_sub(field.len());
            fields.push(field);
        }
        Ok(Entry { head, fields })
    }

    fn field(&mut self, offset: u64, room: usize) -> Result<std::sync::Arc<[u8]>, Fault> {
        if let Some(known) = self.data.known(offset) {
            return Ok(known);
        }
        let size = self.object(offset, DATA)?;
        let mut header = [0; 2];
        self.pages.read(offset, &mut header)?;
        let payload = if self.compact { 72 } else { 64 };
        let length = size.checked_sub(payload).ok_or(Fault::Damaged { offset, what: "data is too short" })?;
        let mut bytes = vec![0; length.min(room as u64) as usize];
        self.pages.read(offset + payload, &mut bytes)?;
        self.data.unpack(offset, header[1], bytes, length, room)
    }

    /// Checks that an object of this type is there as a whole; its size in bytes.
    fn object(&mut self, offset: u64, kind: u8) -> Result<u64, Fault> {
        let damaged = |what| Err(Fault::Damaged { offset, what });
        if offset < self.header_size || !offset.is_multiple_of(8) {
            return damaged("no object can begin there");
        }
        let mut header = [0; OBJECT as usize];
        if offset.checked_add(OBJECT).is_none_or(|end| end > self.pages.len()) {
            return damaged("it leads out of the file");
        }
        self.pages.read(offset, &mut header)?;
        let size = le64(&header, 8);
        if header[0] != kind {
            return damaged("an object of another type is there");
        }
        if size < OBJECT || offset.checked_add(size).is_none_or(|end| end > self.pages.len()) {
            return damaged("an object leads out of the file");
        }
        Ok(size)
    }

    fn le64(&mut self, offset: u64) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        self.pages.read(offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn le32(&mut self, offset: u64) -> Result<u32, Fault> {
        let mut bytes = [0; 4];
        self.pages.read(offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|found| found.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|found| found.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn bytes16(bytes: &[u8], at: usize) -> [u8; 16] {
    bytes.get(at..at + 16).and_then(|found| found.try_into().ok()).unwrap_or_default()
}
