//! Options that mount something, in systemd-nspawn's grammar of colons and backslashes.

use std::path::Path;

use runtime::{BindSource, Mount};

use super::set::Stop;
use crate::nspawn;

/// `PATH[:PATH[:OPTIONS]]`.
pub(super) fn bind(text: &str, read_only: bool, here: &Path) -> Result<Mount, Stop> {
    let fault = |right| format!("Failed to parse --bind(-ro)= argument {text}: {right}");
    Ok(nspawn::bind(text, read_only, here).map_err(fault)?)
}

/// `PATH[:OPTIONS]`.
pub(super) fn tmpfs(text: &str) -> Result<Mount, Stop> {
    let fault = |right| format!("Failed to parse --tmpfs= argument {text}: {right}");
    Ok(nspawn::tmpfs(text).map_err(fault)?)
}

/// `PATH`.
pub(super) fn inaccessible(text: &str) -> Result<Mount, Stop> {
    let fault = |right| format!("Failed to parse --inaccessible= argument {text}: {right}");
    Ok(Mount::Inaccessible { target: nspawn::inside(text).map_err(fault)? })
}

/// `PATH[:PATH...]:PATH`.
pub(super) fn overlay(text: &str, read_only: bool, here: &Path) -> Result<Mount, Stop> {
    let fault =
        |right: String| Stop::Fault(format!("Failed to parse --overlay(-ro)= argument {text}: {right}"));
    let (words, _) = nspawn::colons(text, usize::MAX).map_err(fault)?;
    let few = "--overlay(-ro)= needs at least two colon-separated directories specified.";
    let read = |lower: &[String], upper: Option<BindSource>, target: &str| -> Result<Mount, String> {
        let mut lower =
            lower.iter().map(|word| nspawn::source(word, here)).collect::<Result<Vec<_>, String>>()?;
        let target = nspawn::inside(target)?;
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
            let top = nspawn::source(upper, here).map_err(fault)?;
            let target = match &top {
                BindSource::Host(path) | BindSource::InRoot(path) => path.to_string_lossy().into_owned(),
                BindSource::Temporary => String::new(),
            };
            read(std::slice::from_ref(lower), Some(top), &target).map_err(fault)
        }
        [lower @ .., upper, target] => {
            let top = nspawn::source_or_temporary(upper, here).map_err(fault)?;
            read(lower, Some(top), target).map_err(fault)
        }
    }
}
