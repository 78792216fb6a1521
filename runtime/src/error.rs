//! The error of this crate: one sentence, with what the user can do.

use std::fmt;

use crate::sys::SyscallError;

/// What a caller can tell errors apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for makes no sense; nothing was created.
    Config,
    /// Something that must exist does not.
    NotFound,
    /// Another container, or another program, holds what is needed.
    Busy,
    /// The kernel or the machine lacks a feature.
    Unsupported,
    /// The caller may not do this.
    Permission,
    /// The container's program could not be executed.
    Payload,
    /// The container's program, its interpreter or its loader does not exist in the container.
    PayloadMissing,
    /// A system call failed.
    System,
}

/// An error: what was being done, to what, why it failed, and what the user can do.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    sentence: String,
    hint: Option<String>,
    cleanup: Vec<Error>,
}

impl Error {
    /// An error whose sentence is complete.
    #[must_use]
    pub fn new(kind: ErrorKind, sentence: impl Into<String>) -> Error {
        Error(Box::new(Inner { kind, sentence: sentence.into(), hint: None, cleanup: Vec::new() }))
    }

    /// The same with what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same with the errors that undoing the work met.
    #[must_use]
    pub fn with_cleanup(mut self, errors: Vec<Error>) -> Error {
        self.0.cleanup.extend(errors);
        self
    }

    /// What callers can tell errors apart by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the clean-up met after the primary error.
    #[must_use]
    pub fn cleanup(&self) -> &[Error] {
        &self.0.cleanup
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.sentence)?;
        if let Some(hint) = &self.0.hint {
            write!(f, "; {hint}")?;
        }
        for error in &self.0.cleanup {
            write!(f, "; while cleaning up: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Adds what was being done to an error from below.
pub(crate) trait Doing<T> {
    /// The value, or the sentence "`doing()`: why".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, SyscallError> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::new(kind_of(error.errno()), format!("cannot {}: {error}", doing())))
    }
}

impl<T> Doing<T> for Result<T, std::io::Error> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| {
            let errno = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0));
            Error::new(kind_of(errno), format!("cannot {}: {error}", doing()))
        })
    }
}

impl<T> Doing<T> for Result<T, nix::errno::Errno> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|errno| Error::new(kind_of(errno), format!("cannot {}: {errno}", doing())))
    }
}

fn kind_of(errno: nix::errno::Errno) -> ErrorKind {
    use nix::errno::Errno;
    match errno {
        Errno::EPERM | Errno::EACCES => ErrorKind::Permission,
        Errno::ENOENT => ErrorKind::NotFound,
        Errno::ENOSYS => ErrorKind::Unsupported,
        Errno::EBUSY => ErrorKind::Busy,
        _ => ErrorKind::System,
    }
}
