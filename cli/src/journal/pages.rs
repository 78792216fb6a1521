//! A file in pages that were read lately: an entry is some twenty small reads, most of them near each other.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Size of a page in bytes.
const PAGE: u64 = 16 << 10;
/// Most pages kept of one file.
const MOST: usize = 16;

/// A file that is read at random.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    length: u64,
    pages: HashMap<u64, Vec<u8>>,
}

impl Pages {
    pub(super) fn new(file: File) -> io::Result<Pages> {
        let length = file.metadata()?.len();
        Ok(Pages { file, length, pages: HashMap::new() })
    }

    /// How long the file is, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Looks at the file anew: its writer has gone on.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        self.pages.clear();
        self.length = self.file.metadata()?.len();
        Ok(())
    }

    /// Fills the buffer from this offset on.
    ///
    /// # Errors
    /// UnexpectedEof where the file is not that long.
    pub(super) fn read(&mut self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        if buffer.len() as u64 > PAGE {
            return self.file.read_exact_at(buffer, offset);
        }
        while !buffer.is_empty() {
            let (number, within) = (offset / PAGE, (offset % PAGE) as usize);
            let page = self.page(number)?;
            let found = page.get(within..).filter(|found| !found.is_empty());
            let found = found.ok_or(io::ErrorKind::UnexpectedEof)?;
            let length = found.len().min(buffer.len());
            let (now, rest) = buffer.split_at_mut(length);
            now.copy_from_slice(&found[..length]);
            buffer = rest;
            offset += length as u64;
        }
        Ok(())
    }

    fn page(&mut self, number: u64) -> io::Result<&[u8]> {
        if !self.pages.contains_key(&number) {
            if self.pages.len() >= MOST {
                self.pages.clear();
            }
            let mut page = vec![0; PAGE as usize];
            let mut filled = 0;
            while filled < page.len() {
                match self.file.read_at(&mut page[filled..], number * PAGE + filled as u64) {
                    Ok(0) => break,
                    Ok(length) => filled += length,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            page.truncate(filled);
            self.pages.insert(number, page);
        }
        Ok(self.pages.get(&number).map_or(&[], Vec::as_slice))
    }
}
