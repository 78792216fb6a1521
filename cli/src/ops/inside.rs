//! What a person does inside a running container: a command as root after a login, root's shell, a login prompt.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use runtime::HostPaths;
use runtime::instance::State;
use runtime::rootfs::Root;
use runtime::supervisor::Attached;
use runtime::sys::process::Ended;

use super::control::running;
use super::error::{Error, Result};
use super::exec::{self, ExecRequest, PATH};
use super::show::not_running;

/// As whom, and to do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Session {
    /// Root, with the environment of a login, runs this command.
    Command(Vec<OsString>),
    /// Root gets a login shell.
    RootShell,
    /// Somebody is asked who it is.
    Prompt,
}

/// Begins a session inside a running container, and stays until it ends.
///
/// # Errors
/// When the container does not run, is paused, or has no program for it.
pub fn session(
    name: &str,
    session: &Session,
    terminal: bool,
    attached: &Attached<'_>,
    paths: &HostPaths,
) -> Result<Ended> {
    let state = running(name, paths)?;
    let root = root_of(&state, paths)?;
    let argv = match session {
        Session::Command(command) => as_root(&root, Some(command)),
        Session::RootShell => as_root(&root, None),
        Session::Prompt => prompt(&root, name)?,
    };
    let request =
        ExecRequest { name: name.to_owned(), argv, env: Vec::new(), cwd: None, terminal, streams: None };
    exec::exec_in(&state, &request, attached)
}

/// What a running container sees as its `/`.
pub(crate) fn root_of(state: &State, paths: &HostPaths) -> Result<Root> {
    let root = Root::open(Path::new(&format!("/proc/{}/root/.", state.leader.pid)));
    // The path was the leader's only if the leader still lives.
    match (root, state.leader.open()) {
        (_, None) => Err(not_running(&state.name, paths)),
        (root, Some(_)) => Ok(root?),
    }
}

/// By su(1), as nixos-container does: it reads the user database, PAM and the shell's own files, whatever these are in this
/// container. One without su gets root's shell from its passwd file.
fn as_root(root: &Root, command: Option<&[OsString]>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = match find(root, "su") {
        Some(su) => vec![su.into(), "-l".into(), "root".into()],
        None => vec![shell(root), "-l".into()],
    };
    argv.extend(command.into_iter().flat_map(|command| ["-c".into(), script(command)]));
    argv
}

/// A command line for a shell that becomes this command, whatever is in its words.
fn script(command: &[OsString]) -> OsString {
    let mut script = b"exec".to_vec();
    for word in command {
        script.extend_from_slice(b" '");
        for byte in word.as_bytes() {
            match byte {
                b'\'' => script.extend_from_slice(b"'\\''"),
                byte => script.push(*byte),
            }
        }
        script.push(b'\'');
    }
    OsString::from_vec(script)
}

/// getty(8) with login(1), as `machinectl login` has it; login asks by itself where there is no getty.
fn prompt(root: &Root, name: &str) -> Result<Vec<OsString>> {
    let Some(login) = find(root, "login") else {
        return Err(Error::Other(format!(
            "cannot log in to container {name}: there is no login program in it; `nixrun root-login {name}` needs none"
        )));
    };
    let Some(agetty) = find(root, "agetty") else {
        return Ok(vec![login.into()]);
    };
    // `-`: the terminal is the one that it has. Its own default for login is a path that NixOS has not.
    let options = ["--noreset", "--noclear", "--login-program"].map(OsString::from);
    Ok([agetty.into()].into_iter().chain(options).chain([login.into(), "-".into()]).collect())
}

/// Root's shell in the container's passwd file, or /bin/sh.
fn shell(root: &Root) -> OsString {
    let passwd = root.read(Path::new("/etc/passwd")).unwrap_or_default();
    let shell = passwd.lines().find_map(|line| line.strip_prefix("root:")?.split(':').nth(5));
    shell.filter(|shell| shell.starts_with('/')).unwrap_or("/bin/sh").into()
}

/// Where a program is in the container, by the path that `exec` looks it up in.
fn find(root: &Root, program: &str) -> Option<PathBuf> {
    let places = PATH.split(':').map(|place| Path::new(place).join(OsStr::new(program)));
    places.into_iter().find(|path| root.contains(path))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_command_is_quoted_for_the_shell() {
        let words = ["echo", "a b", "it's", "", "$HOME", "-c"].map(OsString::from);
        assert_eq!(script(&words), r"exec 'echo' 'a b' 'it'\''s' '' '$HOME' '-c'");
    }

    #[test]
    fn programs_are_found_within_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(as_root(&root, None), ["/bin/sh", "-l"]);
        assert!(prompt(&root, "web").unwrap_err().to_string().contains("no login program"));
        fs::create_dir_all(at("etc")).unwrap();
        fs::create_dir_all(at("usr/bin")).unwrap();
        fs::write(at("etc/passwd"), "a:x:1:1::/:/bin/no\nroot:x:0:0:r:/root:/bin/zsh\n").unwrap();
        assert_eq!(as_root(&root, Some(&["a".into()])), ["/bin/zsh", "-l", "-c", "exec 'a'"]);
        // Absolute in the container, and nothing of the host's.
        std::os::unix::fs::symlink("/usr/bin/real", at("usr/bin/su")).unwrap();
        assert_eq!(as_root(&root, None)[0], "/bin/zsh");
        fs::write(at("usr/bin/real"), "").unwrap();
        assert_eq!(as_root(&root, None), ["/usr/bin/su", "-l", "root"]);
        assert_eq!(as_root(&root, Some(&["a".into()])), ["/usr/bin/su", "-l", "root", "-c", "exec 'a'"]);
        fs::write(at("usr/bin/login"), "").unwrap();
        assert_eq!(prompt(&root, "web").unwrap(), ["/usr/bin/login"]);
        fs::write(at("usr/bin/agetty"), "").unwrap();
        let getty = ["/usr/bin/agetty", "--noreset", "--noclear", "--login-program", "/usr/bin/login", "-"];
        assert_eq!(prompt(&root, "web").unwrap(), getty);
    }
}
