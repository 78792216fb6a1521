//! Partition tables: GPT and MBR. The image may be anybody's, so nothing in it is believed before it is compared with
//! the image's size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    /// Its number, from 1 on.
    pub(super) number: u32,
    /// Where it begins, in bytes.
    pub(super) offset: u64,
    /// How long it is, in bytes.
    pub(super) size: u64,
    /// What it is for.
    pub(super) kind: Kind,
    /// Whether its flags say that it must not be written to.
    pub(super) read_only: bool,
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The type of a GPT entry, as the bytes of the uuid are written.
    Gpt([u8; 16]),
    /// The type of an MBR entry, and whether it is the bootable one.
    Mbr(u8, bool),
}

/// Flags of discoverable partitions (Discoverable Partitions Specification).
const NO_AUTO: u64 = 1 << 63;
const READ_ONLY: u64 = 1 << 60;
/// The most entries that are looked at, and the sizes they may have.
const MAX_ENTRIES: u32 = 1024;

/// The partitions of an image of `size` bytes that are meant to be found; `None` when it has no table.
pub(super) fn read(file: &File, size: u64) -> io::Result<Option<Vec<Partition>>> {
    for sector in [512, 4096] {
        let mut header = [0; 92];
        if read_at(file, &mut header, sector)? && header.starts_with(b"EFI PART") {
            return gpt(file, size, sector, &header).map(Some);
        }
    }
    let mut mbr = [0; 512];
    if !read_at(file, &mut mbr, 0)? || !mbr.ends_with(&[0x55, 0xaa]) {
        return Ok(None);
    }
    Ok(Some(self::mbr(&mbr, size)))
}

/// Whether there was enough to read.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn gpt(file: &File, size: u64, sector: u64, header: &[u8]) -> io::Result<Vec<Partition>> {
    let (first, count, length) = (u64_at(header, 72), u32_at(header, 80), u32_at(header, 84));
    if !(128..=4096).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the entries of its GPT have a wrong size"));
    }
    let mut partitions = Vec::new();
    for index in 0..count.min(MAX_ENTRIES) {
        let at = first
            .checked_mul(sector)
            .and_then(|start| start.checked_add(u64::from(index) * u64::from(length)));
        let mut entry = [0; 128];
        if !at.map_or(Ok(false), |at| read_at(file, &mut entry, at))? {
            break;
        }
        let (begin, end, flags) = (u64_at(&entry, 32), u64_at(&entry, 40), u64_at(&entry, 48));
        let kind = uuid(&entry);
        let length =
            end.checked_sub(begin).and_then(|n| n.checked_add(1)).and_then(|n| n.checked_mul(sector));
        if kind == [0; 16] || flags & NO_AUTO != 0 {
            continue;
        }
        if let Some((offset, size)) = begin.checked_mul(sector).zip(length).filter(|part| fits(*part, size)) {
            let read_only = flags & READ_ONLY != 0;
            partitions.push(Partition { number: index + 1, offset, size, kind: Kind::Gpt(kind), read_only });
        }
    }
    Ok(partitions)
}

/// The four primary partitions; extended ones are none that a container could be on.
fn mbr(table: &[u8; 512], size: u64) -> Vec<Partition> {
    let entry = |number: u32| {
        let at = 446 + 16 * (number as usize - 1);
        let entry = table.get(at..at + 16)?;
        let bootable = *entry.first()? == 0x80;
        let kind = Kind::Mbr(*entry.get(4)?, bootable);
        let (offset, length) = (u64::from(u32_at(entry, 8)) * 512, u64::from(u32_at(entry, 12)) * 512);
        fits((offset, length), size).then_some(Partition {
            number,
            offset,
            size: length,
            kind,
            read_only: false,
        })
    };
    (1..=4).filter_map(entry).collect()
}

fn fits((offset, length): (u64, u64), size: u64) -> bool {
    offset > 0 && length > 0 && offset.checked_add(length).is_some_and(|end| end <= size)
}

/// The type of an entry; its first three fields are little-endian there.
fn uuid(entry: &[u8; 128]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = entry;
    let mut uuid = [*d, *c, *b, *a, *f, *e, *h, *g, 0, 0, 0, 0, 0, 0, 0, 0];
    uuid.iter_mut().skip(8).zip(rest).for_each(|(to, from)| *to = *from);
    uuid
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_table_leads_beyond_the_image(mut bytes in proptest::collection::vec(any::<u8>(), 2048..4096)) {
            let size = bytes.len() as u64;
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            let check = |bytes: &[u8]| {
                let file = tempfile::tempfile().unwrap();
                file.write_all_at(bytes, 0).unwrap();
                for partition in read(&file, size).into_iter().flatten().flatten() {
                    assert!(partition.offset + partition.size <= size, "{partition:?}");
                }
            };
            check(&bytes);
            bytes[512..520].copy_from_slice(b"EFI PART");
            bytes[584..592].copy_from_slice(&2u64.to_le_bytes());
            bytes[596..600].copy_from_slice(&128u32.to_le_bytes());
            check(&bytes);
        }
    }
}
