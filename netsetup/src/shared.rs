//! What containers share, under one lock: who they are, which addresses and ports they have, the nftables table,
//! and the host's settings. The first one in sets it up, the last one out removes it.
//!
//! ```text
//! STATE_DIR/.network/lock           flock'ed by whoever reads to write
//!                   /state.json     before it is made: what was changed on the host (State)
//!                   /users/NAME     before it is made: what a container has here (Registration)
//!                   /claims/KEY     symlink to the NAME that has an address or a port
//! ```
//! Each file is in place before what it names is made, and goes after it is removed: what is named may not be
//! there, but nothing is there that is not named. Claims make a conflict visible by its key, without reading the
//! files of all containers, and without root.

mod retarget;

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{Forward, Protocol};
use crate::error::{Error, Errors, Holder, Result};
use crate::facts::NetPaths;
use crate::moved::{self, Moved};
use crate::nft::{self, Element};
use crate::plan::{Families, NetworkPlan};
use crate::socket::{Netfilter, Socket};
use crate::sysctl::{SysctlChange, Sysctls};

pub(crate) use retarget::retarget;

/// What one container has in the shared state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) container: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// Ports of the host that lead into it, whether or not they have a place to lead to at the moment.
    pub(crate) forwards: Vec<Forward>,
    pub(crate) elements: Vec<Element>,
    pub(crate) forwarding: Families,
    /// Whether it needs the table, if only for its group's sake.
    pub(crate) table: bool,
    /// The bridge it is on.
    pub(crate) bridge: Option<String>,
    /// Links of the host that have moved into it, or are about to.
    #[serde(default)]
    pub(crate) moved: Vec<Moved>,
}

impl Registration {
    pub(crate) fn of(plan: &NetworkPlan, moved: Vec<Moved>) -> Registration {
        Registration {
            container: plan.container.clone(),
            addresses: plan.addresses(),
            forwards: plan.forwards.clone(),
            elements: plan.elements.clone(),
            forwarding: plan.forwarding,
            table: plan.needs_table(),
            bridge: plan
                .veth
                .as_ref()
                .and_then(|veth| veth.host.bridge.as_ref())
                .map(|bridge| bridge.name.clone()),
            moved,
        }
    }

    fn claims(&self) -> Vec<Claim> {
        let ports = self.forwards.iter().map(|f| Claim::port(f.protocol, f.host_address, f.host_port));
        let links = self.moved.iter().flat_map(Moved::names).map(Claim::Link);
        self.addresses.iter().copied().map(Claim::Address).chain(links).chain(ports).collect()
    }

    /// Whether other containers on the same bridge need the element as well.
    fn on_bridge(&self, element: &Element) -> bool {
        match element {
            Element::Hairpin { link } | Element::Loopback { link } => self.bridge.as_ref() == Some(link),
            _ => false,
        }
    }
}

/// Something that one container has and no other may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    Address(IpAddr),
    Port {
        protocol: Protocol,
        host_address: Option<IpAddr>,
        port: u16,
    },
    /// A link of the host, by its name or an alternative one.
    Link(String),
}

impl Claim {
    pub(crate) fn port(protocol: Protocol, host_address: Option<IpAddr>, port: u16) -> Claim {
        Claim::Port { protocol, host_address, port }
    }

    fn path(&self, paths: &NetPaths) -> PathBuf {
        let key = match self {
            Claim::Address(address) => format!("address-{address}"),
            Claim::Link(name) => format!("link-{name}"),
            Claim::Port { protocol, host_address: None, port } => format!("{protocol}-{port}"),
            Claim::Port { protocol, host_address: Some(address), port } => {
                format!("{protocol}-{port}-{address}")
            }
        };
        directory(paths).join("claims").join(key)
    }

    /// Name of the container that has it.
    pub(crate) fn holder(&self, paths: &NetPaths) -> Option<String> {
        fs::read_link(self.path(paths)).ok()?.into_os_string().into_string().ok()
    }

    fn taken(&self, container: &str, holder: String) -> Error {
        let (container, holder) = (container.to_owned(), Holder::Container(holder));
        match self {
            Claim::Address(address) => Error::AddressTaken { container, address: *address, holder },
            Claim::Port { protocol, port, .. } => {
                Error::PortTaken { container, protocol: *protocol, port: *port, holder }
            }
            Claim::Link(name) => Error::LinkTaken { container, link: name.clone(), holder },
        }
    }
}

