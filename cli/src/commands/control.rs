//! `nixrun stop`, `kill` and `reclaim`.

use std::time::Duration;

use runtime::HostPaths;

use super::{Result, printed};
use crate::args::{KillArgs, ReclaimArgs, StopArgs};
use crate::output::Output;
use crate::{exit, ops, service};

pub(super) fn stop(args: &StopArgs, paths: &HostPaths, out: &Output) -> Result {
    if service::stop(&args.name, Duration::from_secs(args.timeout), paths)? {
        out.warning(format_args!(
            "container {} did not shut down within {} s and was killed",
            args.name, args.timeout
        ));
    }
    Ok(exit::SUCCESS)
}

pub(super) fn kill(args: &KillArgs, paths: &HostPaths) -> Result {
    match args.signal {
        Some(signal) => ops::kill(&args.name, Some(signal), paths)?,
        None => service::terminate(&args.name, paths)?,
    }
    Ok(exit::SUCCESS)
}

pub(super) fn reclaim(args: &ReclaimArgs, paths: &HostPaths, out: &Output) -> Result {
    let reclaimed = ops::reclaim(args.name.as_deref(), paths)?;
    if args.format.json {
        printed(out.json(&reclaimed))?;
        return Ok(exit::SUCCESS);
    }
    for one in &reclaimed {
        let what =
            if one.removed.is_empty() { "nothing was left".to_owned() } else { one.removed.join(", ") };
        printed(out.text(format_args!("{}: {what}", one.name)))?;
    }
    Ok(exit::SUCCESS)
}
