//! What is taken over of the host's files, in nspawn's place and order (v256, `outer_child`): after the mounts that were
//! asked for, time zone, name servers, journal. Each is a step among the mounts, because what it writes to may be one.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::mounts::{Attributes, MountPlan, Source};
use crate::config::{
    ContainerConfig, Credential, JournalLink, LinkJournal, Program, ResolvConf, Timezone, Volatile,
};
use crate::error::{Error, ErrorKind};
use crate::host::{HostFacts, Localtime, SharedFiles};
use crate::resolver::NameServers;

/// Where systemd keeps journals, on the host and inside.
pub(crate) const JOURNAL: &str = "/var/log/journal";
/// Where the container finds its credentials.
pub(crate) const CREDENTIALS: &str = "/run/host/credentials";
/// Where the container's resolver looks for its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Longest credential, in bytes: systemd's `CREDENTIAL_SIZE_MAX`.
const LONGEST_CREDENTIAL: usize = 1 << 20;
/// Longest name of one: `NAME_MAX`, and systemd's `FDNAME_MAX`.
const LONGEST_NAME: usize = 255;

/// How the container's journal is connected to the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalPlan {
    /// Which way.
    pub mode: JournalLink,
    /// Whether what is in the way is no error.
    pub optional: bool,
    /// Host path of the directory of all journals.
    pub directory: PathBuf,
    /// The host's own machine id, whose journal is no container's.
    pub host_id: [u8; 16],
}

/// The credentials' mount. Files that nobody but root may read are of no use to a single process of another user, which
/// gains no privileges: nobody else is there to read them (nspawn, v256).
pub(super) fn credentials(config: &ContainerConfig) -> Result<Option<MountPlan>, Error> {
    let credentials = &config.integration.credentials;
    for (index, Credential { id, value }) in credentials.iter().enumerate() {
        let fault = if !is_credential_name(id) {
            "its name must be a file name of printable ASCII characters without ':'"
        } else if value.len() > LONGEST_CREDENTIAL {
            "it is longer than 1 MiB"
        } else if credentials[..index].iter().any(|earlier| earlier.id == *id) {
            "it is given twice"
        } else {
            continue;
        };
        return Err(Error::new(
            ErrorKind::Config,
            format!("cannot pass credential {id:?} to container {}: {fault}", config.name),
        ));
    }
    let payload = &config.payload;
    let user = payload.user.as_deref().is_some_and(|user| !crate::passwd::is_root(user));
    let alone = payload.program == Program::Command && !payload.as_pid2;
    let readable = config.security.no_new_privileges && user && alone;
    Ok((!credentials.is_empty()).then(|| MountPlan {
        target: CREDENTIALS.into(),
        source: Source::Credentials { names: credentials.iter().map(|c| c.id.clone()).collect(), readable },
        attributes: Attributes::API_RO,
        ids: None,
    }))
}

/// systemd's rule (`credential_name_valid`).
fn is_credential_name(name: &str) -> bool {
    let printable = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b':' && byte != b'/';
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(printable) && name != "." && name != ".."
}