/// What was changed on the host for all containers together.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Layout of the table; 0 while there is none.
    layout: u32,
    /// Settings, in the order in which they were changed.
    sysctls: Vec<SysctlChange>,
    /// Elements that belong to a bridge, whichever of its containers is still there. They guard a setting that
    /// is put back by the last container of all, so they stay until then.
    bridges: Vec<Element>,
}

fn directory(paths: &NetPaths) -> PathBuf {
    paths.state_dir.join(".network")
}

/// The shared state, locked.
pub(crate) struct Shared<'a> {
    paths: &'a NetPaths,
    directory: PathBuf,
    _lock: Flock<File>,
}

impl<'a> Shared<'a> {
    /// Waits for the lock, and makes the directory if there is none.
    pub(crate) fn lock(paths: &'a NetPaths) -> Result<Shared<'a>> {
        let directory = directory(paths);
        loop {
            let lock = match open_lock(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make_directory(&directory)?;
                    continue;
                }
                opened => opened.map_err(Error::io(format!("open {}/lock", directory.display())))?,
            };
            let lock = Flock::lock(lock, FlockArg::LockExclusive)
                .map_err(|(_, errno)| Error::sys(format!("lock {}/lock", directory.display()))(errno))?;
            // The last one out removes the directory: a lock on a file that is gone protects nothing.
            let same = fs::metadata(directory.join("lock")).ok().zip(lock.metadata().ok());
            if !same.is_some_and(|(path, file)| path.ino() == file.ino() && path.dev() == file.dev()) {
                continue;
            }
            // The last one made and the first one removed: where it is, both are.
            let shared = Shared { paths, directory, _lock: lock };
            if !shared.directory.join("users").exists() {
                let made =
                    ["claims", "users"].iter().try_for_each(|d| make_directory(&shared.directory.join(d)));
                if made.is_err() {
                    shared.remove_directory(&mut Errors::default());
                }
                made?;
            }
            return Ok(shared);
        }
    }

    /// Locks the shared state if there is any.
    pub(crate) fn lock_existing(paths: &'a NetPaths) -> Result<Option<Shared<'a>>> {
        // Not the lock's own file, which a process that was killed on its way out may have removed already.
        if directory(paths).exists() { Shared::lock(paths).map(Some) } else { Ok(None) }
    }

    /// Registers a container: its file, its claims, the host's settings, the table, its elements. When any of it
    /// fails, none of it remains.
    pub(crate) fn enter(paths: &'a NetPaths, registration: &Registration) -> Result<()> {
        let mut shared = Shared::lock(paths)?;
        // Left by an instance that crashed: the caller's own lock says that none runs.
        while let Some(stale) = shared.registration(&registration.container)? {
            shared.leave(&stale).map_err(first_of)?;
            shared = Shared::lock(paths)?;
        }
        let entered = shared
            .write_json(&shared.user(&registration.container), registration)
            .and_then(|()| shared.claim(registration))
            .and_then(|()| shared.set_up(registration));
        if entered.is_err() {
            // The error that stopped it says more than those of undoing it.
            let _ = shared.leave(registration);
        }
        entered
    }

    /// Gives up what an earlier instance that crashed has; the caller's own lock says that none runs.
    pub(crate) fn leave_stale(paths: &'a NetPaths, container: &str) -> Result<()> {
        let Some(shared) = Shared::lock_existing(paths)? else { return Ok(()) };
        match shared.registration(container)? {
            Some(stale) => shared.leave(&stale).map_err(first_of),
            None => Ok(()),
        }
    }

    /// Undoes [`Shared::enter`], in whatever state it is; the last container takes table, settings and the lock
    /// itself along. Its file goes last: until then the next attempt knows what to do.
    pub(crate) fn leave(self, registration: &Registration) -> std::result::Result<(), Errors> {
        let mut errors = Errors::default();
        let own = &registration.container;
        // Its forwards may lead elsewhere by now.
        let current = errors.note(self.registration(own)).flatten();
        let registration = current.as_ref().unwrap_or(registration);
        // What it has lost is lost: it does not keep the registration.
        let mut lost = Errors::default();
        moved::bring_back(self.paths, registration, &mut errors, &mut lost);
        let last = errors.note(self.users()).is_some_and(|users| users.iter().all(|user| user == own));
        let state = errors.note(self.state()).flatten();
        if last {
            self.tear_down(state.unwrap_or_default(), &mut errors);
        } else if state.is_some_and(|state| state.layout != 0) {
            errors.note(self.remove_elements(registration));
        }
        for claim in registration.claims() {
            if claim.holder(self.paths).as_ref() == Some(own) {
                errors.note(remove_file(&claim.path(self.paths)));
            }
        }
        if errors.is_empty() {
            errors.note(remove_file(&self.user(own)));
        }
        if last && errors.is_empty() {
            self.remove_directory(&mut errors);
        }
        errors.extend(lost);
        errors.into_result()
    }

    /// Removes the shared state if no container is registered, whole or half: the last one out, or the first one
    /// in, was killed on its way. Whether there was something to remove is returned.
    pub(crate) fn sweep(self) -> std::result::Result<bool, Errors> {
        let mut errors = Errors::default();
        let abandoned = errors.note(self.users()).is_some_and(|users| users.is_empty());
        if abandoned {
            let state = errors.note(self.state()).flatten();
            self.tear_down(state.unwrap_or_default(), &mut errors);
            if errors.is_empty() {
                self.remove_directory(&mut errors);
            }
        }
        errors.into_result().map(|()| abandoned)
    }

    /// What the container registered, if it did.
    pub(crate) fn registration(&self, container: &str) -> Result<Option<Registration>> {
        read_json(&self.user(container))
    }

    fn claim(&self, registration: &Registration) -> Result<()> {
        for claim in registration.claims() {
            let path = claim.path(self.paths);
            match symlink(&registration.container, &path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let holder = claim.holder(self.paths).unwrap_or_else(|| "(unknown)".into());
                    if holder != registration.container {
                        return Err(claim.taken(&registration.container, holder));
                    }
                }
                Err(error) => return Err(Error::io(format!("create {}", path.display()))(error)),
            }
        }
        Ok(())
    }

