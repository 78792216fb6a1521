//! Systems made by Nix, the one program that nixrun starts.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runtime::HostPaths;
use runtime::rootfs::Root;

use super::{CONFIGURATION, Progress, Source, configuration, data, profile, source, store};
use crate::files;
use crate::lookup::lookup;
use crate::ops::{self, Error, Result};

/// Links to what has been built and belongs to no profile yet: roots of the garbage collector, like all below gcroots.
const ROOTS: &str = "/nix/var/nix/gcroots/nixrun";
/// Where configurations lie while they are built.
const BUILDS: &str = "/run/nixrun/.builds";

/// A system in the store. Dropping it leaves the system to the garbage collector, unless it has been installed.
#[derive(Debug)]
pub struct Obtained {
    /// Its store path.
    pub system: PathBuf,
    /// The configuration that it was built from, if that is to be kept in the container's root.
    pub configuration: Option<String>,
    source: Source,
    _root: Option<TemporaryRoot>,
}

impl Obtained {
    /// Keeps the configuration in the container's root, which is there, and makes the system the current generation,
    /// whose number it returns.
    ///
    /// # Errors
    /// When one of the two cannot be written.
    pub fn install(&self, name: &str, paths: &HostPaths) -> Result<u64> {
        self.keep_configuration(name, paths)?;
        let number = profile::add(name, &self.system, paths)?;
        self.remember(name, paths)?;
        Ok(number)
    }

    /// Remembers what the next one is compared with.
    pub(super) fn remember(&self, name: &str, paths: &HostPaths) -> Result<()> {
        data::remember(name, &self.source, paths)
    }

    /// Keeps the configuration in the container's root, which is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_configuration(&self, name: &str, paths: &HostPaths) -> Result<()> {
        let Some(text) = &self.configuration else { return Ok(()) };
        let root = Root::open(&ops::root_of(name, paths))?;
        root.write(Path::new(CONFIGURATION), text.as_bytes())?;
        Ok(())
    }
}

/// A link that keeps what was built from the garbage collector.
#[derive(Debug)]
struct TemporaryRoot(PathBuf);

impl Drop for TemporaryRoot {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = self.0.parent().map(fs::remove_dir);
    }
}

/// Removes what a build of this container that was killed has left.
pub(super) fn forget(name: &str, paths: &HostPaths) {
    drop(TemporaryRoot(paths.join(ROOTS).join(name)));
    drop(Staged::at(name, paths));
}

/// What came of a source: the system, the configuration that is to be kept, what keeps the system from being collected.
type Built = (PathBuf, Option<String>, Option<TemporaryRoot>);

/// Makes or finds the system of container `name`. `nixos_path` is where nixpkgs' `nixos` is, `<nixpkgs/nixos>` when
/// `None`.
///
/// Building starts Nix, which works for the store below the host's root.
///
/// # Errors
/// When there is no such system, Nix is missing or its build fails: a sentence with the last line that it said.
pub fn obtain(
    name: &str,
    source: &Source,
    nixos_path: Option<&Path>,
    paths: &HostPaths,
    progress: Progress<'_>,
) -> Result<Obtained> {
    let (system, configuration, root) = make(name, source, nixos_path, paths, progress)?;
    Ok(Obtained { system, configuration, source: source.clone(), _root: root })
}

fn make(
    name: &str,
    source: &Source,
    nixos_path: Option<&Path>,
    paths: &HostPaths,
    progress: Progress<'_>,
) -> Result<Built> {
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .map_err(|error| Error::Other(format!("cannot find {}: {error}", path.display())))
    };
    match source {
        Source::SystemPath(path) => Ok((existing(&absolute(path)?, paths)?, None, None)),
        Source::Flake(flake) => build(name, Nix::flake(flake), None, paths, progress),
        Source::Kept => {
            let file = configuration(name, paths);
            let root = Root::open(&ops::root_of(name, paths));
            if !root.is_ok_and(|root| root.contains(Path::new(CONFIGURATION))) {
                return Err(Error::Other(format!(
                    "cannot build a system for container {name}: there is no {}; give it one with --config or \
                     --config-file, or a system by --flake or --system-path",
                    file.display()
                )));
            }
            build(name, Nix::module(&file, nixos_path), None, paths, progress)
        }
        Source::Config(attributes) => module(name, attributes, nixos_path, paths, progress),
        Source::ConfigFile(file) => {
            let file = absolute(file)?;
            fs::metadata(&file).map_err(|error| {
                Error::Other(format!("cannot read the configuration {}: {error}", file.display()))
            })?;
            let import = source::import(&file).ok_or_else(|| {
                Error::Other(format!("cannot import {}: its name is no UTF-8", file.display()))
            })?;
            module(name, &import, nixos_path, paths, progress)
        }
    }
}

/// Built from a place of the host's; the container's root gets it when the system is good.
fn module(
    name: &str,
    attributes: &str,
    nixos_path: Option<&Path>,
    paths: &HostPaths,
    progress: Progress<'_>,
) -> Result<Built> {
    let text = source::module(name, attributes);
    let staged = Staged::write(name, &text, paths)?;
    build(name, Nix::module(&staged.0, nixos_path), Some(text.clone()), paths, progress)
}

/// A configuration on its way.
struct Staged(PathBuf);

