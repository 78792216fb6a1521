//! `NAME.containers` in hosts(5): a block of lines in the host's /etc/hosts, and in those of containers, that is kept after
//! one list of all running containers with addresses. Foreign lines stay as they are, to the byte.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use runtime::HostPaths;

use crate::files;
use crate::inside::{Content, Inside};

/// All names, a line each as hosts(5) has them.
pub const LIST: &str = "/run/nixrun/.names/hosts";
/// The directory that is locked by flock(2) meanwhile: it is there as long as any container runs, and needs no file.
const LOCKED: &str = "/run/nixrun";
/// The host's file.
const HOSTS: &str = "/etc/hosts";
/// Where a new one is written, by whoever holds the lock.
const TEMPORARY: &str = "/etc/.hosts.nixrun";
/// The file inside, in /etc.
const INSIDE: &str = "hosts";
/// How often to begin anew with a file that others change meanwhile.
const TRIES: usize = 5;
/// The lines around ours.
const BEGIN: &str = "# nixrun: containers that run; nixrun rewrites the lines down to the end mark";
const END: &str = "# nixrun: end";
/// What all names end in, as those that NixOS writes.
const DOMAIN: &str = ".containers";

/// What became of the host's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFile {
    /// It has the names.
    Kept,
    /// It was left as it is, which is why.
    LeftAlone(&'static str),
}

/// Makes a container known under its name. It is in the journal before.
///
/// # Errors
/// What the kernel says of either file.
pub fn enter(paths: &HostPaths, name: &str, addresses: &[IpAddr]) -> io::Result<HostFile> {
    let lines = addresses.iter().map(|address| format!("{address} {name}{DOMAIN}"));
    update(paths, name, lines.collect()).map(|(_, host)| host)
}

/// Makes it unknown again, and the host's file what the list says, whatever was left undone before. Whether anything had to
/// be done.
///
/// # Errors
/// As of [`enter`].
pub fn leave(paths: &HostPaths, name: &str) -> io::Result<bool> {
    // Where nothing is left of any name.
    match update(paths, name, Vec::new()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|(changed, _)| changed),
    }
}

/// Gives a running container the names of the others, in a file that is there, or, if `make`, that is not. How many there
/// are; `None` where the file is a link or no file, and stays.
///
/// # Errors
/// What the kernel says of the container's file.
pub fn tell_neighbour(
    paths: &HostPaths,
    name: &str,
    inside: &Inside,
    make: bool,
) -> io::Result<Option<usize>> {
    let mut lines = read_list(paths)?;
    lines.retain(|line| !is_of(line, name));
    let (old, there) = match inside.read(INSIDE)? {
        Content::File(old) => (old, true),
        Content::Missing => (Vec::new(), false),
        Content::Other => return Ok(None),
    };
    let new = with_block(&old, &lines);
    if new != old && (there || make) {
        inside.replace(INSIDE, &new)?;
    }
    Ok(Some(lines.len()))
}

