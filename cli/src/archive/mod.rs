//! A container in one file: its configuration, its profile's generations and its root directory, as a tar archive
//! compressed with zstd. docs/archive.md describes the format.
//!
//! ```text
//! export   root, by descriptors -> write -> member (tar, pax) -> zstd -> a file without a name, then its name
//! import   zstd -> read (every member checked) -> unpack, by descriptors, into a hidden directory -> its name
//! ```

mod export;
mod freeze;
mod import;
pub mod manifest;
pub mod member;
mod outfile;
pub mod read;
mod readdress;
pub(crate) mod unpack;
pub(crate) mod write;
pub mod zstd;

use serde::{Deserialize, Serialize};

pub(crate) use export::open as open_root;
pub use export::{ExportRequest, Exported, Target, export};
pub(crate) use freeze::thaw;
pub use import::{ImportRequest, Imported, Leftover, import};

/// Name of the first member.
pub const MANIFEST: &str = "nixrun.json";
/// Name of the last one: without it an archive is cut off.
pub const END: &str = "nixrun.end";

/// How much there was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files of the root, of every type, directories too.
    pub files: u64,
    /// Bytes of data in them.
    pub bytes: u64,
}

/// The last member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// As in [`Totals`].
    pub files: u64,
    /// Likewise.
    pub bytes: u64,
}

/// Whoever watches a long operation: told every now and then how far it is, and asked whether it is to go on.
pub trait Watch {
    /// False ends the operation, which undoes what it has done.
    fn goes_on(&mut self, done: Totals) -> bool;
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn goes_on(&mut self, _done: Totals) -> bool {
        true
    }
}

/// Bytes between two questions whether to go on.
const STEP: u64 = 1 << 20;

/// What stopped an operation that whoever watches did not want to go on.
fn interrupted() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::Interrupted, "it was interrupted")
}
