//! Which ids of the host a container gets, as far as that can be told without looking at its root.

use std::fmt;
use std::hash::Hasher;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use crate::config::{ContainerConfig, Ownership, UserNamespace};
use crate::error::{Error, ErrorKind};
use crate::host::HostFacts;

/// Ids 0, 1, … of a container are these ids of the host, users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host's id of the container's root.
    pub base: u32,
    /// Number of ids.
    pub length: u32,
}

impl IdRange {
    /// Number of ids of a container that asked for nothing else: what systemd counts on.
    pub const LENGTH: u32 = 65536;

    /// The usual number of ids from `base` on.
    #[must_use]
    pub const fn from(base: u32) -> IdRange {
        IdRange { base, length: Self::LENGTH }
    }

    /// Whether the host's `id` is the container's.
    #[must_use]
    pub const fn contains(self, id: u32) -> bool {
        id >= self.base && id - self.base < self.length
    }

    /// Whether it is what systemd-nspawn can shift files to: the upper half of an id says whose file it is.
    #[must_use]
    pub const fn is_aligned(self) -> bool {
        self.base & (Self::LENGTH - 1) == 0 && self.length == Self::LENGTH
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.base, u64::from(self.base) + u64::from(self.length))
    }
}

/// The first id of the first range that `pick` hands out, and the one that the bases end before (systemd's
/// `CONTAINER_UID_BASE_MIN` and `_MAX`).
pub(crate) const PICK_FROM: u32 = 0x0008_0000;
pub(crate) const PICK_TO: u32 = 0x6fff_0000;

/// How the host's ids of a container are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdChoice {
    /// They are these.
    Range(IdRange),
    /// Those that the root directory belongs to.
    OfRoot,
    /// Those that the root directory belongs to when nobody else has them, else these, else others at random.
    Pick {
        /// The range that follows from the container's name.
        candidate: IdRange,
        /// Where who uses a range locks it: systemd-nspawn's directory.
        locks: PathBuf,
        /// The host's databases of users and groups, none of whose ids may be in the range.
        databases: [PathBuf; 2],
    },
}

/// The user namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserPlan {
    /// How its ids are found.
    pub ids: IdChoice,
    /// How the root's files come to belong to them.
    pub ownership: Ownership,
}

impl fmt::Display for UserPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ids {
            IdChoice::Range(range) => write!(f, "ids {range}")?,
            IdChoice::OfRoot => write!(f, "ids of the root directory's owner")?,
            IdChoice::Pick { candidate, .. } => {
                write!(f, "ids {candidate}, unless the root has some or these are taken")?;
            }
        }
        f.write_str(match self.ownership {
            Ownership::Off => ", files of the root as they are",
            Ownership::Map => ", root mapped",
            Ownership::Chown => ", files of the root given to them",
            Ownership::Auto => ", root mapped or else its files given to them",
        })
    }
}

pub(super) fn plan(config: &ContainerConfig, host: &HostFacts) -> Result<Option<UserPlan>, Error> {
    let host_path = |path: &str| host.root.join(path.trim_start_matches('/'));
    let ids = match config.users {
        UserNamespace::Host => return Ok(None),
        UserNamespace::Identity => IdChoice::Range(IdRange::from(0)),
        UserNamespace::Range { base, length } => IdChoice::Range(IdRange { base, length }),
        UserNamespace::OfRoot => IdChoice::OfRoot,
        UserNamespace::Pick => IdChoice::Pick {
            candidate: candidate(&config.name),
            locks: host_path(crate::instance::NSPAWN_IDS),
            databases: ["/etc/passwd", "/etc/group"].map(host_path),
        },
    };
    if let IdChoice::Range(range) = &ids {
        check(*range, config)?;
    }
    Ok(Some(UserPlan { ids, ownership: config.ownership }))
}

fn check(range: IdRange, config: &ContainerConfig) -> Result<(), Error> {
    let fault = |what: String| Err(Error::new(ErrorKind::Config, what));
    // The last id, 4294967295, means none.
    if range.length == 0 || range.base.checked_add(range.length).is_none() {
        return fault(format!(
            "container {} cannot have the {} ids from {} on: give it at least one, and end before 4294967295",
            config.name, range.length, range.base
        ));
    }
    if config.ownership == Ownership::Chown && !range.is_aligned() {
        return fault(format!(
            "the files of container {} cannot be given to the ids {range}; use 65536 ids from a multiple of 65536 on, \
             or map the root's ids",
            config.name
        ));
    }
    Ok(())
}

/// The range that systemd-nspawn tries first for this name, too.
fn candidate(name: &str) -> IdRange {
    const KEY: [u8; 16] = *b"\xe1\x56\xe0\xf0\x4a\xf0\x41\xaf\x96\x41\xcf\x41\x33\x94\xff\x72";
    let mut hasher = SipHasher24::new_with_key(&KEY);
    hasher.write(name.as_bytes());
    reduce(hasher.finish() as u32)
}

/// A range from 32 bits of chance.
pub(crate) fn reduce(chance: u32) -> IdRange {
    IdRange::from((chance % (PICK_TO - PICK_FROM) + PICK_FROM) & !(IdRange::LENGTH - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pick_is_an_aligned_range_between_the_bounds() {
        for chance in [0, 1, 65535, PICK_FROM, PICK_TO, PICK_TO - PICK_FROM - 1, u32::MAX] {
            let range = reduce(chance);
            assert!(range.is_aligned() && range.base >= PICK_FROM && range.base < PICK_TO, "{range}");
        }
    }
}
