//! Why a network could not be planned, made or removed. Every message is one sentence.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::config::Protocol;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong: what was being done, to what, and why it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself or holds a value that no kernel takes.
    #[error("network of container {container}: {reason}")]
    Invalid {
        /// Name of the container.
        container: String,
        /// The rule that was broken, and by which value.
        reason: String,
    },
    /// An address belongs to somebody else.
    #[error("network of container {container}: address {address} is already held by {holder}; {}", .holder.hint("address"))]
    AddressTaken {
        /// Name of the container that asked.
        container: String,
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: Holder,
    },
    /// A port of the host leads elsewhere.
    #[error("network of container {container}: port {port} ({protocol}) of the host is already used by {holder}; {}", .holder.hint("port"))]
    PortTaken {
        /// Name of the container that asked.
        container: String,
        /// Transport protocol.
        protocol: Protocol,
        /// Port on the host.
        port: u16,
        /// Who has it.
        holder: Holder,
    },
    /// A link has the name that the container's needs.
    #[error("network of container {container}: the name {link} is already taken by {holder}; {}", .holder.hint("name"))]
    LinkTaken {
        /// Name of the container that asked.
        container: String,
        /// Name, or alternative name, of the link.
        link: String,
        /// Who has it.
        holder: Holder,
    },
    /// A link of the host that was named does not exist, or cannot be what it was to be.
    #[error("network of container {container}: {role} {link} {problem}")]
    NoSuchLink {
        /// Name of the container that asked.
        container: String,
        /// What the link was to be.
        role: LinkRole,
        /// Name of the link.
        link: String,
        /// Missing, of the wrong kind, or in use.
        problem: String,
    },
    /// A link that had moved into the container did not come back.
    #[error("link {link} of the host did not come back from container {container}: {problem}")]
    LinkLost {
        /// Name of the container.
        container: String,
        /// Name of the link on the host.
        link: String,
        /// What became of it.
        problem: String,
    },
    /// The kernel cannot make links of this kind.
    #[error("cannot {doing}: the kernel has no {feature} links; load or build the module {module}")]
    NoFeature {
        /// What was being done, to what.
        doing: String,
        /// The kind of link.
        feature: &'static str,
        /// The module, and the option that builds it.
        module: &'static str,
    },
    /// The kernel refused a netlink request.
    #[error("cannot {doing}: {failure}{}", .failure.hint())]
    Netlink {
        /// What was being done, to what.
        doing: String,
        /// The kernel's answer.
        failure: KernelError,
    },
    /// A file of the state directory, of /proc/sys or a namespace could not be used.
    #[error("cannot {doing}: {source}{}", io_hint(.source))]
    Io {
        /// What was being done, to what.
        doing: String,
        /// The system call's answer.
        source: io::Error,
    },
    /// A file of the state directory does not hold what nixrun writes there.
    #[error("cannot read {path}: {reason}; `nixrun reclaim` does not need it: remove it by hand")]
    State {
        /// The file.
        path: PathBuf,
        /// Why it could not be understood.
        reason: String,
    },
}

/// What kind of failure an [`Error`] is, for callers that react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration must change.
    Config,
    /// Another container, link or program has what was asked for.
    Conflict,
    /// A link that was asked for does not exist.
    NotFound,
    /// The caller has no right to do this.
    Permission,
    /// The system refused.
    System,
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Invalid { .. } => ErrorKind::Config,
            Error::AddressTaken { .. } | Error::PortTaken { .. } | Error::LinkTaken { .. } => {
                ErrorKind::Conflict
            }
            Error::NoSuchLink { .. } => ErrorKind::NotFound,
            Error::Netlink { failure: KernelError { errno: Errno::EPERM | Errno::EACCES, .. }, .. } => {
                ErrorKind::Permission
            }
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::Permission
            }
            _ => ErrorKind::System,
        }
    }

    /// Who holds what was asked for, when that is why it failed. A stale [`Holder::Container`] can be reclaimed.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Error::AddressTaken { holder, .. }
            | Error::PortTaken { holder, .. }
            | Error::LinkTaken { holder, .. } => Some(holder),
            _ => None,
        }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        |source| Error::Io { doing, source }
    }

    pub(crate) fn sys(doing: impl Into<String>) -> impl FnOnce(Errno) -> Error {
        let doing = doing.into();
        |errno| Error::Io { doing, source: errno.into() }
    }

    /// The errno of the kernel's answer to a netlink request.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Error::Netlink { failure, .. } => Some(failure.errno),
            _ => None,
        }
    }
}

fn io_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root",
        io::ErrorKind::ReadOnlyFilesystem => "; a container manager around nixrun may have made it read-only",
        _ => "",
    }
}

/// Who holds an address, a port or a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Holder {
    /// Another container of nixrun, by name.
    Container(String),
    /// A link of the host that is no container's, by name.
    Link(String),
    /// A program on the host, by the address its socket is bound to.
    Socket(IpAddr),
}

impl Holder {
    fn hint(&self, what: &str) -> String {
        match self {
            Holder::Container(name) => {
                format!("choose another {what}, or stop {name} (`nixrun reclaim {name}` if it crashed)")
            }
            Holder::Link(link) => format!("choose another {what}, or remove it from {link}"),
            Holder::Socket(_) => format!("choose another {what}, or stop that program"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Container(name) => write!(f, "container {name}"),
            Holder::Link(link) => write!(f, "link {link}"),
            Holder::Socket(address) => write!(f, "a program on the host that listens on {address}"),
        }
    }
}

/// What a link that does not exist was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkRole {
    /// The bridge of the host's end (`HOST_BRIDGE`).
    Bridge,
    /// The only way out that is masqueraded (`nat = INTERFACE`).
    WayOut,
    /// A link that moves into the container (`INTERFACES`).
    Moved,
    /// The parent of a MACVLAN or IPVLAN link (`MACVLANS`).
    Parent,
}

impl fmt::Display for LinkRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkRole::Bridge => "the bridge",
            LinkRole::WayOut => "the NAT interface",
            LinkRole::Moved => "the interface",
            LinkRole::Parent => "the parent interface",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// The kernel's answer to a netlink request that it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    /// The error number.
    pub errno: Errno,
    /// The kernel's own words (extended acknowledgement), when it gave any.
    pub text: Option<String>,
}

impl KernelError {
    fn hint(&self) -> &'static str {
        match self.errno {
            Errno::EPERM => "; run it as root (CAP_NET_ADMIN)",
            Errno::EOPNOTSUPP => "; the kernel lacks the feature",
            _ => "",
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.errno, self.errno.desc())?;
        match &self.text {
            Some(text) => write!(f, ", the kernel says \"{text}\""),
            None => Ok(()),
        }
    }
}

/// Every error of a clean-up, which goes on past each one.
#[derive(Debug, Default)]
pub struct Errors(Vec<Error>);

impl Errors {
    /// Keeps the error of a step, if it has one.
    pub(crate) fn note<T>(&mut self, step: Result<T>) -> Option<T> {
        step.map_err(|error| self.0.push(error)).ok()
    }

    /// Whether no step has failed so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over the errors of another clean-up.
    pub(crate) fn extend(&mut self, others: Errors) {
        self.0.extend(others.0);
    }

    /// `Ok` when no step failed.
    pub(crate) fn into_result(self) -> std::result::Result<(), Errors> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The errors, in the order in which they happened.
    pub fn iter(&self) -> impl Iterator<Item = &Error> {
        self.0.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "; also: " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

impl IntoIterator for Errors {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
