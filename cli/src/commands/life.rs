//! `nixrun create`, `destroy`, `show-ip` and `show-host-key`.

use runtime::HostPaths;

use super::{Result, missing};
use crate::args::{CreateArgs, DestroyArgs, ShowHostKeyArgs, ShowIpArgs};
use crate::output::Output;

pub(super) fn create(_args: &CreateArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("create")
}

pub(super) fn destroy(_args: &DestroyArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("destroy")
}

pub(super) fn show_ip(_args: &ShowIpArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("show_ip")
}

pub(super) fn show_host_key(_args: &ShowHostKeyArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("show_host_key")
}
