//! A new container: its name, its addresses, its system, and the files about it.
//!
//! ```text
//! the name          chosen and locked, under the lock on the pool
//! the system        built or found, which may take long; nothing of the container is there yet
//! the addresses     picked under the lock on the pool, which is kept up to the end
//! all settings      read as a start will read them; so far nothing has been made
//!   intent          what did not exist before
//!   root, profile   the system as generation 1
//!   NAME.json       what NAME.conf has no key for
//!   NAME.conf       with it the container exists; without it what was made goes again
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use netsetup::Forward;
use runtime::HostPaths;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conf::{self, Network};
use super::pool::{self, PoolLock, Taken};
use super::{edit, places, remove};
use crate::change::{self, Change, Intent};
use crate::configured::{self, FindError};
use crate::host_settings::HostSettings;
use crate::json::{self, AbsolutePath, Document, Json};
use crate::nixos_conf;
use crate::ops::{self, Error, Result};
use crate::settings::{Settings, SettingsError};
use crate::systems::{self, Obtained, Progress, Source};
use crate::{events, files, nixos_boot};

/// What is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateRequest {
    /// The container's name.
    pub name: String,
    /// Whether a number is added to the name while it is taken.
    pub unique: bool,
    /// Where its system comes from; one without anything of its own, built from nixpkgs, when `None`.
    pub source: Option<Source>,
    /// Where nixpkgs' `nixos` is.
    pub nixos_path: Option<PathBuf>,
    /// Bridge of the host that its link joins.
    pub bridge: Option<String>,
    /// Ports of the host that lead into it.
    pub ports: Vec<Forward>,
    /// IPv4 address of the host's end; both ends' are from the pool when neither is given.
    pub host_address: Option<Ipv4Addr>,
    /// IPv4 address of the container's end.
    pub local_address: Option<Ipv4Net>,
    /// IPv6 address of the host's end; likewise, where the host has such a pool.
    pub host_address6: Option<Ipv6Addr>,
    /// IPv6 address of the container's end.
    pub local_address6: Option<Ipv6Net>,
    /// Other settings, each `KEY=VALUE` as of [`edit`](super::edit::edit).
    pub set: Vec<String>,
    /// Whether it starts with the host.
    pub auto_start: bool,
}

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// Its name.
    pub name: String,
    /// The file that configures it.
    pub configuration: PathBuf,
    /// Host path of its root directory.
    pub root: PathBuf,
    /// Store path of its system, if it boots one.
    pub system: Option<PathBuf>,
    /// IPv4 address of the host's end of its link.
    pub host_address: Option<Ipv4Addr>,
    /// IPv4 address of its own.
    pub local_address: Option<Ipv4Addr>,
    /// IPv6 address of the host's end.
    pub host_address6: Option<Ipv6Addr>,
    /// IPv6 address of its own.
    pub local_address6: Option<Ipv6Addr>,
}

/// What recovery must know of a container that was being made: what was there before stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creation {
    /// Whether the root directory is new.
    root: bool,
    /// Whether the profile is.
    profile: bool,
}

/// Makes a container; `progress` hears what Nix says while it builds.
///
/// # Errors
/// When the name is taken or is none, a setting is wrong, the pool is full, or the system cannot be had. Nothing is left
/// of the container then.
pub fn create(request: &CreateRequest, paths: &HostPaths, progress: Progress<'_>) -> Result<Created> {
    configured::check_name(&request.name)?;
    let host = HostSettings::read(paths)?;
    let change = reserve(request, paths)?;
    let name = change.name().to_owned();
    let draft = Draft::new(&name, request, paths)?;
    let obtained = draft.obtain(request, paths, progress)?;

    let _pool = PoolLock::take(paths)?;
    // Another program may have made it while the system was built.
    absent(&name, paths)?;
    let mut network = draft.network(request);
    pick(&mut network, &draft.document, &host, paths)?;
    let files = draft.files(request, &network)?;
    draft.check(&files, obtained.as_ref(), paths)?;
    let made = make(&change, &draft, &files, obtained.as_ref(), paths)?;
    drop(obtained);
    events::tell(paths, &name, events::Kind::Created, None);
    Ok(Created {
        name,
        configuration: draft.places.conf,
        root: draft.places.root,
        system: made,
        host_address: network.host_address,
        local_address: network.local_address.map(|net| net.addr()),
        host_address6: network.host_address6,
        local_address6: network.local_address6.map(|net| net.addr()),
    })
}

/// Finds the name and keeps others from it.
fn reserve<'a>(request: &CreateRequest, paths: &'a HostPaths) -> Result<Change<'a>> {
    let _pool = PoolLock::take(paths)?;
    let base = &request.name;
    for number in 0_u64.. {
        // As nixpkgs counts: web, web-0, web-1.
        let name = if number == 0 { base.clone() } else { format!("{base}-{}", number - 1) };
        configured::check_name(&name)?;
        let change = match Change::begin(&name, "create", paths) {
            Err(_) if request.unique && change::holder(&name, paths).is_some() => continue,
            begun => begun?,
        };
        match absent(&name, paths) {
            Ok(()) if !(request.unique && ops::root_of(&name, paths).symlink_metadata().is_ok()) => {
                return Ok(change);
            }
            Err(error) if !request.unique => return Err(error),
            _ => {}
        }
    }
    Err(Error::Other(format!("there is no free name that begins with {base}")))
}