/// The steps for time zone, name servers and journal.
pub(super) fn host_files(
    config: &ContainerConfig,
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<Vec<MountPlan>, Error> {
    let wanted = &config.integration;
    let timezone = wanted.timezone != Timezone::Off;
    let resolv_conf = wanted.resolv_conf != ResolvConf::Off;
    if !timezone && !resolv_conf && wanted.journal.mode == JournalLink::No {
        return Ok(Vec::new());
    }
    let files = &host.asked.shared;
    let mut steps = Vec::new();
    if timezone {
        self::timezone(wanted.timezone, etc_is_writable(config), files, warnings, &mut steps);
    }
    if resolv_conf {
        steps.extend(self::resolv_conf(config, files, warnings));
    }
    if journal(config, host)?.is_some() {
        steps.push(step(JOURNAL, Source::Journal));
    }
    Ok(steps)
}

/// Whether the container's /etc can be written to before it starts.
fn etc_is_writable(config: &ContainerConfig) -> bool {
    !is_read_only(config) || matches!(config.root.volatile, Volatile::Yes | Volatile::Overlay)
}

fn is_read_only(config: &ContainerConfig) -> bool {
    config.root.read_only || config.root.volatile != Volatile::No
}

fn step(target: &str, source: Source) -> MountPlan {
    MountPlan { target: target.into(), source, attributes: Attributes::NONE, ids: None }
}

fn bind(target: &str, path: &Path, follow: bool, unless: Option<PathBuf>) -> MountPlan {
    MountPlan {
        target: target.into(),
        source: Source::HostFile { path: path.to_owned(), follow, unless },
        attributes: Attributes { read_only: true, no_suid: true, no_dev: true, ..Attributes::NONE },
        ids: None,
    }
}

fn timezone(
    mode: Timezone,
    writable: bool,
    files: &SharedFiles,
    warnings: &mut Vec<String>,
    steps: &mut Vec<MountPlan>,
) {
    const TARGET: &str = "/etc/localtime";
    let mut refuse = |why: &str| warnings.push(format!("the container's time zone is not the host's: {why}"));
    let file = match &files.localtime {
        Localtime::Missing => None,
        Localtime::File(file) => Some(file),
        Localtime::Link { file, .. } => file.as_ref(),
    };
    let mode = match (mode, &files.localtime) {
        (Timezone::Auto, Localtime::Missing) => {
            if writable {
                Timezone::Delete
            } else {
                Timezone::Off
            }
        }
        (Timezone::Auto, Localtime::File(_)) => {
            if writable {
                Timezone::Copy
            } else {
                Timezone::Bind
            }
        }
        (Timezone::Auto, Localtime::Link { .. }) => {
            if writable {
                Timezone::Symlink
            } else {
                Timezone::Bind
            }
        }
        (mode, _) => mode,
    };
    match (mode, file) {
        (Timezone::Off, _) => {}
        (Timezone::Delete, _) => steps.push(step(TARGET, Source::Delete)),
        (Timezone::Symlink | Timezone::Auto, file) => {
            let Localtime::Link { to, .. } = &files.localtime else {
                return refuse("the host's /etc/localtime is no symlink");
            };
            let Some(zone) = zone_of(to) else {
                return refuse("the host's /etc/localtime leads to no file below /usr/share/zoneinfo");
            };
            let needs = Path::new("/usr/share/zoneinfo").join(zone);
            let to = Path::new("../usr/share/zoneinfo").join(zone);
            steps.push(step(TARGET, Source::Symlink { to, needs: needs.clone() }));
            // A container that does not have the zone gets its file.
            steps.extend(file.map(|file| bind(TARGET, file, true, Some(needs))));
        }
        (Timezone::Bind, Some(file)) => steps.push(bind(TARGET, file, true, None)),
        (Timezone::Copy, Some(file)) => {
            steps.push(step(TARGET, Source::Copy { from: file.clone(), replace: true }));
        }
        (Timezone::Bind | Timezone::Copy, None) => refuse("the host has no /etc/localtime"),
    }
}

/// The name of the zone that a link like /etc/localtime is for.
fn zone_of(link: &Path) -> Option<&Path> {
    let below = ["/usr/share/zoneinfo", "../usr/share/zoneinfo"]
        .iter()
        .find_map(|place| link.strip_prefix(place).ok())?;
    let plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    (plain && below != Path::new("")).then_some(below)
}

/// How a file gets into the container.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Replace,
    Copy,
    Bind,
}

