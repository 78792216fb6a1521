//! `nixrun import`: a container from a file. It appears whole or not at all.
//!
//! ```text
//! manifest read and checked, nothing made so far
//! intent: the hidden directory        unpack into it, put it on the disk
//! intent: root, configuration, profile    rename, configuration, profile
//! done
//! ```
//! Whoever finds the first intent removes the directory; whoever finds the second removes what had been made.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use runtime::tree::Shift;
use runtime::{HostPaths, Ownership, UserNamespace, instance};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::member::Member;
use super::read::{ReadError, Sink, read};
use super::readdress::readdress;
use super::unpack::Unpacker;
use super::zstd::Decoder;
use super::{Totals, Watch};
use crate::change::{Change, Intent};
use crate::configured::{self, FindError};
use crate::life::remove::RemoveError;
use crate::ops::{Error, Result};
use crate::settings::Settings;
use crate::systems::{self, profile};
use crate::{events, files, json, life, nixos_boot, nixos_conf};

/// What is to be imported.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The archive, for messages.
    pub from: String,
    /// The container's name, if it is not to be the exported one.
    pub name: Option<String>,
    /// Whether it gets other addresses than it had.
    pub new_addresses: bool,
}

/// A container that was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Imported {
    /// Its name.
    pub name: String,
    /// Host path of its root directory; none when it had none, since it was never started.
    pub root: Option<PathBuf>,
    /// Its addresses, without prefixes.
    pub addresses: Vec<String>,
    /// Store path of its system.
    pub system: Option<PathBuf>,
    /// The same when it is not in this host's store: the container cannot start before it is.
    pub missing: Option<PathBuf>,
    /// How many files its root has.
    pub files: u64,
    /// Bytes of data in them.
    pub bytes: u64,
    /// What is not as it was, a sentence each.
    pub warnings: Vec<String>,
}

/// What an import that was cut short may have left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// The directory that becomes the root.
    hidden: PathBuf,
    /// Directories around it that were not there before.
    around: Vec<PathBuf>,
    /// What comes after it.
    placed: Option<Placed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Placed {
    root: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl Leftover {
    /// Removes it.
    ///
    /// # Errors
    /// When something cannot be removed; what is left is removed by another call.
    pub(crate) fn undo(&self, change: &Change<'_>) -> Result<()> {
        let name = change.name();
        let failed = |path: &Path, error: &dyn std::fmt::Display| {
            Error::Other(format!(
                "cannot remove {}, which an interrupted import of container {name} left: {error}",
                path.display()
            ))
        };
        if let Some(placed) = &self.placed {
            if fs::symlink_metadata(&self.hidden).is_ok() {
                // It was never renamed: what is in its place, if anything, is not ours.
                let narrow = Leftover { placed: None, ..self.clone() };
                change.intend(&Intent::Import(narrow.clone()))?;
                return narrow.undo(change);
            }
            for file in &placed.files {
                files::sweep(file);
                files::remove(file).map_err(|error| failed(file, &error))?;
            }
            systems::remove_all(name, change.paths())?;
            if let Some(root) = &placed.root {
                remove(root).map_err(|error| failed(root, &error))?;
            }
        }
        remove(&self.hidden).map_err(|error| failed(&self.hidden, &error))?;
        for directory in &self.around {
            let _ = fs::remove_dir(directory);
        }
        Ok(())
    }
}

fn remove(path: &Path) -> std::result::Result<(), RemoveError> {
    life::remove::tree(path).map(drop)
}

/// Makes a container of an archive.
///
/// # Errors
/// When the archive is broken or hostile, when its name is taken, when the disk is full: nothing is left of it then.
pub fn import(
    request: &ImportRequest,
    stream: &mut dyn Read,
    watch: &mut dyn Watch,
    paths: &HostPaths,
) -> Result<Imported> {
    let mut importer = Importer { request, paths, watch: Some(watch), begun: None };
    let read = read(Decoder::new(stream), &mut importer);
    let Some(begun) = importer.begun else {
        return Err(failed(request, read.err().unwrap_or(ReadError::Foreign("it is empty".to_owned()))));
    };
    let Begun { mut plan, change, unpacker } = begun;
    let result = read.map_err(|error| failed(request, error)).and_then(|totals| {
        let unknown = unpacker.map(Unpacker::finish).transpose();
        let unknown = unknown.map_err(|error| failed(request, ReadError::Stream(error)))?;
        let warnings = unknown.unwrap_or_default().into_iter().map(|attribute| {
            format!("the file system of the root has no attributes called {attribute}; files go without")
        });
        plan.place(totals, warnings.collect(), &change)
    });
    match result {
        Ok(imported) => {
            change.done()?;
            events::tell(paths, &imported.name, events::Kind::Created, None);
            Ok(imported)
        }
        Err(error) => {
            let undone = plan.leftover.undo(&change).and_then(|()| change.done());
            Err(match undone {
                Ok(()) => error,
                Err(cleanup) => Error::Other(format!("{error}; while cleaning up: {cleanup}")),
            })
        }
    }
}

fn failed(request: &ImportRequest, error: ReadError) -> Error {
    let from = &request.from;
    let broken = "; nothing was kept of it";
    Error::Other(match error {
        ReadError::Refused(error) => error.to_string(),
        error @ (ReadError::Foreign(_) | ReadError::Manifest(_)) => format!("cannot import {from}: {error}"),
        ReadError::Stream(error) | ReadError::Make { source: error, .. }
            if error.kind() == io::ErrorKind::Interrupted =>
        {
            format!("cannot import {from}: it was interrupted{broken}")
        }
        error => format!("cannot import {from}: {error}{broken}"),
    })
}

/// From the manifest on.
struct Begun<'i> {
    plan: Plan,
    change: Change<'i>,
    unpacker: Option<Unpacker<'i>>,
}

