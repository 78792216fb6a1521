//! Capability sets as bit masks. Names come from the `caps` crate here, in the parent; the code after clone carries
//! the plain `u64` and makes the raw system calls.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use caps::Capability;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of Linux capabilities: bit N stands for the capability that the kernel numbers N (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapSet(u64);

/// Why a capability name or our own capabilities could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CapsError {
    /// A name that the `caps` crate does not have, or a number above the last capability.
    #[error(
        "reading the capability list {list:?} failed: {name:?} is not a capability; use names of capabilities(7) \
         such as CAP_NET_ADMIN, separated by commas, or \"all\""
    )]
    Unknown {
        /// The list as given.
        list: String,
        /// The entry of it that is wrong.
        name: String,
    },
    /// capget(2) or prctl(2) failed.
    #[error(
        "reading the {set} capabilities of this process failed: {reason}; is a seccomp filter in the way?"
    )]
    Read {
        /// Which set.
        set: &'static str,
        /// What the `caps` crate says about it.
        reason: String,
    },
}

/// Every capability with a name, in the kernel's order.
static NAMED: LazyLock<Vec<Capability>> = LazyLock::new(|| {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_unstable_by_key(Capability::index);
    all
});

impl CapSet {
    /// No capability.
    pub const EMPTY: CapSet = CapSet(0);
    /// Every capability that has a name here: 0 to `CAP_CHECKPOINT_RESTORE`, the last one as of Linux 6.18.
    pub const ALL: CapSet = CapSet((2 << Capability::CAP_CHECKPOINT_RESTORE as u8) - 1);

    /// The set with these bits; bits above the last known capability are left out.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        CapSet(bits & Self::ALL.0)
    }

    /// The bits, as in `/proc/PID/status` and (split in two words) capset(2).
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set of just these capabilities.
    #[must_use]
    pub const fn of(capabilities: &[Capability]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < capabilities.len() {
            bits |= 1 << capabilities[i] as u8;
            i += 1;
        }
        CapSet(bits)
    }

    /// Whether no capability is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `capability` is in the set.
    #[must_use]
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & 1 << capability as u8 != 0
    }

    /// Adds `capability`.
    pub const fn insert(&mut self, capability: Capability) {
        self.0 |= 1 << capability as u8;
    }

    /// What is in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        CapSet(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        CapSet(self.0 & other.0)
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        CapSet(self.0 & !other.0)
    }

    /// The members, in the kernel's order.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        NAMED.iter().copied().filter(move |&capability| self.contains(capability))
    }

    /// Reads one capability or a list separated by commas, as `--capability=` takes it: `CAP_NET_ADMIN`,
    /// `net_admin`, the kernel's number, or `all`. Empty entries, and `none`, add nothing.
    ///
    /// # Errors
    /// [`CapsError::Unknown`] names the first entry that is none of these.
    pub fn parse(list: &str) -> Result<Self, CapsError> {
        let mut set = CapSet::EMPTY;
        for name in list.split(',').map(str::trim) {
            let unknown = || CapsError::Unknown { list: list.to_owned(), name: name.to_owned() };
            if name.is_empty() || name.eq_ignore_ascii_case("none") {
                continue;
            } else if name.eq_ignore_ascii_case("all") {
                set = CapSet::ALL;
            } else if let Ok(number) = name.parse::<u8>() {
                let found = NAMED.iter().find(|capability| capability.index() == number);
                set.insert(*found.ok_or_else(unknown)?);
            } else {
                set.insert(Capability::from_str(&caps::to_canonical(name)).map_err(|_| unknown())?);
            }
        }
        Ok(set)
    }
}

/// `CAP_A,CAP_B`, which [`CapSet::parse`] reads back; `none` for the empty set.
impl fmt::Display for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (i, capability) in self.iter().enumerate() {
            write!(f, "{}{capability}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A list of names.
impl Serialize for CapSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|capability| capability.to_string()))
    }
}

impl<'de> Deserialize<'de> for CapSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        CapSet::parse(&names.join(",")).map_err(D::Error::custom)
    }
}

/// What systemd-nspawn 256 gives PID 1 without options, in its bounding, effective, permitted and inheritable sets
/// (`src/nspawn/nspawn.c`, `arg_caps_retain`); `CAP_NET_ADMIN` only over a network of the container's own.
#[must_use]
pub const fn nspawn_default(private_network: bool) -> CapSet {
    use Capability::*;
    let mut set = CapSet::of(&[
        CAP_AUDIT_CONTROL,
        CAP_AUDIT_WRITE,
        CAP_CHOWN,
        CAP_DAC_OVERRIDE,
        CAP_DAC_READ_SEARCH,
        CAP_FOWNER,
        CAP_FSETID,
        CAP_IPC_OWNER,
        CAP_KILL,
        CAP_LEASE,
        CAP_LINUX_IMMUTABLE,
        CAP_MKNOD,
        CAP_NET_BIND_SERVICE,
        CAP_NET_BROADCAST,
        CAP_NET_RAW,
        CAP_SETFCAP,
        CAP_SETGID,
        CAP_SETPCAP,
        CAP_SETUID,
        CAP_SYS_ADMIN,
        CAP_SYS_BOOT,
        CAP_SYS_CHROOT,
        CAP_SYS_NICE,
        CAP_SYS_PTRACE,
        CAP_SYS_RESOURCE,
        CAP_SYS_TTY_CONFIG,
    ]);
    if private_network {
        set.insert(CAP_NET_ADMIN);
    }
    set
}

/// What this thread can hand to a container: its permitted set, as far as the bounding set has it too (capset(2)
/// refuses to make anything else inheritable). What a container asks for beyond this is to be left out with a
/// warning; some hosts run everything without `CAP_SYS_RESOURCE`, for one.
///
/// # Errors
/// [`CapsError::Read`] when the kernel does not tell.
pub fn available() -> Result<CapSet, CapsError> {
    let read = |set, name| {
        caps::read(None, set)
            .map(|found| found.iter().fold(0, |bits, capability| bits | capability.bitmask()))
            .map_err(|error| CapsError::Read { set: name, reason: error.to_string() })
    };
    let permitted = read(caps::CapSet::Permitted, "permitted")?;
    Ok(CapSet(permitted & read(caps::CapSet::Bounding, "bounding")?))
}
