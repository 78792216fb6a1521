//! nixrun's mount plan as the arguments of the floor program: so both make the same number and kind of mounts, also
//! when the plan changes.

use std::ffi::OsString;
use std::path::Path;

use runtime::{ContainerConfig, HostFacts, HostPaths, MountPlan, Network, Payload, Plan, Source};

use crate::Result;

/// The steps for a container that runs a program in `root`.
pub(super) fn steps(root: &Path, network: Network) -> Result<Vec<OsString>> {
    let payload = Payload::new(vec!["/exit".into()]);
    let mut config = ContainerConfig::new("floor", root, payload);
    config.network = network;
    config.console = runtime::Console::Pipe;
    let plan = Plan::new(&config, &HostFacts::probe_for(&HostPaths::default(), &config)?)?;
    let mut steps = Vec::new();
    for mount in &plan.mounts {
        step(mount, &mut steps)?;
    }
    Ok(steps)
}

fn step(mount: &MountPlan, steps: &mut Vec<OsString>) -> Result<()> {
    let target = relative(&mount.target);
    let mut push = |step: &[OsString]| steps.extend_from_slice(step);
    let bind = |source: OsString| ["b".into(), target.clone(), source];
    match &mount.source {
        // The floor begins with it.
        Source::Root => return Ok(()),
        Source::Tmpfs { .. } => push(&["t".into(), target.clone()]),
        Source::Devpts { .. } => push(&["k".into(), target.clone(), "devpts".into()]),
        Source::Kernel(fstype) => push(&["k".into(), target.clone(), fstype.into()]),
        Source::HostPath { path, .. } => push(&bind(path.into())),
        Source::Own { path, .. } => push(&bind(relative(path))),
        Source::BootId => push(&bind("run/boot-id".into())),
        Source::KernelLog => push(&bind("run/kmsg".into())),
        // By absolute paths, which the floor looks up in the host's tree.
        Source::KernelOutside(fstype) => {
            push(&["k".into(), mount.target.clone().into(), fstype.into()]);
            return Ok(());
        }
        Source::Outside { path } => push(&bind(path.into())),
        // pivot_root refuses a shared root.
        Source::Share => push(&["p".into(), "s".into(), "/".into()]),
        Source::Remount => {}
        other => return Err(format!("the floor program has no step for {other:?}").into()),
    }
    if mount.attributes.read_only {
        push(&["r".into(), target]);
    }
    Ok(())
}

fn relative(path: &Path) -> OsString {
    path.strip_prefix("/").unwrap_or(path).into()
}