struct Importer<'i> {
    request: &'i ImportRequest,
    paths: &'i HostPaths,
    watch: Option<&'i mut dyn Watch>,
    begun: Option<Begun<'i>>,
}

impl Sink for Importer<'_> {
    fn manifest(&mut self, manifest: Manifest) -> io::Result<()> {
        let (plan, change) = Plan::new(self.request, manifest, self.paths).map_err(io::Error::other)?;
        self.begun = Some(Begun { plan, change, unpacker: None });
        let Some(begun) = &mut self.begun else { return Ok(()) };
        begun.change.intend(&Intent::Import(begun.plan.leftover.clone())).map_err(io::Error::other)?;
        let hidden = &begun.plan.leftover.hidden;
        let make = || -> io::Result<Option<std::os::fd::OwnedFd>> {
            if begun.plan.root.is_none() {
                return Ok(None);
            }
            for directory in begun.plan.leftover.around.iter().rev() {
                // The intent has made some of them, it may be.
                match fs::create_dir(directory) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made?,
                }
            }
            std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(hidden)?;
            Ok(Some(File::open(hidden)?.into()))
        };
        let top = make().map_err(|error| {
            let from = &self.request.from;
            io::Error::other(format!("cannot import {from}: cannot make {}: {error}", hidden.display()))
        })?;
        let shift = begun.plan.shift;
        begun.unpacker = top.zip(self.watch.take()).map(|(top, watch)| Unpacker::new(top, shift, watch));
        Ok(())
    }

    fn member(&mut self, member: Member, data: &mut dyn Read) -> io::Result<()> {
        match self.begun.as_mut().and_then(|begun| begun.unpacker.as_mut()) {
            Some(unpacker) => unpacker.member(member, data),
            None => Err(io::Error::other("there is no root for it")),
        }
    }
}

/// What is going to be made.
struct Plan {
    name: String,
    manifest: Manifest,
    settings: Settings,
    root: Option<PathBuf>,
    /// Configuration files: path, permissions, content.
    files: Vec<(PathBuf, u32, String)>,
    /// Whether it gets addresses of the pool.
    readdress: bool,
    /// What is not going to be as it was.
    warnings: Vec<String>,
    shift: Shift,
    leftover: Leftover,
}

