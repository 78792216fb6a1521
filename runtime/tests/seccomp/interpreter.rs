//! As much of the kernel's classic BPF machine as seccomp filters use; whatever the kernel would refuse panics.

use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_DATA, sock_filter};

/// What seccomp returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Allow,
    Errno(i32),
}

/// One system call, as `struct seccomp_data` shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) arch: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 if offset.is_multiple_of(8) => self.args[(offset as usize - 16) / 8] as u32,
            16..64 if offset.is_multiple_of(4) => (self.args[(offset as usize - 16) / 8] >> 32) as u32,
            _ => panic!("load of word {offset}"),
        }
    }
}

/// Runs one filter. Programs of libseccomp use everything here; ours a part.
fn run(program: &[sock_filter], call: &Call) -> u32 {
    let (mut at, mut accumulator, mut memory) = (0, 0, [0; 16]);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |condition| usize::from(if condition { jt } else { jf });
        match code {
            0x20 => accumulator = call.word(k),
            0x02 => memory[k as usize] = accumulator,
            0x60 => accumulator = memory[k as usize],
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return k,
            _ => panic!("instruction {code:#x} at {}", at - 1),
        }
    }
}

/// What the kernel makes of these filters together, the one installed last first.
pub(crate) fn ask(programs: &[Vec<sock_filter>], call: &Call) -> Answer {
    // ERRNO comes before ALLOW; of two errors the first counts.
    let answers = programs.iter().map(|program| run(program, call));
    match answers.fold(SECCOMP_RET_ALLOW, |kept, new| if kept == SECCOMP_RET_ALLOW { new } else { kept }) {
        SECCOMP_RET_ALLOW => Answer::Allow,
        value if value & !SECCOMP_RET_DATA == libc::SECCOMP_RET_ERRNO => {
            Answer::Errno((value & SECCOMP_RET_DATA) as i32)
        }
        value => panic!("filter returned {value:#x}"),
    }
}
