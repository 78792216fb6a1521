//! `nixrun update`, `rollback`, `generations`, `diff` and `reload`.

use std::time::Duration;

use nix::sys::signal::Signal;
use runtime::HostPaths;

use super::{Result, printed, signals};
use crate::args::{DiffArgs, GenerationsArgs, ReloadArgs, RollbackArgs, UpdateArgs};
use crate::output::Output;
use crate::service::{self, StartRequest};
use crate::systems::{
    self, Activation, Difference, Means, PackageChange, PackageChanged, RollbackRequest, Source,
    UpdateRequest, Updated,
};
use crate::{exit, ops};

/// How long a container may take to shut down when it is restarted.
const STOP_TIME: Duration = Duration::from_secs(90);

pub(super) fn update(args: &UpdateArgs, paths: &HostPaths, out: &Output) -> Result {
    let request = UpdateRequest {
        name: args.name.clone(),
        source: Source::of(&args.source),
        nixos_path: args.source.nixos_path.clone(),
        snapshot: args.snapshot,
        restart: args.restart,
    };
    let updated = with_means(paths, out, |means| systems::update(&request, paths, means))?;
    show(&updated, args.format.json, out)
}

pub(super) fn rollback(args: &RollbackArgs, paths: &HostPaths, out: &Output) -> Result {
    let request = RollbackRequest {
        name: args.name.clone(),
        generation: args.generation,
        with_data: args.with_data,
        restart: args.restart,
    };
    let updated = with_means(paths, out, |means| systems::rollback(&request, paths, means))?;
    show(&updated, args.format.json, out)
}

pub(super) fn reload(args: &ReloadArgs, paths: &HostPaths, out: &Output) -> Result {
    let system = with_means(paths, out, |means| systems::reload(&args.name, paths, means))?;
    out.info(format_args!("container {} has activated {}", args.name, system.display()));
    Ok(exit::SUCCESS)
}

pub(super) fn generations(args: &GenerationsArgs, paths: &HostPaths, out: &Output) -> Result {
    let all = systems::generations(&args.name, paths)?;
    printed(if args.format.json {
        out.json(&all)
    } else {
        let rows: Vec<_> = all
            .into_iter()
            .map(|one| {
                let state = match (one.current, one.running) {
                    (true, true) => "current, running",
                    (true, false) => "current",
                    (false, true) => "running",
                    (false, false) => "",
                };
                let date = one.added.get(..19).unwrap_or(&one.added).replace('T', " ");
                let version = one.version.unwrap_or_else(|| "gone".to_owned());
                [
                    one.generation.to_string(),
                    date,
                    state.to_owned(),
                    version,
                    one.system.display().to_string(),
                ]
            })
            .collect();
        out.table(["GENERATION", "ADDED (UTC)", "STATE", "VERSION", "SYSTEM"], &rows)
    })?;
    Ok(exit::SUCCESS)
}

pub(super) fn diff(args: &DiffArgs, paths: &HostPaths, out: &Output) -> Result {
    let difference = systems::diff(&args.name, args.from, args.to, paths)?;
    printed(if args.format.json { out.json(&difference) } else { out.text(difference_text(&difference)) })?;
    Ok(exit::SUCCESS)
}

fn with_means<T>(
    paths: &HostPaths,
    out: &Output,
    work: impl FnOnce(&mut Means<'_>) -> std::result::Result<T, ops::Error>,
) -> std::result::Result<T, ops::Error> {
    let mut means = Means {
        progress: &mut |line| out.passed_on(line),
        signals: &|| signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]),
        stop: &|name| service::stop(name, STOP_TIME, paths).map(drop),
        restart: &|name| service::restart(&StartRequest::new(name), STOP_TIME, paths).map(drop),
    };
    work(&mut means)
}

fn show(updated: &Updated, json: bool, out: &Output) -> Result {
    for warning in &updated.warnings {
        out.warning(warning);
    }
    printed(if json { out.json(updated) } else { out.text(sentence(updated)) })?;
    Ok(exit::SUCCESS)
}

fn sentence(updated: &Updated) -> String {
    let Updated { name, generation, activation, system, .. } = updated;
    let how = match activation {
        Activation::Unchanged => "which it runs already",
        Activation::Activated => "activated without a restart",
        Activation::Restarted => "restarted with it",
        Activation::AtStart => "which it will start with",
        Activation::AtRestart => "which it will have after `nixrun restart`",
    };
    let kept = updated.kept.map_or_else(String::new, |kept| {
        format!("\n{name}: the data of generation {kept} are kept, for `nixrun rollback {name} {kept} --with-data`")
    });
    format!("{name}: generation {generation}, {how}: {}{kept}", system.display())
}

fn difference_text(difference: &Difference) -> String {
    let Difference { from, to, from_system, to_system, packages, added, removed } = difference;
    let mut text =
        format!("generation {from}: {}\ngeneration {to}: {}\n", from_system.display(), to_system.display());
    for (change, title) in [
        (PackageChanged::Changed, "Other versions"),
        (PackageChanged::Added, "Added"),
        (PackageChanged::Removed, "Removed"),
    ] {
        let of_kind: Vec<&PackageChange> =
            packages.iter().filter(|package| package.change == change).collect();
        let width = of_kind.iter().map(|package| package.name.len()).max().unwrap_or(0);
        if !of_kind.is_empty() {
            text += &format!("{title}:\n");
        }
        for package in of_kind {
            text += format!("  {:width$}  {}", package.name, versions(package)).trim_end();
            text.push('\n');
        }
    }
    text + &format!("Store paths: {} added, {} removed\n", added.len(), removed.len())
}

fn versions(package: &PackageChange) -> String {
    let list = |versions: &[String]| {
        let named = versions.iter().map(|version| if version.is_empty() { "(none)" } else { version });
        named.collect::<Vec<_>>().join(", ")
    };
    match package.change {
        PackageChanged::Added => list(&package.new).replace("(none)", ""),
        PackageChanged::Removed => list(&package.old).replace("(none)", ""),
        PackageChanged::Changed if package.old.is_empty() => format!("also {}", list(&package.new)),
        PackageChanged::Changed if package.new.is_empty() => format!("no longer {}", list(&package.old)),
        PackageChanged::Changed => format!("{} -> {}", list(&package.old), list(&package.new)),
    }
}