impl Plan {
    fn new<'i>(
        request: &ImportRequest,
        manifest: Manifest,
        paths: &'i HostPaths,
    ) -> Result<(Plan, Change<'i>)> {
        let name = request.name.clone().unwrap_or_else(|| manifest.name.clone());
        let refused =
            |why: String| Error::Other(format!("cannot import {} as {name:?}: {why}", request.from));
        configured::check_name(&name)?;
        let change = Change::begin(&name, "import", paths)?;
        let other = "give it another name: `nixrun import FILE NAME`";
        match configured::find(&name, paths) {
            Err(FindError::Unknown { .. }) => {}
            Ok(_) => return Err(refused(format!("there is a container called that; {other}"))),
            Err(error) => return Err(error.into()),
        }
        if instance::find(paths, &name).is_some() {
            return Err(refused(format!("a container called that runs or has run; {other}")));
        }
        let conf = paths.join("/etc/nixos-containers").join(format!("{name}.conf"));
        let json = paths.join("/etc/nixrun").join(format!("{name}.json"));
        let texts = [(conf, &manifest.conf), (json, &manifest.json)];
        let files: Vec<_> = texts
            .into_iter()
            .filter_map(|(path, text)| Some((path, text.as_ref()?.mode & 0o777, text.as_ref()?.text.clone())))
            .collect();
        let settings = settings(&files)?;
        let place = nixos_boot::root_directory(&name, &settings, paths)?;
        if fs::symlink_metadata(&place).is_ok() {
            return Err(refused(format!(
                "its root directory would be {}, which exists; {other}",
                place.display()
            )));
        }
        if !profile::list(&name, paths)?.is_empty() {
            let directory = profile::directory(&name, paths);
            return Err(refused(format!(
                "there is a profile of that name, {}; {other}",
                directory.display()
            )));
        }
        let mut warnings = Vec::new();
        let clash = clash(&name, &settings, paths);
        let bridged = settings.document.host_bridge.is_some();
        if bridged && request.new_addresses {
            return Err(refused(
                "it is on a bridge, and the pool does not know the addresses there; leave --new-addresses out, and \
                 change its configuration afterwards"
                    .to_owned(),
            ));
        }
        let readdress = request.new_addresses || (clash.is_some() && !bridged);
        warnings.extend(clash.map(|clash| match readdress {
            true => format!("{clash}; {name} gets others"),
            false => format!("{clash}, and stays as it is on a bridge; change it before both run"),
        }));
        let root = manifest.root.then_some(place.clone());
        let mut hidden = std::ffi::OsString::from(".nixrun-import-");
        hidden.push(&name);
        let hidden = place.with_file_name(hidden);
        let around = missing_directories(&hidden);
        let shift = shift(&settings, manifest.ids_from);
        let leftover = Leftover { hidden, around, placed: None };
        let plan = Plan { name, manifest, settings, root, files, readdress, warnings, shift, leftover };
        Ok((plan, change))
    }

    /// Everything after the root was unpacked.
    fn place(&mut self, totals: Totals, mut warnings: Vec<String>, change: &Change<'_>) -> Result<Imported> {
        let placed = Placed {
            root: self.root.clone(),
            files: self.files.iter().map(|(path, ..)| path.clone()).collect(),
        };
        let around = self.files.iter().flat_map(|(path, ..)| missing_directories(path));
        let around = self.leftover.around.iter().cloned().chain(around).collect();
        let leftover = Leftover { placed: Some(placed), around, ..self.leftover.clone() };
        change.intend(&Intent::Import(leftover.clone()))?;
        self.leftover = leftover;
        let failed = |path: &Path, error: io::Error| {
            let name = &self.name;
            Error::Other(format!("cannot import container {name}: cannot make {}: {error}", path.display()))
        };
        if let Some(root) = &self.root {
            rename(&self.leftover.hidden, root).map_err(|error| failed(root, error))?;
        }
        warnings.append(&mut self.warnings);
        // Nobody else gets them before they are in the files.
        let mut fresh = None;
        if self.readdress {
            let document = &self.settings.document;
            fresh = Some(readdress(document, &mut self.files, &mut warnings, change.paths())?);
            self.settings = settings(&self.files)?;
        }
        for (path, mode, text) in &self.files {
            let write = || {
                fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
                files::replace(path, text.as_bytes(), *mode)
            };
            write().map_err(|error| failed(path, error))?;
        }
        drop(fresh);
        let missing = self.systems(change.paths(), &mut warnings)?;
        Ok(Imported {
            name: self.name.clone(),
            root: self.root.clone(),
            addresses: addresses(&self.settings),
            system: self.manifest.system.clone(),
            missing,
            files: totals.files,
            bytes: totals.bytes,
            warnings,
        })
    }

    /// The profile, as far as its systems are in this host's store; the present one when it is not.
    fn systems(&self, paths: &HostPaths, warnings: &mut Vec<String>) -> Result<Option<PathBuf>> {
        let there = |system: &Path| fs::symlink_metadata(paths.join(system)).is_ok();
        let mut generations = self.manifest.generations.clone();
        generations.sort_by_key(|generation| generation.number);
        let (mut absent, mut present) = (Vec::new(), None);
        for generation in &generations {
            if !there(&generation.system) {
                absent.push(generation.number.to_string());
                continue;
            }
            let number = profile::register(&self.name, &generation.system, paths)?;
            if Some(generation.number) == self.manifest.generation {
                present = Some(number);
            }
        }
        if let Some(number) = present {
            profile::switch(&self.name, number, paths)?;
        }
        if !absent.is_empty() {
            warnings.push(format!(
                "generations of container {} that are not in this host's store were left out: {}",
                self.name,
                absent.join(", ")
            ));
        }
        Ok(self.manifest.system.clone().filter(|system| !there(system)))
    }
}

