//! `nixrun logs`, `pause`, `resume` and `set`.

use runtime::HostPaths;

use super::{Result, missing};
use crate::args::{LogsArgs, PauseArgs, ResumeArgs, SetArgs};
use crate::output::Output;
use crate::{exit, live};

pub(super) fn logs(_args: &LogsArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("logs")
}

pub(super) fn pause(args: &PauseArgs, paths: &HostPaths, out: &Output) -> Result {
    live::pause(&args.name, paths)?;
    out.info(format_args!("Container {} is paused.", args.name));
    Ok(exit::SUCCESS)
}

pub(super) fn resume(args: &ResumeArgs, paths: &HostPaths, out: &Output) -> Result {
    live::resume(&args.name, paths)?;
    out.info(format_args!("Container {} goes on.", args.name));
    Ok(exit::SUCCESS)
}

pub(super) fn set(_args: &SetArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("set")
}
