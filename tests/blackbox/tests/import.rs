//! `nixrun import` of what is hostile, broken or too large, killed in the middle; `nixrun export` of what runs or has
//! other ids: whole or not at all.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use blackbox::{Host, Point, calls, listing, on_host, wait_for};
use fixture::Kind;
use nix::sys::signal::Signal;
use nixrun::archive::member::{Member, Records, What};
use nixrun::archive::zstd::Encoder;

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn member(path: &str, what: What) -> Member {
    Member { path: path.into(), what, mode: 0o755, uid: 0, gid: 0, changed: (0, 0), attributes: Vec::new() }
}

fn file(path: &str, data: &[u8]) -> (Member, Vec<u8>) {
    (member(path, What::File { size: data.len() as u64, parts: None }), data.to_vec())
}

fn padded(mut data: Vec<u8>) -> Vec<u8> {
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

/// A member as it stands in an archive, under another name if one is given.
fn written(member: &Member, data: &[u8], name: Option<&str>) -> Vec<u8> {
    let (records, mut header, map) = member.encode();
    let mut bytes = Vec::new();
    let records = Records::encode(&records);
    if !records.is_empty() {
        let (mut extended, data) = file("x", &records);
        extended.mode = 0;
        let (_, mut header, _) = extended.encode();
        header.as_mut_bytes()[156] = b'x';
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(padded(data));
    }
    if let Some(name) = name {
        header.as_mut_bytes()[..100].fill(0);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
    }
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(padded([map, data.to_vec()].concat()));
    bytes
}

/// An archive of a container called bad, with these files below its root.
fn archive(conf: &str, files: &[(Member, Vec<u8>)]) -> Vec<u8> {
    let manifest = serde_json::json!({
        "format": 1, "name": "bad", "nixrun": "1", "date": "", "root": true, "conf": {"mode": 420, "text": conf},
    });
    let text = |name: &str, text: String| {
        let (member, data) = file("x", text.as_bytes());
        written(&member, &data, Some(name))
    };
    let root = (member("", What::Directory), Vec::new());
    let all: Vec<_> = std::iter::once(&root).chain(files).collect();
    let bytes: u64 = all.iter().map(|(member, _)| member.data()).sum();
    let end = serde_json::json!({"files": all.len(), "bytes": bytes});
    let mut plain = text("nixrun.json", manifest.to_string());
    all.iter().for_each(|(member, data)| plain.extend(written(member, data, None)));
    plain.extend(text("nixrun.end", end.to_string()));
    plain.extend([0; 1024]);
    plain
}

fn compressed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn put(host: &Host<'_>, bytes: &[u8]) -> PathBuf {
    let path = host.path("bad.tar.zst");
    fs::write(&path, bytes).unwrap();
    path
}

/// A configured container with a small root, its archive, and what the root is like.
fn exported(host: &Host<'_>) -> (PathBuf, Vec<String>) {
    host.install(Kind::Mini, "web");
    let root = host.root_of("web");
    fs::create_dir_all(root.join("etc/deep")).unwrap();
    fs::write(root.join("etc/file"), vec![7; 100_000]).unwrap();
    fs::write(root.join("etc/deep/file"), "text").unwrap();
    symlink("file", root.join("etc/link")).unwrap();
    let file = host.path("web.tar.zst");
    host.ok(&["export", "web", shown(&file)]);
    (file, listing(&root))
}

fn forget(host: &Host<'_>, name: &str) {
    fs::remove_file(host.path("etc/nixos-containers").join(format!("{name}.conf"))).unwrap();
    fs::remove_dir_all(host.root_of(name)).unwrap();
}

#[test]
fn nothing_outside_of_the_root_is_touched_by_a_hostile_archive() {
    on_host(|host| {
        let victim = host.path("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("file"), "host").unwrap();
        let root = host.root_of("bad");
        fs::create_dir_all(root.parent().unwrap()).unwrap();
        let (before, untouched) = (host.snapshot(), listing(&victim));
        let outside = shown(&victim).to_owned();
        let up = format!("{}{outside}/file", "../".repeat(30));
        let link = |path: &str, to: &str| (member(path, What::Symlink(to.into())), Vec::new());
        let hard = |path: &str, to: &str| (member(path, What::HardLink(to.into())), Vec::new());
        let directory = |path: &str| (member(path, What::Directory), Vec::new());
        let huge = |size| (member("huge", What::File { size, parts: Some(vec![]) }), Vec::new());
        let holes = What::File { size: 10, parts: Some(vec![(8, 5)]) };
        for (files, says) in [
            (vec![file(&up, b"evil")], "has .."),
            (vec![file("../../victim/file", b"evil")], "has .."),
            (vec![file("/etc/evil", b"evil")], "no names"),
            (vec![file("a/./b", b"evil")], "no names"),
            (vec![link("a", &outside), file("a/file", b"evil")], "\"a/file\""),
            (vec![link("a", &outside), directory("a")], "\"a\": File exists"),
            (vec![link("a", &outside), hard("b", "a/file")], "\"b\""),
            (vec![link("a", &format!("{outside}/file")), file("a", b"evil")], "\"a\": File exists"),
            (vec![hard("a", &format!("..{outside}/file"))], "has .."),
            (vec![file("a", b"one"), file("a", b"two")], "\"a\": File exists"),
            (vec![directory("a"), directory("a")], "\"a\": File exists"),
            (vec![directory("")], "there twice"),
            (vec![file("none/file", b"")], "\"none/file\": No such file"),
            (vec![hard("a", "none")], "\"a\": No such file"),
            (vec![huge(u64::MAX)], "\"huge\""),
            (vec![(member("a", holes), vec![0; 5])], "holes make no sense"),
        ] {
            let path = put(host, &compressed(&archive("", &files)));
            let said = host.fails(1, &["import", shown(&path)]);
            assert!(said.contains(says) && said.contains("nothing was kept"), "{said}");
            before.assert_same(&host.snapshot(), says);
            assert_eq!(listing(&victim), untouched);
        }
        // What is odd and does no harm.
        let device = What::Device { block: false, number: (1, 3) };
        let fine = [link("a", &outside), file("b", b""), (member("null", device), Vec::new())];
        host.ok(&["import", shown(&put(host, &compressed(&archive("", &fine))))]);
        assert_eq!(fs::read_link(root.join("a")).unwrap(), victim);
        assert_eq!(fs::metadata(root.join("null")).unwrap().rdev(), nix::sys::stat::makedev(1, 3));
        assert_eq!(listing(&victim), untouched);
    });
}

#[test]
fn addresses_that_are_taken_are_replaced_by_free_ones() {
    on_host(|host| {
        let conf =
            |n: u8| format!("PRIVATE_NETWORK=1\nHOST_ADDRESS=10.233.{n}.1\nLOCAL_ADDRESS=10.233.{n}.2\n");
        host.write("etc/nixos-containers/web.conf", &conf(1), 0o644);
        let path = put(host, &compressed(&archive(&conf(1), &[])));
        let imported = |args: &[&str]| -> serde_json::Value {
            let output = host.run(&[&["import", "--json", shown(&path)], args].concat());
            serde_json::from_slice(&output.stdout).unwrap()
        };
        let json = imported(&[]);
        assert_eq!(json["addresses"], serde_json::json!(["10.233.2.2"]), "{json}");
        assert!(json["warnings"][0].as_str().unwrap().contains("10.233.1.2 is container web's"), "{json}");
        let text = fs::read_to_string(host.path("etc/nixos-containers/bad.conf")).unwrap();
        assert_eq!(text, conf(2));
        assert_eq!(imported(&["third"])["addresses"], serde_json::json!(["10.233.3.2"]));
        fs::remove_file(host.path("etc/nixos-containers/web.conf")).unwrap();
        let json = imported(&["same"]);
        assert_eq!(
            (&json["addresses"][0], &json["warnings"]),
            (&"10.233.1.2".into(), &serde_json::json!([]))
        );
        assert_eq!(imported(&["--new-addresses", "fifth"])["addresses"][0], "10.233.4.2");
    });
}

#[test]
fn what_is_broken_or_no_archive_is_refused_and_leaves_nothing() {
    on_host(|host| {
        fs::create_dir_all(host.path("var/lib/nixos-containers")).unwrap();
        let before = host.snapshot();
        let plain = archive("", &[file("a", &[1; 5000])]);
        let whole = compressed(&plain);
        let refused = |bytes: &[u8], says: &str| {
            let said = host.fails(1, &["import", shown(&put(host, bytes))]);
            assert!(said.contains(says), "{says}: {said}");
            before.assert_same(&host.snapshot(), says);
        };
        refused(b"", "cut off");
        refused(b"no archive at all, but long enough for a header", "cannot import");
        refused(&compressed(&[b'x'; 4096]), "no archive");
        refused(&compressed(&plain[512..]), "no archive");
        // At every block, as if the disk had been full.
        for blocks in 3..plain.len() / 512 - 3 {
            refused(&compressed(&plain[..blocks * 512]), "cut off");
        }
        for at in [whole.len() / 2, whole.len() - 3] {
            let mut changed = whole.clone();
            changed[at] ^= 0x40;
            refused(&changed, "cannot import");
            refused(&whole[..at], "broken or cut off");
        }
        refused(&compressed(&archive("HOST_ADDRESS=nonsense\n", &[])), "HOST_ADDRESS");
        let later = String::from_utf8_lossy(&plain).replacen("\"format\":1", "\"format\":2", 1);
        refused(&compressed(later.as_bytes()), "has format 2");
        let said = host.fails(1, &["import", shown(&put(host, &whole)), "../bad"]);
        assert!(said.contains("cannot name a container"), "{said}");
        fs::create_dir(host.root_of("bad")).unwrap();
        let said = host.fails(1, &["import", shown(&put(host, &whole))]);
        assert!(said.contains("which exists"), "{said}");
        assert!(host.root_of("bad").is_dir());
        host.ok(&["import", shown(&put(host, &whole)), "other"]);
    });
}

#[test]
fn a_full_disk_leaves_nothing_and_touches_nobody() {
    on_host(|host| {
        let (path, _) = exported(host);
        let lib = host.path("var/lib");
        forget(host, "web");
        host.sh(&format!("mount -t tmpfs -o size=64k tmpfs {}", lib.display()));
        fs::create_dir_all(host.path("var/lib/nixos-containers/other")).unwrap();
        fs::write(host.path("var/lib/nixos-containers/other/data"), "data").unwrap();
        let before = host.snapshot();
        let said = host.fails(1, &["import", shown(&path)]);
        assert!(said.contains("No space left on device") && said.contains("nothing was kept"), "{said}");
        before.assert_same(&host.snapshot(), "after an import onto a full disk");
        let data = fs::read_to_string(host.path("var/lib/nixos-containers/other/data"));
        assert_eq!(data.unwrap(), "data");
        // An export onto a full disk has no file.
        host.sh(&format!("umount {}", lib.display()));
        host.ok(&["import", shown(&path)]);
        let full = host.path("full");
        fs::create_dir(&full).unwrap();
        host.sh(&format!("mount -t tmpfs -o size=4k tmpfs {}", full.display()));
        fs::write(host.root_of("web").join("random"), fs::read("/proc/self/exe").unwrap()).unwrap();
        let said = host.fails(1, &["export", "web", shown(&full.join("web"))]);
        assert!(said.contains("No space left on device"), "{said}");
        assert_eq!(fs::read_dir(&full).unwrap().count(), 0);
        host.sh(&format!("umount {}", full.display()));
    });
}

/// Calls that change something.
const EFFECTS: [&str; 14] = [
    "mkdir",
    "mkdirat",
    "mknodat",
    "rename",
    "renameat",
    "renameat2",
    "fsync",
    "syncfs",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "fchownat",
];

#[test]
fn killed_at_any_step_it_is_there_whole_or_not_at_all() {
    on_host(|host| {
        let (path, before) = exported(host);
        forget(host, "web");
        let clean = host.snapshot();
        let trace = host.path("output/trace");
        fs::create_dir_all(trace.parent().unwrap()).unwrap();
        let done = host.traced(&["-o", shown(&trace)], &["import", shown(&path)]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        forget(host, "web");
        let all = calls(&trace);
        let mut points: Vec<&Point> =
            all.iter().filter(|point| EFFECTS.contains(&point.name.as_str())).collect();
        points.extend(all.iter().filter(|point| point.name == "openat" || point.name == "write").step_by(9));
        assert!(points.len() > 30, "{points:?}");
        let mut whole = 0;
        for point in points {
            let fault = format!("inject={}:signal=KILL:when={}", point.name, point.nth);
            let killed =
                host.traced(&["-o", "/dev/null", "-e", &fault], &["import", shown(&path)]).output().unwrap();
            assert!(!killed.status.success(), "{point:?}");
            let again = host.run(&["import", shown(&path)]);
            let said = String::from_utf8_lossy(&again.stderr).into_owned();
            whole += usize::from(said.contains("there is a container called that"));
            assert!(
                again.status.success() || said.contains("there is a container called that"),
                "{point:?}: {said}"
            );
            assert_eq!(listing(&host.root_of("web")), before, "{point:?}");
            forget(host, "web");
            // Killed between its last two steps: the directory of all changes goes with the next one that ends.
            host.sh(&format!(
                "rmdir {0}/changes {0} 2>/dev/null || true",
                host.path("var/lib/nixrun").display()
            ));
            clean.assert_same(&host.snapshot(), &format!("killed at {point:?}"));
        }
        // Killed after the last step, nothing is undone.
        assert!(whole > 0);
    });
}

#[test]
fn what_runs_is_exported_only_on_demand_and_goes_on_whatever_happens() {
    on_host(|host| {
        host.install(Kind::Mini, "web");
        let container = host.boot("web");
        let group = PathBuf::from(container.state().unwrap()["cgroup"].as_str().unwrap());
        let frozen = || fs::read_to_string(group.join("cgroup.freeze")).unwrap().trim() == "1";
        let path = host.path("web.tar.zst");
        let said = host.fails(1, &["export", "web", shown(&path)]);
        assert!(said.contains("it is running") && said.contains("--running") && !path.exists(), "{said}");
        host.ok(&["export", "--running", "web", shown(&path)]);
        assert!(!frozen());
        // Frozen as long as it is written; killed, it is let go on by the next command.
        fs::write(host.root_of("web").join("random"), fs::read("/proc/self/exe").unwrap()).unwrap();
        let mut command = host.nixrun(&["export", "--running", "web", "-"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        wait_for("the container to be frozen", || frozen().then_some(()));
        let said = host.fails(1, &["export", "--running", "web", shown(&host.path("second"))]);
        assert!(said.contains("is being changed by process"), "{said}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(frozen());
        host.ok(&["export", "--running", "--force", "web", shown(&path)]);
        assert!(!frozen());
        // One that nobody reads any more.
        let mut child =
            host.nixrun(&["export", "--running", "web", "-"]).stdout(Stdio::piped()).spawn().unwrap();
        wait_for("the container to be frozen", || frozen().then_some(()));
        drop(child.stdout.take());
        assert!(!child.wait().unwrap().success());
        assert!(!frozen());
        host.inside("web", "true");
        container.signal(Signal::SIGTERM);
        container.wait();
    });
}

#[test]
fn the_archive_has_the_containers_ids_whatever_the_hosts_were() {
    on_host(|host| {
        let base = 0x10_0000_u32;
        host.install(Kind::Mini, "web");
        let root = host.root_of("web");
        host.sh(&format!(
            "mkdir -p {0}/srv; cd {0}/srv; echo > file; chown 1000:100 file; setfacl -m u:7:r file",
            root.display()
        ));
        let original = listing(&root.join("srv"));
        host.set_conf("web", &[("PRIVATE_USERS", Some(&base.to_string()))]);
        host.write("etc/nixrun/web.json", r#"{"privateUsersOwnership": "chown"}"#, 0o640);
        host.boot("web").stop();
        assert_eq!(fs::metadata(root.join("srv/file")).unwrap().uid(), base + 1000);
        let path = host.path("web.tar.zst");
        host.ok(&["export", "web", shown(&path)]);
        let names = host.sh(&format!("tar --zstd --numeric-owner -tvf {}", path.display()));
        assert!(
            names.lines().any(|line| line.contains("1000/100") && line.ends_with("root/srv/file")),
            "{names}"
        );
        // Given to the range at its next start.
        let json = host.path("etc/nixrun/web.json");
        fs::remove_file(&json).unwrap();
        forget(host, "web");
        host.ok(&["import", shown(&path)]);
        assert_eq!(fs::metadata(&json).unwrap().mode() & 0o777, 0o640);
        assert_eq!(listing(&root.join("srv")), original);
        host.boot("web").stop();
        // Said to fit already: given to the range now.
        fs::remove_file(&json).unwrap();
        let shifted = listing(&root.join("srv"));
        host.ok(&["export", "--force", "web", shown(&path)]);
        forget(host, "web");
        host.ok(&["import", shown(&path)]);
        assert_eq!(listing(&root.join("srv")), shifted);
        host.boot("web").stop();
    });
}
