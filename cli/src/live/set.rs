//! `set`: settings of a container, at once where the kernel lets them change, and for good in its file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use runtime::instance::{self, State};
use runtime::{CpuMax, HostPaths, Resources};

use crate::change::Change;
use crate::configured::{self, Files};
use crate::events::{self, Kind};
use crate::life::edit::{self, Key, Step};
use crate::ops::{Error, Result};
use crate::settings::{Settings, SettingsError};
use crate::{files, json, nixos_boot, nixos_conf, ops};

/// The limits that can change while a container runs, by their files, and what stands for none of each.
const LIVE: [(&str, &str); 8] = [
    ("memory.max", "max"),
    ("memory.high", "max"),
    ("memory.swap.max", "max"),
    ("cpu.max", "max 100000"),
    ("cpu.weight", "100"),
    ("pids.max", "max"),
    ("cpuset.cpus", ""),
    ("cpuset.mems", ""),
];

/// What to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetRequest {
    /// The container.
    pub name: String,
    /// `KEY=VALUE` each, as [`crate::life::edit`] reads them.
    pub settings: Vec<String>,
    /// Only until the container ends.
    pub live: bool,
}

/// When a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It has, and will at every start.
    AtOnce,
    /// It has, until the container ends.
    UntilItEnds,
    /// At the next start.
    AtNextStart,
}

/// A line for a file of the container's control group.
#[derive(Debug)]
struct Write {
    file: PathBuf,
    value: String,
}

/// Makes the settings, all or none of them; when each takes effect is returned, in order.
///
/// # Errors
/// When one of them is wrong or cannot be made: nothing has changed then.
pub fn set(request: &SetRequest, paths: &HostPaths) -> Result<Vec<Effect>> {
    let name = &request.name;
    let state = instance::find(paths, name).filter(|found| found.alive).and_then(|found| found.state);
    if request.live && state.is_none() {
        return Err(ops::running(name, paths).map_or_else(|error| error, |_| ended(name)));
    }
    let change = Change::begin(name, "set", paths)?;
    let new_file = if request.live {
        check_alone(request)?;
        None
    } else {
        Some(persistent(request, paths)?)
    };
    let mut effects = Vec::new();
    let mut writes = Vec::new();
    for setting in &request.settings {
        let write = match &state {
            Some(state) => live_write(setting, state)?,
            None => None,
        };
        effects.push(match (&write, request.live) {
            (Some(_), true) => Effect::UntilItEnds,
            (Some(_), false) => Effect::AtOnce,
            (None, false) => Effect::AtNextStart,
            (None, true) => return Err(not_live(setting, name)),
        });
        writes.extend(write);
    }
    let before = apply(writes, name)?;
    if let Some((file, text)) = new_file
        && let Err(error) = write_file(&file, &text)
    {
        undo(before);
        return Err(error);
    }
    drop(change);
    events::tell(paths, name, Kind::Changed, Some(&request.settings.join(" ")));
    Ok(effects)
}

/// The container's file, and what will be in it: checked as the next start will check it.
fn persistent(request: &SetRequest, paths: &HostPaths) -> Result<(PathBuf, String)> {
    let name = &request.name;
    let Files { conf, json } = match configured::find(name, paths) {
        // One that runs and is configured by nothing, as `run` makes them.
        Err(_) if instance::find(paths, name).is_some() => {
            return Err(Error::Other(format!(
                "cannot change settings of container {name} for good: no file configures it; use `nixrun set --live`"
            )));
        }
        found => found?,
    };
    let file = json.clone().unwrap_or_else(|| paths.join("/etc/nixrun").join(format!("{name}.json")));
    if let Some(why) = declared(&file, json.as_deref().or(conf.as_deref())) {
        return Err(Error::Other(format!(
            "cannot change settings of container {name} for good: {why}; change them where the host is configured, or use \
             `nixrun set --live` until it ends"
        )));
    }
    let before = match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| Error::Other(format!("cannot read {}: {error}", file.display())))?,
    };
    let text = edit::edit(&before, &request.settings, &file).map_err(other)?;
    let document = json::parse(text.as_bytes(), &file).map_err(SettingsError::from)?;
    let conf = conf.map(|conf| nixos_conf::read(&conf)).transpose().map_err(SettingsError::from)?;
    nixos_boot::to_configs(name, &Settings::merge(conf, Some(document))?, paths)?;
    Ok((file, text))
}

/// Why the file is not ours to change, if it is not: what configures a container that NixOS declares is a link into the
/// store, or cannot be written to.
fn declared(file: &Path, source: Option<&Path>) -> Option<String> {
    if let Some(link) = source.filter(|source| source.is_symlink()) {
        return Some(format!("{} is a link, as NixOS makes them", link.display()));
    }
    let access = nix::unistd::access(file, nix::unistd::AccessFlags::W_OK);
    match access {
        Ok(()) | Err(nix::errno::Errno::ENOENT) => None,
        Err(errno) => Some(format!("{} cannot be written to ({errno})", file.display())),
    }
}

