//! An entry of a journal.

use std::sync::Arc;

/// When, and as what, an entry was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seqnum_id: [u8; 16],
    pub(super) seqnum: u64,
    /// Microseconds since 1970.
    pub(super) realtime: u64,
    /// Microseconds since the boot.
    pub(super) monotonic: u64,
    pub(super) boot_id: [u8; 16],
    /// Of all its fields.
    pub(super) hash: u64,
    /// Where it is in its file, in bytes.
    pub(super) offset: u64,
    /// How many fields it has.
    pub(super) fields: u64,
}

impl Head {
    /// Whether it is the same entry in another file: journald copies what it has in /run to /var.
    pub(super) fn is_copy_of(&self, other: &Head) -> bool {
        let what = |head: &Head| (head.realtime, head.monotonic, head.boot_id, head.hash);
        what(self) == what(other)
    }

    /// Which of two is earlier; those of one source by its own count.
    pub(super) fn is_before(&self, other: &Head) -> bool {
        if self.seqnum_id == other.seqnum_id && self.seqnum != other.seqnum {
            return self.seqnum < other.seqnum;
        }
        self.realtime < other.realtime
    }
}

/// An entry with its fields, `NAME=value` each; a name may occur more than once.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(super) head: Head,
    pub(super) fields: Vec<Arc<[u8]>>,
}

impl Entry {
    /// When it was received, in microseconds since 1970.
    #[must_use]
    pub fn realtime(&self) -> u64 {
        self.head.realtime
    }

    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find_map(|field| field.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// Whether a field has this value, among others perhaps.
    #[must_use]
    pub fn has(&self, name: &str, value: &[u8]) -> bool {
        let is = |field: &Arc<[u8]>| {
            field.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) == Some(value)
        };
        self.fields.iter().any(is)
    }

    /// Whether it is of this unit, or systemd's about it. What others claim about a unit does not count.
    #[must_use]
    pub fn is_of_unit(&self, unit: &str) -> bool {
        let unit = unit.as_bytes();
        let by_root = self.has("_UID", b"0");
        self.has("_SYSTEMD_UNIT", unit)
            || self.has("UNIT", unit) && self.has("_PID", b"1")
            || by_root && (self.has("OBJECT_SYSTEMD_UNIT", unit) || self.has("COREDUMP_UNIT", unit))
    }
}
