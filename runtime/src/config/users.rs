//! User namespaces.

use serde::Serialize;

/// How user ids inside map to the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UserNamespace {
    /// No user namespace: the ids are the host's.
    Host,
    /// A user namespace in which ids 0 to 65535 are the host's own: separate capabilities, not separate ids.
    Identity,
    /// The 65536 ids from the root directory's owner on, whose id must be a multiple of 65536 (`yes`).
    OfRoot,
    /// 65536 ids that nobody else uses, the same each time as far as possible (`pick`): the root directory's when it
    /// is in the range, else by a hash of the container's name, in 524288..1878982656.
    Pick,
    /// These host ids.
    Range {
        /// The host's id of the container's root.
        base: u32,
        /// Number of ids, 65536 unless something else was asked for.
        length: u32,
    },
}

/// How the files of the root come to belong to the container's users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// They are left alone.
    #[default]
    Off,
    /// The root is mounted with its ids mapped.
    Map,
    /// Every file of the root is given to the container's ids.
    Chown,
    /// As `Map` when the file system can, else as `Chown`.
    Auto,
}
