//! `nixrun update`, `rollback`, `generations`, `diff` and `reload`.

use runtime::HostPaths;

use super::{Result, missing};
use crate::args::{DiffArgs, GenerationsArgs, Global, ReloadArgs, RollbackArgs, UpdateArgs};
use crate::output::Output;

pub(super) fn update(_args: &UpdateArgs, _global: &Global, _paths: &HostPaths, _out: &Output) -> Result {
    missing("update")
}

pub(super) fn rollback(_args: &RollbackArgs, _global: &Global, _paths: &HostPaths, _out: &Output) -> Result {
    missing("rollback")
}

pub(super) fn generations(_args: &GenerationsArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("generations")
}

pub(super) fn diff(_args: &DiffArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("diff")
}

pub(super) fn reload(_args: &ReloadArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("reload")
}
