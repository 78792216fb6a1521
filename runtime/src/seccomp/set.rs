//! Sets of system calls, looked up by name while the crate is compiled: a policy costs a few unions at run time.

use super::groups::GROUPS;
use super::syscalls::{P, SYSCALLS};

const WORDS: usize = SYSCALLS.len().div_ceil(64);

/// A set of system calls: bit N stands for the Nth of [`SYSCALLS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SyscallSet([u64; WORDS]);

impl SyscallSet {
    pub(super) const EMPTY: SyscallSet = SyscallSet([0; WORDS]);

    pub(super) const fn contains(&self, index: usize) -> bool {
        self.0[index / 64] & 1 << (index % 64) != 0
    }

    const fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    pub(super) const fn union(mut self, other: &SyscallSet) -> SyscallSet {
        let mut i = 0;
        while i < WORDS {
            self.0[i] |= other.0[i];
            i += 1;
        }
        self
    }

    pub(super) const fn difference(mut self, other: &SyscallSet) -> SyscallSet {
        let mut i = 0;
        while i < WORDS {
            self.0[i] &= !other.0[i];
            i += 1;
        }
        self
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        SYSCALLS.iter().enumerate().filter(move |(i, _)| self.contains(*i)).map(|(_, (name, _))| *name)
    }

    /// The set of these names and groups, separated by blanks. A name that is not in the tables ends the build when
    /// this is evaluated for a constant, which is the only use.
    pub(super) const fn of(words: &str) -> SyscallSet {
        let (mut rest, mut set) = (words.as_bytes(), SyscallSet::EMPTY);
        while !rest.is_empty() {
            let mut end = 0;
            while end < rest.len() && rest[end] != b' ' {
                end += 1;
            }
            let (word, tail) = rest.split_at(end);
            match (word, index_of(word)) {
                ([b'@', ..], _) => match group_index(word) {
                    Some(group) => set = set.union(&SyscallSet::of(GROUPS[group].1)),
                    None => panic!("a group of system calls names another that is not there"),
                },
                (_, Some(index)) => set.insert(index),
                (_, None) => panic!("a group of system calls has a member without a number"),
            }
            rest = if tail.is_empty() { tail } else { tail.split_at(1).1 };
        }
        set
    }

    /// The name of a call or a group that `name` is a slip of the keyboard for.
    pub(super) fn nearest(name: &str) -> Option<&'static str> {
        let groups = GROUPS.iter().map(|(group, _)| *group).chain(["@known"]);
        let calls = SYSCALLS.iter().map(|(call, _)| *call);
        match name.starts_with('@') {
            true => crate::nearest::nearest(name, groups),
            false => crate::nearest::nearest(name, calls),
        }
    }

    /// The calls that a user's `name` means: a system call, or a group with its `@`.
    pub(super) fn named(name: &str) -> Option<SyscallSet> {
        if name == "@known" {
            return Some(KNOWN);
        } else if name.starts_with('@') {
            return group_index(name.as_bytes()).map(|group| GROUP_SETS[group]);
        }
        let mut set = SyscallSet::EMPTY;
        set.insert(index_of(name.as_bytes())?);
        Some(set)
    }
}

static GROUP_SETS: [SyscallSet; GROUPS.len()] = {
    let (mut sets, mut i) = ([SyscallSet::EMPTY; GROUPS.len()], 0);
    while i < GROUPS.len() {
        sets[i] = SyscallSet::of(GROUPS[i].1);
        i += 1;
    }
    sets
};

/// libsystemd's `@known`.
pub(super) const KNOWN: SyscallSet = {
    let (mut set, mut i) = (SyscallSet::EMPTY, 0);
    while i < SYSCALLS.len() {
        set.insert(i);
        i += 1;
    }
    set.difference(&SyscallSet::of("nfsservctl"))
};

/// System call numbers in use lie in two windows, 0 to 511 and the few private to arm; a slot is a place in them.
const SLOTS: usize = LOW + 8;
const LOW: usize = 512;

/// The number that belongs to `slot`.
pub(super) const fn number_of_slot(slot: usize) -> u32 {
    if slot < LOW { slot as u32 } else { P + (slot - LOW) as u32 }
}

/// By architecture (in the order of the table) and slot, the index in [`SYSCALLS`] or [`NO_CALL`].
pub(super) static BY_SLOT: [[u16; SLOTS]; 4] = {
    let (mut slots, mut i) = ([[NO_CALL; SLOTS]; 4], 0);
    while i < SYSCALLS.len() {
        let mut abi = 0;
        while abi < 4 {
            let number = SYSCALLS[i].1[abi];
            if number != super::syscalls::X {
                let slot = if number < P { number as usize } else { LOW + (number - P) as usize };
                assert!(slots[abi][slot] == NO_CALL, "two names have one number");
                // What follows the last slot of a window takes over its verdict.
                assert!(slot != LOW - 1 && slot != SLOTS - 1, "a window of numbers is full");
                slots[abi][slot] = i as u16;
            }
            abi += 1;
        }
        i += 1;
    }
    slots
};

/// No system call has this number.
pub(super) const NO_CALL: u16 = u16::MAX;

/// Place of a system call in [`SYSCALLS`].
pub(super) const fn index_of(name: &[u8]) -> Option<usize> {
    let (mut low, mut high) = (0, SYSCALLS.len());
    while low < high {
        let middle = low.midpoint(high);
        match compare(SYSCALLS[middle].0.as_bytes(), name) {
            0 => return Some(middle),
            order if order < 0 => low = middle + 1,
            _ => high = middle,
        }
    }
    None
}

const fn group_index(name: &[u8]) -> Option<usize> {
    let mut i = 0;
    while i < GROUPS.len() {
        if compare(GROUPS[i].0.as_bytes(), name) == 0 {
            return Some(i);
        }
        i += 1;
    }
    None
}

/// Byte order, negative when `a` comes first; `Ord` cannot be used while compiling.
const fn compare(a: &[u8], b: &[u8]) -> i32 {
    let mut i = 0;
    while i < a.len() && i < b.len() {
        if a[i] != b[i] {
            return a[i] as i32 - b[i] as i32;
        }
        i += 1;
    }
    a.len() as i32 - b.len() as i32
}
