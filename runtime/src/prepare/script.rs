//! Writes the child's script from the plan and the trees that the parent built.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::{Prepared, Trees, host_files, overlay};
use crate::caps::CapSet;
use crate::child::script::{Layer, Op, Overlay, Purpose, Script, Stub, Target};
use crate::config::{Console, Program};
use crate::error::{Doing, Error, ErrorKind};
use crate::host::c_path;
use crate::passwd::Account;
use crate::plan::{self, BOOT_ID, Confinement, KMSG, MountPlan, Plan, Source, UpperLayer};
use crate::sys::inroot::Make;
use crate::sys::process;

/// The whole script. The order within it is the one that makes it work; each step says why it stands where it does.
pub(super) fn assemble(
    prepared: &Prepared,
    trees: &Trees,
    warnings: &mut Vec<String>,
) -> Result<Script, Error> {
    let plan = &prepared.plan;
    let mut script = Script::default();
    // First of all: from here on nothing can outlive the supervisor.
    script.push(Op::DieWithParent, "tie the container to its supervisor");
    // Before any mount point is made, since the umask is the caller's.
    script.push(Op::Umask, "set the umask");
    if let Some(range) = prepared.users().filter(|range| range.base != 0) {
        script.push(Op::FileOwner { id: range.base }, "own the mount points as the container's root");
        // A change of credentials clears it (prctl(2), PR_SET_PDEATHSIG).
        script.push(Op::DieWithParent, "tie the container to its supervisor");
    }
    if let Some(network) = &prepared.network {
        // Before /sys is mounted, which shows the network of whoever mounts it.
        let join = Op::Join { fd: network.as_raw_fd(), namespaces: libc::CLONE_NEWNET };
        script.push(join, "enter the network namespace");
    }
    mounts(&mut script, plan, trees, warnings)?;
    if plan.namespaces.uts {
        let name = script.string(&c_text(&plan.hostname)?);
        script.push(Op::Hostname { name }, format!("set the hostname to {}", plan.hostname));
    }
    script.push(Op::NewSession, "start a session");
    let terminal = plan.console != Console::Pipe;
    if terminal {
        // After the pivot, so that /proc/1/fd shows /dev/console.
        let path = script.string(c"dev/console");
        let control = !plan.as_pid2;
        script.push(Op::Console { path, control }, "open /dev/console");
    }
    script.push(Op::NewKeyring, "join a new session keyring");
    if plan.users.is_none() {
        script.push(Op::ClearGroups, "drop the supplementary groups");
        as_host(&mut script, plan);
    }
    let user = prepared.account.as_ref().map(|account| (account, terminal));
    let inherited = Inherited { descriptors: plan.listen_fds, user };
    confine(&mut script, plan.capabilities, &plan.confinement, inherited)?;
    // As the user: root may enter directories that the program could not.
    chdir(&mut script, prepared)?;
    script.image = prepared.image()?;
    let stub = plan.as_pid2.then(|| stub(&mut script, prepared, terminal)).transpose()?;
    execute(&mut script, stub);
    Ok(script)
}

/// What a program is not separated from: all but nothing by default.
#[derive(Debug, Default)]
pub(crate) struct Inherited<'a> {
    /// Number of descriptors from 3 on.
    descriptors: u32,
    /// Whom it runs as, root unless given, and whether standard input, output and error are to become that user's.
    user: Option<(&'a Account, bool)>,
}

/// What every script does before its program may run, a container's as an exec's.
///
/// # Errors
/// When the confinement was written by another version, which knew other system calls.
pub(crate) fn confine(
    script: &mut Script,
    capabilities: CapSet,
    confinement: &Confinement,
    inherited: Inherited<'_>,
) -> Result<(), Error> {
    let policy = confinement.policy(capabilities);
    let policy = policy.map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?;
    script.filter = crate::seccomp::compile(&policy);
    if let Some((account, _)) = inherited.user {
        let path = script.string(&relative(&account.home)?);
        let op = Op::Home { path, uid: account.uid, gid: account.gid };
        script.push(op, format!("make the home directory {}", account.home.display()));
    }
    script.push(Op::DefaultSignals, "reset the signals");
    script.push(Op::CloseDescriptors { inherited: inherited.descriptors }, "close inherited descriptors");
    if let Some(personality) = confinement.personality {
        script.push(
            Op::Personality { domain: personality.domain() },
            "take on the personality of another machine, whose programs this kernel may not run",
        );
    }
    if confinement.no_new_privileges {
        script.push(Op::NoNewPrivileges, "give up new privileges");
    }
    // The filter before the capabilities: without NO_NEW_PRIVS it takes CAP_SYS_ADMIN to install one.
    script.push(Op::Filter, "install the seccomp filter");
    // Before a change of user, which leaves no CAP_SETPCAP.
    script.push(Op::Bounding { mask: capabilities.bits() }, "limit the capabilities");
    if let Some((Account { uid, gid, groups, .. }, terminal)) = inherited.user {
        script.groups.clone_from(groups);
        let op = Op::SetUser { uid: *uid, gid: *gid, terminal };
        script.push(op, format!("become user {uid} in group {gid}"));
    }
    let (mask, ambient) = (capabilities.bits(), confinement.ambient.bits());
    script.push(Op::Capabilities { mask, ambient }, "set the capabilities");
    // A change of credentials clears it (prctl(2), PR_SET_PDEATHSIG).
    script.push(Op::DieWithParent, "tie the container to its supervisor");
    Ok(())
}

