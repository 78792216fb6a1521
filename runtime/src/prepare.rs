//! Plan to `Prepared`: every descriptor opened, every tmpfs filled, the child's script complete.

mod account;
mod credentials;
mod host_files;
mod journal;
pub(crate) mod namespace;
mod overlay;
mod owners;
mod script;
mod tmpfs;

use owners::Owners;
pub(crate) use script::{Inherited, confine, execute};

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::child::script::{Image, Script};
use crate::config::{Network, Program, Volatile};
use crate::error::{Doing, Error, ErrorKind};
use crate::host::c_path;
use crate::image::{self, Access, Parts};
use crate::made::{self, Made};
use crate::passwd::Account;
use crate::plan::{Entry, IdRange, MountPlan, Plan, Source};
use crate::rootfs::{self, Root};
use crate::sys::mount::{FsContext, MountAttr, mount_setattr, open_tree_clone};
use crate::sys::pty;
use crate::users::Users;

/// A container that only needs to be cloned. Dropping it leaves nothing but the directories that were made in its
/// root.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) plan: Plan,
    pub(crate) users: Option<Users>,
    owners: Option<Owners>,
    pub(crate) root: Root,
    pub(crate) uuid: [u8; 16],
    /// Whom the program runs as, unless it is root.
    account: Option<Account>,
    /// What the container starts without, one sentence each.
    pub(crate) warnings: Vec<String>,
    pub(crate) script: Script,
    trees: Trees,
    pub(crate) made: Made,
    /// The root that a directory of it has replaced.
    former: Option<Root>,
    /// The network namespace to enter.
    network: Option<OwnedFd>,
    pub(crate) notify: Option<UnixDatagram>,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) kernel_log: Option<OwnedFd>,
}

impl Prepared {
    /// Readies the root and builds every mount that does not need the new namespaces.
    ///
    /// # Errors
    /// When a path of the plan is missing or a mount cannot be made, in the plan's words.
    pub fn new(plan: Plan) -> Result<Prepared, Error> {
        let users = Users::choose(&plan, |_| Ok(()))?;
        Prepared::with_users(plan, users)
    }

    /// The same with ids that were chosen before, by one who keeps a journal.
    ///
    /// # Errors
    /// As [`Prepared::new`], and when the root's files cannot be given to the ids.
    pub fn with_users(mut plan: Plan, users: Option<Users>) -> Result<Prepared, Error> {
        rootfs::prepare_host(&plan.preparation)?;
        let made = Made::new(&plan.on_host, users.as_ref().map_or(0, |users| users.range().base))?;
        let (former, parts) = open_root(&plan)?;
        let (mut root, former) = match &plan.root.pivot {
            Some(pivot) => (former.inner(&pivot.new)?, Some(former)),
            None => (former, None),
        };
        let mut owners = users.as_ref().map(Owners::new);
        if let Some(owners) = &mut owners {
            owners.own_root(&mut root, &plan.root)?;
        }
        root.prepare(&plan.preparation)?;
        let network = match &plan.namespaces.network {
            Network::Join(path) => Some(namespace::network(path)?),
            _ => None,
        };
        let uuid = match rootfs::machine_id(&root).or(plan.uuid) {
            Some(uuid) => uuid,
            None => rootfs::random_uuid()?,
        };
        let account = account::find(&plan, &root)?;
        let mut warnings = Vec::new();
        journal::connect(&mut plan, &root, uuid, &mut warnings)?;
        check_inherited(plan.listen_fds)?;
        let mut prepared = Prepared {
            account,
            warnings,
            users,
            owners,
            script: Script::default(),
            trees: Trees { parts, ..Trees::default() },
            made,
            former,
            network,
            notify: None,
            console: None,
            kernel_log: None,
            uuid,
            root,
            plan,
        };
        prepared.own_parts()?;
        prepared.build_trees()?;
        let notes = prepared.owners.as_mut().map(|owners| std::mem::take(&mut owners.notes));
        prepared.warnings.extend(notes.into_iter().flatten());
        // Their values are in the container's memory now, and of no more use in ours.
        prepared.plan.credentials.clear();
        let mut warnings = Vec::new();
        prepared.script = script::assemble(&prepared, &prepared.trees, &mut warnings)?;
        prepared.warnings.append(&mut warnings);
        Ok(prepared)
    }

