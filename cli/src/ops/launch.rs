//! Starting a container: the one path that every front end takes.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use netsetup::{Applied, NetFacts, NetworkConfig, NetworkPlan, Resource};
use runtime::instance::{Instance, ProcessId, Record, RootLock, State};
use runtime::supervisor::{Attached, Event};
use runtime::{
    Cgroup, CgroupParent, ContainerConfig, DevicePolicy, HostFacts, HostPaths, Outcome, Paused, Plan,
    Prepared, Program, Supervisor, Users,
};
use serde::Serialize;

use super::error::{Error, Result};
use super::names::Names;
use super::registration::Companion;
use super::scope::{self, UnitPlan};
use super::{net_paths, reclaim};
use crate::dbus::scope::Scope;
use crate::events::{self, Kind};
use crate::machined::Machine;
use crate::resolver::Follower;
use crate::unit_property::UnitProperty;

/// A container to be started.
#[derive(Debug, Clone)]
pub struct Request {
    /// What runtime is asked for.
    pub container: ContainerConfig,
    /// What netsetup is asked for, when the container has a network of its own.
    pub network: Option<NetworkConfig>,
    /// What was left out because the host lacks it, one sentence each.
    pub notes: Vec<String>,
    /// Whether the end waits until the kernel has removed the container's links, some 20 ms; otherwise they go
    /// with the container's network namespace, soon after.
    pub wait_for_links: bool,
    /// How the host's systemd sees it.
    pub unit: UnitRequest,
    /// Whether it is known as NAME.containers on the host and to other containers, where it has addresses, and they to
    /// it, where it has a network of its own ([`crate::hosts_file`]).
    pub names: bool,
}

/// How the host's systemd sees a container. On a host without systemd, defaults ask for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitRequest {
    /// Whether systemd-machined hears of the container, under the name in
    /// [`ContainerConfig::manager`]: `machinectl`, and `systemctl -M`, know it then.
    pub register: bool,
    /// Whether the container stays in the unit that nixrun runs in, and no scope is asked for (`--keep-unit`).
    pub keep_unit: bool,
    /// The slice of the scope, machine.slice when absent. Asks for a scope even in a unit that was delegated to us.
    pub slice: Option<String>,
    /// Properties of the scope. Ask for one even in a unit that was delegated to us.
    pub properties: Vec<UnitProperty>,
}

impl Default for UnitRequest {
    fn default() -> Self {
        UnitRequest { register: true, keep_unit: false, slice: None, properties: Vec::new() }
    }
}

/// Everything that a start will do, as data.
#[derive(Debug, Serialize)]
pub struct Planned {
    /// What runtime will do.
    pub container: Plan,
    /// What netsetup will do.
    pub network: Option<NetworkPlan>,
    /// What the host's systemd is asked for, where there is one.
    pub unit: Option<UnitPlan>,
    /// What was left out because the host lacks it, one sentence each.
    pub notes: Vec<String>,
    #[serde(skip)]
    wait_for_links: bool,
    /// Who runs the container, as systemd-machined is told.
    #[serde(skip)]
    manager: String,
    /// Whether it is one of several of this process.
    #[serde(skip)]
    embedded: bool,
    /// What is kept in its files and the host's while it runs.
    #[serde(skip)]
    names: Names,
}

impl Planned {
    /// Plans a request; changes nothing and needs no privileges.
    ///
    /// # Errors
    /// When the request makes no sense on this host.
    pub fn new(request: &Request, paths: &HostPaths) -> Result<Planned> {
        let facts = HostFacts::probe_for(paths, &request.container)?;
        let unit = UnitPlan::new(&request.container.name, &request.unit, &facts)?;
        let mut container =
            Plan::new(&scope::placed(&request.container, &request.unit, unit.as_ref()), &facts)?;
        if scope::allows_all_devices(&request.unit) {
            container.cgroup.devices = DevicePolicy::Unit;
        }
        let network = match &request.network {
            Some(config) => {
                let facts = NetFacts::probe(&net_paths(paths), config)?;
                Some(NetworkPlan::new(config, &facts)?)
            }
            None => None,
        };
        let names = names(request, network.as_ref());
        Ok(Planned {
            container,
            network,
            unit,
            notes: request.notes.clone(),
            wait_for_links: request.wait_for_links,
            manager: request.container.manager.clone(),
            embedded: request.container.cgroup == CgroupParent::Beside,
            names,
        })
    }

    /// Looks up what only a reader of the plan wants to know: host settings that will change.
    ///
    /// # Errors
    /// When /proc/sys cannot be read.
    pub fn for_reading(request: &Request, paths: &HostPaths) -> Result<Planned> {
        let mut planned = Planned::new(request, paths)?;
        if let Some(config) = &request.network {
            let facts =
                NetFacts::probe(&net_paths(paths), config)?.probe_sysctls(&net_paths(paths), config)?;
            planned.network = Some(NetworkPlan::new(config, &facts)?);
        }
        Ok(planned)
    }

