//! Where systemd has a container: in the unit that nixrun runs in, or in a scope of its own.

use std::borrow::Cow;
use std::time::Duration;

use runtime::{ContainerConfig, Device, DeviceAllow, HostFacts, HostPaths};
use serde::Serialize;

use super::error::{Error, Result};
use super::launch::{Request, UnitRequest};
use crate::dbus;
use crate::dbus::scope::{SLICE, Scope, ScopeRequest, scope_name};
use crate::unit_property::{PropertyValue, UnitProperty};

/// How long systemd may take to start a scope; its own default for a job is longer, but somebody is waiting.
const TIMEOUT: Duration = Duration::from_secs(25);

/// What the host's systemd is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitPlan {
    /// The scope that nixrun moves to with its container; none in a unit that was delegated to it.
    pub scope: Option<ScopePlan>,
    /// Whether systemd-machined hears of the container.
    pub register: bool,
}

/// A scope, as it will be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScopePlan {
    /// Its name.
    pub name: String,
    /// The slice that it goes into.
    pub slice: String,
    /// What else it has.
    pub properties: Vec<UnitProperty>,
}

impl UnitPlan {
    /// Checks what was asked against the host; `None` where systemd is not its init.
    pub(super) fn new(name: &str, request: &UnitRequest, host: &HostFacts) -> Result<Option<UnitPlan>> {
        let UnitRequest { register, keep_unit, slice, properties } = request;
        check(name, request, host)?;
        if !host.systemd {
            return Ok(None);
        }
        let delegated = host.cgroup.as_ref().is_some_and(|cgroup| cgroup.delegated.is_some());
        let stays = *keep_unit || delegated && slice.is_none() && properties.is_empty();
        let scope = (!stays).then(|| ScopePlan {
            name: scope_name(name),
            slice: slice.clone().unwrap_or_else(|| SLICE.to_owned()),
            properties: properties.clone(),
        });
        Ok(Some(UnitPlan { scope, register: *register }))
    }
}

fn check(name: &str, request: &UnitRequest, host: &HostFacts) -> Result<()> {
    let asked = if request.slice.is_some() {
        "a slice"
    } else if !request.properties.is_empty() {
        "properties of its unit"
    } else if request.keep_unit && request.register && host.systemd && in_user_session(host) {
        return Err(Error::Other(format!(
            "cannot keep container {name} in the unit of a user's session: systemd-machined would take the whole \
             session for the container; go without --keep-unit, or add --register=no"
        )));
    } else {
        return Ok(());
    };
    if !host.systemd {
        return Err(Error::Other(format!(
            "cannot give container {name} {asked}: systemd is not the init of this host"
        )));
    }
    if request.keep_unit {
        return Err(Error::Other(format!(
            "cannot give container {name} {asked}: it stays in the unit that nixrun runs in; go without --keep-unit"
        )));
    }
    Ok(())
}

/// The container with what follows from its place: the mounts that serve systemd-machined, and the devices of its
/// scope's properties. Beside systemd's filter on the scope there is ours on the container's own group, and both have
/// to agree.
pub(super) fn placed<'a>(
    container: &'a ContainerConfig,
    request: &UnitRequest,
    plan: Option<&UnitPlan>,
) -> Cow<'a, ContainerConfig> {
    let mut container = Cow::Borrowed(container);
    if plan.is_some_and(|plan| plan.register) {
        container.to_mut().integration.machine = true;
    }
    for property in &request.properties {
        match &property.value {
            // It resets what was allowed before it, which is nothing of ours.
            PropertyValue::Devices(devices) if !devices.is_empty() => {
                container.to_mut().security.devices.extend(devices.iter().map(device_allow));
            }
            _ => {}
        }
    }
    container
}

/// `DevicePolicy=auto`: what systemd allows is all that counts.
pub(super) fn allows_all_devices(request: &UnitRequest) -> bool {
    let policy = request.properties.iter().rfind(|property| property.name == "DevicePolicy");
    policy.is_some_and(|policy| policy.value == PropertyValue::Text("auto".to_owned()))
}

fn device_allow((path, access): &(String, String)) -> DeviceAllow {
    let device = match (path.strip_prefix("char-"), path.strip_prefix("block-")) {
        (Some(group), _) => Device::CharGroup(group.to_owned()),
        (_, Some(group)) => Device::BlockGroup(group.to_owned()),
        _ => Device::Node(path.into()),
    };
    let may = |letter| access.is_empty() || access.contains(letter);
    DeviceAllow { device, read: may('r'), write: may('w'), mknod: may('m') }
}

/// Below user-UID.slice everything belongs to a session or to the user's own systemd.
fn in_user_session(host: &HostFacts) -> bool {
    let own = host.cgroup.as_ref().map(|cgroup| cgroup.own.as_path());
    own.is_some_and(|own| {
        own.components().any(|part| {
            let part = part.as_os_str().to_str().unwrap_or_default();
            part.starts_with("user-") && part.ends_with(".slice")
        })
    })
}

