//! Classic BPF, built from its end: a jump only goes forward, so what it leads to is there already when it is
//! written, and its distance is known.

use libc::sock_filter;

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
/// The lower halves of the arguments, of which no architecture here has the upper ones first.
pub(super) const ARGUMENTS: [u32; 6] = [16, 24, 32, 40, 48, 56];

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
pub(super) const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
pub(super) const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
pub(super) const IF_ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;

/// A conditional jump skips at most 255 instructions; one less leaves room for a second long jump before it.
const NEAR: usize = 254;

/// An instruction written before, counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program, last instruction first.
#[derive(Debug)]
pub(super) struct Backward {
    code: Vec<sock_filter>,
}

impl Backward {
    pub(super) fn new() -> Self {
        Backward { code: Vec::with_capacity(512) }
    }

    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) -> Label {
        self.code.push(sock_filter { code: code as u16, jt, jf, k });
        Label(self.code.len() - 1)
    }

    /// How many instructions the next one would skip to reach `target`.
    fn distance(&self, target: Label) -> usize {
        self.code.len() - 1 - target.0
    }

    /// Whether the next instruction can reach `target` by a conditional jump.
    pub(super) fn is_near(&self, target: Label) -> bool {
        self.distance(target) <= NEAR
    }

    pub(super) fn ret(&mut self, value: u32) -> Label {
        self.push(RETURN, 0, 0, value)
    }

    fn near(&mut self, target: Label) -> Label {
        if self.is_near(target) { target } else { self.push(JUMP, 0, 0, self.distance(target) as u32) }
    }

    /// Goes to `yes` when `condition` holds for the accumulator and `k`, else to `no`.
    pub(super) fn branch(&mut self, condition: u32, k: u32, yes: Label, no: Label) -> Label {
        let yes = self.near(yes);
        let no = self.near(no);
        self.push(condition, self.distance(yes) as u8, self.distance(no) as u8, k)
    }

    /// Loads the word at `offset` of `struct seccomp_data`, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        if self.distance(next) > 0 {
            self.push(JUMP, 0, 0, self.distance(next) as u32);
        }
        self.push(LOAD, 0, 0, offset)
    }

    /// `block` in front of everything; whatever leaves it at its end goes on at the instruction written last.
    pub(super) fn prepend(&mut self, block: &[seccompiler::sock_filter]) -> Label {
        for filter in block.iter().rev() {
            self.push(filter.code.into(), filter.jt, filter.jf, filter.k);
        }
        Label(self.code.len() - 1)
    }

    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        self.code.reverse();
        self.code
    }
}
