//! `nixrun list`, `status`, `plan` and `doctor`.

use runtime::{Console, HostPaths};

use super::{Result, nspawn, printed};
use crate::args::{Format, PlanArgs, SchemaArgs, StatusArgs};
use crate::ops::{self, BootOptions, Error, Listed, Planned};
use crate::output::{Cell, Output};
use crate::settings::SettingsError;
use crate::top::{self, age};
use crate::{doctor, exit, json, outputs};

pub(super) fn list(format: Format, paths: &HostPaths, out: &Output) -> Result {
    let all = ops::list(paths)?;
    if format.json {
        let all: Vec<Listed> = all.into_iter().map(|one| one.with_files(paths)).collect();
        printed(out.json(&all))?;
        return Ok(exit::SUCCESS);
    }
    let row = |one: &Listed| {
        [
            Cell::new(&one.name),
            Cell::new(one.phase.to_string()).coloured(top::colour(one.phase)),
            Cell::new(number(one.leader)),
            Cell::new(one.uptime.map(age).unwrap_or_default()),
            Cell::new(one.addresses.join(" ")),
        ]
    };
    let rows: Vec<[Cell; 5]> = all.iter().map(row).collect();
    printed(out.table(["NAME", "STATE", "PID", "AGE", "ADDRESSES"], &rows))?;
    Ok(exit::SUCCESS)
}

pub(super) fn status(args: &StatusArgs, paths: &HostPaths, out: &Output) -> Result {
    let one = ops::status(&args.name, paths)?.with_files(paths);
    if args.format.json {
        printed(out.json(&one))?;
        return Ok(exit::SUCCESS);
    }
    printed(out.text(describe(&one, out)))?;
    Ok(exit::SUCCESS)
}

fn describe(one: &Listed, out: &Output) -> String {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let lines = [
        ("state", Some(out.painted(one.phase, top::colour(one.phase)))),
        ("since", one.uptime.map(|seconds| format!("{} ago", age(seconds)))),
        ("pid", one.leader.map(|pid| pid.to_string())),
        ("supervisor", one.supervisor.map(|pid| pid.to_string())),
        ("processes", one.processes.map(|count| count.to_string())),
        ("addresses", (!one.addresses.is_empty()).then(|| one.addresses.join(" "))),
        ("program", one.program.clone()),
        ("uuid", one.uuid.clone()),
        ("root", path(&one.root)),
        ("cgroup", path(&one.cgroup)),
        ("configuration", path(&one.configuration)),
        (
            "declared",
            one.declarative.filter(|declared| *declared).map(|_| "by the host's configuration".to_owned()),
        ),
        ("system", path(&one.system)),
        ("generation", one.generation.map(|number| number.to_string())),
        ("starts", one.auto_start.filter(|starts| *starts).map(|_| "with the host".to_owned())),
    ];
    let mut text = format!("{}\n", one.name);
    for (key, value) in lines {
        if let Some(value) = value {
            text += &format!("  {key:<14}{value}\n");
        }
    }
    text
}

pub(super) fn plan(args: &PlanArgs, paths: &HostPaths, out: &Output) -> Result {
    let request = if args.nspawn {
        match nspawn::request(&args.words, paths, out)? {
            Some(request) => request,
            None => return Ok(exit::SUCCESS),
        }
    } else {
        let name = args.name.as_deref().unwrap_or_default();
        let options = BootOptions { nat: args.nat.nat.clone(), console: None };
        ops::configured_request(name, &options, Console::ReadOnly, paths)?
    };
    let planned = Planned::for_reading(&request, paths)?;
    if args.format.json {
        printed(out.json(&planned))?;
        return Ok(exit::SUCCESS);
    }
    printed(out.text(&planned))?;
    Ok(exit::SUCCESS)
}

pub(super) fn schema(args: &SchemaArgs, paths: &HostPaths, out: &Output) -> Result {
    if let Some(command) = &args.of {
        let schema = outputs::schema_of(command).ok_or_else(|| {
            let known: Vec<&str> = outputs::commands().collect();
            Error::Other(format!(
                "there is no schema of {command:?}; there are those of {}",
                known.join(", ")
            ))
        })?;
        printed(out.json(&schema))?;
        return Ok(exit::SUCCESS);
    }
    let Some(file) = &args.check else {
        printed(out.json(&json::schema()))?;
        return Ok(exit::SUCCESS);
    };
    let file = paths.join(file);
    match json::read(&file).map_err(SettingsError::from)? {
        Some(_) => Ok(exit::SUCCESS),
        None => Err(Error::Other(format!("cannot check {}: it does not exist", file.display()))),
    }
}

pub(super) fn doctor(format: Format, paths: &HostPaths, out: &Output) -> Result {
    let checks = doctor::doctor(paths, netsetup::foreign_forward_drops().ok().as_deref());
    printed(if format.json { out.json(&checks) } else { out.text(doctor::report(&checks, out.colours())) })?;
    Ok(if doctor::worst(&checks) == doctor::Status::Fail { exit::FAILURE } else { exit::SUCCESS })
}

fn number(value: Option<i32>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