    /// The container's uuid.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// The plan being carried out.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The host's ids of the container, when they are others than the host's own.
    #[must_use]
    pub fn users(&self) -> Option<IdRange> {
        self.users.as_ref().map(Users::range)
    }

    /// The host's id of the container's root.
    fn owner(&self) -> u32 {
        self.users().map_or(0, |range| range.base)
    }

    /// Builds every tree that does not need the new namespaces.
    fn build_trees(&mut self) -> Result<(), Error> {
        let mounts = std::mem::take(&mut self.plan.mounts);
        let built = mounts.iter().try_for_each(|mount| {
            let tree = self.build_tree(mount, &mounts)?;
            if let (Some(owners), Some(tree)) = (&mut self.owners, &tree) {
                owners.own_bind(mount, tree.as_fd(), &mounts, &self.trees.mounts)?;
            }
            self.trees.mounts.push(tree);
            Ok(())
        });
        self.plan.mounts = mounts;
        built
    }

    fn build_tree(&mut self, mount: &MountPlan, all: &[MountPlan]) -> Result<Option<OwnedFd>, Error> {
        let doing = || format!("prepare the mount {mount}");
        Ok(match &mount.source {
            Source::Root => {
                self.base(self.root.as_fd(), self.root.as_fd(), self.root.made_as())?;
                let tree = self.root_tree()?;
                if mount.attributes.read_only {
                    let set = mount.attributes.bits();
                    mount_setattr(tree.as_fd(), true, &MountAttr { set, ..MountAttr::default() })
                        .doing(doing)?;
                }
                Some(tree)
            }
            Source::RootOverlay { options } => {
                self.trees.base = Some(self.root_tree()?);
                Some(self.root_overlay(options)?)
            }
            Source::FormerRoot => {
                let Some(former) = &self.former else { return Ok(None) };
                let tree = open_tree_clone(former.as_fd(), c"", true).doing(doing)?;
                propagate(tree.as_fd(), libc::MS_PRIVATE, mount.attributes.bits()).doing(doing)?;
                if let Some(owners) = &mut self.owners {
                    owners.own_image(former, tree.as_fd())?;
                }
                Some(tree)
            }
            Source::BaseOf { path } => {
                let own = self.trees.parts.iter().position(|(place, _)| Path::new(place) == path);
                if let Some(index) = own {
                    return Ok(Some(self.trees.parts.remove(index).1));
                }
                self.root.check_merged()?;
                self.trees.base = Some(self.root_tree()?);
                None
            }
            Source::HostPath { path, recursive, .. } => {
                Some(host_tree(path, mount, *recursive, libc::MS_SLAVE, mount.attributes.bits())?)
            }
            Source::Incoming { path } => {
                // What machined mounts there arrives.
                Some(host_tree(path, mount, false, libc::MS_SLAVE, mount.attributes.bits())?)
            }
            Source::UnixExport { path } => {
                let tree = host_tree(path, mount, false, libc::MS_PRIVATE, mount.attributes.bits())?;
                made::seal_unix_export(path)?;
                Some(tree)
            }
            Source::Overlay { lower, upper } => {
                for layer in lower {
                    self.stage_layer(layer, mount)?;
                }
                if let Some(upper) = upper {
                    self.stage_upper(upper, mount)?;
                }
                None
            }
            Source::Tmpfs { options, entries } => {
                let tree = tmpfs::create(options, mount.attributes.bits(), self.owner()).doing(doing)?;
                let first = entries.iter().filter(|entry| !can_wait(entry, mount, all));
                tmpfs::fill(tree.as_fd(), first, self.owner()).doing(doing)?;
                if mount.target == Path::new("/run") {
                    self.fill_run(tree.as_fd())?;
                }
                if mount.target == Path::new("/") {
                    self.base(tree.as_fd(), tree.as_fd(), Some(self.owner()))?;
                }
                Some(tree)
            }
            Source::Devpts { gid } => {
                let tree = devpts(*gid, mount.attributes.bits(), self.owner()).doing(doing)?;
                if self.plan.has_console() {
                    let doing = || "open the console's pty".to_owned();
                    let (master, number) = pty::open(tree.as_fd()).doing(doing)?;
                    tmpfs::give_user(tree.as_fd(), Path::new(&number.to_string()), self.owner())
                        .doing(doing)?;
                    self.console = Some(master);
                }
                Some(tree)
            }
            Source::HostFile { path, .. } => self.host_file(path, mount),
            Source::Credentials { readable, .. } => {
                let attributes = mount.attributes.bits();
                Some(credentials::create(&self.plan.credentials, *readable, attributes, self.owner())?)
            }
            _ => None,
        })
    }