/// Puts `lines` in the place of those that container `name` has.
fn update(paths: &HostPaths, name: &str, lines: Vec<String>) -> io::Result<(bool, HostFile)> {
    let locked = File::open(paths.join(LOCKED))?;
    let _lock = Flock::lock(locked, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let old = read_list(paths)?;
    let mut all: Vec<String> = old.iter().filter(|line| !is_of(line, name)).cloned().collect();
    all.extend(lines);
    // With no name left also what somebody has left there who was killed before there was one.
    if all != old || all.is_empty() {
        write_list(paths, &all)?;
    }
    let (written, host) = write_hosts(paths, &all)?;
    Ok((written || all != old, host))
}

fn is_of(line: &str, name: &str) -> bool {
    let known = line.split(' ').nth(1).and_then(|known| known.strip_suffix(DOMAIN));
    known == Some(name)
}

fn read_list(paths: &HostPaths) -> io::Result<Vec<String>> {
    match fs::read_to_string(paths.join(LIST)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        text => Ok(text?.lines().map(str::to_owned).collect()),
    }
}

fn write_list(paths: &HostPaths, lines: &[String]) -> io::Result<()> {
    let list = paths.join(LIST);
    let directory = list.parent().unwrap_or(Path::new("/"));
    if lines.is_empty() {
        // With what somebody who was killed has left beside it.
        return match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
    }
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    files::replace(&list, text.as_bytes(), 0o644)
}

/// Whether the host's file had to be written, and what became of it.
fn write_hosts(paths: &HostPaths, lines: &[String]) -> io::Result<(bool, HostFile)> {
    let left_alone = |why| Ok((false, HostFile::LeftAlone(why)));
    let (path, temporary) = (paths.join(HOSTS), paths.join(TEMPORARY));
    // Of somebody who was killed.
    let _ = fs::remove_file(&temporary);
    let found = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return left_alone("there is none"),
        found => found?,
    };
    if found.is_symlink() {
        return left_alone("it is a symbolic link, as where NixOS writes it");
    }
    if !found.is_file() {
        return left_alone("it is no file");
    }
    for _ in 0..TRIES {
        let old = fs::read(&path)?;
        let new = with_block(&old, lines);
        if new == old {
            return Ok((false, HostFile::Kept));
        }
        match replace(&path, &temporary, &old, &new) {
            Ok(true) => return Ok((true, HostFile::Kept)),
            Ok(false) => {}
            Err(error) if error.raw_os_error() == Some(libc::EROFS) => {
                return left_alone("its file system is read-only");
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("others keep changing it"))
}

/// Replaces a file by one with the same owner, mode and attributes; one that is a mount point, in place. `false` when it is
/// no longer what it was.
fn replace(path: &Path, temporary: &Path, old: &[u8], new: &[u8]) -> io::Result<bool> {
    let write = || {
        let from = File::open(path)?;
        let found = from.metadata()?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(found.mode() & 0o7777).open(temporary)?;
        std::os::unix::fs::fchown(&file, Some(found.uid()), Some(found.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(found.mode() & 0o7777))?;
        runtime::sys::fd::copy_xattrs(file.as_fd(), from.as_fd())
            .map_err(|error| io::Error::from(error.errno()))?;
        file.write_all(new)?;
        file.sync_all()?;
        // Others know nothing of our lock.
        let same = fs::read(path)? == old;
        if same {
            fs::rename(temporary, path)?;
        }
        Ok(same)
    };
    let written: io::Result<bool> = write();
    if !matches!(written, Ok(true)) {
        let _ = fs::remove_file(temporary);
    }
    match written {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => in_place(path, new).map(|()| true),
        Ok(true) => files::sync_parent(path).map(|()| true),
        written => written,
    }
}

/// For a file that another is mounted over, by its name: nothing can be renamed there.
fn in_place(path: &Path, new: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    // Cut at the end, not first: whoever reads it meanwhile finds the lines that come before ours.
    file.write_all(new)?;
    file.set_len(new.len() as u64)?;
    file.sync_all()
}

/// A hosts(5) file with these lines of ours in place of those it has; with none it is what it was before there were any.
/// New ones come last, or before a last line without an end.
#[must_use]
pub fn with_block(text: &[u8], lines: &[String]) -> Vec<u8> {
    let mut kept: Vec<u8> = Vec::with_capacity(text.len() + 64 * lines.len());
    let mut place = None;
    let mut inside = false;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if bare == BEGIN.as_bytes() {
            inside = true;
            place.get_or_insert(kept.len());
        } else if inside && bare == END.as_bytes() {
            inside = false;
        } else if !(inside && bare.ends_with(DOMAIN.as_bytes())) {
            // Whatever somebody has written between the marks is theirs.
            kept.extend_from_slice(line);
        }
    }
    if lines.is_empty() {
        return kept;
    }
    let place =
        place.unwrap_or_else(|| kept.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    let mut block = format!("{BEGIN}\n");
    lines.iter().for_each(|line| {
        block.push_str(line);
        block.push('\n');
    });
    block.push_str(END);
    block.push('\n');
    kept.splice(place..place, block.into_bytes());
    kept
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn host(hosts: &[u8]) -> (tempfile::TempDir, HostPaths) {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["etc", "run/nixrun"] {
            fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        fs::write(dir.path().join("etc/hosts"), hosts).unwrap();
        let paths = HostPaths::below(dir.path());
        (dir, paths)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_comes_and_goes_and_foreign_bytes_stay() {
        let line = ["10.0.0.2 web.containers".to_owned()];
        for text in [
            &b""[..],
            b"127.0.0.1 localhost\n",
            b"127.0.0.1 localhost",
            b"127.0.0.1 localhost\r\n\n\n",
            b"\xff\xfe\n10.0.0.9 other.containers\n# nixrun: end\n",
        ] {
            let with = with_block(text, &line);
            assert_eq!(with_block(&with, &line), with, "twice");
            assert!(String::from_utf8_lossy(&with).contains("\n10.0.0.2 web.containers\n# nixrun: end\n"));
            assert_eq!(with_block(&with, &[]), text);
        }
        // Others' lines between ours, and a mark that was lost.
        let mixed = format!("a\n{BEGIN}\n10.0.0.2 web.containers\n1.2.3.4 theirs\n{END}\nb\n");
        assert_eq!(with_block(mixed.as_bytes(), &[]), b"a\n1.2.3.4 theirs\nb\n");
        let broken = format!("a\n{BEGIN}\n10.0.0.2 web.containers\nb\n");
        assert_eq!(with_block(broken.as_bytes(), &[]), b"a\nb\n");
    }

    #[test]
    fn names_come_and_go_in_the_list_and_in_the_hosts_file() {
        let (dir, paths) = host(b"127.0.0.1 localhost\n");
        let hosts = dir.path().join("etc/hosts");
        fs::set_permissions(&hosts, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(enter(&paths, "web", &[address("10.0.0.2"), address("fd00::2")]).unwrap(), HostFile::Kept);
        enter(&paths, "web.two", &[address("10.0.0.3")]).unwrap();
        enter(&paths, "web", &[address("10.0.0.4")]).unwrap();
        let text = fs::read_to_string(&hosts).unwrap();
        let lines = "10.0.0.3 web.two.containers\n10.0.0.4 web.containers\n";
        assert_eq!(text, format!("127.0.0.1 localhost\n{BEGIN}\n{lines}{END}\n"));
        assert_eq!(fs::read_to_string(paths.join(LIST)).unwrap(), lines);
        assert_eq!(fs::metadata(&hosts).unwrap().mode() & 0o777, 0o640);
        assert!(leave(&paths, "web").unwrap());
        assert!(!leave(&paths, "web").unwrap());
        assert!(leave(&paths, "web.two").unwrap());
        assert_eq!(fs::read(&hosts).unwrap(), b"127.0.0.1 localhost\n");
        assert_eq!(fs::read_dir(dir.path().join("run/nixrun")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_one_left_is_put_right_by_the_next() {
        let (dir, paths) = host(b"127.0.0.1 localhost\n");
        enter(&paths, "web", &[address("10.0.0.2")]).unwrap();
        // Killed between the list and the file, and while it wrote; and a host that was switched off.
        fs::remove_dir_all(dir.path().join("run/nixrun/.names")).unwrap();
        fs::write(paths.join(TEMPORARY), "half").unwrap();
        assert!(leave(&paths, "web").unwrap());
        assert_eq!(fs::read(dir.path().join("etc/hosts")).unwrap(), b"127.0.0.1 localhost\n");
        assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 1);
        // Killed before there was a list.
        fs::create_dir(dir.path().join("run/nixrun/.names")).unwrap();
        fs::write(dir.path().join("run/nixrun/.names/.hosts.123"), "half").unwrap();
        leave(&paths, "web").unwrap();
        assert_eq!(fs::read_dir(dir.path().join("run/nixrun")).unwrap().count(), 0);
    }

    #[test]
    fn a_link_and_no_file_at_all_are_left_alone_and_the_list_is_kept() {
        let (dir, paths) = host(b"");
        let hosts = dir.path().join("etc/hosts");
        fs::remove_file(&hosts).unwrap();
        let left = |host| matches!(host, HostFile::LeftAlone(_));
        assert!(left(enter(&paths, "web", &[address("10.0.0.2")]).unwrap()));
        fs::write(dir.path().join("static"), "x\n").unwrap();
        symlink("../static", &hosts).unwrap();
        assert!(left(enter(&paths, "web", &[address("10.0.0.3")]).unwrap()));
        assert_eq!(fs::read(dir.path().join("static")).unwrap(), b"x\n");
        assert_eq!(fs::read_to_string(paths.join(LIST)).unwrap(), "10.0.0.3 web.containers\n");
        assert!(leave(&paths, "web").unwrap());
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let (dir, paths) = host(b"localhost\n");
        let all = |job: &(dyn Fn(usize) + Sync)| {
            std::thread::scope(|threads| {
                for n in 0..8 {
                    threads.spawn(move || job(n));
                }
            });
        };
        all(&|n| {
            enter(&paths, &format!("c{n}"), &[address(&format!("10.0.0.{n}"))]).unwrap();
        });
        let text = fs::read_to_string(dir.path().join("etc/hosts")).unwrap();
        assert_eq!(text.matches(DOMAIN).count(), 8, "{text}");
        all(&|n| {
            leave(&paths, &format!("c{n}")).unwrap();
        });
        assert_eq!(fs::read(dir.path().join("etc/hosts")).unwrap(), b"localhost\n");
    }
}
