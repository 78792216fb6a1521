//! The content of fields: unpacked, and kept where many entries share it.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use super::file::Fault;

/// How much the fields of one entry may have together, in bytes.
pub(super) const MOST_OF_AN_ENTRY: usize = 4 << 20;
/// Longest field that is kept, in bytes, and how many of those.
const LONGEST_KEPT: usize = 256;
const MOST_KEPT: usize = 1024;
/// Flags of a data object.
const XZ: u8 = 1;
const LZ4: u8 = 2;
const ZSTD: u8 = 4;

/// Fields by their offset: host name, unit and program are the same for many entries.
#[derive(Debug, Default)]
pub(super) struct Data(HashMap<u64, Arc<[u8]>>);

impl Data {
    pub(super) fn known(&self, offset: u64) -> Option<Arc<[u8]>> {
        self.0.get(&offset).cloned()
    }

    /// A field of what its object holds, `length` bytes of which `bytes` are the first.
    pub(super) fn unpack(
        &mut self,
        offset: u64,
        flags: u8,
        bytes: Vec<u8>,
        length: u64,
        room: usize,
    ) -> Result<Arc<[u8]>, Fault> {
        let damaged = |what| Fault::Damaged { offset, what };
        let packed = flags & (XZ | LZ4 | ZSTD);
        if packed != 0 && bytes.len() as u64 != length {
            return Err(damaged("packed data is too long"));
        }
        let field: Arc<[u8]> = match packed {
            0 => bytes.into(),
            LZ4 => lz4(&bytes, room).ok_or(damaged("data cannot be unpacked (lz4)"))?.into(),
            ZSTD => zstd(&bytes, room).ok_or(damaged("data cannot be unpacked (zstd)"))?.into(),
            XZ => b"MESSAGE=[packed by xz, which nixrun does not unpack]"[..].into(),
            _ => return Err(damaged("data is packed in two ways")),
        };
        if field.len() <= LONGEST_KEPT {
            if self.0.len() >= MOST_KEPT {
                self.0.clear();
            }
            self.0.insert(offset, Arc::clone(&field));
        }
        Ok(field)
    }
}

/// The size in eight bytes, then one block.
fn lz4(bytes: &[u8], room: usize) -> Option<Vec<u8>> {
    let (size, block) = bytes.split_first_chunk::<8>()?;
    let size = usize::try_from(u64::from_le_bytes(*size)).ok().filter(|size| *size <= room)?;
    lz4_flex::block::decompress(block, size).ok()
}

/// What is longer than there is room for is cut.
fn zstd(bytes: &[u8], room: usize) -> Option<Vec<u8>> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(bytes).ok()?;
    let mut unpacked = Vec::new();
    decoder.take(room as u64).read_to_end(&mut unpacked).ok()?;
    Some(unpacked)
}