    fn set_up(&self, registration: &Registration) -> Result<()> {
        let found = self.state()?;
        let mut state = found.unwrap_or_default();
        let sysctls = Sysctls(&self.paths.proc_sys);
        let changes = self.settings(registration)?;
        let bridges: Vec<Element> =
            registration.elements.iter().filter(|element| registration.on_bridge(element)).cloned().collect();
        let new_bridges: Vec<Element> =
            bridges.into_iter().filter(|element| !state.bridges.contains(element)).collect();
        let replace = registration.table && state.layout != nft::LAYOUT;
        if replace || !changes.is_empty() || !new_bridges.is_empty() {
            state.layout = if registration.table { nft::LAYOUT } else { state.layout };
            state.sysctls.extend(changes.iter().cloned());
            state.bridges.extend(new_bridges);
            self.write_json(&self.directory.join("state.json"), &state)?;
        }
        // The guard stands before route_localnet lets anything in.
        if registration.table {
            self.update_table(registration, &state, replace)?;
        }
        sysctls.apply(&changes)
    }

    fn settings(&self, registration: &Registration) -> Result<Vec<SysctlChange>> {
        let sysctls = Sysctls(&self.paths.proc_sys);
        let mut changes = Vec::new();
        if registration.forwarding.ipv4 {
            changes.extend(sysctls.to_forward_ipv4()?);
        }
        if registration.forwarding.ipv6 {
            changes.extend(sysctls.to_forward_ipv6()?);
        }
        for element in &registration.elements {
            if let Element::Loopback { link } = element {
                changes.extend(sysctls.to_route_localnet(link)?);
            }
        }
        Ok(changes)
    }

    /// Adds the container's elements to the table; makes it anew, with those of everybody, when it is not as it
    /// should be: another layout, flushed by somebody (`nft flush ruleset`), or strange elements in it.
    fn update_table(&self, registration: &Registration, state: &State, replace: bool) -> Result<()> {
        let mut socket = Socket::<Netfilter>::open()?;
        let updated = match replace {
            false => add_to_table(&mut socket, registration),
            true => Ok(false),
        };
        let updated = updated.and_then(|in_order| match in_order {
            true => Ok(()),
            false => self.replace_table(&mut socket, state),
        });
        // Not even this transaction has to delete anything: a container that has just ended did.
        socket.close_later();
        updated
    }

