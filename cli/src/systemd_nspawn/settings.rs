//! `.nspawn` files: where they are, whose they are, what their keys mean, and what wins.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use runtime::{HostPaths, Ownership};

use super::asked::{Asked, Given, SettingsMode, Start};
use super::options::{Entry, Id, Judgement, Key, Setting, Trust, key};
use super::set::Stop;
use super::unit_file::{self, Assignment};
use crate::nspawn::boolean;

/// The administrator's directories; the first one that has the file counts.
const DIRECTORIES: [&str; 2] = ["/etc/systemd/nspawn", "/run/systemd/nspawn"];
/// Largest file.
const SIZE_MAX: u64 = 4 << 20;
/// The sections of a file.
const SECTIONS: [&str; 3] = ["Exec", "Network", "Files"];

/// What a file asks for.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) asked: Asked,
    /// What of it was passed over, with its place.
    pub(super) warnings: Vec<String>,
}

/// Reads the settings that go with a command line and lets the one win that shall; returns the warnings.
pub(super) fn load(
    asked: &mut Asked,
    name: &str,
    root: &Path,
    here: &Path,
    paths: &HostPaths,
) -> Result<Vec<String>, String> {
    if asked.settings == SettingsMode::No {
        return Ok(Vec::new());
    }
    let Some((path, bytes, administrator)) = find(name, root, paths)? else { return Ok(Vec::new()) };
    let trusted = administrator || asked.settings == SettingsMode::Trusted;
    let file = parse(&bytes, &path, trusted, here)?;
    let mask = if asked.settings == SettingsMode::Override { Given::default() } else { asked.given };
    merge(asked, file.asked, mask);
    Ok(file.warnings)
}

/// The file of this name: the administrator's, else the one beside the root.
fn find(name: &str, root: &Path, paths: &HostPaths) -> Result<Option<(PathBuf, Vec<u8>, bool)>, String> {
    let administrator = DIRECTORIES.map(|directory| (paths.join(directory).join(name), true));
    let beside = root.parent().map(|parent| (parent.join(name), false));
    for (path, trusted) in administrator.into_iter().chain(beside) {
        match read(&path) {
            Ok(bytes) => return Ok(Some((path, bytes, trusted))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("Failed to open {}: {error}", path.display())),
        }
    }
    Ok(None)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 4 MiB"));
    }
    Ok(bytes)
}

/// Reads a file's content; `trusted` says whether it is the administrator's.
///
/// # Errors
/// One sentence, when the file cannot be used at all, or asks for what nixrun refuses.
pub(super) fn parse(bytes: &[u8], path: &Path, trusted: bool, here: &Path) -> Result<Settings, String> {
    let place = |line: usize| format!("{}:{line}", path.display());
    let file = unit_file::parse(bytes, &SECTIONS)
        .map_err(|(line, sentence)| format!("{}: {sentence}", place(line)))?;
    let mut settings = Settings::default();
    let mut warnings = file.warnings;
    for assignment in &file.assignments {
        let Assignment { section, key: name, value, line } = assignment;
        let warning = match key(section, name) {
            None if name.starts_with("X-") => continue,
            None => format!("Unknown key '{name}' in section [{section}], ignoring."),
            Some((_, key)) if !trusted && !allowed(key.trust, value) => {
                format!(
                    "Ignoring {name}= setting, the file is not trusted; --settings=trusted or a copy in {} helps.",
                    DIRECTORIES[0]
                )
            }
            Some((entry, key)) => match apply(&mut settings.asked, entry, key, value, here) {
                Ok(()) => continue,
                Err(Stop::Fault(sentence)) if matches!(entry.judgement, Judgement::Refused(_)) => {
                    return Err(format!("{}: {name}= cannot be used: {sentence}", place(*line)));
                }
                Err(Stop::Fault(sentence)) => format!("{name}= is ignored: {sentence}"),
                Err(Stop::Print(_)) => format!("{name}={value} is ignored: it is for command lines only"),
            },
        };
        warnings.push((*line, warning));
    }
    warnings.sort_by_key(|(line, _)| *line);
    settings.warnings =
        warnings.into_iter().map(|(line, sentence)| format!("{}: {sentence}", place(line))).collect();
    Ok(settings)
}

/// Whether anybody's file may have such a key.
fn allowed(trust: Trust, value: &str) -> bool {
    match trust {
        Trust::Anyone => true,
        Trust::Administrator => false,
        Trust::Restricting => value.starts_with('~') || value.is_empty(),
    }
}

/// Takes one assignment over. An empty value unsets.
fn apply(asked: &mut Asked, entry: &Entry, key: Key, value: &str, here: &Path) -> Result<(), Stop> {
    let set = |asked: &mut Asked, value: &str| asked.set(entry.id, Some(value), here);
    match entry.id {
        Id::Boot => return begin(asked, Start::Boot, value),
        Id::AsPid2 => return begin(asked, Start::Pid2, value),
        Id::Ephemeral | Id::ReadOnly | Id::PrivateNetwork | Id::NetworkVeth | Id::PrivateUsersChown => {
            return flag(asked, entry, value, here);
        }
        Id::Parameters => {
            if value.is_empty() {
                asked.parameters.clear();
            }
            let words = unit_file::words(value).map_err(|right| format!("expected {right}"))?;
            asked.parameters.extend(words.into_iter().map(Into::into));
            asked.given.add(Setting::StartMode);
        }
        Id::Setenv => {
            if value.is_empty() {
                asked.environment.clear();
            }
            for word in unit_file::words(value).map_err(|right| format!("expected {right}"))? {
                set(asked, &word)?;
            }
        }
        Id::Capability | Id::DropCapability | Id::AmbientCapability => {
            for word in unit_file::words(value).map_err(|right| format!("expected {right}"))? {
                set(asked, &word)?;
            }
        }
        Id::NetworkInterface | Id::NetworkMacvlan | Id::NetworkIpvlan => {
            for word in value.split_whitespace() {
                set(asked, word)?;
            }
        }
        Id::Rlimit => {
            let name = key.name.strip_prefix("Limit").unwrap_or(key.name);
            if value.is_empty() {
                asked.limits.retain(|limit| limit.name != name);
            } else {
                set(asked, &format!("{name}={value}"))?;
            }
        }
        Id::CpuAffinity => {
            let before = asked.cpu_affinity.clone().filter(|_| !value.is_empty());
            set(asked, value)?;
            if let Some(cpus) = &mut asked.cpu_affinity {
                cpus.extend(before.into_iter().flatten());
                cpus.sort_unstable();
                cpus.dedup();
            }
        }
        _ if value.is_empty() && unsets(asked, entry.id) => {}
        _ => set(asked, value)?,
    }
    Ok(())
}