/// What comes last in every script.
pub(crate) fn execute(script: &mut Script, stub: Option<Stub>) {
    script.push(Op::Await, "wait for the network");
    if let Some(stub) = stub {
        script.push(Op::Stub(stub), "fork the program from its stub");
    }
    script.push(Op::Exec, "execute the program");
}

fn chdir(script: &mut Script, prepared: &Prepared) -> Result<(), Error> {
    let plan = &prepared.plan;
    let home = || prepared.account.as_ref().map_or(Path::new("/root"), |account| &account.home);
    let (path, must) = match &plan.cwd {
        Some(path) => (path.as_path(), true),
        // As nspawn, and login: a shell without its home is better than none.
        None if plan.program == Program::Shell => (home(), false),
        None => return Ok(()),
    };
    let string = script.string(&c_path(path)?);
    script.push(Op::Chdir { path: string, must }, format!("change to the directory {}", path.display()));
    Ok(())
}

fn stub(script: &mut Script, prepared: &Prepared, terminal: bool) -> Result<Stub, Error> {
    let doing = || "find our own command line in memory".to_owned();
    let (arguments, environment) = process::own_strings().doing(doing)?;
    let shown = prepared.plan.env.iter().find(|(key, _)| key == "container");
    let manager = shown.map(|(_, value)| value.to_string_lossy()).unwrap_or_default();
    let uuid = crate::rootfs::format_uuid(prepared.uuid);
    let shown = script.put(format!("container={manager}\0container_uuid={uuid}\0").as_bytes());
    Ok(Stub { terminal, arguments, environment, shown })
}

/// What takes privileges over the host, and is inherited: with a user namespace it is done before that is entered.
fn as_host(script: &mut Script, plan: &Plan) {
    for limit in &plan.limits {
        let op = Op::Limit { resource: limit.resource, soft: limit.soft, hard: limit.hard };
        script.push(op, format!("set the limit {}", limit.name));
    }
}

/// Has the process that made the mounts clone the container's first process, which gets them locked, and take away
/// those that were for it alone, once it lets it.
fn enter_users(script: &mut Script, plan: &Plan) -> Result<(), Error> {
    as_host(script, plan);
    let visible: Vec<_> =
        plan.mounts.iter().filter(|mount| matches!(mount.source, Source::Visible(_))).collect();
    let split = Op::Split { namespaces: plan.namespaces.clone_flags(), aside: visible.len() + 1 };
    script.push(split, "create the container's namespaces");
    for mount in visible {
        // From the container's copies of the mounts, which follow ours, it goes as well.
        let path = script.string(&relative(&mount.target)?);
        script.push(Op::Unmount { path }, format!("unmount {}", mount.target.display()));
    }
    script.push(Op::End, "end");
    script.push(Op::DieWithParent, "tie the container to its supervisor");
    script.push(Op::AwaitIds, "wait for the ids");
    script.push(Op::BecomeRoot, "become the container's root");
    // A change of credentials clears it (prctl(2), PR_SET_PDEATHSIG).
    script.push(Op::DieWithParent, "tie the container to its supervisor");
    Ok(())
}

/// Makes the mount points of what the container mounts itself, while what they are in can be written to: its root may
/// not be one that it can make directories in.
fn make_targets(script: &mut Script, plan: &Plan) -> Result<(), Error> {
    let inside = plan.mounts.iter().skip_while(|mount| mount.source != Source::UserNamespace);
    for mount in inside {
        if let Source::Kernel(fstype) = &mount.source {
            let target = target(script, mount, ANY_DIRECTORY)?;
            script.push(Op::MakeTarget { target }, format!("make the mount point of {fstype}"));
        }
    }
    Ok(())
}

