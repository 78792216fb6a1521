//! `nixrun login`, `root-login`, `logs`, `pause`, `resume` and `set`.

use runtime::HostPaths;

use super::{Result, missing};
use crate::args::{LoginArgs, LogsArgs, PauseArgs, ResumeArgs, SetArgs};
use crate::output::Output;

pub(super) fn login(_args: &LoginArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("login")
}

pub(super) fn root_login(_args: &LoginArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("root_login")
}

pub(super) fn logs(_args: &LogsArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("logs")
}

pub(super) fn pause(_args: &PauseArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("pause")
}

pub(super) fn resume(_args: &ResumeArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("resume")
}

pub(super) fn set(_args: &SetArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("set")
}