    /// Starts the container: returns once its program has been executed.
    ///
    /// # Errors
    /// When any step fails; what was made before is removed again.
    pub fn start(self, paths: &HostPaths) -> Result<Running> {
        let wait_for_links = self.wait_for_links;
        let names = self.names.clone();
        let service = self.unit.as_ref().filter(|unit| unit.register).map(|_| self.manager.clone());
        let links = self.network.as_ref().map(host_links).unwrap_or_default();
        // The root, when it is new, so that it can be locked.
        runtime::rootfs::prepare_host(&self.container.preparation)?;
        let mut instance = Instance::claim(
            paths,
            &self.container.name,
            &self.container.rootfs,
            RootLock::of(&self.container.root),
        )?;
        reclaim::leftovers(&mut instance, &self.container.name, paths)?;
        let on_host = self.container.on_host.clone();
        match start_claimed(&instance, self, paths) {
            Ok((supervisor, mut network, state)) => {
                // The program runs by now; none of this holds it up.
                let warnings = network.as_mut().map(Applied::attend).unwrap_or_default();
                let machine = service.map(|service| machine(service, &supervisor, &state, &links));
                Ok(Running { supervisor, network, instance, state, warnings, wait_for_links, machine, names })
            }
            Err(error) => {
                // What could not be removed is reclaim's, which goes by the journal.
                if !on_host.iter().any(|one| one.path().exists()) {
                    instance.release();
                }
                Err(error)
            }
        }
    }
}

fn start_claimed(
    instance: &Instance,
    planned: Planned,
    paths: &HostPaths,
) -> Result<(Supervisor, Option<Applied>, State)> {
    let embedded = planned.embedded;
    let Planned { container, network, unit, names, .. } = planned;
    let registered = unit.is_some_and(|unit| unit.register);
    let mut records = records(&container, network.as_ref(), registered);
    records.extend(names.record());
    instance.journal(&records)?;
    let users = Users::choose(&container, |path| instance.journal(&[reclaim::ids_record(path)]))?;
    let prepared = Prepared::with_users(container, users)?;
    let cgroup = Cgroup::create(&prepared.plan().cgroup)?;
    // The container makes its mounts while we make its network.
    let paused = prepared.launch(cgroup)?;
    let applied = match &network {
        Some(plan) => {
            Some(netsetup::apply(plan, &net_paths(paths), std::os::fd::AsFd::as_fd(&paused.netns()?))?)
        }
        None => None,
    };
    let state = State { embedded, ..state(&paused, network.as_ref())? };
    let supervisor = paused.resume()?;
    // While the program begins to run: nobody can have asked for it yet.
    instance.publish(&state)?;
    Ok((supervisor, applied, state))
}

/// Names everything that is about to be made, for the one who cleans up if we are killed.
fn records(container: &Plan, network: Option<&NetworkPlan>, registered: bool) -> Vec<Record> {
    let record = |kind: &str, value: serde_json::Result<serde_json::Value>| Record {
        kind: kind.to_owned(),
        value: value.unwrap_or_default(),
    };
    let mut records = vec![record(reclaim::CGROUP, serde_json::to_value(&container.cgroup))];
    if !container.on_host.is_empty() {
        records.push(record(reclaim::ON_HOST, serde_json::to_value(&container.on_host)));
    }
    records.extend(network.map(|plan| record(reclaim::NETWORK, serde_json::to_value(plan.resources()))));
    records.extend(registered.then(|| record(reclaim::MACHINE, serde_json::to_value(&container.name))));
    records
}

/// Names of the links that the container has on the host.
fn host_links(network: &NetworkPlan) -> Vec<String> {
    let links = network.resources().into_iter().filter_map(|resource| match resource {
        Resource::Link { name } => Some(name),
        _ => None,
    });
    links.collect()
}

/// What systemd-machined is told. A link that has gone already has no index.
fn machine(service: String, supervisor: &Supervisor, state: &State, links: &[String]) -> Machine {
    let index = |name: &String| nix::net::if_::if_nametoindex(name.as_str()).ok();
    Machine {
        name: state.name.clone(),
        id: supervisor.uuid(),
        service,
        leader: supervisor.pid().cast_unsigned(),
        root: state.root.clone(),
        links: links.iter().filter_map(index).map(u32::cast_signed).collect(),
    }
}

/// What is kept while the container runs.
fn names(request: &Request, network: Option<&NetworkPlan>) -> Names {
    let container = &request.container;
    let own_network = container.network.is_private();
    let follows = container.integration.resolv_conf.follows() && !container.root.read_only;
    Names {
        resolver: follows.then(|| Follower::new(own_network)),
        addresses: network.filter(|_| request.names).map(NetworkPlan::addresses).unwrap_or_default(),
        neighbours: request.names && own_network,
    }
}

