//! `nixrun export`: a container into a file.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use runtime::instance::{self, State};
use runtime::tree::{self, Shift};
use runtime::{HostPaths, UserNamespace};

use super::freeze::{Frozen, is_frozen};
use super::manifest::{FORMAT, Generation, Manifest, Text};
use super::outfile::OutFile;
use super::write::{WriteError, Writer};
use super::zstd::Encoder;
use super::{Totals, Watch};
use crate::change::{Change, Intent};
use crate::lookup::lookup;
use crate::ops::{Error, Result};
use crate::settings::Settings;
use crate::systems::profile;
use crate::{configured, events, nixos_boot, systems};

/// What is to be exported.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// The container.
    pub name: String,
    /// Although it runs: it stands still meanwhile.
    pub running: bool,
}

/// Where an archive goes.
pub enum Target<'t> {
    /// A file, which has its name only once it is whole.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether it may replace one.
        force: bool,
    },
    /// A stream, such as stdout.
    Stream(&'t mut dyn Write),
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// How much.
    pub totals: Totals,
    /// What the archive does not have as it is in the container, a sentence each.
    pub warnings: Vec<String>,
}

/// Writes a container into an archive.
///
/// # Errors
/// When it runs and was not to, when a file cannot be read, and when the archive cannot be written; there is none then.
pub fn export(
    request: &ExportRequest,
    target: Target<'_>,
    watch: &mut dyn Watch,
    paths: &HostPaths,
) -> Result<Exported> {
    let name = &request.name;
    let settings = Settings::read(name, paths)?;
    if settings.document.image == Some(true) {
        return Err(Error::Other(format!(
            "cannot export container {name}: its root is a disk image; copy that and its configuration instead"
        )));
    }
    let change = Change::begin(name, "export", paths)?;
    let state = running(request, paths)?;
    let root = match &state {
        Some(state) => state.root.clone(),
        None => nixos_boot::root_directory(name, &settings, paths)?,
    };
    let out = Out::open(target, name)?;
    let Some(state) = state else {
        // Nobody starts it while it is read, be it systemd-nspawn.
        let _hold = instance::hold_root(paths, &root)?;
        return write(name, &root, out, watch, paths);
    };
    let result = freeze(&state, &change).and_then(|frozen| {
        let result = write(name, &root, out, watch, paths);
        drop(frozen);
        result
    });
    change.done().and(result)
}

fn write(
    name: &str,
    root: &Path,
    out: Out<'_>,
    watch: &mut dyn Watch,
    paths: &HostPaths,
) -> Result<Exported> {
    let users = Settings::read(name, paths)?.document.users();
    let open = open(root, users).map_err(|why| failed(name, &why))?;
    let ids_from = open.as_ref().map_or(0, |(_, shift)| shift.base());
    let (manifest, mut warnings) = manifest(name, ids_from, open.is_some(), paths)?;
    let mounts = mounts_below(root).into_iter();
    warnings.extend(mounts.map(|mount| format!("what is mounted on {} was left out", mount.display())));
    let (totals, more) = out.write(&manifest, watch, name, |writer| match &open {
        Some((top, shift)) => writer.root(top, *shift),
        None => Ok(()),
    })?;
    warnings.extend(more);
    Ok(Exported { totals, warnings })
}

/// The root, if there is one yet, and how the ids of its files are to be read.
pub(crate) fn open(
    root: &Path,
    users: UserNamespace,
) -> std::result::Result<Option<(OwnedFd, Shift)>, String> {
    let why = |error: io::Error| format!("{}: {error}", root.display());
    let found = match fs::symlink_metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(why)?,
    };
    let shift = match users {
        UserNamespace::Host | UserNamespace::Identity => Shift::from_base(0),
        UserNamespace::Range { base, length }
            if (base..base.saturating_add(length)).contains(&found.uid()) =>
        {
            Shift::from_base(base)
        }
        _ => Shift::of_owner(found.uid()),
    };
    if shift.is_unfinished() {
        let why = "giving its files to other users was interrupted; start it once, which completes that";
        return Err(why.to_owned());
    }
    Ok(Some((tree::alone(root).map_err(why)?, shift)))
}

fn failed(name: &str, why: &str) -> Error {
    Error::Other(format!("cannot export container {name}: {why}"))
}

/// The state of a container that runs, if it may.
fn running(request: &ExportRequest, paths: &HostPaths) -> Result<Option<State>> {
    let name = &request.name;
    let Some(found) = instance::find(paths, name).filter(|found| found.alive) else { return Ok(None) };
    if !request.running {
        return Err(failed(
            name,
            &format!(
                "it is running; stop it with `nixrun stop {name}`, or use --running, which freezes it meanwhile and \
                 takes its files as they are, databases in the middle of what they do"
            ),
        ));
    }
    found.state.map(Some).ok_or_else(|| failed(name, "it is just being started; wait until it runs"))
}

