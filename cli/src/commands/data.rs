//! `nixrun cp`, `export` and `import`.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use runtime::HostPaths;

use super::{Result, printed, signals};
use crate::archive::{self, ExportRequest, ImportRequest, Target, Totals, Watch};
use crate::args::{CpArgs, ExportArgs, ImportArgs};
use crate::exit;
use crate::ops::Error;
use crate::output::Output;
use crate::transfer::{self, CopyRequest};

/// How often the terminal is told how far it is.
const TELL: Duration = Duration::from_millis(200);

/// Shows progress, and takes a signal for the wish to end.
struct Meter<'o> {
    out: &'o Output,
    doing: String,
    signals: SignalFd,
    begun: Instant,
    told: Option<Instant>,
}

impl<'o> Meter<'o> {
    fn new(out: &'o Output, doing: String) -> std::result::Result<Meter<'o>, Error> {
        let signals = signals::take(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
        Ok(Meter { out, doing, signals, begun: Instant::now(), told: None })
    }
}

impl Watch for Meter<'_> {
    fn goes_on(&mut self, done: Totals) -> bool {
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
            let Totals { files, bytes } = done;
            let speed = amount((bytes as f64 / seconds) as u64);
            self.out.progress(&format!("{}: {}, {files} files, {speed}/s", self.doing, amount(bytes)));
        }
        !matches!(self.signals.read_signal(), Ok(Some(_)))
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        if self.told.is_some() {
            self.out.progress("");
        }
    }
}

/// An amount of data for people.
fn amount(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes as f64;
    let mut unit = "B";
    for next in units {
        if scaled < 1024.0 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{scaled:.1} {unit}") }
}

fn is_stream(file: &Path) -> bool {
    file == Path::new("-")
}

pub(super) fn cp(args: &CpArgs, paths: &HostPaths, out: &Output) -> Result {
    let request = CopyRequest { source: args.source.clone(), target: args.target.clone() };
    let mut meter = Meter::new(out, format!("copying {}", args.source))?;
    let done = transfer::copy(&request, &mut meter, paths);
    drop(meter);
    done?.iter().for_each(|warning| out.warning(warning));
    Ok(exit::SUCCESS)
}

pub(super) fn export(args: &ExportArgs, paths: &HostPaths, out: &Output) -> Result {
    let request = ExportRequest { name: args.name.clone(), running: args.running };
    let mut stdout = io::stdout();
    if is_stream(&args.file) && stdout.is_terminal() {
        return Err(Error::Other(format!(
            "cannot export container {} to a terminal; name a file, or connect stdout to something else",
            args.name
        )));
    }
    let target = if is_stream(&args.file) {
        Target::Stream(&mut stdout as &mut dyn Write)
    } else {
        Target::File { path: args.file.clone(), force: args.force }
    };
    let mut meter = Meter::new(out, format!("exporting {}", args.name))?;
    let done = archive::export(&request, target, &mut meter, paths);
    drop(meter);
    let done = done?;
    done.warnings.iter().for_each(|warning| out.warning(warning));
    let Totals { files, bytes } = done.totals;
    out.info(format_args!("Exported container {}: {files} files, {}.", args.name, amount(bytes)));
    Ok(exit::SUCCESS)
}

pub(super) fn import(args: &ImportArgs, paths: &HostPaths, out: &Output) -> Result {
    let shown = if is_stream(&args.file) { "stdin".to_owned() } else { args.file.display().to_string() };
    let mut stream: Box<dyn Read> = if is_stream(&args.file) {
        Box::new(io::stdin())
    } else {
        Box::new(
            File::open(&args.file)
                .map_err(|error| Error::Other(format!("cannot import {shown}: {error}")))?,
        )
    };
    let request =
        ImportRequest { from: shown.clone(), name: args.name.clone(), new_addresses: args.new_addresses };
    let mut meter = Meter::new(out, format!("importing {shown}"))?;
    let done = archive::import(&request, &mut stream, &mut meter, paths);
    drop(meter);
    let done = done?;
    done.warnings.iter().for_each(|warning| out.warning(warning));
    if let Some(system) = &done.missing {
        let (name, system) = (&done.name, system.display());
        out.warning(format_args!(
            "container {name} cannot start yet: its system {system} is not in this host's Nix store; copy it with \
             `nix copy --from ssh://OLD-HOST {system}`, and then run `nixrun update {name} --system-path {system}`"
        ));
    }
    if args.format.json {
        printed(out.json(&done))?;
    } else {
        let addresses = done.addresses.join(" ");
        out.info(format_args!(
            "Imported container {}: {} files, {}{}{addresses}.",
            done.name,
            done.files,
            amount(done.bytes),
            if addresses.is_empty() { "" } else { ", addresses " },
        ));
    }
    Ok(exit::SUCCESS)
}
