//! `nixrun create`, `destroy`, `show-ip` and `show-host-key`.

use runtime::HostPaths;

use super::{Result, printed};
use crate::args::{CreateArgs, DestroyArgs, ShowHostKeyArgs, ShowIpArgs};
use crate::life::{self, CreateRequest, Created, Doomed};
use crate::output::{self, Output};
use crate::systems::Source;
use crate::{change, configured, exit};

pub(super) fn create(args: &CreateArgs, paths: &HostPaths, out: &Output) -> Result {
    let created = life::create(&request(args), paths, &mut |line| out.note(line))?;
    if args.format.json {
        printed(out.json(&created))?;
        return Ok(exit::SUCCESS);
    }
    if let Some(line) = addresses(&created) {
        out.note(line);
    }
    if args.ensure_unique_name {
        printed(out.text(&created.name))?;
    }
    Ok(exit::SUCCESS)
}

fn request(args: &CreateArgs) -> CreateRequest {
    CreateRequest {
        name: args.name.clone(),
        unique: args.ensure_unique_name,
        source: Source::of(&args.source),
        nixos_path: args.source.nixos_path.clone(),
        bridge: args.bridge.clone(),
        ports: args.port.clone(),
        host_address: args.host_address,
        local_address: args.local_address,
        host_address6: args.host_address6,
        local_address6: args.local_address6,
        set: args.set.clone(),
        auto_start: args.auto_start,
    }
}

/// In nixos-container's words.
fn addresses(created: &Created) -> Option<String> {
    let ends = |host: Option<String>, local: Option<String>| match (host, local) {
        (Some(host), Some(local)) => Some(format!("host IP is {host}, container IP is {local}")),
        (None, Some(local)) => Some(format!("container IP is {local}")),
        _ => None,
    };
    let v4 = ends(
        created.host_address.map(|address| address.to_string()),
        created.local_address.map(|address| address.to_string()),
    );
    let v6 = ends(
        created.host_address6.map(|address| address.to_string()),
        created.local_address6.map(|address| address.to_string()),
    );
    let all: Vec<String> = v4.into_iter().chain(v6).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

pub(super) fn destroy(args: &DestroyArgs, paths: &HostPaths, out: &Output) -> Result {
    if finish(&args.name, paths)? {
        out.info(format_args!("Container {} was being destroyed already; that is done now.", args.name));
        return Ok(exit::SUCCESS);
    }
    let doomed = life::doomed(&args.name, paths)?;
    if !args.yes && output::on_terminal() && !output::confirmed(&question(&doomed)) {
        out.note(format_args!("Container {} is as it was.", args.name));
        return Ok(exit::FAILURE);
    }
    let destroyed = life::destroy(&args.name, paths)?;
    for place in &destroyed.detached {
        out.note(format_args!("{} was mounted; what is in it is as it was.", place.display()));
    }
    if let Some(root) = &doomed.stays {
        out.note(format_args!("{} was made by somebody else and stays.", root.display()));
    }
    Ok(exit::SUCCESS)
}

/// Completes a destruction that was interrupted; whether the container is gone by that.
fn finish(name: &str, paths: &HostPaths) -> std::result::Result<bool, crate::ops::Error> {
    if !change::unfinished(paths).iter().any(|known| known == name) {
        return Ok(false);
    }
    change::settle(name, paths)?;
    Ok(change::holder(name, paths).is_none() && configured::find(name, paths).is_err())
}

fn question(doomed: &Doomed) -> String {
    let running = if doomed.running { ", which runs," } else { "" };
    format!("Destroy container {}{running} with everything in {}? [y/N] ", doomed.name, doomed.root.display())
}

pub(super) fn show_ip(args: &ShowIpArgs, paths: &HostPaths, out: &Output) -> Result {
    let found = life::addresses(&args.name, paths)?;
    if args.format.json {
        printed(out.json(&found))?;
        return Ok(exit::SUCCESS);
    }
    let v4 = found.address.map(|address| address.to_string());
    let v6 = found.address6.map(|address| address.to_string());
    printed(out.text(v4.or(v6).unwrap_or_default()))?;
    Ok(exit::SUCCESS)
}

pub(super) fn show_host_key(args: &ShowHostKeyArgs, paths: &HostPaths, out: &Output) -> Result {
    let found = life::host_key(&args.name, paths)?;
    printed(if args.format.json { out.json(&found) } else { out.text(&found.key) })?;
    Ok(exit::SUCCESS)
}
