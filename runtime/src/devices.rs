//! Which device nodes a container may make and open: a list of [`DeviceRule`]s, compiled to an eBPF program for its
//! cgroup (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15). What no rule allows is EPERM.
//!
//! The program must be on the cgroup before the container starts. It then holds for all that the container makes
//! below: an access needs the consent of the programs of every group above. The container keeps `CAP_MKNOD`, so that
//! `PrivateDevices=` works in it, and can make the nodes that are allowed here, no others.

use std::fmt;
use std::ops::BitOr;

/// The kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// Both kinds.
    Any,
    /// A block device.
    Block,
    /// A character device.
    Char,
}

/// What may be done to a device: a set of read, write and mknod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess(u8);

impl DeviceAccess {
    /// Making a node (`BPF_DEVCG_ACC_MKNOD`).
    pub const MKNOD: DeviceAccess = DeviceAccess(1);
    /// Opening for reading (`BPF_DEVCG_ACC_READ`).
    pub const READ: DeviceAccess = DeviceAccess(2);
    /// Opening for writing (`BPF_DEVCG_ACC_WRITE`).
    pub const WRITE: DeviceAccess = DeviceAccess(4);
    /// Reading and writing: `rw`.
    pub const RW: DeviceAccess = DeviceAccess(6);
    /// All three: `rwm`.
    pub const ALL: DeviceAccess = DeviceAccess(7);
}

impl BitOr for DeviceAccess {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        DeviceAccess(self.0 | other.0)
    }
}

/// Access that is allowed to one device, or to many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Block, character, or both.
    pub kind: DeviceKind,
    /// Major number; any when absent.
    pub major: Option<u32>,
    /// Minor number; any when absent.
    pub minor: Option<u32>,
    /// What is allowed. Other rules may allow more of the same device, but one access that asks for two things
    /// (`O_RDWR`) needs one rule that allows both.
    pub access: DeviceAccess,
}

impl DeviceRule {
    const fn char(major: u32, minor: u32, access: DeviceAccess) -> DeviceRule {
        DeviceRule { kind: DeviceKind::Char, major: Some(major), minor: Some(minor), access }
    }

    /// `/dev/fuse`.
    #[must_use]
    pub const fn fuse() -> DeviceRule {
        DeviceRule::char(10, 229, DeviceAccess::ALL)
    }

    /// `/dev/net/tun`: systemd's own unit templates allow it, NixOS does only where `enableTun` is set.
    #[must_use]
    pub const fn tun() -> DeviceRule {
        DeviceRule::char(10, 200, DeviceAccess::ALL)
    }
}

/// The notation of cgroup v1's `devices.allow`: `c 136:* rw`.
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            DeviceKind::Any => "a ",
            DeviceKind::Block => "b ",
            DeviceKind::Char => "c ",
        })?;
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(f, "{}:{} ", number(self.major), number(self.minor))?;
        for (bit, letter) in
            [(DeviceAccess::READ, "r"), (DeviceAccess::WRITE, "w"), (DeviceAccess::MKNOD, "m")]
        {
            f.write_str(if self.access.0 & bit.0 != 0 { letter } else { "" })?;
        }
        Ok(())
    }
}

/// The same notation.
impl serde::Serialize for DeviceRule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What systemd allows under `DevicePolicy=closed` (`src/core/bpf-devices.c`), which is what nspawn's containers
/// get: the devices without hardware behind them, ptys that devpts made, and the nodes 0:0, which nothing can open,
/// that systemd puts over inaccessible paths.
#[must_use]
pub fn default_rules() -> Vec<DeviceRule> {
    let nodes = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (0, 0)];
    let mut rules: Vec<_> =
        nodes.iter().map(|&(major, minor)| DeviceRule::char(major, minor, DeviceAccess::ALL)).collect();
    rules.push(DeviceRule {
        kind: DeviceKind::Block,
        major: Some(0),
        minor: Some(0),
        access: DeviceAccess::ALL,
    });
    // No mknod: a node of a pty that another devpts instance made would open that pty.
    rules.push(DeviceRule {
        kind: DeviceKind::Char,
        major: Some(136),
        minor: None,
        access: DeviceAccess::RW,
    });
    rules
}