    fn replace_table(&self, socket: &mut Socket<Netfilter>, state: &State) -> Result<()> {
        let users = self.users()?.into_iter().map(|name| self.registration(&name));
        let users: Vec<Registration> = users.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let mut owned: Vec<nft::Owned<'_>> =
            users.iter().map(|user| (user.container.as_str(), user.elements.as_slice())).collect();
        owned.push(("bridge", &state.bridges));
        nft::replace_table(socket, &owned)
    }

    fn remove_elements(&self, registration: &Registration) -> Result<()> {
        let own = |element: &&Element| match element {
            Element::Forward { protocol, host_address, host_port, .. } => {
                let claim = Claim::port(*protocol, *host_address, *host_port);
                claim.holder(self.paths).is_some_and(|holder| holder == registration.container)
            }
            element => !registration.on_bridge(element),
        };
        let elements: Vec<Element> = registration.elements.iter().filter(own).cloned().collect();
        if elements.is_empty() {
            return Ok(());
        }
        nft::remove_elements(&elements)
    }

    fn tear_down(&self, state: State, errors: &mut Errors) {
        Sysctls(&self.paths.proc_sys).restore(&state.sysctls, errors);
        if state.layout != 0 {
            errors.note(nft::delete_table());
        }
    }

    /// Leaves nothing in the state directory. The lock's file goes last: who waits for it notices, and makes the
    /// rest anew, in this directory if it is quicker than we are.
    fn remove_directory(&self, errors: &mut Errors) {
        let path = |name: &str| self.directory.join(name);
        for directory in [path("users"), path("claims")] {
            match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => {
                    errors.note(removed.map_err(Error::io(format!("remove {}", directory.display()))));
                }
            }
        }
        for file in [path("state.json"), path(".state.json"), path("lock")] {
            errors.note(remove_file(&file));
        }
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => {
                errors.note(removed.map_err(Error::io(format!("remove {}", self.directory.display()))));
            }
        }
    }

    fn user(&self, container: &str) -> PathBuf {
        self.directory.join("users").join(container)
    }

    /// Names of the registered containers. Names that begin with a dot are files being written.
    fn users(&self) -> Result<Vec<String>> {
        let directory = self.directory.join("users");
        let read = || -> io::Result<Vec<String>> {
            let names = fs::read_dir(&directory)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
            let names = names.collect::<io::Result<Vec<_>>>()?;
            Ok(names.into_iter().flatten().filter(|name| !name.starts_with('.')).collect())
        };
        read().map_err(Error::io(format!("read {}", directory.display())))
    }

    fn state(&self) -> Result<Option<State>> {
        read_json(&self.directory.join("state.json"))
    }

    /// Replaces a file as a whole: a crash leaves the old one or the new one. The state directory is a tmpfs,
    /// so there is no disk to wait for.
    fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        let write = || -> io::Result<()> {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let temporary = path.with_file_name(format!(".{name}"));
            fs::write(&temporary, serde_json::to_vec(value)?)?;
            fs::rename(&temporary, path).inspect_err(|_| {
                let _ = fs::remove_file(&temporary);
            })
        };
        write().map_err(Error::io(format!("write {}", path.display())))
    }
}

/// `false` when the table is not there, or not fit to take the elements.
fn add_to_table(socket: &mut Socket<Netfilter>, registration: &Registration) -> Result<bool> {
    if registration.elements.is_empty() {
        return nft::table_exists(socket);
    }
    match nft::add_elements(socket, (&registration.container, &registration.elements)) {
        Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::EBUSY | Errno::EINVAL)) => {
            Ok(false)
        }
        added => added.map(|()| true),
    }
}

fn open_lock(directory: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(directory.join("lock"))
}

fn make_directory(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(Error::io(format!("create {}", path.display())))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(Error::io(format!("read {}", path.display())))?,
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| Error::State { path: path.into(), reason: error.to_string() })
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io(format!("remove {}", path.display()))),
    }
}

fn first_of(errors: Errors) -> Error {
    let mut errors = errors.into_iter();
    errors
        .next()
        .unwrap_or_else(|| Error::Io { doing: "clean up".into(), source: io::ErrorKind::Other.into() })
}