/// Staged trees come first: what is staged later would lie over the container's root.
fn mounts(script: &mut Script, plan: &Plan, trees: &Trees, warnings: &mut Vec<String>) -> Result<(), Error> {
    script.push(Op::LeaveChroot, "find the root of the mounts");
    script.push(Op::PrivateTree, "make the host's mounts private");
    for tree in trees.base.iter().chain(&trees.layers) {
        script.push(Op::Stage { tree: tree.as_raw_fd() }, "set a source of the mounts aside");
    }
    let mut layers = trees.layers.iter().map(AsRawFd::as_raw_fd);
    let (mut ready, mut inside) = (false, false);
    for (index, (mount, tree)) in plan.mounts.iter().zip(&trees.mounts).enumerate() {
        match mount.source {
            Source::Visible(_) if !ready => {
                make_targets(script, plan)?;
                ready = true;
            }
            Source::UserNamespace => {
                enter_users(script, plan)?;
                inside = true;
                continue;
            }
            Source::Share if inside => script.push(Op::Release, "let go what made the mounts"),
            Source::Share => {
                // Before: pivot_root refuses a shared root.
                let staged = script.staged();
                script.push(Op::Pivot { staged }, "make the container's root /");
            }
            _ => {}
        }
        let op = match (&mount.source, tree) {
            (Source::Overlay { lower, upper }, _) => {
                let overlay = overlay_of(lower, upper.as_ref(), &mut layers, script)?;
                let (overlay, target) = (script.overlay(overlay), target(script, mount, ANY_DIRECTORY)?);
                Op::Overlay { overlay, attributes: mount.attributes.bits(), target }
            }
            (source, tree) if host_files::is_offer(source) => {
                let Some(op) = host_files::step(script, mount, tree.as_ref(), warnings)? else { continue };
                op
            }
            (_, Some(tree)) => attach(script, mount, tree, trees)?,
            (source, None) => make(script, mount, source, trees)?,
        };
        script.push(op, Purpose::Mount(index));
        if index == 0 {
            parts(script, plan, trees)?;
        }
        match mount.source {
            // The file lives on under its mount; its name in /run was only a way to get there.
            Source::BootId => remove(script, &format!("run/{BOOT_ID}")),
            Source::KernelLog => remove(script, &format!("run/{KMSG}")),
            _ => {}
        }
    }
    Ok(())
}

/// An image's other partitions. A volatile root keeps /usr, wherever it is, by a mount of its own.
fn parts(script: &mut Script, plan: &Plan, trees: &Trees) -> Result<(), Error> {
    for (place, tree) in &trees.parts {
        let path = script.string(&relative(Path::new(place))?);
        let target = Target { path, make: ANY_DIRECTORY, follow: false };
        let text = format!("mount the partition for {place} of {}", plan.rootfs.display());
        script.push(Op::Attach { tree: tree.as_raw_fd(), target }, text);
    }
    Ok(())
}

const ANY_DIRECTORY: Make = Make::Directory(0o755);

/// How a tree that the parent has made becomes part of the container's.
fn attach(script: &mut Script, mount: &MountPlan, tree: &OwnedFd, trees: &Trees) -> Result<Op, Error> {
    let fd = tree.as_raw_fd();
    let make = match (&mount.source, trees.base.as_ref()) {
        (Source::RootOverlay { .. }, Some(base)) => {
            script.root = fd;
            script.push(Op::Stage { tree: fd }, "set the tmpfs over the root directory aside");
            let (lower, upper, work) =
                (script.string(c"."), script.string(overlay::UPPER), script.string(overlay::WORK));
            let layer = |tree, path| Layer { tree: Some(tree), path, make: Make::Nothing };
            let lower = vec![layer(base.as_raw_fd(), lower)];
            let overlay = Overlay { lower, upper: Some([layer(fd, upper), layer(fd, work)]) };
            return Ok(Op::OverlayRoot { overlay: script.overlay(overlay) });
        }
        _ if mount.target == Path::new("/") => {
            script.root = fd;
            return Ok(Op::AttachRoot);
        }
        (Source::HostPath { make: true, .. }, _) => make_for(tree)?,
        (Source::HostPath { make: false, .. }, _) => Make::Nothing,
        _ => ANY_DIRECTORY,
    };
    Ok(Op::Attach { tree: fd, target: target(script, mount, make)? })
}