/// Checks that this process may start containers, and on a systemd host sees to a group that it may manage: unless
/// the container stays in a unit that we run in, it moves into a new scope, because systemd lets nobody else manage
/// a part of the tree. Returns whether it moved: a plan made before names the old place.
///
/// `scope` has what an earlier start of this process got, and gets what this one gets. It is to be kept for as long as
/// the process runs: systemd stops the scope by asking its owner, see [`super::Running::supervise`].
///
/// # Errors
/// When we are not root, or systemd refuses.
pub fn enter_scope(request: &Request, paths: &HostPaths, scope: &mut Option<Scope>) -> Result<bool> {
    let name = &request.container.name;
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Other(format!(
            "cannot start container {name} as an ordinary user: namespaces, mounts and links need root; use sudo"
        )));
    }
    // HostFacts are some twenty files: not for a host where there is nothing to ask for.
    if scope.is_some() || !paths.join("/run/systemd/system").is_dir() {
        return Ok(false);
    }
    let Some(plan) = UnitPlan::new(name, &request.unit, &HostFacts::probe(paths)?)? else { return Ok(false) };
    let Some(ScopePlan { slice, properties, .. }) = plan.scope else { return Ok(false) };
    let asked = ScopeRequest { container: name, slice: &slice, properties: &properties };
    *scope = Some(Scope::start(&paths.join(dbus::SYSTEM_BUS), &asked, TIMEOUT)?);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host as this one is, but for its init.
    fn host(systemd: bool) -> HostFacts {
        HostFacts { systemd, ..HostFacts::probe(&HostPaths::default()).unwrap() }
    }

    fn plan(request: &UnitRequest, host: &HostFacts) -> std::result::Result<Option<UnitPlan>, String> {
        UnitPlan::new("web", request, host).map_err(|error| error.to_string())
    }

    fn properties(text: &[&str]) -> UnitRequest {
        let properties = text.iter().map(|text| text.parse().unwrap()).collect();
        UnitRequest { properties, ..UnitRequest::default() }
    }

    #[test]
    fn a_slice_and_properties_need_systemd_and_a_scope() {
        let slice = UnitRequest { slice: Some("a.slice".to_owned()), ..UnitRequest::default() };
        let error = plan(&slice, &host(false)).unwrap_err();
        assert_eq!(error, "cannot give container web a slice: systemd is not the init of this host");
        let error = plan(&properties(&["TasksMax=7"]), &host(false)).unwrap_err();
        assert!(error.contains("web properties of its unit: systemd"), "{error}");
        let error = plan(&UnitRequest { keep_unit: true, ..slice.clone() }, &host(true)).unwrap_err();
        assert!(error.ends_with("go without --keep-unit"), "{error}");

        let scope = plan(&slice, &host(true)).unwrap().unwrap().scope.unwrap();
        assert_eq!((scope.name.as_str(), scope.slice.as_str()), ("machine-web.scope", "a.slice"));
        assert_eq!(plan(&UnitRequest::default(), &host(false)), Ok(None));
    }

    #[test]
    fn a_delegated_unit_is_left_only_for_a_scope_that_was_asked_for() {
        let mut host = host(true);
        let cgroup = host.cgroup.as_mut().unwrap();
        cgroup.delegated = Some(cgroup.own.clone());
        assert_eq!(plan(&UnitRequest::default(), &host).unwrap().unwrap().scope, None);
        let scope = plan(&properties(&["MemoryMax=1G"]), &host).unwrap().unwrap().scope.unwrap();
        assert_eq!((scope.slice.as_str(), scope.properties.len()), (SLICE, 1));
    }

    #[test]
    fn a_users_session_is_registered_as_no_container() {
        let mut host = host(true);
        host.cgroup.as_mut().unwrap().own = "/sys/fs/cgroup/user.slice/user-0.slice/session-3.scope".into();
        let keep = UnitRequest { keep_unit: true, ..UnitRequest::default() };
        assert!(plan(&keep, &host).unwrap_err().contains("add --register=no"));
        assert!(plan(&UnitRequest { register: false, ..keep }, &host).unwrap().unwrap().scope.is_none());
        assert!(plan(&UnitRequest::default(), &host).unwrap().unwrap().scope.is_some());
    }

    #[test]
    fn devices_of_the_scope_are_the_containers() {
        let config = ContainerConfig::new("web", "/srv/web", runtime::Payload::new(vec!["a".into()]));
        let request = properties(&["DeviceAllow=/dev/fuse rw", "DeviceAllow=", "DeviceAllow=char-pts"]);
        let devices = placed(&config, &request, None).security.devices.clone();
        let fuse = Device::Node("/dev/fuse".into());
        let pts = Device::CharGroup("pts".to_owned());
        assert_eq!(
            devices,
            [
                DeviceAllow { device: fuse, read: true, write: true, mknod: false },
                DeviceAllow { device: pts, read: true, write: true, mknod: true },
            ]
        );
        assert!(allows_all_devices(&properties(&["DevicePolicy=closed", "DevicePolicy=auto"])));
        assert!(!allows_all_devices(&properties(&["DevicePolicy=auto", "DevicePolicy=strict"])));
    }
}
