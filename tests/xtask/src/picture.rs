//! `cargo xtask picture`: docs/top.svg and docs/plan.svg, drawn from what a terminal shows when the sample containers run.

mod svg;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use blackbox::Pty;
use fixture::Kind;
use support::Host;

use crate::Result;
use crate::demo::{build_nixrun, get};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build nixrun without optimisation, which takes a fraction of the time
    #[arg(long)]
    debug: bool,
}

/// The terminal.
const COLUMNS: u16 = 100;
const ROWS: u16 = 30;
/// The containers, by name; one is only configured.
const CONTAINERS: [(Kind, &str); 3] = [(Kind::Web, "nextcloud"), (Kind::Base, "base"), (Kind::Mini, "mini")];
/// How long one may take to get ready on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why it failed, on its way out of the host's thread.
struct Failed(String);

impl From<support::Error> for Failed {
    fn from(error: support::Error) -> Failed {
        Failed(error.to_string())
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err("the pictures need root: they are of containers that run".into());
    }
    let nixrun = fs::canonicalize(build_nixrun(args.debug)?)?;
    let built = CONTAINERS.map(|(kind, name)| fixture::build(kind, 1).map(|built| (built, name)));
    let pictures = Host::with(|host| {
        let on_host = || -> Result<Vec<(&str, String)>> {
            for built in built {
                let (built, name) = built?;
                fixture::install(&built, host.root(), name)?;
            }
            draw(&Demo { host, nixrun: &nixrun })
        };
        on_host().map_err(|error| Failed(error.to_string()))
    });
    for (file, text) in pictures.map_err(|Failed(why)| why)? {
        let file = Path::new("docs").join(file);
        fs::write(&file, text)?;
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

struct Demo<'a> {
    host: &'a Host,
    nixrun: &'a Path,
}

/// A `nixrun boot` that is ended when it is dropped.
struct Booted(Child);

impl Drop for Booted {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

impl Demo<'_> {
    fn nixrun(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(self.nixrun);
        command.arg("--host-root").arg(self.host.root()).args(arguments).env("TERM", "xterm-256color");
        command
    }

    fn boot(&self, name: &str) -> Result<Booted> {
        let log = fs::File::create(self.host.root().join(format!("{name}.console")))?;
        let booted = Booted(self.nixrun(&["boot", name]).stdout(log.try_clone()?).stderr(log).spawn()?);
        let begun = Instant::now();
        loop {
            let status = self.nixrun(&["status", "--json", name]).output()?;
            if String::from_utf8_lossy(&status.stdout).contains("\"phase\": \"running\"") {
                return Ok(booted);
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("container {name} did not get ready").into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn draw(demo: &Demo<'_>) -> Result<Vec<(&'static str, String)>> {
    let plan = plan(demo)?;
    let _running = CONTAINERS.iter().map(|(_, name)| demo.boot(name)).collect::<Result<Vec<_>>>()?;
    Ok(vec![("plan.svg", plan), ("top.svg", top(demo)?)])
}

/// The screen after `nixrun plan`, as long as it is.
fn plan(demo: &Demo<'_>) -> Result<String> {
    let pty = Pty::spawn(&demo.nixrun(&["plan", "mini"]), ROWS, COLUMNS);
    let (code, seen) = pty.wait();
    if code != Some(0) {
        return Err(format!("nixrun plan failed: {seen}").into());
    }
    Ok(svg::draw("nixrun plan mini", &anonymous(&seen, demo), COLUMNS))
}

/// The screen of `nixrun top` while pages are fetched, once it has looked a few times.
fn top(demo: &Demo<'_>) -> Result<String> {
    let mut pty = Pty::spawn(&demo.nixrun(&["top", "--interval", "1"]), ROWS, COLUMNS);
    let mut last = String::new();
    for _ in 0..4 {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(900) {
            get("127.0.0.1:8080", "/")?;
        }
        // A frame begins at the upper left and ends by clearing what is below.
        last = pty.expect("\u{1b}[J");
    }
    pty.type_in("q");
    pty.wait();
    Ok(svg::draw("nixrun top", last.rsplit("\u{1b}[H").next().unwrap_or_default(), COLUMNS))
}

/// Without the directory that stands for the host's root.
fn anonymous(text: &str, demo: &Demo<'_>) -> String {
    text.replace(&demo.host.root().display().to_string(), "")
}
