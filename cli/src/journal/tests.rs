//! Small files of both layouts, with packed fields: the ones that the fuzzer begins with.

use std::fs::File;
use std::io::Write;

use super::*;

const FILES: [&[u8]; 2] = [
    include_bytes!("../../../tests/fuzz/corpus/journal_file/compact"),
    include_bytes!("../../../tests/fuzz/corpus/journal_file/regular"),
];

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn messages(entries: impl IntoIterator<Item = Entry>) -> Vec<String> {
    let text = |entry: Entry| String::from_utf8_lossy(entry.get("MESSAGE").unwrap_or(b"-")).into_owned();
    entries.into_iter().map(text).collect()
}

#[test]
fn both_layouts_and_packed_fields_are_read_in_both_directions() {
    for bytes in FILES {
        let all = ["one", "two, which is packed by lz4", "three, packed by zstd"];
        let open = || {
            let mut journal = Journal::default();
            journal.add(JournalFile::open(file(bytes)).unwrap());
            journal
        };
        assert_eq!(messages(open()), all);
        let mut journal = open();
        assert_eq!(messages(journal.latest(2, |_| true)), all[1..]);
        assert_eq!(messages(journal.by_ref()), [""; 0]);
        assert_eq!(messages(open().latest(9, |entry| entry.is_of_unit("a.service"))), all[1..2]);
        assert_eq!(messages(open().filter(|entry| entry.is_of_unit("b.service"))), [""; 0]);
    }
}

#[test]
fn a_copy_of_an_entry_is_shown_once() {
    let mut journal = Journal::default();
    let mut copy = FILES[1].to_vec();
    copy[24] = b'G';
    copy[72] = b'T';
    for bytes in [FILES[1], &copy] {
        journal.add(JournalFile::open(file(bytes)).unwrap());
        journal.add(JournalFile::open(file(bytes)).unwrap());
    }
    assert_eq!(journal.count(), 3);
}

#[test]
fn what_is_no_journal_or_a_newer_one_is_refused() {
    let damaged = |at: usize, with: &[u8]| {
        let mut bytes = FILES[1].to_vec();
        bytes[at..at + with.len()].copy_from_slice(with);
        JournalFile::open(file(&bytes))
    };
    assert!(matches!(JournalFile::open(file(b"LPKSHHRH")), Err(Fault::Foreign)));
    assert!(matches!(damaged(0, b"l"), Err(Fault::Foreign)));
    assert!(matches!(damaged(12, &[0x20]), Err(Fault::Newer(0x20))));
    // The chain of arrays: nowhere, and back to where it began.
    assert!(matches!(damaged(176, &[1]), Err(Fault::Damaged { .. })));
    let first = u64::from_le_bytes(FILES[1][176..184].try_into().unwrap()) as usize;
    assert!(matches!(damaged(first + 16, &FILES[1][176..184]), Err(Fault::Damaged { .. })));
    // More entries than there is room for are none, nor is a hole of any length.
    assert_eq!(damaged(152, &[0xff; 8]).unwrap().entries(), 3);
}