/// What the files say together.
fn settings(files: &[(PathBuf, u32, String)]) -> Result<Settings> {
    let (mut conf, mut document) = (None, None);
    for (path, _, text) in files {
        if path.extension().is_some_and(|extension| extension == "json") {
            document =
                Some(json::parse(text.as_bytes(), path).map_err(crate::settings::SettingsError::from)?);
        } else {
            conf = Some(nixos_conf::parse(text, path).map_err(crate::settings::SettingsError::from)?);
        }
    }
    Ok(Settings::merge(conf, document)?)
}

/// Whose the files are to be: of a container whose files are said to fit already, those ids that they are said to fit.
fn shift(settings: &Settings, ids_from: u32) -> Shift {
    let document = &settings.document;
    let ownership = document.private_users_ownership.map_or(Ownership::Off, |word| word.0);
    match document.users() {
        UserNamespace::OfRoot => Shift::from_base(ids_from),
        UserNamespace::Range { base, .. } if ownership == Ownership::Off && ids_from != 0 => {
            Shift::from_base(base)
        }
        _ => Shift::from_base(0),
    }
}

/// The container's own addresses.
fn addresses(settings: &Settings) -> Vec<String> {
    let document = &settings.document;
    let four = document.local_address.as_ref().map(|address| address.0.addr().to_string());
    let six = document.local_address6.as_ref().map(|address| address.0.addr().to_string());
    four.into_iter().chain(six).collect()
}

/// Why the addresses should not stay.
fn clash(name: &str, settings: &Settings, paths: &HostPaths) -> Option<String> {
    let wanted = addresses(settings);
    for other in configured::list(paths).ok()?.into_iter().filter(|other| other.name != name) {
        let Ok(theirs) = Settings::read(&other.name, paths) else { continue };
        if let Some(address) = addresses(&theirs).into_iter().find(|address| wanted.contains(address)) {
            return Some(format!("its address {address} is container {}'s", other.name));
        }
    }
    None
}

/// Directories above a path that are not there, the deepest first.
fn missing_directories(path: &Path) -> Vec<PathBuf> {
    let above = path.ancestors().skip(1);
    above.take_while(|directory| fs::symlink_metadata(directory).is_err()).map(Path::to_owned).collect()
}

/// Renames unless something is there.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let name = |path: &Path| CString::new(path.file_name().unwrap_or_default().as_bytes());
    let parent = File::open(to.parent().unwrap_or(Path::new("/")))?;
    runtime::sys::fd::rename_new(parent.as_fd(), &name(from)?, &name(to)?)?;
    parent.sync_all()
}
