//! The records that the child sends over its SEQPACKET channel: fixed ones, and before some of them a text.

use crate::sys::inroot::Failure;
use crate::sys::mount::{LOG_MESSAGE, log_message};

/// First field of every record: "nxrn", so that a stray writer is not taken for a child.
const MAGIC: u32 = 0x6e72_786e;
/// Size of a record in bytes.
pub(crate) const SIZE: usize = 16;

/// What stands before the kernel's words in a record that has some: magic, kind, zero.
const WORDS: [u8; 8] = {
    let ([m0, m1, m2, m3], [k0, k1]) = (MAGIC.to_ne_bytes(), 5u16.to_ne_bytes());
    [m0, m1, m2, m3, k0, k1, 0, 0]
};
/// Room for the longest record.
pub(crate) const LONGEST: usize = WORDS.len() + LOG_MESSAGE;

/// What a file system has to say about the failure that is reported next.
pub(crate) struct Words {
    record: [u8; LONGEST],
}

impl Words {
    pub(crate) fn new() -> Words {
        let mut record = [0; LONGEST];
        record.iter_mut().zip(WORDS).for_each(|(to, byte)| *to = byte);
        Words { record }
    }

    /// Room for a message.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.record.get_mut(WORDS.len()..).unwrap_or_default()
    }

    /// The record with a message of this length in it.
    pub(crate) fn encode(&self, length: usize) -> &[u8] {
        self.record.get(..WORDS.len() + length).unwrap_or_default()
    }

    /// The message in a record, unless it has none.
    pub(crate) fn decode(record: &[u8]) -> Option<String> {
        record.strip_prefix(&WORDS).map(log_message)
    }
}

/// What the child says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// Every op is done; execve comes next.
    Exec,
    /// The container's first process, as a sibling of the one that says so.
    Cloned {
        /// PID in the pid namespace of whoever is speaking: the parent's own.
        pid: libc::pid_t,
    },
    /// A command of `exec` has ended.
    Ended {
        /// Whether by a signal.
        killed: bool,
        /// The signal, or what it exited with.
        status: i32,
    },
    /// Op number `op` failed.
    Failed {
        /// Index into the script's ops.
        op: u16,
        /// The call and its error.
        failure: Failure,
    },
    /// Op number `op` failed, and the container starts without what it was for.
    Skipped {
        /// Index into the script's ops.
        op: u16,
        /// The call and its error.
        failure: Failure,
    },
}

impl Report {
    /// The record: magic, kind and op, call, errno; native byte order, both ends are one program.
    pub(crate) fn encode(self) -> [u8; SIZE] {
        let (kind, op, call, errno) = match self {
            Report::Exec => (1u16, 0u16, 0, 0),
            Report::Failed { op, failure } => (2, op, failure.call, failure.errno),
            Report::Skipped { op, failure } => (4, op, failure.call, failure.errno),
            Report::Cloned { pid } => (3, 0, pid, 0),
            Report::Ended { killed, status } => (6, 0, killed as i32, status),
        };
        let [m0, m1, m2, m3] = MAGIC.to_ne_bytes();
        let [k0, k1] = kind.to_ne_bytes();
        let [o0, o1] = op.to_ne_bytes();
        let [c0, c1, c2, c3] = call.to_ne_bytes();
        let [e0, e1, e2, e3] = errno.to_ne_bytes();
        [m0, m1, m2, m3, k0, k1, o0, o1, c0, c1, c2, c3, e0, e1, e2, e3]
    }

    /// The report in a record, unless it is none.
    pub(crate) fn decode(record: &[u8]) -> Option<Report> {
        let record: [u8; SIZE] = record.try_into().ok()?;
        let word =
            |at: usize| i32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([record[at], record[at + 1]]);
        if word(0) as u32 != MAGIC {
            return None;
        }
        match half(4) {
            1 => Some(Report::Exec),
            3 => Some(Report::Cloned { pid: word(8) }),
            6 => Some(Report::Ended { killed: word(8) != 0, status: word(12) }),
            2 => Some(Report::Failed { op: half(6), failure: Failure { call: word(8), errno: word(12) } }),
            4 => Some(Report::Skipped { op: half(6), failure: Failure { call: word(8), errno: word(12) } }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_channel() {
        let failure = Failure { call: 429, errno: 22 };
        for report in [
            Report::Exec,
            Report::Cloned { pid: 4194304 },
            Report::Ended { killed: true, status: 9 },
            Report::Failed { op: 513, failure },
            Report::Skipped { op: 513, failure },
        ] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
    }

    #[test]
    fn words_survive_the_channel() {
        let mut words = Words::new();
        let message = b"e overlay: no";
        words.room()[..message.len()].copy_from_slice(message);
        assert_eq!(Words::decode(words.encode(message.len())).as_deref(), Some("overlay: no"));
        assert_eq!(Words::decode(&Report::Exec.encode()), None);
    }

    #[test]
    fn strangers_are_not_reports() {
        assert_eq!(Report::decode(b"hello"), None);
        assert_eq!(Report::decode(&[0; SIZE]), None);
    }
}
