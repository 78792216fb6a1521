//! A failed system call, with the arguments that matter.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// A failed system call. Prints like strace: `openat2(7, "etc/passwd", O_PATH): ENOENT (No such file or directory)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallError {
    call: &'static str,
    arguments: String,
    errno: Errno,
    words: Option<String>,
}

impl SyscallError {
    pub(crate) fn new(call: &'static str, arguments: impl Into<String>, errno: Errno) -> Self {
        SyscallError { call, arguments: arguments.into(), errno, words: None }
    }

    /// The same with what the kernel has to say about it.
    pub(crate) fn with_words(self, words: Option<String>) -> Self {
        SyscallError { words, ..self }
    }

    /// The error of the call that this thread made last.
    pub(crate) fn last(call: &'static str, arguments: impl Into<String>) -> Self {
        Self::new(call, arguments, Errno::last())
    }

    /// The kernel's error number.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for SyscallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {:?} ({})", self.call, self.arguments, self.errno, self.errno.desc())?;
        self.words.iter().try_for_each(|words| write!(f, "; the kernel says: {words}"))
    }
}

impl std::error::Error for SyscallError {}

impl From<SyscallError> for io::Error {
    fn from(error: SyscallError) -> Self {
        io::Error::from_raw_os_error(error.errno as i32)
    }
}

/// Turns a raw system call result into its value or the error of `call(arguments())`.
pub(crate) fn check(
    result: libc::c_long,
    call: &'static str,
    arguments: impl FnOnce() -> String,
) -> Result<libc::c_long, SyscallError> {
    if result < 0 { Err(SyscallError::last(call, arguments())) } else { Ok(result) }
}