/// Unsets what an empty value unsets.
fn unsets(asked: &mut Asked, id: Id) -> bool {
    match id {
        Id::User => asked.user = None,
        Id::Chdir => asked.chdir = None,
        Id::OomScoreAdjust => asked.oom_score_adjust = None,
        Id::NotifyReady => asked.notify_ready = false,
        Id::NoNewPrivileges => asked.no_new_privileges = false,
        Id::SuppressSync => asked.suppress_sync = None,
        Id::Hostname => asked.hostname = None,
        _ => return false,
    }
    true
}

fn begin(asked: &mut Asked, start: Start, value: &str) -> Result<(), Stop> {
    let on = boolean(value)?;
    let conflict = if on { asked.start != Start::Pid1 && asked.start != start } else { asked.start == start };
    if conflict {
        return Err("Conflicting Boot= or ProcessTwo= setting found".to_owned().into());
    }
    if on {
        asked.start = start;
    }
    asked.given.add(Setting::StartMode);
    Ok(())
}

/// What is a flag on the command line is yes, no or nothing here.
fn flag(asked: &mut Asked, entry: &Entry, value: &str, here: &Path) -> Result<(), Stop> {
    if value.is_empty() {
        return Ok(());
    }
    let on = boolean(value)?;
    asked.set(entry.id, None, here)?;
    match entry.id {
        Id::Ephemeral => asked.ephemeral = on,
        Id::ReadOnly => asked.read_only = on,
        Id::PrivateNetwork => asked.network.private = Some(on),
        Id::NetworkVeth => asked.network.veth = Some(on),
        Id::PrivateUsersChown if !on => asked.ownership = Some(Ownership::Off),
        _ => {}
    }
    Ok(())
}

/// Takes over what the file has said, but not where the mask says that somebody else has.
fn merge(asked: &mut Asked, file: Asked, mask: Given) {
    for setting in Setting::ALL.into_iter().filter(|setting| file.given.has(*setting) && !mask.has(*setting))
    {
        asked.given.add(setting);
        match setting {
            Setting::StartMode => {
                (asked.start, asked.parameters) = (file.start, file.parameters.clone());
            }
            Setting::Ephemeral => asked.ephemeral = file.ephemeral,
            Setting::PivotRoot => asked.pivot_root.clone_from(&file.pivot_root),
            Setting::WorkingDirectory => asked.chdir.clone_from(&file.chdir),
            Setting::Environment => asked.environment.clone_from(&file.environment),
            Setting::User => asked.user.clone_from(&file.user),
            Setting::Capability => {
                asked.capability = file.capability;
                asked.drop_capability = file.drop_capability;
                asked.ambient_capability = file.ambient_capability;
            }
            Setting::KillSignal => asked.kill_signal = file.kill_signal,
            Setting::Personality => asked.personality = file.personality,
            Setting::MachineId => asked.uuid = file.uuid,
            Setting::ReadOnly => asked.read_only = file.read_only,
            Setting::Volatile => asked.volatile = file.volatile,
            Setting::CustomMounts => asked.mounts.clone_from(&file.mounts),
            Setting::Network => asked.network.clone_from(&file.network),
            Setting::ExposePorts => asked.ports.clone_from(&file.ports),
            Setting::Users => (asked.users, asked.ownership) = (file.users, file.ownership),
            Setting::NotifyReady => asked.notify_ready = file.notify_ready,
            Setting::SystemCallFilter => asked.system_calls.clone_from(&file.system_calls),
            Setting::Hostname => asked.hostname.clone_from(&file.hostname),
            Setting::NoNewPrivileges => asked.no_new_privileges = file.no_new_privileges,
            Setting::OomScoreAdjust => asked.oom_score_adjust = file.oom_score_adjust,
            Setting::CpuAffinity => asked.cpu_affinity.clone_from(&file.cpu_affinity),
            Setting::ResolvConf => asked.resolv_conf = file.resolv_conf,
            Setting::LinkJournal => asked.link_journal = file.link_journal,
            Setting::Timezone => asked.timezone = file.timezone,
            Setting::SuppressSync => asked.suppress_sync = file.suppress_sync,
            // No key of a file sets these.
            Setting::Directory
            | Setting::Slice
            | Setting::Console
            | Setting::Credentials
            | Setting::BindUser => {}
        }
    }
    // Each limit is decided by itself.
    let command_line_wins = asked.settings != SettingsMode::Override;
    for limit in file.limits {
        match asked.limits.iter_mut().find(|known| known.name == limit.name) {
            Some(_) if command_line_wins => {}
            Some(known) => *known = limit,
            None => asked.limits.push(limit),
        }
    }
}
