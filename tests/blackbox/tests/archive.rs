//! `nixrun export` and `import`: what comes back is what was there, whatever is in it and whatever happens meanwhile.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use blackbox::{Host, listing, on_host};
use fixture::Kind;
use runtime::sys::fd::set_xattr_at;

/// Every kind of file, with everything that a file can have.
const FILL: &str = r"
    set -e; cd $1; umask 022
    mkdir -p etc var/lib/deep var/empty; echo hello > etc/a; ln etc/a etc/b; ln etc/a var/c
    ln -s /etc/passwd etc/link; ln -s $(printf '%300s' x | tr ' ' x) etc/longlink; ln -s ../.. var/up
    mkfifo -m 622 etc/fifo; mknod etc/null c 1 3; mknod etc/disk b 259 1048575
    ln etc/fifo etc/fifo2; ln etc/link etc/link2
    head -c 3000000 /dev/urandom > var/random; chown 1000:100 var/random; chmod 6755 var/random
    head -c 3000000 /dev/zero > var/zeros
    truncate -s 1G var/holes; echo x | dd of=var/holes bs=1M seek=7 conv=notrunc 2>/dev/null; echo y >> var/holes
    echo begin > var/tail; truncate -s 16M var/tail; truncate -s 5M var/hole
    d=$(printf '%100s' d | tr ' ' d); mkdir -p long/$d/$d/$d/$d/$d; echo long > long/$d/$d/$d/$d/$d/$(printf '%200s' f | tr ' ' f)
    touch etc/$(printf '\377\376') 'etc/a line
feed' 'etc/ blank'
    chown 4000000000:65535 etc/fifo2; chown -h 7:8 etc/link
    setfacl -m u:7:rwx,g:9:r var/c var/lib/deep; setfacl -d -m u:7:rwx,g:65533:rx var/lib
    echo inherits > var/lib/after
    chmod 1770 var/lib/deep; chmod 0 var/empty; chmod 2711 .
    touch -h -d '2001-01-01 00:00:00.5' etc/link; touch -d '1965-03-03 01:02:03.456789012' etc/a
    touch -d '2033-01-01 00:00:00.000000001' var var/lib/deep etc/fifo
";

fn fill(host: &Host<'_>, root: &Path) {
    host.write("fill", FILL, 0o755);
    host.sh(&format!("sh {} {}", host.path("fill").display(), root.display()));
    let capability = [0x0200_0001_u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
    let var = File::open(root.join("var")).unwrap();
    set_xattr_at(var.as_fd(), c"random", c"security.capability", &capability).unwrap();
    set_xattr_at(var.as_fd(), c"zeros", c"user.odd", b"a\n=\0b").unwrap();
    set_xattr_at(var.as_fd(), c"up", c"trusted.link", b"").unwrap();
    set_xattr_at(var.as_fd(), c"lib", c"user.long", &[7; 3000]).unwrap();
    let listens = std::os::unix::net::UnixListener::bind(root.join("etc/socket")).unwrap();
    drop(listens);
}

/// A configured container with such a root.
fn filled(host: &Host<'_>, name: &str) -> PathBuf {
    host.install(Kind::Mini, name);
    let root = host.root_of(name);
    fs::create_dir_all(&root).unwrap();
    fill(host, &root);
    root
}

/// Removes the container as if it had never been there; its configuration is returned.
fn forget(host: &Host<'_>, name: &str) -> String {
    let conf = host.path("etc/nixos-containers").join(format!("{name}.conf"));
    let text = fs::read_to_string(&conf).unwrap();
    fs::remove_file(conf).unwrap();
    fs::remove_dir_all(host.root_of(name)).unwrap();
    text
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_was_exported_comes_back_as_it_was() {
    on_host(|host| {
        let root = filled(host, "web");
        let before = listing(&root);
        assert!(before.iter().any(|line| line.contains("with holes")), "{before:#?}");
        let file = host.path("web.tar.zst");
        host.ok(&["export", "web", shown(&file)]);
        let size = fs::metadata(&file).unwrap().len();
        assert!((3_000_000..3_100_000).contains(&size), "holes and zeros take room: {size}");
        assert_eq!(listing(&root), before, "the root was changed");
        let again = host.fails(1, &["export", "web", shown(&file)]);
        assert!(again.contains("exists already"), "{again}");
        host.ok(&["export", "--force", "web", shown(&file)]);

        let conf = forget(host, "web");
        let clean = host.snapshot();
        let json: serde_json::Value =
            serde_json::from_str(&host.ok(&["import", "--json", shown(&file)])).unwrap();
        assert_eq!((&json["name"], &json["missing"]), (&"web".into(), &serde_json::Value::Null), "{json}");
        assert_eq!(json["files"], before.len());
        assert_eq!(listing(&root), before);
        assert_eq!(fs::read_to_string(host.path("etc/nixos-containers/web.conf")).unwrap(), conf);
        assert!(host.fails(1, &["import", shown(&file)]).contains("there is a container called that"));
        forget(host, "web");
        clean.assert_same(&host.snapshot(), "without the container");

        // Through a pipe.
        let nixrun = format!("{} --host-root {}", blackbox::nixrun_binary().display(), host.dir().display());
        host.sh(&format!(
            "cat {} | {nixrun} import -q - other; {nixrun} export other - | zstd -qt",
            shown(&file)
        ));
        assert_eq!(listing(&host.root_of("other")), before);
    });
}

#[test]
fn others_read_the_archive() {
    on_host(|host| {
        let root = filled(host, "web");
        let (file, out) = (host.path("web.tar.zst"), host.path("out"));
        host.ok(&["export", "web", shown(&file)]);
        fs::create_dir(&out).unwrap();
        // GNU tar keeps access control lists in a form of its own; what it has no form for it takes as it is.
        host.sh(&format!(
            "tar --zstd -tf {file} > /dev/null; \
             tar --zstd -xpSf {file} -C {out} --numeric-owner --xattrs --xattrs-include='*' 2>&1; setfacl -Rb {root} {out}",
            file = shown(&file),
            out = shown(&out),
            root = shown(&root)
        ));
        let strip = |lines: Vec<String>| -> Vec<String> {
            // A directory's time changes when its list is removed; tar does not set attributes of symlinks.
            lines.into_iter().filter(|line| !line.contains("trusted.link")).collect()
        };
        assert_eq!(strip(listing(&out.join("root"))), strip(listing(&root)));
        assert!(out.join("nixrun.json").exists() && out.join("nixrun.end").exists());
    });
}