    /// One that the container can start without.
    fn host_file(&mut self, path: &Path, mount: &MountPlan) -> Option<OwnedFd> {
        let tree = c_path(path).and_then(|path| {
            open_tree_clone(cwd(), &path, false).doing(|| format!("prepare the mount {mount}"))
        });
        let tree = tree.and_then(|tree| {
            propagate(tree.as_fd(), libc::MS_SLAVE, mount.attributes.bits())
                .doing(|| format!("prepare the mount {mount}"))?;
            Ok(tree)
        });
        tree.map_err(|error| self.warnings.push(error.to_string())).ok()
    }

    /// What only we know: ids, the notify socket, our end of the kernel log.
    fn fill_run(&mut self, run: BorrowedFd<'_>) -> Result<(), Error> {
        let boot_id = rootfs::format_uuid(rootfs::random_uuid()?);
        let uuid = rootfs::format_uuid(self.uuid);
        let doing = || "fill the container's /run".to_owned();
        tmpfs::write(run, crate::plan::BOOT_ID, 0o444, &format!("{boot_id}\n")).doing(doing)?;
        tmpfs::write(run, crate::plan::UUID, 0o444, &format!("{uuid}\n")).doing(doing)?;
        for path in [crate::plan::BOOT_ID, crate::plan::UUID] {
            tmpfs::give(run, Path::new(path), self.owner()).doing(doing)?;
        }
        self.kernel_log = Some(tmpfs::open_fifo(run, crate::plan::KMSG).doing(doing)?);
        if self.plan.notify_socket {
            let doing = || "bind the notify socket".to_owned();
            self.notify = Some(tmpfs::notify_socket(run).doing(doing)?);
            tmpfs::give(run, Path::new(crate::plan::NOTIFY), self.owner()).doing(doing)?;
        }
        Ok(())
    }

    /// Makes the entries that can wait, in trees that the child may have attached already.
    ///
    /// # Errors
    /// When one cannot be made, in the plan's words.
    pub(crate) fn fill_rest(&self) -> Result<(), Error> {
        for (mount, tree) in self.plan.mounts.iter().zip(&self.trees.mounts) {
            if let (Source::Tmpfs { entries, .. }, Some(tree)) = (&mount.source, tree) {
                let rest = entries.iter().filter(|entry| can_wait(entry, mount, &self.plan.mounts));
                tmpfs::fill(tree.as_fd(), rest, self.owner()).doing(|| format!("fill the mount {mount}"))?;
            }
        }
        Ok(())
    }

    /// Makes in `new` what is missing in `seen` of the top of a file hierarchy with the root's /usr; it belongs to the
    /// host's `owner`, or to us.
    fn base(&self, new: BorrowedFd<'_>, seen: BorrowedFd<'_>, owner: Option<u32>) -> Result<(), Error> {
        let usr = self.trees.parts.iter().find(|(place, _)| *place == "/usr");
        self.root.base(new, seen, usr.map(|(_, tree)| tree.as_fd()), owner.filter(|owner| *owner != 0))
    }

