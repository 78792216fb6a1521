//! A host of a test's own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fixture::{Fixture, Kind};

use crate::{Container, Snapshot, nixrun_binary};

/// Runs a test on a host of its own, on a thread that is alone in its namespaces; skips it, saying so, without root.
///
/// # Panics
/// When the test does, and instead of a skip where `NIXRUN_MUST_WORK` is 1.
pub fn on_host(test: impl FnOnce(&Host) + Send) {
    let root = nix::unistd::geteuid().is_root();
    if !support::may_run(if root { Ok(()) } else { Err("containers need root".to_owned()) }) {
        return;
    }
    nixrun_binary();
    let done = support::Host::with(|inner| -> support::Result<()> {
        test(&Host { inner });
        Ok(())
    });
    done.expect("a host of the test's own");
}

/// A host: `--host-root` is [`Host::dir`], whose `run` is /run.
#[derive(Debug)]
pub struct Host<'h> {
    inner: &'h support::Host,
}

impl Host<'_> {
    /// What `--host-root` names.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.inner.root()
    }

    /// A path of this host.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir().join(path.trim_start_matches('/'))
    }

    /// The control group below which everything lives that the test starts with [`Host::command`].
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        self.inner.cgroup()
    }

    /// Root directory of a configured container.
    #[must_use]
    pub fn root_of(&self, name: &str) -> PathBuf {
        self.path("var/lib/nixos-containers").join(name)
    }

    /// Configures a container under `name`.
    ///
    /// # Panics
    /// When the fixture cannot be built.
    pub fn install(&self, kind: Kind, name: &str) -> Fixture {
        let built = fixture::build(kind, 1).expect("the fixture builds");
        fixture::install(&built, self.dir(), name).expect("the fixture installs");
        built
    }

    /// Replaces keys of a container's conf; a value of `None` removes the key.
    ///
    /// # Panics
    /// When the file cannot be changed.
    pub fn set_conf(&self, name: &str, changes: &[(&str, Option<&str>)]) {
        let file = self.path("etc/nixos-containers").join(format!("{name}.conf"));
        let mut text = fs::read_to_string(&file).expect("the conf is there");
        for (key, value) in changes {
            let kept = |line: &&str| !line.trim_start().starts_with(&format!("{key}="));
            text = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
            text.extend(value.map(|value| format!("{key}={value}\n")));
        }
        fs::write(&file, text).expect("the conf can be written");
    }

    /// A program, in the host's control group, with an environment that tests can rely on.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.inner.command(program);
        command.env("TERM", "xterm");
        command
    }

    /// `nixrun` on this host.
    #[must_use]
    pub fn nixrun(&self, args: &[&str]) -> Command {
        let mut command = self.command(nixrun_binary());
        command.arg("--host-root").arg(self.dir()).args(args);
        command
    }

    /// `nixrun` to its end; one that does not come to it is ended, with exit code 124.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command("timeout");
        command.args(["--foreground", "--kill-after=5", "40"]).arg(nixrun_binary());
        command.arg("--host-root").arg(self.dir()).args(args).output().expect("timeout starts")
    }

    /// `nixrun`, which must succeed; its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "nixrun {args:?}: {}: {out}{err}", output.status);
        out
    }

    /// `nixrun`, which must fail with `code` and one sentence; that sentence.
    ///
    /// # Panics
    /// When it succeeds, or says more or less than a sentence.
    #[track_caller]
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "nixrun {args:?}: {out}{err}");
        let lines: Vec<&str> = err.lines().filter(|line| !line.starts_with("nixrun: warning: ")).collect();
        assert!(lines.len() == 1 && lines[0].starts_with("nixrun: "), "not one sentence: {err:?}");
        lines[0]["nixrun: ".len()..].to_owned()
    }

    /// Boots a container in the foreground and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[track_caller]
    pub fn boot(&self, name: &str) -> Container<'_> {
        let container = self.spawn(name, &["boot", name]);
        container.wait_ready();
        container
    }

    /// Starts a nixrun that holds the container `name`.
    #[track_caller]
    pub fn spawn(&self, name: &str, args: &[&str]) -> Container<'_> {
        Container::spawn(self, name, self.nixrun(args))
    }

    /// A shell command inside a container, which must succeed; its output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn inside(&self, name: &str, script: &str) -> String {
        self.ok(&["exec", name, "--", "sh", "-c", script])
    }

    /// Everything of this host that nixrun could change.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self, self.inner)
    }

    /// Ends everything in the host's control group.
    pub fn end_processes(&self) {
        let _ = fs::write(self.cgroup().join("cgroup.kill"), "1");
        let deadline = Instant::now() + Duration::from_secs(10);
        let populated = || fs::read_to_string(self.cgroup().join("cgroup.events")).unwrap_or_default();
        while populated().contains("populated 1") && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Standard output and standard error as text.
#[must_use]
pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

impl Host<'_> {
    /// What a shell command on this host prints; it must succeed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        match self.inner.sh(script) {
            Ok(text) => text,
            Err(error) => panic!("{error}"),
        }
    }

    /// Writes a file of this host, with the directories above it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("directories can be made");
        fs::write(&path, text).expect("the file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode can be set");
    }
}
