//! systemd's journal files, read without systemd: <https://systemd.io/JOURNAL_FILE_FORMAT/>. A container writes the files,
//! so nothing in them is believed: every offset is checked against the file, what is followed only leads onwards, and
//! what is kept has a limit. They are read by pread(2) and not mapped: a file that its writer cuts short would kill us.

mod data;
mod directory;
mod entry;
mod file;
mod merged;
mod pages;
#[cfg(test)]
mod tests;

pub use directory::{Directories, LONGEST_LIST};
pub use entry::Entry;
pub use file::{Fault, JournalFile};
pub use merged::Journal;
