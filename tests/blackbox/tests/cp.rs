//! `nixrun cp`: files go in and come out as they are, and no symlink of a container leads to the host's.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use blackbox::{Host, listing, on_host};
use fixture::Kind;
use runtime::sys::fd::set_xattr_at;

/// A directory of the host with files of most kinds.
fn sample(host: &Host<'_>) -> PathBuf {
    let top = host.path("sample");
    fs::create_dir(&top).unwrap();
    host.sh(&format!(
        "cd {}; mkdir -p a/b empty; echo hello > a/file; ln a/file a/b/same; ln -s ../file a/b/link; ln -s /etc/passwd out; \
         mkfifo a/fifo; truncate -s 10M holes; echo end >> holes; chown 1000:100 a/file a/b; chmod 640 a/file; \
         chmod 1770 a/b; chmod 711 empty; setfacl -m u:7:rwx a/b; touch -d '2001-01-01 00:00:00.5' a/b a/file empty",
        top.display()
    ));
    set_xattr_at(File::open(top.join("a")).unwrap().as_fd(), c"file", c"user.x", b"\n").unwrap();
    top
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn empty(directory: &Path) {
    fs::remove_dir_all(directory).unwrap();
    fs::create_dir(directory).unwrap();
}

fn there_and_back(host: &Host<'_>, top: &Path) {
    let (before, back) = (listing(top), host.path("back"));
    host.ok(&["cp", shown(top), "web:/srv/new"]);
    host.ok(&["cp", "web:/srv/new", shown(&back)]);
    assert_eq!(listing(&back), before);
    // Again, over what is there, and by a directory to lie in.
    host.ok(&["cp", shown(top), "web:srv"]);
    host.ok(&["cp", shown(top), "web:srv"]);
    fs::remove_dir_all(&back).unwrap();
    fs::create_dir(&back).unwrap();
    host.ok(&["cp", "web:/srv/sample", shown(&back)]);
    assert_eq!(listing(&back.join("sample")), before);
    // A file, and what is in a directory.
    host.ok(&["cp", "web:srv/sample/a/b/link", shown(&back.join("one"))]);
    assert_eq!(fs::read_to_string(back.join("one")).unwrap(), "hello\n");
    host.ok(&["cp", "web:srv/sample/a/.", shown(&back)]);
    assert_eq!(fs::metadata(back.join("file")).unwrap().uid(), 1000);
    fs::remove_dir_all(&back).unwrap();
}

#[test]
fn files_go_in_and_come_out_as_they_are() {
    on_host(|host| {
        host.install(Kind::Mini, "web");
        let top = sample(host);
        let never = host.fails(1, &["cp", shown(&top), "web:/"]);
        assert!(never.contains("container web") && never.contains("never started"), "{never}");
        let container = host.boot("web");
        host.inside("web", "mkdir /srv; mkdir /tmp/mounted; echo mounted > /tmp/mounted/file");
        there_and_back(host, &top);
        assert_eq!(host.inside("web", "stat -c %u:%g:%a /srv/new/a/file"), "1000:100:640\n");
        // What is mounted in it is seen while it runs.
        host.ok(&["cp", "web:/tmp/mounted", shown(&host.path("mounted"))]);
        assert_eq!(fs::read_to_string(host.path("mounted/file")).unwrap(), "mounted\n");
        container.stop();
        empty(&host.root_of("web").join("srv"));
        there_and_back(host, &top);
        let missing = host.fails(1, &["cp", "web:/srv/none", "/tmp"]);
        assert!(missing.contains("web:/srv/none: No such file"), "{missing}");
        let missing = host.fails(1, &["cp", shown(&top), "web:/none/at/all"]);
        assert!(missing.contains("web:/none/at/all: No such file"), "{missing}");
        assert!(host.fails(1, &["cp", "a", "b"]).contains("neither is in a container"));
        assert!(host.fails(1, &["cp", "wob:/a", "b"]).contains("did you mean \"web\""));
    });
}

#[test]
fn owners_are_the_containers_with_a_user_namespace() {
    on_host(|host| {
        host.install(Kind::Mini, "web");
        host.set_conf("web", &[("PRIVATE_USERS", Some("pick"))]);
        let top = sample(host);
        let container = host.boot("web");
        assert_ne!(container.state().unwrap()["users"]["base"], 0);
        host.inside("web", "mkdir /srv");
        there_and_back(host, &top);
        host.inside("web", "mkdir -m 700 /srv/own; chown 5:6 /srv/own");
        host.ok(&["cp", shown(&top), "web:/srv/own/copy"]);
        let stat = "stat -c %u:%g:%a /srv/own /srv/own/copy /srv/own/copy/a/file /srv/own/copy/a/b";
        assert_eq!(host.inside("web", stat), "5:6:700\n0:0:755\n1000:100:640\n1000:100:1770\n");
        container.stop();
        empty(&host.root_of("web").join("srv"));
        there_and_back(host, &top);
    });
}

#[test]
fn no_symlink_of_the_container_leads_to_the_hosts_files() {
    on_host(|host| {
        host.install(Kind::Mini, "web");
        let container = host.boot("web");
        let (secret, file) = (host.path("secret"), host.path("file"));
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("key"), "secret").unwrap();
        fs::write(&file, "new").unwrap();
        let root = host.root_of("web");
        symlink(&secret, root.join("absolute")).unwrap();
        symlink("../../../../../../../../../../../../../..".to_owned() + shown(&secret), root.join("upward"))
            .unwrap();
        symlink(secret.join("key"), root.join("key")).unwrap();
        symlink(format!("/proc/1/root{}", shown(&secret)), root.join("magic")).unwrap();
        let untouched = listing(&secret);
        for running in [true, false] {
            for link in ["absolute", "upward", "magic"] {
                host.fails(1, &["cp", &format!("web:/{link}/key"), shown(&host.path("out"))]);
                host.fails(1, &["cp", shown(&file), &format!("web:/{link}/key")]);
                host.fails(1, &["cp", shown(&file), &format!("web:/{link}/new")]);
            }
            host.fails(1, &["cp", "web:/key", shown(&host.path("out"))]);
            assert!(!host.path("out").exists());
            assert_eq!(listing(&secret), untouched);
            if running {
                // Not through the link: in its place.
                host.ok(&["cp", shown(&file), "web:/key"]);
                assert_eq!(fs::read_to_string(root.join("key")).unwrap(), "new");
                assert_eq!(listing(&secret), untouched);
                fs::remove_file(root.join("key")).unwrap();
                symlink(secret.join("key"), root.join("key")).unwrap();
                host.ok(&["kill", "web"]);
            }
        }
        drop(container);
    });
}

#[test]
fn rights_stay_in_the_container() {
    on_host(|host| {
        host.install(Kind::Mini, "web");
        let container = host.boot("web");
        let out = host.path("out");
        host.inside(
            "web",
            "mkdir /srv; echo > /srv/tool; chmod 6755 /srv/tool; mknod /srv/null c 1 3; chmod 666 /srv/null",
        );
        let srv = File::open(host.root_of("web").join("srv")).unwrap();
        let capability = [0x0200_0001_u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
        set_xattr_at(srv.as_fd(), c"tool", c"security.capability", &capability).unwrap();
        let said = host.run(&["cp", "web:/srv", shown(&out)]);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("\"null\" is a device node"), "{said}");
        assert_eq!(fs::metadata(out.join("tool")).unwrap().permissions().mode() & 0o7777, 0o755);
        assert!(!out.join("null").exists());
        assert!(!listing(&out).concat().contains("security.capability"));
        container.stop();
    });
}