/// What is made in the container's namespaces, or of what is in them.
fn make(script: &mut Script, mount: &MountPlan, source: &Source, trees: &Trees) -> Result<Op, Error> {
    let attributes = mount.attributes.bits();
    let there = target(script, mount, Make::Nothing)?;
    let path = there.path;
    Ok(match source {
        Source::Kernel(fstype) | Source::Visible(fstype) => {
            let fstype = script.string(&c_text(fstype)?);
            Op::NewFs { fstype, attributes, target: Target { make: ANY_DIRECTORY, ..there } }
        }
        Source::Own { path, recursive } => {
            let source = script.string(&relative(path)?);
            Op::Bind { source, recursive: *recursive, attributes, target: there }
        }
        Source::InRoot { path, recursive } => {
            let source = script.string(&relative(path)?);
            Op::BindIn { tree: script.root, source, recursive: *recursive, attributes, target: there }
        }
        Source::BaseOf { path } => {
            let source = script.string(&relative(path)?);
            let tree = trees.base.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            Op::BindIn { tree, source, recursive: true, attributes, target: there }
        }
        Source::Directory => Op::MakeDirectory { path },
        Source::Inaccessible => Op::Mask { attributes, target: there },
        Source::Console => bind(script, "dev/pts/0", attributes, there),
        Source::BootId => bind(script, &format!("run/{BOOT_ID}"), attributes, there),
        Source::KernelLog => bind(script, &format!("run/{KMSG}"), attributes, there),
        Source::Remount => Op::SetAttributes { path, attributes, propagation: 0, recursive: false },
        Source::Unmount => Op::Unmount { path },
        Source::Share => {
            Op::SetAttributes { path, attributes, propagation: libc::MS_SHARED, recursive: true }
        }
        Source::KernelOutside(fstype) => {
            let (fstype, at) = (script.string(&c_text(fstype)?), script.string(&c_path(&mount.target)?));
            Op::NewFsOutside { fstype, attributes, at }
        }
        Source::Outside { path } => {
            let source = script.string(&c_path(path)?);
            Op::Bind { source, recursive: false, attributes, target: there }
        }
        _ => unreachable!("the parent builds every tree of these"),
    })
}

/// The directories of an overlay; those on the host are the next of `trees`.
fn overlay_of(
    lower: &[plan::Layer],
    upper: Option<&UpperLayer>,
    trees: &mut impl Iterator<Item = RawFd>,
    script: &mut Script,
) -> Result<Overlay, Error> {
    let mut overlay = Overlay::default();
    for layer in lower {
        let (tree, path) = match layer {
            plan::Layer::Host(_) => (trees.next(), script.string(c".")),
            plan::Layer::InRoot(path) => (None, script.string(&relative(path)?)),
        };
        overlay.lower.insert(0, Layer { tree, path, make: Make::Nothing });
    }
    if let Some(UpperLayer { layer, work }) = upper {
        let (plan::Layer::Host(path) | plan::Layer::InRoot(path)) = layer;
        let work = path.with_file_name(work);
        let (tree, upper, work, make) = match layer {
            plan::Layer::Host(_) => {
                let name = |path: &Path| c_path(Path::new(path.file_name().unwrap_or_default()));
                (trees.next(), name(path)?, name(&work)?, Make::Nothing)
            }
            plan::Layer::InRoot(_) => (None, relative(path)?, relative(&work)?, ANY_DIRECTORY),
        };
        let (path, work) = (script.string(&upper), script.string(&work));
        overlay.upper = Some([Layer { tree, path, make: Make::Nothing }, Layer { tree, path: work, make }]);
    }
    Ok(overlay)
}

fn target(script: &mut Script, mount: &MountPlan, make: Make) -> Result<Target, Error> {
    let path = script.string(&relative(&mount.target)?);
    Ok(Target { path, make, follow: follows(&mount.target) })
}

fn bind(script: &mut Script, source: &str, attributes: u64, target: Target) -> Op {
    let source = script.string(&c_text(source).unwrap_or_default());
    Op::Bind { source, recursive: false, attributes, target }
}

fn remove(script: &mut Script, name: &str) {
    let path = script.string(&c_text(name).unwrap_or_default());
    script.push(Op::Remove { path }, format!("remove /{name}"));
}

/// A mount point of the kind of what is mounted.
fn make_for(tree: &OwnedFd) -> Result<Make, Error> {
    let stat = nix::sys::stat::fstat(tree).doing(|| "stat a bind mount's source".to_owned())?;
    let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    Ok(if directory { Make::Directory(0o755) } else { Make::File(0o644) })
}

/// The API file systems lie on real directories of the root, and what lies below them on trees of our own: a
/// symlink there is the container's trick. Elsewhere in the root symlinks are its business.
fn follows(target: &Path) -> bool {
    let first = target.components().nth(1).map(|part| part.as_os_str().to_owned());
    !first.is_some_and(|first| ["tmp", "sys", "dev", "run", "proc"].iter().any(|api| first == *api))
}

pub(super) fn relative(path: &Path) -> Result<CString, Error> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    c_path(if relative.as_os_str().is_empty() { Path::new(".") } else { relative })
}

fn c_text(text: &str) -> Result<CString, Error> {
    c_path(Path::new(text))
}
