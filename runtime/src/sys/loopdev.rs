//! Loop devices: a file, or a part of one, as a block device.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;

use super::error::check;
use super::{Result, SyscallError};

// linux/loop.h; the type of ioctl requests differs between libcs.
const LOOP_CTL_GET_FREE: u32 = 0x4c82;
const LOOP_CONFIGURE: u32 = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// How often to look for a device that nobody else takes first.
const TRIES: u32 = 64;

/// The kernel's `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// The kernel's `struct loop_config` (5.8).
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A loop device that the kernel frees when nobody has it open and nothing is mounted from it, be we alive or not.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its node.
    pub path: PathBuf,
    /// Keeps it until something is mounted.
    _device: File,
}

/// A device of `size` bytes of the file from `offset` on.
///
/// # Errors
/// The kernel's; ENOENT when it has no loop devices.
pub fn attach(file: BorrowedFd<'_>, offset: u64, size: u64, read_only: bool) -> Result<LoopDevice> {
    let open = |path: &str, write: bool| {
        let file = OpenOptions::new().read(true).write(write).custom_flags(libc::O_CLOEXEC).open(path);
        file.map_err(|error| {
            SyscallError::new("open", path, Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        })
    };
    let control = open("/dev/loop-control", true)?;
    for _ in 0..TRIES {
        // SAFETY: the request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        let number = check(number.into(), "ioctl", || "LOOP_CTL_GET_FREE".to_owned())?;
        let path = format!("/dev/loop{number}");
        let device = open(&path, !read_only)?;
        let info = LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset,
            size_limit: size,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 },
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        };
        let config = LoopConfig { fd: file.as_raw_fd() as u32, block_size: 0, info, reserved: [0; 8] };
        // SAFETY: the kernel reads one live `struct loop_config`.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
        match check(result.into(), "ioctl", || format!("{path}, LOOP_CONFIGURE")) {
            Ok(_) => return Ok(LoopDevice { path: path.into(), _device: device }),
            // Somebody else has taken it meanwhile.
            Err(error) if error.errno() == Errno::EBUSY => {}
            Err(error) => return Err(error),
        }
    }
    Err(SyscallError::new("ioctl", "LOOP_CONFIGURE", Errno::EBUSY))
}
