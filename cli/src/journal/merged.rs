//! All files of a journal as one list, by time.

use super::entry::{Entry, Head};
use super::file::JournalFile;

/// A file and the number of its next entry.
#[derive(Debug)]
struct Reader {
    file: JournalFile,
    next: u64,
}

/// The files of a journal. What is damaged in one of them is passed over.
#[derive(Debug, Default)]
pub struct Journal {
    readers: Vec<Reader>,
    last: Option<Head>,
}

impl Journal {
    /// Whether it has a file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// Adds a file, unless it is there. Once entries have been read, only the later ones of a new file follow.
    pub fn add(&mut self, file: JournalFile) {
        if self.readers.iter().any(|reader| reader.file.id() == file.id()) {
            return;
        }
        let mut reader = Reader { file, next: 0 };
        if let Some(last) = self.last {
            reader.skip_to(last);
        }
        self.readers.push(reader);
    }

    /// Looks for what was written since; a file that cannot be read any more has nothing more to say.
    pub fn refresh(&mut self) {
        self.readers.retain_mut(|reader| reader.file.refresh().is_ok());
    }

    /// The last entries that `wanted` is true of, `count` at most, in order. What is read afterwards follows them.
    pub fn latest(&mut self, count: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut found: Vec<Entry> = Vec::new();
        for reader in &mut self.readers {
            reader.next = reader.file.entries();
        }
        let ends: Vec<u64> = self.readers.iter().map(|reader| reader.next).collect();
        let mut later: Option<Head> = None;
        while found.len() < count {
            let latest = self.readers.iter_mut().enumerate().filter_map(|(i, r)| Some((i, r.peek_back()?)));
            let latest = latest.reduce(|a, b| if a.1.is_before(&b.1) { b } else { a });
            let Some((index, head)) = latest else { break };
            let reader = &mut self.readers[index];
            reader.next -= 1;
            self.last = self.last.or(Some(head));
            if later.replace(head).is_some_and(|later| head.is_copy_of(&later)) {
                continue;
            }
            if let Ok(entry) = reader.file.entry(head)
                && wanted(&entry)
            {
                found.push(entry);
            }
        }
        for (reader, end) in self.readers.iter_mut().zip(ends) {
            reader.next = end;
        }
        found.reverse();
        found
    }

    fn next_head(&mut self) -> Option<(usize, Head)> {
        let first = self.readers.iter_mut().enumerate().filter_map(|(i, r)| Some((i, r.peek()?)));
        first.reduce(|a, b| if b.1.is_before(&a.1) { b } else { a })
    }
}

impl Iterator for Journal {
    type Item = Entry;

    /// The next entry in time.
    fn next(&mut self) -> Option<Entry> {
        loop {
            let (index, head) = self.next_head()?;
            let reader = &mut self.readers[index];
            reader.next += 1;
            if self.last.replace(head).is_some_and(|last| head.is_copy_of(&last)) {
                continue;
            }
            if let Ok(entry) = reader.file.entry(head) {
                return Some(entry);
            }
        }
    }
}

impl Reader {
    /// The next entry that can be read.
    fn peek(&mut self) -> Option<Head> {
        while self.next < self.file.entries() {
            match self.file.head(self.next) {
                Ok(head) => return Some(head),
                // A hole in the file may be as long as one likes.
                Err(_) if self.file.is_unused(self.next) => self.next = self.file.entries(),
                Err(_) => self.next += 1,
            }
        }
        None
    }

    /// The one before the next.
    fn peek_back(&mut self) -> Option<Head> {
        while self.next > 0 {
            match self.file.head(self.next - 1) {
                Ok(head) => return Some(head),
                Err(_) => self.next = self.file.used(self.next - 1).unwrap_or(0),
            }
        }
        None
    }

    /// To the first entry that is later than this one.
    fn skip_to(&mut self, last: Head) {
        let (mut low, mut high) = (0, self.file.entries());
        while low < high {
            let middle = low + (high - low) / 2;
            // One that cannot be read is as good as an early one.
            let later = self.file.head(middle).is_ok_and(|head| last.is_before(&head));
            if later { high = middle } else { low = middle + 1 }
        }
        self.next = low;
    }
}