/// The registers of the program.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Register {
    Result = 0,
    Context = 1,
    Kind = 2,
    Access = 3,
    Major = 4,
    Minor = 5,
    /// Bits in which the access differs from the rule.
    Difference = 6,
    Scratch = 7,
}

/// Operation codes (linux/bpf.h). Those on 32 bits clear the upper half.
mod code {
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const SET: u8 = 0xb7;
    pub(super) const COPY_32: u8 = 0xbc;
    pub(super) const AND_32: u8 = 0x54;
    pub(super) const XOR_32: u8 = 0xa4;
    pub(super) const OR: u8 = 0x4f;
    pub(super) const ADD: u8 = 0x07;
    pub(super) const SHIFT_RIGHT_32: u8 = 0x74;
    pub(super) const SHIFT_RIGHT: u8 = 0x77;
    pub(super) const EXIT: u8 = 0x95;
}

/// One instruction, as little-endian `struct bpf_insn`.
const fn instruction(code: u8, to: Register, from: Register, offset: i16, constant: u32) -> u64 {
    code as u64
        | (to as u64) << 8
        | (from as u64) << 12
        | (offset as u16 as u64) << 16
        | (constant as u64) << 32
}

const fn with_constant(code: u8, register: Register, constant: u32) -> u64 {
    instruction(code, register, Register::Result, 0, constant)
}

const fn between(code: u8, to: Register, from: Register) -> u64 {
    instruction(code, to, from, 0, 0)
}

/// The rules as an eBPF program for a cgroup's devices. An access is allowed when a rule allows all of it.
///
/// The program has no jumps. Loading it is part of every start, and the kernel's verifier follows each branch by
/// itself: with a jump for each condition, loading the default rules takes several times as long.
#[must_use]
pub fn compile(rules: &[DeviceRule]) -> Vec<u64> {
    use Register::{Access, Context, Kind, Major, Minor, Result};
    let load = |register, offset| instruction(code::LOAD_WORD, register, Context, offset, 0);
    // struct bpf_cgroup_dev_ctx: kind in the lower half of the first word, access in the upper.
    let mut program = vec![
        load(Kind, 0),
        between(code::COPY_32, Access, Kind),
        with_constant(code::AND_32, Kind, 0xffff),
        with_constant(code::SHIFT_RIGHT_32, Access, 16),
        load(Major, 4),
        load(Minor, 8),
        with_constant(code::SET, Result, 0),
    ];
    for rule in rules {
        append(&mut program, rule);
    }
    program.push(with_constant(code::EXIT, Result, 0));
    program
}

/// Appends a rule: collects the bits in which the access differs, and sets the result when there are none.
fn append(program: &mut Vec<u64>, rule: &DeviceRule) {
    use Register::{Access, Difference, Kind, Major, Minor, Result, Scratch};
    let kind = match rule.kind {
        DeviceKind::Any => None,
        DeviceKind::Block => Some(1),
        DeviceKind::Char => Some(2),
    };
    let refused = u32::from(DeviceAccess::ALL.0 & !rule.access.0);
    let conditions = [
        kind.map(|kind| (code::XOR_32, Kind, kind)),
        rule.major.map(|major| (code::XOR_32, Major, major)),
        rule.minor.map(|minor| (code::XOR_32, Minor, minor)),
        (refused != 0).then_some((code::AND_32, Access, refused)),
    ];
    let mut into = Difference;
    for (code, register, constant) in conditions.into_iter().flatten() {
        program.push(between(code::COPY_32, into, register));
        program.push(with_constant(code, into, constant));
        if let Scratch = into {
            program.push(between(code::OR, Difference, Scratch));
        }
        into = Scratch;
    }
    if let Difference = into {
        program.push(with_constant(code::SET, Difference, 0));
    }
    // Less than 2^32, so that one less than it has the uppermost bit exactly when it is 0.
    program.push(with_constant(code::ADD, Difference, -1i32 as u32));
    program.push(with_constant(code::SHIFT_RIGHT, Difference, 63));
    program.push(between(code::OR, Result, Difference));
}