fn state(paused: &Paused, network: Option<&NetworkPlan>) -> Result<State> {
    let (prepared, plan) = (paused.prepared(), paused.prepared().plan());
    let ours = process(std::process::id() as libc::pid_t)?;
    Ok(State {
        name: plan.name.clone(),
        root: plan.rootfs.clone(),
        cgroup: plan.cgroup.payload.clone(),
        supervisor: ours,
        leader: process(paused.pid())?,
        uuid: runtime::rootfs::format_uuid(prepared.uuid()),
        ready: !plan.notify_ready,
        started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        program: match plan.program {
            Program::Command => {
                plan.argv.first().map_or_else(String::new, |p| p.to_string_lossy().into_owned())
            }
            Program::Init => "init".to_owned(),
            Program::Shell => "shell".to_owned(),
        },
        users: prepared.users(),
        capabilities: plan.capabilities.bits(),
        confinement: plan.confinement.clone(),
        addresses: network
            .map(|plan| plan.addresses().iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        links: network.map(host_links).unwrap_or_default(),
        stop_signal: plan.stop_signal,
        embedded: false,
    })
}

fn process(pid: libc::pid_t) -> Result<ProcessId> {
    ProcessId::of(pid).ok_or_else(|| Error::Other(format!("cannot read /proc/{pid}/stat; is /proc mounted?")))
}

/// A container that runs.
#[derive(Debug)]
pub struct Running {
    supervisor: Supervisor,
    network: Option<Applied>,
    instance: Instance,
    state: State,
    warnings: Vec<String>,
    wait_for_links: bool,
    machine: Option<Machine>,
    names: Names,
}

/// The end of a container.
#[derive(Debug)]
pub struct Finished {
    /// How its PID 1 ended.
    pub outcome: Outcome,
    /// What could not be cleaned up; `nixrun reclaim` tries again.
    pub cleanup: Vec<Error>,
}

impl Running {
    /// The supervisor.
    #[must_use]
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// What others may know about the container.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is not as asked for although the container runs, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Supervises the container to its end and removes what was made for it. Meanwhile it is registered with
    /// systemd-machined, and shut down when systemd wants to stop the `scope` that [`super::enter_scope`] got.
    ///
    /// # Errors
    /// When supervising fails; the container is gone then, too.
    pub fn supervise(
        mut self,
        attached: &Attached<'_>,
        scope: Option<&mut Scope>,
        paths: &HostPaths,
        on_event: impl FnMut(Event) + Send,
    ) -> Result<Finished> {
        let (instance, mut state) = (&self.instance, self.state);
        let name = state.name.clone();
        events::tell(paths, &name, Kind::Started, None);
        if state.ready {
            events::tell(paths, &name, Kind::Ready, None);
        }
        let on_event = Mutex::new(on_event);
        let tell = |event| (on_event.lock().unwrap_or_else(PoisonError::into_inner))(event);
        let companion = Companion { machine: self.machine, scope, stopper: self.supervisor.stopper(), paths };
        let begun = state.clone();
        let end = self.names.beside(&begun, paths, &tell, |names| {
            companion.beside(&|warning| tell(Event::Warning(warning)), || {
                self.supervisor.run(attached, |event| {
                    if event == Event::Ready {
                        names.ready();
                        state.ready = true;
                        // Only `list` would show it late.
                        let _ = instance.publish(&state);
                    }
                    announce(&name, &event, paths);
                    tell(event);
                })
            })
        });
        let network = self.network.take().map(|network| network.teardown(self.wait_for_links));
        let known = self.names.forget(&name, paths);
        let end = match end {
            Ok(end) => end,
            Err(error) => {
                events::tell(paths, &name, Kind::Exited, Some(&error.to_string()));
                return Err(error.into());
            }
        };
        let mut cleanup: Vec<Error> = end.cleanup.into_iter().map(Error::from).collect();
        cleanup.extend(network.and_then(std::result::Result::err).map(Error::from));
        cleanup.extend(known.err());
        // With something left behind the journal stays, for reclaim.
        if cleanup.is_empty() {
            self.instance.release();
        }
        // Whoever hears of it can start the container again.
        events::tell(paths, &name, Kind::Exited, Some(&events::ended(end.outcome)));
        Ok(Finished { outcome: end.outcome, cleanup })
    }
}

/// Tells those who listen what else happened to the container.
fn announce(name: &str, event: &Event, paths: &HostPaths) {
    match event {
        Event::Ready => events::tell(paths, name, Kind::Ready, None),
        Event::OomKilled(count) => {
            events::tell(paths, name, Kind::Oom, Some(&format!("{count} killed")));
        }
        _ => {}
    }
}
