//! `nixrun top`, `events`, `stats`, `inspect` and `metrics`.

use runtime::HostPaths;

use super::{Result, missing};
use crate::args::{EventsArgs, InspectArgs, MetricsArgs, StatsArgs, TopArgs};
use crate::output::Output;

pub(super) fn top(_args: &TopArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("top")
}

pub(super) fn events(_args: &EventsArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("events")
}

pub(super) fn stats(_args: &StatsArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("stats")
}

pub(super) fn inspect(_args: &InspectArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("inspect")
}

pub(super) fn metrics(_args: &MetricsArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("metrics")
}