fn resolv_conf(
    config: &ContainerConfig,
    files: &SharedFiles,
    warnings: &mut Vec<String>,
) -> Option<MountPlan> {
    const TARGET: &str = RESOLV_CONF;
    use ResolvConf as R;
    if config.integration.resolv_conf.follows() {
        return follow(config, files, warnings);
    }
    let way = if etc_is_writable(config) { Way::Copy } else { Way::Bind };
    let (host, resolved) = (&files.resolv_conf, &files.resolved);
    let (way, file, name) = match config.integration.resolv_conf {
        R::Off | R::Follow | R::ReplaceFollow => return None,
        R::Auto if config.network.is_private() => return None,
        R::Auto if resolved.listening && resolved.stub.is_some() => (way, &resolved.stub, "stub"),
        R::Auto if host.is_some() => (way, host, "host"),
        // A host without name servers has a container without.
        R::Auto if way == Way::Bind => return None,
        R::Auto | R::Delete => return Some(step(TARGET, Source::Delete)),
        R::ReplaceHost => (Way::Replace, host, "host"),
        R::ReplaceStatic => (Way::Replace, &resolved.fixed, "static"),
        R::ReplaceUplink => (Way::Replace, &resolved.uplink, "uplink"),
        R::ReplaceStub => (Way::Replace, &resolved.stub, "stub"),
        R::CopyHost => (Way::Copy, host, "host"),
        R::CopyStatic => (Way::Copy, &resolved.fixed, "static"),
        R::CopyUplink => (Way::Copy, &resolved.uplink, "uplink"),
        R::CopyStub => (Way::Copy, &resolved.stub, "stub"),
        R::BindHost => (Way::Bind, host, "host"),
        R::BindStatic => (Way::Bind, &resolved.fixed, "static"),
        R::BindUplink => (Way::Bind, &resolved.uplink, "uplink"),
        R::BindStub => (Way::Bind, &resolved.stub, "stub"),
    };
    let Some(file) = file else {
        let what = match name {
            "host" => "/etc/resolv.conf".to_owned(),
            name => format!("{name} resolv.conf of systemd-resolved"),
        };
        warnings.push(format!("the container keeps its own /etc/resolv.conf: the host has no {what}"));
        return None;
    };
    Some(match way {
        Way::Bind => bind(TARGET, file, false, None),
        way => step(TARGET, Source::Copy { from: file.clone(), replace: way == Way::Replace }),
    })
}

/// What the container's file is at first; it is kept up to date later.
fn follow(config: &ContainerConfig, files: &SharedFiles, warnings: &mut Vec<String>) -> Option<MountPlan> {
    let name = &config.name;
    match (&files.name_servers, &files.resolv_conf) {
        (NameServers::None, _) => {
            if config.integration.resolv_conf == ResolvConf::ReplaceFollow {
                warnings.push(format!(
                    "container {name} keeps its own /etc/resolv.conf: the host has no /etc/resolv.conf with name servers"
                ));
            }
            None
        }
        (NameServers::Loopback, _) => {
            warnings.push(format!(
                "container {name} gets no name servers: the host's listen on its loopback alone, which another network \
                 does not reach; have them listen on the host's end of the container's link, too, and name that \
                 address in the container's /etc/resolv.conf"
            ));
            None
        }
        (NameServers::Text(text), _) if etc_is_writable(config) => {
            let replace = config.integration.resolv_conf == ResolvConf::ReplaceFollow;
            Some(step(RESOLV_CONF, Source::NameServers { text: text.clone(), replace }))
        }
        // What can be done about a read-only root is what `auto` does.
        (_, Some(file)) if !config.network.is_private() => Some(bind(RESOLV_CONF, file, false, None)),
        _ => {
            warnings.push(format!(
                "container {name} keeps its own /etc/resolv.conf: its root is read-only, and the host's name servers \
                 cannot be written there"
            ));
            None
        }
    }
}

/// How the journal is connected, if it is.
pub(super) fn journal(config: &ContainerConfig, host: &HostFacts) -> Result<Option<JournalPlan>, Error> {
    let LinkJournal { mode, optional } = config.integration.journal;
    let optional = optional || mode == JournalLink::Auto;
    let files = &host.asked.shared;
    let fault = match files.machine_id {
        _ if mode == JournalLink::No => return Ok(None),
        _ if config.root.ephemeral => (ErrorKind::Config, "an ephemeral container has none that stays"),
        _ if config.root.read_only && (optional || mode == JournalLink::Guest) => {
            (ErrorKind::Config, "its root is read-only")
        }
        None => (ErrorKind::NotFound, "the host has no machine id in /etc/machine-id"),
        Some(host_id) => {
            return Ok(Some(JournalPlan { mode, optional, directory: files.journal.clone(), host_id }));
        }
    };
    match fault {
        _ if optional => Ok(None),
        (kind, why) => {
            Err(Error::new(kind, format!("cannot link the journal of container {}: {why}", config.name)))
        }
    }
}