impl Staged {
    fn at(name: &str, paths: &HostPaths) -> Staged {
        Staged(paths.join(BUILDS).join(format!("{name}.nix")))
    }

    fn write(name: &str, text: &str, paths: &HostPaths) -> Result<Staged> {
        let staged = Staged::at(name, paths);
        let directory = paths.join(BUILDS);
        fs::create_dir_all(&directory)
            .and_then(|()| files::replace(&staged.0, text.as_bytes(), 0o600))
            .map_err(|error| Error::Other(format!("cannot write {}: {error}", staged.0.display())))?;
        Ok(staged)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        for directory in self.0.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// A system that is there already.
pub(super) fn existing(path: &Path, paths: &HostPaths) -> Result<PathBuf> {
    let wrong = |problem: String| {
        Error::Other(format!(
            "{} is no NixOS system: {problem}; expected /nix/store/HASH-nixos-system-…",
            path.display()
        ))
    };
    let found = lookup(paths, path).map_err(|error| wrong(error.to_string()))?;
    if !store::is_path(&found.path) {
        return Err(wrong(format!("{} is no path of the Nix store", found.path.display())));
    }
    let init =
        lookup(paths, &found.path.join("init")).map_err(|error| wrong(format!("its init: {error}")))?;
    if !init.metadata.is_file() || init.metadata.permissions().mode() & 0o111 == 0 {
        return Err(wrong("its init is not an executable file".to_owned()));
    }
    Ok(found.path)
}

/// A call of Nix that builds one thing.
struct Nix {
    program: &'static str,
    args: Vec<OsString>,
}

impl Nix {
    fn module(configuration: &Path, nixos_path: Option<&Path>) -> Nix {
        let mut setting = OsString::from("nixos-config=");
        setting.push(configuration);
        let nixos = nixos_path.map_or_else(|| "<nixpkgs/nixos>".into(), |path| path.as_os_str().to_owned());
        Nix { program: "nix-build", args: vec![nixos, "-A".into(), "system".into(), "-I".into(), setting] }
    }

    fn flake(flake: &str) -> Nix {
        let args = ["build", "--extra-experimental-features", "nix-command flakes", "--print-build-logs"];
        let mut args: Vec<OsString> = args.map(Into::into).into();
        args.push(source::installable(flake).into());
        Nix { program: "nix", args }
    }
}

fn build(
    name: &str,
    nix: Nix,
    configuration: Option<String>,
    paths: &HostPaths,
    progress: Progress<'_>,
) -> Result<Built> {
    let root = TemporaryRoot(paths.join(ROOTS).join(name));
    let failed = |why: String| Error::Other(format!("cannot build a system for container {name}: {why}"));
    fs::create_dir_all(paths.join(ROOTS))
        .map_err(|error| failed(format!("cannot make {}: {error}", paths.join(ROOTS).display())))?;
    let Nix { program, mut args } = nix;
    args.extend(["--out-link".into(), root.0.clone().into_os_string()]);
    args.extend(store_options(paths));
    run(program, &args, paths, progress).map_err(failed)?;
    let system = fs::read_link(&root.0)
        .map_err(|error| failed(format!("{program} has left no link to what it built: {error}")))?;
    let system = existing(&system, paths)?;
    Ok((system, configuration, Some(root)))
}

/// A line of a builder, or of a container: no escape sequence of its goes to the administrator's terminal.
pub(super) fn plain(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

/// Which store Nix is to work for: another host's lies below its root, and is called /nix/store all the same.
pub(super) fn store_options(paths: &HostPaths) -> Vec<OsString> {
    if paths.root() == Path::new("/") {
        return Vec::new();
    }
    vec!["--store".into(), paths.root().as_os_str().to_owned()]
}

/// Runs one of Nix's programs to its end; what it says on stderr is passed on line by line.
pub(super) fn run(
    program: &str,
    args: &[OsString],
    paths: &HostPaths,
    progress: Progress<'_>,
) -> std::result::Result<Vec<u8>, String> {
    let mut command = Command::new(program);
    if paths.root() != Path::new("/") {
        // As `lookup` does: links may be part of how that root was put together.
        command.env("NIX_IGNORE_SYMLINK_STORE", "1");
    }
    let mut child = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("there is no {program} in PATH; install Nix, or name a system that is built with --system-path")
            }
            _ => format!("cannot start {program}: {error}"),
        })?;
    let stdout = child.stdout.take();
    // The two are read at the same time: neither pipe may fill up.
    let (out, last) = std::thread::scope(|scope| {
        let out = scope.spawn(|| {
            let mut out = Vec::new();
            let _ = stdout.map(|mut stdout| io::Read::read_to_end(&mut stdout, &mut out));
            out
        });
        let mut last = String::new();
        for line in child.stderr.take().map(BufReader::new).into_iter().flat_map(|err| err.split(b'\n')) {
            let Ok(line) = line else { break };
            let line = plain(&line);
            progress(&line);
            if !line.trim().is_empty() {
                last = line;
            }
        }
        (out.join().unwrap_or_default(), last)
    });
    let status = child.wait().map_err(|error| format!("cannot wait for {program}: {error}"))?;
    if status.success() {
        return Ok(out);
    }
    let last = last.trim();
    Err(format!("{program} failed ({status}): {}", if last.is_empty() { "it did not say why" } else { last }))
}