/// Settings that will be in no file are checked as if they were alone in one.
fn check_alone(request: &SetRequest) -> Result<()> {
    edit::edit("", &request.settings, Path::new("--live")).map(drop).map_err(other)
}

/// What to write for a setting, if it is one that can change now.
fn live_write(setting: &str, state: &State) -> Result<Option<Write>> {
    let (key, value) = Key::parse(setting).map_err(|problem| wrong(setting, problem))?;
    let Some((file, none)) = live_file(&key) else { return Ok(None) };
    let value = if value.is_empty() {
        none.to_owned()
    } else {
        let settings = runtime::group_settings(&state.name, &limits(setting)?)?;
        settings.into_iter().map(|setting| setting.value).collect()
    };
    let path = state.cgroup.join(file);
    if !path.exists() {
        let controller = file.split('.').next().unwrap_or_default();
        return Err(Error::Other(format!(
            "cannot set {file} of container {0} while it runs: its control group {1} does not have the controller \
             {controller}; stop it with `nixrun stop {0}` to set it for the next start",
            state.name,
            state.cgroup.display()
        )));
    }
    Ok(Some(Write { file: path, value }))
}

/// What a setting says, read as the file's model reads it.
fn limits(setting: &str) -> Result<Resources> {
    let file = Path::new("--live");
    let text = edit::edit("", &[setting.to_owned()], file).map_err(other)?;
    let document = json::parse(text.as_bytes(), file).map_err(SettingsError::from)?.document;
    let json::Resources { memory, cpu, pids, cpuset, .. } = document.resources.unwrap_or_default();
    let (memory, cpu) = (memory.unwrap_or_default(), cpu.unwrap_or_default());
    let (pids, cpuset) = (pids.unwrap_or_default(), cpuset.unwrap_or_default());
    let limits = Resources {
        memory_max: memory.max.map(|bytes| bytes.0),
        memory_high: memory.high.map(|bytes| bytes.0),
        memory_swap_max: memory.swap.unwrap_or_default().max.map(|bytes| bytes.0),
        cpu_max: cpu.max.map(|time| CpuMax { quota: time.0.quota, period: time.0.period }),
        cpu_weight: cpu.weight,
        pids_max: pids.max.map(|count| count.0),
        cpuset_cpus: cpuset.cpus.map(|list| list.0),
        cpuset_mems: cpuset.mems.map(|list| list.0),
        ..Resources::default()
    };
    match (limits.memory_max, limits.memory_high) {
        (Some(0), _) | (_, Some(0)) => Err(wrong(setting, "with 0 nothing can run; no value is no limit")),
        _ => Ok(limits),
    }
}

fn live_file(key: &Key) -> Option<(&'static str, &'static str)> {
    let names = key.steps().iter().map(|step| match step {
        Step::Name(name) => Some(name.as_str()),
        Step::Index(_) => None,
    });
    let names: Vec<&str> = names.collect::<Option<_>>()?;
    let (first, rest) = names.split_first()?;
    let file = rest.join(".");
    LIVE.into_iter().find(|(live, _)| *first == "resources" && *live == file)
}

/// Writes them all, or none: what was there before is returned, and put back if one fails.
fn apply(writes: Vec<Write>, name: &str) -> Result<Vec<Write>> {
    let mut before = Vec::new();
    for Write { file, value } in writes {
        let old = fs::read_to_string(&file).map(|old| old.trim_end().to_owned());
        let result = old.and_then(|old| fs::write(&file, &value).map(|()| old));
        match result {
            Ok(old) => before.push(Write { file, value: old }),
            Err(error) => {
                undo(before);
                return Err(Error::Other(format!(
                    "cannot set {} to {value:?} for container {name}: {error}; nothing has been changed",
                    file.display()
                )));
            }
        }
    }
    Ok(before)
}

fn undo(before: Vec<Write>) {
    for Write { file, value } in before.into_iter().rev() {
        // The error that led here is the one to be told.
        let _ = fs::write(&file, value);
    }
}

fn write_file(file: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: io::Error| Error::Other(format!("cannot write {}: {error}", file.display()));
    let mode = fs::metadata(file).map_or(0o644, |found| found.permissions().mode() & 0o7777);
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    files::replace(file, text.as_bytes(), mode).map_err(failed)
}

fn wrong(setting: &str, problem: &str) -> Error {
    Error::Other(format!("cannot set {setting:?}: {problem}"))
}

fn other(error: edit::EditError) -> Error {
    Error::Other(error.to_string())
}

fn ended(name: &str) -> Error {
    Error::Other(format!("container {name} is being started or has just ended; try again"))
}

fn not_live(setting: &str, name: &str) -> Error {
    let live: Vec<&str> = LIVE.iter().map(|(file, _)| *file).collect();
    wrong(
        setting,
        &format!(
            "it cannot change while container {name} runs, as {} can; without --live it is set for the next start",
            live.join(", ")
        ),
    )
}
