//! `nixrun cp`, `export` and `import`.

use runtime::HostPaths;

use super::{Result, missing};
use crate::args::{CpArgs, ExportArgs, ImportArgs};
use crate::output::Output;

pub(super) fn cp(_args: &CpArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("cp")
}

pub(super) fn export(_args: &ExportArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("export")
}

pub(super) fn import(_args: &ImportArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("import")
}