fn absent(name: &str, paths: &HostPaths) -> Result<()> {
    match configured::find(name, paths) {
        Err(FindError::Unknown { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(found) => {
            let file = found.conf.or(found.json).unwrap_or_default();
            Err(Error::Other(format!(
                "cannot create container {name}: {} is there already; choose another name, or let \
                 --ensure-unique-name choose one",
                file.display()
            )))
        }
    }
}

/// What is known before the system and the addresses are.
struct Draft {
    name: String,
    places: places::Places,
    /// The text of the JSON file, if there is to be one.
    json: Option<String>,
    document: Document,
}

/// The files that configure it.
struct Files {
    conf: String,
    json: Option<String>,
}

impl Draft {
    fn new(name: &str, request: &CreateRequest, paths: &HostPaths) -> Result<Draft> {
        let places = places::Places::of(name, paths);
        let json = match request.set.is_empty() {
            true => None,
            false => Some(edit::edit("", &request.set, &places.json)?),
        };
        let read = json.as_ref().map(|text| json::parse(text.as_bytes(), &places.json));
        let document = read.transpose().map_err(SettingsError::from)?.map(|json| json.document);
        let draft = Draft { name: name.to_owned(), places, json, document: document.unwrap_or_default() };
        draft.check_addresses(request)?;
        // Whatever can be wrong now must not wait for a system to be built.
        draft.merged(&draft.files(request, &draft.network(request))?)?;
        Ok(draft)
    }

    fn check_addresses(&self, request: &CreateRequest) -> Result<()> {
        let bridged = request.bridge.is_some() || self.document.host_bridge.is_some();
        let half = |host: bool, local: bool| host != local && !(bridged && local);
        let v4 = half(request.host_address.is_some(), request.local_address.is_some());
        let v6 = half(request.host_address6.is_some(), request.local_address6.is_some());
        if v4 || v6 {
            let six = if v4 { "" } else { "6" };
            return Err(Error::Other(format!(
                "cannot create container {}: --host-address{six} and --local-address{six} go together, the two ends of \
                 one link; give both",
                self.name
            )));
        }
        Ok(())
    }

    /// A container that boots a NixOS system of its own profile.
    fn has_profile(&self) -> bool {
        let document = &self.document;
        document.command.is_none() && document.boot != Some(true) && document.system.is_none()
    }

    fn obtain(
        &self,
        request: &CreateRequest,
        paths: &HostPaths,
        progress: Progress<'_>,
    ) -> Result<Option<Obtained>> {
        let nixos_path = request.nixos_path.as_deref();
        if !self.has_profile() {
            if request.source.is_some() {
                return Err(Error::Other(format!(
                    "cannot create container {}: command, boot and system say what it runs, and so does the system \
                     that was given; leave one of them out",
                    self.name
                )));
            }
            return Ok(None);
        }
        let plain = Source::Config(String::new());
        let source = request.source.as_ref().unwrap_or(&plain);
        systems::obtain(&self.name, source, nixos_path, paths, progress).map(Some)
    }

    fn network(&self, request: &CreateRequest) -> Network {
        let document = &self.document;
        let joined = document.network_namespace.is_some();
        Network {
            private: document.private_network != Some(false) && !joined,
            bridge: request.bridge.clone(),
            ports: request.ports.clone(),
            host_address: request.host_address,
            local_address: request.local_address,
            host_address6: request.host_address6,
            local_address6: request.local_address6,
        }
    }

    fn files(&self, request: &CreateRequest, network: &Network) -> Result<Files> {
        let flake = match &request.source {
            Some(Source::Flake(flake)) => Some(kept_flake(flake)),
            _ => None,
        };
        let conf = conf::text(network, request.auto_start, flake.as_deref())?;
        Ok(Files { conf, json: self.json.clone() })
    }

    fn merged(&self, files: &Files) -> Result<Settings> {
        let conf = nixos_conf::parse(&files.conf, &self.places.conf).map_err(SettingsError::from)?;
        let json = self
            .json
            .is_some()
            .then(|| Json { file: self.places.json.clone(), document: self.document.clone() });
        Ok(Settings::merge(Some(conf), json)?)
    }

    /// As a start will read them.
    fn check(&self, files: &Files, obtained: Option<&Obtained>, paths: &HostPaths) -> Result<()> {
        let mut settings = self.merged(files)?;
        if let Some(obtained) = obtained {
            settings.document.system = Some(AbsolutePath(obtained.system.clone()));
        }
        nixos_boot::to_configs(&self.name, &settings, paths)?;
        Ok(())
    }

    /// Whether it has a root directory of its own at the usual place, or keeps its configuration there.
    fn makes_root(&self, obtained: Option<&Obtained>) -> bool {
        let elsewhere = self.document.root.is_some() || self.document.ephemeral == Some(true);
        obtained.is_some_and(|obtained| obtained.configuration.is_some() || !elsewhere)
    }
}

/// The flake for later updates. nixpkgs' program takes what stands in the file for one without a name in it, and builds
/// `container`.
fn kept_flake(flake: &str) -> String {
    let (uri, name) = flake.split_once('#').unwrap_or((flake, "container"));
    let local =
        uri.starts_with('.') || (Path::new(uri).is_relative() && Path::new(uri).join("flake.nix").is_file());
    let absolute = local.then(|| fs::canonicalize(uri).ok()).flatten();
    let uri = absolute.map_or_else(|| uri.to_owned(), |path| path.to_string_lossy().into_owned());
    if matches!(name, "" | "container") { uri } else { format!("{uri}#{name}") }
}

/// Fills in what comes from the pool.
fn pick(network: &mut Network, document: &Document, host: &HostSettings, paths: &HostPaths) -> Result<()> {
    // A zone's containers have their addresses from whoever gives them out there.
    if !network.private || document.zone.is_some() {
        return Ok(());
    }
    let net_paths = ops::net_paths(paths);
    let mut taken = Taken::read(paths, &net_paths)?;
    let given = document.host_address.is_some() || document.local_address.is_some();
    if network.host_address.is_none() && network.local_address.is_none() && !given {
        let (host, local) = pool::pick4(host.address_pool, &mut taken)?;
        (network.host_address, network.local_address) = (Some(host), Some(local.into()));
    }
    let given = document.host_address6.is_some() || document.local_address6.is_some();
    if let Some(pool6) = host.address_pool6
        && network.host_address6.is_none()
        && network.local_address6.is_none()
        && !given
    {
        let (host, local) = pool::pick6(pool6, &mut taken)?;
        (network.host_address6, network.local_address6) = (Some(host), Some(local.into()));
    }
    Ok(())
}

/// Makes everything, or nothing; returns the system.
fn make(
    change: &Change<'_>,
    draft: &Draft,
    files: &Files,
    obtained: Option<&Obtained>,
    paths: &HostPaths,
) -> Result<Option<PathBuf>> {
    let there = |path: &Path| path.symlink_metadata().is_ok();
    let creation = Creation {
        root: !there(&draft.places.root),
        profile: !there(&systems::profile::directory(&draft.name, paths)),
    };
    change.intend(&Intent::Create(creation.clone()))?;
    let steps = || -> Result<()> {
        if draft.makes_root(obtained) {
            draft.places.make_root()?;
        }
        if let Some(obtained) = obtained {
            obtained.install(&draft.name, paths)?;
            draft.places.make_gc_roots()?;
        }
        if let Some(text) = &files.json {
            // Who may read the file may read the secrets in it.
            let mode = if draft.document.credentials.is_some() { 0o600 } else { 0o644 };
            write(&draft.places.json, text, mode)?;
        }
        write(&draft.places.conf, &files.conf, 0o644)
    };
    let made = steps();
    if made.is_err() {
        // What is wrong is said by the step; what cannot be removed now is by the next command.
        undo(&draft.name, &creation, paths).and_then(|()| change.done())?;
    } else {
        change.done()?;
    }
    made.map(|()| obtained.map(|obtained| obtained.system.clone()).or_else(|| draft.said_system()))
}

impl Draft {
    fn said_system(&self) -> Option<PathBuf> {
        self.document.system.as_ref().map(|path| path.0.clone())
    }
}

fn write(file: &Path, text: &str, mode: u32) -> Result<()> {
    let made = file.parent().map_or(Ok(()), |parent| make_directory(parent, 0o755));
    made.and_then(|()| files::replace(file, text.as_bytes(), mode))
        .map_err(|error| Error::Other(format!("cannot write {}: {error}", file.display())))
}

/// Makes a directory and those above it.
pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Completes the making of a container that was interrupted, if it exists, and else removes what there is of it.
pub(crate) fn recover(name: &str, creation: &Creation, paths: &HostPaths) -> Result<()> {
    if places::Places::of(name, paths).conf.exists() {
        return Ok(());
    }
    undo(name, creation, paths)
}

fn undo(name: &str, creation: &Creation, paths: &HostPaths) -> Result<()> {
    let places = places::Places::of(name, paths);
    for file in [&places.conf, &places.json] {
        files::sweep(file);
        files::remove(file)
            .map_err(|error| Error::Other(format!("cannot remove {}: {error}", file.display())))?;
    }
    if creation.profile {
        systems::remove_all(name, paths)?;
    }
    if creation.root {
        remove::tree(&places.root).map_err(|error| Error::Other(error.to_string()))?;
    }
    places.tidy();
    Ok(())
}