fn freeze(state: &State, change: &Change<'_>) -> Result<Frozen> {
    // If we are killed, the next command on the container lets it go on; one that was paused before stays so.
    if !is_frozen(&state.cgroup) {
        change.intend(&Intent::Thaw { cgroup: state.cgroup.clone() })?;
    }
    Frozen::new(&state.cgroup).map_err(|error| {
        failed(&state.name, &format!("it cannot be frozen by {}: {error}", state.cgroup.display()))
    })
}

fn manifest(name: &str, ids_from: u32, root: bool, paths: &HostPaths) -> Result<(Manifest, Vec<String>)> {
    let files = configured::find(name, paths)?;
    let text = |file: &Option<PathBuf>| -> Result<Option<Text>> {
        let Some(file) = file else { return Ok(None) };
        let read = || -> io::Result<Text> {
            let mode = fs::metadata(file)?.permissions().mode() & 0o777;
            Ok(Text { mode, text: fs::read_to_string(file)? })
        };
        let text = read().map_err(|error| failed(name, &format!("{}: {error}", file.display())))?;
        Ok(Some(text))
    };
    let settings = Settings::read(name, paths)?;
    let generations = profile::list(name, paths)?;
    let present = generations.iter().find(|generation| generation.current);
    let system = match settings.document.system.as_ref().map(|path| path.0.as_path()) {
        Some(path) if path.starts_with(systems::STORE) => lookup(paths, path).ok().map(|found| found.path),
        _ => present.map(|generation| generation.system.clone()),
    };
    let mut warnings = Vec::new();
    if system.is_none() {
        warnings.push(format!("no system of container {name} was found; the archive does not name any"));
    }
    let manifest = Manifest {
        format: FORMAT,
        name: name.to_owned(),
        nixrun: env!("CARGO_PKG_VERSION").to_owned(),
        date: events::rfc3339(SystemTime::now()),
        conf: text(&files.conf)?,
        json: text(&files.json)?,
        system: system.filter(|path| systems::is_store_path(path)),
        generation: present.map(|generation| generation.number),
        generations: generations
            .iter()
            .map(|generation| Generation { number: generation.number, system: generation.system.clone() })
            .collect(),
        ids_from,
        root,
    };
    Ok((manifest, warnings))
}

/// Where something is mounted below a directory, in our mount namespace.
fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    points.filter(|point| point.starts_with(&root) && *point != root).collect()
}

/// A path as in mountinfo, where blanks and their kind are octal numbers.
fn unescaped(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let octal = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// An open target.
enum Out<'t> {
    File(OutFile, PathBuf),
    Stream(&'t mut dyn Write),
}

impl<'t> Out<'t> {
    fn open(target: Target<'t>, name: &str) -> Result<Out<'t>> {
        match target {
            Target::Stream(stream) => Ok(Out::Stream(stream)),
            Target::File { path, force } => match OutFile::create(&path, force) {
                Ok(file) => Ok(Out::File(file, path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Err(failed(name, &format!("{} exists already; --force replaces it", path.display())))
                }
                Err(error) => Err(failed(name, &format!("cannot write {}: {error}", path.display()))),
            },
        }
    }

    fn write(
        self,
        manifest: &Manifest,
        watch: &mut dyn Watch,
        name: &str,
        root: impl FnOnce(
            &mut Writer<'_, Encoder<BufWriter<&mut dyn Write>>>,
        ) -> std::result::Result<(), WriteError>,
    ) -> Result<(Totals, Vec<String>)> {
        let shown = match &self {
            Out::File(_, path) => path.display().to_string(),
            Out::Stream(_) => "stdout".to_owned(),
        };
        let to = |stream: &mut dyn Write| -> std::result::Result<(Totals, Vec<String>), WriteError> {
            let mut writer = Writer::new(Encoder::new(BufWriter::new(stream)), manifest, watch)?;
            root(&mut writer)?;
            let (encoder, totals, warnings) = writer.finish()?;
            encoder.finish()?.flush()?;
            Ok((totals, warnings))
        };
        let why = |error: WriteError| match error {
            WriteError::Write(error) if error.kind() == io::ErrorKind::Interrupted => {
                failed(name, &format!("it was interrupted; {shown} was not written"))
            }
            WriteError::Write(error) => failed(name, &format!("cannot write {shown}: {error}")),
            error @ WriteError::Read { .. } => failed(name, &error.to_string()),
        };
        match self {
            Out::Stream(stream) => to(stream).map_err(why),
            Out::File(mut file, path) => {
                let done = to(file.file()).map_err(why)?;
                file.keep()
                    .map_err(|error| failed(name, &format!("cannot write {}: {error}", path.display())))?;
                Ok(done)
            }
        }
    }
}
