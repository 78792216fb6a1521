use super::*;

fn again(member: &Member) -> Member {
    let (records, header, map) = member.encode();
    let records = Records::parse(&Records::encode(&records)).unwrap();
    let size = header.entry_size().unwrap();
    assert_eq!(size, member.data() + map.len() as u64);
    Member::decode(&header, &records, size, &mut &map[..]).unwrap()
}

fn member(path: &str, what: What) -> Member {
    let changed = (1_700_000_000, 123_456_789);
    let attributes = vec![(b"user.x".to_vec(), b"a\n=\0b".to_vec()), (b"user.y".to_vec(), vec![])];
    Member { path: path.into(), what, mode: 0o4751, uid: 1000, gid: 4_000_000_000, changed, attributes }
}

#[test]
fn every_kind_of_member_comes_back() {
    let long = "x/".repeat(1000) + "y";
    let whole = |size| What::File { size, parts: None };
    let holes = What::File { size: 1 << 40, parts: Some(vec![(0, 4096), (1 << 30, 5)]) };
    let empty = What::File { size: 1 << 20, parts: Some(vec![]) };
    for what in [
        What::Directory,
        whole(0),
        whole(1 << 40),
        holes,
        empty,
        What::Symlink("../../etc".into()),
        What::Symlink(long.clone().into()),
        What::HardLink(long.clone().into()),
        What::Fifo,
        What::Device { block: true, number: (259, 1_048_575) },
        What::Device { block: false, number: (0, 0) },
    ] {
        for path in ["a", "a b/ü\n", &long, &"z".repeat(96), &"z".repeat(95)] {
            let member = member(path, what.clone());
            assert_eq!(again(&member), member);
        }
    }
    let root = member("", What::Directory);
    assert_eq!(again(&root), root);
    for changed in [(-1, 0), (-2, 500_000_000), (1 << 40, 1), (0, 999_999_999)] {
        let member = Member { changed, ..member("a", whole(3)) };
        assert_eq!(again(&member), member);
    }
}

#[test]
fn records_of_every_length_have_theirs() {
    for length in 0..2000 {
        let records = vec![(b"SCHILY.xattr.user.a".to_vec(), vec![b'x'; length])];
        assert_eq!(Records::parse(&Records::encode(&records)).unwrap(), Records(records));
    }
    for bad in [&b"5 a=b\n"[..], b"x a=b\n", b"6 a=b", b"99 a=b\n", b"6 a=b\n6 a=c\n", b"6 abc\n", b"1 "] {
        Records::parse(bad).unwrap_err();
    }
}

#[test]
fn a_name_leads_nowhere_else() {
    for name in [
        "",
        "etc",
        "/root/a",
        "rootx",
        "root//a",
        "root/..",
        "root/a/../b",
        "root/./a",
        "root/a//b",
        "root/",
        "root/a\0b",
        "root/a/",
        "root/a/.",
    ] {
        assert!(path_below(name.as_bytes()).is_err(), "{name:?}");
    }
    assert!(path_below(&[b"root/", &vec![b'x'; 4096][..]].concat()).is_err());
    assert_eq!(path_below(b"root/a/..b").unwrap(), Path::new("a/..b"));
}
