//! Options that mount something, in systemd-nspawn's grammar of colons and backslashes.

use std::path::Path;

use runtime::{BindIds, BindSource, Mount};

use super::set::Stop;
use super::values::{self, Value};

/// A path that something is mounted from.
fn source(text: &str, here: &Path) -> Value<BindSource> {
    match text.strip_prefix('+') {
        _ if text.is_empty() => Err("a path".to_owned()),
        Some(within) => Ok(BindSource::InRoot(values::inside(within)?)),
        None => Ok(BindSource::Host(values::absolute(text, here))),
    }
}

fn source_or_temporary(text: &str, here: &Path) -> Value<BindSource> {
    if text.is_empty() { Ok(BindSource::Temporary) } else { source(text, here) }
}

/// `PATH[:PATH[:OPTIONS]]`.
pub(super) fn bind(text: &str, read_only: bool, here: &Path) -> Result<Mount, Stop> {
    let read = || -> Value<Mount> {
        let (words, options) = values::colons(text, 2)?;
        let from = words.first().map_or("", String::as_str);
        let to = words.get(1).map_or_else(|| from.strip_prefix('+').unwrap_or(from), String::as_str);
        let (recursive, ids) = bind_options(options.unwrap_or_default())?;
        let target = values::inside(to)?;
        Ok(Mount::Bind { source: source_or_temporary(from, here)?, target, read_only, recursive, ids })
    };
    Ok(read().map_err(|right| {
        let right = right.strip_prefix("expected ").unwrap_or(&right);
        format!("Failed to parse --bind(-ro)= argument {text}: expected {right}")
    })?)
}

fn bind_options(text: &str) -> Value<(bool, BindIds)> {
    let (mut recursive, mut ids) = (true, BindIds::Auto);
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rbind" => recursive = true,
            "norbind" => recursive = false,
            "noidmap" => ids = BindIds::Host,
            "idmap" => ids = BindIds::Map,
            "rootidmap" => ids = BindIds::Root,
            "owneridmap" => ids = BindIds::Owner,
            _ => {
                return Err(format!(
                    "rbind, norbind, noidmap, idmap, rootidmap or owneridmap in place of the option {option:?}"
                ));
            }
        }
    }
    Ok((recursive, ids))
}

/// `PATH[:OPTIONS]`.
pub(super) fn tmpfs(text: &str) -> Result<Mount, Stop> {
    let read = || -> Value<Mount> {
        let (words, options) = values::colons(text, 1)?;
        let target = values::inside(words.first().map_or("", String::as_str))?;
        let options = options.filter(|options| !options.is_empty()).unwrap_or("mode=0755").to_owned();
        Ok(Mount::Tmpfs { target, options })
    };
    Ok(read().map_err(|right| {
        let right = right.strip_prefix("expected ").unwrap_or(&right);
        format!("Failed to parse --tmpfs= argument {text}: expected {right}")
    })?)
}

/// `PATH`.
pub(super) fn inaccessible(text: &str) -> Result<Mount, Stop> {
    let fault = |right| format!("Failed to parse --inaccessible= argument {text}: {right}");
    Ok(Mount::Inaccessible { target: values::inside(text).map_err(fault)? })
}

/// `PATH[:PATH...]:PATH`.
pub(super) fn overlay(text: &str, read_only: bool, here: &Path) -> Result<Mount, Stop> {
    let fault = |right: String| {
        let right = right.strip_prefix("expected ").unwrap_or(&right);
        Stop::Fault(format!("Failed to parse --overlay(-ro)= argument {text}: expected {right}"))
    };
    let (words, _) = values::colons(text, usize::MAX).map_err(fault)?;
    let few = "--overlay(-ro)= needs at least two colon-separated directories specified.";
    let read = |lower: &[String], upper: Option<BindSource>, target: &str| -> Value<Mount> {
        let mut lower = lower.iter().map(|word| source(word, here)).collect::<Value<Vec<_>>>()?;
        let target = values::inside(target)?;
        match upper {
            // A layer that nobody writes to is one more that is read, unless it would be empty.
            Some(top) if read_only => {
                lower.extend((top != BindSource::Temporary).then_some(top));
                Ok(Mount::Overlay { lower, upper: None, target })
            }
            upper => Ok(Mount::Overlay { lower, upper, target }),
        }
    };
    match words.as_slice() {
        [] | [_] => Err(Stop::Fault(few.to_owned())),
        [lower, upper] => {
            let top = source(upper, here).map_err(fault)?;
            let target = match &top {
                BindSource::Host(path) | BindSource::InRoot(path) => path.to_string_lossy().into_owned(),
                BindSource::Temporary => String::new(),
            };
            read(std::slice::from_ref(lower), Some(top), &target).map_err(fault)
        }
        [lower @ .., upper, target] => {
            let top = source_or_temporary(upper, here).map_err(fault)?;
            read(lower, Some(top), target).map_err(fault)
        }
    }
}