    /// The program with its environment, and the paths to try for it.
    fn image(&self) -> Result<Image, Error> {
        let mut env = self.plan.env.clone();
        let mut insert = |key: &str, neighbour: &str, after: usize, value: std::ffi::OsString| {
            if !env.iter().any(|(k, _)| k == key) {
                let place = env.iter().position(|(k, _)| k == neighbour).map_or(env.len(), |at| at + after);
                env.insert(place, (key.into(), value));
            }
        };
        // Where nspawn has them.
        insert("container_uuid", "LOGNAME", 1, rootfs::format_uuid(self.uuid).into());
        if let Some(account) = &self.account {
            insert("HOME", "USER", 0, account.home.clone().into_os_string());
        }
        let named = |candidates: &[&str], name: fn(&str) -> String| {
            let named = |path: &&str| Ok((c_string(path.as_bytes())?, c_string(name(path).as_bytes())?));
            let candidates = candidates.iter().map(named).collect::<Result<_, Error>>()?;
            Ok(Image::named(candidates, c_strings(&self.plan.argv)?, environment(&env)?))
        };
        match self.plan.program {
            Program::Command => image(&self.plan.argv, &env),
            Program::Init => named(crate::plan::INITS, str::to_owned),
            Program::Shell => named(crate::plan::SHELLS, |path| path.replace("/bin/", "-")),
        }
    }
}

/// Whether the descriptors that the program is to inherit are there.
fn check_inherited(number: u32) -> Result<(), Error> {
    let open = |fd: &u32| Path::new(&format!("/proc/self/fd/{fd}")).symlink_metadata().is_ok();
    match (3..3 + number).find(|fd| !open(fd)) {
        None => Ok(()),
        Some(fd) => Err(Error::new(
            ErrorKind::Config,
            format!("cannot pass {number} sockets to the container: descriptor {fd} is not open"),
        )),
    }
}

/// The root directory, or the image's file systems.
fn open_root(plan: &Plan) -> Result<(Root, Parts), Error> {
    let options = &plan.root;
    if !options.image {
        return Ok((Root::open(&plan.rootfs)?, Vec::new()));
    }
    let read_only = options.read_only || options.ephemeral;
    let access = Access { read_only, mounted_read_only: options.volatile != Volatile::No };
    let image::Image { root, mut parts } = image::open(&plan.rootfs, access)?;
    let overlay = plan.mounts.iter().any(|mount| matches!(mount.source, Source::RootOverlay { .. }));
    if overlay && parts.iter().any(|(place, _)| *place == "/usr") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "cannot use the image {} as an ephemeral or volatile root: its /usr is a partition of its own",
                plan.rootfs.display()
            ),
        )
        .hint("use volatile=yes or read-only"));
    }
    // What is forgotten at the end is not on a disk.
    if matches!(options.volatile, Volatile::Yes | Volatile::State) {
        parts.retain(|(place, _)| *place != "/var");
    }
    Ok((Root::mounted(root, &plan.rootfs), parts))
}

/// The detached copies that a script names by number.
#[derive(Debug, Default)]
pub(crate) struct Trees {
    /// One for each of the plan's mounts, where we make it.
    pub(crate) mounts: Vec<Option<OwnedFd>>,
    /// The root directory, where it is not the container's root itself.
    pub(crate) base: Option<OwnedFd>,
    /// An image's partitions beside that of the root, with their places.
    pub(crate) parts: Parts,
    /// The layers of overlays that are on the host, in the plan's order.
    pub(crate) layers: Vec<OwnedFd>,
}

