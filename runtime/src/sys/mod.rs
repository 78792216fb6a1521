//! The system calls that no crate wraps, each as thin as it can be: retry on EINTR where that is right, a typed
//! error, owned file descriptors, and nothing else. With `child` the only place with unsafe code.

pub mod alloc;
pub mod attributes;
pub mod bpf;
pub mod btrfs;
pub mod clone;
mod error;
pub mod fd;
pub mod inroot;
pub mod lock;
pub mod loopdev;
pub mod mount;
pub mod probe;
pub mod process;
pub mod pty;

pub use error::SyscallError;

/// Shorthand for what every wrapper here returns.
pub type Result<T> = std::result::Result<T, SyscallError>;
