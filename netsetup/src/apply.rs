//! The plan made real, and undone: the caller's child waits meanwhile, so system calls are few and each batch of
//! requests is one.

use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::check::{holder_of, is_ours};
use crate::error::{Error, Errors, KernelError, Result};
use crate::facts::NetPaths;
use crate::netns;
use crate::nft;
use crate::plan::{ContainerEnd, HostEnd, NetworkPlan, VethPlan};
use crate::reclaim::delete_link_of;
use crate::route::{addr, link, route};
use crate::shared::{Registration, Shared};
use crate::socket::{Batch, Route, Socket};
use crate::sysctl::Sysctls;

/// Index of the loopback link in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// How long a link of a dying earlier instance may keep its name.
const NAME_TIMEOUT: Duration = Duration::from_secs(2);

/// A container's network that is in place. Dropping it undoes everything, unless [`Applied::keep`] was called.
#[derive(Debug)]
#[must_use = "dropping it removes the network"]
pub struct Applied {
    paths: NetPaths,
    container: String,
    registration: Option<Registration>,
    link: Option<String>,
    armed: bool,
}

/// Makes the network of a container in its network namespace `netns`, which is new and empty, and around it on
/// the host, in the calling thread's network namespace. The caller holds the container's own lock, so no other
/// instance of it runs.
///
/// # Errors
/// When the kernel refuses anything; when an address, a port or a link's name was taken since the plan was made.
/// Nothing remains then.
pub fn apply(plan: &NetworkPlan, paths: &NetPaths, netns: BorrowedFd<'_>) -> Result<Applied> {
    thread::scope(|scope| {
        // The thread starts while we work on the host's side.
        let inside = netns::start_inside(scope, netns, Socket::<Route>::open)?;
        let mut applied = Applied {
            paths: paths.clone(),
            container: plan.container.clone(),
            registration: None,
            link: None,
            armed: true,
        };
        if plan.registers() {
            let registration = Registration::of(plan);
            Shared::lock(paths)?.enter(&registration)?;
            applied.registration = Some(registration);
        }
        let Some(veth) = &plan.veth else {
            inside.join()?.transact(loopback_up(), |_| {})?;
            return Ok(applied);
        };
        let mut host = Socket::<Route>::open()?;
        let (host_index, container_index) = create_pair(&mut host, plan, veth, netns)?;
        applied.link = Some(veth.host.name.clone());
        // The container's end comes up first: routes through a link without carrier would be marked dead.
        inside.join()?.transact(container_batch(&veth.container, container_index), |_| {})?;
        if veth.host.bridge.is_none() {
            Sysctls(&paths.proc_sys).ignore_router_advertisements(&veth.host.name)?;
        }
        host.transact(host_batch(&veth.host, host_index), |_| {})?;
        Ok(applied)
    })
}

/// The requests of [`apply`], encoded and not sent: for benches.
#[must_use]
pub fn encode(plan: &NetworkPlan, netns: BorrowedFd<'_>) -> Vec<u8> {
    let mut bytes = nft::encode_add((&plan.container, &plan.elements));
    if let Some(veth) = &plan.veth {
        bytes.extend_from_slice(pair_batch(veth, netns).bytes());
        bytes.extend_from_slice(container_batch(&veth.container, 2).bytes());
        bytes.extend_from_slice(host_batch(&veth.host, 3).bytes());
    }
    bytes
}

impl Applied {
    /// Leaves the network in place: [`crate::reclaim`] can remove it.
    pub fn keep(mut self) {
        self.armed = false;
    }

    /// Removes what the container has on the host, to be called when its processes are gone. The link dies with
    /// the network namespace, some time later; with `wait` it is deleted here, which takes about 17 ms.
    ///
    /// # Errors
    /// All that went wrong; every step is tried.
    pub fn teardown(mut self, wait: bool) -> std::result::Result<(), Errors> {
        self.armed = false;
        self.undo(wait)
    }

    fn undo(&mut self, delete_link: bool) -> std::result::Result<(), Errors> {
        let mut errors = Errors::default();
        if let Some(registration) = self.registration.take() {
            let shared = errors.note(Shared::lock(&self.paths));
            if let Some(Err(more)) = shared.map(|shared| shared.leave(&registration)) {
                errors.extend(more);
            }
        }
        if let Some(link) = self.link.take().filter(|_| delete_link) {
            errors.note(
                Socket::open().and_then(|mut socket| delete_link_of(&mut socket, &self.container, &link)),
            );
        }
        errors.into_result()
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        if self.armed {
            // Only reached on the way out with another error, which says why; this one's is for reclaim to repeat.
            let _ = self.undo(true);
        }
    }
}

fn pair_batch(veth: &VethPlan, netns: BorrowedFd<'_>) -> Batch {
    let mut batch = Batch::new();
    link::add_veth(&mut batch, &veth.host, &veth.container, netns);
    batch
}

/// Creates the pair, and returns the indexes of the host's and the container's end. An earlier instance's link
/// keeps its name until the kernel is done with its namespace: it is deleted, which frees the name at once.
fn create_pair(
    host: &mut Socket<Route>,
    plan: &NetworkPlan,
    veth: &VethPlan,
    netns: BorrowedFd<'_>,
) -> Result<(u32, u32)> {
    let started = Instant::now();
    loop {
        let mut indexes = None;
        let created = host.transact(pair_batch(veth, netns), |echo| indexes = link::veth_indexes(echo));
        match created {
            Ok(()) => return indexes.ok_or_else(|| no_echo(&veth.host)),
            Err(error) if error.errno() == Some(Errno::EEXIST) && started.elapsed() < NAME_TIMEOUT => {}
            Err(error) => return Err(error),
        }
        for name in [Some(&veth.host.name), veth.host.altname.as_ref()].into_iter().flatten() {
            let Some(link) = host.link_by_name(name)? else { continue };
            if !is_ours(&link, &plan.container) {
                let (container, holder) = (plan.container.clone(), holder_of(&link));
                return Err(Error::LinkTaken { container, link: name.clone(), holder });
            }
            host.delete_link(link.index, &link.name)?;
        }
    }
}

fn no_echo(host: &HostEnd) -> Error {
    let failure = KernelError { errno: Errno::EPROTO, text: Some("no echo".into()) };
    Error::Netlink { doing: format!("learn the index of {}", host.name), failure }
}

fn loopback_up() -> Batch {
    let mut batch = Batch::new();
    link::up(&mut batch, LOOPBACK, "lo");
    batch
}

fn container_batch(container: &ContainerEnd, index: u32) -> Batch {
    let mut batch = loopback_up();
    link::up(&mut batch, index, &container.name);
    for address in &container.addresses {
        addr::add(&mut batch, index, &container.name, *address);
    }
    for gateway in &container.gateways {
        route::add_host(&mut batch, index, &container.name, *gateway);
        route::add_default(&mut batch, index, &container.name, *gateway);
    }
    batch
}

fn host_batch(host: &HostEnd, index: u32) -> Batch {
    let mut batch = Batch::new();
    link::mark(&mut batch, index, host);
    if let Some(altname) = &host.altname {
        link::add_altname(&mut batch, index, altname);
    }
    for address in &host.addresses {
        addr::add(&mut batch, index, &host.name, *address);
    }
    for to in &host.routes {
        route::add_host(&mut batch, index, &host.name, *to);
    }
    batch
}