/// A copy of a mount of the host, with its propagation and attributes.
fn host_tree(
    path: &Path,
    mount: &MountPlan,
    recursive: bool,
    propagation: u64,
    set: u64,
) -> Result<OwnedFd, Error> {
    let doing = || format!("prepare the mount {mount}");
    let tree = match open_tree_clone(cwd(), &c_path(path)?, recursive) {
        Err(error) if error.errno() == nix::errno::Errno::ENOENT => {
            return Err(missing_source(path, &mount.target));
        }
        result => result.doing(doing)?,
    };
    propagate(tree.as_fd(), propagation, set).doing(doing)?;
    Ok(tree)
}

fn missing_source(path: &Path, target: &Path) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "cannot mount {} on {} in the container: it does not exist",
            path.display(),
            target.display()
        ),
    )
}

/// Whether the entry of the tmpfs `mount` can be made while the child is busy mounting: it is no mount point and is
/// not mounted itself, and no mount comes to lie over the directory that it is in.
fn can_wait(entry: &Entry, mount: &MountPlan, all: &[MountPlan]) -> bool {
    let (Entry::Symlink { path, .. } | Entry::Device { path, .. }) = entry else { return false };
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        None => true,
        Some(parent) => {
            let parent = mount.target.join(parent);
            let over = |other: &MountPlan| other.target != mount.target && parent.starts_with(&other.target);
            !all.iter().any(|other| other.target.starts_with(&mount.target) && over(other))
        }
    }
}

/// Builds what execve takes. A program without a slash is looked up in the environment's `PATH`.
pub(crate) fn image(
    argv: &[std::ffi::OsString],
    env: &[(std::ffi::OsString, std::ffi::OsString)],
) -> Result<Image, Error> {
    let program = argv.first().map(|program| program.as_bytes()).unwrap_or_default();
    let path = env.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_bytes());
    let candidates: Vec<CString> = if program.contains(&b'/') {
        vec![c_string(program)?]
    } else {
        path.unwrap_or(crate::plan::DEFAULT_PATH.as_bytes())
            .split(|byte| *byte == b':')
            .filter(|directory| !directory.is_empty())
            .map(|directory| c_string(&[directory, b"/", program].concat()))
            .collect::<Result<_, _>>()?
    };
    Ok(Image::new(candidates, c_strings(argv)?, environment(env)?))
}

fn c_strings(strings: &[std::ffi::OsString]) -> Result<Vec<CString>, Error> {
    strings.iter().map(|string| c_string(string.as_bytes())).collect()
}

fn environment(env: &[(std::ffi::OsString, std::ffi::OsString)]) -> Result<Vec<CString>, Error> {
    env.iter().map(|(key, value)| c_string(&[key.as_bytes(), b"=", value.as_bytes()].concat())).collect()
}

fn c_string(bytes: &[u8]) -> Result<CString, Error> {
    c_path(Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

fn devpts(gid: u32, attributes: u64, owner: u32) -> std::io::Result<OwnedFd> {
    let context = FsContext::open(c"devpts")?;
    context.set(c"mode", Some(c"620"))?;
    context.set(c"ptmxmode", Some(c"0666"))?;
    let gid = CString::new((owner + gid).to_string()).unwrap_or_default();
    context.set(c"gid", Some(&gid))?;
    let tree = context.mount(attributes)?;
    for path in [".", "ptmx"] {
        tmpfs::give(tree.as_fd(), Path::new(path), owner)?;
    }
    Ok(tree)
}

fn propagate(tree: BorrowedFd<'_>, propagation: u64, set: u64) -> crate::sys::Result<()> {
    mount_setattr(tree, true, &MountAttr { set, propagation, ..MountAttr::default() })
}

/// Sets `MOUNT_ATTR_*` bits of one mount.
fn set_attributes(tree: BorrowedFd<'_>, set: u64) -> crate::sys::Result<()> {
    mount_setattr(tree, false, &MountAttr { set, ..MountAttr::default() })
}

/// The directory that absolute paths ignore.
fn cwd() -> BorrowedFd<'static> {
    nix::fcntl::AT_FDCWD
}
